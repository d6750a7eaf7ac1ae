// borrowed.cpp owns file images in memory of somebody else. It asks nothing of the system.
#include <utility>

#include "os/file.h"

namespace annidx {
namespace {

class BorrowedMemory final : public Memory {
 public:
  BorrowedMemory(const void* data, std::uint64_t bytes, std::shared_ptr<void> keeper)
      : keeper_(std::move(keeper)) {
    // Not writable_, so that nobody is given a way to write.
    data_ = const_cast<std::byte*>(static_cast<const std::byte*>(data));
    bytes_ = bytes;
  }
  void release(std::uint64_t, std::uint64_t) noexcept override {}

 private:
  std::shared_ptr<void> keeper_;
};

}  // namespace

std::unique_ptr<Memory> borrow(const void* data, std::uint64_t bytes,
                               std::shared_ptr<void> keeper) {
  return std::make_unique<BorrowedMemory>(data, bytes, std::move(keeper));
}

}  // namespace annidx
