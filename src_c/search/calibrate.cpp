// calibrate.cpp owns the recall curve; see calibrate.h.
#include "search/calibrate.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "base/tuning.h"

namespace annidx {
namespace {

constexpr std::size_t kMostReranks = 16;
constexpr std::size_t kExactCount = 5;

std::uint32_t exact_depth(std::uint64_t k, std::size_t step) {
  const std::uint64_t depths[kExactCount] = {k + 2, k + k / 5 + 3, k + k / 2 + 4, 2 * k + 8,
                                             4 * k + 16};
  return static_cast<std::uint32_t>(std::min(depths[step], kMaxItems));
}

// How the settings for some k are looked for.
struct Plan {
  std::vector<std::uint32_t> ks;
  TraceDepths depths;         // of re-ranking, and of exact scoring for all k together
  std::uint64_t queries;      // asked at most
  std::uint64_t first_level;  // candidates

  // Which of depths.exact an exact_depth is; the last one stands for those beyond it.
  std::uint32_t exact_step(std::uint32_t depth) const {
    const auto at = std::lower_bound(depths.exact.begin(), depths.exact.end(), depth);
    return static_cast<std::uint32_t>(std::min<std::ptrdiff_t>(
        at - depths.exact.begin(), static_cast<std::ptrdiff_t>(depths.exact.size()) - 1));
  }
};

void set_exact_depths(std::uint32_t deepest, Plan* plan) {
  std::vector<std::uint32_t>& exact = plan->depths.exact;
  for (std::uint32_t k : plan->ks) {
    for (std::size_t step = 0; step < kExactCount; ++step) {
      exact.push_back(std::min(exact_depth(k, step), deepest));
    }
  }
  std::sort(exact.begin(), exact.end());
  exact.erase(std::unique(exact.begin(), exact.end()), exact.end());
}

Plan usual_plan(std::vector<std::uint32_t> ks, std::uint64_t items) {
  Plan plan{std::move(ks),
            {{16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, tuning::kTraceDepth}, {}},
            std::numeric_limits<std::uint64_t>::max(),
            tuning::kFirstLevel};
  if (items >= tuning::kLargeTraceItems) {
    plan.depths.scan.insert(plan.depths.scan.end(), {1536, tuning::kLargeTraceDepth});
  }
  set_exact_depths(std::numeric_limits<std::uint32_t>::max(), &plan);
  return plan;
}

// One large k: few queries tell its recall well, for each has many neighbours.
Plan deep_plan(std::uint32_t k, std::uint64_t items) {
  const auto times = [&](double factor) {
    return static_cast<std::uint32_t>(std::min(factor * k, static_cast<double>(items)));
  };
  Plan plan{{k},
            {{times(1.06), times(1.12), times(1.25), times(1.5), times(2), times(3), times(4)}, {}},
            tuning::kDeepCurveQueries,
            std::max<std::uint64_t>(k, tuning::kFirstLevel)};
  set_exact_depths(times(2.1), &plan);
  return plan;
}

// How many true neighbours of one query are found, by k, depth of re-ranking and of exact scoring.
class Found {
 public:
  explicit Found(std::size_t ks) : counts_(ks * kMostReranks * kExactCount) {}
  std::uint64_t& at(std::size_t k, std::size_t rerank, std::size_t exact) {
    return counts_[(k * kMostReranks + rerank) * kExactCount + exact];
  }
  const std::vector<std::uint64_t>& counts() const noexcept { return counts_; }
  void clear() { std::fill(counts_.begin(), counts_.end(), 0); }

 private:
  std::vector<std::uint64_t> counts_;
};

// The same summed over the queries of each half.
class HitTable {
 public:
  explicit HitTable(std::size_t ks) : halves_{Found(ks), Found(ks)} {}
  std::uint64_t at(std::size_t k, std::size_t rerank, std::size_t exact, std::size_t half) {
    return halves_[half].at(k, rerank, exact);
  }
  void add(const Found& found, std::size_t half) { add(found.counts(), &halves_[half]); }
  void merge(const HitTable& other) {
    for (std::size_t half = 0; half < 2; ++half) add(other.halves_[half].counts(), &halves_[half]);
  }

