// names.cpp owns the form of temporary names: ".NAME.PROCESS.COUNT.tmp".
#include "os/names.h"

#include <atomic>
#include <cstdint>

namespace annidx {
namespace {

#if defined(_WIN32)
constexpr const char* kSeparators = "/\\:";
#else
constexpr const char* kSeparators = "/";
#endif
// Bytes of the final name that go into a temporary name, well below any system's limit.
constexpr std::size_t kNameBytes = 100;
constexpr const char* kTemporaryEnd = ".tmp";

// At most kNameBytes of a name, cut between UTF-8 characters: some systems refuse broken ones.
std::string shortened(std::string name) {
  if (name.size() <= kNameBytes) return name;
  std::size_t end = kNameBytes;
  while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xC0u) == 0x80u) --end;
  name.resize(end);
  return name;
}

}  // namespace

std::string name_of(const std::string& path) {
  return path.substr(path.find_last_of(kSeparators) + 1);  // npos + 1 is 0
}

std::string beside(const std::string& path, const std::string& name) {
  return path.substr(0, path.find_last_of(kSeparators) + 1) + name;
}

std::string temporary_prefix(const std::string& destination) {
  return "." + shortened(name_of(destination)) + ".";
}

std::string next_temporary_path(const std::string& destination, long process) {
  static std::atomic<std::uint64_t> counter{0};
  return beside(destination, temporary_prefix(destination) + std::to_string(process) + "." +
                                 std::to_string(counter.fetch_add(1)) + kTemporaryEnd);
}

bool is_temporary_name(const std::string& name, const std::string& prefix) {
  const std::string end = kTemporaryEnd;
  if (name.size() <= prefix.size() + end.size() || name.compare(0, prefix.size(), prefix) != 0 ||
      name.compare(name.size() - end.size(), end.size(), end) != 0) {
    return false;
  }
  const std::string numbers = name.substr(prefix.size(), name.size() - prefix.size() - end.size());
  const std::size_t dot = numbers.find('.');
  const auto is_number = [](const std::string& text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  };
  return dot != std::string::npos && is_number(numbers.substr(0, dot)) &&
         is_number(numbers.substr(dot + 1));
}

}  // namespace annidx
