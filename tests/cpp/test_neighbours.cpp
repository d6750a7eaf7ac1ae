// Tests of src_c/model/neighbours: lists are sound and sorted, near those of brute force on the
// same rows, exact where everything is compared, and the same for every thread count and
// instruction set; equal points, tiny sets and uneven leaves.
#include "model/neighbours.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "check.h"

using namespace annidx;

namespace {

// Rows as an index keeps them, and the leaves they lie in.
struct Set {
  GraphScore score;
  std::uint32_t dim = 0;
  bool rows_signed = true;
  std::vector<std::uint8_t> rows;
  std::vector<RowScalars> scalars;
  std::vector<Slot> leaf_first;

  std::size_t stride() const { return score == GraphScore::hamming ? (dim + 7) / 8 : dim; }
  std::uint64_t count() const { return rows.size() / stride(); }
  GraphInput input() const {
    GraphInput in;
    in.score = score;
    in.count = count();
    in.dim = dim;
    in.rows = rows.data();
    in.row_stride = stride();
    in.rows_signed = rows_signed;
    in.scalars = scalars.data();
    in.leaf_first = leaf_first.data();
    in.leaf_count = static_cast<std::uint32_t>(leaf_first.size() - 1);
    return in;
  }
  int value(std::size_t slot, std::size_t j) const {
    const std::uint8_t byte = rows[slot * dim + j];
    return rows_signed ? static_cast<std::int8_t>(byte) : byte;
  }
};

const GraphEffort kUsual = list_effort();
const GraphEffort kAll{1'000, 100'000, 100'000, 0, 0, 0};

// Points around centres on a line, so that consecutive ones are near, in leaves of many sizes.
Set make_set(GraphScore score, std::uint32_t dim, bool rows_signed, std::uint32_t count,
             std::uint32_t leaf_points) {
  Set set{score, dim, rows_signed, {}, {}, {}};
  std::mt19937 random(dim + count);
  std::normal_distribution<float> normal;
  std::vector<float> centre(dim);
  for (std::uint32_t i = 0; i < count; ++i) {
    for (float& x : centre) x = 0.995f * centre[&x - centre.data()] + 2.0f * normal(random);
    if (score == GraphScore::hamming) {
      std::vector<std::uint8_t> row(set.stride());
      for (std::uint32_t j = 0; j < dim; ++j) {
        const bool bit = centre[j] + 6.0f * normal(random) > 0.0f;
        row[j / 8] = static_cast<std::uint8_t>(row[j / 8] | bit << (7 - j % 8));
      }
      set.rows.insert(set.rows.end(), row.begin(), row.end());
      continue;
    }
    std::int64_t square = 0;
    for (std::uint32_t j = 0; j < dim; ++j) {
      const float x = centre[j] + 6.0f * normal(random);
      const int low = rows_signed ? -128 : 0;
      const int value = std::clamp(static_cast<int>(x) + (rows_signed ? 0 : 128), low, low + 255);
      set.rows.push_back(static_cast<std::uint8_t>(value));
      square += value * value;
    }
    const float scale = 0.5f + static_cast<float>(i % 7) / 64.0f;
    if (score == GraphScore::dot) {
      set.scalars.push_back({scale, 0.0f});
    } else {
      const float own = rows_signed ? scale : 1.0f;
      set.scalars.push_back({2.0f * own, own * own * static_cast<float>(square)});
    }
  }
  for (std::uint32_t at = 0, turn = 0; at < count; ++turn) {
    set.leaf_first.push_back(at);
    at += turn % 5 == 4 ? 0 : 1 + (turn * 37 + leaf_points) % (2 * leaf_points);
  }
  set.leaf_first.push_back(count);
  return set;
}

// Smaller is nearer.
double distance(const Set& set, std::size_t i, std::size_t j) {
  if (set.score == GraphScore::hamming) {
    int bits = 0;
    for (std::size_t b = 0; b < set.stride(); ++b) {
      bits += __builtin_popcount(set.rows[i * set.stride() + b] ^ set.rows[j * set.stride() + b]);
    }
    return bits;
  }
  if (set.score == GraphScore::manhattan) {
    int sum = 0;
    for (std::uint32_t d = 0; d < set.dim; ++d) sum += std::abs(set.value(i, d) - set.value(j, d));
    return sum;
  }
  double dot = 0.0;
  for (std::uint32_t d = 0; d < set.dim; ++d) dot += set.value(i, d) * set.value(j, d);
  const RowScalars a = set.scalars[i], b = set.scalars[j];
  if (set.score == GraphScore::dot) return -double{b.mult} * dot;
  return double{a.bias} + b.bias - double{a.mult} * b.mult / 2.0 * dot;
}

std::vector<Slot> lists_of(const Set& set, std::uint32_t degree, const GraphEffort& effort,
                           unsigned threads = 1) {
  return find_neighbours(set.input(), degree, effort, threads, nullptr);
}

// Distinct others, as many as there can be, nearest first but for what rounding may turn.
bool is_sound(const Set& set, const std::vector<Slot>& lists, std::uint32_t degree) {
  const std::uint64_t n = set.count();
  for (std::uint64_t i = 0; i < n; ++i) {
    std::set<Slot> seen;
    for (std::uint32_t k = 0; k < degree; ++k) {
      const Slot slot = lists[i * degree + k];
      if (k >= n - 1) {
        if (slot != kNoRow) return false;
        continue;
      }
      if (slot >= n || slot == i || !seen.insert(slot).second) return false;
      if (k == 0) continue;
      const double before = distance(set, i, lists[i * degree + k - 1]);
      const double here = distance(set, i, slot);
      if (before > here + 1e-4 * (std::fabs(before) + std::fabs(here)) + 1e-3) return false;
    }
  }
  return true;
}

// Share of the true neighbours in the lists; of those at equal distance any counts.
double recall(const Set& set, const std::vector<Slot>& lists, std::uint32_t degree) {
  std::uint64_t found = 0, asked = 0;
  for (std::uint64_t i = 0; i < set.count(); i += 7) {
    std::vector<double> all;
    for (std::uint64_t j = 0; j < set.count(); ++j) {
      if (j != i) all.push_back(distance(set, i, j));
    }
    const std::size_t k = std::min<std::size_t>(degree, all.size());
    if (k == 0) continue;
    std::nth_element(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(k - 1), all.end());
    const double bound = all[k - 1] + 1e-4 * std::fabs(all[k - 1]) + 1e-3;
    for (std::size_t r = 0; r < k; ++r) {
      const Slot slot = lists[i * degree + r];
      found += slot != kNoRow && distance(set, i, slot) <= bound;
    }
    asked += k;
  }
  return asked == 0 ? 1.0 : static_cast<double>(found) / static_cast<double>(asked);
}

struct Kind {
  GraphScore score;
  std::uint32_t dim;
  bool rows_signed;
};

const Kind kKinds[] = {{GraphScore::additive, 24, true},   {GraphScore::additive, 100, false},
                       {GraphScore::additive, 1, true},    {GraphScore::additive, 131, true},
                       {GraphScore::dot, 40, true},        {GraphScore::dot, 17, false},
                       {GraphScore::manhattan, 48, false}, {GraphScore::manhattan, 21, true},
                       {GraphScore::hamming, 256, true},   {GraphScore::hamming, 75, true}};

void test_against_brute_force() {
  for (const Kind& kind : kKinds) {
    const Set set = make_set(kind.score, kind.dim, kind.rows_signed, 3000, 300);
    for (std::uint32_t degree : {1u, 16u, 50u}) {
      const std::vector<Slot> all = lists_of(set, degree, kAll);
      CHECK(is_sound(set, all, degree));
      CHECK(recall(set, all, degree) == 1.0);
      const std::vector<Slot> usual = lists_of(set, degree, kUsual);
      CHECK(is_sound(set, usual, degree));
      CHECK(recall(set, usual, degree) > 0.9);
    }
  }
}

// With few near blocks most neighbours are found through others' lists.
void test_rounds_find_more() {
  const Set set = make_set(GraphScore::additive, 32, true, 6000, 100);
  const GraphEffort few{2, 8, 2, 0, 16, 2048};
  GraphEffort more = few;
  double before = recall(set, lists_of(set, 16, few), 16);
  for (more.rounds = 1; more.rounds < 3; ++more.rounds) {
    const std::vector<Slot> lists = lists_of(set, 16, more);
    CHECK(is_sound(set, lists, 16));
    const double after = recall(set, lists, 16);
    CHECK(after > before);
    before = after;
  }
}

void test_threads_and_levels_agree() {
  const Kernels* levels[4];
  const std::size_t count = available_kernels(levels);
  for (const Kind& kind : kKinds) {
    const Set set = make_set(kind.score, kind.dim, kind.rows_signed, 2500, 150);
    std::vector<Slot> expected;
    for (std::size_t i = 0; i < count; ++i) {
      CHECK(force_kernels(levels[i]->name));
      for (unsigned threads : {1u, 2u, 5u}) {
        const std::vector<Slot> lists = lists_of(set, 16, kUsual, threads);
        if (expected.empty()) expected = lists;
        CHECK(lists == expected);
      }
    }
  }
}

void test_tiny_sets() {
  for (const Kind& kind : kKinds) {
    for (std::uint32_t count : {0u, 1u, 2u, 3u, 16u, 17u, 31u, 32u, 33u, 65u}) {
      const Set set = make_set(kind.score, kind.dim, kind.rows_signed, count, 9);
      const std::vector<Slot> lists = lists_of(set, 16, kUsual);
      CHECK(is_sound(set, lists, 16));
      CHECK(recall(set, lists, 16) == 1.0);
    }
  }
}

// All points equal, in one leaf and in many: lists stay full and sound.
void test_equal_points() {
  for (const Kind& kind : kKinds) {
    for (std::uint32_t leaf_points : {20'000u, 400u}) {
      Set set = make_set(kind.score, kind.dim, kind.rows_signed, 20'000, leaf_points);
      for (std::uint64_t i = 1; i < set.count(); ++i) {
        std::copy_n(set.rows.begin(), set.stride(),
                    set.rows.begin() + static_cast<std::ptrdiff_t>(i * set.stride()));
        if (!set.scalars.empty()) set.scalars[i] = set.scalars[0];
      }
      CHECK(is_sound(set, lists_of(set, 16, kUsual), 16));
    }
  }
}

// Extreme bytes: no product or sum may saturate.
void test_extreme_bytes() {
  for (bool rows_signed : {true, false}) {
    Set set = make_set(GraphScore::additive, 515, rows_signed, 300, 60);
    std::mt19937 random(3);
    for (std::uint64_t i = 0; i < set.count(); ++i) {
      std::int64_t square = 0;
      for (std::uint32_t j = 0; j < set.dim; ++j) {
        const bool high = random() % 4 < i % 4;
        set.rows[i * set.dim + j] = rows_signed ? (high ? 0x80 : 0x7F) : (high ? 0xFF : 0);
        square += set.value(i, j) * set.value(i, j);
      }
      set.scalars[i] = {2.0f, static_cast<float>(square)};
    }
    const std::vector<Slot> lists = lists_of(set, 16, kUsual);
    CHECK(is_sound(set, lists, 16));
    CHECK(recall(set, lists, 16) == 1.0);
  }
}

// Squares that overflow: no crash, whatever the lists hold is sound.
void test_overflowing_scalars() {
  Set set = make_set(GraphScore::additive, 24, true, 500, 60);
  for (std::uint64_t i = 0; i < set.count(); i += 3) {
    set.scalars[i] = {3e38f, std::numeric_limits<float>::infinity()};
  }
  for (Slot slot : lists_of(set, 16, kUsual)) CHECK(slot < set.count() || slot == kNoRow);
}

// All points compared: the rows that tell how good lists are.
void test_true_lists() {
  for (GraphScore score :
       {GraphScore::additive, GraphScore::dot, GraphScore::hamming, GraphScore::manhattan}) {
    const Set set = make_set(score, 40, true, 700, 90);
    const GraphInput input = set.input();
    const std::vector<Slot> asked{699, 3, 350};
    const std::vector<Slot> lists = NeighbourFinder::true_lists(input, asked, 9, 2, nullptr);
    for (std::size_t i = 0; i < asked.size(); ++i) {
      std::vector<double> all;
      for (Slot other = 0; other < set.count(); ++other) {
        if (other != asked[i]) all.push_back(distance(set, asked[i], other));
      }
      std::sort(all.begin(), all.end());
      for (std::size_t k = 0; k < 9; ++k) {
        const double found = distance(set, asked[i], lists[i * 9 + k]);
        CHECK(std::fabs(found - all[k]) <= 1e-4 * std::fabs(all[k]) + 1e-3);
      }
    }
  }
}

struct Stop {};

class Stopper : public Monitor {
 public:
  void poll() override { throw Stop{}; }
  void progress(const char*, std::uint64_t, std::uint64_t) override {}
};

void test_can_be_stopped() {
  const Set set = make_set(GraphScore::additive, 128, true, 30'000, 800);
  GraphEffort long_effort = kUsual;
  long_effort.rounds = 50;
  Stopper stopper;
  bool stopped = false;
  try {
    find_neighbours(set.input(), 16, long_effort, 2, &stopper);
  } catch (const Stop&) {
    stopped = true;
  }
  CHECK(stopped);
}

}  // namespace

int main() {
  test_against_brute_force();
  test_rounds_find_more();
  test_tiny_sets();
  test_equal_points();
  test_extreme_bytes();
  test_overflowing_scalars();
  test_true_lists();
  test_can_be_stopped();
  test_threads_and_levels_agree();
  return annidx_test::report();
}
