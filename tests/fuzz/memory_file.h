// memory_file.h owns how fuzz inputs become files: one file in memory that each input replaces, and
// mappings of it that are heap blocks of exactly the file's size, so that AddressSanitizer sees a
// read past either end. file_posix.cpp is compiled with mmap and munmap renamed to the two
// functions here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fuzz {

// Makes the input the content of the file and returns its path, which stays the same.
const std::string& file_holding(const std::uint8_t* data, std::size_t size);

}  // namespace fuzz
