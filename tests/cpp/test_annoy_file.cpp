// Tests of src_c/annoy over small files that Annoy wrote (tests/golden/annoy): the same
// answers; wrong parameters and damage are Error(format) or answers, never a crash or a hang.
// Build: g++ -std=c++17 -g -ffp-contract=off -fsanitize=address,undefined -Isrc_c
//   tests/cpp/test_annoy_file.cpp src_c/annoy/annoy_file.cpp src_c/os/file.cpp
//   src_c/rows/metric.cpp src_c/kernels/*.cpp   (run from the repository's folder)
// ANNIDX_EXHAUSTIVE=1 damages every third byte of each file instead of some hundred.
#include "annoy/annoy_file.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "check.h"

using namespace annidx;
using namespace annidx_test;

namespace {

std::string folder = "tests/golden/annoy/";
// A file of this process, so that tests may run side by side.
std::string damaged_path;
// How many mutants of each file are asked, unless all are.
constexpr std::size_t kMutants = 400;
const bool exhaustive = std::getenv("ANNIDX_EXHAUSTIVE") != nullptr;

#define CHECK_FOR(name, condition) check((condition), name + ": " #condition, __LINE__)

struct Question {
  long long search_k;
  std::uint32_t n;
  std::vector<float> query;
  std::vector<std::uint32_t> ids;
  std::vector<float> distances;
};

struct Golden {
  std::string name;
  AnnoyMetric metric;
  std::uint32_t f, n_items, n_trees;
  std::vector<Question> questions;
  std::string path() const { return folder + name + ".ann"; }
};

AnnoyMetric metric_named(const std::string& name) {
  if (name == "angular") return AnnoyMetric::angular;
  if (name == "euclidean") return AnnoyMetric::euclidean;
  if (name == "manhattan") return AnnoyMetric::manhattan;
  return name == "dot" ? AnnoyMetric::dot : AnnoyMetric::hamming;
}

template <class T>
std::vector<T> numbers(const std::string& line) {
  std::istringstream words(line);
  return {std::istream_iterator<T>(words), std::istream_iterator<T>()};
}

Golden read_golden(const std::string& name) {
  std::ifstream text(folder + name + ".txt");
  Golden golden;
  golden.name = name;
  std::string metric, line;
  text >> metric >> golden.f >> golden.n_items >> golden.n_trees;
  golden.metric = metric_named(metric);
  std::getline(text, line);
  while (std::getline(text, line)) {
    Question question;
    std::vector<double> asked = numbers<double>(line);
    question.search_k = static_cast<long long>(asked[0]);
    question.n = static_cast<std::uint32_t>(asked[1]);
    question.query.assign(asked.begin() + 2, asked.end());
    std::getline(text, line);
    question.ids = numbers<std::uint32_t>(line);
    std::getline(text, line);
    for (const double distance : numbers<double>(line)) {
      question.distances.push_back(static_cast<float>(distance));
    }
    golden.questions.push_back(question);
  }
  return golden;
}

const std::vector<std::string> kNames = {"angular",  "euclidean", "manhattan", "dot",
                                         "hamming",  "holes",     "far_item",  "one_item",
                                         "one_leaf", "no_items"};

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void make_damaged_path() {
  char name[] = "/tmp/annidx-test-XXXXXX";
  ::close(::mkstemp(name));
  damaged_path = name;
}

// The calls below use damaged_path with these bytes.
void write_damaged(const std::string& bytes) {
  std::ofstream(damaged_path, std::ios::binary) << bytes;
}

bool close_to(float a, float b) { return std::abs(a - b) <= 1e-5f * (1.0f + std::abs(b)); }

enum class Outcome { answered, refused };

// Opens a file and asks it everything; any Error other than format is let through.
Outcome ask_all(const std::string& path, const Golden& golden, std::uint32_t f,
                AnnoyMetric metric) {
  try {
    AnnoyFile file(path, f, metric, false);
    std::vector<float> vector(f, 0.5f);
    std::vector<std::uint32_t> ids;
    std::vector<float> distances;
    for (const std::uint64_t search_k : {std::uint64_t{0}, std::uint64_t{1} << 40}) {
      file.nearest(vector.data(), 10, search_k, &ids, &distances);
    }
    for (const Question& question : golden.questions) {
      if (question.query.size() == f) {
        file.nearest(question.query.data(), question.n, 0, &ids, &distances);
      }
    }
    for (std::uint32_t item = 0; item < file.n_items(); item += 7) {
      if (file.has_item(item)) file.item_vector(item, vector.data());
      file.distance(item, file.n_items() - 1);
    }
    return Outcome::answered;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::format) throw;
    return Outcome::refused;
  }
}

bool refused(const std::string& path, const Golden& golden, std::uint32_t f, AnnoyMetric metric) {
  return ask_all(path, golden, f, metric) == Outcome::refused;
}

