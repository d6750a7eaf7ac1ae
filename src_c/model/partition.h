// partition.h owns trees: dividing the vectors of a working space into leaves (building), and
// choosing the leaves a query should read (routing). It must not know files, and it makes no
// threads of its own beyond parallel_for.
//
// A leaf is a cell around a centroid. Training: a tree of hyperplanes, each between the two
// centroids of a 2-means run, trained on a sample; all rows descend it; Lloyd passes then move the
// centroids, a row being compared only with the centroids nearest to its present one. Which leaf a
// row belongs to is then a function of the centroids alone (LeafFinder), whoever asks and whenever.
// Hyperplane trees follow Annoy; 2-means splits and Lloyd passes follow the hierarchical k-means of
// FLANN (Muja and Lowe).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/parallel.h"
#include "base/types.h"
#include "rows/ids.h"
#include "rows/vectors.h"

namespace annidx {

struct PartitionOptions {
  std::uint32_t leaf_points = 256;
  std::uint32_t lloyd_passes = 2;
  std::uint64_t seed = 0;
  unsigned n_threads = 1;
  // Rows worked on at a time: bounds memory, never changes the result.
  std::uint64_t chunk_rows = 0;
  Monitor* monitor = nullptr;
};

// What may shape a partition besides the vectors. `region` of a row (norm band, zero vectors):
// leaves never mix regions. Held-out rows are placed but not learned from.
struct RowRoles {
  std::vector<std::uint8_t> region;    // empty: one region
  std::vector<std::uint8_t> held_out;  // empty: none; otherwise one flag a row
  std::uint32_t region_count = 1;
};

// How a space is divided: a leaf for each centroid. Leaves of a group stand side by side.
struct Division {
  std::uint32_t dim = 0;
  std::vector<float> centroids;            // leaf_count * dim
  std::vector<std::uint8_t> regions;       // whose rows each leaf takes
  std::vector<std::uint32_t> group_first;  // group_count + 1 offsets into leaves; empty: no groups

  std::uint32_t leaf_count() const noexcept { return static_cast<std::uint32_t>(regions.size()); }
};

// Rows by leaf.
struct Partition {
  std::uint32_t dim = 0;
  std::vector<float> centroids;            // leaf_count * dim
  std::vector<Row> rows;                   // all rows by leaf, ascending within a leaf
  std::vector<std::uint64_t> first;        // leaf_count + 1 offsets into rows
  std::vector<std::uint32_t> group_first;  // group_count + 1 offsets into leaves; empty: no groups
  // Of the first tree: the leaf of the division that each is, or is a piece of.
  std::vector<std::uint32_t> origins;

  std::uint32_t leaf_count() const noexcept { return static_cast<std::uint32_t>(first.size() - 1); }
  std::uint32_t group_count() const noexcept {
    return group_first.empty() ? 0 : static_cast<std::uint32_t>(group_first.size() - 1);
  }
};

// Learns a division. Depends on rows, roles, leaf_points, lloyd_passes and seed only.
Division divide_space(const WorkRows& rows, const RowRoles& roles, const PartitionOptions& options);

// The leaf whose centroid is nearest to a row, among those of the row's region: found by descending
// a tree of the centroids, then going twice from a leaf to the nearest of its neighbours. A
// function of centroids and row alone. Immutable once made.
class LeafFinder {
 public:
  LeafFinder(const Division& division, unsigned n_threads, Monitor* monitor);
  ~LeafFinder();
  LeafFinder(const LeafFinder&) = delete;
  LeafFinder& operator=(const LeafFinder&) = delete;

