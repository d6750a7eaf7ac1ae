// same_bytes.cpp tells what this build of the core makes of fixed rows and of files it is given: a
// line each, identities and the bits of distances. tests/same_bytes.py prints the same lines
// through the Python package, so that builds for other processors can be compared with it
// (tests/arm.sh).
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "index/index.h"

using namespace annidx;

namespace {

constexpr std::uint32_t kDim = 24;
constexpr std::uint64_t kRows = 3000;  // enough for blocks and neighbour lists
constexpr std::uint64_t kQueries = 20;
constexpr std::uint32_t kNearest = 5;

struct Case {
  const char* name;
  Metric metric;
  Dtype dtype;
  InputType input;
};

constexpr Case kCases[] = {
    {"angular float32", Metric::angular, Dtype::float32, InputType::float32},
    {"cosine float16", Metric::cosine, Dtype::float16, InputType::float32},
    {"euclidean float32", Metric::euclidean, Dtype::float32, InputType::float32},
    {"euclidean uint8", Metric::euclidean, Dtype::uint8, InputType::uint8},
    {"manhattan int8", Metric::manhattan, Dtype::int8, InputType::float32},
    {"dot float32", Metric::dot, Dtype::float32, InputType::float32},
    {"hamming bits", Metric::hamming, Dtype::bits, InputType::bits},
};

// The i-th number: 0..255, the same everywhere.
std::uint32_t number(std::uint64_t i) {
  const std::uint32_t mixed = (static_cast<std::uint32_t>(i) + 1) * 2654435761u;
  return ((mixed ^ (mixed >> 15)) * 2246822519u) >> 24;
}

std::vector<std::uint8_t> byte_rows(std::uint64_t bytes) {
  std::vector<std::uint8_t> rows(bytes);
  for (std::uint64_t i = 0; i < bytes; ++i) rows[i] = static_cast<std::uint8_t>(number(i));
  return rows;
}

std::vector<float> float_rows() {
  std::vector<float> rows(kRows * kDim);
  for (std::uint64_t i = 0; i < rows.size(); ++i) {
    rows[i] = (static_cast<float>(number(i)) - 127.5f) / 64.0f;
  }
  return rows;
}

void print_distances(const double* distances, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint64_t bits;
    std::memcpy(&bits, distances + i, sizeof bits);
    std::printf(" %016llx", static_cast<unsigned long long>(bits));
  }
  std::printf("\n");
}

// Neighbours of the first rows, which find themselves out.
void print_answers(const Index& index, std::uint64_t queries) {
  std::vector<Row> rows(queries);
  for (std::uint64_t i = 0; i < queries; ++i) rows[i] = static_cast<Row>(i);
  std::vector<std::int64_t> ids(queries * kNearest);
  std::vector<double> distances(queries * kNearest);
  QueryOptions options;
  options.k = kNearest;
  index.query_rows(rows.data(), queries, false, options, ids.data(), distances.data());
  print_distances(distances.data(), distances.size());
}

void print_built(const Case& one) {
  Index index(one.metric, one.dtype, kDim);
  const std::vector<std::uint8_t> bytes =
      byte_rows(one.input == InputType::bits ? kRows * kDim / 8 : kRows * kDim);
  const std::vector<float> floats = float_rows();
  const bool is_float = one.input == InputType::float32;
  const void* rows = is_float ? static_cast<const void*>(floats.data()) : bytes.data();
  index.add(rows, one.input, kRows, {}, false);
  BuildOptions options;
  options.n_jobs = 1;
  options.seed = 5;
  index.build(options);
  std::printf("built %s %s", one.name, index.info().identity.c_str());
  print_answers(index, kQueries);
}

void print_file(const char* path) {
  const auto index = Index::open(path, {});
  index->verify();
  const char* slash = std::strrchr(path, '/');
  std::printf("file %s %s", slash == nullptr ? path : slash + 1, index->info().identity.c_str());
  print_answers(*index, index->items() > 0 ? 1 : 0);
}

}  // namespace

int main(int count, char** arguments) {
  try {
    for (const Case& one : kCases) print_built(one);
    for (int i = 1; i < count; ++i) print_file(arguments[i]);
  } catch (const Error& error) {
    std::printf("error: %s\n", error.what());
    return 1;
  }
  return 0;
}
