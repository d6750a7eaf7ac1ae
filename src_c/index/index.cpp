// index.cpp owns the states of an index; see index.h.
#include "index/index.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "base/tuning.h"
#include "format/format.h"
#include "format/sets.h"
#include "index/build.h"
#include "index/merge.h"
#include "index/state.h"
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

// A file that appears under its name only when all was written.
class FileSink final : public ByteSink {
 public:
  explicit FileSink(const std::string& path) : file_(path) {}
  void append(const void* data, std::uint64_t bytes) override { file_.append(data, bytes); }
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
};

std::string hex(const std::uint8_t* bytes, std::size_t count) {
  static const char kDigits[] = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < count; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

std::string hex_of(std::uint64_t value) {
  std::uint8_t bytes[8];
  std::memcpy(bytes, &value, sizeof bytes);
  return hex(bytes, sizeof bytes);
}

const char* kind_name(std::uint32_t kind) noexcept {
  switch (static_cast<format::FileKind>(kind)) {
    case format::FileKind::index: return "index";
    case format::FileKind::model: return "model";
    case format::FileKind::part: return "part";
    case format::FileKind::changes: return "changes";
  }
  return "unknown";
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

}  // namespace

Part part_of(std::unique_ptr<Memory> memory, const std::string& name) {
  Part part;
  part.image = std::make_shared<const LoadedImage>(std::move(memory), name);
  const format::View& view = part.image->view();
  const auto* points = view.array<format::CurvePoint>(format::Section::curve);
  if (points) part.curve.assign(points, points + view.params.curve_points);
  return part;
}

Part part_of_file(const std::string& path) {
  auto file = std::make_unique<MappedFile>(path);
  MappedFile* mapped = file.get();
  Part part = part_of(std::move(file), "'" + path + "'");
  part.mapped = mapped;
  part.path = path;
  return part;
}

void Index::State::adopt_file(const std::string& file_path) {
  std::vector<Part> parts;
  parts.push_back(part_of_file(file_path));
  adopt(std::move(parts));
  path = file_path;
}

Index::Index(std::unique_ptr<State> state) : state_(std::move(state)) {}

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

namespace {

void require_buildable(const RowSource& source, const BuildOptions& options) {
  if (source.size() == 0) {
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
  const std::uint64_t least = least_memory(source.size(), source.dim(), options.neighbours);
  if (options.memory_limit && options.memory_limit < least) {
    throw Error(ErrorCode::invalid_argument,
                "memory_limit: " + std::to_string(source.size()) + " items of dimension " +
                    std::to_string(source.dim()) + " need at least " + std::to_string(least) +
                    " bytes, got " + std::to_string(options.memory_limit));
  }
}

BuildPlan plan_for(const BuildOptions& options) {
  BuildPlan plan;
  plan.n_trees = options.n_trees == 0 ? 1 : options.n_trees;
  plan.measure_recall = options.recall > 0.0;
  plan.default_recall = plan.measure_recall ? static_cast<float>(options.recall) : 0.95f;
  plan.neighbours = options.neighbours;
  plan.n_threads = thread_count(options.n_jobs);
  plan.seed = options.seed;
  plan.queries = static_cast<const std::byte*>(options.queries);
  plan.n_queries = options.n_queries;
  plan.memory_limit = options.memory_limit;
  plan.library_version = library_version();
  plan.monitor = options.monitor;
  return plan;
}

// Settles the source.
TrainedModel trained_on(RowSource* source, Metric metric, const BuildOptions& options,
                        std::uint64_t expected_items) {
  source->settle();
  if (options.memory_limit) {
    source->limit_resident(options.memory_limit / tuning::kFileMemoryShare);
  }
  TrainPlan training;
  training.metric = metric;
  training.expected_items = expected_items;
  training.hold_out = options.recall > 0.0 && options.n_queries == 0;
  training.lean = options.lean;
  training.value_scale = source->value_scale();
  training.given_bytes = source->given_bytes();
  training.n_threads = thread_count(options.n_jobs);
  training.seed = options.seed;
  training.memory_limit = options.memory_limit;
  training.monitor = options.monitor;
  return train_model(*source, training);
}

}  // namespace

void Index::build(const BuildOptions& options) {
  State& s = *state_;
  if (!s.source) wrong_state("the index is already built");
  require_buildable(*s.source, options);
  const Encoder encoder(trained_on(s.source.get(), s.metric, options, s.source->size()));
  const BuildPlan plan = plan_for(options);
  if (options.out_path.empty()) {
    InMemory place;
    std::vector<Part> parts;
    parts.push_back(part_of(build_image(*s.source, s.ids, encoder, {}, plan, &place), "the index"));
    s.adopt(std::move(parts));
  } else {
    InFile place(options.out_path);
    build_image(*s.source, s.ids, encoder, {}, plan, &place).reset();
    place.commit();
    s.adopt_file(options.out_path);
  }
  s.ids.release_memory();
}

void Index::train(const BuildOptions& options, std::uint64_t expected_items) {
  State& s = *state_;
  if (!s.source) wrong_state("the index is already built");
  require_buildable(*s.source, options);
  const Encoder encoder(trained_on(s.source.get(), s.metric, options, expected_items));
  BuildPlan plan = plan_for(options);
  plan.kind = format::FileKind::model;
  plan.measure_recall = false;
  InMemory place;
  std::vector<Part> parts;
  parts.push_back(
      part_of(build_image(RowSource(s.dtype, s.dim), IdCollector(), encoder, {}, plan, &place),
              "the model"));
  s.adopt(std::move(parts));
  s.ids.release_memory();
}

void Index::clear() {
  state_ = std::make_unique<State>(state_->metric, state_->dtype, state_->dim);
}

// ---- opening and saving ----------------------------------------------------------------------

void make_ready(const Part& part, const Index::OpenOptions& options) {
  // Queries read scattered pages; read-ahead would bring in what nobody asked for.
  part.mapped->advise_random();
  if (options.warm) part.mapped->warm();
  if (options.lock) part.mapped->lock();
}

std::unique_ptr<Index> Index::open(const std::string& path, const OpenOptions& options) {
  auto index = std::make_unique<Index>(Metric::euclidean, Dtype::float32, 1);
  index->state_->adopt_file(path);
  make_ready(index->state_->rows->base(), options);
  return index;
}

std::unique_ptr<Index> Index::from_bytes(const void* image, std::uint64_t bytes,
                                         std::shared_ptr<void> keeper) {
  auto index = std::make_unique<Index>(Metric::euclidean, Dtype::float32, 1);
  std::unique_ptr<Memory> memory;
  if (keeper) {
    memory = borrow(image, bytes, std::move(keeper));
  } else {
    memory = allocate_anonymous(std::max<std::uint64_t>(bytes, 1));
    std::memcpy(memory->mutable_data(), image, bytes);
  }
  std::vector<Part> parts;
  parts.push_back(part_of(std::move(memory), "bytes"));
  index->state_->adopt(std::move(parts));
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
  const LoadedImage& loaded = state_->base();
  std::unique_ptr<LoadedImage> tuned;
  if (is_changed()) {
    tuned = std::make_unique<LoadedImage>(merged_memory(monitor), loaded.name());
  } else if (state_->is_tuned) {
    tuned = std::make_unique<LoadedImage>(
        image_with_curve(loaded.view(), state_->built().base().curve), loaded.name());
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
  if (is_changed()) {
    merge(continued(path, metadata, sets, monitor));
    return;
  }
  FileSink file(path);
  write(&file, metadata, sets, monitor);
  file.commit();
}

std::string Index::metadata() const {
  const format::View& view = state_->base().view();
  const std::byte* text = view.section(format::Section::metadata);
  const std::uint64_t bytes = view.section_bytes(format::Section::metadata);
  std::string metadata(static_cast<const char*>(static_cast<const void*>(text)), text ? bytes : 0);
  if (!format::is_text(metadata)) {
    throw Error(ErrorCode::format,
                state_->base().name() + " is damaged: section 'metadata': expected UTF-8 text");
  }
  return metadata;
}

// ---- named sets ------------------------------------------------------------------------------

// Sets are told apart by the identity in the header, which a crafted file may have copied.
void require_set_fits(const SlotSet& set, const Collection& all) {
  if (set.slot_count() != all.items()) {
    throw Error(ErrorCode::invalid_argument,
                "IdSet: it was made for an index of " + std::to_string(set.slot_count()) +
                    " items, this one has " + std::to_string(all.items()));
  }
  if (set.stamp() != 0 && set.stamp() != all.stamp()) {
    throw Error(ErrorCode::invalid_argument,
                "IdSet: it was made for another index than the one that is queried");
  }
}

namespace {

// The row now of a row of the first image: a row that was replaced stands elsewhere.
Row row_of_base(const Collection& all, Row row) {
  const Part& base = all.base();
  if (all.single() || !base.alive) return row;
  if (base.alive->contains(row)) return static_cast<Row>(base.alive->rank(row));
  const IdsView& ids = base.image->ids();
  return ids.kind == IdKind::text ? all.find(ids.text_of(row)) : all.find(ids.int64_of(row));
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
  const Collection& all = state_->built();
  for (const Row row : sets.rows_of(*set)) {
    const Row now = row_of_base(all, row);
    if (now != kNoRow) out->insert(all.slot_of(now));
  }
  return true;
}

std::vector<std::byte> Index::encoded_sets(const std::vector<std::string>& names,
                                           const std::vector<const SlotSet*>& sets) const {
  const Collection& loaded = state_->built();
  std::vector<format::NamedRows> named;
  for (std::size_t i = 0; i < names.size(); ++i) {
    require_set_fits(*sets[i], loaded);
    format::NamedRows rows{names[i], std::vector<std::uint64_t>((loaded.items() + 63) / 64)};
    for (const Slot slot : sets[i]->to_slots()) {
      const Row row = loaded.row_of(slot);
      rows.words[row / 64] |= std::uint64_t{1} << row % 64;
    }
    named.push_back(std::move(rows));
  }
  return format::write_sets(std::move(named), loaded.items());
}

std::vector<std::byte> Index::encoded_sets() const {
  if (is_changed()) {
    std::vector<std::string> names;
    std::vector<SlotSet> sets;
    for (const NamedSet& set : named_sets()) {
      names.push_back(set.name);
      sets.emplace_back(items());
      read_set(set.name, &sets.back());
    }
    std::vector<const SlotSet*> pointers;
    for (const SlotSet& set : sets) pointers.push_back(&set);
    return encoded_sets(names, pointers);
  }
  const format::Bytes section = state_->sets_section();
  return {section.data, section.data + section.size};
}

void Index::replace_sets(std::vector<std::byte> encoded) {
  state_->own_sets = std::move(encoded);
  state_->has_own_sets = true;
}

double Index::distance(Row a, Row b) const {
  const Collection& loaded = state_->built();
  std::vector<std::byte> values(query_bytes());
  vectors(&a, 1, values.data());
  const ExactScorer& scorer = loaded.place_of(b).part->image->scorer();
  std::vector<float> row_units(state_->dim);
  ExactQuery query;
  if (state_->metric == Metric::hamming) {
    query = scorer.prepare(
        nullptr, static_cast<const std::uint8_t*>(static_cast<const void*>(values.data())));
  } else {
    const auto scale_of = [&](Row row) {
      return loaded.place_of(row).part->image->search().value_scale;
    };
    decode_row(state_->dtype, loaded.stored(a), state_->dim, row_units.data());
    // Units differ between images of different models only.
    const float units = scale_of(a) / scale_of(b);
    if (units != 1.0f) {
      for (float& value : row_units) value *= units;
    }
    query = scorer.prepare(row_units.data(), nullptr);
  }
  return scorer.distance(query, scorer.key(query, loaded.stored(b)));
}

void Index::vectors(const Row* rows, std::uint64_t n, void* out) const {
  const Collection& loaded = state_->built();
  const std::uint64_t bytes = query_bytes();
  for (std::uint64_t i = 0; i < n; ++i) {
    const Collection::Place place = loaded.place_of(rows[i]);
    const LoadedImage& image = *place.part->image;
    item_values(image.search(), image.slot_of(place.row), static_cast<std::byte*>(out) + i * bytes);
  }
}

void Index::stored_vectors(const Row* rows, std::uint64_t n, void* out) const {
  const Collection& loaded = state_->built();
  const std::size_t bytes = loaded.common().search().row_bytes;
  for (std::uint64_t i = 0; i < n; ++i) {
    std::memcpy(static_cast<std::byte*>(out) + i * bytes, loaded.stored(rows[i]), bytes);
  }
}

Row Index::find(std::int64_t id) const {
  return state_->rows ? state_->rows->find(id) : state_->ids.find_int64(id);
}

Row Index::find(std::string_view id) const {
  return state_->rows ? state_->rows->find(id) : state_->ids.find_text(id);
}

std::int64_t Index::id_of(Row row) const { return state_->built().int64_of(row); }

void Index::int64_ids(std::int64_t* out) const {
  const Collection& all = state_->built();
  if (all.id_kind() == IdKind::text) wrong_state("the ids are text");
  for (const Part& part : all.parts()) {
    const IdsView& ids = part.image->ids();
    if (part.alive) {
      for (std::uint64_t row = 0; row < ids.count; ++row) {
        if (part.alive->contains(static_cast<Row>(row))) {
          *out++ = ids.int64_of(static_cast<Row>(row));
        }
      }
      continue;
    }
    if (ids.int64_ids) {
      std::memcpy(out, ids.int64_ids, ids.count * sizeof(std::int64_t));
    } else {
      std::iota(out, out + ids.count, std::int64_t{0});
    }
    out += ids.count;
  }
}

std::string_view Index::text_id_of(Row row) const { return state_->built().text_of(row); }

Slot Index::slot_of(Row row) const { return state_->built().slot_of(row); }

std::uint64_t Index::set_stamp() const { return state_->built().stamp(); }

void Index::tune(const void* queries, std::uint64_t n, std::uint32_t k, int n_jobs,
                 Monitor* monitor) {
  const Collection& loaded = state_->built();
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
      measure_curve(loaded.common().search(), asked, {k}, thread_count(n_jobs), monitor);
  std::vector<Part> parts = loaded.parts();
  std::vector<format::CurvePoint>& curve = parts.front().curve;
  curve.erase(std::remove_if(curve.begin(), curve.end(),
                             [&](const format::CurvePoint& point) { return point.k == k; }),
              curve.end());
  const auto place = std::find_if(curve.begin(), curve.end(),
                                  [&](const format::CurvePoint& point) { return point.k > k; });
  curve.insert(place, measured.begin(), measured.end());
  state_->rows = std::make_unique<const Collection>(std::move(parts));
  state_->is_tuned = true;
}

CurveRow Index::setting_for(std::uint32_t k, double recall) const {
  const Part& base = state_->built().base();
  const Setting setting = setting_for_recall(base.curve, k, recall, base.image->items());
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
bool Index::built() const noexcept { return state_->rows != nullptr; }
const std::string& Index::path() const noexcept { return state_->path; }

std::uint64_t Index::items() const noexcept {
  return state_->rows ? state_->rows->items() : state_->source->size();
}

IdKind Index::id_kind() const noexcept {
  return state_->rows ? state_->rows->id_kind() : state_->ids.kind();
}

std::string Index::identity() const {
  const Collection& all = state_->built();
  const auto& own = all.common().view().header.identity;
  const std::string digits = hex(own, sizeof own);
  return all.single() ? digits : hex_of(all.stamp()) + digits.substr(16);
}

std::vector<FileFacts> Index::files() const {
  std::vector<FileFacts> found;
  const std::vector<Part>& parts = state_->built().parts();
  for (std::size_t i = 0; i < state_->file_parts; ++i) {
    if (!parts[i].mapped) continue;
    const format::FileHeader& header = parts[i].image->view().header;
    found.push_back(
        {parts[i].path, hex(header.identity, sizeof header.identity), kind_name(header.kind)});
  }
  return found;
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
  const Collection& all = *state_->rows;
  const format::View& view = state_->base().view();
  const format::Params& params = view.params;
  info.n_trees = params.tree_count;
  const auto* ranges = view.array<format::LeafRange>(format::Section::leaf_ranges);
  for (std::uint32_t i = 0; i < params.leaf_entries; ++i) info.leaves += ranges[i].count > 0;
  for (const Part& part : all.parts()) {
    const format::View& one = part.image->view();
    info.file_bytes += one.image_bytes;
    info.vector_bytes += one.section_bytes(format::Section::vectors);
    info.removed += part.image->items() - part.count();
  }
  info.images = all.parts().size();
  info.added = all.items() - all.base().count();
  info.drift = drift_of(all);
  info.code_bytes = params.code_count / 2;
  info.format_version = view.header.version;
  info.default_recall = params.default_recall;
  info.value_scale = params.value_scale;
  info.seed = std::uint64_t{params.build_seed_high} << 32 | params.build_seed_low;
  info.identity = identity();
  info.base_identity = hex(view.header.identity, sizeof(view.header.identity));
  info.model_identity = hex(view.header.model_identity, sizeof(view.header.model_identity));
  info.kind = kind_name(view.header.kind);
  info.library_version.assign(view.header.library_version,
                              strnlen(view.header.library_version, 16));
  info.scan = scan_name(state_->base().search().scan);
  for (const format::CurvePoint& point : all.base().curve) {
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
  std::uint64_t done = 0, total = 0;
  for (const Part& part : state_->built().parts()) total += part.image->view().image_bytes;
  for (const Part& part : state_->built().parts()) {
    format::verify_deep(part.image->view(), part.image->name(),
                        [&](std::uint64_t, std::uint64_t bytes) {
                          if (!monitor) return;
                          done += bytes;
                          monitor->poll();
                          monitor->progress("verify", done, total);
                        });
  }
}

double Index::residency() const {
  double resident = 0.0, bytes = 0.0;
  for (const Part& part : state_->built().parts()) {
    const auto own = static_cast<double>(part.image->view().image_bytes);
    bytes += own;
    resident += part.mapped ? static_cast<double>(part.mapped->resident_bytes()) : own;
  }
  return bytes > 0.0 ? std::min(1.0, resident / bytes) : 1.0;
}

void verify_file(const std::string& path) {
  auto file = std::make_unique<MappedFile>(path);
  const std::string name = "'" + path + "'";
  const LoadedImage loaded(std::move(file), name);
  format::verify_deep(loaded.view(), name);
}

const char* library_version() noexcept { return ANNIDX_VERSION; }

}  // namespace annidx
