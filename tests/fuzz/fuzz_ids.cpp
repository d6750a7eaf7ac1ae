// fuzz_ids.cpp owns the comparison of the id table with a plain map: ids come in batches, some of
// them twice, some of the wrong kind, and every batch is taken whole or refused whole.
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "asking.h"
#include "rows/ids.h"

using namespace annidx;
using fuzz::require;

namespace {

// Takes the input apart; zeros when it is used up.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}
  bool empty() const { return at_ == end_; }
  std::uint8_t byte() { return empty() ? 0 : *at_++; }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

template <class Add>
bool taken(const Add& add) {
  return fuzz::answers(add, ErrorCode::invalid_argument);
}

// Few different ids, so that many repeat.
std::int64_t int64_of(std::uint8_t byte) {
  const auto spread = static_cast<std::uint64_t>(byte % 64) * 0x9E3779B97F4A7C15ull;
  return static_cast<std::int64_t>(byte < 128 ? spread : spread >> 60);
}
std::string text_of(std::uint8_t byte) {
  return std::string(byte % 19, static_cast<char>('a' + byte % 2)) + static_cast<char>(byte);
}

// The table under test beside the map that says what it must hold.
class Pair {
 public:
  void add_int64(const std::vector<std::int64_t>& ids) {
    std::set<std::int64_t> all(ids.begin(), ids.end());
    bool fresh = all.size() == ids.size();
    for (const std::int64_t id : all) fresh = fresh && rows_.count(std::to_string(id)) == 0;
    const bool fits = rows_.empty() || kind_ == IdKind::int64;
    const bool was_taken = taken([&] { table_.add_int64(ids.data(), ids.size()); });
    require(was_taken == (fits && fresh), "int64 ids are taken when they are new");
    if (!was_taken) return;
    kind_ = IdKind::int64;
    for (const std::int64_t id : ids) enter(std::to_string(id));
  }

  void add_text(const std::vector<std::string>& ids) {
    std::set<std::string> all(ids.begin(), ids.end());
    bool fresh = all.size() == ids.size();
    for (const std::string& id : all) fresh = fresh && rows_.count(id) == 0;
    const bool fits = rows_.empty() || kind_ == IdKind::text;
    std::string text;
    std::vector<std::uint64_t> offsets{0};
    for (const std::string& id : ids) offsets.push_back((text += id).size());
    const bool was_taken = taken([&] { table_.add_text(text.data(), offsets.data(), ids.size()); });
    require(was_taken == (fits && fresh), "text ids are taken when they are new");
    if (!was_taken) return;
    kind_ = IdKind::text;
    for (const std::string& id : ids) enter(id);
  }

  void compare() const {
    require(table_.size() == rows_.size(), "both hold as many ids");
    if (rows_.empty()) return;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const auto number = int64_of(static_cast<std::uint8_t>(byte));
      const std::string text = text_of(static_cast<std::uint8_t>(byte));
      const bool is_text = kind_ == IdKind::text;
      const auto wanted = rows_.find(is_text ? text : std::to_string(number));
      const Row row = is_text ? table_.find_text(text) : table_.find_int64(number);
      require(row == (wanted == rows_.end() ? kNoRow : wanted->second), "ids lead to their rows");
    }
    std::vector<std::uint32_t> order(rows_.size());
    table_.write_order(order.data());
    require(std::set<std::uint32_t>(order.begin(), order.end()).size() == order.size(),
            "the order of ids is a permutation");
  }

 private:
  void enter(const std::string& id) { rows_.emplace(id, static_cast<Row>(rows_.size())); }

  IdCollector table_;
  std::map<std::string, Row> rows_;
  IdKind kind_ = IdKind::row;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  Pair pair;
  const bool starts_with_text = input.byte() % 2 != 0;
  while (!input.empty()) {
    const unsigned head = input.byte();
    const bool as_text = starts_with_text != (head % 16 == 0);
    std::vector<std::int64_t> numbers;
    std::vector<std::string> texts;
    for (unsigned i = 0; i < 1 + head / 16; ++i) {
      const std::uint8_t byte = input.byte();
      numbers.push_back(int64_of(byte));
      texts.push_back(text_of(byte));
    }
    if (as_text) {
      pair.add_text(texts);
    } else {
      pair.add_int64(numbers);
    }
  }
  pair.compare();
  return 0;
}
