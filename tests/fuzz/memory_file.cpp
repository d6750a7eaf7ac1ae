// memory_file.cpp owns the file in memory and its mappings; see memory_file.h.
#include "memory_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <set>

namespace {

constexpr std::size_t kPage = 4096;

std::set<void*>& heap_mappings() {
  static std::set<void*> mappings;
  return mappings;
}

[[noreturn]] void give_up() { std::abort(); }

}  // namespace

// Read-only mappings of files become heap blocks; memory without a file stays what it is.
extern "C" void* fuzz_mmap(void* wanted, std::size_t bytes, int access, int flags, int descriptor,
                           off_t offset) {
  if (descriptor < 0) return ::mmap(wanted, bytes, access, flags, descriptor, offset);
  void* place = nullptr;
  if (::posix_memalign(&place, kPage, bytes) != 0) return MAP_FAILED;
  if (::pread(descriptor, place, bytes, offset) != static_cast<ssize_t>(bytes)) give_up();
  heap_mappings().insert(place);
  return place;
}

extern "C" int fuzz_munmap(void* place, std::size_t bytes) {
  if (heap_mappings().erase(place) == 0) return ::munmap(place, bytes);
  std::free(place);
  return 0;
}

namespace fuzz {

const std::string& file_holding(const std::uint8_t* data, std::size_t size) {
  static const int descriptor = ::memfd_create("fuzz", MFD_CLOEXEC);
  static const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  if (::ftruncate(descriptor, static_cast<off_t>(size)) != 0) give_up();
  if (::pwrite(descriptor, data, size, 0) != static_cast<ssize_t>(size)) give_up();
  return path;
}

}  // namespace fuzz
