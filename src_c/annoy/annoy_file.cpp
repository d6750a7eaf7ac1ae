// annoy_file.cpp owns the five node layouts of Annoy 1.17's files, their checks and the walk over
// their trees; see annoy_file.h.
//
// Nothing in a mapped file is believed before it is compared with its bound: what opening checks
// keeps wrong parameters and truncated files out, and what a query reads it checks again.
#include "annoy/annoy_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "base/error.h"
#include "kernels/kernels.h"
#include "os/file.h"
#include "rows/metric.h"

namespace annidx {

namespace {

// Annoy numbers nodes with signed 32-bit integers.
constexpr std::uint64_t kMaxNodes = 0x7FFFFFFF;
// Opening looks at all nodes of a file of up to so many bytes, and of a larger one at so many
// items, inner nodes and roots, evenly spread: each may be a read from the disk.
constexpr std::uint64_t kWhollyCheckedBytes = 1 << 20;
constexpr std::uint64_t kSampledNodes = 64;
// Rows fetched ahead of the one whose distance is computed.
constexpr std::size_t kRowsAhead = 4;
constexpr std::size_t kKeptCandidates = 1 << 16;
constexpr std::uint32_t kWordBits = 64;

// Where the parts of a node stand. A node of up to `leaf_capacity` descendants is a leaf: its
// children's ids run on over the space of the vector.
struct Layout {
  std::uint64_t node_bytes;
  std::uint64_t children;     // offset of the first child's index
  std::uint64_t vector;       // offset of the vector or of the normal of the split
  std::uint64_t offset_term;  // of the split's plane; 0: none
  std::uint32_t leaf_capacity;
};

std::uint32_t words_of(std::uint32_t f) { return (f + kWordBits - 1) / kWordBits; }

Layout layout_of(AnnoyMetric metric, std::uint32_t f) {
  std::uint64_t children = 4, vector = 16, offset_term = 0;
  switch (metric) {
    case AnnoyMetric::angular: vector = 12; break;
    case AnnoyMetric::dot: offset_term = 12; break;
    case AnnoyMetric::hamming: break;
    case AnnoyMetric::euclidean:
    case AnnoyMetric::manhattan:
      children = 8;
      offset_term = 4;
      break;
  }
  const std::uint64_t vector_bytes =
      metric == AnnoyMetric::hamming ? std::uint64_t{8} * words_of(f) : std::uint64_t{4} * f;
  const std::uint64_t node_bytes = vector + vector_bytes;
  return {node_bytes, children, vector, offset_term,
          static_cast<std::uint32_t>((node_bytes - children) / 4)};
}

const char* name_of(AnnoyMetric metric) {
  switch (metric) {
    case AnnoyMetric::angular: return "angular";
    case AnnoyMetric::euclidean: return "euclidean";
    case AnnoyMetric::manhattan: return "manhattan";
    case AnnoyMetric::dot: return "dot";
    case AnnoyMetric::hamming: return "hamming";
  }
  return "unknown";
}

ExactScorer scorer_of(AnnoyMetric metric, std::uint32_t f) {
  switch (metric) {
    case AnnoyMetric::angular: return {Metric::angular, Dtype::float32, f, 1.0f};
    case AnnoyMetric::euclidean: return {Metric::euclidean, Dtype::float32, f, 1.0f};
    case AnnoyMetric::manhattan: return {Metric::manhattan, Dtype::float32, f, 1.0f};
    case AnnoyMetric::dot: return {Metric::dot, Dtype::float32, f, 1.0f};
    case AnnoyMetric::hamming: break;
  }
  return {Metric::hamming, Dtype::bits, words_of(f) * kWordBits, 1.0f};
}

template <class T>
T load(const std::byte* place) noexcept {
  T value;
  std::memcpy(&value, place, sizeof value);
  return value;
}

// Nodes are aligned for what they hold: 8 bytes for hamming, 4 for the others.
template <class T>
const T* elements(const void* place) noexcept {
  return static_cast<const T*>(place);
}

// As Annoy packs them: dimension i is bit i % 64, from the least significant on, of word i / 64.
std::vector<std::uint64_t> packed(const float* values, std::uint32_t f) {
  std::vector<std::uint64_t> words(words_of(f), 0);
  for (std::uint32_t i = 0; i < f; ++i) {
    if (values[i] > 0.5f) words[i / kWordBits] |= std::uint64_t{1} << i % kWordBits;
  }
  return words;
}

struct Waiting {
  float margin;
  std::uint32_t node;
};

// Orders a heap so that the widest margin comes first and, as in Annoy, the later node of equals.
bool waits_behind(const Waiting& a, const Waiting& b) noexcept {
  return a.margin < b.margin || (a.margin == b.margin && a.node < b.node);
}

struct Scored {
  double key;
  std::uint32_t item;
};

// What is not a number comes last: sorting needs an order.
double comparable(double key) noexcept {
  return std::isnan(key) ? std::numeric_limits<double>::infinity() : key;
}

bool nearer(const Scored& a, const Scored& b) noexcept {
  return a.key < b.key || (a.key == b.key && a.item < b.item);
}

// What one query needs, kept by each thread for its next one. `seen` holds a bit an item and is
// all zero between queries.
struct Scratch {
  std::vector<std::uint64_t> seen;
  std::vector<std::uint32_t> candidates;  // each item once
  std::vector<Waiting> queue;
  std::vector<Scored> scored;
};

class SeenGuard {
 public:
  SeenGuard(Scratch* scratch, std::uint32_t n_items) : scratch_(scratch) {
    const std::size_t words = n_items / kWordBits + 1;
    if (scratch->seen.size() < words) scratch->seen.resize(words, 0);
    scratch->candidates.clear();
    scratch->queue.clear();
    scratch->scored.clear();
  }
  ~SeenGuard() {
    for (const std::uint32_t item : scratch_->candidates) scratch_->seen[item / kWordBits] = 0;
    // A thread does not keep the room of a query for everything.
    if (scratch_->candidates.capacity() > kKeptCandidates) {
      std::vector<std::uint32_t>().swap(scratch_->candidates);
      std::vector<Waiting>().swap(scratch_->queue);
      std::vector<Scored>().swap(scratch_->scored);
    }
  }
  SeenGuard(const SeenGuard&) = delete;
  SeenGuard& operator=(const SeenGuard&) = delete;

