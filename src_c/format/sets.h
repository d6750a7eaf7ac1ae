// sets.h owns the content of the section `sets`: named sets of rows as they lie on disk, and
// reading, checking and writing them. docs/FORMAT.md says the same for people; change both
// together. It must not know slots, indexes or files.
//
// A section is: SetsHeader, SetEntry[set_count], then for each set its name and its rows, each
// filled up with zeros to a multiple of 8 bytes. Sets follow one another in the order of their
// names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "format/format.h"

namespace annidx::format {

struct SetsHeader {
  std::uint32_t set_count;
  std::uint32_t reserved;  // zero
};
static_assert(sizeof(SetsHeader) == kSetsAlignment);

enum class SetStorage : std::uint32_t {
  bitmap = 1,  // u64[(item_count + 63) / 64]: bit r % 64 of word r / 64 is row r
  list = 2,    // u32[count]: rows, ascending
};

struct SetEntry {
  std::uint64_t offset;  // of the name, from the start of the section
  std::uint64_t count;   // rows in the set
  std::uint32_t name_bytes;
  std::uint32_t storage;  // SetStorage
};
static_assert(sizeof(SetEntry) == 24);

// Bounds what opening reads of a hostile section.
inline constexpr std::uint32_t kMaxSets = 4096;
inline constexpr std::uint32_t kMaxSetNameBytes = 255;

// A set to be written: bit r % 64 of word r / 64 is row r; as many words as the items need.
struct NamedRows {
  std::string name;
  std::vector<std::uint64_t> words;
};

// The content of the section, in whatever order the sets are given; nothing for no sets. Throws
// Error(invalid_argument) for a name that is empty, too long, given twice or not UTF-8, and for too
// many sets.
std::vector<std::byte> write_sets(std::vector<NamedRows> sets, std::uint64_t item_count);

// The sets of a section. Names and places are copies, made before they were checked; rows are
// looked at in memory that others keep alive and that may hold anything.
class SetsView {
 public:
  struct Set {
    std::string name;
    std::uint64_t count = 0;
    SetStorage storage = SetStorage::list;
    std::uint64_t rows_at = 0;  // from the start of the section
  };

  SetsView() = default;  // no sets
  // Checks table and names, in time proportional to their size. `index_name` opens messages. Throws
  // Error(format).
  SetsView(const std::byte* section, std::uint64_t bytes, std::uint64_t item_count,
           const std::string& index_name);

  const std::vector<Set>& sets() const noexcept { return sets_; }
  const Set* find(std::string_view name) const noexcept;  // nullptr when there is none
  // The rows of a set, ascending unless the section is damaged, each below item_count; at most
  // item_count of them. Throws Error(format) at another one.
  std::vector<std::uint32_t> rows_of(const Set& set) const;
  // Every promise of the section that opening does not check. Throws Error(format).
  void verify() const;

 private:
  Set read_entry(const SetEntry& entry, std::uint64_t number, std::uint64_t offset) const;
  std::uint64_t end_of(const Set& set) const noexcept;
  void verify_bitmap(const Set& set) const;
  void verify_list(const Set& set) const;
  void expect_zeros(std::uint64_t begin, std::uint64_t end) const;
  std::uint64_t word_at(std::uint64_t offset) const noexcept;
  std::uint32_t row_at(std::uint64_t offset) const noexcept;
  [[noreturn]] void refuse(std::uint64_t offset, const std::string& expected,
                           const std::string& found) const;

  const std::byte* section_ = nullptr;
  std::uint64_t item_count_ = 0;
  std::string index_name_;
  std::vector<Set> sets_;
};

}  // namespace annidx::format
