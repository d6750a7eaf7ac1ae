// page_keeper.h owns the call by which a query that reads much lets mapped pages be given back,
// where memory is limited. It must not know why.
#pragma once

#include <cstddef>
#include <functional>

namespace annidx {

class PageKeeper {
 public:
  // Between two calls, about so many rows are read.
  static constexpr std::size_t kRows = 64;

  // Null: nothing to do. Must outlive the keeper.
  void set(const std::function<void()>* keep) noexcept { keep_ = keep; }
  bool is_set() const noexcept { return keep_ != nullptr; }
  void keep() const {
    if (keep_) (*keep_)();
  }

 private:
  const std::function<void()>* keep_ = nullptr;
};

}  // namespace annidx
