// changes.cpp owns the changing of a built index: rows that come and go, several files as one, and
// all of it in one file again. See index.h.
//
// Added rows are small images of their own, coded by the model of the index, beside its first
// image. They are joined as they grow, the newest with the one before it, so that there are never
// many; the first image and what was loaded from files stay as they are.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/tuning.h"
#include "index/merge.h"
#include "index/state.h"
#include "rows/metric.h"

namespace annidx {
namespace {

using format::FileKind;
using format::Section;

FileKind kind_of(const Part& part) { return static_cast<FileKind>(part.image->view().header.kind); }

// Rows to be removed, by part; of a damaged file one may be named twice.
class Removal {
 public:
  explicit Removal(std::size_t parts) : rows_(parts) {}

  void add(std::size_t part, Row row) { rows_[part].push_back(row); }
  // Leaves parts without rows behind the first `kept` out.
  std::vector<Part> applied(const std::vector<Part>& parts, std::size_t kept) const {
    std::vector<Part> left;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      Part part = parts[i];
      if (!rows_[i].empty()) {
        part.alive = std::make_shared<const AliveRows>(*part.image, part.alive.get(), rows_[i]);
      }
      if (i < kept || part.count() > 0) left.push_back(std::move(part));
    }
    return left;
  }

 private:
  std::vector<std::vector<Row>> rows_;
};

std::size_t number_of(const Collection& all, const Part* part) {
  return static_cast<std::size_t>(part - all.parts().data());
}

void note_gone(const Collection& all, Row row, GoneIds* gone) {
  if (all.id_kind() == IdKind::text) {
    gone->texts.emplace_back(all.text_of(row));
  } else {
    gone->ids.push_back(all.int64_of(row));
  }
}

// The ids of an image, one after the other, to fn(row, id).
template <class Fn>
void for_each_id(const LoadedImage& image, const Fn& fn) {
  const IdsView& ids = image.ids();
  for (std::uint64_t row = 0; row < ids.count; ++row) {
    if (ids.kind == IdKind::text) {
      fn(static_cast<Row>(row), ids.text_of(static_cast<Row>(row)));
    } else {
      fn(static_cast<Row>(row), ids.int64_of(static_cast<Row>(row)));
    }
  }
}

std::string shown(std::int64_t id) { return std::to_string(id); }
std::string shown(std::string_view id) {
  constexpr std::size_t kMost = 60;
  return "'" + std::string(id.substr(0, kMost)) + (id.size() > kMost ? "...'" : "'");
}

BuildPlan plain_plan(FileKind kind, unsigned n_threads, Monitor* monitor) {
  BuildPlan plan;
  plan.kind = kind;
  plan.neighbours = 0;
  plan.measure_recall = false;
  plan.n_threads = n_threads;
  plan.library_version = library_version();
  plan.monitor = monitor;
  return plan;
}

}  // namespace

bool Index::is_changed() const noexcept {
  return state_->rows && state_->rows->single() == nullptr;
}

std::unique_ptr<Index> Index::with_parts(std::vector<Part> parts) const {
  auto state = std::make_unique<State>(state_->metric, state_->dtype, state_->dim);
  state->adopt(std::move(parts));
  state->encoder = state_->encoder;
  state->gone = state_->gone;
  state->file_parts = state_->file_parts;
  state->is_tuned = state_->is_tuned;
  state->has_own_sets = state_->has_own_sets;
  state->own_sets = state_->own_sets;
  state->path = state_->path;
  return std::unique_ptr<Index>(new Index(std::move(state)));
}

// ---- rows that come --------------------------------------------------------------------------

