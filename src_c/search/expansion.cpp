// expansion.cpp owns the walk along neighbour lists; see expansion.h.
#include "search/expansion.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/tuning.h"
#include "kernels/kernels.h"

namespace annidx {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Of Fibonacci hashing: 2^32 over the golden ratio.
constexpr std::uint32_t kHashFactor = 2654435769u;

struct RecordTail {
  float scalar;
  std::uint32_t entry;
};

RecordTail tail_of(const SearchView& view, Slot slot) {
  RecordTail tail;
  const std::uint8_t* record = view.code_records + std::size_t{slot} * view.record_bytes;
  std::memcpy(&tail, record + view.codes.code_count / 2, sizeof(tail));
  return tail;
}

}  // namespace

// A table that stays at most half full.
void Expansion::begin(const SearchView& view, const Request& request,
                      const Candidates& candidates) {
  const std::uint64_t fresh = tuning::kExpansionRounds * view.neighbours.count *
                              std::min(request.setting.expanded, view.item_count);
  const std::uint64_t most = std::min(candidates.count() + fresh, view.item_count);
  std::uint32_t bits = 6;
  while ((std::uint64_t{1} << bits) < 2 * most && bits < 31) ++bits;
  met_.assign(std::size_t{1} << bits, kNoRow);
  met_shift_ = 32 - bits;
  for (std::size_t i = 0; i < candidates.count(); ++i) meet(candidates.slots()[i]);
  if (request.excluded_is_hidden && request.excluded != kNoRow) meet(request.excluded);
  expanded_.assign(candidates.count(), 0);
}

// Whether the slot was not met before.
bool Expansion::meet(Slot slot) noexcept {
  const std::size_t mask = met_.size() - 1;
  std::size_t at = (slot * kHashFactor) >> met_shift_;
  while (met_[at] != kNoRow) {
    if (met_[at] == slot) return false;
    at = (at + 1) & mask;
  }
  met_[at] = slot;
  return true;
}

// The best candidates, less those expanded before.
void Expansion::pick(std::uint64_t most, const Candidates& candidates) {
  const float bound = candidates.count() > most
                          ? kernels().near_bound(candidates.scores(), candidates.count(), most)
                          : kInfinity;
  picked_.clear();
  for (std::size_t i = 0; i < candidates.count() && picked_.size() < most; ++i) {
    if (expanded_[i] || !(candidates.scores()[i] <= bound)) continue;
    expanded_[i] = 1;
    picked_.push_back(candidates.slots()[i]);
  }
}

void Expansion::read_lists(const SearchView& view, const Request& request) {
  const NeighbourLists& lists = view.neighbours;
  for (Slot slot : picked_) prefetch_l1(lists.of(slot), lists.bytes());
  fresh_.clear();
  for (Slot slot : picked_) {
    const std::uint8_t* list = lists.of(slot);
    for (std::uint32_t i = 0; i < lists.count; ++i) {
      const Slot other = lists.entry(list, i);
      if (other >= view.item_count) break;
      if (!meet(other) || !request.is_eligible(other)) continue;
      fresh_.push_back(other);
      prefetch_l1(view.code_records + std::size_t{other} * view.record_bytes, view.record_bytes);
    }
  }
}

// Fresh points, 32 at a time as a block of the scan.
void Expansion::score_fresh(const SearchView& view, const QueryForms& query, float threshold,
                            LeafScores* leaf_scores, Candidates* candidates) {
  const std::size_t code_count = view.codes.code_count;
  const bool multiplies = view.multiplies_norm();
  const CodeTables& tables = query.tables();
  block_.resize(code_block_bytes(code_count));
  for (std::size_t first = 0; first < fresh_.size(); first += kBlockPoints) {
    const std::size_t some = std::min(kBlockPoints, fresh_.size() - first);
    const Slot* slots = &fresh_[first];
    kernels().gather_codes(view.code_records, view.record_bytes, slots, some, code_count,
                           block_.data());
    float scalars[kBlockPoints] = {}, leaf_parts[kBlockPoints];
    for (std::size_t i = 0; i < some; ++i) {
      const RecordTail tail = tail_of(view, slots[i]);
      const float leaf_score = leaf_scores->of(tail.entry);
      scalars[i] = multiplies ? tail.scalar : tail.scalar + leaf_score;
      leaf_parts[i] = multiplies ? leaf_score * tail.scalar : 0.0f;
    }
    std::memcpy(block_.data() + code_count * kCodewords, scalars, sizeof(scalars));
    const CodeRun run{0, 0, static_cast<std::uint32_t>(some), tables.base};
    const Survivors out = candidates->room(2 * kBlockPoints);
    // The leaf's part of a product is added behind the scan.
    const std::size_t passed =
        multiplies
            ? kernels().scan_codes_multiplicative(block_.data(), code_count, &run, 1, tables.luts(),
                                                  tables.step, kInfinity, nullptr, out)
            : kernels().scan_codes_additive(block_.data(), code_count, &run, 1, tables.luts(),
                                            tables.step, threshold, nullptr, out);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < passed; ++i) {
      const Slot place = out.slots[i];
      const float score = out.scores[i] + leaf_parts[place];
      if (!(score <= threshold)) continue;
      out.scores[kept] = score;
      out.slots[kept++] = slots[place];
    }
    candidates->extend(kept);
  }
}

void Expansion::run(const SearchView& view, const QueryForms& query, const Request& request,
                    std::uint64_t keep, LeafScores* leaf_scores, Candidates* candidates) {
  begin(view, request, *candidates);
  for (std::uint32_t round = 0; round < tuning::kExpansionRounds; ++round) {
    pick(request.setting.expanded, *candidates);
    if (picked_.empty()) break;
    const float threshold =
        candidates->count() > keep
            ? kernels().near_bound(candidates->scores(), candidates->count(), keep)
            : kInfinity;
    read_lists(view, request);
    score_fresh(view, query, threshold, leaf_scores, candidates);
    expanded_.resize(candidates->count(), 0);
  }
  if (candidates->count() > keep) candidates->keep_near_best(keep);
}

}  // namespace annidx
