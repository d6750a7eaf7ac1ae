// micro.cpp owns the clock around single kernels and around a loop of queries. micro.py compiles it
// with src_c, runs it and puts bounds beside its figures; no bound is known here.
//
//   micro kernels                                  one JSON object a line
//   micro query INDEX QUERIES K RECALL SECONDS     QUERIES: raw rows as Index::query takes them
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/tuning.h"
#include "index/index.h"
#include "kernels/kernels.h"

namespace {

using annidx::Kernels;
using annidx::Slot;

constexpr std::size_t kKiB = 1024;
constexpr std::size_t kCached = 512 * kKiB;            // fits a second-level cache
constexpr std::size_t kShared = 32 * kKiB * kKiB;      // fits a large last-level cache
constexpr std::size_t kUncached = 1024 * kKiB * kKiB;  // larger than last-level caches
constexpr std::size_t kDim = 128;
constexpr std::size_t kLeafPoints = 256;
constexpr std::size_t kRerankRows = 128;
constexpr int kSamples = 21;
constexpr double kSampleNs = 2e6;

// ---- clock --------------------------------------------------------------------------------------

// Processor time of this thread: what others do on its core meanwhile does not count.
double now_ns() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_nsec);
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

template <class Work>
double time_of(Work& work, std::size_t calls) {
  const double start = now_ns();
  for (std::size_t i = 0; i < calls; ++i) work();
  return now_ns() - start;
}

// Nanoseconds a call: the median of samples, each long enough for the clock.
template <class Work>
double ns_per_call(Work work) {
  std::size_t calls = 1;
  while (time_of(work, calls) < kSampleNs) calls *= 2;
  std::vector<double> samples(kSamples);
  for (double& sample : samples) sample = time_of(work, calls) / static_cast<double>(calls);
  return median(samples);
}

// Keeps the compiler from dropping what is computed only to be timed.
volatile double g_sink;

// ---- operands -----------------------------------------------------------------------------------

// Pages of 4 KiB, as those of a mapped file.
std::uint8_t* allocate(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("mmap");
    std::exit(1);
  }
  madvise(memory, bytes, MADV_NOHUGEPAGE);
  return static_cast<std::uint8_t*>(memory);
}

class Random {
 public:
  std::uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  float between_minus_one_and_one() {
    return static_cast<float>(next() >> 40) * (2.0f / (1 << 24)) - 1.0f;
  }
  std::vector<float> floats(std::size_t n) {
    std::vector<float> out(n);
    for (float& value : out) value = between_minus_one_and_one();
    return out;
  }
  template <class T>
  std::vector<T> integers(std::size_t n, int low, int high) {
    std::vector<T> out(n);
    const auto width = static_cast<std::uint64_t>(high - low + 1);
    for (T& value : out) value = static_cast<T>(low + static_cast<int>(next() % width));
    return out;
  }

 private:
  std::uint64_t state_ = 0x9E3779B97F4A7C15ull;
};

// Visits 0 .. count - 1 (a power of two) in an order that no prefetcher follows.
class Walk {
 public:
  explicit Walk(std::size_t count) : mask_(count - 1) {}
  std::size_t next() { return state_ = (state_ * 1664525 + 1013904223) & mask_; }

 private:
  std::size_t mask_;
  std::size_t state_ = 0;
};

// Random bytes and zeros, large enough to lie outside all caches.
struct Memory {
  std::uint8_t* bytes = allocate(kUncached);
  float* zeros = reinterpret_cast<float*>(allocate(kUncached / 4));

  Memory() {
    Random random;
    auto* words = reinterpret_cast<std::uint64_t*>(bytes);
    for (std::size_t i = 0; i < kUncached / 8; ++i) words[i] = random.next();
    std::memset(zeros, 0, kUncached / 4);
  }
};

struct Place {
  const char* name;
  std::size_t bytes;
};
constexpr Place kL2{"L2", kCached};
constexpr Place kL3{"L3", kShared};
constexpr Place kMemory{"memory", kUncached};

// ---- what is printed ----------------------------------------------------------------------------

