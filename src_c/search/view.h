// view.h owns what a query reads: pointers into memory that others keep alive and that may hold
// anything, as far as it was not checked when the file was opened. It must not know files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "base/types.h"
#include "kernels/kernels.h"
#include "model/codes.h"
#include "model/partition.h"
#include "rows/metric.h"
#include "rows/vectors.h"

namespace annidx {

// How leaves are scanned; values as in the file.
enum class Scan : std::uint32_t {
  codes = 1,      // 4-bit codes, then byte rows, then vectors
  byte_rows = 2,  // L1 over bytes, then vectors
  bits = 3,       // popcount over the vectors
  vectors = 4,    // exact keys of the vectors
};

// For each slot some of the slots nearest to it, in memory that may hold anything.
struct NeighbourLists {
  const std::uint8_t* entries = nullptr;  // null: none
  std::uint32_t count = 0;                // a slot
  std::uint32_t entry_bytes = 0;          // 3 or 4, little-endian

  const std::uint8_t* of(Slot slot) const noexcept { return entries + std::size_t{slot} * bytes(); }
  std::size_t bytes() const noexcept { return std::size_t{count} * entry_bytes; }
  // Entry i of a list; at least the number of items where there is none.
  Slot entry(const std::uint8_t* list, std::uint32_t i) const noexcept {
    const std::uint8_t* at = list + std::size_t{i} * entry_bytes;
    const Slot low = at[0] | static_cast<Slot>(at[1]) << 8 | static_cast<Slot>(at[2]) << 16;
    return entry_bytes == 3 ? low : low | static_cast<Slot>(at[3]) << 24;
  }
};

// Immutable while queries run; shared by all threads.
struct SearchView {
  const ExactScorer* scorer = nullptr;
  Scan scan = Scan::vectors;
  WorkTransform transform;
  float value_scale = 1.0f;
  std::uint64_t item_count = 0;

  const std::byte* vectors = nullptr;  // slot order
  std::size_t row_bytes = 0;
  const std::uint32_t* slot_rows = nullptr;
  const std::uint32_t* row_slots = nullptr;

  ForestView forest;
  const float* leaf_biases = nullptr;
  const float* leaf_scan_factors = nullptr;
  const float* leaf_radii = nullptr;

  CodesView codes;
  // Coded centroids of the blocks of each leaf; null: leaves are scanned whole.
  const std::uint8_t* block_centroids = nullptr;
  float centroid_scale = 1.0f;  // they were coded times this
  // Codes by slot, each with its scalar and leaf behind them; and lists of near slots. Null: none.
  const std::uint8_t* code_records = nullptr;
  std::uint32_t record_bytes = 0;
  NeighbourLists neighbours;
  const std::byte* byte_rows = nullptr;  // dim bytes a slot: copies, or the vectors themselves
  bool byte_rows_signed = true;
  bool planes_of_work = true;  // rerank with the working-space query, else with the row units'
  const RowScalars* row_scalars = nullptr;  // null: what a scan of codes keeps is scored exactly
  // L1 over bytes: byte b stands for byte_offset + byte_scale * b, in row units.
  float byte_scale = 1.0f;
  float byte_offset = 0.0f;

  bool multiplies_norm() const noexcept { return traits_of(scorer->metric()).multiplies_norm; }
  const std::byte* stored(Slot slot) const noexcept {
    return vectors + std::size_t{slot} * row_bytes;
  }
};

// The entry of an array of indexes that a damaged file may have let point outside.
inline std::uint32_t checked_entry(const std::uint32_t* entries, std::uint64_t at,
                                   std::uint64_t bound, const char* section) {
  const std::uint32_t entry = entries[at];
  if (entry >= bound) {
    throw Error(ErrorCode::format, std::string("the index is damaged: section '") + section +
                                       "', entry " + std::to_string(at) + ": expected less than " +
                                       std::to_string(bound) + ", found " + std::to_string(entry));
  }
  return entry;
}
inline Row checked_row(const SearchView& view, Slot slot) {
  return checked_entry(view.slot_rows, slot, view.item_count, "slot_rows");
}
inline Slot checked_slot(const SearchView& view, Row row) {
  return checked_entry(view.row_slots, row, view.item_count, "row_slots");
}

}  // namespace annidx