namespace {

// Behind all numbers that the rows have, or had.
std::int64_t next_number(const Collection& all) {
  std::int64_t next = 0;
  for (const Part& part : all.parts()) {
    const IdsView& ids = part.image->ids();
    for (std::uint64_t row = 0; ids.kind == IdKind::int64 && row < ids.count; ++row) {
      next = std::max(next, ids.int64_ids[row] + 1);
    }
    if (ids.kind == IdKind::row) next = std::max(next, static_cast<std::int64_t>(ids.count));
  }
  return next;
}

void take_ids(const Index::Ids& ids, std::uint64_t n, const Collection& all, IdCollector* out) {
  const bool is_text = all.id_kind() == IdKind::text;
  const bool is_open = all.items() == 0 && all.common().items() == 0;  // of any kind yet
  if (ids.text_offsets) {
    if (!is_text && !is_open) {
      throw Error(ErrorCode::invalid_argument, "ids: expected int, as the index has, got str");
    }
    out->add_text(ids.text, ids.text_offsets, n);
  } else if (ids.int64_ids) {
    if (is_text) {
      throw Error(ErrorCode::invalid_argument, "ids: expected str, as the index has, got int");
    }
    out->add_int64(ids.int64_ids, n);
  } else if (all.common().ids().kind != IdKind::row) {
    throw Error(ErrorCode::invalid_argument,
                "ids: expected an id for each vector, as the index has them, got none");
  } else {
    std::vector<std::int64_t> numbers(n);
    std::iota(numbers.begin(), numbers.end(), next_number(all));
    out->add_int64(numbers.data(), n);
  }
}

// The parts of an index and one more, whose ids it may have already only if `is_update`; then what
// was there goes.
std::vector<Part> parts_with(const Collection& all, std::size_t file_parts, Part added,
                             bool is_update, GoneIds* gone) {
  Removal removal(all.parts().size());
  for_each_id(*added.image, [&](Row row, const auto& id) {
    const Row present = all.find(id);
    if (present == kNoRow) return;
    if (!is_update) {
      throw Error(ErrorCode::invalid_argument,
                  "ids[" + std::to_string(row) + "]: id " + shown(id) +
                      " is already in the index: update_items() replaces it");
    }
    const Collection::Place place = all.place_of(present);
    const std::size_t part = number_of(all, place.part);
    if (part < file_parts) note_gone(all, present, gone);
    removal.add(part, place.row);
  });
  std::vector<Part> parts = removal.applied(all.parts(), file_parts);
  parts.push_back(std::move(added));
  return parts;
}

}  // namespace

std::unique_ptr<Index> Index::with_rows(const void* rows, InputType type, std::uint64_t n,
                                        const Ids& ids, bool is_update, int n_jobs,
                                        Monitor* monitor) const {
  const State& s = *state_;
  const Collection& all = s.built();
  RowSource source(s.dtype, s.dim);
  if (!source.accepts(type)) {
    throw Error(
        ErrorCode::invalid_argument,
        std::string("vectors: these elements do not fit dtype '") + dtype_name(s.dtype) + "'");
  }
  if (n > kMaxItems - all.items()) {
    throw Error(ErrorCode::invalid_argument,
                "vectors: an index holds at most " + std::to_string(kMaxItems) + " items");
  }
  source.add(rows, type, n, false);
  IdCollector names;
  take_ids(ids, n, all, &names);
  const Encoder& encoder = s.encoder->of(s.base());
  source.settle_as(encoder.model().value_scale, encoder.model().given_bytes);
  const unsigned threads = thread_count(n_jobs);
  const BuildPlan plan = plain_plan(FileKind::part, threads, monitor);
  InMemory place;
  Part added = part_of(build_image(source, names, encoder, {}, plan, &place), "added items");
  auto gone = std::make_shared<GoneIds>(*s.gone);
  std::unique_ptr<Index> next =
      with_parts(parts_with(all, s.file_parts, std::move(added), is_update, gone.get()));
  next->state_->gone = std::move(gone);
  next->join_small_parts(threads, monitor);
  return next;
}

