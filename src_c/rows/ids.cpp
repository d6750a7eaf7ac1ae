// ids.cpp owns the two directions between ids and rows: a hash while an index is filled, a sorted
// order over the file's sections once it is built; and the sets of slots. See ids.h.
#include "rows/ids.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/error.h"

namespace annidx {

namespace {

constexpr std::size_t kSmallestTable = 16;
constexpr std::size_t kShownIdBytes = 60;

// The finalizer of splitmix64: every input bit reaches every output bit.
std::uint64_t mix(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

std::uint64_t hash_id(std::int64_t id) noexcept { return mix(static_cast<std::uint64_t>(id)); }

std::uint64_t hash_id(std::string_view id) noexcept {
  std::uint64_t hash = mix(id.size() + 0x9E3779B97F4A7C15ull);
  while (!id.empty()) {
    std::uint64_t word = 0;
    const std::size_t taken = std::min(id.size(), sizeof word);
    std::memcpy(&word, id.data(), taken);
    hash = mix(hash ^ word) + 0x9E3779B97F4A7C15ull;
    id.remove_prefix(taken);
  }
  return hash;
}

// The first eight bytes as a number that orders as the bytes do; equal keys need a full comparison.
std::uint64_t prefix_key(std::string_view id) noexcept {
  std::uint64_t key = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    key = key << 8 | (i < id.size() ? static_cast<unsigned char>(id[i]) : 0u);
  }
  return key;
}

std::uint64_t ordered_key(std::int64_t id) noexcept {
  return static_cast<std::uint64_t>(id) ^ (1ull << 63);
}

std::string quoted(std::string_view id) {
  if (id.size() <= kShownIdBytes) return "'" + std::string(id) + "'";
  std::size_t end = kShownIdBytes;
  while (end > 0 && (static_cast<unsigned char>(id[end]) & 0xC0) == 0x80) --end;
  return "'" + std::string(id.substr(0, end)) + "...'";
}

const char* kind_phrase(IdKind kind) noexcept {
  switch (kind) {
    case IdKind::row: return "no ids (rows are numbered 0, 1, 2, ...)";
    case IdKind::int64: return "int64 ids";
    case IdKind::text: return "str ids";
  }
  return "unknown ids";
}

[[noreturn]] void throw_no_memory() {
  throw Error(ErrorCode::memory, "not enough memory for the table of ids");
}

// Grows by doubling, so that many small adds stay linear; afterwards nothing up to `size` throws.
template <class Column>
void reserve_growing(Column* column, std::uint64_t size) {
  if (size > column->capacity()) {
    column->reserve(
        std::max<std::uint64_t>(size, 2 * static_cast<std::uint64_t>(column->capacity())));
  }
}

std::uint64_t words_for(std::uint64_t slot_count) noexcept {
  return slot_count / 64 + (slot_count % 64 != 0);
}

// Portable, because the core is compiled for machines without a popcount instruction.
std::uint64_t bits_in(std::uint64_t word) noexcept {
  word -= word >> 1 & 0x5555555555555555ull;
  word = (word & 0x3333333333333333ull) + (word >> 2 & 0x3333333333333333ull);
  word = (word + (word >> 4)) & 0x0F0F0F0F0F0F0F0Full;
  return word * 0x0101010101010101ull >> 56;
}

}  // namespace

// ---- IdCollector -------------------------------------------------------------------------

void IdCollector::add_implicit(std::uint64_t n) {
  if (n == 0) return;
  check_kind(IdKind::row);
  check_room(n);
  count_ += n;
}

void IdCollector::add_int64(const std::int64_t* ids, std::uint64_t n) {
  if (n == 0) return;
  check_kind(IdKind::int64);
  check_room(n);
  try {
    reserve_buckets(count_ + n);
    reserve_growing(&int64_ids_, count_ + n);
  } catch (const std::bad_alloc&) {
    throw_no_memory();
  }
  int64_ids_.insert(int64_ids_.end(), ids, ids + n);
  kind_ = IdKind::int64;
  enter_new_rows(n);
}

void IdCollector::add_text(const char* text, const std::uint64_t* offsets, std::uint64_t n) {
  if (n == 0) return;
  check_kind(IdKind::text);
  check_room(n);
  const std::uint64_t added_bytes = offsets[n] - offsets[0];
  try {
    reserve_buckets(count_ + n);
    reserve_growing(&text_offsets_, count_ + n + 1);
    reserve_growing(&text_, text_.size() + added_bytes);
  } catch (const std::bad_alloc&) {
    throw_no_memory();
  }
  if (text_offsets_.empty()) text_offsets_.push_back(0);
  const std::uint64_t start = text_.size();
  for (std::uint64_t i = 1; i <= n; ++i) text_offsets_.push_back(start + (offsets[i] - offsets[0]));
  text_.append(text + offsets[0], added_bytes);
  kind_ = IdKind::text;
  enter_new_rows(n);
}

Row IdCollector::find_int64(std::int64_t id) const noexcept {
  if (kind_ == IdKind::row) {
    return id >= 0 && static_cast<std::uint64_t>(id) < count_ ? static_cast<Row>(id) : kNoRow;
  }
  if (kind_ != IdKind::int64 || buckets_.empty()) return kNoRow;
  return buckets_[bucket_of(id)];
}

Row IdCollector::find_text(std::string_view id) const noexcept {
  if (kind_ != IdKind::text || buckets_.empty()) return kNoRow;
  return buckets_[bucket_of(id)];
}

void IdCollector::write_int64(std::int64_t* out) const {
  std::copy(int64_ids_.begin(), int64_ids_.end(), out);
}

void IdCollector::write_text(std::uint64_t* offsets, std::byte* text) const {
  std::copy(text_offsets_.begin(), text_offsets_.end(), offsets);
  if (!text_.empty()) std::memcpy(text, text_.data(), text_.size());
}

void IdCollector::write_order(std::uint32_t* out) const {
  struct Keyed {
    std::uint64_t key;
    Row row;
  };
  std::vector<Keyed> keyed;
  try {
    keyed.reserve(count_);
  } catch (const std::bad_alloc&) {
    throw_no_memory();
  }
  const bool is_text = kind_ == IdKind::text;
  for (std::uint64_t i = 0; i < count_; ++i) {
    const Row row = static_cast<Row>(i);
    keyed.push_back({is_text ? prefix_key(text_of(row)) : ordered_key(int64_ids_[row]), row});
  }
  std::sort(keyed.begin(), keyed.end(), [&](const Keyed& a, const Keyed& b) {
    if (a.key != b.key) return a.key < b.key;
    return is_text && text_of(a.row) < text_of(b.row);
  });
  for (std::uint64_t i = 0; i < count_; ++i) out[i] = keyed[i].row;
}

void IdCollector::release_memory() noexcept {
  std::vector<std::int64_t>().swap(int64_ids_);
  std::string().swap(text_);
  std::vector<std::uint64_t>().swap(text_offsets_);
  std::vector<Row>().swap(buckets_);
}

std::size_t IdCollector::bucket_of(std::int64_t id) const noexcept {
  const std::size_t mask = buckets_.size() - 1;
  std::size_t bucket = hash_id(id) & mask;
  while (buckets_[bucket] != kNoRow && int64_ids_[buckets_[bucket]] != id) {
    bucket = (bucket + 1) & mask;
  }
  return bucket;
}

std::size_t IdCollector::bucket_of(std::string_view id) const noexcept {
  const std::size_t mask = buckets_.size() - 1;
  std::size_t bucket = hash_id(id) & mask;
  while (buckets_[bucket] != kNoRow && text_of(buckets_[bucket]) != id) {
    bucket = (bucket + 1) & mask;
  }
  return bucket;
}

std::size_t IdCollector::bucket_of_row(Row row) const noexcept {
  return kind_ == IdKind::text ? bucket_of(text_of(row)) : bucket_of(int64_ids_[row]);
}

std::string_view IdCollector::text_of(Row row) const noexcept {
  const std::uint64_t begin = text_offsets_[row];
  return std::string_view(text_).substr(begin, text_offsets_[row + std::size_t{1}] - begin);
}

void IdCollector::check_room(std::uint64_t n) const {
  if (n > kMaxItems - count_) {
    throw Error(ErrorCode::invalid_argument, "an index holds at most " + std::to_string(kMaxItems) +
                                                 " items: it has " + std::to_string(count_) +
                                                 " and got " + std::to_string(n) + " more");
  }
}

void IdCollector::check_kind(IdKind kind) const {
  if (count_ == 0 || kind == kind_) return;
  throw Error(ErrorCode::invalid_argument,
              std::string("ids: earlier items were added with ") + kind_phrase(kind_) +
                  ", these came with " + kind_phrase(kind) + "; one index has one kind of ids");
}

void IdCollector::reserve_buckets(std::uint64_t rows) {
  // At most three quarters full: probes stay short, at 5.3 to 10.7 bytes a row.
  std::size_t wanted = std::max(buckets_.size(), kSmallestTable);
  while (rows > wanted / 4 * 3) wanted *= 2;
  if (wanted == buckets_.size()) return;
  std::vector<Row> larger(wanted, kNoRow);
  larger.swap(buckets_);
  for (const Row row : larger) {
    if (row != kNoRow) buckets_[bucket_of_row(row)] = row;
  }
}

void IdCollector::enter_new_rows(std::uint64_t n) {
  for (std::uint64_t i = 0; i < n; ++i) {
    const Row row = static_cast<Row>(count_ + i);
    const std::size_t bucket = bucket_of_row(row);
    const Row present = buckets_[bucket];
    if (present == kNoRow) {
      buckets_[bucket] = row;
      continue;
    }
    std::string message = "ids[" + std::to_string(i) + "]";
    if (present < count_) {
      message += ": id " + describe(row) + " is already in the index (row " +
                 std::to_string(present) + ")";
    } else {
      message +=
          " repeats ids[" + std::to_string(present - count_) + "] (id " + describe(row) + ")";
    }
    // Taken out last in, first out, each leaves the table as it was before it came.
    for (std::uint64_t j = i; j-- > 0;) {
      buckets_[bucket_of_row(static_cast<Row>(count_ + j))] = kNoRow;
    }
    if (kind_ == IdKind::text) {
      text_offsets_.resize(count_ + 1);
      text_.resize(text_offsets_.back());
    } else {
      int64_ids_.resize(count_);
    }
    if (count_ == 0) kind_ = IdKind::row;
    throw Error(ErrorCode::invalid_argument, std::move(message));
  }
  count_ += n;
}

std::string IdCollector::describe(Row row) const {
  return kind_ == IdKind::text ? quoted(text_of(row)) : std::to_string(int64_ids_[row]);
}

// ---- IdsView -----------------------------------------------------------------------------

namespace {

Row checked_row(const IdsView& ids, std::uint64_t position) {
  const Row row = ids.order[position];
  if (row >= ids.count) {
    throw Error(ErrorCode::format, "damaged file: id_order[" + std::to_string(position) +
                                       "] is row " + std::to_string(row) + ", but there are " +
                                       std::to_string(ids.count) + " items");
  }
  return row;
}

// Binary search over `order`; a damaged (unsorted) order finds nothing, in as many steps.
template <class Id, class IdOf>
Row find_in_order(const IdsView& ids, const Id& wanted, const IdOf& id_of) {
  std::uint64_t low = 0, high = ids.count;
  while (low < high) {
    const std::uint64_t middle = low + (high - low) / 2;
    const Row row = checked_row(ids, middle);
    const Id id = id_of(row);
    if (id == wanted) return row;
    if (id < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return kNoRow;
}

}  // namespace

Row IdsView::find_int64(std::int64_t id) const {
  if (kind == IdKind::row) {
    return id >= 0 && static_cast<std::uint64_t>(id) < count ? static_cast<Row>(id) : kNoRow;
  }
  if (kind != IdKind::int64) return kNoRow;
  return find_in_order(*this, id, [this](Row row) { return int64_ids[row]; });
}

Row IdsView::find_text(std::string_view id) const {
  if (kind != IdKind::text) return kNoRow;
  return find_in_order(*this, id, [this](Row row) { return text_of(row); });
}

std::int64_t IdsView::int64_of(Row row) const {
  return kind == IdKind::int64 ? int64_ids[row] : static_cast<std::int64_t>(row);
}

std::string_view IdsView::text_of(Row row) const {
  const std::uint64_t begin = text_offsets[row];
  const std::uint64_t end = text_offsets[row + std::size_t{1}];
  if (begin > end || end > text_bytes) {
    throw Error(ErrorCode::format, "damaged file: id_text_offsets gives row " +
                                       std::to_string(row) + " the bytes " + std::to_string(begin) +
                                       " to " + std::to_string(end) + ", but id_text has " +
                                       std::to_string(text_bytes));
  }
  return std::string_view(text + begin, end - begin);
}

// ---- SlotSet -----------------------------------------------------------------------------

RemovedIds::RemovedIds(std::vector<std::int64_t> ids) : ids_(std::move(ids)) {
  std::sort(ids_.begin(), ids_.end());
  ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
}

RemovedIds::RemovedIds(std::vector<std::string> texts) : texts_(std::move(texts)) {
  std::sort(texts_.begin(), texts_.end());
  texts_.erase(std::unique(texts_.begin(), texts_.end()), texts_.end());
}

std::uint64_t RemovedIds::text_bytes() const noexcept {
  std::uint64_t bytes = 0;
  for (const std::string& text : texts_) bytes += text.size();
  return bytes;
}

void RemovedIds::write(std::int64_t* ids, std::uint64_t* text_offsets, std::byte* text) const {
  std::copy(ids_.begin(), ids_.end(), ids);
  std::uint64_t end = 0;
  for (std::size_t i = 0; i < texts_.size(); ++i) {
    text_offsets[i] = end;
    std::memcpy(text + end, texts_[i].data(), texts_[i].size());
    end += texts_[i].size();
  }
  if (!texts_.empty()) text_offsets[texts_.size()] = end;
}

SlotSet::SlotSet(std::uint64_t slot_count)
    : slot_count_(slot_count), words_(words_for(slot_count) + 1, 0) {}

void SlotSet::insert(Slot slot) noexcept {
  frozen_count_ = kNotFrozen;
  words_[slot / 64] |= 1ull << slot % 64;
}

void SlotSet::erase(Slot slot) noexcept {
  frozen_count_ = kNotFrozen;
  words_[slot / 64] &= ~(1ull << slot % 64);
}

bool SlotSet::contains(Slot slot) const noexcept { return words_[slot / 64] >> slot % 64 & 1; }

void SlotSet::complement() noexcept {
  frozen_count_ = kNotFrozen;
  const std::uint64_t used = words_for(slot_count_);
  for (std::uint64_t i = 0; i < used; ++i) words_[i] = ~words_[i];
  if (slot_count_ % 64 != 0) words_[used - 1] &= (1ull << slot_count_ % 64) - 1;
}

void SlotSet::intersect(const SlotSet& other) noexcept {
  frozen_count_ = kNotFrozen;
  for (std::size_t i = 0; i < words_.size(); ++i) words_[i] &= other.words_[i];
}

void SlotSet::subtract(const SlotSet& other) noexcept {
  frozen_count_ = kNotFrozen;
  for (std::size_t i = 0; i < words_.size(); ++i) words_[i] &= ~other.words_[i];
}

std::uint64_t SlotSet::count() const noexcept {
  if (frozen_count_ != kNotFrozen) return frozen_count_;
  std::uint64_t bits = 0;
  for (const std::uint64_t word : words_) bits += bits_in(word);
  return bits;
}

std::uint64_t SlotSet::count_range(std::uint64_t first, std::uint64_t n) const noexcept {
  if (n == 0) return 0;
  const std::uint64_t end = first + n;
  const std::uint64_t first_word = first / 64, last_word = (end - 1) / 64;
  const std::uint64_t head = ~0ull << first % 64;
  const std::uint64_t tail = end % 64 == 0 ? ~0ull : (1ull << end % 64) - 1;
  if (first_word == last_word) return bits_in(words_[first_word] & head & tail);
  std::uint64_t bits = bits_in(words_[first_word] & head) + bits_in(words_[last_word] & tail);
  for (std::uint64_t i = first_word + 1; i < last_word; ++i) bits += bits_in(words_[i]);
  return bits;
}

std::vector<Slot> SlotSet::to_slots() const {
  std::vector<Slot> slots;
  slots.reserve(count());
  for (std::size_t i = 0; i < words_.size(); ++i) {
    for (std::uint64_t word = words_[i]; word != 0; word &= word - 1) {
      const std::uint64_t below_lowest = (word & (~word + 1)) - 1;
      slots.push_back(static_cast<Slot>(i * 64 + bits_in(below_lowest)));
    }
  }
  return slots;
}

}  // namespace annidx