  void add(std::uint32_t item) {
    std::uint64_t& word = scratch_->seen[item / kWordBits];
    const std::uint64_t bit = std::uint64_t{1} << item % kWordBits;
    if (word & bit) return;
    scratch_->candidates.push_back(item);
    word |= bit;
  }

 private:
  Scratch* scratch_;
};

}  // namespace

struct AnnoyFile::State {
  MappedFile file;
  AnnoyMetric metric;
  std::uint32_t f;
  Layout layout;
  ExactScorer scorer;
  std::uint32_t n_nodes = 0;
  std::uint32_t n_items = 0;
  std::vector<std::uint32_t> roots;

  State(const std::string& path, std::uint32_t f_, AnnoyMetric metric_)
      : file(path),
        metric(metric_),
        f(f_),
        layout(layout_of(metric_, f_)),
        scorer(scorer_of(metric_, f_)) {}

  // ---- reading one node: `node` < n_nodes ----
  const std::byte* node_at(std::uint32_t node) const noexcept {
    return file.data() + layout.node_bytes * node;
  }
  std::int32_t descendants(std::uint32_t node) const noexcept {
    return load<std::int32_t>(node_at(node));
  }
  std::uint32_t child(std::uint32_t node, std::uint32_t which) const noexcept {
    return load<std::uint32_t>(node_at(node) + layout.children + std::uint64_t{4} * which);
  }
  const std::byte* vector_at(std::uint32_t node) const noexcept {
    return node_at(node) + layout.vector;
  }
  bool is_leaf(std::int32_t n) const noexcept {
    return n <= static_cast<std::int32_t>(layout.leaf_capacity);
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::format,
                "'" + file.path() + "' is no Annoy index of f=" + std::to_string(f) + ", metric '" +
                    name_of(metric) + "', or is damaged: " + what);
  }
  [[noreturn]] void fail_at(std::uint32_t node, const std::string& what) const {
    fail("node " + std::to_string(node) + " (byte " + std::to_string(layout.node_bytes * node) +
         ") " + what);
  }

