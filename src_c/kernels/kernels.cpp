// kernels.cpp owns the choice of one kernel level for the process. It must not contain
// arithmetic or intrinsics: those live in this folder.
#include "kernels/kernels.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "kernels/levels.h"

namespace annidx {
namespace {

constexpr std::size_t kCacheLine = 64;
constexpr std::size_t kMaxLevels = 4;

std::atomic<const Kernels*> g_active{nullptr};

const Kernels* find_level(const char* name) noexcept {
  const Kernels* levels[kMaxLevels];
  const std::size_t n = available_kernels(levels);
  for (std::size_t i = 0; i < n; ++i) {
    if (std::strcmp(levels[i]->name, name) == 0) return levels[i];
  }
  return nullptr;
}

const Kernels* best_level() noexcept {
  const Kernels* levels[kMaxLevels];
  return levels[available_kernels(levels) - 1];
}

const Kernels* choose_level() noexcept {
  const char* wanted = std::getenv("ANNIDX_ISA");
  const Kernels* named = wanted != nullptr ? find_level(wanted) : nullptr;
  return named != nullptr ? named : best_level();
}

}  // namespace

const Kernels& kernels() noexcept {
  const Kernels* active = g_active.load(std::memory_order_acquire);
  if (active == nullptr) {
    // Threads that race here all choose the same; a level forced meanwhile is kept.
    const Kernels* chosen = choose_level();
    if (g_active.compare_exchange_strong(active, chosen)) active = chosen;
  }
  return *active;
}

std::size_t available_kernels(const Kernels** out) noexcept {
  const Kernels* tables[kMaxTables];
  const std::size_t n_tables = usable_tables(tables);
  std::size_t n = 0;
  for (std::size_t i = 0; i < n_tables; ++i) {
    // Of the variants with one name, which follow each other, the last is the best.
    const bool same_level = n > 0 && std::strcmp(out[n - 1]->name, tables[i]->name) == 0;
    if (!same_level) ++n;
    out[n - 1] = tables[i];
  }
  return n;
}

bool force_kernels(const char* name) noexcept {
  const Kernels* named = find_level(name);
  if (named == nullptr) return false;
  g_active.store(named, std::memory_order_release);
  return true;
}

void prefetch_l2(const void* data, std::size_t bytes) noexcept {
#if defined(__GNUC__) || defined(__clang__)
  if (data == nullptr) return;  // null cannot be stepped from
  const char* p = static_cast<const char*>(data);
  for (std::size_t i = 0; i < bytes; i += kCacheLine) __builtin_prefetch(p + i, 0, 2);
  // An unaligned range may touch one line more than the steps above do.
  if (bytes != 0) __builtin_prefetch(p + bytes - 1, 0, 2);
#else
  static_cast<void>(data);
  static_cast<void>(bytes);
#endif
}

}  // namespace annidx
