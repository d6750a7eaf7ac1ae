// neighbours.cpp owns the comparing of blocks with near blocks and with their neighbours'
// neighbours; see neighbours.h. Each block's lists are written by the one thread that holds it,
// from what was complete before the step began.
#include "model/neighbours.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "base/tuning.h"
#include "model/row_tiles.h"

namespace annidx {
namespace {

constexpr std::uint8_t kFlip = 0x80;

// Rows compared at a time, a leaf's or a part of a large leaf's, and their blocks.
constexpr std::size_t kMostRows = 1024;
constexpr std::uint32_t kMostBlocks = kMostRows / kBlockPoints;
// Neighbours and theirs that a block's points meet at most: lists of 128 name 4,096 points.
constexpr std::size_t kMostVotes = 8192;
// Rows compared with all points in one pass over these.
constexpr std::uint64_t kTrueRows = 128;

// Counts how often slots are named: a hash table that a block's neighbours and theirs fit in. Once
// it is full no new slot gets in.
class Votes {
 public:
  explicit Votes(std::size_t most) : places_(most), entries_(4) {
    while (entries_.size() < 2 * most) entries_.resize(2 * entries_.size());
    for (std::size_t size = entries_.size(); size > 1; size /= 2) --shift_;
  }
  void clear() {
    std::fill(entries_.begin(), entries_.end(), Entry{0, 0});
    size_ = 0;
  }
  void add(Slot slot, std::uint32_t votes) {
    std::size_t at = (slot * 0x9E3779B1u) >> shift_;
    while (entries_[at].votes != 0) {
      if (entries_[at].slot == slot) {
        entries_[at].votes += votes;
        return;
      }
      at = (at + 1) & (entries_.size() - 1);
    }
    if (size_ == places_.size()) return;
    entries_[at] = {slot, votes};
    places_[size_++] = static_cast<std::uint32_t>(at);
  }
  // In the order they were first named.
  std::size_t size() const { return size_; }
  Slot slot(std::size_t i) const { return entries_[places_[i]].slot; }
  std::uint32_t votes(std::size_t i) const { return entries_[places_[i]].votes; }

 private:
  struct Entry {
    Slot slot;
    std::uint32_t votes;  // 0: no entry
  };
  std::vector<std::uint32_t> places_;  // of the entries
  std::size_t size_ = 0;
  std::vector<Entry> entries_;
  unsigned shift_ = 32;
};

}  // namespace

class NeighbourFinder::Work {
 public:
  Work(const GraphInput& input, std::uint32_t degree, const GraphEffort& effort, unsigned n_threads,
       Monitor* monitor)
      : input_(input),
        degree_(degree),
        effort_(effort),
        n_threads_(std::max(n_threads, 1u)),
        monitor_(monitor),
        workers_(n_threads_) {}

  void compare_near();
  void join_all();
  std::vector<Slot>& lists() { return lists_; }
  std::vector<Slot> true_lists(const std::vector<Slot>& slots);

 private:
  // Part of a leaf: at most kMostBlocks blocks.
  struct Part {
    std::uint32_t leaf, first_block, last_block;
  };
  struct Worker {
    explicit Worker(const Work& build)
        : points(build.points_, kMostRows),
          blocks(build.centroids_, kMostBlocks),
          point_columns(build.points_),
          block_columns(build.centroids_),
          is_compared((build.block_total() + 63) / 64),
          votes(kMostVotes) {}
    Rows points;
    Rows blocks;
    Columns point_columns;
    Columns block_columns;
    std::vector<std::uint32_t> near;        // blocks of the leaf and of those near to it
    std::vector<float> scores;              // of some rows with some of them, row by row
    std::vector<std::uint32_t> candidates;  // of a block: places of `near`
    std::vector<float> point_scores;
    std::vector<float> passed_scores;
    std::vector<Slot> passed;
    std::vector<std::uint32_t> wish_first, wishes;  // places of the rows that want a near block
    std::vector<std::uint32_t> near_order;          // near blocks that some row wants
    std::vector<std::uint32_t> wanting;             // of a block's points, by candidate
    std::vector<std::uint64_t> is_compared;         // a bit a block
    std::vector<std::uint64_t> wanted;
    Votes votes;
    std::vector<std::uint32_t> fresh;  // places among the votes
    std::vector<Slot> chosen;
  };

