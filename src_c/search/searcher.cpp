// searcher.cpp owns the order of a query's stages; see searcher.h.
#include "search/searcher.h"

#include <algorithm>
#include <limits>

#include "base/tuning.h"
#include "search/reach.h"
#include "search/rerank.h"

namespace annidx {
namespace {

// Lists name few eligible points where a filter leaves few: what they would have found must be
// scanned. And the points that a filter leaves may all be far, where codes tell them apart less
// well.
Setting under_filter(const SearchView& view, const Request& request) {
  Setting setting = request.setting;
  if (!request.eligible || view.scan != Scan::codes) return setting;
  const double hidden =
      1.0 - static_cast<double>(request.eligible->count()) / static_cast<double>(view.item_count);
  const auto grown = [&](std::uint64_t value, double stretch) {
    return std::min(view.item_count, static_cast<std::uint64_t>(static_cast<double>(value) *
                                                                (1.0 + stretch * hidden)));
  };
  if (request.few_are_gone) {
    setting.opened = grown(setting.opened, 1.0);
    setting.candidates = grown(setting.candidates, 1.0);
    return setting;
  }
  setting.rerank = grown(setting.rerank, tuning::kFilteredRerankStretch);
  if (view.neighbours.entries && setting.expanded > 0) {
    setting.opened = grown(setting.opened, tuning::kFilteredListStretch);
    setting.candidates = grown(setting.candidates, tuning::kFilteredListStretch);
  }
  return setting;
}

}  // namespace

// The best `keep` by the scan's scores, and few more.
void Searcher::find_candidates(const SearchView& view, const Request& request, std::uint64_t keep) {
  const Setting& setting = request.setting;
  const bool has_blocks = view.block_centroids != nullptr;
  const bool expands = view.neighbours.entries != nullptr && setting.expanded > 0;
  routed_leaves_ = view.forest.leaves.centroids;
  route(view.forest, query_.routed(), has_blocks ? setting.opened : setting.candidates,
        request.filter(), &route_scratch_, &leaves_);
  const std::uint64_t scanned = expands ? std::max(keep, setting.expanded) : keep;
  if (has_blocks) {
    block_scan_.run(view, query_, leaves_, request, scanned, pages_, &candidates_);
  } else {
    leaf_scan_.run(view, query_, leaves_, request, scanned, std::numeric_limits<float>::infinity(),
                   pages_, &candidates_);
  }
  // An item that asks for its neighbours finds them in its own list.
  if (request.excluded_is_hidden) candidates_.remove(request.excluded);
  if (expands) {
    const bool is_grouped = view.forest.trees[0].group_entry_count > 0;
    leaf_scores_.begin(view, query_.routed(),
                       is_grouped ? nullptr : route_scratch_.leaf_scores.data());
    expansion_.run(view, query_, request, scanned, &leaf_scores_, &candidates_);
    if (candidates_.count() > keep) candidates_.keep_near_best(keep);
  }
  if (request.excluded != kNoRow) candidates_.remove(request.excluded);
  const float* scores = candidates_.scores();
  const std::size_t count = candidates_.count();
  scan_bound_ = count < keep ? std::numeric_limits<float>::infinity()
                             : *std::max_element(scores, scores + count);
}

namespace {

std::uint64_t exact_depth(const Request& request) noexcept {
  const std::uint64_t spare = request.excluded == kNoRow ? 0 : 1;
  return std::max(request.setting.exact, request.k) + spare;
}

// How many the scan keeps.
std::uint64_t scan_depth(const SearchView& view, const Request& request) noexcept {
  const std::uint64_t spare = request.excluded == kNoRow ? 0 : 1;
  const std::uint64_t exact = exact_depth(request);
  return view.scan == Scan::codes ? std::max(request.setting.rerank + spare, exact) : exact;
}

}  // namespace

// Whether the candidates show a far query, which must look for more. Under a filter they say
// nothing: what passes may be far of any query.
bool Searcher::goes_further(const SearchView& view, Request* request) const {
  const Efforts* efforts = request->efforts;
  request->efforts = nullptr;
  if (!efforts || !(efforts->far_ratio > 0.0f) || request->filter()) return false;
  const float reach = reach_of(view, query_, leaves_, candidates_);
  if (!(reach > efforts->far_ratio)) return false;
  Request further = *request;
  further.setting =
      reach > efforts->far_ratio * tuning::kRemoteRatio ? efforts->remote : efforts->far;
  request->setting = most_of(request->setting, under_filter(view, further));
  return true;
}

void Searcher::approximate(const SearchView& view, Request* asked) {
  const Request& request = *asked;
  find_candidates(view, request, scan_depth(view, request));
  if (goes_further(view, asked)) find_candidates(view, request, scan_depth(view, request));
  const std::uint64_t exact = exact_depth(request);
  if (view.forest.trees.size() > 1) further_trees_.run(view, leaves_, request, &candidates_);
  if (view.row_scalars) rerank(view, query_, exact, pages_, &candidates_);
  exact_.score(view, query_, request, candidates_);
}

// Looks at more candidates until as many as wanted are found, at last at everything.
void Searcher::search_widening(const SearchView& view, const Request& request,
                               std::uint64_t wanted) {
  query_.prepare_routing(view);
  query_.prepare_scan(view);
  Request attempt = request;
  attempt.k = wanted;
  attempt.setting = under_filter(view, request);
  for (;;) {
    approximate(view, &attempt);
    if (exact_.found().size() >= wanted) return;
    if (attempt.setting.candidates >= view.item_count) break;
    attempt.setting.candidates =
        std::max(attempt.setting.candidates, request.k) * tuning::kWidening;
    attempt.setting.opened =
        std::max(attempt.setting.opened * tuning::kWidening, attempt.setting.candidates);
  }
  exact_.scan_all(view, query_, attempt, pages_);
}

void Searcher::search(const SearchView& view, const Request& request) {
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
  } else if (request.all_within) {
    query_.prepare_routing(view);
    exact_.scan_ball(view, query_, request, pages_);
  } else {
    search_widening(view, request, wanted);
  }
  exact_.set_distances(view, query_);
  if (exactly || request.all_within || !request.has_radius) return;
  exact_.cut_to_radius(view, request.radius);
  if (exact_.found().size() < wanted) {
    // Fewer than k lie within the radius as far as the search saw.
    exact_.scan_ball(view, query_, request, pages_);
    exact_.set_distances(view, query_);
  }
}

