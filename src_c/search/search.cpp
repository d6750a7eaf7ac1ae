// search.cpp owns the path of a query; see search.h.
#include "search/search.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "base/error.h"
#include "base/tuning.h"

namespace annidx {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Between two calls of a page keeper.
constexpr std::size_t kRowsPerKeeping = 64;

bool nearer(const Neighbour& a, const Neighbour& b) noexcept {
  return a.key != b.key ? a.key < b.key : a.row < b.row;
}

bool is_eligible(const SlotSet* eligible, Slot slot) noexcept {
  return !eligible || eligible->contains(slot);
}

Row checked_row(const SearchView& view, Slot slot) {
  const Row row = view.slot_rows[slot];
  if (row >= view.item_count) {
    throw Error(ErrorCode::format, "the index is damaged: section 'slot_rows', entry " +
                                       std::to_string(slot) + ": expected less than " +
                                       std::to_string(view.item_count) + ", found " +
                                       std::to_string(row));
  }
  return row;
}

Slot checked_slot(const SearchView& view, Row row) {
  const Slot slot = view.row_slots[row];
  if (slot >= view.item_count) {
    throw Error(ErrorCode::format, "the index is damaged: section 'row_slots', entry " +
                                       std::to_string(row) + ": expected less than " +
                                       std::to_string(view.item_count) + ", found " +
                                       std::to_string(slot));
  }
  return slot;
}

// The exact key of a slot; vectors of a damaged file may be NaN, which no order could hold.
double key_of(const SearchView& view, const ExactQuery& query, Slot slot) {
  const double key = view.scorer->key(query, view.vectors + std::size_t{slot} * view.row_bytes);
  return key == key ? key : std::numeric_limits<double>::infinity();
}

// Values over the scale of int8 rows. Where that would overflow, all are smaller by the power of
// two that is returned: so far out, the rows' own size is below double precision.
double to_row_units(const float* values, std::size_t dim, float scale, float* out) {
  constexpr double kLargest = 1e30;
  const double largest = static_cast<double>(kernels().max_abs(values, dim)) / scale;
  const double factor =
      largest > kLargest ? std::exp2(std::ceil(std::log2(largest / kLargest))) : 1.0;
  for (std::size_t j = 0; j < dim; ++j) {
    out[j] = factor == 1.0 ? values[j] / scale : static_cast<float>(values[j] / (scale * factor));
  }
  return factor;
}

// Brings a query far outside the data (at most 1 after `scale`) to a size at which products stay
// finite: for such a query only its direction orders the items.
void tame(std::vector<float>* values, float scale) {
  const float most = 1.0e12f / scale;
  const float largest = kernels().max_abs(values->data(), values->size());
  if (largest <= most) return;
  const float factor = most / largest;
  for (float& value : *values) value *= factor;
}

}  // namespace

// ---- the query in its forms ----------------------------------------------------------------

void Searcher::prepare(const SearchView& view, const void* values) {
  const std::uint32_t dim = view.scorer->dim();
  row_units_.resize(dim);
  is_zero_ = false;
  if (view.transform.space == WorkSpace::bits) {
    const auto* bits = static_cast<const std::uint8_t*>(values);
    exact_ = view.scorer->prepare(nullptr, bits);
    kernels().bits_to_f32(bits, row_units_.data(), dim);
    return;
  }
  const auto* floats = static_cast<const float*>(values);
  const MetricTraits& traits = traits_of(view.scorer->metric());
  const bool is_scaled = traits.work != WorkSpace::unit || traits.multiplies_norm;
  if (view.value_scale == 1.0f || !is_scaled) {
    std::memcpy(row_units_.data(), floats, sizeof(float) * dim);
    exact_ = view.scorer->prepare(floats, nullptr);
  } else {
    const double factor = to_row_units(floats, dim, view.value_scale, row_units_.data());
    exact_ = view.scorer->prepare(row_units_.data(), nullptr);
    exact_.factor = factor;
  }
  is_zero_ = view.transform.space == WorkSpace::unit && exact_.square == 0.0;
}

void Searcher::prepare_routing(const SearchView& view) {
  const std::uint32_t dim = view.scorer->dim();
  tamed_ = row_units_;
  tame(&tamed_, view.transform.space == WorkSpace::scaled ? view.transform.work_scale : 1.0f);
  work_.resize(dim);
  view.transform.apply(tamed_.data(), work_.data());
  const std::size_t bad = kernels().first_nonfinite(work_.data(), dim);
  if (bad != dim) {
    throw Error(ErrorCode::format, "the index is damaged: section 'mean', entry " +
                                       std::to_string(bad) + ": expected a finite number");
  }
  routed_query_.set(work_.data(), dim, view.forest.dim4);
}