  Worker* worker(unsigned number) {
    if (!workers_[number]) workers_[number] = std::make_unique<Worker>(*this);
    return workers_[number].get();
  }
  void count_blocks();
  void describe_points();
  void count_ones();
  void make_centroids();
  void decode(Slot slot, float* values) const;
  void make_centroid(std::uint32_t block, float* values, float* mean) const;
  void quantize(const float* mean, std::uint8_t* row, RowScalars* scalars, float* offset) const;
  void choose_leaves();
  void gather_near(std::uint32_t leaf, Worker* worker) const;
  void score_near(const Part& part, Worker* worker) const;
  void choose_for_points(const Part& part, std::uint32_t block, Worker* worker);
  void remember_compared(std::uint32_t block, std::size_t rows, const Worker* worker);
  void mark_compared(std::uint32_t block, bool compared, Worker* worker) const;
  void sort_wishes(Worker* worker) const;
  void compare_part(const Part& part, Worker* worker, Slot* lists);
  void reverse(const Slot* lists);
  std::size_t vote(std::uint32_t block, const Slot* from, Votes* votes) const;
  void join(std::uint32_t block, const Slot* from, Worker* worker, Slot* to) const;
  void choose_votes(std::size_t direct, Worker* worker) const;
  std::size_t points_of(std::uint32_t block, Slot* slots) const {
    const std::size_t n = block_first_[block + 1] - block_first_[block];
    for (std::size_t i = 0; i < n; ++i) slots[i] = static_cast<Slot>(block_first_[block] + i);
    return n;
  }
  std::uint32_t block_of(Slot slot) const {
    std::uint32_t block = block_at_[slot / kBlockPoints];
    while (block_first_[block + 1] <= slot) ++block;
    return block;
  }
  std::uint32_t join_degree() const { return std::min(degree_, effort_.join_degree); }
  std::uint32_t block_total() const { return static_cast<std::uint32_t>(block_first_.size() - 1); }

