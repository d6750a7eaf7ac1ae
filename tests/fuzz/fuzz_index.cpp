// fuzz_index.cpp owns what is asked of an annidx file that may hold anything: everything the Python
// face can ask of it. It must be refused as damaged or answer; and one that verify() accepts must
// answer without an error.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "asking.h"
#include "format/format.h"
#include "index/index.h"
#include "memory_file.h"
#include "rows/ids.h"

using namespace annidx;
using fuzz::answers;
using fuzz::require;

namespace {

constexpr std::uint32_t kLargestK = 300;

// A row of numbers from -1 to 1 that depends on the seed only, times `size`.
std::vector<float> floats(std::uint32_t dim, std::uint32_t seed, float size) {
  std::vector<float> values(dim);
  std::uint32_t state = seed * 2654435761u + 1;
  for (float& value : values) {
    state = state * 1664525u + 1013904223u;
    value = (static_cast<float>(state >> 8) / 8388608.0f - 1.0f) * size;
  }
  return values;
}

class Interview {
 public:
  explicit Interview(const Index& index)
      : index_(index), items_(index.items()), is_bits_(index.metric() == Metric::hamming) {}

  // Whether every question was answered.
  bool run() {
    bool all = answers([&] { index_.info(); });
    all &= answers([&] { index_.metadata(); });
    all &= ask_settings();
    all &= ask_filters();
    all &= ask_sizes();
    all &= ask_sets();
    if (items_ > 0) all &= ask_items();
    return all;
  }

 private:
  std::vector<std::byte> query(std::uint32_t seed, float size) const {
    std::vector<std::byte> bytes(index_.query_bytes());
    if (is_bits_) {
      for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<std::byte>((seed * 40503u + i * 2654435761u) >> 7);
      }
      return bytes;
    }
    const std::vector<float> values = floats(index_.dim(), seed, size);
    std::copy_n(static_cast<const std::byte*>(static_cast<const void*>(values.data())),
                bytes.size(), bytes.begin());
    return bytes;
  }

  QueryOptions options(std::uint64_t k) const {
    QueryOptions options;
    options.k = static_cast<std::uint32_t>(std::min({k, items_, std::uint64_t{kLargestK}}));
    return options;
  }

  bool ask(const std::vector<std::byte>& values, const QueryOptions& options) {
    return answers([&] {
      ids_.assign(options.k, -2);
      distances_.assign(options.k, 0.0);
      index_.query(values.data(), 1, options, ids_.data(), distances_.data());
      check_answer(options);
    });
  }

  // Ids or -1 at the end; only a damaged number is out of order, and only an absent one NaN.
  void check_answer(const QueryOptions& options) const {
    bool ended = false;
    for (std::uint32_t i = 0; i < options.k; ++i) {
      const bool any_id = index_.id_kind() == IdKind::int64;
      require(any_id || ids_[i] != -2, "every place of an answer is written");
      const bool absent = std::isnan(distances_[i]) && ids_[i] == -1;
      require(absent || !ended, "absent places stand at the end");
      ended = absent;
      if (!any_id && !absent) {
        require(ids_[i] >= 0 && static_cast<std::uint64_t>(ids_[i]) < items_, "answers are rows");
      }
    }
  }

  // Named sets, and what a file that has them again would hold.
  bool ask_sets() {
    std::vector<Index::NamedSet> named;
    bool all = answers([&] { named = index_.named_sets(); });
    for (const Index::NamedSet& set : named) {
      SlotSet bits(items_);
      all &= answers([&] {
        require(index_.read_set(set.name, &bits), "a set that has a name is there");
        index_.encoded_sets({set.name}, {&bits});
      });
    }
    return all;
  }

  bool ask_settings() {
    bool all = true;
    for (const double recall : {0.0, 0.3, 0.99, 1.0}) {
      QueryOptions how = options(10);
      how.recall = recall;
      all &= ask(query(1, 1.0f), how);
    }
    for (const std::uint64_t search_k : {std::uint64_t{1}, std::uint64_t{64}, items_ + 1}) {
      QueryOptions how = options(search_k == 1 ? 1 : kLargestK);
      how.search_k = search_k;
      all &= ask(query(2, 100.0f), how);
    }
    QueryOptions exact = options(5);
    exact.exact = true;
    all &= ask(query(3, 1.0f), exact);
    for (const double radius : {-1.0, 0.7, 1e9}) {
      QueryOptions how = options(20);
      how.has_radius = true;
      how.radius = radius;
      all &= ask(query(4, 1.0f), how);
    }
    return all;
  }

