// asking.h owns how a fuzz target asks: damage is the only excuse for not answering, and a broken
// promise ends the process so that the fuzzer keeps the input.
#pragma once

#include <cstdio>
#include <cstdlib>

#include "base/error.h"

namespace fuzz {

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

// Runs one question and returns whether it was answered. An error with another code than this one
// is a broken promise.
template <class Question>
bool answers(const Question& question, annidx::ErrorCode excuse = annidx::ErrorCode::format) {
  try {
    question();
    return true;
  } catch (const annidx::Error& error) {
    if (error.code() != excuse) std::fprintf(stderr, "%s\n", error.what());
    require(error.code() == excuse, "an error has the code that its cause asks for");
    return false;
  }
}

}  // namespace fuzz
