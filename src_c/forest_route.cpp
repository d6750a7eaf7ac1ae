// forest_route.cpp owns the choice of the leaves a query reads; see forest.h. The tables it reads
// may hold anything: spans are checked where they are used, and scores are ordered as integers so
// that NaN cannot break a sort.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "error.h"
#include "forest.h"
#include "kernels.h"
#include "tuning.h"

namespace annidx {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::uint64_t pack(float score, std::uint32_t entry) noexcept {
  return std::uint64_t{ordered_key(score)} << 32 | entry;
}

// Scores of the `count` centres from `first` on (both multiples of 16).
void score_centres(const CentreTable& table, std::uint32_t dim4, std::uint32_t first,
                   std::uint32_t count, const RouteQuery& query, float* out) {
  kernels().route_scores(table.centres + std::size_t{first} * dim4, count / kPanelWidth, dim4,
                         query.values.data(), query.sum, query.step, table.mults + first,
                         table.biases + first, out);
}

// A bound that about twice `wanted` of n scores do not exceed, guessed from a sample of them.
float sampled_bound(const float* scores, std::size_t n, std::size_t wanted,
                    std::vector<float>* sample) {
  constexpr std::size_t kStep = kPanelWidth + 1;  // visits every lane of the centre blocks
  if (wanted * 2 >= n || n < 32 * kStep) return kInfinity;
  sample->clear();
  for (std::size_t i = 0; i < n; i += kStep) {
    if (scores[i] < kInfinity) sample->push_back(scores[i]);
  }
  return sample->empty() ? kInfinity
                         : near_bound(sample->data(), sample->size(), wanted * 2 / kStep + 4);
}

// The best `wanted` (or all) of the entries base .. base + n, as packed keys, best first.
void best_entries(const float* scores, std::size_t n, std::uint32_t base, std::size_t wanted,
                  RouteScratch* scratch, std::vector<std::uint64_t>* best) {
  scratch->picked_scores.resize(n + kPanelWidth);
  scratch->picked_entries.resize(n + kPanelWidth);
  const Survivors picked{scratch->picked_scores.data(), scratch->picked_entries.data()};
  const float bound = sampled_bound(scores, n, wanted, &scratch->sample);
  std::size_t count = kernels().select_at_most(scores, n, bound, base, picked);
  if (count < wanted && bound != kInfinity) {
    count = kernels().select_at_most(scores, n, kInfinity, base, picked);
  }
  const float tighter = count > wanted ? near_bound(picked.scores, count, wanted) : kInfinity;
  best->clear();
  for (std::size_t i = 0; i < count; ++i) {
    if (picked.scores[i] <= tighter) best->push_back(pack(picked.scores[i], picked.slots[i]));
  }
  if (best->size() > wanted) {
    std::nth_element(best->begin(), best->begin() + wanted, best->end());
    best->resize(wanted);
  }
  std::sort(best->begin(), best->end());
}

GroupSpan checked_group(const ForestView& forest, const TreeView& tree, std::uint32_t entry) {
  const GroupSpan span = forest.group_spans[entry];
  const std::uint64_t end = (std::uint64_t{span.first_leaf_block} + span.leaf_blocks) * kPanelWidth;
  const std::uint64_t tree_end = std::uint64_t{tree.first_leaf_entry} + tree.leaf_entry_count;
  if (end > tree_end || std::uint64_t{span.first_leaf_block} * kPanelWidth < tree.first_leaf_entry) {
    throw Error(ErrorCode::format,
                "the index is damaged: section 'group_ranges', entry " + std::to_string(entry) +
                    ": expected leaf blocks within the tree, found blocks " +
                    std::to_string(span.first_leaf_block) + " and " +
                    std::to_string(span.leaf_blocks) + " more");
  }
  return span;
}

// Scores the leaves of scratch->opened_groups.
void open_groups(const ForestView& forest, const TreeView& tree, const RouteQuery& query,
                 RouteScratch* scratch, std::vector<std::uint64_t>* best) {
  best->clear();
  for (std::uint64_t key : scratch->opened_groups) {
    const GroupSpan span = checked_group(forest, tree, static_cast<std::uint32_t>(key));
    const std::uint32_t first = span.first_leaf_block * static_cast<std::uint32_t>(kPanelWidth);
    const std::uint32_t count = span.leaf_blocks * static_cast<std::uint32_t>(kPanelWidth);
    scratch->scores.resize(std::max<std::size_t>(scratch->scores.size(), count));
    score_centres(forest.leaves, forest.dim4, first, count, query, scratch->scores.data());
    for (std::uint32_t i = 0; i < count; ++i) {
      if (scratch->scores[i] < kInfinity) best->push_back(pack(scratch->scores[i], first + i));
    }
  }
}

// Scores a tree's leaves into scratch->scores and returns the best `wanted` of them.
void best_leaves(const ForestView& forest, const TreeView& tree, const RouteQuery& query,
                 std::size_t wanted, RouteScratch* scratch, std::vector<std::uint64_t>* best) {
  if (tree.group_entry_count == 0) {
    scratch->scores.resize(tree.leaf_entry_count);
    score_centres(forest.leaves, forest.dim4, tree.first_leaf_entry, tree.leaf_entry_count, query,
                  scratch->scores.data());
    best_entries(scratch->scores.data(), tree.leaf_entry_count, tree.first_leaf_entry, wanted,
                 scratch, best);
    return;
  }
  scratch->scores.resize(tree.group_entry_count);
  score_centres(forest.groups, forest.dim4, tree.first_group_entry, tree.group_entry_count, query,
                scratch->scores.data());
  std::vector<std::uint64_t>& opened = scratch->opened_groups;
  best_entries(scratch->scores.data(), tree.group_entry_count, tree.first_group_entry,
               std::max<std::size_t>(tuning::kMinGroups, wanted / tuning::kLeavesPerOpenedGroup),
               scratch, &opened);
  open_groups(forest, tree, query, scratch, best);
  if (best->size() < wanted && opened.size() < tree.group_entry_count) {
    // Small groups: open them all.
    score_centres(forest.groups, forest.dim4, tree.first_group_entry, tree.group_entry_count,
                  query, scratch->scores.data());
    best_entries(scratch->scores.data(), tree.group_entry_count, tree.first_group_entry,
                 tree.group_entry_count, scratch, &opened);
    open_groups(forest, tree, query, scratch, best);
  }
  if (best->size() > wanted) {
    std::nth_element(best->begin(), best->begin() + wanted, best->end());
    best->resize(wanted);
  }
  std::sort(best->begin(), best->end());
}

std::uint64_t eligible_points(const ForestView& forest, const LeafSpan& span, bool first_tree,
                              const SlotSet* eligible) {
  if (!eligible) return span.count;
  if (first_tree) return eligible->count_range(span.first, span.count);
  std::uint64_t count = 0;
  for (std::uint32_t i = 0; i < span.count; ++i) {
    const Slot slot = forest.tree_slots[span.first + i];
    count += slot < forest.item_count && eligible->contains(slot);
  }
  return count;
}

}  // namespace

