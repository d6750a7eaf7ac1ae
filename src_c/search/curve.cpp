// curve.cpp owns the reading of a recall curve; see curve.h. A file may hold any curve: nothing
// here trusts its numbers or its order.
#include "search/curve.h"

#include <algorithm>
#include <cmath>

#include "base/tuning.h"

namespace annidx {
namespace {

// Points of one k, which stand together.
class Points {
 public:
  // Those of exactly this measured k.
  Points(const std::vector<format::CurvePoint>& curve, std::uint64_t k) {
    for (const format::CurvePoint& point : curve) {
      if (point.k != k) continue;
      if (size_ == 0) begin_ = &point;
      if (&point != begin_ + size_) break;
      ++size_;
    }
  }
  std::size_t size() const noexcept { return size_; }
  const format::CurvePoint& operator[](std::size_t i) const noexcept { return begin_[i]; }
  const format::CurvePoint* begin() const noexcept { return begin_; }
  const format::CurvePoint* end() const noexcept { return begin_ + size_; }

 private:
  const format::CurvePoint* begin_ = nullptr;
  std::size_t size_ = 0;
};

// The measured k of a curve, ascending.
std::vector<std::uint64_t> measured_ks(const std::vector<format::CurvePoint>& curve) {
  std::vector<std::uint64_t> ks;
  for (const format::CurvePoint& point : curve) {
    if (ks.empty() || ks.back() != point.k) ks.push_back(point.k);
  }
  std::sort(ks.begin(), ks.end());
  ks.erase(std::unique(ks.begin(), ks.end()), ks.end());
  return ks;
}

Setting everything(std::uint64_t items) { return {items, items, 0, items, items, true}; }

Setting setting_of(const format::CurvePoint& point) {
  return {point.opened, point.candidates, point.expanded, point.rerank, point.exact, false};
}

// Beyond the largest measured k, candidates grow faster than k: on clustered data the neighbours
// leave the cluster. Codes are cheap to scan, a target missed is not cheap.
Setting stretched(const Setting& setting, std::uint64_t k, std::uint64_t measured_k,
                  std::uint64_t items) {
  if (setting.everything) return everything(items);
  Setting out = setting;
  if (k > measured_k && measured_k > 0) {
    const double factor = static_cast<double>(k) / static_cast<double>(measured_k);
    const auto grown = [&](std::uint64_t value, double power) {
      return static_cast<std::uint64_t>(std::min(
          static_cast<double>(items), static_cast<double>(value) * std::pow(factor, power)));
    };
    out.opened = grown(out.opened, tuning::kStretchPower);
    out.candidates = grown(out.candidates, tuning::kStretchPower);
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

// Between two values, by their logarithms; 0 counts as 1 unless both are.
std::uint64_t between(double share, std::uint64_t a, std::uint64_t b) {
  if (a == b) return a;
  return static_cast<std::uint64_t>(
      std::ceil(std::exp(std::log(std::max(1.0, static_cast<double>(a))) * (1.0 - share) +
                         std::log(std::max(1.0, static_cast<double>(b))) * share)));
}

Setting blend(double share, const Setting& a, const Setting& b) {
  return {between(share, a.opened, b.opened),     between(share, a.candidates, b.candidates),
          between(share, a.expanded, b.expanded), between(share, a.rerank, b.rerank),
          between(share, a.exact, b.exact),       false};
}

// The cheapest setting of the points that reaches `recall` with the margin, or the last without it;
// if none does, the last.
bool reaches(const Points& points, double recall, Setting* found) {
  const double miss = (1.0 - recall) * tuning::kMissMargin;
  Setting before{};  // enough for all points up to here
  for (std::size_t i = 0; i < points.size(); ++i) {
    const Setting here = most_of(before, setting_of(points[i]));
    const double missed = 1.0 - points[i].recall;
    if (missed <= miss) {
      *found = here;
      // No misses measured is no rate of misses, and a far point no neighbour: nothing to blend
      // with.
      const double missed_before = i > 0 ? 1.0 - points[i - 1].recall : 1.0;
      if (i == 0 || !(missed > 0.0) || missed_before > missed * tuning::kMostBlendedMisses) {
        return true;
      }
      const double span = std::log(missed_before) - std::log(missed);
      const double share = span > 0.0 ? (std::log(missed_before) - std::log(miss)) / span : 1.0;
      // Not a number between damaged points.
      *found = blend(share > 0.0 ? std::min(share, 1.0) : 0.0, before, here);
      return true;
    }
    before = here;
  }
  *found = before;
  return points.size() > 0 && points[points.size() - 1].recall >= recall;
}

bool ends_far_below(const Points& points, double recall) {
  return points.size() == 0 || points[points.size() - 1].recall < recall - tuning::kMostShort;
}

}  // namespace

Setting setting_for_recall(const std::vector<format::CurvePoint>& curve, std::uint64_t k,
                           double recall, std::uint64_t items) {
  const std::vector<std::uint64_t> ks = measured_ks(curve);
  if (ks.empty()) return everything(items);
  // Neighbours beyond k that are found say little of those up to k where many are equally far: of
  // the two measured k about k both must be satisfied.
  Setting enough{};
  const auto above = std::lower_bound(ks.begin(), ks.end(), k);
  if (above != ks.end() && *above != k && above != ks.begin()) {
    reaches(Points(curve, *(above - 1)), recall, &enough);
  }
  // Where the points of one k end below the target, those of the next larger one serve, with no
  // less than the last of them.
  for (auto at = above == ks.end() ? above - 1 : above; at != ks.end(); ++at) {
    Setting found{};
    const bool is_enough = reaches(Points(curve, *at), recall, &found);
    enough = most_of(enough, found);
    if (is_enough) return stretched(enough, k, *at, items);
    if (ends_far_below(Points(curve, *at), recall)) break;
  }
  return everything(items);
}

Efforts efforts_for_recall(const std::vector<format::CurvePoint>& curve, std::uint64_t k,
                           double recall, std::uint64_t items) {
  Efforts efforts;
  efforts.usual = setting_for_recall(curve, k, recall, items);
  const std::vector<std::uint64_t> ks = measured_ks(curve);
  if (ks.empty() || efforts.usual.everything) return efforts;
  const auto above = std::lower_bound(ks.begin(), ks.end(), k);
  const std::uint64_t measured_k = above == ks.end() ? ks.back() : *above;
  const Points points(curve, measured_k);
  // More effort finds nearer candidates, with whatever query: what is far is told by the same
  // effort.
  const format::CurvePoint* same =
      std::find_if(points.begin(), points.end() - 1, [&](const format::CurvePoint& point) {
        return point.candidates >= efforts.usual.candidates && point.opened >= efforts.usual.opened;
      });
  efforts.far_ratio = same->far_ratio;
  Setting deepest = efforts.usual;
  for (const format::CurvePoint& point : points) deepest = most_of(deepest, setting_of(point));
  deepest = stretched(deepest, k, measured_k, items);
  const auto with_misses_over = [&](double divisor) {
    const double target = 1.0 - (1.0 - recall) / divisor;
    const Setting found = setting_for_recall(curve, k, target, items);
    Setting setting = found.everything ? deepest : most_of(efforts.usual, found);
    // Of a far query all items are about equally far: estimates put few of the nearest first.
    setting.exact = std::max(
        setting.exact, std::min(items, tuning::kFarExactPerNeighbour * k + tuning::kFarExactSpare));
    setting.rerank = std::max(setting.rerank, std::min(items, tuning::kFarRerank + setting.exact));
    return setting;
  };
  efforts.far = with_misses_over(tuning::kFarMisses);
  efforts.remote = with_misses_over(tuning::kRemoteMisses);
  return efforts;
}

Setting setting_for_candidates(const std::vector<format::CurvePoint>& curve, std::uint64_t k,
                               std::uint64_t search_k, std::uint64_t items) {
  if (search_k >= items) return everything(items);
  const std::vector<std::uint64_t> ks = measured_ks(curve);
  // Never less effort of the other kinds than a smaller search_k gets.
  Setting setting{search_k * tuning::kOpenedPerCandidate,  search_k, 0,
                  search_k / tuning::kCandidatesPerRerank, 0,        false};
  if (ks.empty()) {
    setting.expanded = tuning::kUnmeasuredExpanded;
    setting.rerank = std::max(search_k / tuning::kCandidatesPerUnmeasuredRerank,
                              tuning::kUnmeasuredRerankPerNeighbour * k);
  }
  std::uint64_t measured_k = 0;
  if (!ks.empty()) {
    const auto above = std::lower_bound(ks.begin(), ks.end(), k);
    measured_k = above == ks.end() ? ks.back() : *above;
    for (const format::CurvePoint& point : Points(curve, measured_k)) {
      if (point.candidates > search_k && setting.exact > 0) continue;
      setting.expanded = std::max<std::uint64_t>(setting.expanded, point.expanded);
      setting.rerank = std::max<std::uint64_t>(setting.rerank, point.rerank);
      setting.exact = std::max<std::uint64_t>(setting.exact, point.exact);
    }
  }
  setting = stretched(setting, k, measured_k, items);
  setting.candidates = std::max(search_k, k);
  return setting;
}

}  // namespace annidx
