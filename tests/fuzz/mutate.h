// mutate.h owns how inputs for fuzz_index are bred: changes that know the layout of a file, after
// which checksums and sizes are put right, so that what is changed is reached.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fuzz {

// Fixes checksums, identity and file size of what may be an annidx file, in place; leaves anything
// else as it is.
void repair(std::uint8_t* data, std::size_t size);

}  // namespace fuzz
