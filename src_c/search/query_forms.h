// query_forms.h owns a query in the forms that the stages read: the user's values, those of the
// working space, integers for routing and re-ranking, and the lookup tables of a scan.
#pragma once

#include <cstdint>
#include <vector>

#include "model/codes.h"
#include "model/partition.h"
#include "rows/metric.h"
#include "search/view.h"

namespace annidx {

// An item as users see it, as QueryForms takes queries: dim floats, or packed bits for hamming.
std::size_t item_bytes(const SearchView& view) noexcept;
void item_values(const SearchView& view, Slot slot, std::byte* out);
// The same as a query. Throws Error(format) where it is not finite: only a damaged file holds such.
void item_as_query(const SearchView& view, Slot slot, std::vector<std::byte>* values);

class QueryForms {
 public:
  // values: dim floats as the user gave them, or packed bits for hamming; they must outlive the use
  // of exact(). Enough for exact scans.
  void set(const SearchView& view, const void* values);
  // What routing and scanning read. Throws Error(format) where a damaged file makes the query
  // infinite.
  void prepare_routing(const SearchView& view);
  void prepare_scan(const SearchView& view);

  const ExactQuery& exact() const noexcept { return exact_; }
  // Under a metric of directions.
  bool is_zero() const noexcept { return is_zero_; }
  const std::vector<float>& work() const noexcept { return work_; }
  const RouteQuery& routed() const noexcept { return routed_; }
  const CodeTables& tables() const noexcept { return tables_; }
  const std::vector<std::uint8_t>& bytes() const noexcept { return bytes_; }
  const QueryPlanes& planes() const noexcept { return planes_.planes; }

 private:
  std::vector<float> row_units_;
  std::vector<float> tamed_;  // row units, finite under any arithmetic of a scan
  std::vector<float> work_;
  std::vector<std::uint8_t> bytes_;  // L1 over bytes
  ExactQuery exact_;
  bool is_zero_ = false;
  RouteQuery routed_;
  PlaneBuffers planes_;
  CodeTables tables_;
  TableScratch table_scratch_;
};

}  // namespace annidx
