// failure.h owns how a call of the operating system that failed becomes an Error(io). It must not
// make such calls.
#pragma once

#include <string>

namespace annidx {

// What an errno means, and its number.
std::string described(int os_errno);

// "cannot ACTION 'PATH': REASON (errno N)"; the reason is the errno's own unless one is given.
[[noreturn]] void fail(const char* action, const std::string& path, int os_errno);
[[noreturn]] void fail_because(const char* action, const std::string& path, int os_errno,
                               const std::string& reason);

}  // namespace annidx