  // The leaf of each row. `regions` of the rows may be empty: all of region 0.
  std::vector<std::uint32_t> leaves_of(const WorkRows& rows,
                                       const std::vector<std::uint8_t>& regions,
                                       const PartitionOptions& options) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// Rows by leaf, ascending within one; a leaf without rows stays. Leaves of more than `most_points`
// are cut in row order into pieces of `leaf_points` (equal vectors cannot be told apart).
Partition lay_out_rows(const std::vector<std::uint32_t>& leaf_of_row, const Division& division,
                       std::uint32_t leaf_points, std::uint64_t most_points);

// The first tree's points of a leaf that the aim allows: what exceeds it is cut.
std::uint64_t overfull_points(std::uint32_t leaf_points) noexcept;

// Further trees, one a seed, in one pass over the rows: random projections, one a level, cut at
// medians (as in MRPT, Hyvonen et al.). Much cheaper than the first tree, with worse leaves. Each
// depends on rows, leaf_points and its seed only.
std::vector<Partition> make_random_partitions(const WorkRows& rows, const PartitionOptions& options,
                                              const std::vector<std::uint64_t>& seeds);

// ---- routing -----------------------------------------------------------------------------

// Quantizes one centroid to bytes around 128 and returns the scale: value ~ scale * (byte - 128).
float quantize_centroid(const float* centroid, std::uint32_t dim, std::uint8_t* bytes) noexcept;
// Puts a quantized centroid (dim bytes) at entry `entry` of a blocked table (kernels.h
// route_scores).
void place_centroid(const std::uint8_t* bytes, std::uint32_t dim, std::uint32_t dim4,
                    std::uint64_t entry, std::uint8_t* table) noexcept;

// Reads it back: dim bytes.
void take_centroid(const std::uint8_t* table, std::uint32_t dim, std::uint32_t dim4,
                   std::uint64_t entry, std::uint8_t* bytes) noexcept;

// Where a leaf's points are.
struct LeafSpan {
  std::uint64_t first = 0;
  std::uint32_t count = 0;
  std::uint32_t first_block = 0;           // of its points' codes
  std::uint32_t first_centroid_block = 0;  // of its blocks' centroids
  std::uint32_t reserved = 0;
};
struct GroupSpan {
  std::uint32_t first_leaf_block;
  std::uint32_t leaf_blocks;
};

// A table of centroids in memory that others own (and that may hold anything: spans are checked at
// use).
struct CentroidTable {
  const std::uint8_t* centroids = nullptr;
  const float* mults = nullptr;
  const float* biases = nullptr;
};
struct TreeView {
  std::uint32_t first_leaf_entry = 0;
  std::uint32_t leaf_entry_count = 0;
  std::uint32_t first_group_entry = 0;
  std::uint32_t group_entry_count = 0;
};
struct ForestView {
  std::uint32_t dim4 = 0;
  std::uint64_t item_count = 0;
  std::uint64_t block_count = 0;      // 0: leaves have no code blocks
  std::uint64_t centroid_blocks = 0;  // 0: blocks have no centroids
  std::vector<TreeView> trees;
  CentroidTable leaves;  // over all trees
  CentroidTable groups;
  const LeafSpan* leaf_spans = nullptr;
  const GroupSpan* group_spans = nullptr;
  const Slot* tree_slots = nullptr;  // lists of the further trees
};

// A query for route_scores: integers in [-64, 63], padded with zeros to dim4.
struct RouteQuery {
  std::vector<std::int8_t> values;
  std::int32_t sum = 0;
  float step = 0.0f;
  void set(const float* work_query, std::uint32_t dim, std::uint32_t dim4);
};

struct RoutedLeaf {
  float score;
  std::uint32_t entry;
  std::uint32_t tree;
};

// Buffers that routing reuses.
struct RouteScratch {
  // Route scores of all entries of the first tree by route(), where it has no groups.
  std::vector<float> leaf_scores;
  std::vector<float> top_scores;  // of a further tree
  std::vector<float> scores;      // of an opened group
  std::vector<float> picked_scores;
  std::vector<Slot> picked_entries;
  std::vector<float> sample;
  std::vector<std::uint64_t> opened_groups;  // packed (score, entry), best first
  std::vector<std::uint64_t> best_leaves;
  std::vector<RoutedLeaf> merged;
};

// The leaves a query should read: of the first tree, best first, those whose points number at least
// `candidates`, or all; behind them a few of further trees, where there are any. Only leaves with
// eligible points count (`eligible` over slots; null: all). Throws Error(format) when a span points
// outside.
void route(const ForestView& forest, const RouteQuery& query, std::uint64_t candidates,
           const SlotSet* eligible, RouteScratch* scratch, std::vector<RoutedLeaf>* out);
// The first tree's route scores, by leaf entry; infinite where an entry holds no leaf.
void score_leaves(const ForestView& forest, const RouteQuery& query, std::vector<float>* scores);
// The span of a leaf entry, checked against item and block counts.
LeafSpan checked_leaf(const ForestView& forest, std::uint32_t entry, bool first_tree);

// A total order of floats as integers (NaN last): smaller float, smaller key.
std::uint32_t ordered_key(float value) noexcept;
float float_of_key(std::uint32_t key) noexcept;

}  // namespace annidx
