// partition.cpp owns the division of a space and the finding of leaves; see partition.h. All
// arithmetic is ordered, all random choices come from the seed and the node, and sums over rows are
// integers, so that neither threads nor chunks nor instruction sets change a result.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/tuning.h"
#include "kernels/kernels.h"
#include "model/partition.h"
#include "model/partition_detail.h"

namespace annidx {
namespace {

constexpr std::uint32_t kNone = 0xFFFFFFFFu;
// Rows handled together: their vectors stay in the second-level cache.
constexpr std::uint64_t kTileRows = 64;
// Working-space values are summed as integers of this unit: 2^-24 of the largest.
constexpr float kSumUnit = 16777216.0f;

float half_square(const float* v, std::uint32_t dim) { return 0.5f * kernels().dot_f32(v, v, dim); }

// ---- a tree over vectors in memory --------------------------------------------------------

struct Plane {
  float threshold;
  std::uint32_t left, right;  // node numbers
};

struct Node {
  std::uint32_t begin, end;  // range of `order`
  std::uint32_t plane;       // kNone in leaves
};

// Hyperplane tree over the rows of a matrix.
class HyperplaneTree {
 public:
  HyperplaneTree(const float* matrix, std::uint32_t dim, std::uint64_t seed, unsigned n_threads,
                 Monitor* monitor)
      : matrix_(matrix), dim_(dim), seed_(seed), n_threads_(n_threads), monitor_(monitor) {}

  // Region r's rows are order[region_first[r] .. region_first[r+1]); each becomes a root.
  void grow(std::vector<std::uint32_t> order, const std::vector<std::uint32_t>& region_first,
            std::uint32_t leaf_cap);

  // Leaf numbers follow the tree from left to right, region after region.
  std::uint32_t leaf_of(const float* vector, std::uint32_t region) const;
  std::uint32_t leaf_count() const noexcept {
    return static_cast<std::uint32_t>(leaf_nodes_.size());
  }
  const Node& leaf(std::uint32_t number) const noexcept { return nodes_[leaf_nodes_[number]]; }
  const std::vector<std::uint32_t>& order() const noexcept { return order_; }
  const std::vector<std::uint32_t>& leaf_regions() const noexcept { return leaf_regions_; }

 private:
  struct Split {
    bool found = false;
    std::vector<float> normal;
    float threshold = 0.0f;
  };
  const float* row(std::uint32_t position) const {
    return matrix_ + std::uint64_t{order_[position]} * dim_;
  }
  Split two_means(const Node& node, std::uint64_t place) const;
  std::uint32_t divide(const Node& node, Split* split, unsigned n_threads);
  void number_leaves(std::uint32_t node);

  const float* matrix_;
  std::uint32_t dim_;
  std::uint64_t seed_;
  unsigned n_threads_;
  Monitor* monitor_;
  std::vector<std::uint32_t> order_;
  std::vector<std::uint32_t> spare_order_;
  std::vector<float> margins_;
  std::vector<Node> nodes_;
  std::vector<Plane> planes_;
  std::vector<float> normals_;
  std::vector<std::uint32_t> roots_;
  std::vector<std::uint32_t> leaf_nodes_;
  std::vector<std::uint32_t> leaf_number_;  // of a node
  std::vector<std::uint32_t> leaf_regions_;
};

// A random point of a sample and the farthest of some others; null when all are the same.
std::pair<const float*, const float*> distant_pair(const std::vector<float>& sample,
                                                   std::uint32_t dim, Random random) {
  const std::uint64_t count = sample.size() / dim;
  const auto point = [&](std::uint64_t i) { return &sample[i * dim]; };
  const float* first = point(random.below(count));
  const float* second = nullptr;
  float widest = 0.0f;
  for (int attempt = 0; attempt < 16; ++attempt) {
    const float* candidate = point(random.below(count));
    const float apart = kernels().l2_squared_build_f32(first, candidate, dim);
    if (apart > widest) {
      widest = apart;
      second = candidate;
    }
  }
  for (std::uint64_t i = 0; widest == 0.0f && i < count; ++i) {
    widest = kernels().l2_squared_build_f32(first, point(i), dim);
    if (widest > 0.0f) second = point(i);
  }
  return {first, second};
}

HyperplaneTree::Split HyperplaneTree::two_means(const Node& node, std::uint64_t place) const {
  const std::uint32_t points = node.end - node.begin;
  const std::uint32_t count = std::min(points, tuning::kSplitSample);
  std::vector<float> sample(std::size_t{count} * dim_);
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto at = static_cast<std::uint32_t>(std::uint64_t{i} * points / count);
    std::memcpy(&sample[std::size_t{i} * dim_], row(node.begin + at), sizeof(float) * dim_);
  }
  const auto point = [&](std::uint64_t i) { return &sample[i * dim_]; };

