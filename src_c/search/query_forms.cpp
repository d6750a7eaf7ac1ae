// query_forms.cpp owns the making of a query's forms; see query_forms.h.
#include "search/query_forms.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "base/error.h"
#include "kernels/kernels.h"

namespace annidx {
namespace {

// Values over the scale of int8 rows. Where that would overflow, all are smaller by the power of
// two that is returned: so far out, the rows' own size is below double precision.
double to_row_units(const float* values, std::size_t dim, float scale, float* out) {
  constexpr double kLargest = 1e30;
  const double largest = static_cast<double>(kernels().max_abs(values, dim)) / scale;
  const double factor =
      largest > kLargest ? std::exp2(std::ceil(std::log2(largest / kLargest))) : 1.0;
  for (std::size_t j = 0; j < dim; ++j) {
    out[j] = factor == 1.0 ? values[j] / scale : static_cast<float>(values[j] / (scale * factor));
  }
  return factor;
}

// Brings a query far outside the data (at most 1 after `scale`) to a size at which products stay
// finite: for such a query only its direction orders the items.
void tame(std::vector<float>* values, float scale) {
  const float most = 1.0e12f / scale;
  const float largest = kernels().max_abs(values->data(), values->size());
  if (largest <= most) return;
  const float factor = most / largest;
  for (float& value : *values) value *= factor;
}

}  // namespace

std::size_t item_bytes(const SearchView& view) noexcept {
  return view.transform.space == WorkSpace::bits ? view.row_bytes
                                                 : sizeof(float) * view.scorer->dim();
}

void item_values(const SearchView& view, Slot slot, std::byte* out) {
  if (view.transform.space == WorkSpace::bits) {
    std::memcpy(out, view.stored(slot), view.row_bytes);
    return;
  }
  const std::uint32_t dim = view.scorer->dim();
  auto* values = static_cast<float*>(static_cast<void*>(out));
  decode_row(view.scorer->dtype(), view.stored(slot), dim, values);
  if (view.value_scale == 1.0f) return;
  // The scale is rounded up: the largest values of all may not fit once more.
  constexpr float kLargest = std::numeric_limits<float>::max();
  for (std::uint32_t j = 0; j < dim; ++j) {
    values[j] = std::clamp(values[j] * view.value_scale, -kLargest, kLargest);
  }
}

void item_as_query(const SearchView& view, Slot slot, std::vector<std::byte>* values) {
  values->resize(item_bytes(view));
  item_values(view, slot, values->data());
  if (view.transform.space == WorkSpace::bits) return;
  const std::uint32_t dim = view.scorer->dim();
  const auto* floats = static_cast<const float*>(static_cast<const void*>(values->data()));
  if (kernels().first_nonfinite(floats, dim) == dim) return;
  throw Error(ErrorCode::format, "the index is damaged: section 'vectors', row " +
                                     std::to_string(view.slot_rows[slot]) +
                                     ": expected finite numbers");
}

void QueryForms::set(const SearchView& view, const void* values) {
  const std::uint32_t dim = view.scorer->dim();
  row_units_.resize(dim);
  is_zero_ = false;
  if (view.transform.space == WorkSpace::bits) {
    const auto* bits = static_cast<const std::uint8_t*>(values);
    exact_ = view.scorer->prepare(nullptr, bits);
    kernels().bits_to_f32(bits, row_units_.data(), dim);
    return;
  }
  const auto* floats = static_cast<const float*>(values);
  const MetricTraits& traits = traits_of(view.scorer->metric());
  const bool is_scaled = traits.work != WorkSpace::unit || traits.multiplies_norm;
  if (view.value_scale == 1.0f || !is_scaled) {
    std::memcpy(row_units_.data(), floats, sizeof(float) * dim);
    exact_ = view.scorer->prepare(floats, nullptr);
  } else {
    const double factor = to_row_units(floats, dim, view.value_scale, row_units_.data());
    exact_ = view.scorer->prepare(row_units_.data(), nullptr);
    exact_.factor = factor;
  }
  is_zero_ = view.transform.space == WorkSpace::unit && exact_.square == 0.0;
}

void QueryForms::prepare_routing(const SearchView& view) {
  const std::uint32_t dim = view.scorer->dim();
  tamed_ = row_units_;
  tame(&tamed_, view.transform.space == WorkSpace::scaled ? view.transform.work_scale : 1.0f);
  work_.resize(dim);
  view.transform.apply(tamed_.data(), work_.data());
  const std::size_t bad = kernels().first_nonfinite(work_.data(), dim);
  if (bad != dim) {
    throw Error(ErrorCode::format, "the index is damaged: section 'mean', entry " +
                                       std::to_string(bad) + ": expected a finite number");
  }
  routed_.set(work_.data(), dim, view.forest.dim4);
}

void QueryForms::prepare_scan(const SearchView& view) {
  const std::uint32_t dim = view.scorer->dim();
  if (view.scan == Scan::codes) {
    const QueryBytes bytes{routed_.values.data(), routed_.sum, routed_.step};
    make_tables(view.codes, bytes, view.multiplies_norm() ? -1.0f : -2.0f, &table_scratch_,
                &tables_);
    if (view.row_scalars) planes_.set(view.planes_of_work ? work_.data() : tamed_.data(), dim);
  } else if (view.scan == Scan::byte_rows) {
    bytes_.resize(dim);
    const float inverse = 1.0f / view.byte_scale;
    for (std::uint32_t j = 0; j < dim; ++j) {
      const float byte = std::nearbyint((tamed_[j] - view.byte_offset) * inverse);
      bytes_[j] = static_cast<std::uint8_t>(std::clamp(byte, 0.0f, 255.0f));
    }
  }
}

}  // namespace annidx
