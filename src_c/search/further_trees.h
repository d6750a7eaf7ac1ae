// further_trees.h owns the candidates that leaves of further trees add. Only indexes built with
// several trees have them.
#pragma once

#include <cstdint>
#include <vector>

#include "model/partition.h"
#include "search/candidates.h"
#include "search/request.h"
#include "search/view.h"

namespace annidx {

class FurtherTrees {
 public:
  // Points of further trees' leaves that the first tree's leaves did not hold join the candidates.
  // They have no score of a scan, so all of them are re-ranked.
  void run(const SearchView& view, const std::vector<RoutedLeaf>& leaves, const Request& request,
           Candidates* candidates);

 private:
  bool meet(Slot slot) noexcept;

  std::vector<std::uint64_t> seen_;  // a bit a slot
};

}  // namespace annidx
