// metric.cpp owns the table of metrics and the exact keys; see metric.h.
#include "rows/metric.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "base/error.h"
#include "kernels/kernels.h"

namespace annidx {
namespace {

constexpr MetricTraits kTraits[] = {
    {Metric::angular, "angular", WorkSpace::unit, false, false, true},
    {Metric::cosine, "cosine", WorkSpace::unit, false, false, true},
    {Metric::euclidean, "euclidean", WorkSpace::scaled, false, false, true},
    {Metric::manhattan, "manhattan", WorkSpace::scaled, false, false, false},
    {Metric::dot, "dot", WorkSpace::unit, true, true, true},
    {Metric::hamming, "hamming", WorkSpace::bits, false, false, false},
};

template <class T>
const T* elements(const std::byte* row) noexcept {
  return static_cast<const T*>(static_cast<const void*>(row));
}

}  // namespace

const MetricTraits& traits_of(Metric metric) noexcept {
  for (const MetricTraits& traits : kTraits) {
    if (traits.metric == metric) return traits;
  }
  return kTraits[0];  // callers hold a validated metric
}

const char* dtype_name(Dtype dtype) noexcept {
  switch (dtype) {
    case Dtype::float32: return "float32";
    case Dtype::float16: return "float16";
    case Dtype::int8: return "int8";
    case Dtype::uint8: return "uint8";
    case Dtype::bits: return "bits";
  }
  return "unknown";
}

bool metric_allows(Metric metric, Dtype dtype) noexcept {
  if (metric == Metric::hamming) return dtype == Dtype::bits;
  if (dtype == Dtype::uint8) return metric == Metric::euclidean || metric == Metric::manhattan;
  return dtype == Dtype::float32 || dtype == Dtype::float16 || dtype == Dtype::int8;
}

void require_metric_allows(Metric metric, Dtype dtype) {
  if (metric_allows(metric, dtype)) return;
  std::string allowed;
  for (Dtype candidate : {Dtype::float32, Dtype::float16, Dtype::int8, Dtype::uint8, Dtype::bits}) {
    if (!metric_allows(metric, candidate)) continue;
    if (!allowed.empty()) allowed += ", ";
    allowed += dtype_name(candidate);
  }
  throw Error(ErrorCode::invalid_argument, std::string("dtype: metric '") + traits_of(metric).name +
                                               "' keeps vectors as " + allowed + "; got '" +
                                               dtype_name(dtype) + "'");
}

std::size_t stored_bytes(Dtype dtype, std::uint32_t dim) noexcept {
  switch (dtype) {
    case Dtype::float32: return std::size_t{4} * dim;
    case Dtype::float16: return std::size_t{2} * dim;
    case Dtype::int8:
    case Dtype::uint8: return dim;
    case Dtype::bits: return (std::size_t{dim} + 7) / 8;
  }
  return 0;
}

void decode_row(Dtype dtype, const std::byte* row, std::uint32_t dim, float* out) noexcept {
  switch (dtype) {
    case Dtype::float32: std::memcpy(out, row, std::size_t{4} * dim); return;
    case Dtype::float16: kernels().f16_to_f32(elements<std::uint16_t>(row), out, dim); return;
    case Dtype::int8: kernels().i8_to_f32(elements<std::int8_t>(row), out, dim); return;
    case Dtype::uint8: kernels().u8_to_f32(elements<std::uint8_t>(row), out, dim); return;
    case Dtype::bits: kernels().bits_to_f32(elements<std::uint8_t>(row), out, dim); return;
  }
}

// The key of each metric for each storage; chosen once, when a scorer is made.
struct KeyFunctions {
  using Function = ExactScorer::KeyFunction;

  static double cosine_key(double dot, double row_square, double query_square) noexcept {
    const double norms = std::sqrt(row_square * query_square);
    // A zero vector is orthogonal to all.
    return norms > 0.0 ? std::max(0.0, 1.0 - dot / norms) : 1.0;
  }

