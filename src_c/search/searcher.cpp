// searcher.cpp owns the order of a query's stages; see searcher.h.
#include "search/searcher.h"

#include <algorithm>

#include "base/tuning.h"
#include "search/rerank.h"

namespace annidx {

void Searcher::find_candidates(const SearchView& view, const Request& request, std::uint64_t keep) {
  route(view.forest, query_.routed(), request.setting.candidates, request.eligible, &route_scratch_,
        &leaves_);
  leaf_scan_.run(view, query_, leaves_, request, keep, pages_, &candidates_);
}

void Searcher::approximate(const SearchView& view, const Request& request) {
  const std::uint64_t spare = request.excluded == kNoRow ? 0 : 1;
  const std::uint64_t exact = std::max(request.setting.exact, request.k) + spare;
  const std::uint64_t keep =
      view.scan == Scan::codes ? std::max(request.setting.rerank + spare, exact) : exact;
  find_candidates(view, request, keep);
  if (view.forest.trees.size() > 1) further_trees_.run(view, leaves_, request, &candidates_);
  if (view.row_scalars) rerank(view, query_, exact, pages_, &candidates_);
  exact_.score(view, query_, request, &candidates_);
}

// Looks at more candidates until as many as wanted are found, at last at everything.
void Searcher::search_widening(const SearchView& view, const Request& request,
                               std::uint64_t wanted) {
  query_.prepare_routing(view);
  query_.prepare_scan(view);
  Request attempt = request;
  attempt.k = wanted;
  for (;;) {
    approximate(view, attempt);
    if (exact_.found().size() >= wanted) return;
    if (attempt.setting.candidates >= view.item_count) break;
    attempt.setting.candidates =
        std::max(attempt.setting.candidates, request.k) * tuning::kWidening;
  }
  exact_.scan_all(view, query_, attempt, pages_);
}

const std::vector<Neighbour>& Searcher::run(const SearchView& view, const void* values,
                                            const Request& request) {
  query_.set(view, values);
  std::uint64_t eligible = request.eligible ? request.eligible->count() : view.item_count;
  if (request.excluded != kNoRow && request.is_eligible(request.excluded) && eligible > 0) {
    --eligible;
  }
  const std::uint64_t wanted = std::min(request.k, eligible);
  // Few eligible items, or a query without a direction: an exact scan is cheaper, or the only
  // truth.
  const bool exactly =
      request.setting.everything || query_.is_zero() || eligible <= tuning::kExactScanItems;
  if (exactly) {
    exact_.scan_all(view, query_, request, pages_);
  } else {
    search_widening(view, request, wanted);
  }
  exact_.set_distances(view, query_);
  if (request.has_radius) {
    exact_.cut_to_radius(view, request.radius);
    if (exact_.found().size() < wanted && !exactly) {
      // Fewer than k lie within the radius as far as the search saw.
      exact_.scan_ball(view, query_, request, pages_);
      exact_.set_distances(view, query_);
      exact_.cut_to_radius(view, request.radius);
    }
  }
  return exact_.found();
}

// ---- calibration ------------------------------------------------------------------------------

void Searcher::score_leaves(const SearchView& view, std::vector<float>* scores) const {
  annidx::score_leaves(view.forest, query_.routed(), scores);
}

void Searcher::begin_trace(const SearchView& view, const void* values, Slot excluded) {
  query_.set(view, values);
  query_.prepare_routing(view);
  query_.prepare_scan(view);
  trace_.begin();
  traced_excluded_ = excluded;
}

const std::vector<TracedCandidate>& Searcher::trace(const SearchView& view,
                                                    std::uint64_t candidates,
                                                    const TraceDepths& depths) {
  Request request;
  request.excluded = traced_excluded_;
  request.setting.candidates = candidates;
  find_candidates(view, request, depths.scan.back());
  const std::size_t scanned = candidates_.count();
  if (view.forest.trees.size() > 1) further_trees_.run(view, leaves_, request, &candidates_);
  trace_.note_scan(candidates_, scanned, depths);
  if (view.row_scalars) score_by_byte_rows(view, query_, pages_, &candidates_);
  return trace_.note_rerank(view, query_, candidates_, depths, pages_);
}

}  // namespace annidx
