// neighbours.h owns the making of neighbour lists: for each point its nearest others, all points at
// once. It must not know files, queries or how leaves are cut; it reads rows of bytes where others
// keep them.
//
// Points lie in the order of leaves, each cut into blocks of near points (model/blocks.h). The
// points of a block are first compared with those of the blocks nearest to it, then, round after
// round, with the neighbours of their neighbours (NN-descent; Dong, Charikar and Li, WWW 2011),
// together as a block: they share most of them, and all pairs of two sets of rows cost little more
// than reading them. Results depend on the input and the effort only, not on threads or the
// instruction set. The work is proportional to the points, whatever they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/parallel.h"
#include "base/types.h"
#include "kernels/kernels.h"

namespace annidx {

// How the nearness of two rows follows from their bytes.
enum class GraphScore : std::uint32_t {
  // Squared distance: |x_i|^2 + |x_j|^2 - mult_i * mult_j / 2 * <b_i, b_j>, bias being the square.
  additive,
  // Largest product of the unit direction of i with j: mult_j * <b_i, b_j>.
  dot,
  // Bits that differ.
  hamming,
  // Sum of absolute differences of bytes, all on one scale.
  manhattan,
};

// What lists are made of. All of it must outlive their making.
struct GraphInput {
  GraphScore score = GraphScore::additive;
  std::uint64_t count = 0;             // points
  std::uint32_t dim = 0;               // values of a row; bits for hamming
  const std::uint8_t* rows = nullptr;  // of slot s: at s * row_stride
  std::size_t row_stride = 0;
  bool rows_signed = true;
  const RowScalars* scalars = nullptr;  // by slot; null for hamming and manhattan
  // Leaf l holds the slots leaf_first[l] to leaf_first[l + 1] - 1; its blocks are kBlockPoints
  // consecutive slots each, the last one what is left. leaf_first[leaf_count] is count.
  const Slot* leaf_first = nullptr;
  std::uint32_t leaf_count = 0;
};

// How much is compared. More finds more of the true neighbours.
struct GraphEffort {
  std::uint32_t near_leaves;       // whose blocks a block looks at, besides its own leaf
  std::uint32_t block_candidates;  // of these blocks, the nearest that its points choose among
  std::uint32_t near_blocks;       // chosen by each point, besides its own
  std::uint32_t rounds;            // of neighbours' neighbours
  std::uint32_t join_degree;       // of a neighbour's list, and of those that name it, so many
  std::uint32_t join_points;  // neighbours' neighbours that a block is compared with in a round
};

// What a build makes its lists with, and what is worth it where the lists are the answer; see
// base/tuning.h.
GraphEffort list_effort() noexcept;
GraphEffort graph_effort() noexcept;

// Neighbour lists of all points, step by step: for each slot in turn the `degree` (1 to 128)
// nearest other slots that were found so far, nearest first, equal ones by slot; kNoRow where there
// are no more. Which of equal points a full list holds is not said. Joining takes a second copy of
// the lists and join_degree slots a point; a row of bytes and near_blocks numbers are kept for each
// kBlockPoints points, and a few megabytes a thread. `monitor` may be null; what it throws leaves
// the lists unfinished.
class NeighbourFinder {
 public:
  // Input and monitor must outlive it.
  NeighbourFinder(const GraphInput& input, std::uint32_t degree, const GraphEffort& effort,
                  unsigned n_threads, Monitor* monitor);
  ~NeighbourFinder();
  NeighbourFinder(const NeighbourFinder&) = delete;
  NeighbourFinder& operator=(const NeighbourFinder&) = delete;

  // Compares all points with those of near blocks: the first step, once.
  void compare_near();
  // A round of neighbours' neighbours. May be repeated.
  void join();
  // What was found so far.
  const std::vector<Slot>& lists() const noexcept;
  std::vector<Slot> take_lists() noexcept;

  // The `degree` (1 to 256) nearest others of each of these slots among all points: lists as above,
  // one a slot given. Leaves are not read. The work is proportional to the points times the slots.
  static std::vector<Slot> true_lists(const GraphInput& input, const std::vector<Slot>& slots,
                                      std::uint32_t degree, unsigned n_threads, Monitor* monitor);

 private:
  class Work;
  std::unique_ptr<Work> work_;
};

// The lists after effort.rounds rounds.
std::vector<Slot> find_neighbours(const GraphInput& input, std::uint32_t degree,
                                  const GraphEffort& effort, unsigned n_threads, Monitor* monitor);

}  // namespace annidx