  const auto [first, second] = distant_pair(sample, dim_, Random(seed_, place));
  if (second == nullptr) return {};
  std::vector<float> low(first, first + dim_), high(second, second + dim_);
  std::vector<std::uint8_t> side(count, 2);
  Split split;
  split.normal.resize(dim_);
  for (std::uint32_t round = 0; round < tuning::kSplitRounds; ++round) {
    for (std::uint32_t j = 0; j < dim_; ++j) split.normal[j] = high[j] - low[j];
    split.threshold = half_square(high.data(), dim_) - half_square(low.data(), dim_);
    std::uint32_t moved = 0, highs = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint8_t now =
          kernels().dot_f32(point(i), split.normal.data(), dim_) > split.threshold;
      moved += now != side[i];
      highs += now;
      side[i] = now;
    }
    split.found = highs > 0 && highs < count;
    if (moved == 0 || !split.found) break;
    std::fill(low.begin(), low.end(), 0.0f);
    std::fill(high.begin(), high.end(), 0.0f);
    const float low_share = 1.0f / static_cast<float>(count - highs);
    const float high_share = 1.0f / static_cast<float>(highs);
    for (std::uint32_t i = 0; i < count; ++i) {
      kernels().axpy(side[i] ? high_share : low_share, point(i), side[i] ? high.data() : low.data(),
                     dim_);
    }
  }
  // Centroids that fell together still leave a direction to cut at the median.
  split.found = true;
  return split;
}

// Sorts the node's range by side and returns where the right side begins; the range's begin or end
// when all points are on one side of every cut in this direction.
std::uint32_t HyperplaneTree::divide(const Node& node, Split* split, unsigned n_threads) {
  const std::uint32_t points = node.end - node.begin;
  parallel_for(n_threads, points, 2048, [&](std::uint64_t begin, std::uint64_t end, unsigned) {
    for (std::uint64_t i = begin; i < end; ++i) {
      const auto at = static_cast<std::uint32_t>(node.begin + i);
      margins_[at] = kernels().dot_f32(row(at), split->normal.data(), dim_);
    }
  });
  const auto right_of = [&](float threshold) {
    std::uint32_t count = 0;
    for (std::uint32_t i = node.begin; i < node.end; ++i) count += margins_[i] > threshold;
    return count;
  };
  std::uint32_t right = right_of(split->threshold);
  if (std::min(right, points - right) < points * tuning::kMinSplitShare) {
    std::vector<float> sorted(margins_.begin() + node.begin, margins_.begin() + node.end);
    const auto middle = sorted.begin() + (points - 1) / 2;
    std::nth_element(sorted.begin(), middle, sorted.end());
    split->threshold = *middle;
    right = right_of(split->threshold);
    if (right == 0) {
      // More than half the margins are the largest: cut below them.
      float below = -std::numeric_limits<float>::infinity();
      for (float margin : sorted) {
        if (margin < split->threshold) below = std::max(below, margin);
      }
      split->threshold = below;
      right = right_of(below);
    }
  }
  std::uint32_t left_at = node.begin, right_at = node.end - right;
  for (std::uint32_t i = node.begin; i < node.end; ++i) {
    spare_order_[margins_[i] > split->threshold ? right_at++ : left_at++] = order_[i];
  }
  std::copy(spare_order_.begin() + node.begin, spare_order_.begin() + node.end,
            order_.begin() + node.begin);
  return node.end - right;
}

void HyperplaneTree::grow(std::vector<std::uint32_t> order,
                          const std::vector<std::uint32_t>& region_first, std::uint32_t leaf_cap) {
  order_ = std::move(order);
  spare_order_.resize(order_.size());
  margins_.resize(order_.size());
  const std::size_t regions = region_first.size() - 1;
  std::vector<std::uint32_t> level;
  for (std::size_t r = 0; r < regions; ++r) {
    roots_.push_back(static_cast<std::uint32_t>(nodes_.size()));
    level.push_back(roots_.back());
    nodes_.push_back({region_first[r], region_first[r + 1], kNone});
  }
  constexpr std::uint32_t kWideNode = 16'384;  // points from which a node is divided by all threads
  std::uint64_t depth = 0;
  while (!level.empty()) {
    std::vector<Split> splits(level.size());
    std::vector<std::uint32_t> middles(level.size(), kNone);
    const auto is_large = [&](const Node& node) { return node.end - node.begin > leaf_cap; };
    parallel_for(
        n_threads_, level.size(), 1,
        [&](std::uint64_t begin, std::uint64_t end, unsigned) {
          for (std::uint64_t i = begin; i < end; ++i) {
            const Node& node = nodes_[level[i]];
            if (!is_large(node)) continue;
            splits[i] = two_means(node, (depth << 40) ^ node.begin);
            if (splits[i].found && node.end - node.begin < kWideNode) {
              middles[i] = divide(node, &splits[i], 1);
            }
          }
        },
        monitor_);
    std::vector<std::uint32_t> next;
    for (std::size_t i = 0; i < level.size(); ++i) {
      Node& node = nodes_[level[i]];
      if (!splits[i].found) continue;
      if (node.end - node.begin >= kWideNode) middles[i] = divide(node, &splits[i], n_threads_);
      if (middles[i] == node.begin || middles[i] == node.end) continue;
      const auto left = static_cast<std::uint32_t>(nodes_.size());
      node.plane = static_cast<std::uint32_t>(planes_.size());
      planes_.push_back({splits[i].threshold, left, left + 1});
      normals_.insert(normals_.end(), splits[i].normal.begin(), splits[i].normal.end());
      const Node parent = node;
      nodes_.push_back({parent.begin, middles[i], kNone});
      nodes_.push_back({middles[i], parent.end, kNone});
      next.push_back(left);
      next.push_back(left + 1);
    }
    level.swap(next);
    ++depth;
  }
  leaf_number_.assign(nodes_.size(), kNone);
  for (std::uint32_t r = 0; r < regions; ++r) {
    number_leaves(roots_[r]);
    leaf_regions_.resize(leaf_count(), r);
  }
}