  // ---- opening ----
  void read_size();
  void find_roots();
  void check_tail(std::uint32_t first_root) const;
  void check_short_tail(std::uint32_t first_root) const;
  std::uint64_t sampled_of(std::uint64_t nodes) const noexcept {
    return file.bytes() <= kWhollyCheckedBytes ? nodes : std::min(nodes, kSampledNodes);
  }
  void check_sample() const;
  void check_item(std::uint32_t item) const;
  void check_kept_norm(std::uint32_t item) const;
  void check_shared_norm(std::uint32_t item, double* shared) const;
  void check_inner(std::uint32_t node) const;

  // ---- at use ----
  std::uint32_t checked_child(std::uint32_t node, std::uint32_t which, std::uint32_t bound) const {
    const std::uint32_t index = child(node, which);
    if (index >= bound) {
      fail_at(node, "has child " + std::to_string(static_cast<std::int32_t>(index)) +
                        ", outside 0 to " + std::to_string(bound - 1));
    }
    return index;
  }
  std::int32_t item_descendants(std::uint32_t item) const {
    const std::int32_t n = descendants(item);
    if (n != 0 && n != 1) {
      fail_at(item, "is an item and has " + std::to_string(n) + " descendants instead of 0 or 1");
    }
    return n;
  }
  void check_range(std::uint32_t item) const {
    if (item >= n_items) {
      throw Error(
          ErrorCode::out_of_range,
          "item " + std::to_string(item) + " is outside an index of " + std::to_string(n_items));
    }
  }
  ExactQuery item_query(std::uint32_t item) const {
    return query_of(elements<float>(vector_at(item)), elements<std::uint8_t>(vector_at(item)));
  }
  ExactQuery query_of(const float* values, const std::uint8_t* bits) const {
    return metric == AnnoyMetric::hamming ? scorer.prepare(nullptr, bits)
                                          : scorer.prepare(values, nullptr);
  }

  void push_children(std::uint32_t node, float margin, const ExactQuery& query,
                     std::vector<Waiting>* queue) const;
  void collect(const ExactQuery& query, std::uint64_t search_k, Scratch* scratch,
               SeenGuard* candidates) const;
  float quick_key(const ExactQuery& query, std::uint32_t item) const;
  void score(const ExactQuery& query, Scratch* scratch) const;
};

// ---- opening -----------------------------------------------------------------------------

void AnnoyFile::State::read_size() {
  const std::uint64_t bytes = file.bytes();
  if (bytes == 0) fail("Size of file is zero");
  if (bytes % layout.node_bytes != 0) {
    fail("Index size is not a multiple of vector size (" + std::to_string(bytes) + " bytes, " +
         std::to_string(layout.node_bytes) + " a node)");
  }
  const std::uint64_t nodes = bytes / layout.node_bytes;
  if (nodes > kMaxNodes)
    fail("it has " + std::to_string(nodes) + " nodes, more than Annoy can number");
  n_nodes = static_cast<std::uint32_t>(nodes);
}

