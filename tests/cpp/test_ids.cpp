// Tests of src_c/rows/ids: ids to rows and back, all-or-nothing adds, damaged sections, sets of
// slots. Build: g++ -std=c++17 -g -fsanitize=address,undefined -Isrc_c tests/cpp/test_ids.cpp
// src_c/rows/ids.cpp
#include "rows/ids.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "check.h"

using namespace annidx;
using namespace annidx_test;

namespace {

struct Texts {
  std::string bytes;
  std::vector<std::uint64_t> offsets{0};
  explicit Texts(const std::vector<std::string>& ids) {
    for (const std::string& id : ids) {
      bytes += id;
      offsets.push_back(bytes.size());
    }
  }
  void add_to(IdCollector* ids) const {
    ids->add_text(bytes.data(), offsets.data(), offsets.size() - 1);
  }
};

// The sections that a collector writes, and the view over them.
struct Sections {
  std::vector<std::int64_t> int64_ids;
  std::vector<std::uint32_t> order;
  std::vector<std::uint64_t> offsets;
  std::vector<std::byte> text;
  IdsView view;

  explicit Sections(const IdCollector& ids) {
    const std::uint64_t n = ids.size();
    view.kind = ids.kind();
    view.count = n;
    if (ids.kind() == IdKind::int64) {
      int64_ids.resize(n);
      ids.write_int64(int64_ids.data());
    }
    if (ids.kind() == IdKind::text) {
      offsets.resize(n + 1);
      text.resize(ids.text_bytes());
      ids.write_text(offsets.data(), text.data());
    }
    if (ids.kind() != IdKind::row) {
      order.resize(n);
      ids.write_order(order.data());
    }
    view.int64_ids = int64_ids.data();
    view.order = order.data();
    view.text_offsets = offsets.data();
    view.text = reinterpret_cast<const char*>(text.data());
    view.text_bytes = text.size();
  }
};

void test_implicit() {
  IdCollector ids;
  CHECK(ids.find_int64(0) == kNoRow);
  CHECK(ids.find_text("0") == kNoRow);
  ids.add_implicit(0);
  ids.add_implicit(3);
  ids.add_implicit(4);
  CHECK(ids.kind() == IdKind::row && ids.size() == 7);
  CHECK(ids.find_int64(6) == 6 && ids.find_int64(7) == kNoRow && ids.find_int64(-1) == kNoRow);
  CHECK(ids.find_int64(std::int64_t{1} << 40) == kNoRow);
  const Sections sections(ids);
  CHECK(sections.view.find_int64(6) == 6 && sections.view.find_int64(7) == kNoRow);
  CHECK(sections.view.find_int64(-1) == kNoRow && sections.view.find_text("1") == kNoRow);
  CHECK(sections.view.int64_of(5) == 5);
}

void test_int64() {
  IdCollector ids;
  const std::int64_t lowest = std::numeric_limits<std::int64_t>::min();
  const std::int64_t highest = std::numeric_limits<std::int64_t>::max();
  const std::vector<std::int64_t> given{17, -1, 0, highest, lowest, 5};
  ids.add_int64(given.data(), given.size());
  CHECK(ids.size() == 6 && ids.kind() == IdKind::int64);
  const Sections sections(ids);
  for (Row row = 0; row < given.size(); ++row) {
    CHECK(ids.find_int64(given[row]) == row);
    CHECK(sections.view.find_int64(given[row]) == row);
    CHECK(sections.view.int64_of(row) == given[row]);
  }
  CHECK(ids.find_int64(1) == kNoRow && sections.view.find_int64(1) == kNoRow);
  CHECK(ids.find_text("17") == kNoRow && sections.view.find_text("17") == kNoRow);
  CHECK((sections.order == std::vector<std::uint32_t>{4, 1, 2, 5, 0, 3}));
}

void test_text() {
  IdCollector ids;
  const std::vector<std::string> given{
      "b",         "",        "a",        std::string("a\0b", 3), "\xC3\xA9t\xC3\xA9", "abcdefgh",
      "abcdefghi", "abcdefg", "abcdefgh2"};
  Texts(given).add_to(&ids);
  CHECK(ids.size() == given.size() && ids.kind() == IdKind::text);
  Sections sections(ids);
  for (Row row = 0; row < given.size(); ++row) {
    CHECK(ids.find_text(given[row]) == row);
    CHECK(sections.view.find_text(given[row]) == row);
    CHECK(sections.view.text_of(row) == given[row]);
  }
  for (std::size_t i = 1; i < given.size(); ++i) {
    CHECK(given[sections.order[i - 1]] < given[sections.order[i]]);
  }
  CHECK(ids.find_text("c") == kNoRow && sections.view.find_text("c") == kNoRow);
  CHECK(ids.find_int64(0) == kNoRow && sections.view.find_int64(0) == kNoRow);
  // Offsets need not start at zero.
  const char* text = "xxhelloworld";
  const std::uint64_t offsets[] = {2, 7, 12};
  ids.add_text(text, offsets, 2);
  CHECK(ids.find_text("hello") == given.size() && ids.find_text("world") == given.size() + 1);
}

void test_all_or_nothing() {
  IdCollector ids;
  std::vector<std::int64_t> first{10, 11, 12, 13, 14, 17};
  ids.add_int64(first.data(), first.size());
  const std::vector<std::int64_t> present{20, 21, 22, 17};
  CHECK(error_of(ErrorCode::invalid_argument, [&] { ids.add_int64(present.data(), 4); }) ==
        "ids[3]: id 17 is already in the index (row 5)");
  const std::vector<std::int64_t> repeated{20, 21, 20};
  CHECK(error_of(ErrorCode::invalid_argument, [&] { ids.add_int64(repeated.data(), 3); }) ==
        "ids[2] repeats ids[0] (id 20)");
  CHECK(ids.size() == 6 && ids.find_int64(20) == kNoRow && ids.find_int64(17) == 5);
  ids.add_int64(repeated.data(), 2);
  CHECK(ids.size() == 8 && ids.find_int64(20) == 6 && ids.find_int64(21) == 7);

  IdCollector texts;
  const Texts twice({"a", "b", "abc", "c", "d", "e", "f", "abc"});
  CHECK(error_of(ErrorCode::invalid_argument, [&] { twice.add_to(&texts); }) ==
        "ids[7] repeats ids[2] (id 'abc')");
  CHECK(texts.size() == 0 && texts.text_bytes() == 0 && texts.find_text("a") == kNoRow);
  // A failed first add leaves the kind open.
  texts.add_int64(first.data(), 1);
  CHECK(texts.kind() == IdKind::int64 && texts.find_int64(10) == 0);

  IdCollector long_ids;
  const std::string long_id = std::string(59, 'x') + "\xC3\xA9" + std::string(30, 'y');
  Texts({long_id}).add_to(&long_ids);
  CHECK(error_of(ErrorCode::invalid_argument, [&] { Texts({long_id}).add_to(&long_ids); }) ==
        "ids[0]: id '" + std::string(59, 'x') + "...' is already in the index (row 0)");
}

void test_kinds_do_not_mix() {
  const std::int64_t one = 1;
  IdCollector implicit;
  implicit.add_implicit(2);
  CHECK(!error_of(ErrorCode::invalid_argument, [&] { implicit.add_int64(&one, 1); }).empty());
  CHECK(!error_of(ErrorCode::invalid_argument, [&] { Texts({"a"}).add_to(&implicit); }).empty());
  CHECK(implicit.size() == 2);
  IdCollector numbers;
  numbers.add_int64(&one, 1);
  const std::string message =
      error_of(ErrorCode::invalid_argument, [&] { Texts({"a"}).add_to(&numbers); });
  CHECK(message.find("int64 ids") != std::string::npos &&
        message.find("str ids") != std::string::npos);
  CHECK(!error_of(ErrorCode::invalid_argument, [&] { numbers.add_implicit(1); }).empty());
  numbers.add_implicit(0);
  CHECK(numbers.size() == 1);
  CHECK(!error_of(ErrorCode::invalid_argument, [&] {
           IdCollector full;
           full.add_implicit(kMaxItems);
           full.add_implicit(1);
         }).empty());
}

void test_release() {
  IdCollector ids;
  const std::int64_t given[] = {3, 4};
  ids.add_int64(given, 2);
  ids.release_memory();
  CHECK(ids.size() == 2 && ids.kind() == IdKind::int64 && ids.find_int64(3) == kNoRow);
}

// A model (unordered_map) beside the collector through random adds, good and bad.
template <class Id, class Make, class Add, class Find>
void compare_with_model(const Make& make, const Add& add, const Find& find, std::uint32_t seed) {
  std::mt19937 random(seed);
  IdCollector ids;
  std::unordered_map<Id, Row> model;
  std::vector<Id> by_row;
  for (int round = 0; round < 300; ++round) {
    std::vector<Id> batch;
    std::set<Id> seen;
    bool good = true;
    const std::size_t size = random() % 40;
    for (std::size_t i = 0; i < size; ++i) {
      batch.push_back(make(random() % 20000));
      good = good && seen.insert(batch.back()).second && model.count(batch.back()) == 0;
    }
    const bool refused = !error_of(ErrorCode::invalid_argument, [&] { add(&ids, batch); }).empty();
    CHECK(refused == !good);
    if (good) {
      for (const Id& id : batch) {
        model.emplace(id, static_cast<Row>(by_row.size()));
        by_row.push_back(id);
      }
    }
  }
  CHECK(ids.size() == by_row.size());
  const Sections sections(ids);
  bool all_found = true;
  for (std::uint32_t i = 0; i < 20000; ++i) {
    const Id id = make(i);
    const auto at = model.find(id);
    const Row expected = at == model.end() ? kNoRow : at->second;
    all_found = all_found && find(ids, id) == expected && find(sections.view, id) == expected;
  }
  CHECK(all_found);
  bool sorted = true;
  for (std::size_t i = 1; i < by_row.size(); ++i) {
    sorted = sorted && by_row[sections.order[i - 1]] < by_row[sections.order[i]];
  }
  CHECK(sorted);
}

struct Find {
  template <class Ids>
  Row operator()(const Ids& ids, std::int64_t id) const {
    return ids.find_int64(id);
  }
  template <class Ids>
  Row operator()(const Ids& ids, const std::string& id) const {
    return ids.find_text(id);
  }
};

void test_against_model() {
  for (std::uint32_t seed = 1; seed <= 3; ++seed) {
    compare_with_model<std::int64_t>(
        [](std::uint32_t i) { return (static_cast<std::int64_t>(i) - 10000) * 1000003; },
        [](IdCollector* ids, const std::vector<std::int64_t>& batch) {
          ids->add_int64(batch.data(), batch.size());
        },
        Find(), seed);
    compare_with_model<std::string>(
        [](std::uint32_t i) { return "spotify:track:" + std::to_string(i * 7919u); },
        [](IdCollector* ids, const std::vector<std::string>& batch) { Texts(batch).add_to(ids); },
        Find(), seed);
  }
}

void test_damaged_sections() {
  IdCollector numbers;
  const std::int64_t given[] = {30, 10, 20};
  numbers.add_int64(given, 3);
  Sections sections(numbers);
  sections.order[1] = 3;
  CHECK(error_of(ErrorCode::format, [&] { sections.view.find_int64(10); }) ==
        "damaged file: id_order[1] is row 3, but there are 3 items");
  sections.order = {0, 0, 0};
  CHECK(sections.view.find_int64(10) == kNoRow);

  IdCollector texts;
  Texts({"one", "two", "three"}).add_to(&texts);
  const auto damaged = [&](std::size_t at, std::uint64_t offset) {
    Sections copy(texts);
    copy.offsets[at] = offset;
    return error_of(ErrorCode::format, [&] {
      for (Row row = 0; row < 3; ++row) copy.view.text_of(row);
    });
  };
  CHECK(!damaged(1, 100).empty());
  CHECK(!damaged(2, 1).empty());
  CHECK(!damaged(3, 12).empty());
  CHECK(!damaged(3, std::numeric_limits<std::uint64_t>::max()).empty());
  CHECK(damaged(1, 2).empty());
}

void test_slot_sets() {
  for (const std::uint64_t n : {0u, 1u, 63u, 64u, 65u, 127u, 128u, 1000u}) {
    std::mt19937 random(static_cast<std::uint32_t>(n));
    SlotSet set(n), other(n);
    std::vector<bool> model(n), other_model(n);
    for (std::uint64_t i = 0; i < n; ++i) {
      const Slot slot = static_cast<Slot>(random() % n);
      set.insert(slot);
      model[slot] = true;
      const Slot taken = static_cast<Slot>(random() % n);
      set.erase(taken);
      model[taken] = false;
      const Slot second = static_cast<Slot>(random() % n);
      other.insert(second);
      other_model[second] = true;
    }
    const auto same = [&](const SlotSet& got, const std::vector<bool>& expected) {
      std::vector<Slot> slots;
      for (Slot s = 0; s < n; ++s) {
        if (got.contains(s) != expected[s]) return false;
        if (expected[s]) slots.push_back(s);
      }
      for (std::uint64_t first = 0; first <= n; first += 7) {
        for (std::uint64_t length = 0; first + length <= n; length += 13) {
          const auto begin = expected.begin() + static_cast<std::ptrdiff_t>(first);
          if (got.count_range(first, length) !=
              static_cast<std::uint64_t>(
                  std::count(begin, begin + static_cast<std::ptrdiff_t>(length), true))) {
            return false;
          }
        }
      }
      // Past slot_count every bit, the spare word's too, stays zero.
      const std::uint64_t* words = got.words();
      const std::uint64_t used = (n + 63) / 64;
      if (words[used] != 0) return false;
      if (n % 64 != 0 && words[used - 1] >> n % 64 != 0) return false;
      return got.to_slots() == slots && got.count() == slots.size() &&
             got.count_range(0, n) == slots.size();
    };
    CHECK(set.slot_count() == n);
    CHECK(same(set, model));
    SlotSet both = set, difference = set, opposite = set;
    both.intersect(other);
    difference.subtract(other);
    opposite.complement();
    std::vector<bool> both_model(n), difference_model(n), opposite_model(n);
    for (std::uint64_t s = 0; s < n; ++s) {
      both_model[s] = model[s] && other_model[s];
      difference_model[s] = model[s] && !other_model[s];
      opposite_model[s] = !model[s];
    }
    CHECK(same(both, both_model));
    CHECK(same(difference, difference_model));
    CHECK(same(opposite, opposite_model));
    opposite.complement();
    CHECK(same(opposite, model));
  }
}

}  // namespace

int main() {
  test_implicit();
  test_int64();
  test_text();
  test_all_or_nothing();
  test_kinds_do_not_mix();
  test_release();
  test_against_model();
  test_damaged_sections();
  test_slot_sets();
  return report();
}