  template <class T, double (*Kernels::*kernel)(const float*, const T*, std::size_t)>
  static double difference(const ExactScorer& s, const ExactQuery& q, const std::byte* row) {
    return (kernels().*kernel)(q.values, elements<T>(row), s.dim_);
  }
  template <class T, DotSquare (*Kernels::*kernel)(const float*, const T*, std::size_t)>
  static double cosine(const ExactScorer& s, const ExactQuery& q, const std::byte* row) {
    const DotSquare d = (kernels().*kernel)(q.values, elements<T>(row), s.dim_);
    return cosine_key(d.dot, d.square, q.square);
  }
  template <class T, DotSquare (*Kernels::*kernel)(const float*, const T*, std::size_t)>
  static double product(const ExactScorer& s, const ExactQuery& q, const std::byte* row) {
    return -(kernels().*kernel)(q.values, elements<T>(row), s.dim_).dot;
  }
  static double hamming(const ExactScorer& s, const ExactQuery& q, const std::byte* row) {
    return kernels().hamming(q.bits, elements<std::uint8_t>(row),
                             stored_bytes(Dtype::bits, s.dim_));
  }

  static Function choose(Metric metric, Dtype dtype) noexcept {
    using f16 = std::uint16_t;
    using i8 = std::int8_t;
    using u8 = std::uint8_t;
    switch (metric) {
      case Metric::euclidean:
        switch (dtype) {
          case Dtype::float32: return difference<float, &Kernels::l2_squared_f32>;
          case Dtype::float16: return difference<f16, &Kernels::l2_squared_f16>;
          case Dtype::int8: return difference<i8, &Kernels::l2_squared_i8>;
          default: return difference<u8, &Kernels::l2_squared_u8>;
        }
      case Metric::manhattan:
        switch (dtype) {
          case Dtype::float32: return difference<float, &Kernels::l1_f32>;
          case Dtype::float16: return difference<f16, &Kernels::l1_f16>;
          case Dtype::int8: return difference<i8, &Kernels::l1_i8>;
          default: return difference<u8, &Kernels::l1_u8>;
        }
      case Metric::angular:
      case Metric::cosine:
        switch (dtype) {
          case Dtype::float32: return cosine<float, &Kernels::dot_square_f32>;
          case Dtype::float16: return cosine<f16, &Kernels::dot_square_f16>;
          default: return cosine<i8, &Kernels::dot_square_i8>;
        }
      case Metric::dot:
        switch (dtype) {
          case Dtype::float32: return product<float, &Kernels::dot_square_f32>;
          case Dtype::float16: return product<f16, &Kernels::dot_square_f16>;
          default: return product<i8, &Kernels::dot_square_i8>;
        }
      case Metric::hamming: return hamming;
    }
    return hamming;
  }
};

ExactScorer::ExactScorer(Metric metric, Dtype dtype, std::uint32_t dim, float value_scale) noexcept
    : metric_(metric),
      dtype_(dtype),
      dim_(dim),
      value_scale_(value_scale),
      key_(KeyFunctions::choose(metric, dtype)) {}

ExactQuery ExactScorer::prepare(const float* values, const std::uint8_t* bits) const noexcept {
  ExactQuery query{values, bits, 0.0, 1.0};
  if (traits_of(metric_).work == WorkSpace::unit) {
    query.square = kernels().dot_square_f32(values, values, dim_).square;
  }
  return query;
}

double ExactScorer::distance(const ExactQuery& query, double key) const noexcept {
  const double unit = value_scale_ * query.factor;
  switch (metric_) {
    case Metric::angular: return std::sqrt(2.0 * key);
    case Metric::cosine: return key;
    case Metric::euclidean: return std::sqrt(key) * unit;
    case Metric::manhattan: return key * unit;
    case Metric::dot: return key == 0.0 ? 0.0 : -key * value_scale_ * unit;
    case Metric::hamming: return key;
  }
  return key;
}

bool ExactScorer::within(double distance, double radius) const noexcept {
  return traits_of(metric_).larger_is_nearer ? distance >= radius : distance <= radius;
}

}  // namespace annidx
