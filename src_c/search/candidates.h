// candidates.h owns what the stages of a query hand on: points with the scores of the latest stage.
// It must not know how they are scored.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "base/types.h"
#include "kernels/kernels.h"

namespace annidx {

// Parallel arrays with room to spare; only the first count() entries mean anything.
class Candidates {
 public:
  std::size_t count() const noexcept { return count_; }
  float* scores() noexcept { return scores_.data(); }
  const float* scores() const noexcept { return scores_.data(); }
  Slot* slots() noexcept { return slots_.data(); }
  const Slot* slots() const noexcept { return slots_.data(); }

  void clear() noexcept { count_ = 0; }
  // Room for `more` candidates behind those there are; kernels that append may write as many.
  Survivors room(std::size_t more) {
    const std::size_t needed = count_ + more;
    if (scores_.size() < needed) {
      scores_.resize(needed * 2);
      slots_.resize(needed * 2);
    }
    return {scores_.data() + count_, slots_.data() + count_};
  }
  // Takes in what was written to room().
  void extend(std::size_t appended) noexcept { count_ += appended; }
  void push(float score, Slot slot) {
    const Survivors end = room(1);
    *end.scores = score;
    *end.slots = slot;
    ++count_;
  }
  void truncate(std::size_t count) noexcept { count_ = std::min(count_, count); }

  // Keeps those that do not exceed a bound near the keep-th best score, and returns it.
  float keep_near_best(std::size_t keep) {
    const float bound = kernels().near_bound(scores_.data(), count_, keep);
    count_ = kernels().compact_at_most(scores_.data(), slots_.data(), count_, bound);
    return bound;
  }
  // Takes one slot out, if it is there; the last takes its place.
  void remove(Slot slot) noexcept {
    const auto end = slots_.begin() + static_cast<std::ptrdiff_t>(count_);
    const auto found = std::find(slots_.begin(), end, slot);
    if (found == end) return;
    --count_;
    const auto at = static_cast<std::size_t>(found - slots_.begin());
    std::swap(slots_[at], slots_[count_]);
    std::swap(scores_[at], scores_[count_]);
  }

 private:
  std::vector<float> scores_;
  std::vector<Slot> slots_;
  std::size_t count_ = 0;
};

}  // namespace annidx