  const GraphInput& input_;
  std::uint32_t degree_;
  GraphEffort effort_;
  unsigned n_threads_;
  Monitor* monitor_;
  RowSet points_, centroids_, leaves_;
  std::vector<RowScalars> bit_scalars_;
  std::vector<float> offsets_, centroid_offsets_, leaf_offsets_;
  std::vector<Slot> block_first_;           // and the end
  std::vector<std::uint32_t> leaf_blocks_;  // first block of each leaf, and the end
  std::vector<std::uint32_t> block_at_;     // of slot kBlockPoints * i
  std::vector<Part> parts_;
  std::vector<std::uint32_t> compared_;  // by all of a block, near_blocks of each at most
  std::vector<std::uint8_t> centroid_rows_, leaf_rows_;
  std::vector<RowScalars> centroid_scalars_, leaf_scalars_;
  std::vector<Slot> reversed_;              // join_degree() a slot
  std::vector<std::uint32_t> near_leaves_;  // kNoRow where there are no more
  std::vector<Slot> lists_, joined_;
  std::vector<std::unique_ptr<Worker>> workers_;
};

void NeighbourFinder::Work::count_blocks() {
  for (std::uint32_t leaf = 0; leaf < input_.leaf_count; ++leaf) {
    leaf_blocks_.push_back(static_cast<std::uint32_t>(block_first_.size()));
    for (std::uint64_t slot = input_.leaf_first[leaf]; slot < input_.leaf_first[leaf + 1];
         slot += kBlockPoints) {
      block_first_.push_back(static_cast<Slot>(slot));
    }
    const auto last = static_cast<std::uint32_t>(block_first_.size());
    for (std::uint32_t block = leaf_blocks_.back(); block < last; block += kMostBlocks) {
      parts_.push_back({leaf, block, std::min(last, block + kMostBlocks)});
    }
  }
  leaf_blocks_.push_back(static_cast<std::uint32_t>(block_first_.size()));
  block_first_.push_back(static_cast<Slot>(input_.count));
  std::uint32_t block = 0;
  for (std::uint64_t slot = 0; slot < input_.count; slot += kBlockPoints) {
    while (block_first_[block + 1] <= slot) ++block;
    block_at_.push_back(block);
  }
}

void NeighbourFinder::Work::describe_points() {
  points_.rows = input_.rows;
  points_.stride = input_.row_stride;
  points_.dim = input_.dim;
  points_.packed_bits = input_.score == GraphScore::hamming;
  points_.absolute = input_.score == GraphScore::manhattan;
  points_.half_mult_is_factor = input_.score != GraphScore::dot;
  points_.scalars = input_.scalars;
  if (points_.packed_bits) {
    count_ones();
  } else if (points_.absolute) {
    points_.flip = input_.rows_signed ? kFlip : 0;
  } else if (!input_.rows_signed) {
    points_.flip = kFlip;
    offsets_.resize(input_.count);
    for (std::uint64_t slot = 0; slot < input_.count; ++slot) {
      offsets_[slot] = signed_offset(input_.rows + slot * input_.row_stride, input_.dim);
    }
    points_.offsets = offsets_.data();
  }
}

// Differing bits are squared distances of zeros and ones.
void NeighbourFinder::Work::count_ones() {
  bit_scalars_.resize(input_.count);
  const std::size_t bytes = (input_.dim + 7) / 8;
  const std::vector<std::uint8_t> zeros(bytes);
  for (std::uint64_t slot = 0; slot < input_.count; ++slot) {
    const std::uint32_t ones =
        kernels().hamming(input_.rows + slot * input_.row_stride, zeros.data(), bytes);
    bit_scalars_[slot] = {2.0f, static_cast<float>(ones)};
  }
  points_.scalars = bit_scalars_.data();
}

// A mean as a row of the points' kind; bits as signed bytes, and bytes of absolute differences
// unsigned.
void NeighbourFinder::Work::quantize(const float* mean, std::uint8_t* row, RowScalars* scalars,
                                     float* offset) const {
  const std::uint32_t dim = input_.dim;
  const bool is_unsigned = points_.offsets != nullptr;
  const float largest = kernels().max_abs(mean, dim);
  float scale = largest > 0.0f ? largest / (is_unsigned ? 255.0f : 127.0f) : 1.0f;
  if (points_.absolute) scale = 1.0f;
  for (std::uint32_t j = 0; j < dim; ++j) {
    row[j] = static_cast<std::uint8_t>(static_cast<int>(round_small(mean[j] / scale)));
  }
  const float square = kernels().dot_f32(mean, mean, dim);
  *scalars =
      points_.half_mult_is_factor ? RowScalars{2.0f * scale, square} : RowScalars{scale, 0.0f};
  *offset = is_unsigned ? signed_offset(row, dim) : 0.0f;
}

// A row's values as they stand in means: those of products with their factor.
void NeighbourFinder::Work::decode(Slot slot, float* values) const {
  const std::uint8_t* row = input_.rows + slot * input_.row_stride;
  const std::uint32_t dim = input_.dim;
  if (points_.packed_bits) return kernels().bits_to_f32(row, values, dim);
  if (points_.absolute) {
    for (std::uint32_t j = 0; j < dim; ++j) values[j] = static_cast<float>(row[j] ^ points_.flip);
    return;
  }
  const float mult = input_.scalars[slot].mult;
  const float scale = points_.half_mult_is_factor ? 0.5f * mult : mult;
  for (std::uint32_t j = 0; j < dim; ++j) {
    const int value = input_.rows_signed ? static_cast<std::int8_t>(row[j]) : row[j];
    values[j] = scale * static_cast<float>(value);
  }
}

void NeighbourFinder::Work::make_centroid(std::uint32_t block, float* values, float* mean) const {
  std::fill(mean, mean + input_.dim, 0.0f);
  const float share = 1.0f / static_cast<float>(block_first_[block + 1] - block_first_[block]);
  for (Slot slot = block_first_[block]; slot < block_first_[block + 1]; ++slot) {
    decode(slot, values);
    kernels().axpy(share, values, mean, input_.dim);
  }
}

void NeighbourFinder::Work::make_centroids() {
  const std::uint32_t dim = input_.dim;
  centroid_rows_.resize(std::size_t{block_total()} * dim);
  centroid_scalars_.resize(block_total());
  centroid_offsets_.resize(block_total());
  leaf_rows_.resize(std::size_t{input_.leaf_count} * dim);
  leaf_scalars_.resize(input_.leaf_count);
  leaf_offsets_.resize(input_.leaf_count);
  parallel_for(
      n_threads_, input_.leaf_count, 16,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        std::vector<float> values(dim), mean(dim), leaf_mean(dim);
        for (std::uint64_t leaf = begin; leaf < end; ++leaf) {
          std::fill(leaf_mean.begin(), leaf_mean.end(), 0.0f);
          const std::uint32_t first = leaf_blocks_[leaf], last = leaf_blocks_[leaf + 1];
          for (std::uint32_t block = first; block < last; ++block) {
            make_centroid(block, values.data(), mean.data());
            quantize(mean.data(), &centroid_rows_[std::size_t{block} * dim],
                     &centroid_scalars_[block], &centroid_offsets_[block]);
            kernels().axpy(1.0f / static_cast<float>(last - first), mean.data(), leaf_mean.data(),
                           dim);
          }
          quantize(leaf_mean.data(), &leaf_rows_[leaf * dim], &leaf_scalars_[leaf],
                   &leaf_offsets_[leaf]);
        }
      },
      monitor_);
  centroids_ = points_;
  centroids_.packed_bits = false;
  if (points_.absolute) centroids_.flip = 0;
  centroids_.rows = centroid_rows_.data();
  centroids_.stride = dim;
  centroids_.scalars = centroid_scalars_.data();
  if (centroids_.offsets) centroids_.offsets = centroid_offsets_.data();
  leaves_ = centroids_;
  leaves_.rows = leaf_rows_.data();
  leaves_.scalars = leaf_scalars_.data();
  if (leaves_.offsets) leaves_.offsets = leaf_offsets_.data();
}