// The upper edge of a bin of a histogram between the least and the largest score.
float near_bound(const float* scores, std::size_t n, std::size_t keep) noexcept {
  constexpr std::size_t kBins = 512;
  float low = kInfinity, high = -kInfinity;
  for (std::size_t i = 0; i < n; ++i) {
    low = scores[i] < low ? scores[i] : low;
    high = scores[i] > high ? scores[i] : high;
  }
  const float factor = static_cast<float>(kBins - 1) / (high - low);
  if (!(factor > 0.0f) || !(factor < kInfinity)) return high;
  std::uint16_t counts[kBins] = {};
  constexpr std::size_t kMost = 65'535;  // of a bin
  for (std::size_t i = 0; i < std::min(n, kMost); ++i) {
    ++counts[static_cast<std::size_t>((scores[i] - low) * factor)];
  }
  std::size_t bin = 0;
  for (std::size_t below = counts[0]; below < keep && bin + 1 < kBins; below += counts[++bin]) {
  }
  // The largest score of the bin: rounding of the edges cannot lose a score that was counted.
  float bound = low;
  for (std::size_t i = 0; i < n; ++i) {
    const bool counted = static_cast<std::size_t>((scores[i] - low) * factor) <= bin;
    bound = counted && scores[i] > bound ? scores[i] : bound;
  }
  return bound;
}

std::uint32_t ordered_key(float value) noexcept {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (value != value) return 0xFFFFFFFFu;
  return (bits & 0x80000000u) ? ~bits : bits | 0x80000000u;
}