 private:
  static void add(const std::vector<std::uint64_t>& counts, Found* sum) {
    std::uint64_t* out = &sum->at(0, 0, 0);
    for (std::size_t i = 0; i < counts.size(); ++i) out[i] += counts[i];
  }
  Found halves_[2];
};

format::CurvePoint point_of(std::uint32_t k, double recall, const Setting& setting) {
  const auto narrow = [](std::uint64_t value) { return static_cast<std::uint32_t>(value); };
  return {k,
          static_cast<float>(recall),
          narrow(setting.opened),
          narrow(setting.candidates),
          narrow(setting.expanded),
          narrow(setting.rerank),
          narrow(setting.exact),
          0};
}

struct Candidate {
  double cost;
  double chosen_recall;   // on the half that chooses
  double checked_recall;  // on the other
  format::CurvePoint point;
};

class CurveMeasurement {
 public:
  CurveMeasurement(const SearchView& view, const CalibrationQueries& queries, const Plan& plan,
                   unsigned n_threads, Monitor* monitor)
      : view_(view),
        queries_(queries),
        plan_(plan),
        ks_(plan.ks),
        n_threads_(n_threads),
        monitor_(monitor),
        count_(std::min(queries.count, plan.queries)) {}

  std::vector<format::CurvePoint> run();

 private:
  const std::byte* query(std::uint64_t i) const { return queries_.row(queries_.spread(i, count_)); }
  Slot excluded(std::uint64_t i) const {
    return queries_.excluded_slot(queries_.spread(i, count_));
  }
  std::uint64_t in_half(std::size_t half) const { return (count_ + 1 - half) / 2; }
  double cost(const Setting& setting) const;
  double less_standard_error(double recall, std::size_t k_index) const;
  void choose_levels();
  // Keys of the k-th true neighbours of a query, by k.
  std::vector<double> truth_of(std::uint64_t i, Searcher* searcher) const;
  void count_found(const std::vector<double>& truth, const std::vector<TracedCandidate>& traced,
                   Found* found) const;
  void ask(std::uint64_t i, Searcher* searcher, std::vector<HitTable>* tables) const;
  std::vector<HitTable> measure();
  void weigh(std::size_t level, HitTable* hits);
  std::vector<format::CurvePoint> cheapest(std::size_t k_index) const;

