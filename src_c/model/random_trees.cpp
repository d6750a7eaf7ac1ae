// random_trees.cpp owns the partitions of further trees; see partition.h. All arithmetic is ordered
// and all random choices come from the seed, so that neither threads nor instruction sets change a
// result.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/tuning.h"
#include "kernels/kernels.h"
#include "model/partition.h"
#include "model/partition_detail.h"

namespace annidx {
namespace {

constexpr std::uint64_t kTileRows = 64;  // their vectors stay in the second-level cache

// A complete binary tree in which all nodes of a level cut along one direction, so that the
// projections of a row on all directions are one small matrix product.
class ProjectionTree {
 public:
  ProjectionTree(const WorkRows& rows, const PartitionOptions& options, std::uint64_t seed);

  std::uint32_t leaf_count() const noexcept { return 1u << levels_; }
  // Leaves of n vectors; `projections` is the thread's own scratch.
  void leaves_of(const float* vectors, std::uint64_t n, std::vector<float>* projections,
                 std::uint32_t* leaves) const;
  // Means of the sample's rows of each leaf.
  std::vector<float> sample_centroids() const;

 private:
  void choose_sample();
  void choose_directions(std::uint64_t seed);
  void project(const float* vectors, std::uint64_t n, float* projections) const;
  void cut(std::uint32_t node, std::uint32_t level, std::uint32_t* begin, std::uint32_t* end,
           const float* projections);

  const WorkRows& rows_;
  const std::uint32_t dim_;
  std::uint32_t levels_ = 0;
  std::uint32_t panels_ = 0;
  std::vector<Row> sample_;
  std::vector<float> directions_;  // panels, see kernels().panel_dot
  std::vector<float> thresholds_;  // of node i, whose children are 2i + 1 and 2i + 2
};

ProjectionTree::ProjectionTree(const WorkRows& rows, const PartitionOptions& options,
                               std::uint64_t seed)
    : rows_(rows), dim_(rows.dim()) {
  while ((rows.size() >> levels_) > options.leaf_points) ++levels_;
  // One at least, so that a tree of one leaf is no special case.
  panels_ = std::max<std::uint32_t>(1, (levels_ + kPanelWidth - 1) / kPanelWidth);
  choose_sample();
  choose_directions(seed);
  std::vector<float> projections(sample_.size() * panels_ * kPanelWidth);
  const std::size_t stride = std::size_t{panels_} * kPanelWidth;
  parallel_for(
      options.n_threads, sample_.size(), kTileRows,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        std::vector<float> vectors((end - begin) * dim_);
        rows_.load(&sample_[begin], end - begin, vectors.data());
        project(vectors.data(), end - begin, &projections[begin * stride]);
      },
      options.monitor);
  thresholds_.resize(leaf_count() - 1);
  std::vector<std::uint32_t> order(sample_.size());
  std::iota(order.begin(), order.end(), 0);
  if (levels_ > 0) cut(0, 0, order.data(), order.data() + order.size(), projections.data());
}

void ProjectionTree::choose_sample() {
  const std::uint64_t count = std::min<std::uint64_t>(
      rows_.size(), std::uint64_t{leaf_count()} * tuning::kRandomSamplePerLeaf);
  sample_.resize(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    sample_[i] = static_cast<Row>(i * rows_.size() / count);
  }
}

// Differences of two random rows: they lie where the data vary.
void ProjectionTree::choose_directions(std::uint64_t seed) {
  Random random(seed, 0);
  directions_.assign(std::size_t{panels_} * kPanelWidth * dim_, 0.0f);
  std::vector<float> chosen(kPanelWidth * dim_), other(dim_);
  for (std::uint32_t panel = 0; panel < panels_; ++panel) {
    const float* vectors[kPanelWidth];
    const std::uint32_t count = std::min<std::uint32_t>(kPanelWidth, levels_ - panel * kPanelWidth);
    for (std::uint32_t i = 0; i < count; ++i) {
      float* direction = &chosen[std::size_t{i} * dim_];
      rows_.load_one(static_cast<Row>(random.below(rows_.size())), direction);
      rows_.load_one(static_cast<Row>(random.below(rows_.size())), other.data());
      kernels().axpy(-1.0f, other.data(), direction, dim_);
      vectors[i] = direction;
    }
    pack_panel(vectors, count, dim_, &directions_[std::size_t{panel} * kPanelWidth * dim_]);
  }
}

void ProjectionTree::project(const float* vectors, std::uint64_t n, float* projections) const {
  for (std::uint32_t panel = 0; panel < panels_; ++panel) {
    kernels().panel_dot(vectors, n, dim_, &directions_[std::size_t{panel} * kPanelWidth * dim_],
                        dim_, projections + std::size_t{panel} * kPanelWidth,
                        std::size_t{panels_} * kPanelWidth);
  }
}

// Cuts a node's part of the sample at its median, and so on below it.
void ProjectionTree::cut(std::uint32_t node, std::uint32_t level, std::uint32_t* begin,
                         std::uint32_t* end, const float* projections) {
  if (level == levels_ || begin == end) return;
  const std::size_t stride = std::size_t{panels_} * kPanelWidth;
  const auto less = [&](std::uint32_t a, std::uint32_t b) {
    const float pa = projections[a * stride + level], pb = projections[b * stride + level];
    return pa != pb ? pa < pb : a < b;
  };
  std::uint32_t* middle = begin + (end - begin - 1) / 2;
  std::nth_element(begin, middle, end, less);
  const float threshold = projections[*middle * stride + level];
  thresholds_[node] = threshold;
  std::uint32_t* right = std::partition(
      begin, end, [&](std::uint32_t i) { return !(projections[i * stride + level] > threshold); });
  cut(2 * node + 1, level + 1, begin, right, projections);
  cut(2 * node + 2, level + 1, right, end, projections);
}

void ProjectionTree::leaves_of(const float* vectors, std::uint64_t n,
                               std::vector<float>* projections, std::uint32_t* leaves) const {
  const std::size_t stride = std::size_t{panels_} * kPanelWidth;
  projections->resize(n * stride);
  project(vectors, n, projections->data());
  for (std::uint64_t i = 0; i < n; ++i) {
    const float* row = projections->data() + i * stride;
    std::uint32_t node = 0;
    for (std::uint32_t level = 0; level < levels_; ++level) {
      node = 2 * node + 1 + (row[level] > thresholds_[node]);
    }
    leaves[i] = node - (leaf_count() - 1);
  }
}

std::vector<float> ProjectionTree::sample_centroids() const {
  std::vector<std::uint32_t> leaves(sample_.size());
  std::vector<float> vectors(kTileRows * dim_), projections;
  std::vector<float> sums(std::size_t{leaf_count()} * dim_);
  std::vector<std::uint32_t> counts(leaf_count());
  for (std::uint64_t begin = 0; begin < sample_.size(); begin += kTileRows) {
    const std::uint64_t count = std::min(kTileRows, sample_.size() - begin);
    rows_.load(&sample_[begin], count, vectors.data());
    leaves_of(vectors.data(), count, &projections, leaves.data());
    for (std::uint64_t i = 0; i < count; ++i) {
      ++counts[leaves[i]];
      kernels().axpy(1.0f, &vectors[i * dim_], &sums[std::size_t{leaves[i]} * dim_], dim_);
    }
  }
  for (std::uint32_t leaf = 0; leaf < leaf_count(); ++leaf) {
    const float share = 1.0f / static_cast<float>(std::max(1u, counts[leaf]));
    for (std::uint32_t j = 0; j < dim_; ++j) sums[std::size_t{leaf} * dim_ + j] *= share;
  }
  return sums;
}

}  // namespace