void test_same_answers(const Golden& golden) {
  for (const bool prefault : {false, true}) {
    const AnnoyFile file(golden.path(), golden.f, golden.metric, prefault);
    CHECK_FOR(golden.name, file.n_items() == golden.n_items);
    CHECK_FOR(golden.name, file.n_trees() >= golden.n_trees);
    std::vector<std::uint32_t> ids;
    std::vector<float> distances;
    for (const Question& question : golden.questions) {
      const std::uint64_t search_k =
          question.search_k < 0 ? 0 : static_cast<std::uint64_t>(question.search_k);
      file.nearest(question.query.data(), question.n, search_k, &ids, &distances);
      CHECK_FOR(golden.name, ids == question.ids);
      bool same = distances.size() == question.distances.size();
      for (std::size_t i = 0; same && i < distances.size(); ++i) {
        same = close_to(distances[i], question.distances[i]);
      }
      CHECK_FOR(golden.name, same);
    }
  }
}

void test_items(const Golden& golden) {
  const AnnoyFile file(golden.path(), golden.f, golden.metric, false);
  std::vector<float> vector(golden.f);
  std::vector<std::uint32_t> ids;
  std::vector<float> distances;
  std::uint32_t present = 0;
  for (std::uint32_t item = 0; item < file.n_items(); ++item) {
    file.item_vector(item, vector.data());
    if (!file.has_item(item)) {
      CHECK_FOR(golden.name, vector == std::vector<float>(golden.f, 0.0f));
      continue;
    }
    ++present;
    file.nearest(vector.data(), golden.n_items, std::uint64_t{1} << 40, &ids, &distances);
    bool found = false;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      found = found || ids[i] == item;
      CHECK_FOR(golden.name,
                close_to(static_cast<float>(file.distance(item, ids[i])), distances[i]));
    }
    CHECK_FOR(golden.name, found);
  }
  file.nearest(std::vector<float>(golden.f, 0.25f).data(), golden.n_items + 5,
               std::uint64_t{1} << 40, &ids, &distances);
  CHECK_FOR(golden.name, ids.size() == present);
  CHECK_FOR(golden.name, !file.has_item(golden.n_items));
  try {
    file.item_vector(golden.n_items, vector.data());
    CHECK_FOR(golden.name, false);
  } catch (const Error& error) {
    CHECK_FOR(golden.name, error.code() == ErrorCode::out_of_range);
  }
}

void test_not_a_number(const Golden& golden) {
  const AnnoyFile file(golden.path(), golden.f, golden.metric, false);
  std::vector<std::uint32_t> ids;
  std::vector<float> distances;
  for (const float value : {NAN, INFINITY, -INFINITY, 3e38f}) {
    std::vector<float> query(golden.f, value);
    query[0] = 1.0f;
    file.nearest(query.data(), 10, 0, &ids, &distances);
    CHECK_FOR(golden.name, ids.size() <= 10);
  }
}

void test_wrong_parameters(const Golden& golden) {
  for (std::uint32_t f = 1; f < 200; ++f) {
    const bool same_words =
        golden.metric == AnnoyMetric::hamming && (f + 63) / 64 == (golden.f + 63) / 64;
    if (f == golden.f || (same_words && f > golden.f)) continue;
    CHECK_FOR(golden.name + " f=" + std::to_string(f),
              refused(golden.path(), golden, f, golden.metric));
  }
  // Euclidean and manhattan files cannot be told apart. Dot and hamming files of some f look like
  // those that Annoy's first versions wrote for angular, without norms. All others show, whatever
  // f.
  const auto is_minkowski = [](AnnoyMetric metric) {
    return metric == AnnoyMetric::euclidean || metric == AnnoyMetric::manhattan;
  };
  for (const AnnoyMetric metric :
       {AnnoyMetric::angular, AnnoyMetric::euclidean, AnnoyMetric::manhattan, AnnoyMetric::dot,
        AnnoyMetric::hamming}) {
    if (metric == golden.metric || (is_minkowski(metric) && is_minkowski(golden.metric))) continue;
    if (metric == AnnoyMetric::angular && !is_minkowski(golden.metric)) continue;
    for (std::uint32_t f = 1; f < 200; ++f) {
      CHECK_FOR(golden.name + " other metric, f=" + std::to_string(f),
                refused(golden.path(), golden, f, metric));
    }
  }
}

void test_truncated(const Golden& golden, std::uint64_t node_bytes) {
  const std::string whole = bytes_of(golden.path());
  for (std::size_t kept = 0; kept < whole.size();
       kept += kept % node_bytes == 0 ? 1 : node_bytes - 1) {
    write_damaged(whole.substr(0, kept));
    CHECK_FOR(golden.name + " of " + std::to_string(kept) + " bytes",
              refused(damaged_path, golden, golden.f, golden.metric));
  }
  write_damaged(whole + std::string(node_bytes, '\0'));
  CHECK_FOR(golden.name, refused(damaged_path, golden, golden.f, golden.metric));
  write_damaged(std::string(whole.size(), '\0'));
  ask_all(damaged_path, golden, golden.f, golden.metric);
  write_damaged(std::string(whole.size(), '\xff'));
  CHECK_FOR(golden.name, refused(damaged_path, golden, golden.f, golden.metric));
}

