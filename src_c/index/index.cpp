// index.cpp owns the states of an index; see index.h.
#include "index/index.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/tuning.h"
#include "format/format.h"
#include "format/sets.h"
#include "index/build.h"
#include "kernels/kernels.h"
#include "os/file.h"
#include "rows/metric.h"
#include "rows/vectors.h"
#include "search/calibrate.h"
#include "search/curve.h"
#include "search/item_graph.h"
#include "search/loaded.h"
#include "search/searcher.h"

namespace annidx {
namespace {

// Memory that a build fills and the index then keeps.
class InMemory final : public ImagePlace {
 public:
  std::unique_ptr<Memory> allocate(std::uint64_t bytes) override {
    return allocate_anonymous(bytes);
  }
};

// A file that appears under its name only when the build is complete.
class InFile final : public ImagePlace {
 public:
  explicit InFile(const std::string& path) : file_(path) {}
  std::unique_ptr<Memory> allocate(std::uint64_t bytes) override {
    return file_.map_writable(bytes);
  }
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
};

// A file that appears under its name only when all was written.
class FileSink final : public ByteSink {
 public:
  explicit FileSink(const std::string& path) : file_(path) {}
  void append(const void* data, std::uint64_t bytes) override { file_.append(data, bytes); }
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
};

[[noreturn]] void wrong_state(const std::string& message) {
  throw Error(ErrorCode::state, message);
}

std::string hex(const std::uint8_t* bytes, std::size_t count) {
  static const char kDigits[] = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

const char* scan_name(Scan scan) noexcept {
  switch (scan) {
    case Scan::codes: return "codes";
    case Scan::byte_rows: return "byte_rows";
    case Scan::bits: return "bits";
    case Scan::vectors: return "vectors";
  }
  return "unknown";
}

// Each thread keeps its buffers between queries; they end with the thread.
Searcher& thread_searcher() {
  thread_local Searcher searcher;
  return searcher;
}

}  // namespace

void prepare_thread() {
  thread_searcher();
  ready_exceptions();
}

struct Index::State {
  State(Metric metric_in, Dtype dtype_in, std::uint32_t dim_in)
      : metric(metric_in),
        dtype(dtype_in),
        dim(dim_in),
        source(std::make_unique<RowSource>(dtype_in, dim_in)) {}

  Metric metric;
  Dtype dtype;
  std::uint32_t dim;
  // Filling.
  std::unique_ptr<RowSource> source;
  IdCollector ids;
  // Built or opened.
  std::unique_ptr<LoadedImage> loaded;
  std::vector<format::CurvePoint> curve;
  bool is_tuned = false;      // the curve is not the image's
  bool has_own_sets = false;  // named sets are not the image's
  std::vector<std::byte> own_sets;
  MappedFile* mapped = nullptr;  // the loaded image's memory when it is a mapped file
  std::string path;

