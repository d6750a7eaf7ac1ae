// build_lists.cpp owns the neighbour lists of an image: made anew for all points, or those of the
// index that the image continues, mended. See build.h.
#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "base/tuning.h"
#include "index/build_detail.h"
#include "model/neighbours.h"
#include "search/searcher.h"

namespace annidx {
namespace {

// Keeps the image's pages few while others work on it.
class PageKeepingMonitor final : public Monitor {
 public:
  PageKeepingMonitor(Monitor* inner, std::function<void()> keep)
      : inner_(inner), keep_(std::move(keep)) {}
  void poll() override {
    keep_();
    if (inner_) inner_->poll();
  }
  void progress(const char* stage, std::uint64_t done, std::uint64_t total) override {
    if (inner_) inner_->progress(stage, done, total);
  }

 private:
  Monitor* inner_;
  std::function<void()> keep_;
};

template <class Byte>
std::int64_t product(const std::uint8_t* a, const std::uint8_t* b, std::uint32_t dim) noexcept {
  std::int64_t sum = 0;
  for (std::uint32_t j = 0; j < dim; ++j) {
    sum += std::int32_t{static_cast<Byte>(a[j])} * static_cast<Byte>(b[j]);
  }
  return sum;
}

// Squared distance of two slots by their rows of bytes: GraphScore::additive.
float squared_distance(const GraphInput& input, Slot a, Slot b) noexcept {
  const std::uint8_t* row_a = input.rows + a * input.row_stride;
  const std::uint8_t* row_b = input.rows + b * input.row_stride;
  const std::int64_t dot = input.rows_signed ? product<std::int8_t>(row_a, row_b, input.dim)
                                             : product<std::uint8_t>(row_a, row_b, input.dim);
  const RowScalars& x = input.scalars[a];
  const RowScalars& y = input.scalars[b];
  return x.bias + y.bias - x.mult * y.mult * 0.5f * static_cast<float>(dot);
}

// Lists of `degree` slots each, nearest first, kNoRow behind the last.
class MendedLists {
 public:
  MendedLists(const GraphInput& input, std::uint32_t degree)
      : input_(input),
        degree_(degree),
        lists_(input.count * degree, kNoRow),
        is_new_(input.count, 1) {}

  // What is left of the lists of the rows that stay. `slots`: of rows, now.
  void keep(const KeptLists& kept, const std::uint32_t* slots);
  std::vector<Slot> new_slots() const;
  Slot* list_of(Slot slot) noexcept { return &lists_[std::size_t{slot} * degree_]; }
  // Enters a new point in the lists of those in its own.
  void enter(Slot slot);
  std::vector<Slot> take() { return std::move(lists_); }

 private:
  void insert(Slot list, Slot slot);