  const SearchView& view_;
  const CalibrationQueries& queries_;
  const Plan& plan_;
  const std::vector<std::uint32_t>& ks_;
  unsigned n_threads_;
  Monitor* monitor_;
  std::uint64_t count_;                           // queries asked
  std::vector<Setting> levels_;                   // that are tried, without their depths
  std::vector<std::uint64_t> wanted_;             // min(k, items)
  std::vector<std::vector<Candidate>> measured_;  // by k
};

double CurveMeasurement::cost(const Setting& setting) const {
  const double dim = view_.scorer->dim();
  double scanning = static_cast<double>(setting.candidates) * dim * tuning::kRerankCostPerByte / 4;
  double scoring = static_cast<double>(setting.exact) *
                   (tuning::kExactCostFixed + dim * tuning::kExactCostPerDim);
  if (view_.scan == Scan::codes) {
    const double per_point = view_.codes.code_count * tuning::kScanCostPerCode;
    const double blocks =
        view_.block_centroids ? static_cast<double>(setting.opened) / kBlockPoints : 0.0;
    const double fresh = 0.5 * tuning::kExpansionRounds * view_.neighbours.count *
                         static_cast<double>(setting.expanded);
    scanning =
        (static_cast<double>(setting.candidates) + blocks) * per_point + fresh * tuning::kFreshCost;
    scoring += static_cast<double>(setting.rerank) *
               (tuning::kRerankCostFixed + dim * tuning::kRerankCostPerByte);
  }
  return scanning + scoring;
}

// What the recall is at least, as far as so few queries can tell: the neighbours of one query are
// found or missed together, so k of them count as its square root.
double CurveMeasurement::less_standard_error(double recall, std::size_t k_index) const {
  const double trials =
      static_cast<double>(in_half(1)) *
      std::sqrt(static_cast<double>(std::max<std::uint64_t>(1, wanted_[k_index])));
  return trials > 0.0 ? std::max(0.0, recall - std::sqrt(recall * (1.0 - recall) / trials)) : 0.0;
}

void CurveMeasurement::choose_levels() {
  const auto items = static_cast<double>(view_.item_count);
  const bool has_blocks = view_.block_centroids != nullptr;
  // Below the points of a leaf, all levels read the same.
  const double least = has_blocks ? 0.0 : items / view_.forest.trees[0].leaf_entry_count;
  const auto add = [&](std::uint64_t candidates) {
    const std::uint64_t opened =
        std::min(view_.item_count, candidates * (has_blocks ? tuning::kOpenedPerCandidate : 1));
    levels_.push_back({opened, candidates, 0, 0, 0, false});
    if (view_.neighbours.entries == nullptr) return;
    for (std::uint64_t expanded : tuning::kExpandedLevels) {
      levels_.push_back({opened, candidates, expanded, 0, 0, false});
    }
  };
  for (double level = std::max(static_cast<double>(plan_.first_level), least); level < items;
       level *= tuning::kCandidateGrowth) {
    add(static_cast<std::uint64_t>(level));
  }
  levels_.push_back({view_.item_count, view_.item_count, 0, 0, 0, false});
}

std::vector<double> CurveMeasurement::truth_of(std::uint64_t i, Searcher* searcher) const {
  const bool exactly = view_.scan != Scan::codes ||
                       view_.item_count * view_.scorer->dim() <= tuning::kExactTruthValues;
  std::vector<double> keys;
  if (exactly) {
    Request request;
    request.k = *std::max_element(ks_.begin(), ks_.end());
    request.setting.everything = true;
    request.excluded = excluded(i);
    for (const Neighbour& n : searcher->run(view_, query(i), request)) keys.push_back(n.key);
  } else {
    TraceDepths depths = plan_.depths;
    depths.scan = {std::max(depths.scan.back(), tuning::kLargeTraceDepth)};
    searcher->begin_trace(view_, query(i), excluded(i));
    for (const TracedCandidate& c :
         searcher->trace(view_, {view_.item_count, view_.item_count, 0, 0, 0, false}, depths)) {
      keys.push_back(c.key);
    }
    std::sort(keys.begin(), keys.end());
  }
  std::vector<double> truth;
  for (std::uint64_t wanted : wanted_) {
    truth.push_back(keys.empty() ? 0.0 : keys[std::min<std::size_t>(wanted, keys.size()) - 1]);
  }
  return truth;
}

void CurveMeasurement::count_found(const std::vector<double>& truth,
                                   const std::vector<TracedCandidate>& traced, Found* found) const {
  found->clear();
  for (std::size_t k = 0; k < ks_.size(); ++k) {
    std::uint32_t exact_steps[kExactCount];
    for (std::size_t e = 0; e < kExactCount; ++e) {
      exact_steps[e] = plan_.exact_step(exact_depth(ks_[k], e));
    }
    // First where a neighbour begins to be found, then sums.
    for (const TracedCandidate& candidate : traced) {
      if (candidate.key > truth[k] || candidate.scan_step >= plan_.depths.scan.size()) continue;
      for (std::size_t e = 0; e < kExactCount; ++e) {
        if (candidate.exact_step <= exact_steps[e]) ++found->at(k, candidate.scan_step, e);
      }
    }
    for (std::size_t e = 0; e < kExactCount; ++e) {
      std::uint64_t sum = 0;
      for (std::size_t r = 0; r < plan_.depths.scan.size(); ++r) {
        sum += found->at(k, r, e);
        found->at(k, r, e) = std::min(sum, wanted_[k]);
      }
    }
  }
}

// What one query finds at each level. Where more effort has changed nothing for some levels, it is
// taken to change nothing any more.
void CurveMeasurement::ask(std::uint64_t i, Searcher* searcher,
                           std::vector<HitTable>* tables) const {
  const std::vector<double> truth = truth_of(i, searcher);
  searcher->begin_trace(view_, query(i), excluded(i));
  Found found(ks_.size());
  std::uint64_t most = 0, all = 0;
  for (std::uint64_t wanted : wanted_) all += wanted;
  std::size_t unchanged = 0;
  for (std::size_t level = 0; level < levels_.size(); ++level) {
    const std::size_t settled = most == all ? tuning::kSettledLevels : 2 * tuning::kSettledLevels;
    if (most == 0 || unchanged < settled) {
      count_found(truth, searcher->trace(view_, levels_[level], plan_.depths), &found);
      std::uint64_t now = 0;
      for (std::size_t k = 0; k < ks_.size(); ++k) {
        now += found.at(k, plan_.depths.scan.size() - 1, kExactCount - 1);
      }
      unchanged = now == most ? unchanged + 1 : 0;
      most = now;
    }
    (*tables)[level].add(found, i % 2);
  }
}

std::vector<HitTable> CurveMeasurement::measure() {
  std::vector<std::vector<HitTable>> tables(
      n_threads_, std::vector<HitTable>(levels_.size(), HitTable(ks_.size())));
  std::vector<Searcher> searchers(n_threads_);
  for (Searcher& searcher : searchers) searcher.set_page_keeper(queries_.page_keeper());
  parallel_for(
      n_threads_, count_, 8,
      [&](std::uint64_t begin, std::uint64_t end, unsigned worker) {
        for (std::uint64_t i = begin; i < end; ++i) {
          ask(i, &searchers[worker], &tables[worker]);
        }
      },
      monitor_, "recall curve");
  for (std::size_t worker = 1; worker < tables.size(); ++worker) {
    for (std::size_t level = 0; level < levels_.size(); ++level) {
      tables[0][level].merge(tables[worker][level]);
    }
  }
  return std::move(tables[0]);
}

// The settings no cheaper one beats, thinned to kCurvePointsPerK.
std::vector<format::CurvePoint> CurveMeasurement::cheapest(std::size_t k_index) const {
  std::vector<Candidate> all = measured_[k_index];
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.cost < b.cost; });
  std::vector<Candidate> front;
  // Where one half misses nothing any more, the other alone tells what a higher cost brings.
  const auto is_better = [](const Candidate& a, const Candidate& b) {
    const bool chosen =
        a.chosen_recall > b.chosen_recall || (a.chosen_recall >= 1.0 && b.chosen_recall >= 1.0);
    return chosen && a.checked_recall > b.checked_recall;
  };
  for (const Candidate& candidate : all) {
    if (front.empty() || is_better(candidate, front.back())) front.push_back(candidate);
  }
  // Drop the point whose neighbours are closest, by the logarithm of misses, until the rest fit.
  constexpr double kFewest = 1e-4;
  const auto depth = [=](const Candidate& c) {
    return -std::log(std::max(kFewest, 1.0 - c.checked_recall));
  };
  while (front.size() > tuning::kCurvePointsPerK) {
    std::size_t dropped = 1;
    double narrowest = std::numeric_limits<double>::infinity();
    for (std::size_t i = 1; i + 1 < front.size(); ++i) {
      const double gap = depth(front[i + 1]) - depth(front[i - 1]);
      if (gap < narrowest) {
        narrowest = gap;
        dropped = i;
      }
    }
    front.erase(front.begin() + static_cast<std::ptrdiff_t>(dropped));
  }
  std::vector<format::CurvePoint> points;
  for (const Candidate& candidate : front) points.push_back(candidate.point);
  points.resize(tuning::kCurvePointsPerK, points.back());
  return points;
}