// One call does `units` units of work and reads `bytes` bytes that lie in `place`.
void print(const Kernels& level, const std::string& kernel, const char* place, const char* unit,
           std::size_t units, std::size_t bytes, double ns) {
  const auto n = static_cast<double>(units);
  std::printf(
      "{\"level\": \"%s\", \"kernel\": \"%s\", \"place\": \"%s\", \"unit\": \"%s\", "
      "\"ns\": %.5g, \"bytes\": %.5g}\n",
      level.name, kernel.c_str(), place, unit, ns / n, static_cast<double>(bytes) / n);
}

void print_probe(const char* name, double value) {
  std::printf("{\"probe\": \"%s\", \"value\": %.5g}\n", name, value);
}

// ---- the machine --------------------------------------------------------------------------------

#if defined(__x86_64__)
#define ANNIDX_WIDEST __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define ANNIDX_WIDEST
#endif

ANNIDX_WIDEST std::uint64_t sum_words(const std::uint64_t* words, std::size_t n) {
  constexpr std::size_t kLanes = 32;
  std::uint64_t sums[kLanes] = {};
  for (std::size_t i = 0; i + kLanes <= n; i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) sums[j] += words[i + j];
  }
  std::uint64_t total = 0;
  for (std::uint64_t sum : sums) total += sum;
  return total;
}

// Bytes a nanosecond of reading a range again and again, in parts of at most kShared.
double read_bandwidth(const Memory& memory, std::size_t bytes) {
  const std::size_t part = std::min(bytes, kShared);
  std::size_t at = 0;
  const double ns = ns_per_call([&] {
    const auto* words = reinterpret_cast<const std::uint64_t*>(memory.bytes + at);
    g_sink = static_cast<double>(sum_words(words, part / 8));
    at = (at + part) % bytes;
  });
  return static_cast<double>(part) / ns;
}

#if defined(__x86_64__)
// Cycles a nanosecond: dependent multiplications take three cycles each on every x86-64 of today.
double clock_ghz() {
  constexpr std::size_t kMultiplications = 64;
  std::uint64_t x = 3;
  const double ns = ns_per_call([&] {
    for (std::size_t i = 0; i < kMultiplications; ++i) asm volatile("imul %0, %0" : "+r"(x));
  });
  return 3.0 * kMultiplications / ns;
}
#endif

void probe_machine(const Memory& memory) {
#if defined(__x86_64__)
  print_probe("clock GHz", clock_ghz());
#endif
  print_probe("L1 GB/s", read_bandwidth(memory, 16 * kKiB));
  print_probe("L2 GB/s", read_bandwidth(memory, kCached));
  print_probe("L3 GB/s", read_bandwidth(memory, kShared));
  print_probe("memory GB/s", read_bandwidth(memory, kUncached));
}

// ---- kernels of a query -------------------------------------------------------------------------

// Runs of one block each in random order, as a query that has chosen its blocks reads them.
void time_scan_codes(const Kernels& level, const Memory& memory, std::size_t n_codes,
                     const Place& place) {
  constexpr std::size_t kRuns = 32;
  const std::size_t block_bytes = annidx::code_block_bytes(n_codes);
  Random random;
  const auto luts = random.integers<std::uint8_t>(n_codes * 16, 0, 255);
  std::vector<float> scores((kRuns + 1) * annidx::kBlockPoints);
  std::vector<Slot> slots(scores.size());
  std::vector<annidx::CodeRun> runs(kRuns);
  Walk walk(place.bytes / block_bytes);
  const double ns = ns_per_call([&] {
    for (annidx::CodeRun& run : runs) {
      run = {static_cast<std::uint32_t>(walk.next()), 0, annidx::kBlockPoints, 0.0f};
    }
    constexpr float kNonePass = -std::numeric_limits<float>::max();
    level.scan_codes_additive(memory.bytes, n_codes, runs.data(), kRuns, luts.data(), 1.0f,
                              kNonePass, nullptr, {scores.data(), slots.data()});
  });
  print(level, "scan_codes " + std::to_string(n_codes), place.name, "point",
        kRuns * annidx::kBlockPoints, kRuns * block_bytes, ns);
}

