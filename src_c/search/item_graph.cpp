// item_graph.cpp owns the joining of whole lists, samples of truth and exact keys; see
// item_graph.h.
#include "search/item_graph.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/tuning.h"
#include "kernels/kernels.h"
#include "model/neighbours.h"
#include "search/curve.h"
#include "search/exact.h"
#include "search/graph_input.h"
#include "search/query_forms.h"
#include "search/searcher.h"

namespace annidx {
namespace {

// The slots of each leaf, if leaves follow each other and hold all slots; otherwise nothing.
std::vector<Slot> leaf_firsts(const SearchView& view) {
  const TreeView& tree = view.forest.trees[0];
  std::vector<std::pair<std::uint64_t, std::uint64_t>> spans;
  for (std::uint32_t i = 0; i < tree.leaf_entry_count; ++i) {
    const LeafSpan span = checked_leaf(view.forest, tree.first_leaf_entry + i, true);
    if (span.count > 0) spans.emplace_back(span.first, span.count);
  }
  std::sort(spans.begin(), spans.end());
  std::vector<Slot> firsts{0};
  for (const auto& [first, count] : spans) {
    if (first != firsts.back()) return {};
    firsts.push_back(static_cast<Slot>(first + count));
  }
  if (firsts.back() != view.item_count) return {};
  return firsts;
}

std::vector<Slot> spread_slots(std::uint64_t items, std::uint64_t wanted) {
  std::vector<Slot> slots;
  const std::uint64_t n = std::min(items, wanted);
  for (std::uint64_t i = 0; i < n; ++i) slots.push_back(static_cast<Slot>(i * items / n));
  return slots;
}

}  // namespace

struct ItemGraph::Worker {
  QueryForms query;
  ExactStage exact;
  Candidates candidates;
  Searcher searcher;
  std::vector<std::byte> values;
};

ItemGraph::ItemGraph(const SearchView& view, const std::vector<format::CurvePoint>& curve,
                     const GraphRequest& request, Monitor* monitor)
    : view_(view), request_(request) {
  others_ = request.k - (request.include_self ? 1 : 0);
  const std::uint64_t k = std::max<std::uint64_t>(1, others_);
  const std::uint64_t degree = k + k / tuning::kGraphSpareShare + tuning::kGraphSpare;
  const std::uint64_t items = view.item_count;
  if (request.recall >= 1.0) {
    setting_ = {items, items, 0, items, items, true};
    return;
  }
  setting_ = setting_for_recall(curve, k, request.recall, items);
  if (degree > tuning::kMostNeighbours || items <= tuning::kExactScanItems) return;
  degree_ = static_cast<std::uint32_t>(degree);
  make_lists(monitor);
}

// Round after round until enough of a sample's true neighbours are found. Where that takes too
// many, queries are the better way.
void ItemGraph::make_lists(Monitor* monitor) {
  const std::vector<Slot> leaf_first = leaf_firsts(view_);
  GraphInput input;
  if (leaf_first.empty() || !describe_rows(view_, &input)) return;
  input.leaf_first = leaf_first.data();
  input.leaf_count = static_cast<std::uint32_t>(leaf_first.size() - 1);
  NeighbourFinder finder(input, degree_, graph_effort(), request_.n_threads, monitor);
  finder.compare_near();
  const std::vector<Slot> sample = spread_slots(view_.item_count, tuning::kGraphSample);
  const std::uint32_t deeper = std::min(2 * degree_, tuning::kMostNeighbours);
  const std::vector<double> truth = true_keys(
      sample, NeighbourFinder::true_lists(input, sample, deeper, request_.n_threads, monitor));
  for (std::uint32_t round = 0;; ++round) {
    if (share_found(finder.lists(), sample, truth) >= request_.recall) break;
    if (round == tuning::kMostGraphRounds) return;
    finder.join();
  }
  lists_ = finder.take_lists();
}

// Keys of the last true neighbours of the k.
std::vector<double> ItemGraph::true_keys(const std::vector<Slot>& sample,
                                         const std::vector<Slot>& lists) const {
  const std::size_t depth = lists.size() / sample.size();
  std::vector<double> truth(sample.size());
  parallel_for(request_.n_threads, sample.size(), 16,
               [&](std::uint64_t begin, std::uint64_t end, unsigned) {
                 std::vector<std::byte> values;
                 std::vector<double> keys;
                 QueryForms query;
                 for (std::uint64_t i = begin; i < end; ++i) {
                   item_as_query(view_, sample[i], &values);
                   query.set(view_, values.data());
                   keys.clear();
                   for (std::size_t j = i * depth; j < (i + 1) * depth && lists[j] != kNoRow; ++j)
                     keys.push_back(exact_key(view_, query.exact(), lists[j]));
                   std::sort(keys.begin(), keys.end());
                   const std::size_t last = std::min<std::size_t>(others_, keys.size());
                   truth[i] = last > 0 ? keys[last - 1] : 0.0;
                 }
               });
  return truth;
}

double ItemGraph::share_found(const std::vector<Slot>& lists, const std::vector<Slot>& sample,
                              const std::vector<double>& truth) const {
  const std::uint64_t wanted = std::min(others_, view_.item_count - 1);
  std::vector<std::byte> values;
  QueryForms query;
  std::uint64_t found = 0;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    item_as_query(view_, sample[i], &values);
    query.set(view_, values.data());
    const Slot* list = &lists[std::size_t{sample[i]} * degree_];
    std::uint64_t own = 0;
    for (std::uint32_t j = 0; j < degree_ && list[j] != kNoRow; ++j)
      own += exact_key(view_, query.exact(), list[j]) <= truth[i];
    found += std::min(own, wanted);
  }
  const std::uint64_t possible = wanted * sample.size();
  return possible > 0 ? static_cast<double>(found) / static_cast<double>(possible) : 1.0;
}

