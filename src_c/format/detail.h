// detail.h owns what the sources of the room `format` share among themselves: sizes, what is
// possible, places and numbers in messages, checksums, the identity. No other room includes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "format/format.h"

namespace annidx::format::detail {

constexpr std::uint64_t ceil_divide(std::uint64_t a, std::uint64_t b) noexcept {
  return a / b + (a % b != 0 ? 1 : 0);
}

// What a size becomes that does not fit in 64 bits.
inline constexpr std::uint64_t kSaturated = std::numeric_limits<std::uint64_t>::max();

constexpr std::uint64_t plus(std::uint64_t a, std::uint64_t b) noexcept {
  return a > kSaturated - b ? kSaturated : a + b;
}

constexpr std::uint64_t aligned(std::uint64_t offset) noexcept {
  return plus(offset, kSectionAlignment - 1) / kSectionAlignment * kSectionAlignment;
}

// Bytes of one sub-quantizer in a block of 32 points.
inline constexpr std::uint64_t kBlockCodeBytes = 16;

// Where the section table of so many entries ends.
constexpr std::uint64_t table_end(std::uint64_t section_count) noexcept {
  return sizeof(FileHeader) + section_count * sizeof(SectionEntry);
}

// Compares a number as stored, which may be none of the enum's values.
template <class Enum>
constexpr bool is(std::uint32_t stored, Enum value) noexcept {
  return stored == static_cast<std::uint32_t>(value);
}

constexpr std::uint32_t number(Section kind) noexcept { return static_cast<std::uint32_t>(kind); }
inline constexpr std::uint32_t kLastKnownKind = number(Section::sets);

template <class T>
T* as(std::byte* bytes) noexcept {
  return static_cast<T*>(static_cast<void*>(bytes));
}

// ---- what is possible ------------------------------------------------------------------

// The first thing wrong with a set of fields, as "field 'x': expected ..., found ...".
struct Problem {
  std::string field;
  std::string expected;
  std::string found;
  explicit operator bool() const noexcept { return !field.empty(); }
};

// The header fields that decide, with Params, which sections there are and their sizes.
struct Shape {
  std::uint32_t kind;
  std::uint32_t metric;
  std::uint32_t dtype;
  std::uint32_t dim;
  std::uint64_t item_count;
};

Problem problem_of(const Shape& shape);
Problem problem_of(const Shape& shape, const Params& params);  // of a shape without a problem

// What an image of this shape holds, in file order. Sizes that do not fit in 64 bits are
// kSaturated.
std::vector<PlannedSection> sections_of(const Shape& shape, const Params& params,
                                        const TextBytes& texts);

// ---- messages --------------------------------------------------------------------------

std::string hex(const void* data, std::size_t bytes);  // "0a ff"
std::string hex32(std::uint32_t value);                // "0x00000aff"

template <class T>
std::string shown(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    char text[40];
    std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
    return text;
  } else {
    return std::to_string(value);
  }
}

std::string header_place(const char* field, std::size_t offset);
std::string section_place(const SectionEntry& entry);

// "<name> is damaged: <where>: expected ..., found ..."
[[noreturn]] void damaged(const std::string& name, const std::string& where,
                          const std::string& expected, const std::string& found);

// ---- bytes -----------------------------------------------------------------------------

// The first entry of this kind in a table of so many entries, or nullptr.
const SectionEntry* find_entry(const SectionEntry* table, std::uint64_t count,
                               Section kind) noexcept;

// CRC-32C of the header, its own checksum taken as zero, and of the table.
std::uint32_t header_checksum(FileHeader header, const SectionEntry* table) noexcept;

// CRC-32C of [offset, offset + bytes) of the image, telling `progress` after each step.
std::uint32_t checksum(const std::byte* image, std::uint64_t offset, std::uint64_t bytes,
                       const Progress& progress);

// The identity of the model in an image whose sections are in place: of what `encode` reads.
void compute_model_identity(const FileHeader& header, const SectionEntry* table,
                            const Params& params, const std::byte* image,
                            std::uint8_t (&out)[16]) noexcept;

// The identity that the header should hold, from its fields, its table and the params.
void compute_identity(const FileHeader& header, const SectionEntry* table, const Params& params,
                      std::uint8_t (&out)[16]) noexcept;

// The first byte that does not belong to valid UTF-8 (no surrogates, no overlong forms), or
// `bytes`.
std::uint64_t first_bad_utf8(const std::uint8_t* text, std::uint64_t bytes) noexcept;

}  // namespace annidx::format::detail
