// expansion.h owns the walk along neighbour lists: the best candidates' near slots, as far as they
// were not met yet, are scored by their code records and join the candidates.
//
// A partition alone reads too many points at high recall, a graph alone visits too many one by one;
// few steps from many good candidates need neither entry points nor hubs.
#pragma once

#include <cstdint>
#include <vector>

#include "search/candidates.h"
#include "search/leaf_scores.h"
#include "search/query_forms.h"
#include "search/request.h"
#include "search/view.h"

namespace annidx {

class Expansion {
 public:
  // tuning::kExpansionRounds times the lists of the best request.setting.expanded candidates not
  // expanded before; the best `keep` of all, and few more, stay. The view has lists. Work is
  // bounded by rounds * expanded * entries of a list, whatever a file holds.
  void run(const SearchView& view, const QueryForms& query, const Request& request,
           std::uint64_t keep, LeafScores* leaf_scores, Candidates* candidates);

 private:
  void begin(const SearchView& view, const Request& request, const Candidates& candidates);
  bool meet(Slot slot) noexcept;
  void pick(std::uint64_t most, const Candidates& candidates);
  void read_lists(const SearchView& view, const Request& request);
  void score_fresh(const SearchView& view, const QueryForms& query, float threshold,
                   LeafScores* leaf_scores, Candidates* candidates);

  std::vector<Slot> met_;  // open addressing, a power of two; kNoRow where empty
  std::uint32_t met_shift_ = 0;
  std::vector<std::uint8_t> expanded_;  // by candidate
  std::vector<Slot> picked_, fresh_;
  std::vector<std::uint8_t> block_;  // of fresh points
};

}  // namespace annidx
