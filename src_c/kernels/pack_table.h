// pack_table.h owns the tables by which levels without an instruction for it move chosen lanes to
// the front. It must not know what the lanes hold.
#pragma once

#include <cstdint>

namespace annidx {

// from[mask]: of the lanes set in mask, in order, where each of their bytes comes from; then zeros.
template <unsigned kLanes, unsigned kLaneBytes>
struct PackTable {
  std::uint8_t from[1u << kLanes][kLanes * kLaneBytes];
};

template <unsigned kLanes, unsigned kLaneBytes>
constexpr PackTable<kLanes, kLaneBytes> make_pack_table() {
  PackTable<kLanes, kLaneBytes> table{};
  for (unsigned mask = 0; mask < 1u << kLanes; ++mask) {
    unsigned n = 0;
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      if (((mask >> lane) & 1u) == 0) continue;
      for (unsigned byte = 0; byte < kLaneBytes; ++byte) {
        table.from[mask][n++] = static_cast<std::uint8_t>(kLaneBytes * lane + byte);
      }
    }
  }
  return table;
}

}  // namespace annidx
