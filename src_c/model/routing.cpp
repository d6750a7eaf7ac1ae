// routing.cpp owns the choice of the leaves a query reads; see partition.h. The tables it reads
// may hold anything: spans are checked where they are used, and scores are ordered as integers so
// that NaN cannot break a sort.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "base/error.h"
#include "base/tuning.h"
#include "kernels/kernels.h"
#include "model/blocks.h"
#include "model/partition.h"

namespace annidx {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::uint64_t pack(float score, std::uint32_t entry) noexcept {
  return std::uint64_t{ordered_key(score)} << 32 | entry;
}

// In a sound file ranges do not overlap, which bounds the work of a query.
[[noreturn]] void refuse_overlap(const char* section, std::uint32_t entry) {
  throw Error(ErrorCode::format, std::string("the index is damaged: section '") + section +
                                     "', entry " + std::to_string(entry) +
                                     ": expected no overlap with other entries");
}

// Scores of the `count` centroids from `first` on (both multiples of 16).
void score_centroids(const CentroidTable& table, std::uint32_t dim4, std::uint32_t first,
                     std::uint32_t count, const RouteQuery& query, float* out) {
  kernels().route_scores(table.centroids + std::size_t{first} * dim4, count / kPanelWidth, dim4,
                         query.values.data(), query.sum, query.step, table.mults + first,
                         table.biases + first, out);
}

// A bound that about twice `wanted` of n scores do not exceed, guessed from a sample of them.
float sampled_bound(const float* scores, std::size_t n, std::size_t wanted,
                    std::vector<float>* sample) {
  constexpr std::size_t kStep = kPanelWidth + 1;  // visits every lane of the centroid blocks
  if (wanted * 2 >= n || n < 32 * kStep) return kInfinity;
  sample->clear();
  for (std::size_t i = 0; i < n; i += kStep) sample->push_back(scores[i]);
  return kernels().near_bound(sample->data(), sample->size(), wanted * 3 / (2 * kStep) + 4);
}

// Of `count` picked entries the best `wanted`, as packed keys, best first.
void sort_best(std::size_t count, std::size_t wanted, RouteScratch* scratch,
               std::vector<std::uint64_t>* best) {
  float* scores = scratch->picked_scores.data();
  Slot* entries = scratch->picked_entries.data();
  if (count > wanted) {
    const float bound = kernels().near_bound(scores, count, wanted);
    count = kernels().compact_at_most(scores, entries, count, bound);
  }
  best->clear();
  if (count <= kMostSorted) {
    std::uint32_t sorted[kMostSorted];
    kernels().sort_scores(scores, count, sorted);
    for (std::size_t i = 0; i < std::min(count, wanted); ++i) {
      best->push_back(pack(scores[sorted[i]], entries[sorted[i]]));
    }
    return;
  }
  for (std::size_t i = 0; i < count; ++i) best->push_back(pack(scores[i], entries[i]));
  if (best->size() > wanted) {
    std::nth_element(best->begin(), best->begin() + static_cast<std::ptrdiff_t>(wanted),
                     best->end());
    best->resize(wanted);
  }
  std::sort(best->begin(), best->end());
}

// The best `wanted` (or all) of the entries base .. base + n.
void best_entries(const float* scores, std::size_t n, std::uint32_t base, std::size_t wanted,
                  RouteScratch* scratch, std::vector<std::uint64_t>* best) {
  scratch->picked_scores.resize(n + kPanelWidth);
  scratch->picked_entries.resize(n + kPanelWidth);
  const Survivors picked{scratch->picked_scores.data(), scratch->picked_entries.data()};
  const float guess = sampled_bound(scores, n, wanted, &scratch->sample);
  std::size_t count = kernels().select_at_most(scores, n, guess, base, picked);
  if (count < wanted && guess < kInfinity) {
    count = kernels().select_at_most(scores, n, kInfinity, base, picked);
  }
  sort_best(count, wanted, scratch, best);
}

GroupSpan checked_group(const ForestView& forest, const TreeView& tree, std::uint32_t entry) {
  const GroupSpan span = forest.group_spans[entry];
  const std::uint64_t end = (std::uint64_t{span.first_leaf_block} + span.leaf_blocks) * kPanelWidth;
  const std::uint64_t tree_end = std::uint64_t{tree.first_leaf_entry} + tree.leaf_entry_count;
  if (end > tree_end ||
      std::uint64_t{span.first_leaf_block} * kPanelWidth < tree.first_leaf_entry) {
    throw Error(ErrorCode::format, "the index is damaged: section 'group_ranges', entry " +
                                       std::to_string(entry) +
                                       ": expected leaf blocks within the tree, found blocks " +
                                       std::to_string(span.first_leaf_block) + " and " +
                                       std::to_string(span.leaf_blocks) + " more");
  }
  return span;
}

// Scores the leaves of scratch->opened_groups into the picked arrays; returns how many.
std::size_t open_groups(const ForestView& forest, const TreeView& tree, const RouteQuery& query,
                        RouteScratch* scratch) {
  std::size_t picked = 0;
  std::uint32_t leaves_left = tree.leaf_entry_count;
  for (std::uint64_t key : scratch->opened_groups) {
    const auto entry = static_cast<std::uint32_t>(key);
    const GroupSpan span = checked_group(forest, tree, entry);
    const std::uint32_t first = span.first_leaf_block * static_cast<std::uint32_t>(kPanelWidth);
    const std::uint32_t count = span.leaf_blocks * static_cast<std::uint32_t>(kPanelWidth);
    if (count > leaves_left) refuse_overlap("group_ranges", entry);
    leaves_left -= count;
    const std::size_t room = picked + count + kPanelWidth;
    if (scratch->scores.size() < count) scratch->scores.resize(count);
    if (scratch->picked_scores.size() < room) {
      scratch->picked_scores.resize(room * 2);
      scratch->picked_entries.resize(room * 2);
    }
    score_centroids(forest.leaves, forest.dim4, first, count, query, scratch->scores.data());
    constexpr float kLargest = std::numeric_limits<float>::max();  // not the padding entries
    picked += kernels().select_at_most(
        scratch->scores.data(), count, kLargest, first,
        {scratch->picked_scores.data() + picked, scratch->picked_entries.data() + picked});
  }
  return picked;
}

// The best `wanted` leaves of a tree.
void best_leaves(const ForestView& forest, const TreeView& tree, const RouteQuery& query,
                 std::size_t wanted, std::vector<float>* top_scores, RouteScratch* scratch,
                 std::vector<std::uint64_t>* best) {
  const bool grouped = tree.group_entry_count > 0;
  const std::uint32_t entries = grouped ? tree.group_entry_count : tree.leaf_entry_count;
  const std::uint32_t first = grouped ? tree.first_group_entry : tree.first_leaf_entry;
  top_scores->resize(std::max<std::size_t>(top_scores->size(), entries));
  score_centroids(grouped ? forest.groups : forest.leaves, forest.dim4, first, entries, query,
                  top_scores->data());
  if (!grouped) {
    best_entries(top_scores->data(), entries, first, wanted, scratch, best);
    return;
  }
  std::size_t groups =
      std::max<std::size_t>(tuning::kMinGroups, wanted / tuning::kLeavesPerOpenedGroup);
  for (;;) {
    best_entries(top_scores->data(), entries, first, groups, scratch, &scratch->opened_groups);
    const std::size_t picked = open_groups(forest, tree, query, scratch);
    if (picked >= wanted || groups >= entries) {
      sort_best(picked, wanted, scratch, best);
      return;
    }
    groups = entries;  // small groups: open them all
  }
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

// How much rarer eligible points are about the query than overall: where a filter goes with
// position, the nearest of them are far away, and spread over more leaves than near ones would be.
double rarity(std::uint64_t eligible_near, double expected_near) noexcept {
  // One more of each, so that a single point too few says nothing.
  const double ratio = (expected_near + 1.0) / (static_cast<double>(eligible_near) + 1.0);
  return std::clamp(ratio, 1.0, tuning::kMaxFilterStretch);
}

}  // namespace

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

float quantize_centroid(const float* centroid, std::uint32_t dim, std::uint8_t* bytes) noexcept {
  const float largest = kernels().max_abs(centroid, dim);
  constexpr float kLeast = 1e-36f;  // a scale that can be divided by
  const float scale = largest > kLeast ? largest / 127.0f : 1.0f;
  for (std::uint32_t j = 0; j < dim; ++j) {
    bytes[j] =
        static_cast<std::uint8_t>(128 + static_cast<int>(std::nearbyint(centroid[j] / scale)));
  }
  return scale;
}

void place_centroid(const std::uint8_t* bytes, std::uint32_t dim, std::uint32_t dim4,
                    std::uint64_t entry, std::uint8_t* table) noexcept {
  std::uint8_t* block = table + entry / kPanelWidth * kPanelWidth * dim4;
  const std::size_t lane = entry % kPanelWidth;
  for (std::uint32_t j = 0; j < dim4; ++j) {
    block[(j / 4) * 4 * kPanelWidth + lane * 4 + j % 4] = j < dim ? bytes[j] : 128;
  }
}

void take_centroid(const std::uint8_t* table, std::uint32_t dim, std::uint32_t dim4,
                   std::uint64_t entry, std::uint8_t* bytes) noexcept {
  const std::uint8_t* block = table + entry / kPanelWidth * kPanelWidth * dim4;
  const std::size_t lane = entry % kPanelWidth;
  for (std::uint32_t j = 0; j < dim; ++j) {
    bytes[j] = block[(j / 4) * 4 * kPanelWidth + lane * 4 + j % 4];
  }
}

void RouteQuery::set(const float* work_query, std::uint32_t dim, std::uint32_t dim4) {
  values.assign(dim4, 0);
  const float largest = kernels().max_abs(work_query, dim);
  constexpr float kLeast = 1e-30f;  // below it the inverse of a step may be infinite
  step = largest > kLeast ? largest / static_cast<float>(kPlaneMax) : 1.0f;
  const float inverse = 1.0f / step;
  // A local: bytes written could be the member itself, to the compiler.
  std::int8_t* __restrict out = values.data();
  std::int32_t total = 0;
  for (std::uint32_t j = 0; j < dim; ++j) {
    const int scaled = static_cast<int>(round_small(work_query[j] * inverse));
    const int value = std::min(std::max(scaled, kPlaneMin), kPlaneMax);
    out[j] = static_cast<std::int8_t>(value);
    total += value;
  }
  sum = total;
}

LeafSpan checked_leaf(const ForestView& forest, std::uint32_t entry, bool first_tree) {
  const LeafSpan span = forest.leaf_spans[entry];
  const std::uint64_t lists = forest.trees.size() - 1;
  const std::uint64_t limit = first_tree ? forest.item_count : lists * forest.item_count;
  const std::uint64_t blocks = block_count(span.count);
  const auto fits = [first_tree](std::uint64_t first, std::uint64_t count, std::uint64_t all) {
    return !first_tree || all == 0 || first + count <= all;
  };
  const bool blocks_fit =
      fits(span.first_block, blocks, forest.block_count) &&
      fits(span.first_centroid_block, block_count(blocks), forest.centroid_blocks);
  if (span.first > limit || span.count > limit - span.first || span.count > forest.item_count ||
      !blocks_fit) {
    throw Error(ErrorCode::format,
                "the index is damaged: section 'leaf_ranges', entry " + std::to_string(entry) +
                    ": expected points within " + std::to_string(limit) + ", found " +
                    std::to_string(span.count) + " from " + std::to_string(span.first));
  }
  return span;
}

namespace {

// Leaves of the first tree, best first, that hold the candidates.
void route_first_tree(const ForestView& forest, const RouteQuery& query, std::uint64_t candidates,
                      const SlotSet* eligible, RouteScratch* scratch,
                      std::vector<RoutedLeaf>* out) {
  const TreeView& tree = forest.trees[0];
  const std::size_t entries = tree.leaf_entry_count;
  // Leaves to order at first: those that hold the candidates if they were all alike, and a third
  // more. Too few is noticed below.
  const double share = eligible && eligible->slot_count() > 0
                           ? std::max<double>(static_cast<double>(eligible->count()), 1.0) /
                                 static_cast<double>(eligible->slot_count())
                           : 1.0;
  const double points_per_entry = static_cast<double>(forest.item_count) /
                                  static_cast<double>(std::max<std::size_t>(entries, 1));
  const double estimate =
      static_cast<double>(candidates) / std::max(points_per_entry * share, 1e-9) * 1.35 + 8.0;
  std::size_t wanted =
      estimate < static_cast<double>(entries) ? static_cast<std::size_t>(estimate) : entries;
  std::vector<std::uint64_t>& best = scratch->best_leaves;
  for (;;) {
    out->clear();
    best_leaves(forest, tree, query, wanted, &scratch->leaf_scores, scratch, &best);
    std::uint64_t points = 0, passed = 0;
    double stretch = 1.0;
    for (std::uint64_t key : best) {
      const auto entry = static_cast<std::uint32_t>(key);
      const LeafSpan span = checked_leaf(forest, entry, true);
      const bool near = passed < candidates;
      passed += span.count;
      if (passed > forest.item_count) refuse_overlap("leaf_ranges", entry);
      const std::uint64_t count = eligible_points(forest, span, true, eligible);
      points += count;
      if (count > 0) {
        out->push_back({float_of_key(static_cast<std::uint32_t>(key >> 32)), entry, 0});
      }
      if (near && eligible) stretch = rarity(points, static_cast<double>(passed) * share);
      if (static_cast<double>(points) >= static_cast<double>(candidates) * stretch) return;
    }
    if (best.size() < wanted || wanted >= entries) return;
    wanted = std::min(entries, wanted * 4);
  }
}

// The best leaves of further trees join those of the first one.
void route_further_trees(const ForestView& forest, const RouteQuery& query,
                         std::uint64_t candidates, const SlotSet* eligible, RouteScratch* scratch,
                         std::vector<RoutedLeaf>* out) {
  const std::size_t consulted = static_cast<std::size_t>(std::min<std::uint64_t>(
      forest.trees.size(), 1 + candidates / tuning::kCandidatesPerFurtherTree));
  const std::uint64_t wanted_points = candidates / tuning::kCandidatesPerFurtherPoint;
  std::vector<RoutedLeaf>& merged = scratch->merged;
  merged.clear();
  for (std::uint32_t t = 1; t < consulted; ++t) {
    const TreeView& tree = forest.trees[t];
    const std::uint64_t wanted =
        wanted_points * tree.leaf_entry_count / std::max<std::uint64_t>(forest.item_count, 1) + 1;
    best_leaves(forest, tree, query, static_cast<std::size_t>(wanted), &scratch->top_scores,
                scratch, &scratch->best_leaves);
    for (std::uint64_t key : scratch->best_leaves) {
      merged.push_back({float_of_key(static_cast<std::uint32_t>(key >> 32)),
                        static_cast<std::uint32_t>(key), t});
    }
  }
  std::stable_sort(merged.begin(), merged.end(), [](const RoutedLeaf& a, const RoutedLeaf& b) {
    return ordered_key(a.score) < ordered_key(b.score);
  });
  std::uint64_t points = 0;
  for (const RoutedLeaf& leaf : merged) {
    if (points >= wanted_points) break;
    const LeafSpan span = checked_leaf(forest, leaf.entry, false);
    const std::uint64_t count = eligible_points(forest, span, false, eligible);
    points += span.count;
    if (count > 0) out->push_back(leaf);
  }
}

}  // namespace

void score_leaves(const ForestView& forest, const RouteQuery& query, std::vector<float>* scores) {
  const TreeView& tree = forest.trees[0];
  scores->resize(tree.leaf_entry_count);
  score_centroids(forest.leaves, forest.dim4, tree.first_leaf_entry, tree.leaf_entry_count, query,
                  scores->data());
}

void route(const ForestView& forest, const RouteQuery& query, std::uint64_t candidates,
           const SlotSet* eligible, RouteScratch* scratch, std::vector<RoutedLeaf>* out) {
  route_first_tree(forest, query, candidates, eligible, scratch, out);
  if (forest.trees.size() > 1) {
    route_further_trees(forest, query, candidates, eligible, scratch, out);
  }
}

}  // namespace annidx