float float_of_key(std::uint32_t key) noexcept {
  const std::uint32_t bits = (key & 0x80000000u) ? key & 0x7FFFFFFFu : ~key;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

float quantize_centre(const float* centre, std::uint32_t dim, std::uint8_t* bytes) noexcept {
  const float largest = kernels().max_abs(centre, dim);
  const float scale = largest > 0.0f ? largest / 127.0f : 1.0f;
  for (std::uint32_t j = 0; j < dim; ++j) {
    bytes[j] = static_cast<std::uint8_t>(128 + static_cast<int>(std::nearbyint(centre[j] / scale)));
  }
  return scale;
}

void place_centre(const std::uint8_t* bytes, std::uint32_t dim, std::uint32_t dim4,
                  std::uint64_t entry, std::uint8_t* table) noexcept {
  std::uint8_t* block = table + entry / kPanelWidth * kPanelWidth * dim4;
  const std::size_t lane = entry % kPanelWidth;
  for (std::uint32_t j = 0; j < dim4; ++j) {
    block[(j / 4) * 4 * kPanelWidth + lane * 4 + j % 4] = j < dim ? bytes[j] : 128;
  }
}

void RouteQuery::set(const float* work_query, std::uint32_t dim, std::uint32_t dim4) {
  values.assign(dim4, 0);
  const float largest = kernels().max_abs(work_query, dim);
  step = largest > 0.0f ? largest / static_cast<float>(kPlaneMax) : 1.0f;
  const float inverse = 1.0f / step;
  sum = 0;
  for (std::uint32_t j = 0; j < dim; ++j) {
    const float scaled = std::nearbyint(work_query[j] * inverse);
    values[j] = static_cast<std::int8_t>(
        std::clamp(scaled, static_cast<float>(kPlaneMin), static_cast<float>(kPlaneMax)));
    sum += values[j];
  }
}

LeafSpan checked_leaf(const ForestView& forest, std::uint32_t entry, bool first_tree) {
  const LeafSpan span = forest.leaf_spans[entry];
  const std::uint64_t lists = forest.trees.size() - 1;
  const std::uint64_t limit = first_tree ? forest.item_count : lists * forest.item_count;
  const std::uint64_t blocks = (std::uint64_t{span.count} + kBlockPoints - 1) / kBlockPoints;
  const bool blocks_fit = !first_tree || forest.block_count == 0 ||
                          std::uint64_t{span.first_block} + blocks <= forest.block_count;
  if (span.first > limit || span.count > limit - span.first || span.count > forest.item_count ||
      !blocks_fit) {
    throw Error(ErrorCode::format, "the index is damaged: section 'leaf_ranges', entry " +
                                       std::to_string(entry) + ": expected points within " +
                                       std::to_string(limit) + ", found " +
                                       std::to_string(span.count) + " from " +
                                       std::to_string(span.first));
  }
  return span;
}

void route(const ForestView& forest, const RouteQuery& query, std::uint64_t candidates,
           const SlotSet* eligible, RouteScratch* scratch, std::vector<RoutedLeaf>* out) {
  std::uint64_t entries = 0;
  for (const TreeView& tree : forest.trees) entries += tree.leaf_entry_count;
  // Leaves to order at first: those that hold the candidates if they were all alike, and a third
  // more. Too few is noticed below.
  const double share = eligible && eligible->slot_count() > 0
                           ? std::max<double>(static_cast<double>(eligible->count()), 1.0) /
                                 static_cast<double>(eligible->slot_count())
                           : 1.0;
  const double points_per_entry = static_cast<double>(forest.item_count * forest.trees.size()) /
                                  static_cast<double>(std::max<std::uint64_t>(entries, 1));
  const double estimate =
      static_cast<double>(candidates) / std::max(points_per_entry * share, 1e-9) * 1.35 + 8.0;
  std::size_t wanted = estimate < static_cast<double>(entries)
                           ? static_cast<std::size_t>(estimate)
                           : static_cast<std::size_t>(entries);
  std::vector<std::uint64_t>& best = scratch->best_leaves;
  std::vector<RoutedLeaf>& merged = scratch->merged;
  for (;;) {
    out->clear();
    merged.clear();
    bool exhausted = true;
    for (std::uint32_t t = 0; t < forest.trees.size(); ++t) {
      best_leaves(forest, forest.trees[t], query, wanted, scratch, &best);
      exhausted = exhausted && best.size() < wanted;
      for (std::uint64_t key : best) {
        merged.push_back({float_of_key(static_cast<std::uint32_t>(key >> 32)),
                          static_cast<std::uint32_t>(key), t});
      }
    }
    if (forest.trees.size() > 1) {
      std::stable_sort(merged.begin(), merged.end(), [](const RoutedLeaf& a, const RoutedLeaf& b) {
        return ordered_key(a.score) < ordered_key(b.score);
      });
    }
    std::uint64_t points = 0;
    for (const RoutedLeaf& leaf : merged) {
      if (points >= candidates) break;
      const LeafSpan span = checked_leaf(forest, leaf.entry, leaf.tree == 0);
      const std::uint64_t count = eligible_points(forest, span, leaf.tree == 0, eligible);
      if (count == 0) continue;
      points += count;
      out->push_back(leaf);
    }
    if (points >= candidates || exhausted || wanted >= entries) return;
    wanted = std::min<std::size_t>(static_cast<std::size_t>(entries), wanted * 4);
  }
}

}  // namespace annidx