void Searcher::prepare_scan(const SearchView& view) {
  const std::uint32_t dim = view.scorer->dim();
  if (view.scan == Scan::codes) {
    const bool multiplies = traits_of(view.scorer->metric()).multiplies_norm;
    const QueryBytes bytes{routed_query_.values.data(), routed_query_.sum, routed_query_.step};
    make_tables(view.codes, bytes, multiplies ? -1.0f : -2.0f, &table_scratch_, &tables_);
    if (view.row_scalars && view.planes_of_work) work_planes_.set(work_.data(), dim);
    if (view.row_scalars && !view.planes_of_work) row_planes_.set(tamed_.data(), dim);
  } else if (view.scan == Scan::byte_rows) {
    bytes_.resize(dim);
    const float inverse = 1.0f / view.byte_scale;
    for (std::uint32_t j = 0; j < dim; ++j) {
      const float byte = std::nearbyint((tamed_[j] - view.byte_offset) * inverse);
      bytes_[j] = static_cast<std::uint8_t>(std::clamp(byte, 0.0f, 255.0f));
    }
  }
}

// ---- scanning --------------------------------------------------------------------------------

std::size_t Searcher::scan_vectors(const SearchView& view, const LeafSpan& span, float threshold,
                                   const std::uint64_t* eligible, Survivors out) {
  std::size_t passed = 0;
  for (std::uint32_t i = 0; i < span.count; ++i) {
    const auto slot = static_cast<Slot>(span.first + i);
    if (eligible && !(eligible[slot / 64] >> (slot % 64) & 1)) continue;
    const auto score = static_cast<float>(key_of(view, exact_, slot));
    if (!(score <= threshold)) continue;
    out.scores[passed] = score;
    out.slots[passed++] = slot;
  }
  return passed;
}

std::size_t Searcher::scan_leaf(const SearchView& view, const LeafSpan& span, float route_score,
                                std::uint32_t entry, float threshold, const std::uint64_t* eligible,
                                Survivors out) {
  const auto first = static_cast<Slot>(span.first);
  const std::uint32_t dim = view.scorer->dim();
  switch (view.scan) {
    case Scan::codes: {
      const float leaf_score =
          (route_score - view.leaf_biases[entry]) * view.leaf_scan_factors[entry] + tables_.base;
      const CodesView& codes = view.codes;
      const auto scan = traits_of(view.scorer->metric()).multiplies_norm
                            ? kernels().scan_codes_multiplicative
                            : kernels().scan_codes_additive;
      return scan(codes.blocks + std::size_t{span.first_block} * codes.code_count * 16, span.count,
                  codes.code_count, tables_.luts(), leaf_score, tables_.step, codes.scalars + first,
                  threshold, first, eligible, out);
    }
    case Scan::byte_rows:
      return kernels().scan_l1_u8(
          static_cast<const std::uint8_t*>(static_cast<const void*>(view.byte_rows)) +
              std::size_t{first} * dim,
          span.count, dim, view.byte_rows_signed ? 0x80 : 0, bytes_.data(), view.byte_scale,
          threshold, first, eligible, out);
    case Scan::bits:
      return kernels().scan_hamming(
          static_cast<const std::uint8_t*>(static_cast<const void*>(view.vectors)) +
              std::size_t{first} * view.row_bytes,
          span.count, view.row_bytes, exact_.bits, threshold, first, eligible, out);
    case Scan::vectors: return scan_vectors(view, span, threshold, eligible, out);
  }
  return 0;
}

// Keeps the survivors that do not exceed a bound near the keep-th best score, and returns it.
float Searcher::keep_near_best(std::uint64_t keep) {
  const float bound = kernels().near_bound(scores_.data(), survivors_, keep);
  survivors_ = kernels().compact_at_most(scores_.data(), slots_.data(), survivors_, bound);
  return bound;
}

