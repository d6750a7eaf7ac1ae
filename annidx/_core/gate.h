// gate.h owns who may be inside an index at one time: any number of readers, or one caller that
// changes it, and what happens on close and across fork. It must not know Python, nor what the
// calls do. One atomic word, no lock: a query pays two uncontended additions.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "index/index.h"

namespace annidx_binding {

// Counts the forks between the first process and this one, modulo 2^16. Bumped in the child only,
// while it has one thread (os.register_at_fork), so a plain read is enough everywhere.
inline std::uint16_t fork_epoch = 0;

enum class Entry : int {
  entered = 0,
  closed = 1,
  busy = 2,  // someone is (or, for enter_alone, some are) inside: try again later
};

// What the caller inside alone is doing: decides whether others wait or are told off.
enum class Work : int { none = 0, short_change = 1, building = 2 };

class Gate {
 public:
  Gate() noexcept : word_(epoch_bits() | kClosed) {}  // until open()
  ~Gate() { destroy(); }
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;

  // Once, before anyone else knows the gate.
  void open(std::unique_ptr<annidx::Index> index) noexcept {
    index_.store(index.release(), std::memory_order_release);
    word_.fetch_and(~kClosed, std::memory_order_acq_rel);
  }

  Entry enter() noexcept {
    forget_threads_lost_in_fork();
    const std::uint64_t before = word_.fetch_add(kReader, std::memory_order_acq_rel);
    if (!(before & (kClosed | kAlone | kWanted))) return Entry::entered;
    leave();
    return before & kClosed ? Entry::closed : Entry::busy;
  }
  void leave() noexcept {
    const std::uint64_t after = word_.fetch_sub(kReader, std::memory_order_acq_rel) - kReader;
    if ((after & kStateMask) == kClosed) destroy();
    if (has_retired_.load(std::memory_order_relaxed)) free_retired();
  }

  // One who changes the index without keeping others out: at most one at a time. False: another is
  // at it.
  bool begin_change() noexcept {
    forget_threads_lost_in_fork();
    return !changing_.exchange(true, std::memory_order_acquire);
  }
  void end_change() noexcept { changing_.store(false, std::memory_order_release); }
  // Between enter() and leave(), and between begin_change() and end_change(): newcomers find the
  // new index; the one before goes when nobody who may have found it is inside.
  void replace(std::unique_ptr<annidx::Index> next) {
    const std::lock_guard<Retired> lock(retired_);
    retired_.indexes.reserve(retired_.indexes.size() + 1);
    retired_.indexes.emplace_back(index_.exchange(next.release(), std::memory_order_acq_rel));
    has_retired_.store(true, std::memory_order_relaxed);
  }

  // While this is answered with busy, newcomers are kept out, so that the caller's turn comes; one
  // who does not try again must say so by stop_waiting().
  // owner: the calling thread, as the binding numbers threads.
  Entry enter_alone(Work work, unsigned long owner) noexcept {
    forget_threads_lost_in_fork();
    std::uint64_t word = word_.fetch_or(kWanted, std::memory_order_acq_rel) | kWanted;
    if (word & kClosed) {
      stop_waiting();
      return Entry::closed;
    }
    std::uint64_t nobody_inside = epoch_bits() | kWanted;
    if (!word_.compare_exchange_strong(nobody_inside, epoch_bits() | kAlone,
                                       std::memory_order_acq_rel)) {
      return Entry::busy;
    }
    owner_.store(owner, std::memory_order_relaxed);
    work_.store(work, std::memory_order_release);
    return Entry::entered;
  }
  void stop_waiting() noexcept { word_.fetch_and(~kWanted, std::memory_order_acq_rel); }
  void leave_alone() noexcept {
    work_.store(Work::none, std::memory_order_release);
    const std::uint64_t after = word_.fetch_sub(kAlone, std::memory_order_acq_rel) - kAlone;
    if ((after & kStateMask) == kClosed) destroy();
  }
  Work work() const noexcept { return work_.load(std::memory_order_acquire); }
  unsigned long owner() const noexcept { return owner_.load(std::memory_order_relaxed); }

  // New callers are refused; the index goes when the last one inside leaves.
  void close() noexcept {
    forget_threads_lost_in_fork();
    const std::uint64_t after = word_.fetch_or(kClosed, std::memory_order_acq_rel) | kClosed;
    if ((after & kStateMask) == kClosed) destroy();
  }
  bool closed() const noexcept { return word_.load(std::memory_order_acquire) & kClosed; }

  // Valid between enter and leave.
  annidx::Index* index() const noexcept { return index_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::uint64_t kClosed = 1;
  static constexpr std::uint64_t kAlone = 2;
  static constexpr std::uint64_t kWanted = 4;  // someone waits to be alone
  static constexpr std::uint64_t kReader = 8;
  static constexpr int kEpochShift = 48;
  // What tells whether anyone is inside, and closed.
  static constexpr std::uint64_t kStateMask = ((std::uint64_t{1} << kEpochShift) - 1) & ~kWanted;

  static std::uint64_t epoch_bits() noexcept {
    return static_cast<std::uint64_t>(fork_epoch) << kEpochShift;
  }
  // Threads that were inside when the process forked do not exist in the child: their counts are
  // dropped. An index that was being changed at that moment is half-done there: closed, and left
  // alone (its memory is not safe to walk).
  void forget_threads_lost_in_fork() noexcept {
    std::uint64_t word = word_.load(std::memory_order_acquire);
    while ((word >> kEpochShift) != fork_epoch) {
      const bool half_done = word & kAlone;
      const std::uint64_t fresh = epoch_bits() | (half_done ? kClosed : (word & kClosed));
      if (word_.compare_exchange_weak(word, fresh, std::memory_order_acq_rel)) {
        changing_.store(false, std::memory_order_release);
        // A list that was being changed is half-done here: left alone.
        if (!retired_.try_lock()) ::new (&retired_.indexes) Retired::List();
        retired_.unlock();
        if (half_done) index_.store(nullptr, std::memory_order_release);
        return;
      }
    }
  }
  // A late caller that was refused may come here again after the index went: exchange makes that
  // harmless.
  void destroy() noexcept { delete index_.exchange(nullptr, std::memory_order_acq_rel); }

  // Indexes that were replaced. Who finds it locked leaves it to another.
  struct Retired {
    using List = std::vector<std::unique_ptr<annidx::Index>>;
    List indexes;
    std::atomic_flag is_locked = ATOMIC_FLAG_INIT;
    bool try_lock() noexcept { return !is_locked.test_and_set(std::memory_order_acquire); }
    void lock() noexcept {
      while (!try_lock()) std::this_thread::yield();
    }
    void unlock() noexcept { is_locked.clear(std::memory_order_release); }
  };

  // Those that were retired before a moment when nobody was inside are known to nobody.
  void free_retired() noexcept {
    if (!retired_.try_lock()) return;
    Retired::List unknown;
    unknown.swap(retired_.indexes);
    const std::uint64_t inside = word_.load(std::memory_order_acquire) & kStateMask & ~kClosed;
    if (inside != 0) {
      unknown.swap(retired_.indexes);
    } else {
      has_retired_.store(false, std::memory_order_relaxed);
    }
    retired_.unlock();
  }

  std::atomic<std::uint64_t> word_;
  std::atomic<annidx::Index*> index_{nullptr};
  std::atomic<Work> work_{Work::none};
  std::atomic<unsigned long> owner_{0};
  std::atomic<bool> changing_{false};
  std::atomic<bool> has_retired_{false};
  Retired retired_;
};

// Between two tries to enter.
inline void rest() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }

}  // namespace annidx_binding