// The settings of one level, with what they cost and reach.
void CurveMeasurement::weigh(std::size_t level, HitTable* hits) {
  for (std::size_t k = 0; k < ks_.size(); ++k) {
    for (std::size_t r = 0; r < plan_.depths.scan.size(); ++r) {
      for (std::size_t e = 0; e < kExactCount; ++e) {
        const auto recall = [&](std::size_t wanted_half) {
          // A single query is its own check.
          const std::size_t half = in_half(wanted_half) > 0 ? wanted_half : 0;
          const double possible = static_cast<double>(in_half(half) * wanted_[k]);
          return possible > 0 ? static_cast<double>(hits->at(k, r, e, half)) / possible : 1.0;
        };
        const double checked = less_standard_error(recall(1), k);
        Setting setting = levels_[level];
        setting.exact = exact_depth(ks_[k], e);
        setting.rerank = std::max<std::uint64_t>(plan_.depths.scan[r], setting.exact);
        measured_[k].push_back(
            {cost(setting), recall(0), checked, point_of(ks_[k], checked, setting)});
      }
    }
  }
}

std::vector<format::CurvePoint> CurveMeasurement::run() {
  for (std::uint32_t k : ks_) wanted_.push_back(std::min<std::uint64_t>(k, view_.item_count));
  choose_levels();
  std::vector<HitTable> tables = measure();
  measured_.assign(ks_.size(), {});
  for (std::size_t level = 0; level < levels_.size(); ++level) weigh(level, &tables[level]);
  std::vector<format::CurvePoint> curve;
  for (std::size_t k = 0; k < ks_.size(); ++k) {
    const std::vector<format::CurvePoint> points = cheapest(k);
    curve.insert(curve.end(), points.begin(), points.end());
  }
  return curve;
}

