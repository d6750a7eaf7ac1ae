// leaf_scores.cpp owns leaf scores on demand; see leaf_scores.h.
#include "search/leaf_scores.h"

#include <algorithm>
#include <string>

#include "base/error.h"
#include "kernels/kernels.h"

namespace annidx {

void LeafScores::begin(const SearchView& view, const RouteQuery& query, const float* routed) {
  view_ = &view;
  query_ = &query;
  routed_ = routed;
  entries_ = view.forest.trees[0].leaf_entry_count;
  if (routed) return;
  scores_.resize(std::max<std::size_t>(scores_.size(), entries_));
  marks_.resize(std::max<std::size_t>(marks_.size(), entries_ / kPanelWidth), 0);
  if (++mark_ == 0) {  // old marks would look like new ones
    std::fill(marks_.begin(), marks_.end(), 0u);
    mark_ = 1;
  }
}

void LeafScores::refuse(std::uint32_t entry) const {
  throw Error(ErrorCode::format,
              "the index is damaged: section 'code_records': expected a leaf below " +
                  std::to_string(entries_) + ", found " + std::to_string(entry));
}

float LeafScores::scored(std::uint32_t entry) {
  const std::uint32_t panel = entry / static_cast<std::uint32_t>(kPanelWidth);
  if (marks_[panel] != mark_) {
    const std::size_t first = std::size_t{panel} * kPanelWidth;
    const ForestView& forest = view_->forest;
    kernels().route_scores(forest.leaves.centroids + first * forest.dim4, 1, forest.dim4,
                           query_->values.data(), query_->sum, query_->step,
                           forest.leaves.mults + first, forest.leaves.biases + first,
                           scores_.data() + first);
    marks_[panel] = mark_;
  }
  return scores_[entry];
}

}  // namespace annidx
