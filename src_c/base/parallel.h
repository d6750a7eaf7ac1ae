// parallel.h owns threads: they are made for one call and joined before it returns. It carries
// the first exception and the caller's wish to stop. It must not know any algorithm.
#pragma once

#include <cstdint>
#include <functional>

namespace annidx {

// The caller's ear during long work. poll() runs on the calling thread only, some ten times a
// second; whatever it throws stops the work and leaves parallel_for.
class Monitor {
 public:
  virtual ~Monitor() = default;
  virtual void poll() = 0;
  // A step of `stage` is done. Called on the calling thread only.
  virtual void progress(const char* stage, std::uint64_t done, std::uint64_t total) = 0;
};

// Calls body(begin, end, worker) for ranges of at most `grain` that tile [0, count), on n_threads
// threads (the calling one among them; worker < n_threads). Ranges start in ascending order. The
// first exception stops the handing out of ranges and is rethrown here once all threads ended.
// `stage` and `monitor` may be null; with both, progress is reported.
void parallel_for(
    unsigned n_threads, std::uint64_t count, std::uint64_t grain,
    const std::function<void(std::uint64_t begin, std::uint64_t end, unsigned worker)>& body,
    Monitor* monitor = nullptr, const char* stage = nullptr);

// A thread's first exception needs a little memory of its own, without which the C library ends the
// process: it is asked for early, while there is some. False when there is none; such a thread must
// not do what may throw.
bool ready_exceptions() noexcept;

// n_jobs when positive, otherwise the machine's cores (the binding resolves -1 to those that this
// process may use).
unsigned thread_count(int n_jobs) noexcept;

}  // namespace annidx
