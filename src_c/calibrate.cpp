// calibrate.cpp owns the recall curve; see calibrate.h.
#include "calibrate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tuning.h"

namespace annidx {
namespace {

// Depths of re-ranking that are tried.
constexpr std::uint32_t kReranks[] = {16,  24,  32,  48,  64,  96,  128, 192,
                                      256, 384, 512, 768, 1024, 1536, 2048};
constexpr std::size_t kRerankCount = sizeof(kReranks) / sizeof(kReranks[0]);
constexpr std::size_t kExactCount = 5;
static_assert(kReranks[kRerankCount - 1] == tuning::kLargeTraceDepth);

std::uint32_t exact_depth(std::uint32_t k, std::size_t step) {
  const std::uint32_t depths[kExactCount] = {k + 2, k + k / 5 + 3, k + k / 2 + 4, 2 * k + 8,
                                             4 * k + 16};
  return depths[step];
}

// Hits of one level, by k, depth of re-ranking, depth of exact scoring and half of the queries.
class HitTable {
 public:
  explicit HitTable(std::size_t ks) : hits_(ks * kRerankCount * kExactCount * 2) {}
  std::uint64_t& at(std::size_t k, std::size_t rerank, std::size_t exact, std::size_t half) {
    return hits_[((k * kRerankCount + rerank) * kExactCount + exact) * 2 + half];
  }
  void merge(const HitTable& other) {
    for (std::size_t i = 0; i < hits_.size(); ++i) hits_[i] += other.hits_[i];
  }

 private:
  std::vector<std::uint64_t> hits_;
};

struct Candidate {
  double cost;
  double chosen_recall;   // on the half that chooses
  double checked_recall;  // on the other
  format::CurvePoint point;
};

class CurveMeasurement {
 public:
  CurveMeasurement(const SearchView& view, const CalibrationQueries& queries,
                   const std::vector<std::uint32_t>& ks, unsigned n_threads, Monitor* monitor)
      : view_(view),
        queries_(queries),
        ks_(ks),
        n_threads_(n_threads),
        monitor_(monitor),
        depth_(view.item_count < tuning::kLargeTraceItems ? tuning::kTraceDepth
                                                          : tuning::kLargeTraceDepth) {}

  std::vector<format::CurvePoint> run();

 private:
  const std::byte* query(std::uint64_t i) const { return queries_.rows + i * queries_.row_bytes; }
  Slot excluded(std::uint64_t i) const {
    return queries_.excluded.empty() ? kNoRow : queries_.excluded[i];
  }
  std::uint64_t in_half(std::size_t half) const { return (queries_.count + 1 - half) / 2; }
  double cost(std::uint64_t candidates, std::uint32_t rerank, std::uint32_t exact) const;
  double less_standard_error(double recall, std::size_t k_index) const;
  void find_truth();
  HitTable measure_level(std::uint64_t candidates);
  void count_hits(std::uint64_t query, const std::vector<TracedCandidate>& traced, HitTable* hits);
  std::vector<format::CurvePoint> cheapest(std::size_t k_index) const;