// Points of one k, which stand together.
class Points {
 public:
  // Those of the smallest measured k that is at least k, or of the largest.
  Points(const std::vector<format::CurvePoint>& curve, std::uint64_t k) {
    std::uint32_t chosen = 0;
    for (const format::CurvePoint& point : curve) {
      const bool better = chosen == 0 || (point.k >= k ? chosen < k || point.k < chosen
                                                       : chosen < k && point.k > chosen);
      if (better) {
        chosen = point.k;
        begin_ = &point;
        size_ = 0;
      }
      if (point.k == chosen && &point == begin_ + size_) ++size_;
    }
  }
  const format::CurvePoint* begin() const noexcept { return begin_; }
  const format::CurvePoint* end() const noexcept { return begin_ + size_; }
  std::size_t size() const noexcept { return size_; }
  const format::CurvePoint& operator[](std::size_t i) const noexcept { return begin_[i]; }

 private:
  const format::CurvePoint* begin_ = nullptr;
  std::size_t size_ = 0;
};

// Beyond the largest measured k, candidates grow faster than k: on clustered data the neighbours
// leave the cluster. Codes are cheap to scan, a target missed is not cheap.
Setting stretched(const Setting& setting, std::uint64_t k, std::uint32_t measured_k,
                  std::uint64_t items) {
  Setting out = setting;
  if (k > measured_k && measured_k > 0) {
    const double factor = static_cast<double>(k) / measured_k;
    const auto grown = [&](std::uint64_t value, double power) {
      return static_cast<std::uint64_t>(std::min(
          static_cast<double>(items), static_cast<double>(value) * std::pow(factor, power)));
    };
    out.candidates = grown(out.candidates, tuning::kStretchPower);
    out.opened = grown(out.opened, tuning::kStretchPower);
    out.expanded = grown(out.expanded, 1.0);
    out.rerank = grown(out.rerank, 1.0);
    out.exact = grown(out.exact, 1.0);
  }
  out.candidates = std::min(std::max(out.candidates, k), items);
  out.opened = std::min(std::max(out.opened, out.candidates), items);
  out.exact = std::max(out.exact, k);
  out.rerank = std::max(out.rerank, out.exact);
  return out;
}

std::uint64_t between(double share, std::uint32_t a, std::uint32_t b) {
  return static_cast<std::uint64_t>(
      std::ceil(std::exp(std::log(std::max(1.0, static_cast<double>(a))) * (1.0 - share) +
                         std::log(std::max(1.0, static_cast<double>(b))) * share)));
}

Setting blend(double share, const format::CurvePoint& a, const format::CurvePoint& b) {
  return {between(share, a.opened, b.opened),     between(share, a.candidates, b.candidates),
          between(share, a.expanded, b.expanded), between(share, a.rerank, b.rerank),
          between(share, a.exact, b.exact),       false};
}

Setting setting_of(const format::CurvePoint& point) {
  return {point.opened, point.candidates, point.expanded, point.rerank, point.exact, false};
}