constexpr std::uint32_t kPlaces[kTilePoints] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10,
                                                11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                                22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

void NeighbourFinder::Work::choose_leaves() {
  const std::uint32_t n = input_.leaf_count;
  near_leaves_.resize(std::size_t{n} * effort_.near_leaves);
  parallel_for(
      n_threads_, n, kTilePoints,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        Rows rows(leaves_, kTilePoints);
        Columns columns(leaves_);
        const auto count = static_cast<std::size_t>(end - begin);
        rows.set(static_cast<Slot>(begin), count, effort_.near_leaves);
        for (std::uint32_t first = 0; first < n; first += kTilePoints) {
          Slot ids[kTilePoints];
          const std::size_t some = std::min<std::size_t>(kTilePoints, n - first);
          for (std::size_t i = 0; i < some; ++i) ids[i] = static_cast<Slot>(first + i);
          columns.set(ids, some);
          rows.offer(columns, kPlaces, count);
        }
        for (std::size_t i = 0; i < count; ++i) {
          rows.write_list(i, &near_leaves_[(begin + i) * effort_.near_leaves]);
        }
      },
      monitor_);
}

void NeighbourFinder::Work::gather_near(std::uint32_t leaf, Worker* worker) const {
  worker->near.clear();
  const auto add_leaf = [&](std::uint32_t other) {
    for (std::uint32_t b = leaf_blocks_[other]; b < leaf_blocks_[other + 1]; ++b) {
      worker->near.push_back(b);
    }
  };
  add_leaf(leaf);
  for (std::uint32_t i = 0; i < effort_.near_leaves; ++i) {
    const std::uint32_t other = near_leaves_[std::size_t{leaf} * effort_.near_leaves + i];
    if (other != kNoRow) add_leaf(other);
  }
}

