// reach.h owns how far a query lies from all items, as its first candidates show it: an average of
// unrelated items is near the centroids, and has its neighbours behind them, in many leaves. It
// must not know what follows from it.
#pragma once

#include <vector>

#include "model/partition.h"
#include "search/candidates.h"
#include "search/query_forms.h"
#include "search/view.h"

namespace annidx {

// The squared distance to the 10th of the candidates, as the scan estimates it, over the routing
// score of the nearest leaf with the query's square added: squared distance to its centroid, and
// more for a wide leaf. 0 where scores are no distances (see view.scan), or candidates are few.
float reach_of(const SearchView& view, const QueryForms& query,
               const std::vector<RoutedLeaf>& leaves, const Candidates& candidates);

}  // namespace annidx
