// reach.cpp owns how far a query lies from all items; see reach.h.
#include "search/reach.h"

#include "base/tuning.h"
#include "kernels/kernels.h"

namespace annidx {

float reach_of(const SearchView& view, const QueryForms& query,
               const std::vector<RoutedLeaf>& leaves, const Candidates& candidates) {
  const std::size_t count = candidates.count();
  if (view.scan != Scan::codes || view.multiplies_norm()) return 0.0f;
  if (leaves.empty() || leaves[0].tree != 0 || count < tuning::kReachCandidates) return 0.0f;
  const float* work = query.work().data();
  const double square = kernels().dot_square_f32(work, work, view.scorer->dim()).square;
  const double nearest = square + static_cast<double>(leaves[0].score);
  const double tenth = square + static_cast<double>(kernels().near_bound(candidates.scores(), count,
                                                                         tuning::kReachCandidates));
  if (!(nearest > 0.0) || !(tenth > 0.0)) return 0.0f;
  return static_cast<float>(tenth / nearest);
}

}  // namespace annidx
