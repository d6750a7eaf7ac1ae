// curve.h owns the reading of a recall curve: from a target, or a number of candidates, to the
// effort of a query. It must not know how a curve is measured.
#pragma once

#include <cstdint>
#include <vector>

#include "format/format.h"
#include "search/request.h"

namespace annidx {

// The cheapest setting of the curve that reaches `recall` for k neighbours, with the margin of
// tuning::kMissMargin. Between two measured k, enough for both. When none does, one measured for
// more neighbours; a scan of everything at last. A higher recall never gives less effort of any
// kind.
Setting setting_for_recall(const std::vector<format::CurvePoint>& curve, std::uint64_t k,
                           double recall, std::uint64_t items);
// The same for queries of any reach: far ones as if fewer misses had been asked for, as far as the
// curve was measured.
Efforts efforts_for_recall(const std::vector<format::CurvePoint>& curve, std::uint64_t k,
                           double recall, std::uint64_t items);
// The setting that scans `search_k` candidates and ranks at least as deeply as the curve found
// worth while for fewer; a scan of everything from `items` on.
Setting setting_for_candidates(const std::vector<format::CurvePoint>& curve, std::uint64_t k,
                               std::uint64_t search_k, std::uint64_t items);

}  // namespace annidx