// Cuts the survivors to exactly the best `keep`, ties by row, as results are ordered, and returns
// the worst score kept.
float Searcher::keep_best_by_row(const SearchView& view, std::uint64_t keep) {
  keys_.resize(survivors_);
  for (std::size_t i = 0; i < survivors_; ++i) {
    keys_[i] = std::uint64_t{ordered_key(scores_[i])} << 32 | checked_row(view, slots_[i]);
  }
  const auto last = keys_.begin() + static_cast<std::ptrdiff_t>(keep) - 1;
  std::nth_element(keys_.begin(), last, keys_.end());
  for (std::size_t i = 0; i < keep; ++i) {
    slots_[i] = checked_slot(view, static_cast<std::uint32_t>(keys_[i]));
    scores_[i] = float_of_key(static_cast<std::uint32_t>(keys_[i] >> 32));
  }
  survivors_ = keep;
  return float_of_key(static_cast<std::uint32_t>(*last >> 32));
}

float Searcher::keep_best(const SearchView& view, std::uint64_t keep) {
  // A scan whose scores are exact decides ties; an approximate one has nothing to decide.
  const bool is_exact = view.scan == Scan::bits || view.scan == Scan::vectors;
  return is_exact ? keep_best_by_row(view, keep) : keep_near_best(keep);
}

void Searcher::scan_leaves(const SearchView& view, const Request& request, std::uint64_t keep) {
  survivors_ = 0;
  float threshold = kInfinity;
  const std::uint64_t* eligible = request.eligible ? request.eligible->words() : nullptr;
  std::uint64_t full = keep * 2 + 64;  // survivors that are worth cutting
  const CodesView& codes = view.codes;
  // Those of further trees come last.
  const auto is_of_first_tree = [&](std::size_t i) {
    return i < leaves_.size() && leaves_[i].tree == 0;
  };
  LeafSpan next{};
  if (is_of_first_tree(0)) next = checked_leaf(view.forest, leaves_[0].entry, true);
  for (std::size_t i = 0; is_of_first_tree(i); ++i) {
    const LeafSpan span = next;
    const bool has_next = is_of_first_tree(i + 1);
    if (has_next) next = checked_leaf(view.forest, leaves_[i + 1].entry, true);
    if (view.scan == Scan::codes && has_next) {
      const std::size_t block_bytes = std::size_t{codes.code_count} * 16;
      prefetch_l2(
          codes.blocks + next.first_block * block_bytes,
          std::min<std::size_t>(tuning::kPrefetchCodeBytes, next.count / 2 * codes.code_count));
      prefetch_l2(codes.scalars + next.first,
                  std::min<std::size_t>(tuning::kPrefetchScalarBytes, next.count * sizeof(float)));
    }
    const std::size_t room = survivors_ + span.count + 2 * kBlockPoints;
    if (scores_.size() < room) {
      scores_.resize(room * 2);
      slots_.resize(room * 2);
    }
    keep_pages();
    survivors_ += scan_leaf(view, span, leaves_[i].score, leaves_[i].entry, threshold, eligible,
                            {scores_.data() + survivors_, slots_.data() + survivors_});
    if (survivors_ >= full) {
      threshold = keep_best(view, keep);
      // Equal scores all stay: cut again only when there are twice as many, or work grows squared.
      if (survivors_ >= full) full = 2 * survivors_;
    }
  }
  if (survivors_ > keep) keep_best(view, keep);
  if (request.excluded != kNoRow) {
    for (std::size_t i = 0; i < survivors_; ++i) {
      if (slots_[i] != request.excluded) continue;
      --survivors_;
      std::swap(slots_[i], slots_[survivors_]);
      std::swap(scores_[i], scores_[survivors_]);
      break;
    }
  }
}

