// searcher.h owns the path of a query through its stages: forms, route, scan, further trees,
// rerank, exact. Each stage is a class or function of its own file with its own scratch; here
// stands only their order. It must not know the layout of files.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/partition.h"
#include "search/block_scan.h"
#include "search/candidates.h"
#include "search/exact.h"
#include "search/expansion.h"
#include "search/further_trees.h"
#include "search/leaf_scan.h"
#include "search/leaf_scores.h"
#include "search/page_keeper.h"
#include "search/query_forms.h"
#include "search/request.h"
#include "search/trace.h"
#include "search/view.h"

namespace annidx {

// Runs queries, one at a time, with buffers that are kept between them. One a thread.
class Searcher {
 public:
  // values: dim floats as the user gave them, or packed bits for hamming. Must outlive the run.
  // Results are nearest first, behind the leading one; ties by row; min(k, eligible) of them, fewer
  // only by the radius.
  const std::vector<Neighbour>& run(const SearchView& view, const void* values,
                                    const Request& request);
  // Whether the last run chose leaves of this view, as far as it went.
  bool has_routed(const SearchView& view) const noexcept {
    return routed_leaves_ == view.forest.leaves.centroids;
  }
  // The query of the last run once more, for points of another view of the same leaves: those of
  // the leaves that the last run chose are all looked at, and dropped where they score worse than
  // what that run kept. May find fewer than k.
  const std::vector<Neighbour>& run_routed(const SearchView& view, const Request& request);
  // Called while a query reads much, so that pages can be given back where memory is limited. Must
  // outlive the searcher.
  void set_page_keeper(const std::function<void()>* keeper) { pages_.set(keeper); }
  // Calibration asks one query with many numbers of candidates: begin_trace once, then trace for
  // each.
  void begin_trace(const SearchView& view, const void* values, Slot excluded);
  // What a search of this setting leaves within the last depths, which stand for its own rerank and
  // exact.
  const std::vector<TracedCandidate>& trace(const SearchView& view, const Setting& setting,
                                            const TraceDepths& depths);
  // The reach (search/reach.h) of the query by the last trace.
  float traced_reach() const noexcept { return traced_reach_; }
  // Route scores of the first tree's leaves for the last query.
  void score_leaves(const SearchView& view, std::vector<float>* scores) const;

 private:
  void search(const SearchView& view, const Request& request);
  void find_candidates(const SearchView& view, const Request& request, std::uint64_t keep);
  bool goes_further(const SearchView& view, Request* request) const;
  void approximate(const SearchView& view, Request* request);
  void search_widening(const SearchView& view, const Request& request, std::uint64_t wanted);

  QueryForms query_;
  RouteScratch route_scratch_;
  std::vector<RoutedLeaf> leaves_;
  LeafScan leaf_scan_;
  BlockScan block_scan_;
  LeafScores leaf_scores_;
  Expansion expansion_;
  FurtherTrees further_trees_;
  Candidates candidates_;
  ExactStage exact_;
  TraceStage trace_;
  PageKeeper pages_;
  Slot traced_excluded_ = kNoRow;
  float traced_reach_ = 0.0f;
  float scan_bound_ = 0.0f;  // of the last scan: the worst of as many scores as were wanted
  const std::uint8_t* routed_leaves_ = nullptr;  // of the view of the last run; null: none
};

}  // namespace annidx
