// failure.cpp owns the words for calls of the operating system that failed.
#include "os/failure.h"

#include <system_error>

#include "base/error.h"

namespace annidx {

std::string described(int os_errno) {
  return std::generic_category().message(os_errno) + " (errno " + std::to_string(os_errno) + ")";
}

void fail(const char* action, const std::string& path, int os_errno) {
  throw Error(os_errno, path,
              std::string("cannot ") + action + " '" + path + "': " + described(os_errno));
}

void fail_because(const char* action, const std::string& path, int os_errno,
                  const std::string& reason) {
  throw Error(os_errno, path,
              std::string("cannot ") + action + " '" + path + "': " + reason + " (errno " +
                  std::to_string(os_errno) + ")");
}

}  // namespace annidx