  bool ask_filters() {
    SlotSet half(items_), few(items_), none(items_);
    for (std::uint64_t slot = 0; slot < items_; ++slot) {
      if (slot % 2 == 0) half.insert(static_cast<Slot>(slot));
      if (slot % 37 == 0) few.insert(static_cast<Slot>(slot));
    }
    bool all = true;
    for (const SlotSet* set : {&half, &few, &none}) {
      QueryOptions how = options(10);
      how.eligible = &set;
      how.eligible_count = 1;
      all &= ask(query(5, 1.0f), how);
    }
    return all;
  }

  // Queries of any finite size.
  bool ask_sizes() {
    bool all = true;
    for (const float size : {0.0f, 1e-38f, 1e30f, std::numeric_limits<float>::max()}) {
      all &= ask(query(6, size), options(10));
    }
    return all;
  }

  bool ask_items() {
    bool all = true;
    const Row last = static_cast<Row>(items_ - 1);
    std::vector<std::byte> vector(std::max<std::uint64_t>(index_.query_bytes(), 4 * index_.dim()));
    for (const Row row : {Row{0}, static_cast<Row>(items_ / 2), last}) {
      all &= answers([&] { index_.vectors(&row, 1, vector.data()); });
      all &= answers([&] { index_.stored_vectors(&row, 1, vector.data()); });
      all &= answers([&] { index_.distance(row, last); });
      all &= answers([&] { ask_id(row); });
      all &= answers([&] {
        const QueryOptions how = options(10);
        ids_.assign(how.k, -2);
        distances_.assign(how.k, 0.0);
        index_.query_rows(&row, 1, false, how, ids_.data(), distances_.data());
      });
    }
    return all;
  }

  void ask_id(Row row) const {
    if (index_.id_kind() == IdKind::text) {
      const std::string id(index_.text_id_of(row));
      index_.find(std::string_view(id));
      index_.find(std::string_view("no such id"));
    } else {
      const std::int64_t id = index_.id_of(row);
      for (const std::int64_t wanted : {id, id + (id < 0 ? 1 : -1), std::int64_t{-1}}) {
        index_.find(wanted);
      }
    }
  }

  const Index& index_;
  const std::uint64_t items_;
  const bool is_bits_;
  std::vector<std::int64_t> ids_;
  std::vector<double> distances_;
};

struct BytesKept final : ByteSink {
  void append(const void* data, std::uint64_t count) override {
    const auto* first = static_cast<const std::byte*>(data);
    bytes.insert(bytes.end(), first, first + count);
  }
  std::vector<std::byte> bytes;
};

// Measuring recall reads an index in its own way, and gives it another image.
bool tunes(Index* index, bool is_sound) {
  if (index->items() > 256) return true;
  std::vector<float> queries = floats(3 * index->dim(), 7, 1.0f);
  if (!answers([&] { index->tune(queries.data(), 3, 2, 1, nullptr); })) return false;
  return answers([&] {
    BytesKept image;
    index->write(&image, index->metadata(), index->encoded_sets(), nullptr);
    const std::unique_ptr<Index> tuned =
        Index::from_bytes(image.bytes.data(), image.bytes.size(), nullptr);
    if (is_sound) tuned->verify();
  });
}

// Writing the metadata anew reads header and table in its own way.
void rewrite_head(const std::uint8_t* data, std::size_t size) {
  std::vector<std::uint64_t> aligned((size + 7) / 8);
  std::copy_n(data, size, static_cast<std::uint8_t*>(static_cast<void*>(aligned.data())));
  answers([&] {
    const auto* image = static_cast<const std::byte*>(static_cast<const void*>(aligned.data()));
    const format::View view = format::open_view(image, size, "bytes");
    format::head_with(view, "{}", {});
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::unique_ptr<Index> index;
  const std::string& path = fuzz::file_holding(data, size);
  if (!answers([&] { index = Index::open(path, {}); })) return 0;
  const bool is_sound = answers([&] { index->verify(); });
  bool all = Interview(*index).run();
  all &= tunes(index.get(), is_sound);
  rewrite_head(data, size);
  require(all || !is_sound, "a file that verify() accepts answers everything");
  return 0;
}
