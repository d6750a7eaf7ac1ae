// asking.cpp owns the queries of the facade: one or many, by vector or by item; see index.h.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "base/tuning.h"
#include "index/state.h"
#include "kernels/kernels.h"
#include "search/curve.h"
#include "search/item_graph.h"
#include "search/query_forms.h"

namespace annidx {

void require_finite(const float* values, std::uint32_t dim, std::uint64_t row) {
  const std::size_t bad = kernels().first_nonfinite(values, dim);
  if (bad == dim) return;
  throw Error(ErrorCode::invalid_argument, "queries: expected finite numbers; row " +
                                               std::to_string(row) + " holds " +
                                               (std::isnan(values[bad]) ? "NaN" : "an infinity") +
                                               " at position " + std::to_string(bad));
}

namespace {

// Each thread keeps its buffers between queries; they end with the thread.
CollectionSearcher& thread_searcher() {
  thread_local CollectionSearcher searcher;
  return searcher;
}

}  // namespace

void prepare_thread() {
  thread_searcher();
  ready_exceptions();
}

// ---- asking ----------------------------------------------------------------------------------

namespace {

// Takes what was found for query i.
using Take = std::function<void(std::uint64_t i, const std::vector<Neighbour>& found)>;

// Texts do not overlap in a sound file; in a damaged one each could be all of them.
void check_texts(const Collection& loaded, const std::vector<Neighbour>& found) {
  std::uint64_t bytes_left = 0;
  for (const Part& part : loaded.parts()) bytes_left += part.image->ids().text_bytes;
  for (const Neighbour& neighbour : found) {
    const std::uint64_t bytes = loaded.text_of(neighbour.row).size();
    if (bytes > bytes_left) {
      throw Error(ErrorCode::format,
                  loaded.common().name() + " is damaged: section 'id_text_offsets', entry " +
                      std::to_string(neighbour.row) + ": expected no overlap with other texts");
    }
    bytes_left -= bytes;
  }
}

std::int64_t name_of(const Collection& loaded, Row row) {
  return loaded.id_kind() == IdKind::text ? static_cast<std::int64_t>(row) : loaded.int64_of(row);
}

// Into k places a query; those that stay empty hold -1 and NaN.
Take into_places(const Collection& loaded, std::uint32_t k, std::int64_t* ids, double* distances) {
  return [&loaded, k, ids, distances](std::uint64_t i, const std::vector<Neighbour>& found) {
    for (std::uint32_t j = 0; j < k; ++j) {
      const bool present = j < found.size();
      ids[i * k + j] = present ? name_of(loaded, found[j].row) : -1;
      distances[i * k + j] = present ? found[j].distance : std::numeric_limits<double>::quiet_NaN();
    }
  };
}

Take into_answers(const Collection& loaded, Answer* answers) {
  return [&loaded, answers](std::uint64_t i, const std::vector<Neighbour>& found) {
    answers[i].ids.reserve(found.size());
    answers[i].distances.reserve(found.size());
    for (const Neighbour& neighbour : found) {
      answers[i].ids.push_back(name_of(loaded, neighbour.row));
      answers[i].distances.push_back(neighbour.distance);
    }
  };
}

void require_sets_fit(const Collection& loaded, const QueryOptions& options) {
  for (std::uint64_t i = 0; i < options.eligible_count; ++i) {
    require_set_fits(*options.eligible[i], loaded);
  }
}

Efforts choose_efforts(const Part& part, const QueryOptions& options) {
  const LoadedImage& image = *part.image;
  const double recall = options.recall > 0.0
                            ? options.recall
                            : static_cast<double>(image.view().params.default_recall);
  if (options.exact || (options.search_k == 0 && recall >= 1.0)) {
    Efforts everything;
    everything.usual = {image.items(), image.items(), 0, image.items(), image.items(), true};
    return everything;
  }
  if (options.search_k == 0) {
    return efforts_for_recall(part.curve, options.k, recall, image.items());
  }
  Efforts bounded;
  bounded.usual = setting_for_candidates(part.curve, options.k, options.search_k, image.items());
  return bounded;
}

// By part.
std::vector<Efforts> efforts_for(const Collection& all, const QueryOptions& options,
                                 bool all_within) {
  std::vector<Efforts> efforts;
  for (const Part& part : all.parts()) {
    efforts.push_back(all_within ? Efforts{} : choose_efforts(part, options));
  }
  return efforts;
}

class BatchQuery {
 public:
  // `all_within`: everything within the radius instead of k.
  BatchQuery(const Collection& loaded, const QueryOptions& options, bool all_within,
             const Take& take)
      : loaded_(loaded),
        options_(options),
        efforts_(efforts_for(loaded, options, all_within)),
        all_within_(all_within),
        take_(take) {
    require_sets_fit(loaded, options);
  }

  const Collection& loaded() const noexcept { return loaded_; }
  const QueryOptions& options() const noexcept { return options_; }