// Whole rows, leaf by leaf in random order; `scan` gets the leaf's first row.
template <class Scan>
void time_row_scan(const Kernels& level, const Memory& memory, const char* name,
                   std::size_t row_bytes, const Place& place, Scan scan) {
  const std::size_t leaf_bytes = kLeafPoints * row_bytes;
  std::vector<float> scores(kLeafPoints + 64);
  std::vector<Slot> slots(kLeafPoints + 64);
  Walk walk(place.bytes / leaf_bytes);
  const double ns = ns_per_call([&] {
    scan(memory.bytes + walk.next() * leaf_bytes, annidx::Survivors{scores.data(), slots.data()});
  });
  print(level, name, place.name, "point", kLeafPoints, leaf_bytes, ns);
}

void time_scan_hamming(const Kernels& level, const Memory& memory, const Place& place) {
  constexpr std::size_t kBytes = 32;
  constexpr float kThreshold = 128.0f - 2.3f * 8.0f;  // one random row in a hundred
  const std::uint8_t* query = memory.bytes;
  time_row_scan(level, memory, "scan_hamming 256", kBytes, place,
                [&](const std::uint8_t* rows, annidx::Survivors out) {
                  level.scan_hamming(rows, kLeafPoints, kBytes, query, kThreshold, 0, nullptr, out);
                });
}

void time_scan_l1(const Kernels& level, const Memory& memory, const Place& place) {
  constexpr float kThreshold = 85.0f * kDim - 2.3f * 60.0f * 11.3f;  // one random row in a hundred
  const std::uint8_t* query = memory.bytes;
  time_row_scan(level, memory, "scan_l1_u8 128", kDim, place,
                [&](const std::uint8_t* rows, annidx::Survivors out) {
                  level.scan_l1_u8(rows, kLeafPoints, kDim, 0, query, 1.0f, kThreshold, 0, nullptr,
                                   out);
                });
}

struct OwnedPlanes {
  std::vector<std::int8_t> high, low;
  annidx::QueryPlanes planes;

  explicit OwnedPlanes(std::size_t dim) {
    Random random;
    high = random.integers<std::int8_t>(dim, annidx::kPlaneMin, annidx::kPlaneMax);
    low = random.integers<std::int8_t>(dim, annidx::kPlaneMin, annidx::kPlaneMax);
    std::int32_t high_sum = 0, low_sum = 0;
    for (std::int8_t value : high) high_sum += value;
    for (std::int8_t value : low) low_sum += value;
    planes = {high.data(), low.data(), high_sum, low_sum, 1e-4f};
  }
};

// Random rows; what is read from memory are whole lines: of the row, and one of its scalars.
void time_rerank(const Kernels& level, const Memory& memory, const Place& place) {
  constexpr std::size_t kLine = 64;
  const OwnedPlanes query(kDim);
  const auto* rows = reinterpret_cast<const std::int8_t*>(memory.bytes);
  const auto* scalars = reinterpret_cast<const annidx::RowScalars*>(memory.zeros);
  const std::size_t row_count = place.bytes / kDim;
  Walk walk(row_count);
  std::vector<Slot> slots(std::min<std::size_t>(row_count, std::size_t{1} << 22));
  for (Slot& slot : slots) slot = static_cast<Slot>(walk.next());
  std::vector<float> keys(kRerankRows);
  std::size_t at = 0;
  const double ns = ns_per_call([&] {
    level.rerank_i8(rows, kDim, kDim, query.planes, scalars, slots.data() + at, kRerankRows,
                    keys.data());
    at = (at + kRerankRows) % slots.size();
  });
  print(level, "rerank_i8 128", place.name, "row", kRerankRows, kRerankRows * (kDim + kLine), ns);
}

void time_route_scores(const Kernels& level, const Memory& memory) {
  constexpr std::size_t kBlocks = kCached / (16 * kDim);
  constexpr std::size_t kCentroids = kBlocks * 16;
  Random random;
  const auto query = random.integers<std::int8_t>(kDim, annidx::kPlaneMin, annidx::kPlaneMax);
  std::int32_t sum = 0;
  for (std::int8_t value : query) sum += value;
  const std::vector<float> mult = random.floats(kCentroids);
  const std::vector<float> bias = random.floats(kCentroids);
  std::vector<float> out(kCentroids);
  const double ns = ns_per_call([&] {
    level.route_scores(memory.bytes, kBlocks, kDim, query.data(), sum, 1e-4f, mult.data(),
                       bias.data(), out.data());
  });
  print(level, "route_scores 128", "L2", "centroid", kCentroids, kCentroids * (kDim + 12), ns);
}

