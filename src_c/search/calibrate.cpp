// calibrate.cpp owns the measuring of the recall curve; see calibrate.h.
//
// A grid of efforts is explored with few queries; the settings that no cheaper one beats, made so
// that each is at least the one before in every kind of effort, are measured with all queries.
#include "search/calibrate.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "base/tuning.h"
#include "model/neighbours.h"
#include "search/exact.h"
#include "search/graph_input.h"
#include "search/query_forms.h"

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
  std::uint64_t climbing;     // of these, to climb with
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

// Where leaves are scanned whole few re-ranked rows save next to nothing, and queries of another
// origin need more of them than held-out rows do.
Plan usual_plan(std::vector<std::uint32_t> ks, bool is_blocked) {
  std::vector<std::uint32_t> reranks{80,  112, 160, 224,  320,
                                     448, 640, 896, 1280, tuning::kTraceDepth};
  if (is_blocked) {
    reranks = {16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 768, 1024, 1536, tuning::kTraceDepth};
  }
  Plan plan{std::move(ks),
            {std::move(reranks), {}},
            tuning::kCurveQueries,
            tuning::kClimbingQueries,
            tuning::kFirstLevel};
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
            tuning::kDeepCurveQueries / 2,
            std::max<std::uint64_t>(k, tuning::kFirstLevel)};
  set_exact_depths(times(2.1), &plan);
  return plan;
}

// How many true neighbours are found, by k, depth of re-ranking and of exact scoring.
class HitTable {
 public:
  explicit HitTable(std::size_t ks) : counts_(ks * kMostReranks * kExactCount) {}
  std::uint64_t& at(std::size_t k, std::size_t rerank, std::size_t exact) {
    return counts_[(k * kMostReranks + rerank) * kExactCount + exact];
  }
  void clear() { std::fill(counts_.begin(), counts_.end(), 0); }
  void add(const HitTable& other) {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
  }

 private:
  std::vector<std::uint64_t> counts_;
};

struct Candidate {
  double cost;
  double recall;
  Setting setting;
  float far_ratio;
};

// A kind of effort that a rung can have more of.
enum class Move { candidates, opened, expanded, all };

struct Rung {
  Setting setting;
  double misses;  // sum of the logarithms of what is missed, over k
};

// Lets pages be given back while others work.
class PageKeepingMonitor final : public Monitor {
 public:
  // Both may be null.
  PageKeepingMonitor(Monitor* inner, const std::function<void()>* keep)
      : inner_(inner), keep_(keep) {}
  void poll() override {
    if (keep_) (*keep_)();
    if (inner_) inner_->poll();
  }
  void progress(const char* stage, std::uint64_t done, std::uint64_t total) override {
    if (inner_) inner_->progress(stage, done, total);
  }

 private:
  Monitor* inner_;
  const std::function<void()>* keep_;
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
  double cost(const Setting& setting) const;
  double share_found(std::uint64_t found, std::size_t k, std::uint64_t asked) const;
  double less_standard_error(double recall, std::size_t k) const;
  // Whether all items are scored exactly, for each query by itself.
  bool scored_exactly() const noexcept {
    return view_.scan != Scan::codes ||
           view_.item_count * view_.scorer->dim() <= tuning::kExactTruthValues;
  }
  void find_truth();
  std::vector<double> truth_of(std::uint64_t i, Searcher* searcher) const;
  std::vector<double> cut_to_truth(const std::vector<double>& keys) const;
  bool compare_all();
  void count_found(const std::vector<double>& truth, const std::vector<TracedCandidate>& traced,
                   std::size_t depths, HitTable* found) const;
  TraceDepths depths_for(const Setting& setting) const;
  void ask(std::uint64_t i, const std::vector<Setting>& settings, Searcher* searcher,
           std::vector<HitTable>* tables);
  std::vector<HitTable> measure(const std::vector<Setting>& settings, std::uint64_t asked,
                                const char* stage);
  bool is_blocked() const noexcept { return view_.block_centroids != nullptr; }
  Setting first_setting() const;
  Setting moved(Setting setting, Move move) const;
  Rung climbed(const Setting& setting);
  std::vector<Setting> climb();
  std::vector<Candidate> cheapest(std::size_t k, const std::vector<Setting>& ladder,
                                  std::vector<HitTable>* tables) const;
  std::vector<format::CurvePoint> points_of(std::size_t k, std::vector<Candidate> front) const;
  std::vector<float> far_ratios(std::size_t settings) const;