  const LoadedImage& built() const {
    if (!loaded) wrong_state("the index is not built yet: call build() first");
    return *loaded;
  }
  format::Bytes sets_section() const {
    if (has_own_sets) return {own_sets.data(), own_sets.size()};
    const format::View& view = built().view();
    return {view.section(format::Section::sets), view.section_bytes(format::Section::sets)};
  }
  format::SetsView sets() const {
    const format::Bytes section = sets_section();
    if (section.size == 0) return {};
    return {section.data, section.size, built().items(), built().name()};
  }
  void adopt(std::unique_ptr<Memory> memory, const std::string& name) {
    loaded = std::make_unique<LoadedImage>(std::move(memory), name);
    const auto* points = loaded->view().array<format::CurvePoint>(format::Section::curve);
    if (points) curve.assign(points, points + loaded->view().params.curve_points);
  }
  void adopt_file(const std::string& file_path) {
    auto file = std::make_unique<MappedFile>(file_path);
    mapped = file.get();
    path = file_path;
    adopt(std::move(file), "'" + file_path + "'");
  }
};

Index::Index(Metric metric, Dtype dtype, std::uint32_t dim) {
  require_metric_allows(metric, dtype);
  if (dim < 1 || dim > kMaxDim) {
    throw Error(ErrorCode::invalid_argument,
                "dim: expected 1 to " + std::to_string(kMaxDim) + ", got " + std::to_string(dim));
  }
  state_ = std::make_unique<State>(metric, dtype, dim);
}

Index::~Index() = default;

// ---- filling ---------------------------------------------------------------------------------

bool Index::accepts(InputType type) const noexcept {
  return state_->source && state_->source->accepts(type);
}

void Index::add(const void* rows, InputType type, std::uint64_t n, const Ids& ids, bool borrowed) {
  if (!state_->source) wrong_state("the index is already built: items cannot be added to it");
  if (!accepts(type)) {
    throw Error(ErrorCode::invalid_argument,
                std::string("vectors: these elements do not fit dtype '") +
                    dtype_name(state_->dtype) + "' or the vectors added before");
  }
  state_->source->add(rows, type, n, borrowed);
  try {
    if (ids.int64_ids) {
      state_->ids.add_int64(ids.int64_ids, n);
    } else if (ids.text_offsets) {
      state_->ids.add_text(ids.text, ids.text_offsets, n);
    } else {
      state_->ids.add_implicit(n);
    }
  } catch (...) {
    state_->source->take_back(n);
    throw;
  }
}

void Index::build(const BuildOptions& options) {
  State& s = *state_;
  if (!s.source) wrong_state("the index is already built");
  if (s.source->size() == 0) {
    throw Error(ErrorCode::invalid_argument, "build: the index is empty: add items first");
  }
  if (!(options.recall >= 0.0 && options.recall <= 1.0)) {
    throw Error(ErrorCode::invalid_argument, "recall: expected more than 0 and at most 1, got " +
                                                 std::to_string(options.recall));
  }
  if (options.neighbours > tuning::kMostNeighbours) {
    throw Error(ErrorCode::invalid_argument, "neighbours: expected 0 to " +
                                                 std::to_string(tuning::kMostNeighbours) +
                                                 ", got " + std::to_string(options.neighbours));
  }
  if (options.memory_limit && options.out_path.empty()) {
    throw Error(ErrorCode::invalid_argument,
                "memory_limit: works together with out=, the file that is built in place");
  }
  const std::uint64_t least = least_memory(s.source->size(), s.dim, options.neighbours);
  if (options.memory_limit && options.memory_limit < least) {
    throw Error(ErrorCode::invalid_argument,
                "memory_limit: " + std::to_string(s.source->size()) + " items of dimension " +
                    std::to_string(s.dim) + " need at least " + std::to_string(least) +
                    " bytes, got " + std::to_string(options.memory_limit));
  }
  s.source->settle();
  if (options.memory_limit)
    s.source->limit_resident(options.memory_limit / tuning::kFileMemoryShare);
  TrainPlan training;
  training.metric = s.metric;
  training.hold_out = options.recall > 0.0 && options.n_queries == 0;
  training.lean = options.lean;
  training.value_scale = s.source->value_scale();
  training.given_bytes = s.source->given_bytes();
  training.n_threads = thread_count(options.n_jobs);
  training.seed = options.seed;
  training.memory_limit = options.memory_limit;
  training.monitor = options.monitor;
  const Encoder encoder(train_model(*s.source, training));
  BuildPlan plan;
  plan.n_trees = options.n_trees == 0 ? 1 : options.n_trees;
  plan.measure_recall = options.recall > 0.0;
  plan.default_recall = plan.measure_recall ? static_cast<float>(options.recall) : 0.95f;
  plan.lean = options.lean;
  plan.neighbours = options.neighbours;
  plan.n_threads = thread_count(options.n_jobs);
  plan.seed = options.seed;
  plan.queries = static_cast<const std::byte*>(options.queries);
  plan.n_queries = options.n_queries;
  plan.memory_limit = options.memory_limit;
  plan.library_version = library_version();
  plan.monitor = options.monitor;
  if (options.out_path.empty()) {
    InMemory place;
    s.adopt(build_image(*s.source, s.ids, encoder, {}, plan, &place), "the index");
  } else {
    InFile place(options.out_path);
    build_image(*s.source, s.ids, encoder, {}, plan, &place).reset();
    place.commit();
    s.adopt_file(options.out_path);
  }
  s.source.reset();
  s.ids.release_memory();
}

void Index::clear() {
  state_ = std::make_unique<State>(state_->metric, state_->dtype, state_->dim);
}

// ---- opening and saving ----------------------------------------------------------------------

std::unique_ptr<Index> Index::open(const std::string& path, const OpenOptions& options) {
  auto index = std::make_unique<Index>(Metric::euclidean, Dtype::float32, 1);
  State& s = *index->state_;
  s.source.reset();
  s.adopt_file(path);
  s.metric = s.loaded->metric();
  s.dtype = s.loaded->dtype();
  s.dim = s.loaded->dim();
  // Queries read scattered pages; read-ahead would bring in what nobody asked for.
  s.mapped->advise_random();
  if (options.warm) s.mapped->warm();
  if (options.lock) s.mapped->lock();
  return index;
}

std::unique_ptr<Index> Index::from_bytes(const void* image, std::uint64_t bytes,
                                         std::shared_ptr<void> keeper) {
  auto index = std::make_unique<Index>(Metric::euclidean, Dtype::float32, 1);
  State& s = *index->state_;
  s.source.reset();
  std::unique_ptr<Memory> memory;
  if (keeper) {
    memory = borrow(image, bytes, std::move(keeper));
  } else {
    memory = allocate_anonymous(std::max<std::uint64_t>(bytes, 1));
    std::memcpy(memory->mutable_data(), image, bytes);
  }
  s.adopt(std::move(memory), "bytes");
  s.metric = s.loaded->metric();
  s.dtype = s.loaded->dtype();
  s.dim = s.loaded->dim();
  return index;
}

namespace {

// A copy of an image with another curve, sealed.
std::unique_ptr<Memory> image_with_curve(const format::View& view,
                                         const std::vector<format::CurvePoint>& curve) {
  const format::FileHeader& header = view.header;
  const auto metric = static_cast<Metric>(header.metric);
  const auto dtype = static_cast<Dtype>(header.dtype);
  format::Params params = view.params;
  params.curve_points = static_cast<std::uint32_t>(curve.size());
  const auto kind = static_cast<format::FileKind>(header.kind);
  const auto sections =
      format::plan_sections(kind, metric, dtype, header.dim, header.item_count, params,
                            {view.section_bytes(format::Section::id_text),
                             view.section_bytes(format::Section::removed_text)});
  std::unique_ptr<Memory> memory = allocate_anonymous(format::image_bytes(sections));
  std::byte* image = memory->mutable_data();
  format::begin_image(image, kind, metric, dtype, header.dim, header.item_count, params, sections,
                      library_version(), header.base_identity);
  for (const format::PlannedSection& section : sections) {
    const bool is_new = section.kind == format::Section::params ||
                        section.kind == format::Section::curve || section.bytes == 0;
    if (is_new) continue;
    std::memcpy(format::mutable_section(image, section.kind), view.section(section.kind),
                section.bytes);
  }
  std::memcpy(format::mutable_section(image, format::Section::curve), curve.data(),
              sizeof(format::CurvePoint) * curve.size());
  format::seal_image(image);
  return memory;
}

}  // namespace

namespace {

// Hands the parts of an image with this metadata and these sets to write(bytes, count), in order.
template <class Write>
void write_image(const format::View& view, const std::string& metadata, const format::Bytes& sets,
                 const Write& write) {
  const std::vector<std::byte> head = format::head_with(view, metadata, sets);
  write(head.data(), head.size());
  const std::uint64_t begin = format::head_bytes(view);
  write(view.image + begin, format::body_end(view) - begin);
  write(metadata.data(), metadata.size());
  if (sets.size == 0) return;
  const std::vector<std::byte> padding(format::metadata_padding(metadata));
  write(padding.data(), padding.size());
  write(sets.data, sets.size);
}

}  // namespace

void Index::write(ByteSink* sink, const std::string& metadata, const std::vector<std::byte>& sets,
                  Monitor* monitor) const {
  format::require_text(metadata);
  const LoadedImage& loaded = state_->built();
  std::unique_ptr<LoadedImage> tuned;
  if (state_->is_tuned) {
    tuned = std::make_unique<LoadedImage>(image_with_curve(loaded.view(), state_->curve),
                                          loaded.name());
  }
  const format::View& view = tuned ? tuned->view() : loaded.view();
  constexpr std::uint64_t kPiece = std::uint64_t{16} << 20;
  const std::uint64_t end = format::body_end(view);
  std::uint64_t done = format::head_bytes(view);
  write_image(view, metadata, {sets.data(), sets.size()}, [&](const void* bytes, std::uint64_t n) {
    const auto* from = static_cast<const std::byte*>(bytes);
    for (std::uint64_t at = 0; at < n; at += kPiece) {
      const std::uint64_t piece = std::min(kPiece, n - at);
      sink->append(from + at, piece);
      done = std::min(end, done + piece);
      if (monitor) {
        monitor->poll();
        monitor->progress("save", done, end);
      }
    }
  });
}

void Index::save(const std::string& path, const std::string& metadata,
                 const std::vector<std::byte>& sets, Monitor* monitor) const {
  // Before a file is made.
  format::require_text(metadata);
  state_->built();
  FileSink file(path);
  write(&file, metadata, sets, monitor);
  file.commit();
}

std::string Index::metadata() const {
  const format::View& view = state_->built().view();
  const std::byte* text = view.section(format::Section::metadata);
  const std::uint64_t bytes = view.section_bytes(format::Section::metadata);
  return std::string(static_cast<const char*>(static_cast<const void*>(text)), text ? bytes : 0);
}

// ---- named sets ------------------------------------------------------------------------------

namespace {

// Sets are told apart by the identity in the header, which a crafted file may have copied.
void require_set_fits(const SlotSet& set, const LoadedImage& loaded) {
  if (set.slot_count() == loaded.items()) return;
  throw Error(ErrorCode::invalid_argument,
              "IdSet: it was made for an index of " + std::to_string(set.slot_count()) +
                  " items, this one has " + std::to_string(loaded.items()));
}

}  // namespace

std::vector<Index::NamedSet> Index::named_sets() const {
  std::vector<NamedSet> found;
  const format::SetsView sets = state_->sets();
  for (const auto& set : sets.sets()) found.push_back({set.name, set.count});
  return found;
}

bool Index::read_set(const std::string& name, SlotSet* out) const {
  const format::SetsView sets = state_->sets();
  const format::SetsView::Set* set = sets.find(name);
  if (set == nullptr) return false;
  for (const Row row : sets.rows_of(*set)) out->insert(state_->built().slot_of(row));
  return true;
}

std::vector<std::byte> Index::encoded_sets(const std::vector<std::string>& names,
                                           const std::vector<const SlotSet*>& sets) const {
  const LoadedImage& loaded = state_->built();
  std::vector<format::NamedRows> named;
  for (std::size_t i = 0; i < names.size(); ++i) {
    require_set_fits(*sets[i], loaded);
    format::NamedRows rows{names[i], std::vector<std::uint64_t>((loaded.items() + 63) / 64)};
    for (const Slot slot : sets[i]->to_slots()) {
      const Row row = checked_row(loaded.search(), slot);
      rows.words[row / 64] |= std::uint64_t{1} << row % 64;
    }
    named.push_back(std::move(rows));
  }
  return format::write_sets(std::move(named), loaded.items());
}

std::vector<std::byte> Index::encoded_sets() const {
  const format::Bytes section = state_->sets_section();
  return {section.data, section.data + section.size};
}

void Index::replace_sets(std::vector<std::byte> encoded) {
  state_->own_sets = std::move(encoded);
  state_->has_own_sets = true;
}

// ---- asking ----------------------------------------------------------------------------------

namespace {

// Takes what was found for query i.
using Take = std::function<void(std::uint64_t i, const std::vector<Neighbour>& found)>;

// Texts do not overlap in a sound file; in a damaged one each could be all of them.
void check_texts(const LoadedImage& loaded, const std::vector<Neighbour>& found) {
  std::uint64_t bytes_left = loaded.ids().text_bytes;
  for (const Neighbour& neighbour : found) {
    const std::uint64_t bytes = loaded.ids().text_of(neighbour.row).size();
    if (bytes > bytes_left) {
      throw Error(ErrorCode::format,
                  loaded.name() + " is damaged: section 'id_text_offsets', entry " +
                      std::to_string(neighbour.row) + ": expected no overlap with other texts");
    }
    bytes_left -= bytes;
  }
}

std::int64_t name_of(const LoadedImage& loaded, Row row) {
  return loaded.ids().kind == IdKind::text ? static_cast<std::int64_t>(row)
                                           : loaded.ids().int64_of(row);
}

// Into k places a query; those that stay empty hold -1 and NaN.
Take into_places(const LoadedImage& loaded, std::uint32_t k, std::int64_t* ids, double* distances) {
  return [&loaded, k, ids, distances](std::uint64_t i, const std::vector<Neighbour>& found) {
    for (std::uint32_t j = 0; j < k; ++j) {
      const bool present = j < found.size();
      ids[i * k + j] = present ? name_of(loaded, found[j].row) : -1;
      distances[i * k + j] = present ? found[j].distance : std::numeric_limits<double>::quiet_NaN();
    }
  };
}

Take into_answers(const LoadedImage& loaded, Answer* answers) {
  return [&loaded, answers](std::uint64_t i, const std::vector<Neighbour>& found) {
    answers[i].ids.reserve(found.size());
    answers[i].distances.reserve(found.size());
    for (const Neighbour& neighbour : found) {
      answers[i].ids.push_back(name_of(loaded, neighbour.row));
      answers[i].distances.push_back(neighbour.distance);
    }
  };
}

void require_sets_fit(const LoadedImage& loaded, const QueryOptions& options) {
  for (std::uint64_t i = 0; i < options.eligible_count; ++i) {
    require_set_fits(*options.eligible[i], loaded);
  }
}

class BatchQuery {
 public:
  // `all_within`: everything within the radius instead of k.
  BatchQuery(const LoadedImage& loaded, const QueryOptions& options, const Setting& setting,
             bool all_within, const Take& take)
      : loaded_(loaded),
        options_(options),
        setting_(setting),
        all_within_(all_within),
        take_(take) {
    require_sets_fit(loaded, options);
  }