void time_near_bound(const Kernels& level) {
  constexpr std::size_t kScores = 512;
  const std::vector<float> scores = Random().floats(kScores);
  const double ns = ns_per_call(
      [&] { g_sink = static_cast<double>(level.near_bound(scores.data(), kScores, 128)); });
  print(level, "near_bound 128 of 512", "L1", "score", kScores, kScores * sizeof(float), ns);
}

std::vector<std::uint16_t> four_dimensions_a_code() {
  std::vector<std::uint16_t> first(kDim / 4 + 1);
  for (std::size_t m = 0; m < first.size(); ++m) first[m] = static_cast<std::uint16_t>(m * 4);
  return first;
}

void time_tables(const Kernels& level) {
  constexpr std::size_t kCodes = kDim / 4;
  Random random;
  const std::vector<float> query = random.floats(kDim);
  const std::vector<float> codebook = random.floats(kDim * 16);
  const std::vector<std::uint16_t> first = four_dimensions_a_code();
  std::vector<float> tables(kCodes * 16);
  std::vector<std::uint8_t> luts(kCodes * 16);
  const double ns = ns_per_call([&] {
    float base;
    level.lut_floats(query.data(), codebook.data(), first.data(), kCodes, tables.data());
    g_sink = static_cast<double>(level.lut_quantize(tables.data(), kCodes, luts.data(), &base));
  });
  print(level, "lut_floats + lut_quantize 128", "L1", "query", 1, codebook.size() * sizeof(float),
        ns);
}

void time_rotation(const Kernels& level, const Memory& memory) {
  const OwnedPlanes query(kDim);
  const annidx::QueryBytes bytes{query.planes.low, query.planes.low_sum, query.planes.step};
  const std::vector<float> scales(kDim, 1.0f);
  std::vector<float> out(kDim);
  const auto* matrix = reinterpret_cast<const std::int8_t*>(memory.bytes);
  const double ns = ns_per_call(
      [&] { level.rotate_i8(matrix, kDim, kDim, kDim, bytes, scales.data(), out.data()); });
  print(level, "rotate_i8 128x128", "L1", "query", 1, kDim * kDim, ns);
}

template <class Distance>
void time_exact(const Kernels& level, const char* name, std::size_t row_bytes, Distance distance) {
  const std::size_t rows = kCached / row_bytes;
  Walk walk(rows);
  const double ns = ns_per_call([&] {
    double sum = 0.0;
    for (std::size_t i = 0; i < rows; ++i) sum += distance(walk.next());
    g_sink = sum;
  });
  print(level, name, "L2", "row", rows, rows * row_bytes, ns);
}

void time_exact_distances(const Kernels& level, const Memory& memory) {
  Random random;
  const std::vector<float> query = random.floats(kDim);
  const std::vector<float> rows = random.floats(kCached / sizeof(float));
  time_exact(level, "l2_squared_f32 128", kDim * sizeof(float), [&](std::size_t row) {
    return level.l2_squared_f32(query.data(), rows.data() + row * kDim, kDim);
  });
  time_exact(level, "dot_square_f32 128", kDim * sizeof(float), [&](std::size_t row) {
    return level.dot_square_f32(query.data(), rows.data() + row * kDim, kDim).dot;
  });
  time_exact(level, "l2_squared_u8 128", kDim, [&](std::size_t row) {
    return level.l2_squared_u8(query.data(), memory.bytes + row * kDim, kDim);
  });
}

// ---- kernels of a build -------------------------------------------------------------------------

void time_panel_dot(const Kernels& level) {
  constexpr std::size_t kRows = 64;
  Random random;
  const std::vector<float> rows = random.floats(kRows * kDim);
  const std::vector<float> panel = random.floats(kDim * annidx::kPanelWidth);
  std::vector<float> out(kRows * annidx::kPanelWidth);
  const double ns = ns_per_call([&] {
    level.panel_dot(rows.data(), kRows, kDim, panel.data(), kDim, out.data(), annidx::kPanelWidth);
  });
  print(level, "panel_dot 128", "L1", "product", kRows * annidx::kPanelWidth,
        kRows * kDim * sizeof(float), ns);
}

