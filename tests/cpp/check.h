// check.h owns the counting of checks in the C++ tests. A program of tests includes it once; checks
// are made by one thread.
#pragma once

#include <cstdio>
#include <string>

#include "base/error.h"

namespace annidx_test {

inline int passed = 0, failed = 0;

inline void check(bool good, const std::string& what, int line) {
  ++(good ? passed : failed);
  if (!good) std::printf("line %d: %s\n", line, what.c_str());
}

inline void check_in(const std::string& text, const std::string& part, int line) {
  check(text.find(part) != std::string::npos, "expected '" + part + "' in '" + text + "'", line);
}

#define CHECK(condition) annidx_test::check((condition), #condition, __LINE__)
#define CHECK_IN(text, part) annidx_test::check_in((text), (part), __LINE__)

// The message of the Error of this code that `call` throws; "" when it throws none or another.
template <class Call>
std::string error_of(annidx::ErrorCode code, const Call& call) {
  try {
    call();
  } catch (const annidx::Error& error) {
    return error.code() == code ? error.what() : "";
  }
  return "";
}

// Prints the counts; what main returns.
inline int report() {
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace annidx_test
