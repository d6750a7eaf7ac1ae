// leaf_scan.h owns the scan of whole leaves: their points become candidates with approximate scores
// (codes, L1 over bytes) or exact ones (bits, vectors), the best of which are kept.
#pragma once

#include <cstdint>
#include <vector>

#include "model/partition.h"
#include "search/candidates.h"
#include "search/page_keeper.h"
#include "search/query_forms.h"
#include "search/request.h"
#include "search/view.h"

namespace annidx {

class LeafScan {
 public:
  // The best `keep` points of the first tree's leaves, of those that score at most `threshold`, and
  // few more where scores are equal or approximate.
  void run(const SearchView& view, const QueryForms& query, const std::vector<RoutedLeaf>& leaves,
           const Request& request, std::uint64_t keep, float threshold, const PageKeeper& pages,
           Candidates* candidates);

 private:
  float keep_best(const SearchView& view, std::uint64_t keep, Candidates* candidates);
  float keep_best_by_row(const SearchView& view, std::uint64_t keep, Candidates* candidates);

  std::vector<std::uint64_t> keys_;
};

}  // namespace annidx
