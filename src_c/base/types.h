// types.h owns the enums and integer types that every room shares.
// Values are explicit because they are written to files; they never change meaning.
#pragma once

#include <cstddef>
#include <cstdint>

namespace annidx {

// Row: position in insertion order. Slot: position in leaf order (as stored in the file).
using Row = std::uint32_t;
using Slot = std::uint32_t;
// One below the largest 32-bit value: kNoRow marks "no neighbour".
inline constexpr std::uint64_t kMaxItems = 0xFFFFFFFEull;
inline constexpr Row kNoRow = 0xFFFFFFFFu;
inline constexpr std::uint32_t kMaxDim = 65535;
// An int8 (-128 included) times it is a finite float. It has a 16-bit significand.
inline constexpr float kLargestValueScale = 0x1.fffep120f;

enum class Metric : std::uint32_t {
  angular = 1,
  cosine = 2,
  euclidean = 3,
  manhattan = 4,
  dot = 5,
  hamming = 6,
};

// How vectors are kept in the file.
enum class Dtype : std::uint32_t {
  float32 = 1,
  float16 = 2,
  int8 = 3,
  uint8 = 4,
  bits = 5,  // packed, most significant bit first
};

// What a caller hands in: rows of C-contiguous elements.
enum class InputType : std::uint32_t {
  float32 = 1,
  float16 = 2,
  int8 = 3,
  uint8 = 4,
  bits = 5,  // packed, most significant bit first
};

enum class IdKind : std::uint32_t {
  row = 0,  // ids are 0..n-1, nothing is stored
  int64 = 1,
  text = 2,  // UTF-8
};

}  // namespace annidx