  const SearchView& view_;
  const CalibrationQueries& queries_;
  const Plan& plan_;
  const std::vector<std::uint32_t>& ks_;
  unsigned n_threads_;
  Monitor* monitor_;
  std::uint64_t count_;                      // queries asked
  std::vector<std::uint64_t> wanted_;        // min(k, items)
  std::vector<std::vector<double>> truths_;  // by query: keys of the k-th true neighbours, by k
  std::vector<Searcher> searchers_;          // a thread
  std::vector<float> reaches_;     // by query and setting of the ladder; empty while it is climbed
  std::vector<float> far_ratios_;  // by setting of the ladder
};

// In points scanned at 32 codes.
double CurveMeasurement::cost(const Setting& setting) const {
  const double dim = view_.scorer->dim();
  const double exact = static_cast<double>(setting.exact) *
                       (tuning::kExactCostFixed + dim * tuning::kExactCostPerDim);
  if (view_.scan != Scan::codes) {
    return static_cast<double>(setting.candidates) * dim * tuning::kRerankCostPerByte / 4 + exact;
  }
  const double per_point = view_.codes.code_count * tuning::kScanCostPerCode;
  double scanning = static_cast<double>(setting.candidates) * per_point;
  if (view_.block_centroids) {
    const double opened = static_cast<double>(setting.opened) / kBlockPoints;
    const double blocks = static_cast<double>(setting.candidates) / kBlockPoints;
    scanning += opened * (per_point + tuning::kOpenedBlockCost) + blocks * tuning::kBlockCost;
  }
  const double lists = static_cast<double>(tuning::kExpansionRounds * setting.expanded);
  const double reranking = static_cast<double>(setting.rerank) *
                           (tuning::kRerankCostFixed + dim * tuning::kRerankCostPerByte);
  return scanning + lists * tuning::kListCost + reranking + exact;
}

double CurveMeasurement::share_found(std::uint64_t found, std::size_t k,
                                     std::uint64_t asked) const {
  const double possible = static_cast<double>(asked * wanted_[k]);
  return possible > 0 ? static_cast<double>(found) / possible : 1.0;
}

// What the recall is at least, as far as so few queries can tell: the neighbours of one query are
// found or missed together, so k of them count as its square root.
double CurveMeasurement::less_standard_error(double recall, std::size_t k) const {
  const double trials = static_cast<double>(count_) *
                        std::sqrt(static_cast<double>(std::max<std::uint64_t>(1, wanted_[k])));
  return trials > 0.0 ? std::max(0.0, recall - std::sqrt(recall * (1.0 - recall) / trials)) : 0.0;
}

std::vector<double> CurveMeasurement::truth_of(std::uint64_t i, Searcher* searcher) const {
  std::vector<double> keys;
  if (scored_exactly()) {
    Request request;
    request.k = *std::max_element(ks_.begin(), ks_.end());
    request.setting.everything = true;
    request.excluded = excluded(i);
    for (const Neighbour& n : searcher->run(view_, query(i), request)) keys.push_back(n.key);
  } else {
    TraceDepths depths = plan_.depths;
    depths.scan = {std::max(depths.scan.back(), tuning::kTraceDepth)};
    searcher->begin_trace(view_, query(i), excluded(i));
    const Setting all{view_.item_count, view_.item_count, 0, 0, 0, false};
    for (const TracedCandidate& c : searcher->trace(view_, all, depths)) keys.push_back(c.key);
    std::sort(keys.begin(), keys.end());
  }
  return cut_to_truth(keys);
}

// Keys of the last true neighbour of each k, of ascending keys.
std::vector<double> CurveMeasurement::cut_to_truth(const std::vector<double>& keys) const {
  std::vector<double> truth;
  for (std::uint64_t wanted : wanted_) {
    truth.push_back(keys.empty() ? 0.0 : keys[std::min<std::size_t>(wanted, keys.size()) - 1]);
  }
  return truth;
}

