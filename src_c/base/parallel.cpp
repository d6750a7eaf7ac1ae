// parallel.cpp owns the threads of one call; see parallel.h.
#include "base/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace annidx {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPollInterval = std::chrono::milliseconds(50);

// Hands out ranges in ascending order and remembers the first failure.
class RangeQueue {
 public:
  RangeQueue(std::uint64_t count, std::uint64_t grain)
      : count_(count), grain_(std::max<std::uint64_t>(grain, 1)) {}

  bool take(std::uint64_t* begin, std::uint64_t* end) noexcept {
    if (stopped_.load(std::memory_order_relaxed)) return false;
    const std::uint64_t start = next_.fetch_add(grain_, std::memory_order_relaxed);
    if (start >= count_) return false;
    *begin = start;
    *end = std::min(count_, start + grain_);
    return true;
  }

  void fail(std::exception_ptr error) noexcept {
    {
      std::lock_guard<std::mutex> hold(mutex_);
      if (!error_) error_ = std::move(error);
    }
    stopped_.store(true, std::memory_order_relaxed);
  }

  void finish(std::uint64_t amount) noexcept { done_.fetch_add(amount, std::memory_order_relaxed); }
  std::uint64_t done() const noexcept { return done_.load(std::memory_order_relaxed); }
  std::uint64_t count() const noexcept { return count_; }
  void rethrow() {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const std::uint64_t count_;
  const std::uint64_t grain_;
  std::atomic<std::uint64_t> next_{0};
  std::atomic<std::uint64_t> done_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::exception_ptr error_;
};

// The helpers' last words: the caller sleeps on it, waking to poll.
class Countdown {
 public:
  void add() {
    std::lock_guard<std::mutex> hold(mutex_);
    ++running_;
  }
  void leave() {
    std::lock_guard<std::mutex> hold(mutex_);
    --running_;
    all_left_.notify_all();
  }
  bool wait_briefly() {
    std::unique_lock<std::mutex> hold(mutex_);
    return all_left_.wait_for(hold, kPollInterval, [this] { return running_ == 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable all_left_;
  unsigned running_ = 0;
};

class Poller {
 public:
  Poller(Monitor* monitor, const char* stage, RangeQueue* queue)
      : monitor_(monitor), stage_(stage), queue_(queue), next_(Clock::now() + kPollInterval) {}

  void poll_when_due() noexcept {
    if (!monitor_ || Clock::now() < next_) return;
    try {
      monitor_->poll();
      if (stage_) monitor_->progress(stage_, queue_->done(), queue_->count());
    } catch (...) {
      queue_->fail(std::current_exception());
      monitor_ = nullptr;
    }
    next_ = Clock::now() + kPollInterval;
  }

 private:
  Monitor* monitor_;
  const char* stage_;
  RangeQueue* queue_;
  Clock::time_point next_;
};

}  // namespace

bool ready_exceptions() noexcept {
  // First room for what the C library keeps of each thread that allocates; then a block as large as
  // what exceptions need, which returns to this thread alone: no other can take it in between.
  constexpr std::size_t kRoomBytes = 4096, kExceptionBytes = 32;
  for (const std::size_t bytes : {kRoomBytes, kExceptionBytes}) {
    void* volatile room = std::malloc(bytes);  // volatile: or the compiler leaves both calls out
    if (!room) return false;
    std::free(room);
  }
  static_cast<void>(std::uncaught_exceptions());
  return true;
}

void parallel_for(unsigned n_threads, std::uint64_t count, std::uint64_t grain,
                  const std::function<void(std::uint64_t, std::uint64_t, unsigned)>& body,
                  Monitor* monitor, const char* stage) {
  if (count == 0) return;
  RangeQueue queue(count, grain);
  Poller poller(monitor, stage, &queue);
  const auto work = [&](unsigned worker, bool is_caller) noexcept {
    std::uint64_t begin = 0, end = 0;
    while (queue.take(&begin, &end)) {
      try {
        body(begin, end, worker);
        queue.finish(end - begin);
      } catch (...) {
        queue.fail(std::current_exception());
      }
      if (is_caller) poller.poll_when_due();
    }
  };

  const std::uint64_t ranges = (count - 1) / std::max<std::uint64_t>(grain, 1) + 1;
  const auto wanted =
      static_cast<unsigned>(std::min<std::uint64_t>(std::max(n_threads, 1u), ranges));
  std::vector<std::thread> helpers;
  Countdown countdown;
  helpers.reserve(wanted);
  for (unsigned worker = 1; worker < wanted; ++worker) {
    countdown.add();
    try {
      helpers.emplace_back([&, worker] {
        if (ready_exceptions()) work(worker, false);
        countdown.leave();
      });
    } catch (...) {
      // The system has no more threads, or no memory for one: fewer do the same work.
      countdown.leave();
      break;
    }
  }
  work(0, true);
  while (!countdown.wait_briefly()) poller.poll_when_due();
  for (std::thread& helper : helpers) helper.join();
  queue.rethrow();
  if (monitor && stage) monitor->progress(stage, count, count);
}

unsigned thread_count(int n_jobs) noexcept {
  if (n_jobs > 0) return static_cast<unsigned>(n_jobs);
  return std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace annidx