void test_mutated(const Golden& golden) {
  const std::string whole = bytes_of(golden.path());
  std::mt19937 random(7);
  int answered = 0;
  const std::size_t step = exhaustive ? 3 : whole.size() / kMutants | 1;
  for (std::size_t at = 0; at < whole.size(); at += step) {
    std::string damaged = whole;
    switch (random() % 4) {
      case 0: damaged[at] = static_cast<char>(damaged[at] ^ (1 << random() % 8)); break;
      case 1: damaged[at] = '\xff'; break;
      case 2: damaged[at] = '\x7f'; break;
      default: std::memset(&damaged[at / 4 * 4], 0, 4); break;
    }
    write_damaged(damaged);
    answered += ask_all(damaged_path, golden, golden.f, golden.metric) == Outcome::answered;
  }
  CHECK_FOR(golden.name, answered > 0);
}

// Splits that lead to themselves, to their root, or both to the same child, layer upon layer.
void test_circles() {
  const Golden golden = read_golden("euclidean");
  const std::string whole = bytes_of(golden.path());
  const std::size_t node = 16 + 4 * golden.f;
  const std::uint32_t n_nodes = static_cast<std::uint32_t>(whole.size() / node);
  const auto descendants = [&](std::uint32_t i) {
    std::int32_t n;
    std::memcpy(&n, &whole[i * node], 4);
    return n;
  };
  const auto damage_splits = [&](const auto& child_of) {
    std::string damaged = whole;
    for (std::uint32_t i = golden.n_items; i < n_nodes; ++i) {
      if (descendants(i) <= static_cast<std::int32_t>(golden.f + 2)) continue;
      const std::uint32_t children[2] = {child_of(i), child_of(i)};
      std::memcpy(&damaged[i * node + 8], children, 8);
    }
    write_damaged(damaged);
    // Opening may refuse it; asking must end in either case.
    ask_all(damaged_path, golden, golden.f, golden.metric);
  };
  damage_splits([](std::uint32_t i) { return i; });
  damage_splits([&](std::uint32_t) { return n_nodes - 1; });
  damage_splits([&](std::uint32_t i) { return i - 1; });
  damage_splits([&](std::uint32_t) { return 0u; });
  ++passed;

  // A sound start, and a circle further in than opening looks.
  const std::uint32_t f = 1;
  const std::size_t small = 16 + 4 * f;
  const std::uint32_t items = 40000, inner = 40000;
  std::string crafted((items + inner + 2) * small, '\0');
  const auto put = [&](std::uint32_t i, std::int32_t n, std::uint32_t left, std::uint32_t right) {
    std::memcpy(&crafted[i * small], &n, 4);
    std::memcpy(&crafted[i * small + 8], &left, 4);
    std::memcpy(&crafted[i * small + 12], &right, 4);
  };
  for (std::uint32_t i = 0; i < items; ++i) put(i, 1, 0, 0);
  // Each of these splits has the same one below it twice: 2^40000 ways down.
  for (std::uint32_t i = 0; i < inner; ++i) {
    put(items + i, static_cast<std::int32_t>(items - i), items + (i + 1) % inner,
        items + (i + 1) % inner);
  }
  put(items + inner, static_cast<std::int32_t>(items), items, items);
  put(items + inner + 1, static_cast<std::int32_t>(items), items, items);
  write_damaged(crafted);
  CHECK(refused(damaged_path, golden, f, AnnoyMetric::euclidean));
}

void test_no_file() {
  for (const char* path : {"/nonexistent/x.ann", "/", "/dev/null"}) {
    try {
      AnnoyFile file(path, 3, AnnoyMetric::angular, false);
      CHECK(false);
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::io && error.os_errno() != 0);
    }
  }
}

std::uint64_t node_bytes_of(const Golden& golden) {
  if (golden.metric == AnnoyMetric::hamming) return 16 + 8 * ((golden.f + 63) / 64);
  return (golden.metric == AnnoyMetric::angular ? 12 : 16) + 4 * golden.f;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) folder = argv[1];
  make_damaged_path();
  for (const std::string& name : kNames) {
    const Golden golden = read_golden(name);
    CHECK_FOR(name, golden.questions.size() == 12);
    test_same_answers(golden);
    test_items(golden);
    test_not_a_number(golden);
    // Too few nodes to be told from another metric's or from fewer trees.
    const bool tiny = golden.n_items < 10 || name == "far_item";
    if (!tiny) {
      test_wrong_parameters(golden);
      test_truncated(golden, node_bytes_of(golden));
    }
    test_mutated(golden);
  }
  test_circles();
  test_no_file();
  std::remove(damaged_path.c_str());
  return report();
}