  const SearchView& view_;
  const CalibrationQueries& queries_;
  const std::vector<std::uint32_t>& ks_;
  unsigned n_threads_;
  Monitor* monitor_;
  std::uint32_t depth_;        // of the re-ranking that is looked at
  std::vector<double> truth_;  // key of the k-th true neighbour, by query and k
  std::vector<std::uint64_t> wanted_;  // min(k, items)
  std::vector<std::vector<Candidate>> measured_;  // by k
};

double CurveMeasurement::cost(std::uint64_t candidates, std::uint32_t rerank,
                              std::uint32_t exact) const {
  const double dim = view_.scorer->dim();
  double per_point = dim * tuning::kRerankCostPerByte / 4;
  double re_scoring = exact * (tuning::kExactCostFixed + dim * tuning::kExactCostPerDim);
  if (view_.scan == Scan::codes) {
    per_point = view_.codes.code_count * tuning::kScanCostPerCode;
    re_scoring += rerank * (tuning::kRerankCostFixed + dim * tuning::kRerankCostPerByte);
  }
  return static_cast<double>(candidates) * per_point + re_scoring;
}

// What the recall is at least, as far as so few queries can tell: the neighbours of one query are found
// or missed together, so k of them count as its square root.
double CurveMeasurement::less_standard_error(double recall, std::size_t k_index) const {
  const double trials = static_cast<double>(in_half(1)) *
                        std::sqrt(static_cast<double>(std::max<std::uint64_t>(1, wanted_[k_index])));
  return trials > 0.0 ? std::max(0.0, recall - std::sqrt(recall * (1.0 - recall) / trials)) : 0.0;
}

void CurveMeasurement::find_truth() {
  const std::uint32_t deepest = *std::max_element(ks_.begin(), ks_.end());
  const bool exactly = view_.scan != Scan::codes ||
                       view_.item_count * view_.scorer->dim() <= tuning::kExactTruthValues;
  truth_.assign(queries_.count * ks_.size(), 0.0);
  parallel_for(
      n_threads_, queries_.count, 4,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        Searcher searcher;
        std::vector<double> keys;
        for (std::uint64_t i = begin; i < end; ++i) {
          keys.clear();
          if (exactly) {
            Request request;
            request.k = deepest;
            request.setting.everything = true;
            request.excluded = excluded(i);
            for (const Neighbour& n : searcher.run(view_, query(i), request)) keys.push_back(n.key);
          } else {
            for (const TracedCandidate& c : searcher.trace(view_, query(i), view_.item_count,
                                                           tuning::kLargeTraceDepth, excluded(i))) {
              keys.push_back(c.key);
            }
            std::sort(keys.begin(), keys.end());
          }
          for (std::size_t k = 0; k < ks_.size(); ++k) {
            truth_[i * ks_.size() + k] =
                keys.empty() ? 0.0 : keys[std::min<std::size_t>(wanted_[k], keys.size()) - 1];
          }
        }
        if (queries_.release_pages) queries_.release_pages();
      },
      monitor_, "recall truth");
}

void CurveMeasurement::count_hits(std::uint64_t query, const std::vector<TracedCandidate>& traced,
                                  HitTable* hits) {
  for (std::size_t k = 0; k < ks_.size(); ++k) {
    std::uint64_t found[kRerankCount][kExactCount] = {};
    const double last_key = truth_[query * ks_.size() + k];
    for (const TracedCandidate& candidate : traced) {
      if (candidate.key > last_key) continue;
      for (std::size_t r = 0; r < kRerankCount; ++r) {
        if (candidate.scan_rank >= kReranks[r]) continue;
        for (std::size_t e = 0; e < kExactCount; ++e) {
          found[r][e] += candidate.rerank_rank < exact_depth(ks_[k], e);
        }
      }
    }
    for (std::size_t r = 0; r < kRerankCount; ++r) {
      for (std::size_t e = 0; e < kExactCount; ++e) {
        hits->at(k, r, e, query % 2) += std::min(found[r][e], wanted_[k]);
      }
    }
  }
}

HitTable CurveMeasurement::measure_level(std::uint64_t candidates) {
  std::vector<HitTable> tables(n_threads_, HitTable(ks_.size()));
  parallel_for(
      n_threads_, queries_.count, 8,
      [&](std::uint64_t begin, std::uint64_t end, unsigned worker) {
        Searcher searcher;
        for (std::uint64_t i = begin; i < end; ++i) {
          count_hits(i, searcher.trace(view_, query(i), candidates, depth_, excluded(i)),
                     &tables[worker]);
        }
        if (queries_.release_pages) queries_.release_pages();
      },
      monitor_);
  for (std::size_t i = 1; i < tables.size(); ++i) tables[0].merge(tables[i]);
  return tables[0];
}

// The settings no cheaper one beats, thinned to kCurvePointsPerK.
std::vector<format::CurvePoint> CurveMeasurement::cheapest(std::size_t k_index) const {
  std::vector<Candidate> all = measured_[k_index];
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.cost < b.cost; });
  std::vector<Candidate> front;
  for (const Candidate& candidate : all) {
    if (front.empty() || (candidate.chosen_recall > front.back().chosen_recall &&
                          candidate.checked_recall > front.back().checked_recall)) {
      front.push_back(candidate);
    }
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

std::vector<format::CurvePoint> CurveMeasurement::run() {
  for (std::uint32_t k : ks_) wanted_.push_back(std::min<std::uint64_t>(k, view_.item_count));
  find_truth();
  measured_.assign(ks_.size(), {});
  double candidates = std::min<double>(96.0, static_cast<double>(view_.item_count));
  for (bool last = false; !last;) {
    auto level = static_cast<std::uint64_t>(candidates);
    last = level >= view_.item_count;
    level = std::min(level, view_.item_count);
    HitTable hits = measure_level(level);
    double worst = 1.0;
    for (std::size_t k = 0; k < ks_.size(); ++k) {
      for (std::size_t r = 0; r < kRerankCount && kReranks[r] <= depth_; ++r) {
        for (std::size_t e = 0; e < kExactCount; ++e) {
          const auto recall = [&](std::size_t wanted_half) {
            // A single query is its own check.
            const std::size_t half = in_half(wanted_half) > 0 ? wanted_half : 0;
            const double possible = static_cast<double>(in_half(half) * wanted_[k]);
            return possible > 0 ? static_cast<double>(hits.at(k, r, e, half)) / possible : 1.0;
          };
          const double checked = less_standard_error(recall(1), k);
          const std::uint32_t exact = exact_depth(ks_[k], e);
          const std::uint32_t rerank = std::max(kReranks[r], exact);
          measured_[k].push_back(
              {cost(level, rerank, exact), recall(0), checked,
               {ks_[k], static_cast<float>(checked), static_cast<std::uint32_t>(level), rerank,
                exact, 0}});
          if (kReranks[r] == depth_ && e + 1 == kExactCount) {
            worst = std::min({worst, recall(0), recall(1)});
          }
        }
      }
    }
    if (monitor_) monitor_->progress("recall curve", level, view_.item_count);
    constexpr double kEnough = 0.9998;
    last = last || worst >= kEnough;
    candidates *= tuning::kCandidateGrowth;
  }
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
      return static_cast<std::uint64_t>(
          std::min(static_cast<double>(items), static_cast<double>(value) * std::pow(factor, power)));
    };
    out.candidates = grown(out.candidates, tuning::kStretchPower);
    out.rerank = grown(out.rerank, 1.0);
    out.exact = grown(out.exact, 1.0);
  }
  out.candidates = std::min(std::max(out.candidates, k), items);
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
  return {between(share, a.candidates, b.candidates), between(share, a.rerank, b.rerank),
          between(share, a.exact, b.exact), false};
}