  void run(std::uint64_t i, const void* values, CollectionSearcher* searcher) const {
    Request request;
    request.k = all_within_ ? loaded_.items() : options_.k;
    request.has_radius = options_.has_radius;
    request.radius = options_.radius;
    request.all_within = all_within_;
    if (options_.eligible_count > 0) {
      request.eligible = options_.eligible[options_.eligible_count == 1 ? 0 : i];
    }
    if (options_.excluded) request.excluded = options_.excluded[i];
    if (options_.leading) request.leading = options_.leading[i];
    const std::vector<Neighbour>& found = loaded_.run(values, request, efforts_, searcher);
    if (loaded_.id_kind() == IdKind::text) check_texts(loaded_, found);
    take_(i, found);
  }

 private:
  const Collection& loaded_;
  const QueryOptions& options_;
  std::vector<Efforts> efforts_;
  bool all_within_;
  const Take& take_;
};

// One query on the calling thread, many on several.
void for_each_query(std::uint64_t n, const QueryOptions& options,
                    const std::function<void(std::uint64_t, CollectionSearcher*)>& body) {
  if (n == 1) {
    body(0, &thread_searcher());
    return;
  }
  const unsigned threads = thread_count(options.n_jobs);
  // New threads touch no buffer of the thread: where its memory cannot be had, the C library ends
  // the process.
  std::vector<CollectionSearcher> searchers(threads > 1 ? threads : 0);
  parallel_for(
      threads, n, tuning::kBatchGrain,
      [&](std::uint64_t begin, std::uint64_t end, unsigned worker) {
        CollectionSearcher& searcher = searchers.empty() ? thread_searcher() : searchers[worker];
        for (std::uint64_t i = begin; i < end; ++i) body(i, &searcher);
      },
      options.monitor);
}

void ask(const BatchQuery& batch, const void* queries, std::uint64_t n, std::uint64_t row_bytes) {
  const auto* rows = static_cast<const std::byte*>(queries);
  const std::uint32_t dim = batch.loaded().common().dim();
  const bool floats = batch.loaded().common().metric() != Metric::hamming;
  for_each_query(n, batch.options(), [&](std::uint64_t i, CollectionSearcher* searcher) {
    const void* values = rows + i * row_bytes;
    if (floats) require_finite(static_cast<const float*>(values), dim, i);
    batch.run(i, values, searcher);
  });
}

// slots: of the collection.
void ask_rows(const BatchQuery& batch, const std::vector<Slot>& slots) {
  for_each_query(slots.size(), batch.options(), [&](std::uint64_t i, CollectionSearcher* searcher) {
    const Collection& all = batch.loaded();
    const Collection::Place place = all.place_of(all.row_of(slots[i]));
    std::vector<std::byte> values;
    item_as_query(place.part->image->search(), place.part->image->slot_of(place.row), &values);
    batch.run(i, values.data(), searcher);
  });
}

std::vector<Slot> slots_of(const Collection& loaded, const Row* rows, std::uint64_t n) {
  std::vector<Slot> slots(n);
  for (std::uint64_t i = 0; i < n; ++i) {
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
  const Collection& loaded = state_->built();
  const Take take = into_places(loaded, options.k, ids, distances);
  ask({loaded, options, false, take}, queries, n, query_bytes());
}

void Index::query_within(const void* queries, std::uint64_t n, const QueryOptions& options,
                         Answer* answers) const {
  const Collection& loaded = state_->built();
  const Take take = into_answers(loaded, answers);
  ask({loaded, options, true, take}, queries, n, query_bytes());
}

void Index::query_rows(const Row* rows, std::uint64_t n, bool include_self,
                       const QueryOptions& options, std::int64_t* ids, double* distances) const {
  const Collection& loaded = state_->built();
  const std::vector<Slot> slots = slots_of(loaded, rows, n);
  const QueryOptions resolved = about_items(options, slots, include_self);
  const Take take = into_places(loaded, options.k, ids, distances);
  ask_rows({loaded, resolved, false, take}, slots);
}

void Index::query_rows_within(const Row* rows, std::uint64_t n, bool include_self,
                              const QueryOptions& options, Answer* answers) const {
  const Collection& loaded = state_->built();
  const std::vector<Slot> slots = slots_of(loaded, rows, n);
  const QueryOptions resolved = about_items(options, slots, include_self);
  const Take take = into_answers(loaded, answers);
  ask_rows({loaded, resolved, true, take}, slots);
}

// ---- all items at once -----------------------------------------------------------------------

struct KnnGraph::State {
  std::unique_ptr<LoadedImage> merged;  // of a changed index: its rows are the index's
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
  std::unique_ptr<LoadedImage> merged;
  if (is_changed()) {
    merged = std::make_unique<LoadedImage>(merged_memory(options.monitor), "the merged index");
  }
  const LoadedImage& loaded = merged ? *merged : state_->base();
  GraphRequest request;
  request.k = options.k;
  request.include_self = include_self;
  request.recall = options.recall > 0.0 ? options.recall
                                        : static_cast<double>(loaded.view().params.default_recall);
  request.n_threads = thread_count(options.n_jobs);
  const std::vector<format::CurvePoint>& curve = state_->built().base().curve;
  ItemGraph graph(loaded.search(), curve, request, options.monitor);
  return std::unique_ptr<KnnGraph>(new KnnGraph(std::unique_ptr<KnnGraph::State>(
      new KnnGraph::State{std::move(merged), std::move(graph), loaded.items(), options.k})));
}

}  // namespace annidx