// Points of further trees' leaves that the first tree's leaves did not hold join the survivors;
// they have no score of a scan, so all of them are re-scored.
void Searcher::add_further_trees(const SearchView& view, const Request& request) {
  const auto is_further = [](const RoutedLeaf& leaf) { return leaf.tree != 0; };
  if (std::none_of(leaves_.begin(), leaves_.end(), is_further)) return;
  seen_.assign(view.item_count / 64 + 1, 0);
  const auto meet = [&](Slot slot) {
    const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
    const bool is_new = !(seen_[slot / 64] & bit);
    seen_[slot / 64] |= bit;
    return is_new;
  };
  for (const RoutedLeaf& leaf : leaves_) {
    if (leaf.tree != 0) continue;
    const LeafSpan span = checked_leaf(view.forest, leaf.entry, true);
    for (std::uint32_t i = 0; i < span.count; ++i) meet(static_cast<Slot>(span.first + i));
  }
  scores_.resize(survivors_);
  slots_.resize(survivors_);
  for (const RoutedLeaf& leaf : leaves_) {
    if (leaf.tree == 0) continue;
    const LeafSpan span = checked_leaf(view.forest, leaf.entry, false);
    for (std::uint32_t i = 0; i < span.count; ++i) {
      const Slot slot = view.forest.tree_slots[span.first + i];
      if (slot >= view.item_count) {
        throw Error(ErrorCode::format,
                    "the index is damaged: section 'tree_slots', entry " +
                        std::to_string(span.first + i) + ": expected less than " +
                        std::to_string(view.item_count) + ", found " + std::to_string(slot));
      }
      if (!meet(slot) || slot == request.excluded || !is_eligible(request.eligible, slot)) continue;
      slots_.push_back(slot);
      scores_.push_back(0.0f);
    }
  }
  survivors_ = slots_.size();
}

// ---- re-scoring ------------------------------------------------------------------------------

// Keys of the survivors [first, first + count) from byte rows.
void Searcher::score_by_bytes(const SearchView& view, std::size_t first, std::size_t count) {
  const std::uint32_t dim = view.scorer->dim();
  const QueryPlanes& planes = view.planes_of_work ? work_planes_.planes : row_planes_.planes;
  const void* rows = view.byte_rows;
  const Slot* slots = slots_.data() + first;
  float* keys = rerank_keys_.data() + first;
  if (view.byte_rows_signed) {
    kernels().rerank_i8(static_cast<const std::int8_t*>(rows), dim, dim, planes, view.row_scalars,
                        slots, count, keys);
  } else {
    kernels().rerank_u8(static_cast<const std::uint8_t*>(rows), dim, dim, planes, view.row_scalars,
                        slots, count, keys);
  }
}

// Byte rows order the survivors; the best `keep`, and few more, stay.
void Searcher::rerank(const SearchView& view, std::uint64_t keep) {
  rerank_keys_.resize(survivors_);
  const std::size_t step = page_keeper_ ? kRowsPerKeeping : survivors_;
  for (std::size_t first = 0; first < survivors_; first += step) {
    keep_pages();
    score_by_bytes(view, first, std::min(step, survivors_ - first));
  }
  if (survivors_ <= keep) return;
  const float bound = kernels().near_bound(rerank_keys_.data(), survivors_, keep);
  survivors_ = kernels().compact_at_most(rerank_keys_.data(), slots_.data(), survivors_, bound);
}

void Searcher::score_exactly(const SearchView& view, const Request& request) {
  for (std::size_t i = 0; i < survivors_; ++i) {
    prefetch_l2(view.vectors + std::size_t{slots_[i]} * view.row_bytes, view.row_bytes);
    prefetch_l2(view.slot_rows + slots_[i], sizeof(std::uint32_t));
  }
  found_.clear();
  if (request.included != kNoRow && is_eligible(request.eligible, request.included)) {
    Slot* end = slots_.data() + survivors_;
    if (std::find(slots_.data(), end, request.included) == end) {
      slots_.resize(std::max(slots_.size(), survivors_ + 1));
      slots_[survivors_++] = request.included;
    }
  }
  for (std::size_t i = 0; i < survivors_; ++i) {
    const Slot slot = slots_[i];
    const double key = key_of(view, exact_, slot);
    found_.push_back({key, 0.0, checked_row(view, slot), slot});
  }
  finish_collection(request.k);
}

void Searcher::approximate(const SearchView& view, const Request& request) {
  route(view.forest, routed_query_, request.setting.candidates, request.eligible, &route_scratch_,
        &leaves_);
  const std::uint64_t spare = request.excluded == kNoRow ? 0 : 1;
  const std::uint64_t exact = std::max(request.setting.exact, request.k) + spare;
  const std::uint64_t keep =
      view.scan == Scan::codes ? std::max(request.setting.rerank + spare, exact) : exact;
  scan_leaves(view, request, keep);
  if (view.forest.trees.size() > 1) add_further_trees(view, request);
  if (view.row_scalars) rerank(view, exact);
  score_exactly(view, request);
}

// ---- exact scans -----------------------------------------------------------------------------