// Joins the newest parts that are not files, so that each is several times as large as the next.
void Index::join_small_parts(unsigned n_threads, Monitor* monitor) {
  State& s = *state_;
  for (;;) {
    const std::vector<Part>& parts = s.rows->parts();
    const std::size_t count = parts.size();
    if (count < s.file_parts + 2) return;
    const Part& last = parts[count - 1];
    const Part& before = parts[count - 2];
    if (before.count() > last.count() * tuning::kJoinedPartFactor) return;
    const Encoder& encoder = s.encoder->of(s.base());
    InMemory place;
    const BuildPlan plan = plain_plan(FileKind::part, n_threads, monitor);
    Part joined = part_of(merged_image(*s.rows, count - 2, encoder, plan, &place), "added items");
    std::vector<Part> fewer(parts.begin(), parts.end() - 2);
    fewer.push_back(std::move(joined));
    s.adopt(std::move(fewer));
  }
}

// ---- rows that go ----------------------------------------------------------------------------

std::unique_ptr<Index> Index::without_rows(const std::vector<Row>& rows) const {
  const State& s = *state_;
  const Collection& all = s.built();
  std::vector<Row> sorted(rows);
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  Removal removal(all.parts().size());
  auto gone = std::make_shared<GoneIds>(*s.gone);
  for (const Row row : sorted) {
    const Collection::Place place = all.place_of(row);
    const std::size_t part = number_of(all, place.part);
    if (part < s.file_parts) note_gone(all, row, gone.get());
    removal.add(part, place.row);
  }
  std::unique_ptr<Index> next = with_parts(removal.applied(all.parts(), s.file_parts));
  next->state_->gone = std::move(gone);
  return next;
}

// ---- several files ---------------------------------------------------------------------------

namespace {

void require_fits(const Part& first, const Part& other) {
  const auto refuse = [&](const char* what, const std::string& a, const std::string& b) {
    throw Error(ErrorCode::invalid_argument, std::string("expected files of one ") + what +
                                                 ", found " + a + " in " + first.image->name() +
                                                 " and " + b + " in " + other.image->name());
  };
  const LoadedImage& a = *first.image;
  const LoadedImage& b = *other.image;
  if (a.metric() != b.metric()) {
    refuse("metric", traits_of(a.metric()).name, traits_of(b.metric()).name);
  }
  if (a.dim() != b.dim()) refuse("dim", std::to_string(a.dim()), std::to_string(b.dim()));
  if (a.dtype() != b.dtype()) refuse("dtype", dtype_name(a.dtype()), dtype_name(b.dtype()));
  const bool text_a = a.ids().kind == IdKind::text, text_b = b.ids().kind == IdKind::text;
  if (text_a != text_b && a.items() > 0 && b.items() > 0) {
    refuse("kind of ids", text_a ? "str" : "int", text_b ? "str" : "int");
  }
}

// Changes stand behind the index they belong to.
void require_base(const std::vector<Part>& before, const Part& changes) {
  const format::FileHeader& header = changes.image->view().header;
  for (const Part& part : before) {
    const format::FileHeader& base = part.image->view().header;
    if (std::memcmp(base.identity, header.base_identity, sizeof base.identity) == 0) return;
  }
  throw Error(
      ErrorCode::invalid_argument,
      changes.image->name() +
          " holds changes of another index than those before it: expected the file that they "
          "were saved beside");
}

// Puts files together, one after the other.
class Assembly {
 public:
  explicit Assembly(bool newest_wins) : newest_wins_(newest_wins) {}

  void add(Part part) {
    if (!parts_.empty()) {
      require_fits(parts_.front(), part);
      if (kind_of(part) == FileKind::changes) {
        require_base(parts_, part);
        remove_named(part);
      }
      replace(part);
    } else if (kind_of(part) == FileKind::changes) {
      throw Error(ErrorCode::invalid_argument,
                  part.image->name() + " holds changes: load it behind the index they belong to");
    }
    parts_.push_back(std::move(part));
  }
  std::vector<Part> take() { return std::move(parts_); }
  const GoneIds& gone() const noexcept { return gone_; }