void time_encode(const Kernels& level) {
  constexpr std::size_t kCodes = kDim / 4;
  constexpr std::size_t kRows = kCached / (kDim * sizeof(float));
  Random random;
  const std::vector<float> rows = random.floats(kRows * kDim);
  const std::vector<float> codebook = random.floats(kDim * 16);
  const std::vector<float> half_squares = random.floats(kCodes * 16);
  const std::vector<std::uint16_t> first = four_dimensions_a_code();
  std::vector<std::uint8_t> out(kRows * kCodes);
  const double ns = ns_per_call([&] {
    level.encode(rows.data(), kRows, kDim, codebook.data(), half_squares.data(), first.data(),
                 kCodes, out.data());
  });
  print(level, "encode 128 to 32", "L2", "row", kRows, kRows * kDim * sizeof(float), ns);
}

void time_crc32c(const Kernels& level, const Memory& memory) {
  const double ns =
      ns_per_call([&] { g_sink = static_cast<double>(level.crc32c(0, memory.bytes, kCached)); });
  print(level, "crc32c", "L2", "byte", kCached, kCached, ns);
}

void time_level(const Kernels& level, const Memory& memory) {
  time_route_scores(level, memory);
  time_rotation(level, memory);
  time_tables(level);
  for (const Place& place : {kL2, kL3, kMemory}) {
    time_scan_codes(level, memory, 32, place);
    time_scan_codes(level, memory, 64, place);
    time_scan_hamming(level, memory, place);
    time_scan_l1(level, memory, place);
  }
  time_near_bound(level);
  for (const Place& place : {kL2, kL3, kMemory}) time_rerank(level, memory, place);
  time_exact_distances(level, memory);
  time_panel_dot(level);
  time_encode(level);
  time_crc32c(level, memory);
}

int run_kernels() {
  const Memory memory;
  probe_machine(memory);
  const Kernels* levels[4];
  const std::size_t count = annidx::available_kernels(levels);
  for (std::size_t i = 0; i < count; ++i) time_level(*levels[i], memory);
  return 0;
}

// ---- queries ------------------------------------------------------------------------------------

int run_queries(const char* index_path, const char* query_path, std::uint32_t k, double recall,
                double seconds) {
  const auto index = annidx::Index::open(index_path, {});
  std::ifstream file(query_path, std::ios::binary);
  const std::vector<char> queries{std::istreambuf_iterator<char>(file), {}};
  const std::size_t row_bytes = index->query_bytes();
  const std::size_t count = queries.size() / row_bytes;
  if (count == 0) {
    std::fprintf(stderr, "%s: expected rows of %zu bytes\n", query_path, row_bytes);
    return 1;
  }
  annidx::QueryOptions options;
  options.k = k;
  options.recall = recall;
  std::vector<std::int64_t> ids(k);
  std::vector<double> distances(k);
  const auto pass = [&] {
    for (std::size_t i = 0; i < count; ++i) {
      index->query(queries.data() + i * row_bytes, 1, options, ids.data(), distances.data());
    }
  };
  pass();
  std::vector<double> passes;
  const double end = now_ns() + seconds * 1e9;
  do {
    passes.push_back(time_of(pass, 1) / static_cast<double>(count));
  } while (now_ns() < end);
  const annidx::CurveRow setting = index->setting_for(k, recall);
  std::printf(
      "{\"level\": \"%s\", \"ns\": %.6g, \"candidates\": %llu, \"rerank\": %llu, "
      "\"exact\": %llu}\n",
      annidx::kernels().name, median(passes), static_cast<unsigned long long>(setting.candidates),
      static_cast<unsigned long long>(setting.rerank),
      static_cast<unsigned long long>(setting.exact));
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc == 2 && std::strcmp(argv[1], "kernels") == 0) return run_kernels();
  if (argc == 7 && std::strcmp(argv[1], "query") == 0) {
    return run_queries(argv[2], argv[3], static_cast<std::uint32_t>(std::atoi(argv[4])),
                       std::atof(argv[5]), std::atof(argv[6]));
  }
  std::fprintf(stderr, "micro kernels | micro query INDEX QUERIES K RECALL SECONDS\n");
  return 2;
} catch (const annidx::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
