// error.h owns the one exception type that the core throws and its codes.
// It must not include anything of annidx. The binding (annidx/_core/binding.pyx) is the
// only place that turns an Error into a Python exception, by its code.
#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <utility>

namespace annidx {

enum class ErrorCode : std::uint32_t {
  invalid_argument = 1,  // ValueError: the caller's argument is wrong
  format = 2,            // FormatError: the bytes of a file are wrong
  state = 3,             // StateError: the call does not fit the index's state
  io = 4,                // OSError: os_errno says why, path says where
  memory = 5,            // MemoryError
  not_found = 6,         // KeyError: no such id
  out_of_range = 7,      // IndexError
  interrupted = 8,       // the caller's monitor asked to stop; the binding re-raises what it holds
};

// The message is complete for a person: what was expected, what was found, where.
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  Error(int os_errno, std::string path, std::string message)
      : code_(ErrorCode::io),
        os_errno_(os_errno),
        path_(std::move(path)),
        message_(std::move(message)) {}

  const char* what() const noexcept override { return message_.c_str(); }
  ErrorCode code() const noexcept { return code_; }
  int os_errno() const noexcept { return os_errno_; }  // 0 unless code() is io
  const std::string& path() const noexcept { return path_; }

 private:
  ErrorCode code_;
  int os_errno_ = 0;
  std::string path_;
  std::string message_;
};

}  // namespace annidx
