// leaf_scores.h owns what the centroid of any leaf of the first tree adds to the score of its
// points, for one query. Routing has scored all of them, or only those of the groups it opened; the
// rest are scored when asked for.
#pragma once

#include <cstdint>
#include <vector>

#include "model/partition.h"
#include "search/view.h"

namespace annidx {

class LeafScores {
 public:
  // Of a new query. `routed` are the route scores of all entries of the first tree, or null.
  void begin(const SearchView& view, const RouteQuery& query, const float* routed);
  // Throws Error(format) for an entry that there is not.
  float of(std::uint32_t entry) {
    if (entry >= entries_) refuse(entry);
    const float route_score = routed_ ? routed_[entry] : scored(entry);
    return (route_score - view_->leaf_biases[entry]) * view_->leaf_scan_factors[entry];
  }

 private:
  [[noreturn]] void refuse(std::uint32_t entry) const;
  float scored(std::uint32_t entry);

  const SearchView* view_ = nullptr;
  const RouteQuery* query_ = nullptr;
  const float* routed_ = nullptr;
  std::uint32_t entries_ = 0;
  // Route scores by entry, where the mark of the entry's panel is this query's.
  std::vector<float> scores_;
  std::vector<std::uint32_t> marks_;
  std::uint32_t mark_ = 0;
};

}  // namespace annidx