void HyperplaneTree::number_leaves(std::uint32_t start) {
  std::vector<std::uint32_t> stack{start};
  while (!stack.empty()) {
    const std::uint32_t node = stack.back();
    stack.pop_back();
    if (nodes_[node].plane == kNone) {
      leaf_number_[node] = leaf_count();
      leaf_nodes_.push_back(node);
    } else {
      stack.push_back(planes_[nodes_[node].plane].right);
      stack.push_back(planes_[nodes_[node].plane].left);
    }
  }
}

std::uint32_t HyperplaneTree::leaf_of(const float* vector, std::uint32_t region) const {
  std::uint32_t node = roots_[region];
  while (nodes_[node].plane != kNone) {
    const std::uint32_t plane = nodes_[node].plane;
    const float margin = kernels().dot_f32(vector, &normals_[std::uint64_t{plane} * dim_], dim_);
    node = margin > planes_[plane].threshold ? planes_[plane].right : planes_[plane].left;
  }
  return leaf_number_[node];
}

// ---- Lloyd passes over leaf centroids --------------------------------------------------------

// Per-thread integer sums of the rows of each leaf.
class CentroidSums {
 public:
  CentroidSums(std::uint32_t leaves, std::uint32_t dim)
      : dim_(dim), sums_(std::size_t{leaves} * dim), counts_(leaves) {}

  void add(std::uint32_t leaf, const float* vector) noexcept {
    kernels().add_as_integers(vector, dim_, kSumUnit, &sums_[std::size_t{leaf} * dim_]);
    ++counts_[leaf];
  }
  void merge(const CentroidSums& other) noexcept {
    for (std::size_t i = 0; i < sums_.size(); ++i) sums_[i] += other.sums_[i];
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  }
  // A leaf without rows keeps its centroid.
  void write_means(float* centroids) const noexcept {
    for (std::size_t leaf = 0; leaf < counts_.size(); ++leaf) {
      if (counts_[leaf] == 0) continue;
      const double unit = 1.0 / (static_cast<double>(counts_[leaf]) * kSumUnit);
      for (std::uint32_t j = 0; j < dim_; ++j) {
        centroids[leaf * dim_ + j] =
            static_cast<float>(static_cast<double>(sums_[leaf * dim_ + j]) * unit);
      }
    }
  }

 private:
  std::uint32_t dim_;
  std::vector<std::int64_t> sums_;
  std::vector<std::uint64_t> counts_;
};

// The leaves nearest to each leaf, and rows going to the nearest of them.
class Neighbourhoods {
 public:
  // leaf_region ascends. The vectors must outlive it.
  Neighbourhoods(const std::vector<float>& centroids, const std::vector<std::uint32_t>& leaf_region,
                 std::uint32_t dim)
      : centroids_(centroids),
        leaf_region_(leaf_region),
        dim_(dim),
        leaves_(static_cast<std::uint32_t>(leaf_region.size())) {}

  // For the centroids as they are now.
  void find(unsigned n_threads, Monitor* monitor);
  // Each row to the nearest of its leaf's neighbours.
  void reassign(const WorkRows& rows, const PartitionOptions& options, const char* stage,
                std::vector<std::uint32_t>* leaf_of_row) const;

 private:
  std::vector<float> pack_all() const;
  void find_of(std::uint32_t leaf, const float* dots, struct NearScratch* scratch);
  void reassign_leaf_rows(const WorkRows& all, std::uint32_t leaf, const Row* rows,
                          std::uint64_t count, std::uint32_t* leaf_of_row) const;

  const std::vector<float>& centroids_;
  const std::vector<std::uint32_t>& leaf_region_;
  std::uint32_t dim_;
  std::uint32_t leaves_;
  std::vector<float> half_squares_;
  std::vector<std::uint32_t> neighbours_;  // leaves_ * width_, ascending within a leaf
  std::vector<std::uint32_t> neighbour_counts_;
  std::uint32_t width_ = 0;
};

struct NearScratch {
  std::vector<float> scores, near_scores;
  std::vector<Slot> near;
  std::vector<std::pair<float, std::uint32_t>> nearest;
};