  const LoadedImage& loaded() const noexcept { return loaded_; }
  const QueryOptions& options() const noexcept { return options_; }

  void run(std::uint64_t i, const void* values, Searcher* searcher) const {
    Request request;
    request.k = all_within_ ? loaded_.items() : options_.k;
    request.setting = setting_;
    request.has_radius = options_.has_radius;
    request.radius = options_.radius;
    request.all_within = all_within_;
    if (options_.eligible_count > 0) {
      request.eligible = options_.eligible[options_.eligible_count == 1 ? 0 : i];
    }
    if (options_.excluded) request.excluded = options_.excluded[i];
    if (options_.leading) request.leading = options_.leading[i];
    const std::vector<Neighbour>& found = searcher->run(loaded_.search(), values, request);
    if (loaded_.ids().kind == IdKind::text) check_texts(loaded_, found);
    take_(i, found);
  }

 private:
  const LoadedImage& loaded_;
  const QueryOptions& options_;
  Setting setting_;
  bool all_within_;
  const Take& take_;
};

void require_finite(const float* values, std::uint32_t dim, std::uint64_t row) {
  const std::size_t bad = kernels().first_nonfinite(values, dim);
  if (bad == dim) return;
  throw Error(ErrorCode::invalid_argument, "queries: expected finite numbers; row " +
                                               std::to_string(row) + " holds " +
                                               (std::isnan(values[bad]) ? "NaN" : "an infinity") +
                                               " at position " + std::to_string(bad));
}

void require_row(Row row, const LoadedImage& loaded) {
  if (row < loaded.items()) return;
  throw Error(ErrorCode::out_of_range, "row " + std::to_string(row) + ": expected less than " +
                                           std::to_string(loaded.items()));
}

Setting choose_setting(const std::vector<format::CurvePoint>& curve, const LoadedImage& loaded,
                       const QueryOptions& options) {
  const double recall = options.recall > 0.0
                            ? options.recall
                            : static_cast<double>(loaded.view().params.default_recall);
  if (options.exact || (options.search_k == 0 && recall >= 1.0)) {
    return {loaded.items(), loaded.items(), 0, loaded.items(), loaded.items(), true};
  }
  return options.search_k > 0
             ? setting_for_candidates(curve, options.k, options.search_k, loaded.items())
             : setting_for_recall(curve, options.k, recall, loaded.items());
}

// One query on the calling thread, many on several.
void for_each_query(std::uint64_t n, const QueryOptions& options,
                    const std::function<void(std::uint64_t, Searcher*)>& body) {
  if (n == 1) {
    body(0, &thread_searcher());
    return;
  }
  const unsigned threads = thread_count(options.n_jobs);
  // New threads touch no buffer of the thread: where its memory cannot be had, the C library ends
  // the process.
  std::vector<Searcher> searchers(threads > 1 ? threads : 0);
  parallel_for(
      threads, n, tuning::kBatchGrain,
      [&](std::uint64_t begin, std::uint64_t end, unsigned worker) {
        Searcher& searcher = searchers.empty() ? thread_searcher() : searchers[worker];
        for (std::uint64_t i = begin; i < end; ++i) body(i, &searcher);
      },
      options.monitor);
}

void ask(const BatchQuery& batch, const void* queries, std::uint64_t n, std::uint64_t row_bytes) {
  const auto* rows = static_cast<const std::byte*>(queries);
  const std::uint32_t dim = batch.loaded().dim();
  const bool floats = batch.loaded().metric() != Metric::hamming;
  for_each_query(n, batch.options(), [&](std::uint64_t i, Searcher* searcher) {
    const void* values = rows + i * row_bytes;
    if (floats) require_finite(static_cast<const float*>(values), dim, i);
    batch.run(i, values, searcher);
  });
}

void ask_rows(const BatchQuery& batch, const std::vector<Slot>& slots) {
  for_each_query(slots.size(), batch.options(), [&](std::uint64_t i, Searcher* searcher) {
    std::vector<std::byte> values;
    item_as_query(batch.loaded().search(), slots[i], &values);
    batch.run(i, values.data(), searcher);
  });
}

std::vector<Slot> slots_of(const LoadedImage& loaded, const Row* rows, std::uint64_t n) {
  std::vector<Slot> slots(n);
  for (std::uint64_t i = 0; i < n; ++i) {
    require_row(rows[i], loaded);
    slots[i] = loaded.slot_of(rows[i]);
  }
  return slots;
}

QueryOptions about_items(const QueryOptions& options, const std::vector<Slot>& slots,
                         bool include_self) {
  QueryOptions resolved = options;
  (include_self ? resolved.leading : resolved.excluded) = slots.data();
  return resolved;
}

}  // namespace

std::uint64_t Index::query_bytes() const noexcept {
  return state_->metric == Metric::hamming ? stored_bytes(Dtype::bits, state_->dim)
                                           : sizeof(float) * state_->dim;
}

void Index::query(const void* queries, std::uint64_t n, const QueryOptions& options,
                  std::int64_t* ids, double* distances) const {
  const LoadedImage& loaded = state_->built();
  const Take take = into_places(loaded, options.k, ids, distances);
  const Setting setting = choose_setting(state_->curve, loaded, options);
  ask({loaded, options, setting, false, take}, queries, n, query_bytes());
}

void Index::query_within(const void* queries, std::uint64_t n, const QueryOptions& options,
                         Answer* answers) const {
  const LoadedImage& loaded = state_->built();
  const Take take = into_answers(loaded, answers);
  ask({loaded, options, {}, true, take}, queries, n, query_bytes());
}

void Index::query_rows(const Row* rows, std::uint64_t n, bool include_self,
                       const QueryOptions& options, std::int64_t* ids, double* distances) const {
  const LoadedImage& loaded = state_->built();
  const std::vector<Slot> slots = slots_of(loaded, rows, n);
  const QueryOptions resolved = about_items(options, slots, include_self);
  const Take take = into_places(loaded, options.k, ids, distances);
  const Setting setting = choose_setting(state_->curve, loaded, options);
  ask_rows({loaded, resolved, setting, false, take}, slots);
}

void Index::query_rows_within(const Row* rows, std::uint64_t n, bool include_self,
                              const QueryOptions& options, Answer* answers) const {
  const LoadedImage& loaded = state_->built();
  const std::vector<Slot> slots = slots_of(loaded, rows, n);
  const QueryOptions resolved = about_items(options, slots, include_self);
  const Take take = into_answers(loaded, answers);
  ask_rows({loaded, resolved, {}, true, take}, slots);
}

struct KnnGraph::State {
  ItemGraph graph;
  std::uint64_t items, k;
};

KnnGraph::KnnGraph(std::unique_ptr<State> state) : state_(std::move(state)) {}
KnnGraph::~KnnGraph() = default;

void KnnGraph::answer(Row first, std::uint64_t n, std::int64_t* rows, double* distances,
                      Monitor* monitor) const {
  if (first > state_->items || n > state_->items - first) {
    throw Error(ErrorCode::out_of_range, "rows " + std::to_string(first) + " to " +
                                             std::to_string(first + n) + ": expected at most " +
                                             std::to_string(state_->items));
  }
  state_->graph.answer(first, n, rows, distances, monitor);
}

std::unique_ptr<KnnGraph> Index::knn_graph(const QueryOptions& options, bool include_self) const {
  const LoadedImage& loaded = state_->built();
  GraphRequest request;
  request.k = options.k;
  request.include_self = include_self;
  request.recall = options.recall > 0.0 ? options.recall
                                        : static_cast<double>(loaded.view().params.default_recall);
  request.n_threads = thread_count(options.n_jobs);
  return std::unique_ptr<KnnGraph>(
      new KnnGraph(std::unique_ptr<KnnGraph::State>(new KnnGraph::State{
          {loaded.search(), state_->curve, request, options.monitor}, loaded.items(), options.k})));
}

double Index::distance(Row a, Row b) const {
  const LoadedImage& loaded = state_->built();
  std::vector<std::byte> values(query_bytes());
  vectors(&a, 1, values.data());
  const ExactScorer& scorer = loaded.scorer();
  std::vector<float> row_units(state_->dim);
  ExactQuery query;
  if (state_->metric == Metric::hamming) {
    query = scorer.prepare(
        nullptr, static_cast<const std::uint8_t*>(static_cast<const void*>(values.data())));
  } else {
    decode_row(state_->dtype, loaded.stored(loaded.slot_of(a)), state_->dim, row_units.data());
    query = scorer.prepare(row_units.data(), nullptr);
  }
  return scorer.distance(query, scorer.key(query, loaded.stored(loaded.slot_of(b))));
}

void Index::vectors(const Row* rows, std::uint64_t n, void* out) const {
  const LoadedImage& loaded = state_->built();
  const std::uint64_t bytes = query_bytes();
  for (std::uint64_t i = 0; i < n; ++i) {
    item_values(loaded.search(), loaded.slot_of(rows[i]), static_cast<std::byte*>(out) + i * bytes);
  }
}

void Index::stored_vectors(const Row* rows, std::uint64_t n, void* out) const {
  const LoadedImage& loaded = state_->built();
  const std::size_t bytes = loaded.search().row_bytes;
  for (std::uint64_t i = 0; i < n; ++i) {
    std::memcpy(static_cast<std::byte*>(out) + i * bytes, loaded.stored(loaded.slot_of(rows[i])),
                bytes);
  }
}

Row Index::find(std::int64_t id) const {
  return state_->loaded ? state_->loaded->ids().find_int64(id) : state_->ids.find_int64(id);
}

Row Index::find(std::string_view id) const {
  return state_->loaded ? state_->loaded->ids().find_text(id) : state_->ids.find_text(id);
}

std::int64_t Index::id_of(Row row) const {
  require_row(row, state_->built());
  return state_->loaded->ids().int64_of(row);
}

void Index::int64_ids(std::int64_t* out) const {
  const IdsView& ids = state_->built().ids();
  if (ids.kind == IdKind::text) wrong_state("the ids are text");
  if (ids.int64_ids) {
    std::memcpy(out, ids.int64_ids, ids.count * sizeof(std::int64_t));
  } else {
    std::iota(out, out + ids.count, std::int64_t{0});
  }
}

std::string_view Index::text_id_of(Row row) const {
  require_row(row, state_->built());
  return state_->loaded->ids().text_of(row);
}

Slot Index::slot_of(Row row) const {
  require_row(row, state_->built());
  return state_->loaded->slot_of(row);
}

void Index::tune(const void* queries, std::uint64_t n, std::uint32_t k, int n_jobs,
                 Monitor* monitor) {
  const LoadedImage& loaded = state_->built();
  if (n == 0) return;
  if (state_->metric != Metric::hamming) {
    for (std::uint64_t i = 0; i < n; ++i) {
      require_finite(static_cast<const float*>(queries) + i * state_->dim, state_->dim, i);
    }
  }
  CalibrationQueries asked;
  asked.rows = static_cast<const std::byte*>(queries);
  asked.row_bytes = query_bytes();
  asked.count = n;
  const std::vector<format::CurvePoint> measured =
      measure_curve(loaded.search(), asked, {k}, thread_count(n_jobs), monitor);
  std::vector<format::CurvePoint>& curve = state_->curve;
  curve.erase(std::remove_if(curve.begin(), curve.end(),
                             [&](const format::CurvePoint& point) { return point.k == k; }),
              curve.end());
  const auto place = std::find_if(curve.begin(), curve.end(),
                                  [&](const format::CurvePoint& point) { return point.k > k; });
  curve.insert(place, measured.begin(), measured.end());
  state_->is_tuned = true;
}

CurveRow Index::setting_for(std::uint32_t k, double recall) const {
  const Setting setting = setting_for_recall(state_->curve, k, recall, state_->built().items());
  return {k,
          recall,
          setting.opened,
          setting.candidates,
          setting.expanded,
          setting.rerank,
          setting.exact};
}

// ---- state -----------------------------------------------------------------------------------

Metric Index::metric() const noexcept { return state_->metric; }
Dtype Index::dtype() const noexcept { return state_->dtype; }
std::uint32_t Index::dim() const noexcept { return state_->dim; }
bool Index::built() const noexcept { return state_->loaded != nullptr; }
const std::string& Index::path() const noexcept { return state_->path; }

std::uint64_t Index::items() const noexcept {
  return state_->loaded ? state_->loaded->items() : state_->source->size();
}

IdKind Index::id_kind() const noexcept {
  return state_->loaded ? state_->loaded->ids().kind : state_->ids.kind();
}

IndexInfo Index::info() const {
  IndexInfo info{};
  info.metric = state_->metric;
  info.dtype = state_->dtype;
  info.dim = state_->dim;
  info.items = items();
  info.id_kind = id_kind();
  info.built = built();
  if (!info.built) return info;
  const format::View& view = state_->loaded->view();
  const format::Params& params = view.params;
  info.n_trees = params.tree_count;
  const auto* ranges = view.array<format::LeafRange>(format::Section::leaf_ranges);
  for (std::uint32_t i = 0; i < params.leaf_entries; ++i) info.leaves += ranges[i].count > 0;
  info.file_bytes = view.image_bytes;
  info.vector_bytes = view.section_bytes(format::Section::vectors);
  info.code_bytes = params.code_count / 2;
  info.format_version = view.header.version;
  info.default_recall = params.default_recall;
  info.value_scale = params.value_scale;
  info.seed = std::uint64_t{params.build_seed_high} << 32 | params.build_seed_low;
  info.identity = hex(view.header.identity, sizeof(view.header.identity));
  info.library_version.assign(view.header.library_version,
                              strnlen(view.header.library_version, 16));
  info.scan = scan_name(state_->loaded->search().scan);
  for (const format::CurvePoint& point : state_->curve) {
    info.curve.push_back({point.k, point.recall, point.opened, point.candidates, point.expanded,
                          point.rerank, point.exact});
  }
  for (const format::SectionEntry& entry : view.table) {
    info.sections.push_back({format::section_name(static_cast<format::Section>(entry.kind)),
                             entry.offset, entry.bytes});
  }
  return info;
}

void Index::verify(Monitor* monitor) const {
  const LoadedImage& loaded = state_->built();
  std::uint64_t done = 0;
  format::verify_deep(loaded.view(), loaded.name(), [&](std::uint64_t, std::uint64_t bytes) {
    if (!monitor) return;
    done += bytes;
    monitor->poll();
    monitor->progress("verify", done, loaded.view().image_bytes);
  });
}

double Index::residency() const {
  state_->built();
  if (!state_->mapped) return 1.0;
  return static_cast<double>(state_->mapped->resident_bytes()) /
         static_cast<double>(std::max<std::uint64_t>(state_->mapped->bytes(), 1));
}

void verify_file(const std::string& path) {
  auto file = std::make_unique<MappedFile>(path);
  const std::string name = "'" + path + "'";
  const LoadedImage loaded(std::move(file), name);
  format::verify_deep(loaded.view(), name);
}

const char* library_version() noexcept { return ANNIDX_VERSION; }

}  // namespace annidx
