// metric.h owns what each metric means: which storage it allows, how a row becomes a vector of the
// working space in which trees and codes live, the exact key that orders neighbours (smaller is
// nearer) and the distance a user sees. It must not know bytes on disk.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/types.h"

namespace annidx {

// The working space: what partition and codes see.
enum class WorkSpace {
  scaled,  // the stored values times a power of two
  unit,    // the direction; a zero vector stays zero
  bits,    // 0.0 and 1.0
};

struct MetricTraits {
  Metric metric;
  const char* name;
  WorkSpace work;
  bool larger_is_nearer;
  bool multiplies_norm;  // the key of an item grows with its norm (dot)
  // Squared euclidean distance in the working space orders as the metric does, so that codes of
  // residuals serve it. Otherwise the partition is all that the working space is for.
  bool work_orders;
};

const MetricTraits& traits_of(Metric metric) noexcept;
const char* dtype_name(Dtype dtype) noexcept;
bool metric_allows(Metric metric, Dtype dtype) noexcept;
// Throws Error(invalid_argument) that lists what the metric allows.
void require_metric_allows(Metric metric, Dtype dtype);

// Bytes of one stored vector.
std::size_t stored_bytes(Dtype dtype, std::uint32_t dim) noexcept;

// Decodes one stored row to dim floats in the rows' own units (bits: 0.0 and 1.0).
void decode_row(Dtype dtype, const std::byte* row, std::uint32_t dim, float* out) noexcept;

// A query ready for exact keys: `values` in the rows' own units (value / value_scale); for hamming
// `bits` instead. Pointers must outlive it.
struct ExactQuery {
  const float* values = nullptr;
  const std::uint8_t* bits = nullptr;
  double square = 0.0;  // <values, values>
  double factor = 1.0;  // the query is this times `values` (scaled rows and a huge query)
};

// Exact keys in double precision from stored rows.
class ExactScorer {
 public:
  ExactScorer(Metric metric, Dtype dtype, std::uint32_t dim, float value_scale) noexcept;

  ExactQuery prepare(const float* values, const std::uint8_t* bits) const noexcept;
  double key(const ExactQuery& query, const std::byte* row) const noexcept {
    return key_(*this, query, row);
  }
  // What the user sees for a key.
  double distance(const ExactQuery& query, double key) const noexcept;
  double distance(double key) const noexcept { return distance(ExactQuery{}, key); }
  bool within(double distance, double radius) const noexcept;

  Metric metric() const noexcept { return metric_; }
  Dtype dtype() const noexcept { return dtype_; }
  std::uint32_t dim() const noexcept { return dim_; }

 private:
  using KeyFunction = double (*)(const ExactScorer&, const ExactQuery&, const std::byte*);
  friend struct KeyFunctions;
  Metric metric_;
  Dtype dtype_;
  std::uint32_t dim_;
  double value_scale_;
  KeyFunction key_;
};

}  // namespace annidx