// Leaf centroids and the assignment of rows to them.
class Lloyd {
 public:
  Lloyd(const WorkRows& rows, const RowRoles& roles, const PartitionOptions& options,
        std::vector<float> centroids, std::vector<std::uint32_t> leaf_region,
        std::vector<std::uint32_t> leaf_of_row)
      : rows_(rows),
        roles_(roles),
        options_(options),
        dim_(rows.dim()),
        leaves_(static_cast<std::uint32_t>(leaf_region.size())),
        centroids_(std::move(centroids)),
        leaf_region_(std::move(leaf_region)),
        leaf_of_row_(std::move(leaf_of_row)) {}

  // Centroids as the means of their present rows.
  void update_centroids();
  void reassign() {
    Neighbourhoods near(centroids_, leaf_region_, dim_);
    near.find(options_.n_threads, options_.monitor);
    near.reassign(rows_, options_, "centroids", &leaf_of_row_);
  }
  const std::vector<float>& centroids() const noexcept { return centroids_; }
  const std::vector<std::uint32_t>& leaf_region() const noexcept { return leaf_region_; }
  const std::vector<std::uint32_t>& leaf_of_row() const noexcept { return leaf_of_row_; }

 private:
  const WorkRows& rows_;
  const RowRoles& roles_;
  const PartitionOptions& options_;
  std::uint32_t dim_;
  std::uint32_t leaves_;
  std::vector<float> centroids_;
  std::vector<std::uint32_t> leaf_region_;  // ascending
  std::vector<std::uint32_t> leaf_of_row_;
};

void Lloyd::update_centroids() {
  std::vector<CentroidSums> sums(options_.n_threads, CentroidSums(leaves_, dim_));
  parallel_for(
      options_.n_threads, rows_.size(), 4096,
      [&](std::uint64_t begin, std::uint64_t end, unsigned worker) {
        std::vector<float> vector(dim_);
        for (std::uint64_t row = begin; row < end; ++row) {
          if (!roles_.held_out.empty() && roles_.held_out[row]) continue;
          rows_.load_one(static_cast<Row>(row), vector.data());
          sums[worker].add(leaf_of_row_[row], vector.data());
        }
      },
      options_.monitor);
  for (std::size_t i = 1; i < sums.size(); ++i) sums[0].merge(sums[i]);
  sums[0].write_means(centroids_.data());
}

// All centroids as panels.
std::vector<float> Neighbourhoods::pack_all() const {
  const std::uint32_t panels = (leaves_ + kPanelWidth - 1) / kPanelWidth;
  std::vector<float> packed(std::size_t{panels} * kPanelWidth * dim_);
  for (std::uint32_t p = 0; p < panels; ++p) {
    const float* vectors[kPanelWidth];
    const std::uint32_t count = std::min<std::uint32_t>(kPanelWidth, leaves_ - p * kPanelWidth);
    for (std::uint32_t c = 0; c < count; ++c) {
      vectors[c] = &centroids_[std::size_t{p * kPanelWidth + c} * dim_];
    }
    pack_panel(vectors, count, dim_, &packed[std::size_t{p} * kPanelWidth * dim_]);
  }
  return packed;
}

// From a leaf's products with all leaves.
void Neighbourhoods::find_of(std::uint32_t leaf, const float* dots, NearScratch* scratch) {
  const auto region =
      std::equal_range(leaf_region_.begin(), leaf_region_.end(), leaf_region_[leaf]);
  const auto first = static_cast<std::uint32_t>(region.first - leaf_region_.begin());
  const auto last = static_cast<std::uint32_t>(region.second - leaf_region_.begin());
  for (std::uint32_t other = first; other < last; ++other) {
    scratch->scores[other - first] = half_squares_[other] - dots[other];
  }
  const std::uint32_t count = std::min<std::uint32_t>(width_, last - first);
  const float bound = kernels().near_bound(scratch->scores.data(), last - first, count);
  const std::size_t found =
      kernels().select_at_most(scratch->scores.data(), last - first, bound, first,
                               {scratch->near_scores.data(), scratch->near.data()});
  auto& nearest = scratch->nearest;
  nearest.clear();  // `found` is at least `count`: the scores are finite
  for (std::size_t i = 0; i < found; ++i) {
    nearest.push_back({scratch->near_scores[i], scratch->near[i]});
  }
  std::nth_element(nearest.begin(), nearest.begin() + (count - 1), nearest.end());
  std::uint32_t* out = &neighbours_[std::size_t{leaf} * width_];
  for (std::uint32_t i = 0; i < count; ++i) out[i] = nearest[i].second;
  std::sort(out, out + count);
  neighbour_counts_[leaf] = count;
}

