// trace.h owns what calibration asks of a query: which candidates the best of a scan and of a
// re-ranking hold at several depths at once. It must not know what is made of the answers.
#pragma once

#include <cstdint>
#include <vector>

#include "search/candidates.h"
#include "search/page_keeper.h"
#include "search/query_forms.h"
#include "search/view.h"

namespace annidx {

// A candidate as calibration sees it. A step says which of the given depths is the least that
// reaches it.
struct TracedCandidate {
  double key;  // exact
  std::uint32_t scan_step;
  std::uint32_t exact_step;
};

// Depths that calibration asks about, ascending, by the order of the scan and by that of the
// re-ranking.
struct TraceDepths {
  std::vector<std::uint32_t> scan;
  std::vector<std::uint32_t> exact;
};

class TraceStage {
 public:
  // Before the first trace of a query.
  void begin();
  // The order of the scan: the first `scanned` candidates have its scores, others count as reached
  // at every depth.
  void note_scan(const Candidates& candidates, std::size_t scanned, const TraceDepths& depths);
  // The order of the re-ranking. Exact keys are remembered from trace to trace of one query.
  const std::vector<TracedCandidate>& note_rerank(const SearchView& view, const QueryForms& query,
                                                  const Candidates& candidates,
                                                  const TraceDepths& depths,
                                                  const PageKeeper& pages);

 private:
  struct CachedKey {
    Slot slot;
    double key;
  };
  void find_thresholds(const float* scores, std::size_t n, const std::vector<std::uint32_t>& depths,
                       std::vector<std::uint64_t>* thresholds);
  double key_of(const SearchView& view, const QueryForms& query, Slot slot);

  std::vector<std::uint64_t> keys_;
  std::vector<std::uint64_t> scan_thresholds_, exact_thresholds_;
  std::vector<std::uint32_t> scan_steps_;  // by candidate
  std::vector<CachedKey> cached_keys_;     // by the slot's lower bits
  std::vector<TracedCandidate> traced_;
};

}  // namespace annidx