 private:
  // Takes the ids that changes remove out of what is there.
  void remove_named(const Part& changes) {
    const format::View& view = changes.image->view();
    const std::uint32_t count = view.params.removed_count;
    if (count == 0) return;
    const Collection all(parts_);
    Removal removal(parts_.size());
    const auto remove = [&](Row row) {
      if (row == kNoRow) return;
      const Collection::Place place = all.place_of(row);
      removal.add(number_of(all, place.part), place.row);
    };
    const auto* ids = view.array<std::int64_t>(Section::removed_ids);
    const auto* offsets = view.array<std::uint64_t>(Section::removed_text_offsets);
    const char* text = view.array<char>(Section::removed_text);
    const std::uint64_t text_bytes = view.section_bytes(Section::removed_text);
    for (std::uint32_t i = 0; i < count; ++i) {
      if (ids) {
        gone_.ids.push_back(ids[i]);
        remove(all.find(ids[i]));
        continue;
      }
      const std::uint64_t begin = offsets[i], end = offsets[i + 1];
      if (begin > end || end > text_bytes) {
        throw Error(ErrorCode::format, changes.image->name() +
                                           " is damaged: section 'removed_text_offsets', entry " +
                                           std::to_string(i) + ": expected offsets that ascend");
      }
      gone_.texts.emplace_back(text + begin, end - begin);
      remove(all.find(std::string_view(gone_.texts.back())));
    }
    parts_ = removal.applied(parts_, parts_.size());
  }

  // What has an id of the new part goes, where that may be.
  void replace(const Part& part) {
    const bool may_replace = newest_wins_ || kind_of(part) == FileKind::changes;
    if (are_numbered_parts(part)) return;
    const Collection all(parts_);
    Removal removal(parts_.size());
    for_each_id(*part.image, [&](Row, const auto& id) {
      const Row present = all.find(id);
      if (present == kNoRow) return;
      const Collection::Place place = all.place_of(present);
      if (!may_replace) {
        throw Error(ErrorCode::invalid_argument, "expected every id once, found id " + shown(id) +
                                                     " in " + place.part->image->name() +
                                                     " and in " + part.image->name() +
                                                     " (on_duplicate=\"newest\" takes the last)");
      }
      removal.add(number_of(all, place.part), place.row);
    });
    parts_ = removal.applied(parts_, parts_.size());
  }
  // Parts whose rows have no ids of their own are numbered through when they are merged.
  bool are_numbered_parts(const Part& part) const {
    const auto is_one = [](const Part& p) {
      return kind_of(p) == FileKind::part && p.image->ids().kind == IdKind::row;
    };
    return is_one(part) && std::all_of(parts_.begin(), parts_.end(), is_one);
  }

  bool newest_wins_;
  std::vector<Part> parts_;
  GoneIds gone_;
};

}  // namespace

std::unique_ptr<Index> Index::open_all(const std::vector<std::string>& paths,
                                       const OpenOptions& options, bool newest_wins) {
  if (paths.empty()) throw Error(ErrorCode::invalid_argument, "expected at least one file");
  Assembly assembly(newest_wins);
  for (const std::string& path : paths) {
    Part part = part_of_file(path);
    make_ready(part, options);
    assembly.add(std::move(part));
  }
  auto index = std::make_unique<Index>(Metric::euclidean, Dtype::float32, 1);
  State& s = *index->state_;
  s.adopt(assembly.take());
  s.file_parts = s.rows->parts().size();
  s.gone = std::make_shared<GoneIds>(assembly.gone());
  s.path = paths.front();
  return index;
}

std::unique_ptr<Index> Index::with_changes(const void* image, std::uint64_t bytes) const {
  std::unique_ptr<Memory> memory = allocate_anonymous(std::max<std::uint64_t>(bytes, 1));
  std::memcpy(memory->mutable_data(), image, bytes);
  Assembly assembly(true);
  for (const Part& part : state_->built().parts()) assembly.add(part);
  assembly.add(part_of(std::move(memory), "changes"));
  std::unique_ptr<Index> next = with_parts(assembly.take());
  next->state_->gone = std::make_shared<GoneIds>(assembly.gone());
  return next;
}

// ---- one file again --------------------------------------------------------------------------

