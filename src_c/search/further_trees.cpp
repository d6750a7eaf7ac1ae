// further_trees.cpp owns the candidates of further trees; see further_trees.h.
#include "search/further_trees.h"

#include <algorithm>

namespace annidx {

bool FurtherTrees::meet(Slot slot) noexcept {
  const std::uint64_t bit = std::uint64_t{1} << (slot % 64);
  const bool is_new = !(seen_[slot / 64] & bit);
  seen_[slot / 64] |= bit;
  return is_new;
}

void FurtherTrees::run(const SearchView& view, const std::vector<RoutedLeaf>& leaves,
                       const Request& request, Candidates* candidates) {
  const auto is_further = [](const RoutedLeaf& leaf) { return leaf.tree != 0; };
  if (std::none_of(leaves.begin(), leaves.end(), is_further)) return;
  seen_.assign(view.item_count / 64 + 1, 0);
  for (const RoutedLeaf& leaf : leaves) {
    if (is_further(leaf)) continue;
    const LeafSpan span = checked_leaf(view.forest, leaf.entry, true);
    for (std::uint32_t i = 0; i < span.count; ++i) meet(static_cast<Slot>(span.first + i));
  }
  for (const RoutedLeaf& leaf : leaves) {
    if (!is_further(leaf)) continue;
    const LeafSpan span = checked_leaf(view.forest, leaf.entry, false);
    for (std::uint32_t i = 0; i < span.count; ++i) {
      const Slot slot =
          checked_entry(view.forest.tree_slots, span.first + i, view.item_count, "tree_slots");
      if (!meet(slot) || slot == request.excluded || !request.is_eligible(slot)) continue;
      candidates->push(0.0f, slot);
    }
  }
}

}  // namespace annidx