// Scores of the part's blocks with all near ones.
void NeighbourFinder::Work::score_near(const Part& part, Worker* worker) const {
  const std::size_t rows = part.last_block - part.first_block;
  const std::size_t n = worker->near.size();
  worker->blocks.set(part.first_block, rows, 1);
  worker->scores.resize(rows * n);
  for (std::size_t i = 0; i < n; i += kTilePoints) {
    const std::size_t some = std::min(kTilePoints, n - i);
    worker->block_columns.set(&worker->near[i], some);
    const float* scores = worker->blocks.score(worker->block_columns, kPlaces, rows);
    for (std::size_t r = 0; r < rows; ++r) {
      std::copy_n(scores + r * kTilePoints, some, &worker->scores[r * n + i]);
    }
  }
}

namespace {

// Positions of about `keep` of the least of n scores, in order.
std::size_t least_scores(const float* scores, std::size_t n, std::size_t keep,
                         std::vector<float>* passed_scores, std::vector<Slot>* passed) {
  passed_scores->resize(n + 16);
  passed->resize(n + 16);
  const float bound =
      keep < n ? kernels().near_bound(scores, n, keep) : std::numeric_limits<float>::infinity();
  const std::size_t found =
      kernels().select_at_most(scores, n, bound, 0, {passed_scores->data(), passed->data()});
  return std::min(found, keep + keep / 4);
}

}  // namespace

// For the points of a block, the near blocks that each is compared with.
void NeighbourFinder::Work::choose_for_points(const Part& part, std::uint32_t block,
                                              Worker* worker) {
  const std::size_t n = worker->near.size();
  const std::uint32_t first_place = block_first_[block] - block_first_[part.first_block];
  const std::size_t rows = block_first_[block + 1] - block_first_[block];
  const std::size_t found =
      least_scores(&worker->scores[(block - part.first_block) * n], n, effort_.block_candidates,
                   &worker->passed_scores, &worker->passed);
  worker->candidates.assign(worker->passed.begin(), worker->passed.begin() + found);
  std::vector<float>& scores = worker->point_scores;
  scores.resize(rows * found);
  std::uint32_t places[kTilePoints];
  for (std::size_t r = 0; r < rows; ++r) places[r] = static_cast<std::uint32_t>(first_place + r);
  for (std::size_t i = 0; i < found; i += kTilePoints) {
    const std::size_t some = std::min(kTilePoints, found - i);
    Slot ids[kTilePoints];
    for (std::size_t c = 0; c < some; ++c) ids[c] = worker->near[worker->candidates[i + c]];
    worker->block_columns.set(ids, some);
    const float* tile = worker->points.score(worker->block_columns, places, rows);
    for (std::size_t r = 0; r < rows; ++r) {
      std::copy_n(tile + r * kTilePoints, some, &scores[r * found + i]);
    }
  }
  const std::uint32_t own = block - leaf_blocks_[part.leaf];
  worker->wanting.assign(found, 0);
  for (std::size_t r = 0; r < rows; ++r) {
    const std::uint64_t place = places[r];
    worker->wanted.push_back(std::uint64_t{own} << 32 | place);
    const std::size_t some = least_scores(scores.data() + r * found, found, effort_.near_blocks,
                                          &worker->passed_scores, &worker->passed);
    for (std::size_t i = 0; i < some; ++i) {
      const std::uint32_t near = worker->candidates[worker->passed[i]];
      if (near == own) continue;
      worker->wanted.push_back(std::uint64_t{near} << 32 | place);
      ++worker->wanting[worker->passed[i]];
    }
  }
  remember_compared(block, rows, worker);
}

// Blocks that at least three quarters of a block's points are compared with need not be met again.
void NeighbourFinder::Work::remember_compared(std::uint32_t block, std::size_t rows,
                                              const Worker* worker) {
  std::uint32_t* compared = &compared_[std::size_t{block} * effort_.near_blocks];
  std::uint32_t kept = 0;
  for (std::size_t i = 0; i < worker->wanting.size() && kept < effort_.near_blocks; ++i) {
    if (4 * worker->wanting[i] < 3 * rows) continue;
    compared[kept++] = worker->near[worker->candidates[i]];
  }
  std::fill(compared + kept, compared + effort_.near_blocks, kNoRow);
}