// The roots are copied to the end of the file; each counts all items (holes too) as descendants.
void AnnoyFile::State::find_roots() {
  const std::int32_t n = descendants(n_nodes - 1);
  if (n < 0 || static_cast<std::uint32_t>(n) > n_nodes) {
    fail_at(n_nodes - 1, "ends the file, but counts " + std::to_string(n) + " items among " +
                             std::to_string(n_nodes) + " nodes");
  }
  n_items = static_cast<std::uint32_t>(n);
  std::uint32_t first_root = n_nodes - 1;
  // In an index of one item that item counts one descendant too: Annoy takes it for a root.
  const std::uint32_t lowest = n_items > 1 ? n_items : 0;
  while (first_root > lowest && descendants(first_root - 1) == n) --first_root;
  check_tail(first_root);

  // The last tree's own root stands before the copies: the same root twice.
  const bool last_twice = n_nodes - first_root > 1 && child(first_root, 0) == child(n_nodes - 1, 0);
  roots.reserve(n_nodes - first_root);
  for (std::uint32_t root = n_nodes; root-- > first_root + (last_twice ? 1 : 0);) {
    roots.push_back(root);
  }
}

// Of a truncated file the end is an inner node or an item: it cannot pass for the roots of
// everything before it.
void AnnoyFile::State::check_tail(std::uint32_t first_root) const {
  if (n_items <= 1) {
    check_short_tail(first_root);
    return;
  }
  if (first_root < n_items) fail_at(first_root, "is an item, but a root by its count");
  if (descendants(n_items) < 2) {
    fail_at(n_items, "stands behind the items, but is one: truncated");
  }
  // The run of roots starts with the last tree's own root and holds its copy; in its
  // first versions, where a root came before what is below it, with the copy of the first tree's.
  const auto same = [this](std::uint32_t a, std::uint32_t b) {
    return std::memcmp(node_at(a), node_at(b), layout.node_bytes) == 0;
  };
  bool has_twin = first_root != n_items && same(first_root, n_items);
  for (std::uint32_t copy = first_root + 1; copy < n_nodes && !has_twin; ++copy) {
    has_twin = same(first_root, copy);
  }
  if (!has_twin) fail("the list of roots at its end is not complete: truncated");
}

// With one item or none, all nodes count as many descendants: the items and the roots alike.
void AnnoyFile::State::check_short_tail(std::uint32_t first_root) const {
  if (first_root > 0 || n_nodes < 2 + n_items) {
    fail_at(first_root, "and what follows count too few items: truncated");
  }
  if (n_items == 0) return;
  const std::vector<std::byte> zeros(layout.node_bytes - 4);
  for (std::uint32_t node = 1; node < sampled_of(n_nodes); ++node) {
    if (std::memcmp(node_at(node) + 4, zeros.data(), zeros.size()) != 0) {
      fail_at(node, "is not the root of a single item: truncated");
    }
  }
}

void AnnoyFile::State::check_sample() const {
  const auto spread = [this](std::uint32_t first, std::uint32_t end, const auto& check) {
    const std::uint64_t count = end - first;
    const std::uint64_t sampled = sampled_of(count);
    for (std::uint64_t i = 0; i < sampled; ++i) {
      check(first + static_cast<std::uint32_t>(i * count / sampled));
    }
  };
  double shared_norm = 0.0;
  spread(0, n_items, [&](std::uint32_t item) {
    check_item(item);
    if (metric == AnnoyMetric::dot) check_shared_norm(item, &shared_norm);
  });
  spread(n_items, n_nodes, [this](std::uint32_t node) { check_inner(node); });
  const std::uint32_t n_roots = static_cast<std::uint32_t>(roots.size());
  spread(0, n_roots, [this](std::uint32_t i) {
    if (roots[i] >= n_items) check_inner(roots[i]);
  });
}

void AnnoyFile::State::check_item(std::uint32_t item) const {
  if (item_descendants(item) == 0) return;
  if (metric == AnnoyMetric::angular) {
    check_kept_norm(item);
    return;
  }
  if (child(item, 0) != 0 || child(item, 1) != 0) fail_at(item, "is an item and has children");
  if (metric != AnnoyMetric::hamming || f % kWordBits == 0) return;
  const std::uint64_t last =
      load<std::uint64_t>(vector_at(item) + std::uint64_t{8} * (words_of(f) - 1));
  if (last >> f % kWordBits != 0) fail_at(item, "has bits beyond dimension f");
}

