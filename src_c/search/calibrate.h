// calibrate.h owns the measuring of the recall curve, and the choice of how much radii count in
// routing. It must not know how queries are run inside; it asks search.h.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/parallel.h"
#include "format/format.h"
#include "search/searcher.h"

namespace annidx {

// Queries to measure with.
struct CalibrationQueries {
  const std::byte* rows = nullptr;  // as Searcher takes them
  std::size_t row_bytes = 0;
  std::uint64_t count = 0;
  std::vector<Slot> excluded;        // the queries' own slots; empty: none
  std::function<void()> keep_pages;  // see Searcher::set_page_keeper; may be empty

  // Where only `asked` queries are wanted, they are spread over those given.
  std::uint64_t spread(std::uint64_t i, std::uint64_t asked) const { return i * count / asked; }
  const std::byte* row(std::uint64_t i) const { return rows + i * row_bytes; }
  Slot excluded_slot(std::uint64_t i) const { return excluded.empty() ? kNoRow : excluded[i]; }
  const std::function<void()>* page_keeper() const { return keep_pages ? &keep_pages : nullptr; }
};

// The ks that the curve of an index is measured at, ascending.
std::vector<std::uint32_t> curve_ks(std::uint64_t items);

// For each k (ascending), kCurvePointsPerK settings with the recall they reach less its standard
// error, cheapest first; each is at least the one before in every kind of effort.
std::vector<format::CurvePoint> measure_curve(const SearchView& view,
                                              const CalibrationQueries& queries,
                                              const std::vector<std::uint32_t>& ks,
                                              unsigned n_threads, Monitor* monitor);

// Of tuning::kRadiusWeights the one with which routing reaches the neighbours of the queries after
// the fewest points. The view's leaves are scored with kRadiusWeight; mean_squares: of the
// distances of their points to their centroids, by leaf entry of the first tree.
float choose_radius_weight(const SearchView& view, const CalibrationQueries& queries,
                           const std::vector<float>& mean_squares, unsigned n_threads,
                           Monitor* monitor);

}  // namespace annidx