std::vector<Partition> make_random_partitions(const WorkRows& rows, const PartitionOptions& options,
                                              const std::vector<std::uint64_t>& seeds) {
  std::vector<ProjectionTree> trees;
  for (std::uint64_t seed : seeds) trees.emplace_back(rows, options, seed);
  std::vector<std::vector<std::uint32_t>> leaf_of_row(trees.size(),
                                                      std::vector<std::uint32_t>(rows.size()));
  parallel_for(
      options.n_threads, rows.size(), 4096,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        std::vector<float> vectors(kTileRows * rows.dim()), projections;
        std::vector<Row> numbers(kTileRows);
        for (std::uint64_t at = begin; at < end; at += kTileRows) {
          const std::uint64_t count = std::min(kTileRows, end - at);
          std::iota(numbers.begin(), numbers.end(), static_cast<Row>(at));
          rows.load(numbers.data(), count, vectors.data());
          for (std::size_t t = 0; t < trees.size(); ++t) {
            trees[t].leaves_of(vectors.data(), count, &projections, &leaf_of_row[t][at]);
          }
        }
      },
      options.monitor, "further trees");
  std::vector<Partition> partitions(trees.size());
  parallel_for(
      options.n_threads, trees.size(), 1,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        PartitionOptions alone = options;
        alone.n_threads = 1;
        alone.monitor = nullptr;
        for (std::uint64_t t = begin; t < end; ++t) {
          alone.seed = seeds[t];
          partitions[t].dim = rows.dim();
          lay_out_leaves(leaf_of_row[t], trees[t].sample_centroids(), options.leaf_points,
                         &partitions[t]);
          group_leaves(alone, &partitions[t]);
        }
      },
      options.monitor);
  return partitions;
}

}  // namespace annidx
