// ids.h owns the names of items: int64 or text ids to rows and back, and sets of slots. It must
// not know trees, vectors or files; views point into memory that others keep alive.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace annidx {

// The ids of an index being filled, in row order. Each add is all or nothing.
class IdCollector {
 public:
  IdKind kind() const noexcept { return kind_; }
  std::uint64_t size() const noexcept { return count_; }

  // Ids continue size(), size()+1, ...: allowed while no explicit ids were given.
  void add_implicit(std::uint64_t n);
  // Throws Error(invalid_argument) naming the id and its position in this call when it is already
  // in the index or twice in this call, or when the kind differs from earlier adds.
  void add_int64(const std::int64_t* ids, std::uint64_t n);
  // id i is text[offsets[i] .. offsets[i+1]): valid UTF-8 (the binding hands in what Python
  // encoded).
  void add_text(const char* text, const std::uint64_t* offsets, std::uint64_t n);

  Row find_int64(std::int64_t id) const noexcept;     // kNoRow when absent; also for kind row
  Row find_text(std::string_view id) const noexcept;  // kNoRow when absent

  std::uint64_t text_bytes() const noexcept { return text_.size(); }
  // Section contents (format.h ids_int64, id_order, id_text_offsets, id_text).
  void write_int64(std::int64_t* out) const;
  void write_text(std::uint64_t* offsets, std::byte* text) const;
  void write_order(std::uint32_t* out) const;  // rows sorted by id: numerically, or by UTF-8 bytes
  void release_memory() noexcept;              // after writing: keeps the kind and the count only

 private:
  // The bucket where the row of this id stands, or the empty one (kNoRow) where it belongs.
  std::size_t bucket_of(std::int64_t id) const noexcept;
  std::size_t bucket_of(std::string_view id) const noexcept;
  std::string_view text_of(Row row) const noexcept;
  void check_room(std::uint64_t n) const;
  void check_kind(IdKind kind) const;
  void reserve_buckets(std::uint64_t rows);
  // Enters rows count_ .. count_ + n - 1, whose ids stand in their columns already; at the first
  // repeated id takes them all out again and throws.
  void enter_new_rows(std::uint64_t n);
  std::size_t bucket_of_row(Row row) const noexcept;
  std::string describe(Row row) const;

  IdKind kind_ = IdKind::row;
  std::uint64_t count_ = 0;
  std::vector<std::int64_t> int64_ids_;      // by row
  std::string text_;                         // all text ids, joined
  std::vector<std::uint64_t> text_offsets_;  // count_ + 1 when kind is text
  std::vector<Row> buckets_;                 // open addressing; a power of two, or empty
};

// The ids of a built index. Reads untrusted memory: every index is checked where it is used, and a
// bad one is Error(format).
struct IdsView {
  IdKind kind = IdKind::row;
  std::uint64_t count = 0;
  const std::int64_t* int64_ids = nullptr;
  const std::uint32_t* order = nullptr;
  const std::uint64_t* text_offsets = nullptr;
  const char* text = nullptr;
  std::uint64_t text_bytes = 0;

  Row find_int64(std::int64_t id) const;     // kNoRow when absent
  Row find_text(std::string_view id) const;  // kNoRow when absent
  std::int64_t int64_of(Row row) const;      // kinds row and int64; row < count
  std::string_view text_of(Row row) const;   // kind text; row < count
};

// Ids that are removed from an index, ascending.
class RemovedIds {
 public:
  explicit RemovedIds(std::vector<std::int64_t> ids);
  explicit RemovedIds(std::vector<std::string> texts);

  bool are_texts() const noexcept { return !texts_.empty(); }
  std::uint32_t count() const noexcept {
    return static_cast<std::uint32_t>(std::max(ids_.size(), texts_.size()));
  }
  std::uint64_t text_bytes() const noexcept;
  // Section contents (format.h removed_ids, or removed_text_offsets and removed_text).
  void write(std::int64_t* ids, std::uint64_t* text_offsets, std::byte* text) const;

 private:
  std::vector<std::int64_t> ids_;
  std::vector<std::string> texts_;
};

// What was worked out from a set for one purpose, to be found again. Never waits: when another
// thread is at it, nothing is found or kept.
class Derived {
 public:
  Derived() = default;
  Derived(const Derived&) noexcept {}  // of a copy of the set nothing is known
  Derived& operator=(const Derived&) noexcept {
    key_ = 0;
    value_.reset();
    return *this;
  }
  std::shared_ptr<const void> get(std::uint64_t key) noexcept {
    if (busy_.test_and_set(std::memory_order_acquire)) return nullptr;
    std::shared_ptr<const void> found = key == key_ ? value_ : nullptr;
    busy_.clear(std::memory_order_release);
    return found;
  }
  void put(std::uint64_t key, std::shared_ptr<const void> value) noexcept {
    if (busy_.test_and_set(std::memory_order_acquire)) return;
    key_ = key;
    value_.swap(value);
    busy_.clear(std::memory_order_release);
  }

 private:
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  std::uint64_t key_ = 0;
  std::shared_ptr<const void> value_;
};

// A set of slots of one index: one bit each (bit s % 64 of word s / 64), with a spare word behind.
class SlotSet {
 public:
  explicit SlotSet(std::uint64_t slot_count);

  void insert(Slot slot) noexcept;  // slot < slot_count
  void erase(Slot slot) noexcept;
  bool contains(Slot slot) const noexcept;
  void complement() noexcept;
  void intersect(const SlotSet& other) noexcept;  // same slot_count
  void subtract(const SlotSet& other) noexcept;   // same slot_count
  std::uint64_t slot_count() const noexcept { return slot_count_; }
  std::uint64_t count() const noexcept;                // bits set
  void freeze() noexcept { frozen_count_ = count(); }  // no change comes: it is counted once
  // The index that it was made for; see Collection::stamp(). 0: any.
  std::uint64_t stamp() const noexcept { return stamp_; }
  void set_stamp(std::uint64_t stamp) noexcept { stamp_ = stamp; }
  Derived& derived() const noexcept { return derived_; }
  std::uint64_t count_range(std::uint64_t first, std::uint64_t n) const noexcept;
  const std::uint64_t* words() const noexcept { return words_.data(); }
  // The slots of the set, ascending.
  std::vector<Slot> to_slots() const;

 private:
  static constexpr std::uint64_t kNotFrozen = ~std::uint64_t{0};

  std::uint64_t slot_count_;
  std::vector<std::uint64_t> words_;
  std::uint64_t frozen_count_ = kNotFrozen;
  std::uint64_t stamp_ = 0;
  mutable Derived derived_;
};

}  // namespace annidx
