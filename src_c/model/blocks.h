// blocks.h owns the order of a leaf's points: balanced blocks of kBlockPoints points each, near
// points together, so that a query scans the best blocks of a leaf instead of all its points. It
// must not know files, codes or how blocks are chosen.
//
// Balanced 2-means, applied until a range is one block: the cut is where it leaves whole blocks on
// its left, so that all blocks of a leaf but the last are full.
#pragma once

#include <cstdint>
#include <vector>

namespace annidx {

// Blocks of a leaf of so many points.
std::uint64_t block_count(std::uint64_t points) noexcept;

// Orders points into blocks, with buffers kept between leaves. One a thread.
class BlockOrder {
 public:
  // order: the places 0 .. count - 1 of `vectors` (count * dim floats), block after block,
  // ascending within a block. Depends on the vectors only. Equal vectors stay in the order they
  // came in.
  const std::vector<std::uint32_t>& arrange(const float* vectors, std::uint32_t count,
                                            std::uint32_t dim);

 private:
  struct Range {
    std::uint32_t begin, end;
  };
  void cut(Range range, std::uint32_t left_points);
  void start_means(Range range);
  void project(Range range);
  void divide(Range range, std::uint32_t left_points);
  void update_means(Range range, std::uint32_t left_points);

  const float* vectors_ = nullptr;
  std::uint32_t dim_ = 0;
  std::vector<std::uint32_t> order_;
  std::vector<std::uint32_t> members_;  // of the range being cut, ascending
  std::vector<float> margins_;          // by place
  std::vector<float> sorted_margins_;
  std::vector<float> low_, high_, normal_;
  std::vector<Range> ranges_;  // yet to be cut
};

}  // namespace annidx