// Wishes by near block, places ascending; the near blocks that most points want come first, so that
// limits fall early.
void NeighbourFinder::Work::sort_wishes(Worker* worker) const {
  std::vector<std::uint32_t>& first = worker->wish_first;
  first.assign(worker->near.size() + 1, 0);
  for (std::uint64_t wish : worker->wanted) ++first[(wish >> 32) + 1];
  for (std::size_t i = 1; i < first.size(); ++i) first[i] += first[i - 1];
  worker->wishes.resize(worker->wanted.size());
  for (std::uint64_t wish : worker->wanted) {
    worker->wishes[first[wish >> 32]++] = static_cast<std::uint32_t>(wish);
  }
  for (std::size_t i = first.size() - 1; i > 0; --i) first[i] = first[i - 1];
  first[0] = 0;
  worker->near_order.clear();
  for (std::uint32_t i = 0; i < worker->near.size(); ++i) {
    if (first[i] != first[i + 1]) worker->near_order.push_back(i);
  }
  std::stable_sort(worker->near_order.begin(), worker->near_order.end(),
                   [&](std::uint32_t a, std::uint32_t b) {
                     return first[a + 1] - first[a] > first[b + 1] - first[b];
                   });
}

void NeighbourFinder::Work::compare_part(const Part& part, Worker* worker, Slot* lists) {
  const Slot first = block_first_[part.first_block], last = block_first_[part.last_block];
  gather_near(part.leaf, worker);
  score_near(part, worker);
  worker->points.set(first, last - first, degree_);
  worker->wanted.clear();
  for (std::uint32_t block = part.first_block; block < part.last_block; ++block) {
    choose_for_points(part, block, worker);
  }
  sort_wishes(worker);
  for (std::uint32_t i : worker->near_order) {
    const std::uint32_t begin = worker->wish_first[i], end = worker->wish_first[i + 1];
    Slot slots[kTilePoints];
    worker->point_columns.set(slots, points_of(worker->near[i], slots));
    worker->points.offer(worker->point_columns, &worker->wishes[begin], end - begin);
  }
  for (Slot slot = first; slot < last; ++slot) {
    worker->points.write_list(slot - first, lists + slot * std::size_t{degree_});
  }
}

// The slots with the most votes, at most so many after the first `direct`, which are all taken.
void NeighbourFinder::Work::choose_votes(std::size_t direct, Worker* worker) const {
  constexpr std::uint32_t kMostCounted = 64;
  const Votes& votes = worker->votes;
  std::vector<std::uint32_t>& fresh = worker->fresh;
  std::uint32_t with_votes[kMostCounted + 1] = {};
  fresh.clear();
  for (std::size_t i = direct; i < votes.size(); ++i) {
    const std::uint32_t block = block_of(votes.slot(i));
    if ((worker->is_compared[block / 64] >> (block % 64) & 1u) != 0) continue;
    fresh.push_back(static_cast<std::uint32_t>(i));
    ++with_votes[std::min(votes.votes(i), kMostCounted)];
  }
  std::uint32_t least = kMostCounted + 1;
  std::size_t room = effort_.join_points;
  while (least > 1 && with_votes[least - 1] <= room) room -= with_votes[--least];
  worker->chosen.clear();
  for (std::size_t i = 0; i < direct; ++i) worker->chosen.push_back(votes.slot(i));
  for (std::uint32_t i : fresh) {
    const std::uint32_t count = std::min(votes.votes(i), kMostCounted);
    if (count + 1 < least || (count + 1 == least && room == 0)) continue;
    if (count + 1 == least) --room;
    worker->chosen.push_back(votes.slot(i));
  }
}

