// trace.cpp owns the steps at which candidates are reached; see trace.h.
#include "search/trace.h"

#include <algorithm>
#include <limits>

#include "base/tuning.h"
#include "search/exact.h"

namespace annidx {
namespace {

// Orders by score, equal ones by place.
std::uint64_t placed_key(float score, std::size_t place) {
  return std::uint64_t{ordered_key(score)} << 32 | static_cast<std::uint32_t>(place);
}

std::uint32_t step_of(const std::vector<std::uint64_t>& thresholds, std::uint64_t key) {
  return static_cast<std::uint32_t>(std::lower_bound(thresholds.begin(), thresholds.end(), key) -
                                    thresholds.begin());
}

}  // namespace

void TraceStage::begin() { cached_keys_.assign(tuning::kTracedKeys, {kNoRow, 0.0}); }

// The last key within each depth.
void TraceStage::find_thresholds(const float* scores, std::size_t n,
                                 const std::vector<std::uint32_t>& depths,
                                 std::vector<std::uint64_t>* thresholds) {
  keys_.resize(n);
  for (std::size_t i = 0; i < n; ++i) keys_[i] = placed_key(scores[i], i);
  thresholds->assign(depths.size(), std::numeric_limits<std::uint64_t>::max());
  auto end = keys_.end();
  for (std::size_t step = depths.size(); step-- > 0;) {
    if (depths[step] >= n || depths[step] == 0) continue;
    const auto last = keys_.begin() + static_cast<std::ptrdiff_t>(depths[step]) - 1;
    std::nth_element(keys_.begin(), last, end);
    (*thresholds)[step] = *last;
    end = last + 1;
  }
}

double TraceStage::key_of(const SearchView& view, const QueryForms& query, Slot slot) {
  CachedKey& cached = cached_keys_[slot % cached_keys_.size()];
  if (cached.slot != slot) cached = {slot, exact_key(view, query.exact(), slot)};
  return cached.key;
}

void TraceStage::note_scan(const Candidates& candidates, std::size_t scanned,
                           const TraceDepths& depths) {
  find_thresholds(candidates.scores(), scanned, depths.scan, &scan_thresholds_);
  scan_steps_.resize(candidates.count());
  for (std::size_t i = 0; i < candidates.count(); ++i) {
    scan_steps_[i] =
        i < scanned ? step_of(scan_thresholds_, placed_key(candidates.scores()[i], i)) : 0;
  }
}

const std::vector<TracedCandidate>& TraceStage::note_rerank(const SearchView& view,
                                                            const QueryForms& query,
                                                            const Candidates& candidates,
                                                            const TraceDepths& depths,
                                                            const PageKeeper& pages) {
  find_thresholds(candidates.scores(), candidates.count(), depths.exact, &exact_thresholds_);
  traced_.clear();
  for (std::size_t i = 0; i < candidates.count(); ++i) {
    if (i % PageKeeper::kRows == 0) pages.keep();
    const std::uint32_t exact_step =
        step_of(exact_thresholds_, placed_key(candidates.scores()[i], i));
    if (exact_step == depths.exact.size()) continue;
    traced_.push_back({key_of(view, query, candidates.slots()[i]), scan_steps_[i], exact_step});
  }
  return traced_;
}

}  // namespace annidx