// The nearest others of an item, of which a query without a direction takes the first.
const std::vector<Neighbour>& ItemGraph::neighbours_of(Slot slot, Worker* worker) const {
  Request request;
  request.k = std::min(others_, view_.item_count - 1);
  item_as_query(view_, slot, &worker->values);
  worker->query.set(view_, worker->values.data());
  worker->candidates.clear();
  if (worker->query.is_zero()) {
    for (std::uint64_t row = 0; row <= request.k; ++row) {
      const Slot other = checked_slot(view_, static_cast<Row>(row));
      if (other != slot) worker->candidates.push(0.0f, other);
    }
  } else if (!lists_.empty()) {
    const Slot* list = &lists_[std::size_t{slot} * degree_];
    for (std::uint32_t i = 0; i < degree_ && list[i] != kNoRow; ++i)
      worker->candidates.push(0.0f, list[i]);
  }
  if (worker->candidates.count() >= request.k) {
    worker->exact.score(view_, worker->query, request, worker->candidates);
    worker->exact.set_distances(view_, worker->query);
    return worker->exact.found();
  }
  request.setting = setting_;
  request.excluded = slot;
  return worker->searcher.run(view_, worker->values.data(), request);
}

// The item itself, if that is asked for, its neighbours, and what is missing.
void ItemGraph::answer_one(Row row, Slot slot, Worker* worker, std::int64_t* rows,
                           double* distances) const {
  const std::vector<Neighbour>& found = neighbours_of(slot, worker);
  std::uint64_t place = 0;
  if (request_.include_self) {
    const ExactQuery& query = worker->query.exact();
    rows[0] = static_cast<std::int64_t>(row);
    distances[0] = view_.scorer->distance(query, exact_key(view_, query, slot));
    place = 1;
  }
  for (std::size_t j = 0; place < request_.k; ++j, ++place) {
    const bool present = j < found.size();
    rows[place] = present ? static_cast<std::int64_t>(found[j].row) : -1;
    distances[place] = present ? found[j].distance : std::numeric_limits<double>::quiet_NaN();
  }
}

void ItemGraph::answer(Row first, std::uint64_t n, std::int64_t* rows, double* distances,
                       Monitor* monitor) const {
  // Near items one after another: what they read is in the cache.
  std::vector<std::uint64_t> order(n);  // slot and place
  for (std::uint64_t i = 0; i < n; ++i) {
    order[i] = std::uint64_t{checked_slot(view_, static_cast<Row>(first + i))} << 32 | i;
  }
  std::sort(order.begin(), order.end());
  std::vector<Worker> workers(request_.n_threads);
  parallel_for(
      request_.n_threads, n, tuning::kGraphGrain,
      [&](std::uint64_t begin, std::uint64_t end, unsigned number) {
        for (std::uint64_t i = begin; i < end; ++i) {
          const std::uint64_t place = order[i] & 0xFFFFFFFFu;
          answer_one(static_cast<Row>(first + place), static_cast<Slot>(order[i] >> 32),
                     &workers[number], rows + place * request_.k, distances + place * request_.k);
        }
      },
      monitor, "answers");
}

}  // namespace annidx