// Annoy keeps the squared norm beside an angular vector; its first versions kept zero.
void AnnoyFile::State::check_kept_norm(std::uint32_t item) const {
  const float kept = load<float>(node_at(item) + layout.children);
  const float* values = elements<float>(vector_at(item));
  const double square = kernels().dot_square_f32(values, values, f).square;
  const bool comparable = std::isfinite(kept) && std::isfinite(square);
  if (kept == 0.0f || (!comparable && !(square < std::numeric_limits<float>::max()))) return;
  if (!(std::abs(kept - square) <= 1e-3 * square)) {
    fail_at(item, "keeps a norm that is not its vector's");
  }
}

// Annoy gives each dot vector one more component, so that all have the same norm.
void AnnoyFile::State::check_shared_norm(std::uint32_t item, double* shared) const {
  if (descendants(item) == 0) return;
  const float* values = elements<float>(vector_at(item));
  const double extra = load<float>(node_at(item) + layout.offset_term);
  const double square = kernels().dot_square_f32(values, values, f).square + extra * extra;
  if (!(square < std::numeric_limits<float>::max())) return;
  if (*shared == 0.0) *shared = square;
  if (!(std::abs(square - *shared) <= 1e-3 * *shared)) {
    fail_at(item, "has a norm other than the one all items share");
  }
}

void AnnoyFile::State::check_inner(std::uint32_t node) const {
  const std::int32_t n = descendants(node);
  if (n < (n_items == 0 ? 0 : 1) || static_cast<std::uint32_t>(n) > n_items) {
    fail_at(node, "has " + std::to_string(n) + " descendants in an index of " +
                      std::to_string(n_items) + " items");
  }
  if (is_leaf(n)) {
    for (std::int32_t i = 0; i < n; ++i)
      checked_child(node, static_cast<std::uint32_t>(i), n_items);
    return;
  }
  std::int64_t below = 0;
  for (const std::uint32_t which : {0u, 1u})
    below += descendants(checked_child(node, which, n_nodes));
  // A root counts holes as well.
  if (below > n || (below < n && static_cast<std::uint32_t>(n) != n_items)) {
    fail_at(node, "has " + std::to_string(n) + " descendants, but its children have " +
                      std::to_string(below));
  }
}

// ---- asking ------------------------------------------------------------------------------

void AnnoyFile::State::push_children(std::uint32_t node, float margin, const ExactQuery& query,
                                     std::vector<Waiting>* queue) const {
  const std::uint32_t left = checked_child(node, 0, n_nodes);
  const std::uint32_t right = checked_child(node, 1, n_nodes);
  float left_margin, right_margin;
  if (metric == AnnoyMetric::hamming) {
    // The split asks for one bit, counted from the most significant of its word; margins count
    // how many splits went the other way.
    const std::uint64_t bit = load<std::uint64_t>(vector_at(node));
    const std::uint64_t bits = std::uint64_t{words_of(f)} * kWordBits;
    if (bit >= bits)
      fail_at(node, "splits on bit " + std::to_string(bit) + " of " + std::to_string(bits));
    const std::uint64_t word = elements<std::uint64_t>(query.bits)[bit / kWordBits];
    const bool is_set = word >> (kWordBits - 1 - bit % kWordBits) & 1;
    left_margin = margin - (is_set ? 1.0f : 0.0f);
    right_margin = margin - (is_set ? 0.0f : 1.0f);
  } else {
    float side = kernels().dot_f32(elements<float>(vector_at(node)), query.values, f);
    if (layout.offset_term != 0) {
      const float term = load<float>(node_at(node) + layout.offset_term);
      side += metric == AnnoyMetric::dot ? term * term : term;
    }
    // Not a number (of a damaged node): both sides are visited last.
    const bool comparable = !std::isnan(side);
    left_margin = comparable ? std::min(margin, -side) : -std::numeric_limits<float>::infinity();
    right_margin = comparable ? std::min(margin, side) : -std::numeric_limits<float>::infinity();
  }
  for (const Waiting& next : {Waiting{right_margin, right}, Waiting{left_margin, left}}) {
    queue->push_back(next);
    std::push_heap(queue->begin(), queue->end(), waits_behind);
  }
  prefetch_l2(node_at(left_margin > right_margin ? left : right), layout.node_bytes);
}

