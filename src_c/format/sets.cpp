// sets.cpp owns reading, checking and writing of named sets; see sets.h.
#include "format/sets.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "format/detail.h"

namespace annidx::format {

using namespace detail;

namespace {

constexpr std::uint64_t kWordBits = 64;
constexpr std::uint64_t kRowBytes = sizeof(std::uint32_t);

constexpr std::uint64_t filled_up(std::uint64_t bytes) noexcept {
  return (bytes + kSetsAlignment - 1) / kSetsAlignment * kSetsAlignment;
}

constexpr std::uint64_t words_for(std::uint64_t items) noexcept {
  return ceil_divide(items, kWordBits);
}

// Without what fills it up. `count` is at most 2^32, so nothing overflows.
constexpr std::uint64_t rows_bytes(SetStorage storage, std::uint64_t count,
                                   std::uint64_t items) noexcept {
  return storage == SetStorage::bitmap ? words_for(items) * sizeof(std::uint64_t)
                                       : count * kRowBytes;
}

template <class T>
T read_at(const std::byte* place) noexcept {
  T value;
  std::memcpy(&value, place, sizeof value);
  return value;
}

int bits_of(std::uint64_t word) noexcept { return __builtin_popcountll(word); }

// Calls visit(row) for each bit of a word.
template <class Visit>
void for_each_bit(std::uint64_t word, std::uint64_t first_row, Visit visit) {
  for (; word != 0; word &= word - 1) {
    visit(first_row + static_cast<std::uint64_t>(__builtin_ctzll(word)));
  }
}

// ---- writing ---------------------------------------------------------------------------

void require_name(const std::string& name) {
  const void* text = name.data();
  const bool is_text =
      first_bad_utf8(static_cast<const std::uint8_t*>(text), name.size()) == name.size();
  if (!name.empty() && name.size() <= kMaxSetNameBytes && is_text) return;
  throw Error(ErrorCode::invalid_argument,
              "sets: expected names of 1 to " + shown(kMaxSetNameBytes) +
                  " bytes of UTF-8, got one of " + shown(name.size()) + " bytes");
}

class Writer {
 public:
  explicit Writer(std::uint64_t bytes) : bytes_(bytes) {}
  void put(std::uint64_t at, const void* data, std::uint64_t bytes) {
    if (bytes > 0) std::memcpy(bytes_.data() + at, data, bytes);
  }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

SetEntry entry_for(const NamedRows& set, std::uint64_t offset, std::uint64_t items) {
  SetEntry entry = {};
  entry.offset = offset;
  for (const std::uint64_t word : set.words) entry.count += static_cast<unsigned>(bits_of(word));
  entry.name_bytes = static_cast<std::uint32_t>(set.name.size());
  const bool is_sparse = rows_bytes(SetStorage::list, entry.count, items) <
                         rows_bytes(SetStorage::bitmap, entry.count, items);
  entry.storage = static_cast<std::uint32_t>(is_sparse ? SetStorage::list : SetStorage::bitmap);
  return entry;
}

void put_rows(const NamedRows& set, const SetEntry& entry, std::uint64_t at, Writer& out) {
  if (is(entry.storage, SetStorage::bitmap)) {
    out.put(at, set.words.data(), set.words.size() * sizeof(std::uint64_t));
    return;
  }
  for (std::size_t i = 0; i < set.words.size(); ++i) {
    for_each_bit(set.words[i], i * kWordBits, [&](std::uint64_t row) {
      const std::uint32_t number = static_cast<std::uint32_t>(row);
      out.put(at, &number, kRowBytes);
      at += kRowBytes;
    });
  }
}

}  // namespace

std::vector<std::byte> write_sets(std::vector<NamedRows> sets, std::uint64_t item_count) {
  if (sets.empty()) return {};
  if (sets.size() > kMaxSets) {
    throw Error(ErrorCode::invalid_argument, "sets: expected at most " + shown(kMaxSets) +
                                                 " of them, got " + shown(sets.size()));
  }
  std::sort(sets.begin(), sets.end(),
            [](const NamedRows& a, const NamedRows& b) { return a.name < b.name; });
  std::vector<SetEntry> table;
  std::uint64_t end = sizeof(SetsHeader) + sets.size() * sizeof(SetEntry);
  for (std::size_t i = 0; i < sets.size(); ++i) {
    require_name(sets[i].name);
    if (i > 0 && sets[i].name == sets[i - 1].name) {
      throw Error(ErrorCode::invalid_argument, "sets: the name '" + sets[i].name + "' comes twice");
    }
    table.push_back(entry_for(sets[i], end, item_count));
    const auto storage = static_cast<SetStorage>(table[i].storage);
    end +=
        filled_up(sets[i].name.size()) + filled_up(rows_bytes(storage, table[i].count, item_count));
  }
  Writer out(end);
  const SetsHeader header = {static_cast<std::uint32_t>(sets.size()), 0};
  out.put(0, &header, sizeof header);
  out.put(sizeof header, table.data(), table.size() * sizeof(SetEntry));
  for (std::size_t i = 0; i < sets.size(); ++i) {
    out.put(table[i].offset, sets[i].name.data(), sets[i].name.size());
    put_rows(sets[i], table[i], table[i].offset + filled_up(sets[i].name.size()), out);
  }
  return out.take();
}

// ---- reading ---------------------------------------------------------------------------

SetsView::SetsView(const std::byte* section, std::uint64_t bytes, std::uint64_t item_count,
                   const std::string& index_name)
    : section_(section), item_count_(item_count), index_name_(index_name) {
  if (bytes < sizeof(SetsHeader)) refuse(0, "a header of 8 bytes", shown(bytes) + " bytes");
  const auto header = read_at<SetsHeader>(section);
  if (header.set_count < 1 || header.set_count > kMaxSets || header.reserved != 0) {
    refuse(0, "1 to " + shown(kMaxSets) + " sets and a zero reserved field",
           shown(header.set_count) + " and " + shown(header.reserved));
  }
  std::uint64_t end = sizeof(SetsHeader) + header.set_count * sizeof(SetEntry);
  if (end > bytes) refuse(0, "a table inside the section", shown(header.set_count) + " sets");
  for (std::uint64_t i = 0; i < header.set_count; ++i) {
    const std::uint64_t at = sizeof(SetsHeader) + i * sizeof(SetEntry);
    const auto entry = read_at<SetEntry>(section + at);
    // The name is inside the section before it is read, and the rows before they are.
    const bool has_name = entry.offset == end && entry.name_bytes >= 1 &&
                          entry.name_bytes <= kMaxSetNameBytes &&
                          filled_up(entry.name_bytes) <= bytes - end;
    if (!has_name) {
      refuse(at, "a name of 1 to 255 bytes at " + shown(end) + ", inside the section",
             shown(entry.name_bytes) + " bytes at " + shown(entry.offset));
    }
    Set set = read_entry(entry, i, at);
    end = end_of(set);
    if (end > bytes) refuse(at, "rows inside the section", "an end at " + shown(end));
    sets_.push_back(std::move(set));
  }
  if (end != bytes) refuse(0, "sets up to " + shown(bytes), "the last one ending at " + shown(end));
}

SetsView::Set SetsView::read_entry(const SetEntry& entry, std::uint64_t number,
                                   std::uint64_t at) const {
  if (!is(entry.storage, SetStorage::bitmap) && !is(entry.storage, SetStorage::list)) {
    refuse(at, "storage 1 or 2", shown(entry.storage));
  }
  if (entry.count > item_count_) {
    refuse(at, "at most " + shown(item_count_) + " rows", shown(entry.count));
  }
  const void* text = section_ + entry.offset;
  Set set = {std::string(static_cast<const char*>(text), entry.name_bytes), entry.count,
             static_cast<SetStorage>(entry.storage), entry.offset + filled_up(entry.name_bytes)};
  const void* copied = set.name.data();
  const auto* characters = static_cast<const std::uint8_t*>(copied);
  const std::uint64_t bad = first_bad_utf8(characters, set.name.size());
  if (bad != set.name.size()) {
    refuse(entry.offset + bad, "UTF-8 in the name of set " + shown(number),
           hex(characters + bad, 1));
  }
  if (number > 0 && set.name <= sets_.back().name) {
    refuse(entry.offset, "a name above that of the set before", "another");
  }
  return set;
}

std::uint64_t SetsView::end_of(const Set& set) const noexcept {
  return set.rows_at + filled_up(rows_bytes(set.storage, set.count, item_count_));
}

const SetsView::Set* SetsView::find(std::string_view name) const noexcept {
  const auto place =
      std::lower_bound(sets_.begin(), sets_.end(), name,
                       [](const Set& set, std::string_view sought) { return set.name < sought; });
  return place != sets_.end() && place->name == name ? &*place : nullptr;
}

std::uint64_t SetsView::word_at(std::uint64_t offset) const noexcept {
  return read_at<std::uint64_t>(section_ + offset);
}

std::uint32_t SetsView::row_at(std::uint64_t offset) const noexcept {
  return read_at<std::uint32_t>(section_ + offset);
}

std::vector<std::uint32_t> SetsView::rows_of(const Set& set) const {
  std::vector<std::uint32_t> rows;
  rows.reserve(set.count);
  const auto take = [&](std::uint64_t row, std::uint64_t at) {
    if (row >= item_count_) refuse(at, "a row below " + shown(item_count_), shown(row));
    rows.push_back(static_cast<std::uint32_t>(row));
  };
  if (set.storage == SetStorage::list) {
    for (std::uint64_t i = 0; i < set.count; ++i) {
      const std::uint64_t at = set.rows_at + i * kRowBytes;
      take(row_at(at), at);
    }
    return rows;
  }
  for (std::uint64_t i = 0; i < words_for(item_count_); ++i) {
    const std::uint64_t at = set.rows_at + i * sizeof(std::uint64_t);
    for_each_bit(word_at(at), i * kWordBits, [&](std::uint64_t row) { take(row, at); });
  }
  return rows;
}

// ---- checking --------------------------------------------------------------------------

void SetsView::verify() const {
  for (const Set& set : sets_) {
    const std::uint64_t name_at = set.rows_at - filled_up(set.name.size());
    expect_zeros(name_at + set.name.size(), set.rows_at);
    if (set.storage == SetStorage::bitmap) {
      verify_bitmap(set);
    } else {
      verify_list(set);
    }
    expect_zeros(set.rows_at + rows_bytes(set.storage, set.count, item_count_), end_of(set));
  }
}

void SetsView::verify_bitmap(const Set& set) const {
  const std::uint64_t words = words_for(item_count_);
  std::uint64_t found = 0;
  for (std::uint64_t i = 0; i < words; ++i) {
    const std::uint64_t at = set.rows_at + i * sizeof(std::uint64_t);
    const std::uint64_t word = word_at(at);
    found += static_cast<unsigned>(bits_of(word));
    const std::uint64_t used = item_count_ - i * kWordBits;
    if (used < kWordBits && word >> used != 0) {
      refuse(at, "zeros in the bits after the last row", hex(&word, sizeof word));
    }
  }
  if (found != set.count) refuse(set.rows_at, shown(set.count) + " rows", shown(found));
}

void SetsView::verify_list(const Set& set) const {
  for (std::uint64_t i = 0; i < set.count; ++i) {
    const std::uint64_t at = set.rows_at + i * kRowBytes;
    const std::uint32_t row = row_at(at);
    const bool ascends = i == 0 || row > row_at(at - kRowBytes);
    if (row >= item_count_ || !ascends) {
      refuse(at, "rows ascending below " + shown(item_count_), shown(row));
    }
  }
}

void SetsView::expect_zeros(std::uint64_t begin, std::uint64_t end) const {
  for (std::uint64_t at = begin; at < end; ++at) {
    if (section_[at] != std::byte{0}) refuse(at, "zero padding", hex(section_ + at, 1));
  }
}

void SetsView::refuse(std::uint64_t offset, const std::string& expected,
                      const std::string& found) const {
  damaged(index_name_, "section 'sets', byte " + shown(offset), expected, found);
}

}  // namespace annidx::format
