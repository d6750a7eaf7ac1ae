// row_tiles.cpp owns the packing of rows for the tile kernels and the keeping of the nearest; see
// row_tiles.h. Scores are exact but for their last multiplications, whose order is fixed, so that
// all levels agree.
#include "model/row_tiles.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace annidx {
namespace {

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

// Rows that tile kernels write for so many.
constexpr std::size_t tiled(std::size_t rows) noexcept { return (rows + 7) / 8 * 8; }

// Bytes of a row as the kernels take them; bits are expanded into `room`, dim bytes.
const std::uint8_t* bytes_of(const RowSet& set, Slot slot, std::uint8_t* room) {
  const std::uint8_t* row = set.rows + slot * set.stride;
  if (!set.packed_bits) return row;
  for (std::uint32_t j = 0; j < set.dim; j += 8) {
    std::memcpy(room + j, kBitTable.bytes[row[j / 8]], std::min<std::size_t>(8, set.dim - j));
  }
  return room;
}

}  // namespace

float signed_offset(const std::uint8_t* row, std::uint32_t dim) {
  std::int64_t sum = 0;
  for (std::uint32_t j = 0; j < dim; ++j) sum += row[j];
  return static_cast<float>(128 * sum - 8192 * std::int64_t{dim});
}

// ---- columns ----------------------------------------------------------------------------------

Columns::Columns(const RowSet& set)
    : set_(set),
      packed_(tile_column_bytes(set.dim)),
      expanded_(set.packed_bits ? kTilePoints * set.dim : 0) {}

void Columns::set(const Slot* slots, std::size_t n) {
  const std::uint8_t* rows[kTilePoints];
  for (std::size_t c = 0; c < n; ++c) {
    std::uint8_t* room = set_.packed_bits ? &expanded_[c * set_.dim] : nullptr;
    rows[c] = bytes_of(set_, slots[c], room);
  }
  std::copy_n(slots, n, slots_);
  count_ = n;
  if (set_.absolute) {
    for (std::size_t c = 0; c < n; ++c) std::memcpy(&packed_[c * set_.dim], rows[c], set_.dim);
    return;
  }
  kernels().pack_tile_columns(rows, n, set_.dim, set_.flip, packed_.data());
  for (std::size_t c = 0; c < kTilePoints; ++c) {
    const Slot slot = slots[c < n ? c : n - 1];
    terms_.mult[c] = set_.scalars[slot].mult;
    terms_.bias[c] = set_.scalars[slot].bias;
    terms_.offset[c] = set_.offsets ? set_.offsets[slot] : 0.0f;
  }
}

void Columns::prefetch(const Slot* slots, std::size_t n) const {
  for (std::size_t c = 0; c < n; ++c) {
    prefetch_l2(set_.rows + slots[c] * set_.stride, set_.packed_bits ? set_.stride : set_.dim);
    if (set_.scalars) prefetch_l2(set_.scalars + slots[c], sizeof(RowScalars));
    if (set_.offsets) prefetch_l2(set_.offsets + slots[c], sizeof(float));
  }
}

// ---- the nearest ------------------------------------------------------------------------------

void NearestLists::start(std::size_t rows, std::uint32_t degree) {
  degree_ = degree;
  room_ = degree + std::max<std::uint32_t>(degree, kTilePoints);
  scores_.resize(rows * room_);
  slots_.resize(rows * room_);
  counts_.assign(rows, 0);
  sorted_scores_.resize(room_);
  sorted_slots_.resize(room_);
  order_.resize(room_);
}

// Keeps the nearest and few more; returns the score that others must be below. Where too many are
// equal, or when their order is asked for, all are sorted.
float NearestLists::settle(std::size_t row) {
  float* scores = &scores_[row * room_];
  const float bound = kernels().near_bound(scores, counts_[row], degree_);
  const std::size_t kept =
      kernels().compact_at_most(scores, &slots_[row * room_], counts_[row], bound);
  counts_[row] = static_cast<std::uint32_t>(kept);
  if (kept + kTilePoints / 2 <= room_) return bound;
  sort(row);
  return scores[degree_ - 1];
}

void NearestLists::sort(std::size_t row) {
  float* scores = &scores_[row * room_];
  Slot* slots = &slots_[row * room_];
  const std::uint32_t kept = std::min(counts_[row], degree_);
  kernels().sort_scores(scores, counts_[row], order_.data());
  for (std::uint32_t i = 0; i < kept; ++i) {
    sorted_scores_[i] = scores[order_[i]];
    sorted_slots_[i] = slots[order_[i]];
  }
  std::copy_n(sorted_scores_.begin(), kept, scores);
  std::copy_n(sorted_slots_.begin(), kept, slots);
  counts_[row] = kept;
}