void NeighbourFinder::Work::mark_compared(std::uint32_t block, bool compared,
                                          Worker* worker) const {
  const auto mark = [&](std::uint32_t other) {
    const std::uint64_t bit = std::uint64_t{1} << (other % 64);
    std::uint64_t& word = worker->is_compared[other / 64];
    word = compared ? word | bit : word & ~bit;
  };
  mark(block);
  for (std::uint32_t i = 0; i < effort_.near_blocks; ++i) {
    const std::uint32_t other = compared_[std::size_t{block} * effort_.near_blocks + i];
    if (other == kNoRow) break;
    mark(other);
  }
}

// Who names each point in its list, nearest ranks first, as far as there is room. Each range of
// points is filled by one thread, which reads all lists: the order does not depend on the ranges.
void NeighbourFinder::Work::reverse(const Slot* lists) {
  const std::uint64_t n = input_.count;
  const std::uint32_t room = join_degree();
  reversed_.assign(n * room, kNoRow);
  const std::uint64_t range = (n - 1) / std::max(n_threads_, 1u) + 1;
  parallel_for(
      n_threads_, n, range,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        std::vector<std::uint8_t> filled(end - begin);
        for (std::uint32_t rank = 0; rank < room; ++rank) {
          for (std::uint64_t slot = 0; slot < n; ++slot) {
            const std::uint64_t named = lists[slot * degree_ + rank];
            if (named < begin || named >= end || filled[named - begin] == room) continue;
            reversed_[named * room + filled[named - begin]++] = static_cast<Slot>(slot);
          }
        }
      },
      monitor_);
}

// The slots in the block's lists and the first that name its points; then theirs.
std::size_t NeighbourFinder::Work::vote(std::uint32_t block, const Slot* from, Votes* votes) const {
  const std::uint32_t read = join_degree();
  const auto add = [votes](const Slot* list, std::uint32_t n, std::uint32_t weight) {
    for (std::uint32_t i = 0; i < n && list[i] != kNoRow; ++i) votes->add(list[i], weight);
  };
  votes->clear();
  const std::size_t first = block_first_[block], last = block_first_[block + 1];
  for (std::uint32_t rank = 0; rank < degree_; ++rank) {  // the nearest first: limits fall early
    for (std::size_t slot = first; slot < last; ++slot) add(from + slot * degree_ + rank, 1, 1);
  }
  for (std::size_t slot = first; slot < last; ++slot) add(reversed_.data() + slot * read, read, 1);
  const std::size_t direct = votes->size();
  for (std::size_t i = 0; i < direct; ++i) {
    prefetch_l2(from + votes->slot(i) * std::size_t{degree_}, read * sizeof(Slot));
    prefetch_l2(reversed_.data() + votes->slot(i) * std::size_t{read}, read * sizeof(Slot));
  }
  for (std::size_t i = 0; i < direct; ++i) {
    const std::uint32_t weight = votes->votes(i);
    add(from + votes->slot(i) * std::size_t{degree_}, read, weight);
    add(reversed_.data() + votes->slot(i) * std::size_t{read}, read, weight);
  }
  return direct;
}

void NeighbourFinder::Work::join(std::uint32_t block, const Slot* from, Worker* worker,
                                 Slot* to) const {
  Slot slots[kTilePoints];
  const std::size_t rows = points_of(block, slots);
  const std::size_t direct = vote(block, from, &worker->votes);
  mark_compared(block, true, worker);
  choose_votes(direct, worker);
  mark_compared(block, false, worker);
  worker->points.set(slots[0], rows, degree_);
  const std::vector<Slot>& chosen = worker->chosen;
  for (std::size_t i = 0; i < chosen.size(); i += kTilePoints) {
    const std::size_t next = i + kTilePoints;
    if (next < chosen.size()) {
      worker->point_columns.prefetch(&chosen[next], std::min(kTilePoints, chosen.size() - next));
    }
    worker->point_columns.set(&chosen[i], std::min(kTilePoints, chosen.size() - i));
    worker->points.offer(worker->point_columns, kPlaces, rows);
  }
  for (std::size_t r = 0; r < rows; ++r) {
    worker->points.write_list(r, to + slots[r] * std::size_t{degree_});
  }
}