const std::vector<Neighbour>& Searcher::run_routed(const SearchView& view, const Request& request) {
  const std::uint64_t exact = std::max(request.setting.exact, request.k) + 1;
  const std::uint64_t keep =
      view.scan == Scan::codes ? std::max(request.setting.rerank, exact) : exact;
  leaf_scan_.run(view, query_, leaves_, request, keep, scan_bound_, pages_, &candidates_);
  if (request.excluded != kNoRow) candidates_.remove(request.excluded);
  if (view.row_scalars) rerank(view, query_, exact, pages_, &candidates_);
  exact_.score(view, query_, request, candidates_);
  exact_.set_distances(view, query_);
  return exact_.found();
}

const std::vector<Neighbour>& Searcher::run(const SearchView& view, const void* values,
                                            const Request& request) {
  routed_leaves_ = nullptr;
  query_.set(view, values);
  if (request.leading == kNoRow || !request.is_eligible(request.leading)) {
    search(view, request);
    return exact_.found();
  }
  Request others = request;
  others.excluded = request.leading;
  others.k = request.k - 1;
  if (others.k > 0) {
    search(view, others);
  } else {
    exact_.begin();
  }
  exact_.lead(view, query_, request);
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

const std::vector<TracedCandidate>& Searcher::trace(const SearchView& view, const Setting& setting,
                                                    const TraceDepths& depths) {
  Request request;
  request.excluded = traced_excluded_;
  request.excluded_is_hidden = true;
  request.setting = setting;
  find_candidates(view, request, depths.scan.back());
  const std::size_t scanned = candidates_.count();
  traced_reach_ = reach_of(view, query_, leaves_, candidates_);
  if (view.forest.trees.size() > 1) further_trees_.run(view, leaves_, request, &candidates_);
  trace_.note_scan(candidates_, scanned, depths);
  if (view.row_scalars) score_by_byte_rows(view, query_, pages_, &candidates_);
  return trace_.note_rerank(view, query_, candidates_, depths, pages_);
}

}  // namespace annidx
