// graph_input.cpp owns the reading of a view's rows as points of a graph; see graph_input.h.
#include "search/graph_input.h"

#include <cmath>
#include <string>

#include "base/error.h"

namespace annidx {
namespace {

// Means of rows stay finite: only a damaged file holds more.
void require_usable(const SearchView& view) {
  constexpr float kMost = 1e18f;
  for (std::uint64_t slot = 0; slot < view.item_count; ++slot) {
    const RowScalars& scalars = view.row_scalars[slot];
    if (std::fabs(scalars.mult) <= kMost && std::fabs(scalars.bias) <= kMost * kMost) continue;
    throw Error(ErrorCode::format, "the index is damaged: section 'row_scalars', entry " +
                                       std::to_string(slot) + ": expected smaller numbers");
  }
}

}  // namespace

bool describe_rows(const SearchView& view, GraphInput* input) {
  switch (view.scan) {
    case Scan::codes:
      if (!view.row_scalars) return false;
      require_usable(view);
      input->score = view.multiplies_norm() ? GraphScore::dot : GraphScore::additive;
      break;
    case Scan::byte_rows: input->score = GraphScore::manhattan; break;
    case Scan::bits: input->score = GraphScore::hamming; break;
    case Scan::vectors: return false;
  }
  input->count = view.item_count;
  input->dim = view.scorer->dim();
  const bool is_bits = view.scan == Scan::bits;
  const std::byte* rows = is_bits ? view.vectors : view.byte_rows;
  input->rows = static_cast<const std::uint8_t*>(static_cast<const void*>(rows));
  input->row_stride = is_bits ? view.row_bytes : view.scorer->dim();
  input->rows_signed = view.byte_rows_signed;
  input->scalars = view.scan == Scan::codes ? view.row_scalars : nullptr;
  return true;
}

}  // namespace annidx
