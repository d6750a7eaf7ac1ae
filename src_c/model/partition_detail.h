// partition_detail.h owns what the two ways of building a partition share. Only partition.cpp and
// random_trees.cpp include it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/partition.h"

namespace annidx {

// SplitMix64: small, seeded by (seed, place), the same everywhere.
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t place) : state_(seed * 0x9E3779B97F4A7C15ull + place) {
    next();
  }
  std::uint64_t next() noexcept {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t bound) noexcept { return next() % bound; }

 private:
  std::uint64_t state_;
};

// Up to kPanelWidth vectors side by side, as kernels().panel_dot takes them; the rest zeros.
void pack_panel(const float* const* vectors, std::size_t count, std::uint32_t dim, float* panel);

// Rows by leaf from the leaf of each row. Cuts overfull leaves in row order (equal vectors cannot
// be told apart), drops empty ones. partition->dim is set, the rest empty.
void lay_out_leaves(const std::vector<std::uint32_t>& leaf_of_row,
                    const std::vector<float>& centroids, std::uint32_t leaf_points,
                    Partition* partition);

// Groups near leaves, where there are many, and reorders them so that each group is a range.
void group_leaves(const PartitionOptions& options, Partition* partition);

}  // namespace annidx