void Searcher::collect(const SearchView& view, const Request& request, Slot slot) {
  if (slot == request.excluded || !is_eligible(request.eligible, slot)) return;
  const double key = key_of(view, exact_, slot);
  if (key > collect_bound_) return;
  found_.push_back({key, 0.0, checked_row(view, slot), slot});
  if (found_.size() >= request.k * 2 + 1024) {
    std::nth_element(found_.begin(), found_.begin() + static_cast<std::ptrdiff_t>(request.k) - 1,
                     found_.end(), nearer);
    found_.resize(request.k);
    collect_bound_ = found_.back().key;
  }
}

void Searcher::collect_range(const SearchView& view, const Request& request, std::uint64_t first,
                             std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    if (i % kRowsPerKeeping == 0) keep_pages();
    collect(view, request, static_cast<Slot>(first + i));
  }
}

void Searcher::finish_collection(std::uint64_t k) {
  const std::size_t keep = std::min<std::size_t>(found_.size(), k);
  std::partial_sort(found_.begin(), found_.begin() + static_cast<std::ptrdiff_t>(keep),
                    found_.end(), nearer);
  found_.resize(keep);
}

void Searcher::scan_exactly(const SearchView& view, const Request& request) {
  found_.clear();
  collect_bound_ = std::numeric_limits<double>::infinity();
  if (request.eligible && request.eligible->count() < view.item_count / 16) {
    for (Slot slot : request.eligible->to_slots()) collect(view, request, slot);
  } else {
    collect_range(view, request, 0, view.item_count);
  }
  finish_collection(request.k);
}

// Fewer than k lie within the radius as far as the search saw: every leaf that could hold another
// is scanned exactly. A leaf's points are within leaf_radii of its centre in the working space,
// where euclidean distance is at most the metric's.
void Searcher::complete_radius(const SearchView& view, const Request& request) {
  if (traits_of(view.scorer->metric()).multiplies_norm) {
    scan_exactly(view, request);
    return;
  }
  double reach = request.radius;
  switch (view.scorer->metric()) {
    case Metric::cosine: reach = std::sqrt(2.0 * std::max(0.0, reach)); break;
    case Metric::hamming: reach = std::sqrt(std::max(0.0, reach)); break;
    case Metric::euclidean:
    case Metric::manhattan: reach = reach / view.value_scale * view.transform.work_scale; break;
    default: break;
  }
  const std::uint32_t dim = view.scorer->dim();
  const ForestView& forest = view.forest;
  const TreeView& tree = forest.trees[0];
  const double query_square = kernels().dot_square_f32(work_.data(), work_.data(), dim).square;
  found_.clear();
  collect_bound_ = std::numeric_limits<double>::infinity();
  std::uint64_t points_left = view.item_count;
  for (std::uint32_t i = 0; i < tree.leaf_entry_count; ++i) {
    const std::uint32_t entry = tree.first_leaf_entry + i;
    const LeafSpan span = checked_leaf(forest, entry, true);
    if (span.count == 0) continue;
    if (span.count > points_left) {
      throw Error(ErrorCode::format, "the index is damaged: section 'leaf_ranges', entry " +
                                         std::to_string(entry) +
                                         ": expected no overlap with other entries");
    }
    points_left -= span.count;
    // The centre as stored; `mults` of an additive score is twice its scale.
    const float scale = 0.5f * forest.leaves.mults[entry];
    const std::uint8_t* block = forest.leaves.centres + std::size_t{entry / 16} * 16 * forest.dim4;
    double dot = 0.0, square = 0.0;
    for (std::uint32_t j = 0; j < dim; ++j) {
      const double value = scale * (block[(j / 4) * 64 + entry % 16 * 4 + j % 4] - 128.0);
      dot += value * work_[j];
      square += value * value;
    }
    const double apart = std::sqrt(std::max(0.0, query_square - 2.0 * dot + square));
    constexpr double kSlack = 1e-4;  // float arithmetic of the radii and of the query's transform
    if (apart * (1.0 - kSlack) - view.leaf_radii[entry] > reach * (1.0 + kSlack)) continue;
    collect_range(view, request, span.first, span.count);
  }
  finish_collection(request.k);
}

// ---- the whole -------------------------------------------------------------------------------

// Distances of the neighbours found. Keys that differ in their last digit may give one distance,
// and what the user sees as a tie must be in the order of rows.
void Searcher::set_distances(const SearchView& view) {
  for (Neighbour& n : found_) n.distance = view.scorer->distance(exact_, n.key);
  const bool larger = traits_of(view.scorer->metric()).larger_is_nearer;
  const auto before = [larger](const Neighbour& a, const Neighbour& b) {
    if (a.distance != b.distance) return larger ? a.distance > b.distance : a.distance < b.distance;
    return a.row < b.row;
  };
  if (!std::is_sorted(found_.begin(), found_.end(), before)) {
    std::sort(found_.begin(), found_.end(), before);
  }
}