// Queries that are items are compared with all others by their rows of bytes, together, and what is
// nearest by these is scored exactly. Codes may be blind to what makes neighbours: sparse vectors.
bool CurveMeasurement::compare_all() {
  GraphInput input;
  const std::uint32_t deepest = *std::max_element(ks_.begin(), ks_.end());
  if (queries_.excluded.empty() || deepest > tuning::kLargestUsualK) return false;
  if (!describe_rows(view_, &input)) return false;
  std::vector<Slot> slots(count_);
  for (std::uint64_t i = 0; i < count_; ++i) slots[i] = excluded(i);
  PageKeepingMonitor monitor(monitor_, queries_.page_keeper());
  const std::uint32_t depth = 2 * deepest + tuning::kSpareTruth;
  const std::vector<Slot> lists =
      NeighbourFinder::true_lists(input, slots, depth, n_threads_, &monitor);
  parallel_for(n_threads_, count_, 8, [&](std::uint64_t begin, std::uint64_t end, unsigned) {
    QueryForms forms;
    std::vector<double> keys;
    for (std::uint64_t i = begin; i < end; ++i) {
      forms.set(view_, query(i));
      keys.clear();
      for (std::uint64_t j = i * depth; j < (i + 1) * depth && lists[j] != kNoRow; ++j) {
        keys.push_back(exact_key(view_, forms.exact(), lists[j]));
      }
      std::sort(keys.begin(), keys.end());
      truths_[i] = cut_to_truth(keys);
    }
  });
  return true;
}

void CurveMeasurement::find_truth() {
  truths_.resize(count_);
  if (!scored_exactly() && compare_all()) return;
  parallel_for(
      n_threads_, count_, 8,
      [&](std::uint64_t begin, std::uint64_t end, unsigned worker) {
        for (std::uint64_t i = begin; i < end; ++i) truths_[i] = truth_of(i, &searchers_[worker]);
      },
      monitor_, "true neighbours");
}

// Re-ranking most of what is scanned would be no saving: a setting is asked about less deep ones.
TraceDepths CurveMeasurement::depths_for(const Setting& setting) const {
  TraceDepths depths = plan_.depths;
  const std::uint64_t worth =
      std::max<std::uint64_t>(tuning::kLeastTraceDepth, setting.candidates / 4);
  while (depths.scan.size() > 1 && depths.scan[depths.scan.size() - 2] >= worth) {
    depths.scan.pop_back();
  }
  return depths;
}

