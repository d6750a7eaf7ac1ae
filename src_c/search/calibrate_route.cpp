// calibrate_route.cpp owns the choice of how much a leaf's radius counts in routing; see
// calibrate.h.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "base/tuning.h"
#include "search/calibrate.h"

namespace annidx {
namespace {

constexpr std::size_t kWeights = std::size(tuning::kRadiusWeights);
// Neighbours of a query that are to be reached.
constexpr std::uint32_t kNeighbours = 10;

// By weight: points that are read before each neighbour's leaf has been.
using PointsNeeded = std::array<std::vector<float>, kWeights>;

class WeightChoice {
 public:
  WeightChoice(const SearchView& view, const CalibrationQueries& queries,
               const std::vector<float>& mean_squares)
      : view_(view),
        queries_(queries),
        mean_squares_(mean_squares),
        asked_(std::min<std::uint64_t>(queries.count, tuning::kRadiusWeightQueries)) {
    const TreeView& tree = view.forest.trees[0];
    for (std::uint32_t i = 0; i < tree.leaf_entry_count; ++i) {
      const LeafSpan& span = view.forest.leaf_spans[tree.first_leaf_entry + i];
      if (span.count > 0) leaves_.push_back({static_cast<Slot>(span.first), i});
      points_.push_back(static_cast<float>(span.count));
    }
    std::sort(leaves_.begin(), leaves_.end());
  }

  float run(unsigned n_threads, Monitor* monitor);

 private:
  // Which leaf holds a slot, as its place in the first tree.
  std::uint32_t leaf_of(Slot slot) const {
    const auto after = std::upper_bound(leaves_.begin(), leaves_.end(), std::pair(slot, ~0u));
    return std::prev(after)->second;
  }
  std::vector<std::uint32_t> leaves_of_neighbours(std::uint64_t i, Searcher* searcher) const;
  void ask(std::uint64_t i, Searcher* searcher, PointsNeeded* needed) const;

  const SearchView& view_;
  const CalibrationQueries& queries_;
  const std::vector<float>& mean_squares_;
  const std::uint64_t asked_;
  std::vector<std::pair<Slot, std::uint32_t>> leaves_;  // first slot, place; ascending
  std::vector<float> points_;                           // by place
};

std::vector<std::uint32_t> WeightChoice::leaves_of_neighbours(std::uint64_t i,
                                                              Searcher* searcher) const {
  const std::uint64_t given = queries_.spread(i, asked_);
  Request request;
  request.k = kNeighbours;
  request.excluded = queries_.excluded_slot(given);
  // All codes are read: no order of leaves may decide which neighbours count.
  request.setting = {view_.item_count,    view_.item_count, 0,
                     tuning::kTraceDepth, 4 * kNeighbours,  false};
  std::vector<std::uint32_t> leaves;
  for (const Neighbour& n : searcher->run(view_, queries_.row(given), request)) {
    leaves.push_back(leaf_of(n.slot));
  }
  return leaves;
}

void WeightChoice::ask(std::uint64_t i, Searcher* searcher, PointsNeeded* needed) const {
  std::vector<std::uint32_t> wanted = leaves_of_neighbours(i, searcher);
  std::sort(wanted.begin(), wanted.end());
  std::vector<float> given, scores(points_.size());
  // The search itself does not route every query.
  searcher->begin_trace(view_, queries_.row(queries_.spread(i, asked_)), kNoRow);
  searcher->score_leaves(view_, &given);
  for (std::size_t w = 0; w < kWeights; ++w) {
    const float change = tuning::kRadiusWeights[w] - tuning::kRadiusWeight;
    for (std::size_t leaf = 0; leaf < scores.size(); ++leaf) {
      scores[leaf] = given[leaf] + change * mean_squares_[leaf];
    }
    float points = 0.0f;
    for (std::size_t n = 0; n < wanted.size(); ++n) {
      if (n == 0 || wanted[n] != wanted[n - 1]) {
        points = 0.0f;
        const float bound = scores[wanted[n]];
        for (std::size_t leaf = 0; leaf < scores.size(); ++leaf) {
          points += scores[leaf] <= bound ? points_[leaf] : 0.0f;
        }
      }
      (*needed)[w].push_back(points);
    }
  }
}

float WeightChoice::run(unsigned n_threads, Monitor* monitor) {
  std::vector<PointsNeeded> parts(n_threads);
  std::vector<Searcher> searchers(n_threads);
  for (Searcher& searcher : searchers) searcher.set_page_keeper(queries_.page_keeper());
  parallel_for(
      n_threads, asked_, 8,
      [&](std::uint64_t begin, std::uint64_t end, unsigned worker) {
        for (std::uint64_t i = begin; i < end; ++i) ask(i, &searchers[worker], &parts[worker]);
      },
      monitor);
  float best_weight = tuning::kRadiusWeight;
  double least_cost = std::numeric_limits<double>::infinity();
  for (std::size_t w = 0; w < kWeights; ++w) {
    std::vector<float> needed;
    for (const PointsNeeded& part : parts)
      needed.insert(needed.end(), part[w].begin(), part[w].end());
    if (needed.empty()) break;
    std::sort(needed.begin(), needed.end());
    double cost = 0.0;
    for (double recall : tuning::kRadiusWeightRecalls) {
      const auto place = static_cast<std::size_t>(recall * static_cast<double>(needed.size()));
      cost += std::log(double{needed[std::min(place, needed.size() - 1)]} + 1.0);
    }
    if (cost < least_cost) {
      least_cost = cost;
      best_weight = tuning::kRadiusWeights[w];
    }
  }
  return best_weight;
}

}  // namespace

float choose_radius_weight(const SearchView& view, const CalibrationQueries& queries,
                           const std::vector<float>& mean_squares, unsigned n_threads,
                           Monitor* monitor) {
  return WeightChoice(view, queries, mean_squares).run(n_threads, monitor);
}

}  // namespace annidx