void AnnoyFile::State::collect(const ExactQuery& query, std::uint64_t search_k, Scratch* scratch,
                               SeenGuard* candidates) const {
  std::vector<Waiting>& queue = scratch->queue;
  const float start =
      metric == AnnoyMetric::hamming ? 0.0f : std::numeric_limits<float>::infinity();
  for (const std::uint32_t root : roots) queue.push_back({start, root});
  std::make_heap(queue.begin(), queue.end(), waits_behind);

  std::uint64_t found = 0;  // as Annoy counts: an item once for each tree that offers it
  // In sound trees a node has one parent, so no query visits more nodes than there are.
  std::uint64_t visits_left = std::uint64_t{n_nodes} + roots.size();
  while (found < search_k && !queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), waits_behind);
    const Waiting next = queue.back();
    queue.pop_back();
    if (visits_left-- == 0) fail("its trees run in circles");
    if (next.node < n_items) {
      if (item_descendants(next.node) == 1) {
        candidates->add(next.node);
        ++found;
      }
      continue;
    }
    const std::int32_t n = descendants(next.node);
    if (n < 0) fail_at(next.node, "has " + std::to_string(n) + " descendants");
    if (!is_leaf(n)) {
      push_children(next.node, next.margin, query, &queue);
      continue;
    }
    for (std::int32_t i = 0; i < n; ++i) {
      candidates->add(checked_child(next.node, static_cast<std::uint32_t>(i), n_items));
    }
    found += static_cast<std::uint64_t>(n);
  }
}

// Orders candidates in float32, as Annoy does; the few that are returned are scored exactly.
float AnnoyFile::State::quick_key(const ExactQuery& query, std::uint32_t item) const {
  const std::byte* vector = vector_at(item);
  const float* values = elements<float>(vector);
  switch (metric) {
    case AnnoyMetric::euclidean: return kernels().l2_squared_build_f32(query.values, values, f);
    case AnnoyMetric::dot: return -kernels().dot_f32(query.values, values, f);
    case AnnoyMetric::angular: {
      const double kept = load<float>(node_at(item) + layout.children);
      if (!(kept > 0.0)) break;
      const double norms = std::sqrt(query.square * kept);
      const float dot = kernels().dot_f32(query.values, values, f);
      return norms > 0.0 ? static_cast<float>(-dot / norms) + 1.0f : 1.0f;
    }
    case AnnoyMetric::manhattan:
    case AnnoyMetric::hamming: break;
  }
  return static_cast<float>(scorer.key(query, vector));
}

void AnnoyFile::State::score(const ExactQuery& query, Scratch* scratch) const {
  const std::vector<std::uint32_t>& candidates = scratch->candidates;
  const std::size_t count = candidates.size();
  const auto fetch = [&](std::size_t i) { prefetch_l2(node_at(candidates[i]), layout.node_bytes); };
  for (std::size_t i = 0; i < std::min(count, kRowsAhead); ++i) fetch(i);
  for (std::size_t i = 0; i < count; ++i) {
    if (i + kRowsAhead < count) fetch(i + kRowsAhead);
    const std::uint32_t item = candidates[i];
    if (item_descendants(item) == 0) continue;  // a short leaf's list is padded with item 0
    scratch->scored.push_back({comparable(quick_key(query, item)), item});
  }
}

AnnoyFile::AnnoyFile(const std::string& path, std::uint32_t f, AnnoyMetric metric, bool prefault)
    : state_(std::make_unique<State>(path, f, metric)) {
  state_->read_size();
  state_->find_roots();
  state_->check_sample();
  if (prefault) state_->file.warm();
}

AnnoyFile::~AnnoyFile() = default;