void NeighbourFinder::Work::compare_near() {
  count_blocks();
  describe_points();
  make_centroids();
  choose_leaves();
  compared_.resize(std::size_t{block_total()} * effort_.near_blocks);
  lists_.resize(input_.count * degree_);
  parallel_for(
      n_threads_, parts_.size(), 1,
      [&](std::uint64_t begin, std::uint64_t end, unsigned number) {
        for (std::uint64_t i = begin; i < end; ++i) {
          compare_part(parts_[i], worker(number), lists_.data());
        }
      },
      monitor_, "neighbours");
}

void NeighbourFinder::Work::join_all() {
  joined_.resize(lists_.size());
  reverse(lists_.data());
  parallel_for(
      n_threads_, block_total(), 8,
      [&](std::uint64_t begin, std::uint64_t end, unsigned number) {
        for (std::uint64_t block = begin; block < end; ++block) {
          join(static_cast<std::uint32_t>(block), lists_.data(), worker(number), joined_.data());
        }
      },
      monitor_, "neighbours of neighbours");
  lists_.swap(joined_);
}

std::vector<Slot> NeighbourFinder::Work::true_lists(const std::vector<Slot>& slots) {
  describe_points();
  std::vector<Slot> lists(slots.size() * degree_);
  parallel_for(
      n_threads_, slots.size(), kTrueRows,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        const auto n = static_cast<std::size_t>(end - begin);
        Rows rows(points_, n);
        Columns columns(points_);
        std::vector<std::uint32_t> places(n);
        std::iota(places.begin(), places.end(), 0u);
        rows.set(&slots[begin], n, degree_);
        for (std::uint64_t first = 0; first < input_.count; first += kTilePoints) {
          Slot others[kTilePoints];
          const auto some =
              static_cast<std::size_t>(std::min<std::uint64_t>(kTilePoints, input_.count - first));
          std::iota(others, others + some, static_cast<Slot>(first));
          columns.set(others, some);
          rows.offer(columns, places.data(), n);
        }
        for (std::size_t r = 0; r < n; ++r) rows.write_list(r, &lists[(begin + r) * degree_]);
      },
      monitor_, "true neighbours");
  return lists;
}

NeighbourFinder::NeighbourFinder(const GraphInput& input, std::uint32_t degree,
                                 const GraphEffort& effort, unsigned n_threads, Monitor* monitor)
    : work_(std::make_unique<Work>(input, degree, effort, n_threads, monitor)) {}

NeighbourFinder::~NeighbourFinder() = default;
void NeighbourFinder::compare_near() { work_->compare_near(); }
void NeighbourFinder::join() { work_->join_all(); }
const std::vector<Slot>& NeighbourFinder::lists() const noexcept { return work_->lists(); }
std::vector<Slot> NeighbourFinder::take_lists() noexcept { return std::move(work_->lists()); }

GraphEffort list_effort() noexcept {
  return {tuning::kListLeaves, tuning::kListBlockCandidates, tuning::kListBlocks,
          tuning::kListRounds, tuning::kListJoinDegree,      tuning::kListJoinPoints};
}

GraphEffort graph_effort() noexcept {
  return {tuning::kListLeaves,      tuning::kListBlockCandidates, tuning::kGraphBlocks,
          tuning::kMostGraphRounds, tuning::kGraphJoinDegree,     tuning::kGraphJoinPoints};
}

std::vector<Slot> find_neighbours(const GraphInput& input, std::uint32_t degree,
                                  const GraphEffort& effort, unsigned n_threads, Monitor* monitor) {
  if (input.count == 0) return {};
  NeighbourFinder finder(input, degree, effort, n_threads, monitor);
  finder.compare_near();
  for (std::uint32_t round = 0; round < effort.rounds; ++round) finder.join();
  return finder.take_lists();
}

std::vector<Slot> NeighbourFinder::true_lists(const GraphInput& input,
                                              const std::vector<Slot>& slots, std::uint32_t degree,
                                              unsigned n_threads, Monitor* monitor) {
  return Work(input, degree, {}, n_threads, monitor).true_lists(slots);
}

}  // namespace annidx