void Neighbourhoods::find(unsigned n_threads, Monitor* monitor) {
  half_squares_.resize(leaves_);
  for (std::uint32_t leaf = 0; leaf < leaves_; ++leaf) {
    half_squares_[leaf] = half_square(&centroids_[std::size_t{leaf} * dim_], dim_);
  }
  const std::vector<float> packed = pack_all();
  const std::uint32_t panels = (leaves_ + kPanelWidth - 1) / kPanelWidth;
  width_ = std::min(leaves_, tuning::kLloydNeighbours);
  neighbours_.assign(std::size_t{leaves_} * width_, 0);
  neighbour_counts_.assign(leaves_, 0);
  constexpr std::uint64_t kTile = 16;
  parallel_for(
      n_threads, leaves_, kTile,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        const std::size_t stride = std::size_t{panels} * kPanelWidth;
        std::vector<float> dots((end - begin) * stride);
        for (std::uint32_t p = 0; p < panels; ++p) {
          kernels().panel_dot(&centroids_[begin * dim_], end - begin, dim_,
                              &packed[std::size_t{p} * kPanelWidth * dim_], dim_,
                              &dots[std::size_t{p} * kPanelWidth], stride);
        }
        NearScratch scratch{std::vector<float>(leaves_),
                            std::vector<float>(leaves_ + kPanelWidth),
                            std::vector<Slot>(leaves_ + kPanelWidth),
                            {}};
        for (std::uint64_t leaf = begin; leaf < end; ++leaf) {
          find_of(static_cast<std::uint32_t>(leaf), &dots[(leaf - begin) * stride], &scratch);
        }
      },
      monitor);
}

void Neighbourhoods::reassign_leaf_rows(const WorkRows& all, std::uint32_t leaf, const Row* rows,
                                        std::uint64_t count, std::uint32_t* leaf_of_row) const {
  const std::uint32_t* near = &neighbours_[std::size_t{leaf} * width_];
  const std::uint32_t near_count = neighbour_counts_[leaf];
  const std::uint32_t panels = (near_count + kPanelWidth - 1) / kPanelWidth;
  const std::uint32_t padded = panels * kPanelWidth;
  std::vector<float> packed(std::size_t{padded} * dim_);
  for (std::uint32_t p = 0; p < panels; ++p) {
    const float* vectors[kPanelWidth];
    const std::uint32_t in_panel =
        std::min<std::uint32_t>(kPanelWidth, near_count - p * kPanelWidth);
    for (std::uint32_t c = 0; c < in_panel; ++c) {
      vectors[c] = &centroids_[std::size_t{near[p * kPanelWidth + c]} * dim_];
    }
    pack_panel(vectors, in_panel, dim_, &packed[std::size_t{p} * kPanelWidth * dim_]);
  }
  std::vector<float> near_squares(near_count);
  for (std::uint32_t c = 0; c < near_count; ++c) near_squares[c] = half_squares_[near[c]];
  std::vector<float> tile(kTileRows * dim_), dots(kTileRows * padded);
  for (std::uint64_t begin = 0; begin < count; begin += kTileRows) {
    const std::uint64_t in_tile = std::min(kTileRows, count - begin);
    all.load(rows + begin, in_tile, tile.data());
    for (std::uint32_t p = 0; p < panels; ++p) {
      kernels().panel_dot(tile.data(), in_tile, dim_, &packed[std::size_t{p} * kPanelWidth * dim_],
                          dim_, &dots[std::size_t{p} * kPanelWidth], padded);
    }
    for (std::uint64_t i = 0; i < in_tile; ++i) {
      const std::size_t best =
          kernels().nearest_centroid(near_squares.data(), &dots[i * padded], near_count);
      leaf_of_row[rows[begin + i]] = near[best];
    }
  }
}

// Rows in [begin, end) sorted by leaf (stable): `sorted`, with `first` the offsets of each leaf.
void sort_by_leaf(const std::vector<std::uint32_t>& leaf_of_row, std::uint64_t begin,
                  std::uint64_t end, std::uint32_t leaves, std::vector<Row>* sorted,
                  std::vector<std::uint64_t>* first) {
  first->assign(std::size_t{leaves} + 1, 0);
  for (std::uint64_t row = begin; row < end; ++row) ++(*first)[leaf_of_row[row] + 1];
  std::partial_sum(first->begin(), first->end(), first->begin());
  sorted->resize(end - begin);
  std::vector<std::uint64_t> at(first->begin(), first->end() - 1);
  for (std::uint64_t row = begin; row < end; ++row) {
    (*sorted)[at[leaf_of_row[row]]++] = static_cast<Row>(row);
  }
}

void Neighbourhoods::reassign(const WorkRows& rows, const PartitionOptions& options,
                              const char* stage, std::vector<std::uint32_t>* leaf_of_row) const {
  const std::uint64_t chunk = options.chunk_rows ? options.chunk_rows : rows.size();
  std::vector<Row> sorted;
  std::vector<std::uint64_t> first;
  for (std::uint64_t begin = 0; begin < rows.size(); begin += chunk) {
    const std::uint64_t end = std::min(rows.size(), begin + chunk);
    sort_by_leaf(*leaf_of_row, begin, end, leaves_, &sorted, &first);
    parallel_for(
        options.n_threads, leaves_, 4,
        [&](std::uint64_t from, std::uint64_t to, unsigned) {
          for (std::uint64_t leaf = from; leaf < to; ++leaf) {
            const std::uint64_t count = first[leaf + 1] - first[leaf];
            if (count == 0) continue;
            reassign_leaf_rows(rows, static_cast<std::uint32_t>(leaf), &sorted[first[leaf]], count,
                               leaf_of_row->data());
          }
        },
        options.monitor, stage);
  }
}

// ---- the whole -----------------------------------------------------------------------------