// The cheapest setting of the points that reaches `recall` with the margin, or the last without it.
bool reaches(const Points& points, double recall, Setting* found) {
  const double miss = (1.0 - recall) * tuning::kMissMargin;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const double here = 1.0 - points[i].recall;
    if (!(here <= miss)) continue;
    *found = setting_of(points[i]);
    // No misses measured is no rate of misses, and a far point no neighbour: nothing to blend with.
    const double before = i > 0 ? 1.0 - points[i - 1].recall : 1.0;
    if (i == 0 || !(here > 0.0) || before > here * tuning::kMostBlendedMisses) return true;
    const double span = std::log(before) - std::log(here);
    const double share = span > 0.0 ? (std::log(before) - std::log(miss)) / span : 1.0;
    // Not a number between damaged points.
    const double within = share > 0.0 ? std::min(share, 1.0) : 0.0;
    *found = blend(within, points[i - 1], points[i]);
    return true;
  }
  if (points.size() == 0 || !(points[points.size() - 1].recall >= recall)) return false;
  *found = setting_of(points[points.size() - 1]);
  return true;
}

}  // namespace

std::vector<std::uint32_t> curve_ks(std::uint64_t items) {
  std::vector<std::uint32_t> ks(std::begin(tuning::kCurveKs), std::end(tuning::kCurveKs));
  if (items >= tuning::kDeepCurveItems) ks.push_back(tuning::kDeepCurveK);
  return ks;
}

std::vector<format::CurvePoint> measure_curve(const SearchView& view,
                                              const CalibrationQueries& queries,
                                              const std::vector<std::uint32_t>& ks,
                                              unsigned n_threads, Monitor* monitor) {
  std::vector<Plan> plans;
  std::vector<std::uint32_t> usual;
  for (std::uint32_t k : ks) {
    if (k <= tuning::kLargestUsualK) usual.push_back(k);
  }
  if (!usual.empty()) plans.push_back(usual_plan(std::move(usual), view.item_count));
  for (std::uint32_t k : ks) {
    if (k > tuning::kLargestUsualK) plans.push_back(deep_plan(k, view.item_count));
  }
  std::vector<format::CurvePoint> curve;
  for (const Plan& plan : plans) {
    const std::vector<format::CurvePoint> points =
        CurveMeasurement(view, queries, plan, n_threads, monitor).run();
    curve.insert(curve.end(), points.begin(), points.end());
  }
  return curve;
}

Setting setting_for_recall(const std::vector<format::CurvePoint>& curve, std::uint64_t k,
                           double recall, std::uint64_t items) {
  // Who finds a share of more neighbours finds it of the nearest of them: where the points of one k
  // end below the target, those of the next larger one serve. A file may hold any number of them.
  constexpr std::size_t kMostKs = std::size(tuning::kCurveKs) + 1;
  std::uint64_t at = k;
  for (std::size_t step = 0; step < kMostKs; ++step) {
    const Points points(curve, at);
    Setting found;
    if (reaches(points, recall, &found)) return stretched(found, k, points[0].k, items);
    if (points.size() == 0 || points[0].k < at) break;
    at = std::uint64_t{points[0].k} + 1;
  }
  return {items, items, 0, items, items, true};
}

Setting setting_for_candidates(const std::vector<format::CurvePoint>& curve, std::uint64_t k,
                               std::uint64_t search_k, std::uint64_t items) {
  if (search_k >= items) return {items, items, 0, items, items, true};
  const Points points(curve, k);
  // Never less effort of the other kinds than a smaller search_k gets.
  Setting setting{search_k * tuning::kOpenedPerCandidate,  search_k, 0,
                  search_k / tuning::kCandidatesPerRerank, 0,        false};
  std::uint32_t measured_k = 0;
  for (const format::CurvePoint& point : points) {
    measured_k = point.k;
    if (point.candidates > search_k && setting.exact > 0) continue;
    setting.expanded = std::max<std::uint64_t>(setting.expanded, point.expanded);
    setting.rerank = std::max<std::uint64_t>(setting.rerank, point.rerank);
    setting.exact = std::max<std::uint64_t>(setting.exact, point.exact);
  }
  if (measured_k == 0) {
    setting.expanded = tuning::kUnmeasuredExpanded;
    setting.rerank = std::max(search_k / tuning::kCandidatesPerUnmeasuredRerank,
                              tuning::kUnmeasuredRerankPerNeighbour * k);
  }
  setting = stretched(setting, k, measured_k, items);
  setting.candidates = std::max(search_k, k);
  return setting;
}

}  // namespace annidx
