// fuzz_annoy.cpp owns what is asked of a file that is said to be Annoy's. The first two bytes of an
// input choose metric and dimension, which such a file does not hold; the rest is the file.
#include <memory>
#include <vector>

#include "annoy/annoy_file.h"
#include "asking.h"
#include "memory_file.h"

using namespace annidx;
using fuzz::answers;

namespace {

void interview(const AnnoyFile& file, std::uint32_t f) {
  std::vector<float> query(f), vector(f), distances;
  std::vector<std::uint32_t> items;
  for (const float size : {0.0f, 1.0f, 3e38f}) {
    for (std::uint32_t i = 0; i < f; ++i) query[i] = i % 3 == 0 ? size : -size / (i + 1.0f);
    for (const std::uint64_t search_k : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
      answers([&] { file.nearest(query.data(), 10, search_k, &items, &distances); });
    }
  }
  const std::uint32_t count = file.n_items();
  if (count == 0) return;
  for (const std::uint32_t item : {0u, count / 2, count - 1}) {
    answers([&] { file.has_item(item); });
    answers([&] { file.item_vector(item, vector.data()); });
    answers([&] { file.distance(item, count - 1); });
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const auto metric = static_cast<AnnoyMetric>(data[0] % 5);
  const std::uint32_t f = 1 + data[1] % 100;
  const std::string& path = fuzz::file_holding(data + 2, size - 2);
  std::unique_ptr<AnnoyFile> file;
  if (answers([&] { file = std::make_unique<AnnoyFile>(path, f, metric, false); })) {
    interview(*file, f);
  }
  return 0;
}
