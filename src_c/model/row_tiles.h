// row_tiles.h owns the comparing of many byte rows with each other, 32 columns at a time, and the
// nearest that each row was offered. It must not know where rows come from or which ones are worth
// comparing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/types.h"
#include "kernels/kernels.h"

namespace annidx {

// Rows of bytes with what their scores need, by index: points, or centroids of points.
struct RowSet {
  const std::uint8_t* rows = nullptr;
  std::size_t stride = 0;
  std::uint32_t dim = 0;  // values
  bool packed_bits = false;
  bool absolute = false;                // scored by absolute differences of unsigned bytes
  std::uint8_t flip = 0;                // what makes the bytes signed ones; if absolute, unsigned
  const RowScalars* scalars = nullptr;  // null if absolute
  const float* offsets = nullptr;       // see signed_offset; null for signed rows
  bool half_mult_is_factor = true;      // of a row's products; otherwise 1
};

// Rows with unsigned bytes u are packed as s = u - 128, and
//   <u, v> = <s, t> + signed_offset(u) + signed_offset(v).
float signed_offset(const std::uint8_t* row, std::uint32_t dim);

// Up to kTilePoints rows of a set side by side. The set must outlive it.
class Columns {
 public:
  explicit Columns(const RowSet& set);
  void set(const Slot* slots, std::size_t n);
  // Asks for the rows of a later set(): they are read from all over the memory.
  void prefetch(const Slot* slots, std::size_t n) const;

  const RowSet& source() const { return set_; }
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

// The `degree` nearest of each of some rows so far. Offers are gathered and sorted some at a time;
// of equal scores those offered first stay.
class NearestLists {
 public:
  void start(std::size_t rows, std::uint32_t degree);
  // Lowers *limit, which must be below what is offered, when the list's last entry changes.
  void offer(std::size_t row, float score, Slot slot, float* limit) {
    if (!(score < *limit)) return;
    std::uint32_t& count = counts_[row];
    scores_[row * room_ + count] = score;
    slots_[row * room_ + count] = slot;
    if (++count == room_) *limit = settle(row);
  }
  // Nearest first, equal ones by slot, then kNoRow.
  void write(std::size_t row, Slot* list);

 private:
  float settle(std::size_t row);
  void sort(std::size_t row);

  std::uint32_t degree_ = 0, room_ = 0;
  std::vector<float> scores_, sorted_scores_;  // room_ a row
  std::vector<Slot> slots_, sorted_slots_;
  std::vector<std::uint32_t> counts_, order_;
};

// Rows of a set, known by their places, and the nearest columns that each was offered. One a
// thread; the set must outlive it.
class Rows {
 public:
  Rows(const RowSet& set, std::size_t most);
  // The n rows from `first` on get the places 0 .. n - 1, with empty lists.
  void set(Slot first, std::size_t n, std::uint32_t degree);
  // The n rows of these slots do.
  void set(const Slot* slots, std::size_t n, std::uint32_t degree);
  // Scores of the rows at these places: kTilePoints a row.
  const float* score(const Columns& columns, const std::uint32_t* places, std::size_t n);
  // Offers the columns to the rows at these places; none may come twice for a row.
  void offer(const Columns& columns, const std::uint32_t* places, std::size_t n);
  void write_list(std::size_t place, Slot* list) { nearest_.write(place, list); }

 private:
  void set_one(std::size_t place, Slot slot);
  void offer_one(std::uint32_t place, float score, Slot slot) {
    if (slot != slots_[place]) nearest_.offer(place, score, slot, &terms_[place].limit);
  }
  std::size_t scan(const Columns& columns, std::uint32_t place, float limit, float* scores);
  void offer_scanned(const Columns& columns, const std::uint32_t* places, std::size_t n);

  const RowSet& set_;
  std::size_t stride_;
  std::vector<std::uint8_t> packed_, expanded_;
  std::vector<float> scores_;
  std::vector<std::uint32_t> passed_;
  std::vector<TileRowTerms> terms_;
  std::vector<Slot> slots_;
  Slot scanned_[kTilePoints + 16];
  NearestLists nearest_;
};

}  // namespace annidx
