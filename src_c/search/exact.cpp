// exact.cpp owns exact keys and scans by them; see exact.h.
#include "search/exact.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"
#include "kernels/kernels.h"

namespace annidx {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Float arithmetic of the radii and of the query's transform.
constexpr double kSlack = 1e-4;

bool nearer(const Neighbour& a, const Neighbour& b) noexcept {
  return a.key != b.key ? a.key < b.key : a.row < b.row;
}

// A radius in the working space, where euclidean distance is at most the metric's.
double working_radius(const SearchView& view, double radius) {
  switch (view.scorer->metric()) {
    case Metric::cosine: return std::sqrt(2.0 * std::max(0.0, radius));
    case Metric::hamming: return std::sqrt(std::max(0.0, radius));
    case Metric::euclidean:
    case Metric::manhattan: return radius / view.value_scale * view.transform.work_scale;
    default: return radius;
  }
}

// Distance of the working-space query to the centroid of a leaf entry as stored.
double centroid_distance(const SearchView& view, const std::vector<float>& work,
                         double query_square, std::uint32_t entry) {
  const ForestView& forest = view.forest;
  // `mults` of an additive score is twice the centroid's scale.
  const float scale = 0.5f * forest.leaves.mults[entry];
  const std::uint8_t* block = forest.leaves.centroids + std::size_t{entry / 16} * 16 * forest.dim4;
  double dot = 0.0, square = 0.0;
  for (std::uint32_t j = 0; j < view.scorer->dim(); ++j) {
    const double value = scale * (block[(j / 4) * 64 + entry % 16 * 4 + j % 4] - 128.0);
    dot += value * work[j];
    square += value * value;
  }
  return std::sqrt(std::max(0.0, query_square - 2.0 * dot + square));
}

}  // namespace

double exact_key(const SearchView& view, const ExactQuery& query, Slot slot) {
  const double key = view.scorer->key(query, view.stored(slot));
  return key == key ? key : kInfinity;
}

void ExactStage::begin() {
  found_.clear();
  bound_ = kInfinity;
}

void ExactStage::finish(std::uint64_t k) {
  const std::size_t keep = std::min<std::size_t>(found_.size(), k);
  std::partial_sort(found_.begin(), found_.begin() + static_cast<std::ptrdiff_t>(keep),
                    found_.end(), nearer);
  found_.resize(keep);
}

void ExactStage::score(const SearchView& view, const QueryForms& query, const Request& request,
                       const Candidates& candidates) {
  for (std::size_t i = 0; i < candidates.count(); ++i) {
    const Slot slot = candidates.slots()[i];
    prefetch_l2(view.stored(slot), view.row_bytes);
    prefetch_l2(view.slot_rows + slot, sizeof(std::uint32_t));
  }
  begin();
  for (std::size_t i = 0; i < candidates.count(); ++i) {
    const Slot slot = candidates.slots()[i];
    found_.push_back({exact_key(view, query.exact(), slot), 0.0, checked_row(view, slot), slot});
  }
  finish(request.k);
}

void ExactStage::collect(const SearchView& view, const QueryForms& query, const Request& request,
                         Slot slot) {
  if (slot == request.excluded || !request.is_eligible(slot)) return;
  const double key = exact_key(view, query.exact(), slot);
  if (key > bound_) return;
  if (request.has_radius &&
      !view.scorer->within(view.scorer->distance(query.exact(), key), request.radius)) {
    return;
  }
  found_.push_back({key, 0.0, checked_row(view, slot), slot});
  if (found_.size() >= request.k * 2 + 1024) {
    std::nth_element(found_.begin(), found_.begin() + static_cast<std::ptrdiff_t>(request.k) - 1,
                     found_.end(), nearer);
    found_.resize(request.k);
    bound_ = found_.back().key;
  }
}

void ExactStage::collect_range(const SearchView& view, const QueryForms& query,
                               const Request& request, const LeafSpan& span,
                               const PageKeeper& pages) {
  for (std::uint64_t i = 0; i < span.count; ++i) {
    if (i % PageKeeper::kRows == 0) pages.keep();
    collect(view, query, request, static_cast<Slot>(span.first + i));
  }
}

void ExactStage::scan_all(const SearchView& view, const QueryForms& query, const Request& request,
                          const PageKeeper& pages) {
  begin();
  if (request.eligible && request.eligible->count() < view.item_count / 16) {
    for (Slot slot : request.eligible->to_slots()) collect(view, query, request, slot);
  } else {
    collect_range(view, query, request, {0, static_cast<std::uint32_t>(view.item_count)}, pages);
  }
  finish(request.k);
}

// A leaf's points are within leaf_radii of its centroid.
void ExactStage::scan_ball(const SearchView& view, const QueryForms& query, const Request& request,
                           const PageKeeper& pages) {
  if (view.multiplies_norm()) {
    scan_all(view, query, request, pages);
    return;
  }
  const double reach = working_radius(view, request.radius);
  const std::vector<float>& work = query.work();
  const TreeView& tree = view.forest.trees[0];
  const double query_square =
      kernels().dot_square_f32(work.data(), work.data(), view.scorer->dim()).square;
  begin();
  std::uint64_t points_left = view.item_count;
  for (std::uint32_t i = 0; i < tree.leaf_entry_count; ++i) {
    const std::uint32_t entry = tree.first_leaf_entry + i;
    const LeafSpan span = checked_leaf(view.forest, entry, true);
    if (span.count == 0) continue;
    if (span.count > points_left) {
      throw Error(ErrorCode::format, "the index is damaged: section 'leaf_ranges', entry " +
                                         std::to_string(entry) +
                                         ": expected no overlap with other entries");
    }
    points_left -= span.count;
    const double apart = centroid_distance(view, work, query_square, entry);
    if (apart * (1.0 - kSlack) - view.leaf_radii[entry] > reach * (1.0 + kSlack)) continue;
    collect_range(view, query, request, span, pages);
  }
  finish(request.k);
}

void ExactStage::set_distances(const SearchView& view, const QueryForms& query) {
  for (Neighbour& n : found_) n.distance = view.scorer->distance(query.exact(), n.key);
  const bool larger = traits_of(view.scorer->metric()).larger_is_nearer;
  const auto before = [larger](const Neighbour& a, const Neighbour& b) {
    if (a.distance != b.distance) return larger ? a.distance > b.distance : a.distance < b.distance;
    return a.row < b.row;
  };
  if (!std::is_sorted(found_.begin(), found_.end(), before)) {
    std::sort(found_.begin(), found_.end(), before);
  }
}

void ExactStage::cut_to_radius(const SearchView& view, double radius) {
  const auto outside = [&](const Neighbour& n) { return !view.scorer->within(n.distance, radius); };
  found_.erase(std::remove_if(found_.begin(), found_.end(), outside), found_.end());
}

void ExactStage::lead(const SearchView& view, const QueryForms& query, const Request& request) {
  const Slot slot = request.leading;
  const double key = exact_key(view, query.exact(), slot);
  const double distance = view.scorer->distance(query.exact(), key);
  if (request.has_radius && !view.scorer->within(distance, request.radius)) return;
  found_.insert(found_.begin(), {key, distance, checked_row(view, slot), slot});
}

}  // namespace annidx