struct Sample {
  std::vector<Row> rows;  // by region, ascending within
  std::vector<std::uint32_t> region_first;
};

std::uint32_t region_of(const RowRoles& roles, std::uint64_t row) {
  return roles.region.empty() ? 0 : roles.region[row];
}

// Every k-th row that may be learned from, so that the sample is spread over the whole input.
Sample choose_sample(std::uint64_t row_count, const RowRoles& roles, std::uint64_t wanted) {
  std::vector<Row> learnable;
  for (std::uint64_t row = 0; row < row_count; ++row) {
    if (roles.held_out.empty() || !roles.held_out[row]) learnable.push_back(static_cast<Row>(row));
  }
  const std::uint64_t count = std::min<std::uint64_t>(wanted, learnable.size());
  std::vector<std::vector<Row>> by_region(roles.region_count);
  for (std::uint64_t i = 0; i < count; ++i) {
    const Row row = learnable[static_cast<std::size_t>(i * learnable.size() / count)];
    by_region[region_of(roles, row)].push_back(row);
  }
  Sample sample;
  sample.region_first.push_back(0);
  for (const std::vector<Row>& rows : by_region) {
    sample.rows.insert(sample.rows.end(), rows.begin(), rows.end());
    sample.region_first.push_back(static_cast<std::uint32_t>(sample.rows.size()));
  }
  return sample;
}

std::uint64_t sample_size(std::uint64_t rows, std::uint32_t leaf_points) {
  return std::max(tuning::kTreeSampleFloor, rows / leaf_points * tuning::kTreeSamplePerLeaf);
}

}  // namespace

void pack_panel(const float* const* vectors, std::size_t count, std::uint32_t dim, float* panel) {
  for (std::uint32_t j = 0; j < dim; ++j) {
    for (std::size_t c = 0; c < kPanelWidth; ++c) {
      panel[j * kPanelWidth + c] = c < count ? vectors[c][j] : 0.0f;
    }
  }
}

void lay_out_leaves(const std::vector<std::uint32_t>& leaf_of_row,
                    const std::vector<float>& centroids, std::uint32_t leaf_points,
                    Partition* partition) {
  const std::uint32_t dim = partition->dim;
  const auto leaves = static_cast<std::uint32_t>(centroids.size() / dim);
  std::vector<std::uint64_t> first;
  sort_by_leaf(leaf_of_row, 0, leaf_of_row.size(), leaves, &partition->rows, &first);
  const std::uint64_t cap = std::uint64_t{leaf_points} * tuning::kOverfullFactor;
  partition->first.push_back(0);
  for (std::uint32_t leaf = 0; leaf < leaves; ++leaf) {
    const float* centroid = &centroids[std::size_t{leaf} * dim];
    for (std::uint64_t at = first[leaf]; at < first[leaf + 1];) {
      const std::uint64_t left = first[leaf + 1] - at;
      at += left > cap ? leaf_points : left;
      partition->centroids.insert(partition->centroids.end(), centroid, centroid + dim);
      partition->first.push_back(at);
    }
  }
}

namespace {

// Leaves by group, and where each group begins; both empty where leaves are few.
struct Grouping {
  std::vector<std::uint32_t> order;
  std::vector<std::uint32_t> first;
};

Grouping group(const std::vector<float>& centroids, std::uint32_t dim,
               const PartitionOptions& options) {
  Grouping groups;
  const auto leaves = static_cast<std::uint32_t>(centroids.size() / dim);
  if (leaves <= tuning::kFlatLeaves) return groups;
  HyperplaneTree tree(centroids.data(), dim, options.seed ^ 0x67726F7570ull, options.n_threads,
                      options.monitor);
  std::vector<std::uint32_t> order(leaves);
  std::iota(order.begin(), order.end(), 0);
  tree.grow(std::move(order), {0, leaves}, tuning::kGroupLeaves);
  groups.first.push_back(0);
  for (std::uint32_t g = 0; g < tree.leaf_count(); ++g) {
    const Node& node = tree.leaf(g);
    groups.order.insert(groups.order.end(), tree.order().begin() + node.begin,
                        tree.order().begin() + node.end);
    groups.first.push_back(static_cast<std::uint32_t>(groups.order.size()));
  }
  return groups;
}

}  // namespace

void group_leaves(const PartitionOptions& options, Partition* partition) {
  const Grouping groups = group(partition->centroids, partition->dim, options);
  if (groups.order.empty()) return;
  Partition grouped;
  grouped.dim = partition->dim;
  grouped.rows.reserve(partition->rows.size());
  grouped.first.push_back(0);
  grouped.group_first = groups.first;
  for (const std::uint32_t leaf : groups.order) {
    const float* centroid = &partition->centroids[std::size_t{leaf} * partition->dim];
    grouped.centroids.insert(grouped.centroids.end(), centroid, centroid + partition->dim);
    grouped.rows.insert(
        grouped.rows.end(),
        partition->rows.begin() + static_cast<std::ptrdiff_t>(partition->first[leaf]),
        partition->rows.begin() + static_cast<std::ptrdiff_t>(partition->first[leaf + 1]));
    grouped.first.push_back(grouped.rows.size());
  }
  *partition = std::move(grouped);
}