std::uint32_t AnnoyFile::n_items() const noexcept { return state_->n_items; }

std::uint32_t AnnoyFile::n_trees() const noexcept {
  return static_cast<std::uint32_t>(state_->roots.size());
}

void AnnoyFile::item_vector(std::uint32_t item, float* out) const {
  state_->check_range(item);
  state_->item_descendants(item);
  const std::byte* vector = state_->vector_at(item);
  if (state_->metric != AnnoyMetric::hamming) {
    std::memcpy(out, vector, std::size_t{4} * state_->f);
    return;
  }
  const std::uint64_t* words = elements<std::uint64_t>(vector);
  for (std::uint32_t i = 0; i < state_->f; ++i) {
    out[i] = static_cast<float>(words[i / kWordBits] >> i % kWordBits & 1);
  }
}

bool AnnoyFile::has_item(std::uint32_t item) const {
  return item < state_->n_items && state_->item_descendants(item) == 1;
}

double AnnoyFile::distance(std::uint32_t a, std::uint32_t b) const {
  state_->check_range(a);
  state_->check_range(b);
  return state_->scorer.distance(state_->scorer.key(state_->item_query(a), state_->vector_at(b)));
}

void AnnoyFile::nearest(const float* query, std::uint32_t n, std::uint64_t search_k,
                        std::vector<std::uint32_t>* items, std::vector<float>* distances) const {
  items->clear();
  distances->clear();
  if (state_->n_items == 0 || n == 0) return;
  if (search_k == 0) search_k = std::uint64_t{n} * n_trees();
  std::vector<std::uint64_t> words;
  if (state_->metric == AnnoyMetric::hamming) words = packed(query, state_->f);
  const ExactQuery asked = state_->query_of(query, elements<std::uint8_t>(words.data()));

  static thread_local Scratch scratch;
  SeenGuard candidates(&scratch, state_->n_items);
  state_->collect(asked, search_k, &scratch, &candidates);
  state_->score(asked, &scratch);

  std::vector<Scored>& scored = scratch.scored;
  const std::size_t count = std::min<std::size_t>(n, scored.size());
  const auto last = scored.begin() + static_cast<std::ptrdiff_t>(count);
  if (count < scored.size()) std::nth_element(scored.begin(), last, scored.end(), nearer);
  for (auto each = scored.begin(); each != last; ++each) {
    each->key = comparable(state_->scorer.key(asked, state_->vector_at(each->item)));
  }
  std::sort(scored.begin(), last, nearer);
  items->reserve(count);
  distances->reserve(count);
  for (auto each = scored.begin(); each != last; ++each) {
    items->push_back(each->item);
    distances->push_back(static_cast<float>(state_->scorer.distance(each->key)));
  }
}

void AnnoyFile::save(const std::string& path) const {
  AtomicFile copy(path);
  copy.append(state_->file.data(), state_->file.bytes());
  copy.commit();
}

double annoy_distance(AnnoyMetric metric, std::uint32_t f, const float* a, const float* b) {
  const ExactScorer scorer = scorer_of(metric, f);
  const auto key = [&scorer](const void* first, const void* second) {
    const ExactQuery query = scorer.prepare(elements<float>(first), elements<std::uint8_t>(first));
    return scorer.key(query, static_cast<const std::byte*>(second));
  };
  if (metric != AnnoyMetric::hamming) return scorer.distance(key(a, b));
  return scorer.distance(key(packed(a, f).data(), packed(b, f).data()));
}

void save_empty_annoy(const std::string& path, std::uint32_t f, AnnoyMetric metric,
                      std::uint32_t n_trees) {
  // Each tree is a root without descendants, and its copy.
  const std::vector<std::byte> zeros(layout_of(metric, f).node_bytes);
  AtomicFile file(path);
  for (std::uint64_t node = 0; node < std::uint64_t{2} * n_trees; ++node) {
    file.append(zeros.data(), zeros.size());
  }
  file.commit();
}

}  // namespace annidx
