// exact.h owns the last word on candidates: keys in double precision from the vectors themselves,
// the best k of them in order, and scans of all items or of a ball by those keys.
#pragma once

#include <cstdint>
#include <vector>

#include "search/candidates.h"
#include "search/page_keeper.h"
#include "search/query_forms.h"
#include "search/request.h"
#include "search/view.h"

namespace annidx {

// The exact key of a slot; vectors of a damaged file may be NaN, which no order could hold.
double exact_key(const SearchView& view, const ExactQuery& query, Slot slot);

// Collects the nearest items of one query.
class ExactStage {
 public:
  // Forgets what was found.
  void begin();
  // The best k of the candidates.
  void score(const SearchView& view, const QueryForms& query, const Request& request,
             const Candidates& candidates);
  // The best k of all eligible items.
  void scan_all(const SearchView& view, const QueryForms& query, const Request& request,
                const PageKeeper& pages);
  // The best k of the eligible items in every leaf that may hold one within the radius. The query
  // is prepared for routing.
  void scan_ball(const SearchView& view, const QueryForms& query, const Request& request,
                 const PageKeeper& pages);
  // Sets the distances of what was found. Keys that differ in their last digit may give one
  // distance, and what the user sees as a tie must be in the order of rows.
  void set_distances(const SearchView& view, const QueryForms& query);
  // Drops what lies outside the radius.
  void cut_to_radius(const SearchView& view, double radius);
  // Puts the leading slot, which is not among what was found, before it, if it is within the
  // radius.
  void lead(const SearchView& view, const QueryForms& query, const Request& request);

  const std::vector<Neighbour>& found() const noexcept { return found_; }

 private:
  void collect(const SearchView& view, const QueryForms& query, const Request& request, Slot slot);
  void collect_range(const SearchView& view, const QueryForms& query, const Request& request,
                     const LeafSpan& span, const PageKeeper& pages);
  void finish(std::uint64_t k);

  std::vector<Neighbour> found_;
  double bound_ = 0.0;  // keys beyond it are not among the best k
};

}  // namespace annidx