const std::vector<Neighbour>& Searcher::run(const SearchView& view, const void* values,
                                            const Request& request) {
  prepare(view, values);
  std::uint64_t eligible = request.eligible ? request.eligible->count() : view.item_count;
  if (request.excluded != kNoRow && is_eligible(request.eligible, request.excluded) &&
      eligible > 0) {
    --eligible;
  }
  const std::uint64_t wanted = std::min(request.k, eligible);
  // Few eligible items, or a query without a direction: an exact scan is cheaper, or the only
  // truth.
  const bool few = eligible <= tuning::kExactScanItems;
  if (request.setting.everything || is_zero_ || few) {
    scan_exactly(view, request);
  } else {
    prepare_routing(view);
    prepare_scan(view);
    Request attempt = request;
    attempt.k = wanted;
    for (;;) {
      approximate(view, attempt);
      if (found_.size() >= wanted || attempt.setting.candidates >= view.item_count) break;
      attempt.setting.candidates =
          std::max(attempt.setting.candidates, request.k) * tuning::kWidening;
    }
    if (found_.size() < wanted) scan_exactly(view, attempt);
  }
  set_distances(view);
  if (request.has_radius) {
    const auto outside = [&](const Neighbour& n) {
      return !view.scorer->within(n.distance, request.radius);
    };
    const auto cut = [&] {
      found_.erase(std::remove_if(found_.begin(), found_.end(), outside), found_.end());
    };
    cut();
    if (found_.size() < wanted && !(request.setting.everything || is_zero_ || few)) {
      complete_radius(view, request);
      set_distances(view);
      cut();
    }
  }
  return found_;
}

// ---- calibration ------------------------------------------------------------------------------

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

// The last key within each depth.
void Searcher::find_thresholds(const std::vector<float>& scores, std::size_t n,
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

void Searcher::score_leaves(const SearchView& view, std::vector<float>* scores) const {
  annidx::score_leaves(view.forest, routed_query_, scores);
}

double Searcher::traced_key(const SearchView& view, Slot slot) {
  CachedKey& cached = cached_keys_[slot % cached_keys_.size()];
  if (cached.slot != slot) cached = {slot, key_of(view, exact_, slot)};
  return cached.key;
}

void Searcher::begin_trace(const SearchView& view, const void* values, Slot excluded) {
  prepare(view, values);
  prepare_routing(view);
  prepare_scan(view);
  cached_keys_.assign(tuning::kTracedKeys, {kNoRow, 0.0});
  traced_excluded_ = excluded;
}

const std::vector<TracedCandidate>& Searcher::trace(const SearchView& view,
                                                    std::uint64_t candidates,
                                                    const TraceDepths& depths) {
  Request request;
  request.excluded = traced_excluded_;
  route(view.forest, routed_query_, candidates, nullptr, &route_scratch_, &leaves_);
  scan_leaves(view, request, depths.scan.back());
  const std::size_t scanned = survivors_;
  find_thresholds(scores_, scanned, depths.scan, &scan_thresholds_);
  if (view.forest.trees.size() > 1) add_further_trees(view, request);
  if (view.row_scalars) {
    rerank(view, survivors_);
  } else {
    rerank_keys_.assign(scores_.begin(), scores_.begin() + static_cast<std::ptrdiff_t>(survivors_));
  }
  find_thresholds(rerank_keys_, survivors_, depths.exact, &exact_thresholds_);
  traced_.clear();
  for (std::size_t i = 0; i < survivors_; ++i) {
    if (i % kRowsPerKeeping == 0) keep_pages();
    const std::uint32_t exact_step = step_of(exact_thresholds_, placed_key(rerank_keys_[i], i));
    if (exact_step == depths.exact.size()) continue;
    // Points of further trees are re-scored whatever the depth.
    const std::uint32_t scan_step =
        i < scanned ? step_of(scan_thresholds_, placed_key(scores_[i], i)) : 0;
    traced_.push_back({traced_key(view, slots_[i]), scan_step, exact_step});
  }
  return traced_;
}

}  // namespace annidx