std::uint64_t overfull_points(std::uint32_t leaf_points) noexcept {
  return std::uint64_t{leaf_points} * tuning::kOverfullFactor;
}

Partition lay_out_rows(const std::vector<std::uint32_t>& leaf_of_row, const Division& division,
                       std::uint32_t leaf_points, std::uint64_t most_points) {
  const std::uint32_t dim = division.dim;
  Partition partition;
  partition.dim = dim;
  std::vector<std::uint64_t> first;
  sort_by_leaf(leaf_of_row, 0, leaf_of_row.size(), division.leaf_count(), &partition.rows, &first);
  partition.first.push_back(0);
  const bool is_grouped = !division.group_first.empty();
  std::size_t group = 0;
  for (std::uint32_t leaf = 0; leaf < division.leaf_count(); ++leaf) {
    if (is_grouped && leaf == division.group_first[group]) {
      partition.group_first.push_back(partition.leaf_count());
      ++group;
    }
    const float* centroid = &division.centroids[std::size_t{leaf} * dim];
    std::uint64_t at = first[leaf];
    do {
      const std::uint64_t left = first[leaf + 1] - at;
      at += left > most_points ? leaf_points : left;
      partition.centroids.insert(partition.centroids.end(), centroid, centroid + dim);
      partition.first.push_back(at);
      partition.origins.push_back(leaf);
    } while (at < first[leaf + 1]);
  }
  if (is_grouped) partition.group_first.push_back(partition.leaf_count());
  return partition;
}

namespace {

// The leaves that took rows.
Division taken_leaves(const Lloyd& lloyd, std::uint32_t dim) {
  const auto& regions = lloyd.leaf_region();
  std::vector<std::uint8_t> is_taken(regions.size());
  for (const std::uint32_t leaf : lloyd.leaf_of_row()) is_taken[leaf] = 1;
  Division division;
  division.dim = dim;
  for (std::size_t leaf = 0; leaf < regions.size(); ++leaf) {
    if (!is_taken[leaf]) continue;
    const float* centroid = &lloyd.centroids()[leaf * dim];
    division.centroids.insert(division.centroids.end(), centroid, centroid + dim);
    division.regions.push_back(static_cast<std::uint8_t>(regions[leaf]));
  }
  return division;
}

// The sampled vectors, one after another.
std::vector<float> load_sample(const WorkRows& rows, const Sample& sample,
                               const PartitionOptions& options) {
  const std::uint32_t dim = rows.dim();
  std::vector<float> matrix(sample.rows.size() * dim);
  parallel_for(
      options.n_threads, sample.rows.size(), 1024,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        rows.load(&sample.rows[begin], end - begin, &matrix[begin * dim]);
      },
      options.monitor);
  return matrix;
}

// Until its leaves hold the sample's share of a leaf's points.
void grow_over_sample(const WorkRows& rows, const Sample& sample, const PartitionOptions& options,
                      HyperplaneTree* tree) {
  std::vector<std::uint32_t> order(sample.rows.size());
  std::iota(order.begin(), order.end(), 0);
  const double share = static_cast<double>(sample.rows.size()) / static_cast<double>(rows.size());
  const auto cap = static_cast<std::uint32_t>(
      std::max(8.0, std::ceil(static_cast<double>(options.leaf_points) * share)));
  tree->grow(std::move(order), sample.region_first, cap);
}

std::vector<std::uint32_t> leaves_of_rows(const HyperplaneTree& tree, const WorkRows& rows,
                                          const RowRoles& roles, const PartitionOptions& options) {
  std::vector<std::uint32_t> leaf_of_row(rows.size());
  parallel_for(
      options.n_threads, rows.size(), 1024,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        std::vector<float> vector(rows.dim());
        for (std::uint64_t row = begin; row < end; ++row) {
          rows.load_one(static_cast<Row>(row), vector.data());
          leaf_of_row[row] = tree.leaf_of(vector.data(), region_of(roles, row));
        }
      },
      options.monitor, "tree");
  return leaf_of_row;
}

// Means of the leaves of a tree over the sample.
std::vector<float> sample_means(const HyperplaneTree& tree, const std::vector<float>& matrix,
                                std::uint32_t dim) {
  std::vector<float> centroids(std::size_t{tree.leaf_count()} * dim);
  for (std::uint32_t leaf = 0; leaf < tree.leaf_count(); ++leaf) {
    const Node& node = tree.leaf(leaf);
    for (std::uint32_t i = node.begin; i < node.end; ++i) {
      kernels().axpy(1.0f / static_cast<float>(node.end - node.begin),
                     &matrix[std::size_t{tree.order()[i]} * dim],
                     &centroids[std::size_t{leaf} * dim], dim);
    }
  }
  return centroids;
}