  const GraphInput& input_;
  std::uint32_t degree_;
  std::vector<Slot> lists_;
  std::vector<std::uint8_t> is_new_;
};

void MendedLists::keep(const KeptLists& kept, const std::uint32_t* slots) {
  const NeighbourLists& before = kept.image->search().neighbours;
  for (std::size_t old = 0; old < kept.rows.size(); ++old) {
    if (kept.rows[old] == kNoRow) continue;
    const Slot now = slots[kept.rows[old]];
    is_new_[now] = 0;
    const std::uint8_t* list = before.of(static_cast<Slot>(old));
    Slot* out = list_of(now);
    std::uint32_t written = 0;
    for (std::uint32_t i = 0; i < before.count && written < degree_; ++i) {
      const Slot other = before.entry(list, i);
      if (other >= kept.rows.size()) break;  // the end, or damage
      if (kept.rows[other] != kNoRow && other != old) out[written++] = slots[kept.rows[other]];
    }
  }
}

std::vector<Slot> MendedLists::new_slots() const {
  std::vector<Slot> slots;
  for (std::size_t slot = 0; slot < is_new_.size(); ++slot) {
    if (is_new_[slot]) slots.push_back(static_cast<Slot>(slot));
  }
  return slots;
}

void MendedLists::insert(Slot list, Slot slot) {
  Slot* entries = list_of(list);
  const float distance = squared_distance(input_, list, slot);
  std::uint32_t used = 0;
  std::uint32_t place = 0;
  for (; used < degree_ && entries[used] != kNoRow; ++used) {
    if (entries[used] == slot) return;
    if (squared_distance(input_, list, entries[used]) <= distance) place = used + 1;
  }
  if (place == degree_) return;
  for (std::uint32_t i = std::min(used, degree_ - 1); i > place; --i) entries[i] = entries[i - 1];
  entries[place] = slot;
}

void MendedLists::enter(Slot slot) {
  for (std::uint32_t i = 0; i < degree_; ++i) {
    const Slot other = list_of(slot)[i];
    if (other == kNoRow) return;
    insert(other, slot);
  }
}

}  // namespace

// New points find their neighbours as queries do; the others' lists lose the points that are gone,
// and take in new ones that are nearer than what they hold.
std::vector<Slot> Build::mended_lists(const GraphInput& input) {
  MendedLists lists(input, params_.neighbour_count);
  lists.keep(*plan_.kept_lists, section<std::uint32_t>(Section::row_slots));
  const std::vector<Slot> fresh = lists.new_slots();
  if (fresh.empty()) return lists.take();
  seal();
  const LoadedImage loaded(borrowed_image(), "the build");
  Request request;
  request.k = params_.neighbour_count;
  request.setting = {tuning::kMendedOpened,
                     tuning::kMendedCandidates,
                     0,
                     tuning::kMendedReranked,
                     2 * request.k,
                     false};
  std::vector<Searcher> searchers(plan_.n_threads);
  parallel_for(
      plan_.n_threads, fresh.size(), 64,
      [&](std::uint64_t begin, std::uint64_t end, unsigned worker) {
        std::vector<float> values(dim_);
        for (std::uint64_t i = begin; i < end; ++i) {
          decode_row(model_.dtype, loaded.stored(fresh[i]), dim_, values.data());
          for (float& value : values) value *= model_.value_scale;
          Request own = request;
          own.excluded = fresh[i];
          Slot* list = lists.list_of(fresh[i]);
          for (const Neighbour& n : searchers[worker].run(loaded.search(), values.data(), own)) {
            *list++ = n.slot;
          }
        }
      },
      plan_.monitor, "lists");
  for (const Slot slot : fresh) lists.enter(slot);
  return lists.take();
}

// The nearest others of each point, by the rows of bytes that re-ranking reads.
void Build::make_lists() {
  const Partition& tree = first_tree();
  std::vector<Slot> leaf_first;
  for (const std::uint64_t first : tree.first) {
    if (leaf_first.empty() || leaf_first.back() < first) {
      leaf_first.push_back(static_cast<Slot>(first));
    }
  }
  GraphInput input;
  input.score = GraphScore::additive;
  input.count = items_;
  input.dim = dim_;
  input.rows = section<std::uint8_t>(has_byte_copies() ? Section::byte_rows : Section::vectors);
  input.row_stride = dim_;
  input.rows_signed = has_byte_copies() || model_.dtype == Dtype::int8;
  input.scalars = section<RowScalars>(Section::row_scalars);
  input.leaf_first = leaf_first.data();
  input.leaf_count = static_cast<std::uint32_t>(leaf_first.size() - 1);
  std::vector<Slot> lists;
  if (plan_.kept_lists) {
    lists = mended_lists(input);
  } else {
    PageKeepingMonitor monitor(plan_.monitor, [this] { keep_image_small(); });
    lists =
        find_neighbours(input, params_.neighbour_count, list_effort(), plan_.n_threads, &monitor);
  }
  auto* out = section<std::uint8_t>(Section::neighbours);
  for (std::size_t i = 0; i < lists.size(); ++i) {
    std::memcpy(out + i * params_.neighbour_bytes, &lists[i], params_.neighbour_bytes);
  }
  keep_image_small();
}

}  // namespace annidx