// `depths`: so many of the plan's depths were traced; beyond them nothing more is found.
void CurveMeasurement::count_found(const std::vector<double>& truth,
                                   const std::vector<TracedCandidate>& traced, std::size_t depths,
                                   HitTable* found) const {
  found->clear();
  for (std::size_t k = 0; k < ks_.size(); ++k) {
    std::uint32_t exact_steps[kExactCount];
    for (std::size_t e = 0; e < kExactCount; ++e) {
      exact_steps[e] = plan_.exact_step(exact_depth(ks_[k], e));
    }
    // First where a neighbour begins to be found, then sums.
    for (const TracedCandidate& candidate : traced) {
      if (candidate.key > truth[k] || candidate.scan_step >= depths) continue;
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

// What one query finds with each setting, of ascending effort. Once some have found all, so will
// more effort.
void CurveMeasurement::ask(std::uint64_t i, const std::vector<Setting>& settings,
                           Searcher* searcher, std::vector<HitTable>* tables) {
  searcher->begin_trace(view_, query(i), excluded(i));
  std::uint64_t all = 0;
  for (std::uint64_t wanted : wanted_) all += wanted;
  HitTable found(ks_.size());
  std::size_t complete = 0;
  for (std::size_t s = 0; s < settings.size(); ++s) {
    if (complete < tuning::kSettledLevels) {
      const TraceDepths depths = depths_for(settings[s]);
      count_found(truths_[i], searcher->trace(view_, settings[s], depths), depths.scan.size(),
                  &found);
      std::uint64_t now = 0;
      for (std::size_t k = 0; k < ks_.size(); ++k) {
        now += found.at(k, plan_.depths.scan.size() - 1, kExactCount - 1);
      }
      complete = now == all ? complete + 1 : 0;
    }
    (*tables)[s].add(found);
    if (!reaches_.empty()) reaches_[i * settings.size() + s] = searcher->traced_reach();
  }
}

// By setting: what `asked` queries, evenly spread, find.
std::vector<HitTable> CurveMeasurement::measure(const std::vector<Setting>& settings,
                                                std::uint64_t asked, const char* stage) {
  std::vector<std::vector<HitTable>> tables(
      n_threads_, std::vector<HitTable>(settings.size(), HitTable(ks_.size())));
  parallel_for(
      n_threads_, asked, 4,
      [&](std::uint64_t begin, std::uint64_t end, unsigned worker) {
        for (std::uint64_t i = begin; i < end; ++i) {
          ask(i * count_ / asked, settings, &searchers_[worker], &tables[worker]);
        }
      },
      monitor_, stage);
  for (std::size_t worker = 1; worker < tables.size(); ++worker) {
    for (std::size_t s = 0; s < settings.size(); ++s) tables[0][s].add(tables[worker][s]);
  }
  return std::move(tables[0]);
}

Setting CurveMeasurement::first_setting() const {
  const std::uint64_t items = view_.item_count;
  // Below the points of a leaf that is scanned whole, all settings read the same.
  const std::uint64_t leaves = std::max(1u, view_.forest.trees[0].leaf_entry_count);
  const std::uint64_t leaf = items / leaves;
  const std::uint64_t candidates =
      std::min(items, is_blocked() ? plan_.first_level : std::max(plan_.first_level, leaf));
  const std::uint64_t opened = is_blocked() ? tuning::kFirstOpened : candidates;
  return {std::min(items, std::max(opened, candidates)), candidates, 0, 0, 0, false};
}

Setting CurveMeasurement::moved(Setting setting, Move move) const {
  const double growth = is_blocked() ? tuning::kRungGrowth : tuning::kWholeLeavesGrowth;
  const auto grown = [&](std::uint64_t value) {
    return std::min(view_.item_count,
                    static_cast<std::uint64_t>(static_cast<double>(value) * growth) + 1);
  };
  const bool all = move == Move::all;
  if (all || move == Move::candidates) setting.candidates = grown(setting.candidates);
  if (is_blocked() && (all || move == Move::opened)) setting.opened = grown(setting.opened);
  if (view_.neighbours.entries && (all || move == Move::expanded)) {
    const std::uint64_t most =
        std::max(tuning::kFirstExpanded, setting.candidates / tuning::kCandidatesPerExpanded);
    setting.expanded = std::max(setting.expanded,
                                std::clamp(grown(setting.expanded), tuning::kFirstExpanded, most));
  }
  const std::uint64_t least = is_blocked() ? tuning::kLeastOpenedPerCandidate : 1;
  setting.opened = std::max(setting.opened, std::min(view_.item_count, least * setting.candidates));
  return setting;
}

// What the climbing queries miss with a setting, re-ranked as deeply as can be told.
Rung CurveMeasurement::climbed(const Setting& setting) {
  const std::uint64_t asked = std::min(count_, plan_.climbing);
  HitTable hits = measure({setting}, asked, "settings")[0];
  double misses = 0.0;
  for (std::size_t k = 0; k < ks_.size(); ++k) {
    const std::uint64_t found = hits.at(k, plan_.depths.scan.size() - 1, kExactCount - 1);
    misses += std::log(std::max(tuning::kFewestMisses, 1.0 - share_found(found, k, asked)));
  }
  return {setting, misses};
}

// A move that has been tried from an earlier rung promises no more from a later one: only the most
// promising is tried again.
std::vector<Setting> CurveMeasurement::climb() {
  std::vector<Move> moves{Move::candidates};
  if (is_blocked()) moves.push_back(Move::opened);
  if (view_.neighbours.entries) moves.push_back(Move::expanded);
  std::vector<double> promises(moves.size(), std::numeric_limits<double>::infinity());
  const double least = std::log(tuning::kFewestMisses) * static_cast<double>(ks_.size());
  Rung here = climbed(first_setting());
  std::vector<Setting> ladder{here.setting};
  while (here.misses > least && here.setting.candidates < view_.item_count) {
    Rung next{};
    for (;;) {
      const std::size_t best = static_cast<std::size_t>(
          std::max_element(promises.begin(), promises.end()) - promises.begin());
      if (!(promises[best] > 0.0)) {
        next = climbed(moved(here.setting, Move::all));
        std::fill(promises.begin(), promises.end(), std::numeric_limits<double>::infinity());
        break;
      }
      next = climbed(moved(here.setting, moves[best]));
      const double added = cost(next.setting) - cost(here.setting);
      promises[best] = added > 0.0 ? (here.misses - next.misses) / added : 0.0;
      const bool is_best = std::all_of(promises.begin(), promises.end(),
                                       [&](double other) { return other <= promises[best]; });
      if (is_best && promises[best] > 0.0) break;
    }
    here = next;
    ladder.push_back(here.setting);
    // What was of no use, or not possible, may be so from here.
    for (double& promise : promises) {
      if (!(promise > 0.0)) promise = std::numeric_limits<double>::infinity();
    }
  }
  return ladder;
}

// The settings no cheaper one beats, with their depths.
std::vector<Candidate> CurveMeasurement::cheapest(std::size_t k, const std::vector<Setting>& ladder,
                                                  std::vector<HitTable>* tables) const {
  std::vector<Candidate> all;
  for (std::size_t s = 0; s < ladder.size(); ++s) {
    for (std::size_t r = 0; r < plan_.depths.scan.size(); ++r) {
      for (std::size_t e = 0; e < kExactCount; ++e) {
        Setting setting = ladder[s];
        setting.exact = exact_depth(ks_[k], e);
        setting.rerank = std::max<std::uint64_t>(plan_.depths.scan[r], setting.exact);
        all.push_back({cost(setting), share_found((*tables)[s].at(k, r, e), k, count_), setting,
                       far_ratios_[s]});
      }
    }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.cost < b.cost; });
  std::vector<Candidate> front;
  for (const Candidate& candidate : all) {
    if (front.empty() || candidate.recall > front.back().recall) front.push_back(candidate);
  }
  return front;
}

format::CurvePoint point_of(std::uint32_t k, double recall, const Setting& setting,
                            float far_ratio) {
  const auto narrow = [](std::uint64_t value) { return static_cast<std::uint32_t>(value); };
  return {k,
          static_cast<float>(recall),
          narrow(setting.opened),
          narrow(setting.candidates),
          narrow(setting.expanded),
          narrow(setting.rerank),
          narrow(setting.exact),
          far_ratio};
}

// At most kCurvePointsPerK of the front, spread by the logarithm of their misses.
std::vector<format::CurvePoint> CurveMeasurement::points_of(std::size_t k,
                                                            std::vector<Candidate> front) const {
  const auto depth = [](const Candidate& c) {
    return -std::log(std::clamp(1.0 - c.recall, tuning::kFewestMisses, tuning::kMostMisses));
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
  Setting most{};
  for (const Candidate& candidate : front) {
    most = most_of(most, candidate.setting);
    double recall = less_standard_error(candidate.recall, k);
    if (view_.multiplies_norm()) recall = std::max(0.0, 1.0 - (1.0 - recall) * tuning::kDotMisses);
    points.push_back(point_of(ks_[k], recall, most, candidate.far_ratio));
  }
  points.resize(tuning::kCurvePointsPerK, points.back());
  return points;
}

// The reach that hardly one of the queries exceeds, by setting.
std::vector<float> CurveMeasurement::far_ratios(std::size_t settings) const {
  std::vector<float> ratios(settings, 0.0f);
  if (count_ == 0) return ratios;
  std::vector<float> reaches(count_);
  const double last = static_cast<double>(count_ - 1);
  for (std::size_t s = 0; s < settings; ++s) {
    for (std::uint64_t i = 0; i < count_; ++i) reaches[i] = reaches_[i * settings + s];
    std::sort(reaches.begin(), reaches.end());
    const double far = reaches[static_cast<std::size_t>(last * tuning::kFarShare)];
    const double median = reaches[count_ / 2];
    ratios[s] = static_cast<float>(far - tuning::kFarSlack * (far - median));
  }
  return ratios;
}

std::vector<format::CurvePoint> CurveMeasurement::run() {
  searchers_ = std::vector<Searcher>(n_threads_);
  for (Searcher& searcher : searchers_) searcher.set_page_keeper(queries_.page_keeper());
  for (std::uint32_t k : ks_) wanted_.push_back(std::min<std::uint64_t>(k, view_.item_count));
  find_truth();
  const std::vector<Setting> ladder = climb();
  reaches_.resize(count_ * ladder.size());
  std::vector<HitTable> tables = measure(ladder, count_, "recall curve");
  far_ratios_ = far_ratios(ladder.size());
  std::vector<format::CurvePoint> curve;
  for (std::size_t k = 0; k < ks_.size(); ++k) {
    const std::vector<format::CurvePoint> points = points_of(k, cheapest(k, ladder, &tables));
    curve.insert(curve.end(), points.begin(), points.end());
  }
  return curve;
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
  if (!usual.empty())
    plans.push_back(usual_plan(std::move(usual), view.block_centroids != nullptr));
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

}  // namespace annidx