// Leaves of one group become a range.
Division grouped(Division division, const PartitionOptions& options) {
  const Grouping groups = group(division.centroids, division.dim, options);
  if (groups.order.empty()) return division;
  Division ordered;
  ordered.dim = division.dim;
  ordered.group_first = groups.first;
  for (const std::uint32_t leaf : groups.order) {
    const float* centroid = &division.centroids[std::size_t{leaf} * division.dim];
    ordered.centroids.insert(ordered.centroids.end(), centroid, centroid + division.dim);
    ordered.regions.push_back(division.regions[leaf]);
  }
  return ordered;
}

}  // namespace

Division divide_space(const WorkRows& rows, const RowRoles& roles,
                      const PartitionOptions& options) {
  const std::uint32_t dim = rows.dim();
  const Sample sample =
      choose_sample(rows.size(), roles, sample_size(rows.size(), options.leaf_points));
  std::vector<float> matrix = load_sample(rows, sample, options);
  HyperplaneTree tree(matrix.data(), dim, options.seed, options.n_threads, options.monitor);
  grow_over_sample(rows, sample, options, &tree);
  std::vector<std::uint32_t> leaf_of_row = leaves_of_rows(tree, rows, roles, options);
  std::vector<float> centroids = sample_means(tree, matrix, dim);
  std::vector<float>().swap(matrix);

  Lloyd lloyd(rows, roles, options, std::move(centroids), tree.leaf_regions(),
              std::move(leaf_of_row));
  lloyd.update_centroids();
  for (std::uint32_t pass = 1; pass < options.lloyd_passes; ++pass) {
    lloyd.reassign();
    lloyd.update_centroids();
  }
  return grouped(taken_leaves(lloyd, dim), options);
}

// ---- finding leaves ------------------------------------------------------------------------

// Leaves are numbered here by region first.
struct LeafFinder::Parts {
  std::uint32_t dim = 0;
  std::vector<std::uint32_t> numbers;  // of the division, by number here
  std::vector<float> centroids;
  std::vector<std::uint32_t> regions;       // ascending
  std::vector<std::uint32_t> region_roots;  // of any region: one that has leaves
  std::unique_ptr<HyperplaneTree> tree;
  std::unique_ptr<Neighbourhoods> near;
};

LeafFinder::~LeafFinder() = default;

LeafFinder::LeafFinder(const Division& division, unsigned n_threads, Monitor* monitor)
    : parts_(std::make_unique<Parts>()) {
  Parts& p = *parts_;
  p.dim = division.dim;
  p.numbers.resize(division.leaf_count());
  std::iota(p.numbers.begin(), p.numbers.end(), 0);
  std::stable_sort(p.numbers.begin(), p.numbers.end(), [&](std::uint32_t a, std::uint32_t b) {
    return division.regions[a] < division.regions[b];
  });
  std::vector<std::uint32_t> region_first{0};
  for (const std::uint32_t leaf : p.numbers) {
    const float* centroid = &division.centroids[std::size_t{leaf} * p.dim];
    p.centroids.insert(p.centroids.end(), centroid, centroid + p.dim);
    while (region_first.size() <= division.regions[leaf]) {
      region_first.push_back(static_cast<std::uint32_t>(p.regions.size()));
    }
    p.regions.push_back(division.regions[leaf]);
  }
  region_first.push_back(static_cast<std::uint32_t>(p.regions.size()));
  std::uint32_t last_with_leaves = p.regions.empty() ? 0 : p.regions[0];
  for (std::uint32_t region = 0; region + 1 < region_first.size(); ++region) {
    if (region_first[region] < region_first[region + 1]) last_with_leaves = region;
    p.region_roots.push_back(last_with_leaves);
  }
  p.tree = std::make_unique<HyperplaneTree>(p.centroids.data(), p.dim, 0, n_threads, monitor);
  std::vector<std::uint32_t> order(p.regions.size());
  std::iota(order.begin(), order.end(), 0);
  p.tree->grow(std::move(order), region_first, 1);
  p.near = std::make_unique<Neighbourhoods>(p.centroids, p.regions, p.dim);
  p.near->find(n_threads, monitor);
}

std::vector<std::uint32_t> LeafFinder::leaves_of(const WorkRows& rows,
                                                 const std::vector<std::uint8_t>& regions,
                                                 const PartitionOptions& options) const {
  const Parts& p = *parts_;
  std::vector<std::uint32_t> found(rows.size());
  parallel_for(
      options.n_threads, rows.size(), 1024,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        std::vector<float> vector(p.dim);
        for (std::uint64_t row = begin; row < end; ++row) {
          rows.load_one(static_cast<Row>(row), vector.data());
          const std::uint32_t region = regions.empty() ? 0 : regions[row];
          const std::uint32_t root =
              p.region_roots[std::min<std::size_t>(region, p.region_roots.size() - 1)];
          const Node& node = p.tree->leaf(p.tree->leaf_of(vector.data(), root));
          found[row] = p.tree->order()[node.begin];
        }
      },
      options.monitor, "leaves of rows");
  constexpr int kHops = 2;
  for (int hop = 0; hop < kHops; ++hop) p.near->reassign(rows, options, "leaves of rows", &found);
  for (std::uint32_t& leaf : found) leaf = p.numbers[leaf];
  return found;
}

}  // namespace annidx