// All but the first image, with what is gone from it.
std::unique_ptr<Memory> Index::changes_image(ImagePlace* place, int n_jobs,
                                             Monitor* monitor) const {
  const State& s = *state_;
  const Collection& all = s.built();
  require_one_model(all);
  BuildPlan plan = plain_plan(FileKind::changes, thread_count(n_jobs), monitor);
  plan.base_identity = s.base().view().header.identity;
  const RemovedIds removed =
      all.id_kind() == IdKind::text ? RemovedIds(s.gone->texts) : RemovedIds(s.gone->ids);
  plan.removed = &removed;
  return merged_image(all, 1, s.encoder->of(s.base()), plan, place);
}

void Index::save_changes(const std::string& path, int n_jobs, Monitor* monitor) const {
  InFile place(path);
  changes_image(&place, n_jobs, monitor).reset();
  place.commit();
}

std::vector<std::byte> Index::changes_to_bytes() const {
  InMemory place;
  const std::unique_ptr<Memory> image = changes_image(&place, 1, nullptr);
  return {image->data(), image->data() + image->bytes()};
}

BuildPlan Index::merge_plan(const MergeOptions& options) const {
  const format::Params& params = state_->base().view().params;
  const bool is_index = kind_of(state_->built().base()) == FileKind::index;
  BuildPlan plan;
  plan.n_trees = options.n_trees;
  plan.neighbours = options.neighbours >= 0 ? static_cast<std::uint32_t>(options.neighbours)
                    : is_index              ? params.neighbour_count
                                            : tuning::kNeighbours;
  plan.measure_recall = options.measure_recall;
  if (!options.measure_recall) plan.curve = state_->built().base().curve;
  plan.radius_weight = params.radius_weight;
  plan.default_recall =
      options.recall > 0.0 ? static_cast<float>(options.recall) : params.default_recall;
  plan.n_threads = thread_count(options.n_jobs);
  plan.seed = std::uint64_t{params.build_seed_high} << 32 | params.build_seed_low;
  plan.memory_limit = options.memory_limit;
  plan.library_version = library_version();
  plan.monitor = options.monitor;
  plan.metadata = options.metadata;
  plan.sets = options.sets;
  return plan;
}

void Index::merge(const MergeOptions& options) const {
  const State& s = *state_;
  require_one_model(s.built());
  format::require_text(options.metadata);
  InFile place(options.path);
  merged_image(s.built(), 0, s.encoder->of(s.base()), merge_plan(options), &place).reset();
  place.commit();
}

Index::MergeOptions Index::continued(const std::string& path, const std::string& metadata,
                                     const std::vector<std::byte>& sets, Monitor* monitor) const {
  MergeOptions options;
  options.path = path;
  options.metadata = metadata;
  options.sets = sets;
  options.measure_recall = false;
  options.n_trees = state_->base().view().params.tree_count;
  options.monitor = monitor;
  return options;
}

std::unique_ptr<Memory> Index::merged_memory(Monitor* monitor) const {
  require_one_model(state_->built());
  InMemory place;
  return merged_image(state_->built(), 0, state_->encoder->of(state_->base()),
                      merge_plan(continued("", "", {}, monitor)), &place);
}

void Index::encode(Index* rows, const std::string& path, int n_jobs, std::uint64_t memory_limit,
                   Monitor* monitor) const {
  State& given = *rows->state_;
  if (!given.source) wrong_state("the rows are built already");
  const Encoder& encoder = state_->encoder->of(state_->base());
  given.source->settle_as(encoder.model().value_scale, encoder.model().given_bytes);
  BuildPlan plan = plain_plan(FileKind::part, thread_count(n_jobs), monitor);
  const format::Params& params = state_->base().view().params;
  plan.seed = std::uint64_t{params.build_seed_high} << 32 | params.build_seed_low;
  plan.default_recall = params.default_recall;
  plan.memory_limit = memory_limit;
  if (memory_limit) given.source->limit_resident(memory_limit / tuning::kFileMemoryShare);
  InFile place(path);
  build_image(*given.source, given.ids, encoder, {}, plan, &place).reset();
  place.commit();
  rows->clear();
}

}  // namespace annidx