Setting setting_of(const format::CurvePoint& point) {
  return {point.candidates, point.rerank, point.exact, false};
}

}  // namespace

std::vector<format::CurvePoint> measure_curve(const SearchView& view,
                                              const CalibrationQueries& queries,
                                              const std::vector<std::uint32_t>& ks,
                                              unsigned n_threads, Monitor* monitor) {
  return CurveMeasurement(view, queries, ks, n_threads, monitor).run();
}

Setting setting_for_recall(const std::vector<format::CurvePoint>& curve, std::uint64_t k,
                           double recall, std::uint64_t items) {
  const Points points(curve, k);
  const double miss = (1.0 - recall) * tuning::kMissMargin;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const double here = 1.0 - points[i].recall;
    if (!(here <= miss)) continue;
    // No misses measured is no rate of misses, and a far point no neighbour: nothing to blend with.
    const double before = i > 0 ? 1.0 - points[i - 1].recall : 1.0;
    if (i == 0 || !(here > 0.0) || before > here * tuning::kMostBlendedMisses) {
      return stretched(setting_of(points[i]), k, points[i].k, items);
    }
    const double span = std::log(before) - std::log(here);
    const double share = span > 0.0 ? (std::log(before) - std::log(miss)) / span : 1.0;
    // Not a number between damaged points.
    const double within = share > 0.0 ? std::min(share, 1.0) : 0.0;
    return stretched(blend(within, points[i - 1], points[i]), k, points[i].k, items);
  }
  if (points.size() > 0 && points[points.size() - 1].recall >= recall) {
    const format::CurvePoint& last = points[points.size() - 1];
    return stretched(setting_of(last), k, last.k, items);
  }
  return {items, items, items, true};
}

Setting setting_for_candidates(const std::vector<format::CurvePoint>& curve, std::uint64_t k,
                               std::uint64_t search_k, std::uint64_t items) {
  if (search_k >= items) return {items, items, items, true};
  const Points points(curve, k);
  // Never less re-scoring than a smaller search_k gets.
  Setting setting{search_k, search_k / tuning::kCandidatesPerRerank, 0, false};
  std::uint32_t measured_k = 0;
  for (const format::CurvePoint& point : points) {
    measured_k = point.k;
    if (point.candidates > search_k && setting.exact > 0) continue;
    setting.rerank = std::max<std::uint64_t>(setting.rerank, point.rerank);
    setting.exact = std::max<std::uint64_t>(setting.exact, point.exact);
  }
  setting = stretched(setting, k, measured_k, items);
  setting.candidates = std::max(search_k, k);
  return setting;
}

}  // namespace annidx
