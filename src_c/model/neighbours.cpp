// neighbours.cpp owns the comparing of blocks with near blocks and with their neighbours'
// neighbours; see neighbours.h. Each block's lists are written by the one thread that holds it,
// from what was complete before the step began.
#include "model/neighbours.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "base/tuning.h"

namespace annidx {
namespace {

constexpr std::uint8_t kFlip = 0x80;

// Rows of bytes with what their scores need, by index: the points, or the centroids of blocks.
struct RowSet {
  const std::uint8_t* rows = nullptr;
  std::size_t stride = 0;
  std::uint32_t dim = 0;  // values
  bool packed_bits = false;
  std::uint8_t flip = 0;
  const RowScalars* scalars = nullptr;  // for bits: null
  const float* offsets = nullptr;       // see signed_offset; null for signed rows
  bool half_mult_is_factor = true;
};

// Rows with unsigned bytes u are packed as s = u - 128, and
//   <u, v> = <s, t> + signed_offset(u) + signed_offset(v).
float signed_offset(const std::uint8_t* row, std::uint32_t dim) {
  std::int64_t sum = 0;
  for (std::uint32_t j = 0; j < dim; ++j) sum += row[j];
  return static_cast<float>(128 * sum - 8192 * std::int64_t{dim});
}

// Bits of packed bytes as bytes of 0 or 1.
struct BitTable {
  std::uint8_t bytes[256][8];
};

constexpr BitTable make_bit_table() {
  BitTable table{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    for (unsigned i = 0; i < 8; ++i) table.bytes[byte][i] = (byte >> (7 - i)) & 1u;
  }
  return table;
}

constexpr BitTable kBitTable = make_bit_table();

// A score that sorts as its bits do, then the slot.
std::uint64_t sortable(float score, Slot slot) {
  std::uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return std::uint64_t{bits} << 32 | slot;
}

float score_of(std::uint64_t key) {
  std::uint32_t bits = static_cast<std::uint32_t>(key >> 32);
  bits = (bits & 0x80000000u) != 0 ? bits & 0x7FFFFFFFu : ~bits;
  float score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

constexpr std::uint64_t kNoKey = ~std::uint64_t{0};

// Rows compared at a time, a leaf's or a part of a large leaf's, and their blocks.
constexpr std::size_t kMostRows = 1024;
constexpr std::uint32_t kMostBlocks = kMostRows / kBlockPoints;

// The nearest of each of some rows so far.
class BestLists {
 public:
  void start(std::size_t rows, std::uint32_t degree) {
    degree_ = degree;
    keys_.assign(rows * degree, kNoKey);
  }
  // Lowers *limit when the list's last entry changes.
  void offer(std::size_t row, float score, Slot slot, float* limit) {
    std::uint64_t* keys = &keys_[row * degree_];
    const std::uint64_t key = sortable(score, slot);
    std::size_t at = degree_ - 1;
    if (key >= keys[at]) return;
    for (; at > 0 && keys[at - 1] > key; --at) keys[at] = keys[at - 1];
    keys[at] = key;
    if (keys[degree_ - 1] != kNoKey) *limit = score_of(keys[degree_ - 1]);
  }
  void write(std::size_t row, Slot* list) const {
    for (std::uint32_t i = 0; i < degree_; ++i) {
      list[i] = static_cast<Slot>(keys_[row * degree_ + i]);
    }
  }

 private:
  std::uint32_t degree_ = 0;
  std::vector<std::uint64_t> keys_;
};

// Bytes of a row as the kernels take them; bits are expanded into `room`, dim bytes.
const std::uint8_t* bytes_of(const RowSet& set, Slot slot, std::uint8_t* room) {
  const std::uint8_t* row = set.rows + slot * set.stride;
  if (!set.packed_bits) return row;
  for (std::uint32_t j = 0; j < set.dim; j += 8) {
    std::memcpy(room + j, kBitTable.bytes[row[j / 8]], std::min<std::size_t>(8, set.dim - j));
  }
  return room;
}

// Up to kTilePoints rows of a set side by side.
class Columns {
 public:
  explicit Columns(const RowSet& set)
      : set_(set),
        packed_(tile_column_bytes(set.dim)),
        expanded_(set.packed_bits ? kTilePoints * set.dim : 0) {}

  void set(const Slot* slots, std::size_t n) {
    const std::uint8_t* pointers[kTilePoints];
    for (std::size_t c = 0; c < n; ++c) {
      pointers[c] =
          bytes_of(set_, slots[c], expanded_.data() + (set_.packed_bits ? c * set_.dim : 0));
    }
    kernels().pack_tile_columns(pointers, n, set_.dim, set_.flip, packed_.data());
    for (std::size_t c = 0; c < kTilePoints; ++c) {
      const Slot slot = slots[c < n ? c : n - 1];
      terms_.mult[c] = set_.scalars[slot].mult;
      terms_.bias[c] = set_.scalars[slot].bias;
      terms_.offset[c] = set_.offsets ? set_.offsets[slot] : 0.0f;
    }
    std::copy_n(slots, n, slots_);
    count_ = n;
  }
  void prefetch(const Slot* slots, std::size_t n) const {
    for (std::size_t c = 0; c < n; ++c) {
      prefetch_l2(set_.rows + slots[c] * set_.stride, set_.packed_bits ? set_.stride : set_.dim);
      prefetch_l2(set_.scalars + slots[c], sizeof(RowScalars));
      if (set_.offsets) prefetch_l2(set_.offsets + slots[c], sizeof(float));
    }
  }
  const std::uint8_t* packed() const { return packed_.data(); }
  const TileColumnTerms& terms() const { return terms_; }
  const Slot* slots() const { return slots_; }
  std::size_t count() const { return count_; }

 private:
  const RowSet& set_;
  std::vector<std::uint8_t> packed_, expanded_;
  TileColumnTerms terms_;
  Slot slots_[kTilePoints];
  std::size_t count_ = 0;
};

// Rows of a set, known by their places, and the nearest columns that each was offered.
class Rows {
 public:
  Rows(const RowSet& set, std::size_t most)
      : set_(set),
        stride_(tile_row_bytes(set.dim)),
        packed_(most * stride_),
        expanded_(set.packed_bits ? set.dim : 0),
        scores_(most * kTilePoints),
        passed_(most),
        terms_(most),
        slots_(most) {}

  void set(Slot first, std::size_t n, std::uint32_t degree) {
    for (std::size_t r = 0; r < n; ++r) {
      const Slot slot = static_cast<Slot>(first + r);
      slots_[r] = slot;
      kernels().pack_tile_row(bytes_of(set_, slot, expanded_.data()), set_.dim, set_.flip,
                              &packed_[r * stride_]);
      terms_[r].factor = set_.half_mult_is_factor ? 0.5f * set_.scalars[slot].mult : 1.0f;
      terms_[r].offset = set_.offsets ? set_.offsets[slot] : 0.0f;
      terms_[r].limit = std::numeric_limits<float>::infinity();
    }
    best_.start(n, degree);
  }

  // Scores of the rows at these places: kTilePoints a row.
  const float* score(const Columns& columns, const std::uint32_t* places, std::size_t n) {
    kernels().score_tile(packed_.data(), places, n, columns.packed(), set_.dim, terms_.data(),
                         columns.terms(), passed_.data(), scores_.data());
    return scores_.data();
  }

  // Offers the columns to the rows at these places; none may come twice for a row.
  void offer(const Columns& columns, const std::uint32_t* places, std::size_t n) {
    score(columns, places, n);
    const std::uint32_t valid = columns.count() == kTilePoints ? ~0u : (1u << columns.count()) - 1u;
    for (std::size_t r = 0; r < n; ++r) {
      const std::uint32_t place = places[r];
      for (std::uint32_t mask = passed_[r] & valid; mask != 0; mask &= mask - 1) {
        const auto c = static_cast<std::size_t>(__builtin_ctz(mask));
        const Slot slot = columns.slots()[c];
        if (slot == slots_[place]) continue;
        best_.offer(place, scores_[r * kTilePoints + c], slot, &terms_[place].limit);
      }
    }
  }
  void write_list(std::size_t place, Slot* list) const { best_.write(place, list); }

 private:
  const RowSet& set_;
  std::size_t stride_;
  std::vector<std::uint8_t> packed_, expanded_;
  std::vector<float> scores_;
  std::vector<std::uint32_t> passed_;
  std::vector<TileRowTerms> terms_;
  std::vector<Slot> slots_;
  BestLists best_;
};

// Counts how often slots are named: a hash table that a block's neighbours and theirs fit in. Once
// it is half full no new slot gets in.
class Votes {
 public:
  explicit Votes(std::size_t most) : entries_(4) {
    while (entries_.size() < 2 * most) entries_.resize(2 * entries_.size());
    shift_ = 32;
    for (std::size_t size = entries_.size(); size > 1; size /= 2) --shift_;
  }
  void clear() {
    std::memset(entries_.data(), 0, entries_.size() * sizeof(Entry));
    places_.clear();
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
    if (2 * places_.size() >= entries_.size()) return;
    entries_[at] = {slot, votes};
    places_.push_back(static_cast<std::uint32_t>(at));
  }
  // In the order they were first named.
  std::size_t size() const { return places_.size(); }
  Slot slot(std::size_t i) const { return entries_[places_[i]].slot; }
  std::uint32_t votes(std::size_t i) const { return entries_[places_[i]].votes; }

 private:
  struct Entry {
    Slot slot;
    std::uint32_t votes;  // 0: no entry
  };
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> places_;
  unsigned shift_;
};

class GraphBuild {
 public:
  GraphBuild(const GraphInput& input, std::uint32_t degree, const GraphEffort& effort,
             unsigned n_threads, Monitor* monitor)
      : input_(input), degree_(degree), effort_(effort), n_threads_(n_threads), monitor_(monitor) {}

  void run(Slot* lists);

 private:
  // Part of a leaf: at most kMostBlocks blocks.
  struct Part {
    std::uint32_t leaf, first_block, last_block;
  };
  struct Worker {
    explicit Worker(const GraphBuild& build)
        : points(build.points_, kMostRows),
          blocks(build.centroids_, kMostBlocks),
          point_columns(build.points_),
          block_columns(build.centroids_),
          votes(8192) {}
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
    std::vector<std::uint64_t> wanted;
    Votes votes;
    std::vector<Slot> chosen;
  };

  void count_blocks();
  void describe_points();
  void make_centroids();
  void make_centroid(std::uint32_t block, float* mean);
  void quantize(const float* mean, std::uint8_t* row, RowScalars* scalars, float* offset) const;
  void choose_leaves();
  void gather_near(std::uint32_t leaf, Worker* worker) const;
  void score_near(const Part& part, Worker* worker) const;
  void choose_for_points(const Part& part, std::uint32_t block, Worker* worker) const;
  void sort_wishes(Worker* worker) const;
  void compare_part(const Part& part, Worker* worker, Slot* lists) const;
  void reverse(const Slot* lists);
  std::size_t vote(std::uint32_t block, const Slot* from, Votes* votes) const;
  void join(std::uint32_t block, const Slot* from, Worker* worker, Slot* to) const;
  void choose_votes(std::size_t direct, Worker* worker) const;
  std::size_t points_of(std::uint32_t block, Slot* slots) const {
    const std::size_t n = block_first_[block + 1] - block_first_[block];
    for (std::size_t i = 0; i < n; ++i) slots[i] = static_cast<Slot>(block_first_[block] + i);
    return n;
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
  std::vector<Part> parts_;
  std::vector<std::uint8_t> centroid_rows_, leaf_rows_;
  std::vector<RowScalars> centroid_scalars_, leaf_scalars_;
  std::vector<Slot> reversed_;              // join_degree() a slot
  std::vector<std::uint32_t> near_leaves_;  // kNoRow where there are no more
};

void GraphBuild::count_blocks() {
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
}

void GraphBuild::describe_points() {
  points_.rows = input_.rows;
  points_.stride = input_.row_stride;
  points_.dim = input_.dim;
  points_.packed_bits = input_.score == GraphScore::hamming;
  points_.flip = input_.rows_signed || points_.packed_bits ? 0 : kFlip;
  points_.scalars = input_.scalars;
  points_.half_mult_is_factor = input_.score != GraphScore::dot;
  if (points_.packed_bits) {
    bit_scalars_.resize(input_.count);
    const std::size_t bytes = (input_.dim + 7) / 8;
    const std::vector<std::uint8_t> zeros(bytes);
    for (std::uint64_t slot = 0; slot < input_.count; ++slot) {
      const std::uint32_t ones =
          kernels().hamming(input_.rows + slot * input_.row_stride, zeros.data(), bytes);
      bit_scalars_[slot] = {2.0f, static_cast<float>(ones)};
    }
    points_.scalars = bit_scalars_.data();
  } else if (!input_.rows_signed) {
    offsets_.resize(input_.count);
    for (std::uint64_t slot = 0; slot < input_.count; ++slot) {
      offsets_[slot] = signed_offset(input_.rows + slot * input_.row_stride, input_.dim);
    }
    points_.offsets = offsets_.data();
  }
}

// A mean as a row of the points' kind, bits as signed bytes.
void GraphBuild::quantize(const float* mean, std::uint8_t* row, RowScalars* scalars,
                          float* offset) const {
  const std::uint32_t dim = input_.dim;
  const bool is_unsigned = points_.flip != 0;
  const float largest = kernels().max_abs(mean, dim);
  const float scale = largest > 0.0f ? largest / (is_unsigned ? 255.0f : 127.0f) : 1.0f;
  for (std::uint32_t j = 0; j < dim; ++j) {
    row[j] = static_cast<std::uint8_t>(static_cast<int>(round_small(mean[j] / scale)));
  }
  const float square = kernels().dot_f32(mean, mean, dim);
  *scalars =
      points_.half_mult_is_factor ? RowScalars{2.0f * scale, square} : RowScalars{scale, 0.0f};
  *offset = is_unsigned ? signed_offset(row, dim) : 0.0f;
}

// The mean of the block's points, as they stand in products with others.
void GraphBuild::make_centroid(std::uint32_t block, float* mean) {
  std::fill(mean, mean + input_.dim, 0.0f);
  const float share = 1.0f / static_cast<float>(block_first_[block + 1] - block_first_[block]);
  std::vector<float> values(input_.dim);
  for (Slot slot = block_first_[block]; slot < block_first_[block + 1]; ++slot) {
    const std::uint8_t* row = input_.rows + slot * input_.row_stride;
    float scale = share;
    if (points_.packed_bits) {
      kernels().bits_to_f32(row, values.data(), input_.dim);
    } else {
      if (input_.rows_signed) {
        for (std::uint32_t j = 0; j < input_.dim; ++j) {
          values[j] = static_cast<float>(static_cast<std::int8_t>(row[j]));
        }
      } else {
        kernels().u8_to_f32(row, values.data(), input_.dim);
      }
      scale *= points_.half_mult_is_factor ? 0.5f * input_.scalars[slot].mult
                                           : input_.scalars[slot].mult;
    }
    kernels().axpy(scale, values.data(), mean, input_.dim);
  }
}

void GraphBuild::make_centroids() {
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
        std::vector<float> mean(dim), leaf_mean(dim);
        for (std::uint64_t leaf = begin; leaf < end; ++leaf) {
          std::fill(leaf_mean.begin(), leaf_mean.end(), 0.0f);
          const std::uint32_t first = leaf_blocks_[leaf], last = leaf_blocks_[leaf + 1];
          for (std::uint32_t block = first; block < last; ++block) {
            make_centroid(block, mean.data());
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

void GraphBuild::choose_leaves() {
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

void GraphBuild::gather_near(std::uint32_t leaf, Worker* worker) const {
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
void GraphBuild::score_near(const Part& part, Worker* worker) const {
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

// For the points of a block, the near blocks that each is compared with.
void GraphBuild::choose_for_points(const Part& part, std::uint32_t block, Worker* worker) const {
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
  for (std::size_t r = 0; r < rows; ++r) {
    const std::uint64_t place = places[r];
    worker->wanted.push_back(std::uint64_t{own} << 32 | place);
    const std::size_t some = least_scores(scores.data() + r * found, found, effort_.near_blocks,
                                          &worker->passed_scores, &worker->passed);
    for (std::size_t i = 0; i < some; ++i) {
      const std::uint32_t near = worker->candidates[worker->passed[i]];
      if (near != own) worker->wanted.push_back(std::uint64_t{near} << 32 | place);
    }
  }
}

// Wishes by near block, places ascending.
void GraphBuild::sort_wishes(Worker* worker) const {
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
}

void GraphBuild::compare_part(const Part& part, Worker* worker, Slot* lists) const {
  const Slot first = block_first_[part.first_block], last = block_first_[part.last_block];
  gather_near(part.leaf, worker);
  score_near(part, worker);
  worker->points.set(first, last - first, degree_);
  worker->wanted.clear();
  for (std::uint32_t block = part.first_block; block < part.last_block; ++block) {
    choose_for_points(part, block, worker);
  }
  sort_wishes(worker);
  for (std::size_t i = 0; i < worker->near.size(); ++i) {
    const std::uint32_t begin = worker->wish_first[i], end = worker->wish_first[i + 1];
    if (begin == end) continue;
    Slot slots[kTilePoints];
    worker->point_columns.set(slots, points_of(worker->near[i], slots));
    worker->points.offer(worker->point_columns, &worker->wishes[begin], end - begin);
  }
  for (Slot slot = first; slot < last; ++slot) {
    worker->points.write_list(slot - first, lists + slot * std::size_t{degree_});
  }
}

// The slots with the most votes, at most so many after the first `direct`, which are all taken.
void GraphBuild::choose_votes(std::size_t direct, Worker* worker) const {
  constexpr std::uint32_t kMostCounted = 64;
  const Votes& votes = worker->votes;
  std::uint32_t with_votes[kMostCounted + 1] = {};
  for (std::size_t i = direct; i < votes.size(); ++i) {
    ++with_votes[std::min(votes.votes(i), kMostCounted)];
  }
  std::uint32_t least = kMostCounted + 1;
  std::size_t room = effort_.join_points;
  while (least > 1 && with_votes[least - 1] <= room) room -= with_votes[--least];
  worker->chosen.clear();
  for (std::size_t i = 0; i < votes.size(); ++i) {
    bool taken = i < direct || votes.votes(i) >= least;
    if (!taken && room > 0 && votes.votes(i) + 1 == least) {
      --room;
      taken = true;
    }
    if (taken) worker->chosen.push_back(votes.slot(i));
  }
}

// Who names each point in its list, nearest ranks first, as far as there is room. Each range of
// points is filled by one thread, which reads all lists: the order does not depend on the ranges.
void GraphBuild::reverse(const Slot* lists) {
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
std::size_t GraphBuild::vote(std::uint32_t block, const Slot* from, Votes* votes) const {
  const std::uint32_t read = join_degree();
  const auto add = [votes](const Slot* list, std::uint32_t n, std::uint32_t weight) {
    for (std::uint32_t i = 0; i < n && list[i] != kNoRow; ++i) votes->add(list[i], weight);
  };
  votes->clear();
  for (std::size_t slot = block_first_[block]; slot < block_first_[block + 1]; ++slot) {
    add(from + slot * degree_, degree_, 1);
    add(reversed_.data() + slot * read, read, 1);
  }
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

void GraphBuild::join(std::uint32_t block, const Slot* from, Worker* worker, Slot* to) const {
  Slot slots[kTilePoints];
  const std::size_t rows = points_of(block, slots);
  const std::size_t direct = vote(block, from, &worker->votes);
  choose_votes(direct, worker);
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

void GraphBuild::run(Slot* lists) {
  count_blocks();
  describe_points();
  make_centroids();
  choose_leaves();
  std::vector<Slot> other(effort_.rounds > 0 ? input_.count * degree_ : 0);
  Slot* from = effort_.rounds % 2 == 0 ? lists : other.data();
  Slot* to = effort_.rounds % 2 == 0 ? other.data() : lists;
  std::vector<std::unique_ptr<Worker>> workers(std::max(n_threads_, 1u));
  const auto worker_of = [&](unsigned number) {
    if (!workers[number]) workers[number] = std::make_unique<Worker>(*this);
    return workers[number].get();
  };
  parallel_for(
      n_threads_, parts_.size(), 1,
      [&](std::uint64_t begin, std::uint64_t end, unsigned number) {
        for (std::uint64_t i = begin; i < end; ++i)
          compare_part(parts_[i], worker_of(number), from);
      },
      monitor_, "neighbours");
  for (std::uint32_t round = 0; round < effort_.rounds; ++round) {
    reverse(from);
    parallel_for(
        n_threads_, block_total(), 8,
        [&](std::uint64_t begin, std::uint64_t end, unsigned number) {
          Worker* worker = worker_of(number);
          for (std::uint64_t block = begin; block < end; ++block) {
            join(static_cast<std::uint32_t>(block), from, worker, to);
          }
        },
        monitor_, "neighbours of neighbours");
    std::swap(from, to);
  }
}

}  // namespace

GraphEffort list_effort() noexcept {
  return {tuning::kListLeaves, tuning::kListBlockCandidates, tuning::kListBlocks,
          tuning::kListRounds, tuning::kListJoinDegree,      tuning::kListJoinPoints};
}

void find_neighbours(const GraphInput& input, std::uint32_t degree, const GraphEffort& effort,
                     unsigned n_threads, Monitor* monitor, Slot* lists) {
  if (input.count == 0) return;
  GraphBuild(input, degree, effort, n_threads, monitor).run(lists);
}

}  // namespace annidx