void NearestLists::write(std::size_t row, Slot* list) {
  sort(row);
  const float* scores = &scores_[row * room_];
  const std::uint32_t count = counts_[row];
  std::copy_n(&slots_[row * room_], count, list);
  std::fill(list + count, list + degree_, kNoRow);
  for (std::uint32_t i = 0, end = 1; i < count; i = end++) {
    while (end < count && scores[end] == scores[i]) ++end;
    std::sort(list + i, list + end);
  }
}

// ---- rows -------------------------------------------------------------------------------------

Rows::Rows(const RowSet& set, std::size_t most)
    : set_(set),
      stride_(tile_row_bytes(set.dim)),
      packed_(most * stride_),
      expanded_(set.packed_bits ? set.dim : 0),
      scores_(tiled(most) * kTilePoints + 16),
      passed_(tiled(most)),
      terms_(most),
      slots_(most) {}

void Rows::set_one(std::size_t place, Slot slot) {
  slots_[place] = slot;
  terms_[place] = {1.0f, 0.0f, std::numeric_limits<float>::infinity()};
  const std::uint8_t* bytes = bytes_of(set_, slot, expanded_.data());
  std::uint8_t* packed = &packed_[place * stride_];
  if (set_.absolute) {
    for (std::uint32_t j = 0; j < set_.dim; ++j) {
      packed[j] = static_cast<std::uint8_t>(bytes[j] ^ set_.flip);
    }
    return;
  }
  kernels().pack_tile_row(bytes, set_.dim, set_.flip, packed);
  if (set_.half_mult_is_factor) terms_[place].factor = 0.5f * set_.scalars[slot].mult;
  if (set_.offsets) terms_[place].offset = set_.offsets[slot];
}

void Rows::set(Slot first, std::size_t n, std::uint32_t degree) {
  for (std::size_t r = 0; r < n; ++r) set_one(r, static_cast<Slot>(first + r));
  nearest_.start(n, degree);
}

void Rows::set(const Slot* slots, std::size_t n, std::uint32_t degree) {
  for (std::size_t r = 0; r < n; ++r) set_one(r, slots[r]);
  nearest_.start(n, degree);
}

// Sums of absolute differences up to the limit; returns how many. `scores` has room for a tile's
// columns and 16 more.
std::size_t Rows::scan(const Columns& columns, std::uint32_t place, float limit, float* scores) {
  return kernels().scan_l1_u8(columns.packed(), columns.count(), set_.dim, columns.source().flip,
                              &packed_[place * stride_], 1.0f, limit, 0, nullptr,
                              {scores, scanned_});
}

const float* Rows::score(const Columns& columns, const std::uint32_t* places, std::size_t n) {
  if (set_.absolute) {
    for (std::size_t r = 0; r < n; ++r) {
      scan(columns, places[r], std::numeric_limits<float>::infinity(), &scores_[r * kTilePoints]);
    }
  } else {
    kernels().score_tile(packed_.data(), places, n, columns.packed(), set_.dim, terms_.data(),
                         columns.terms(), passed_.data(), scores_.data());
  }
  return scores_.data();
}

void Rows::offer(const Columns& columns, const std::uint32_t* places, std::size_t n) {
  if (set_.absolute) return offer_scanned(columns, places, n);
  score(columns, places, n);
  const std::uint32_t valid = columns.count() == kTilePoints ? ~0u : (1u << columns.count()) - 1u;
  for (std::size_t r = 0; r < n; ++r) {
    for (std::uint32_t mask = passed_[r] & valid; mask != 0; mask &= mask - 1) {
      const auto c = static_cast<std::size_t>(__builtin_ctz(mask));
      offer_one(places[r], scores_[r * kTilePoints + c], columns.slots()[c]);
    }
  }
}

void Rows::offer_scanned(const Columns& columns, const std::uint32_t* places, std::size_t n) {
  for (std::size_t r = 0; r < n; ++r) {
    const std::size_t found = scan(columns, places[r], terms_[places[r]].limit, scores_.data());
    for (std::size_t i = 0; i < found; ++i) {
      offer_one(places[r], scores_[i], columns.slots()[scanned_[i]]);
    }
  }
}

}  // namespace annidx
