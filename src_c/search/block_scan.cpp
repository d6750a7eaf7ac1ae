// block_scan.cpp owns the choice and the scan of blocks; see block_scan.h.
#include "search/block_scan.h"

#include <algorithm>
#include <limits>

#include "base/tuning.h"
#include "kernels/kernels.h"
#include "model/blocks.h"

namespace annidx {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

void BlockScan::score_blocks(const SearchView& view, const QueryForms& query,
                             const std::vector<RoutedLeaf>& leaves) {
  const CodeTables& tables = query.tables();
  const float inverse_scale = 1.0f / view.centroid_scale;
  units_.clear();
  runs_.clear();
  std::size_t blocks = 0;
  for (const RoutedLeaf& leaf : leaves) {
    if (leaf.tree != 0) break;
    const LeafSpan span = checked_leaf(view.forest, leaf.entry, true);
    const float leaf_score =
        (leaf.score - view.leaf_biases[leaf.entry]) * view.leaf_scan_factors[leaf.entry];
    const auto own = static_cast<std::uint32_t>(block_count(span.count));
    runs_.push_back({span.first_centroid_block, static_cast<Slot>(units_.size() * kBlockPoints),
                     own, leaf_score + tables.base * inverse_scale});
    for (std::uint32_t first = 0; first < own; first += kBlockPoints) {
      units_.push_back({span, first, leaf_score + tables.base});
    }
    blocks += own + kBlockPoints;
  }
  const auto scan =
      view.multiplies_norm() ? kernels().scan_codes_multiplicative : kernels().scan_codes_additive;
  blocks_.clear();
  const Survivors room = blocks_.room(blocks + kBlockPoints);
  blocks_.extend(scan(view.block_centroids, view.codes.code_count, runs_.data(), runs_.size(),
                      tables.luts(), tables.step * inverse_scale, kInfinity, nullptr, room));
}

CodeRun BlockScan::run_of(Slot block) const noexcept {
  const Unit& unit = units_[block / kBlockPoints];
  const std::uint32_t number = unit.first_block + block % kBlockPoints;
  const std::uint32_t first = number * static_cast<std::uint32_t>(kBlockPoints);
  return {unit.span.first_block + number, static_cast<Slot>(unit.span.first + first),
          std::min<std::uint32_t>(kBlockPoints, unit.span.count - first), unit.leaf_score};
}

// The best blocks that hold the wanted candidates; with a filter, if eligible points were spread
// evenly over the blocks that have some.
void BlockScan::choose_blocks(const Request& request) {
  std::uint64_t wanted = request.setting.candidates / kBlockPoints + 1;
  if (request.filter()) {
    std::size_t kept = 0;
    std::uint64_t eligible = 0;
    for (std::size_t i = 0; i < blocks_.count(); ++i) {
      const CodeRun run = run_of(blocks_.slots()[i]);
      const std::uint64_t own = request.eligible->count_range(run.first_slot, run.points);
      if (own == 0) continue;
      eligible += own;
      blocks_.slots()[kept] = blocks_.slots()[i];
      blocks_.scores()[kept++] = blocks_.scores()[i];
    }
    blocks_.truncate(kept);
    // Routing went further where the filter leaves fewer points near the query than elsewhere.
    const double stretch = std::max(
        1.0, static_cast<double>(eligible) / static_cast<double>(request.setting.opened + 1));
    const double points = static_cast<double>(request.setting.candidates) * stretch;
    if (eligible > 0) {
      wanted = static_cast<std::uint64_t>(points * static_cast<double>(kept) /
                                          static_cast<double>(eligible)) +
               1;
    }
  }
  if (wanted < blocks_.count()) blocks_.keep_near_best(wanted);
  runs_.clear();
  for (std::size_t i = 0; i < blocks_.count(); ++i) runs_.push_back(run_of(blocks_.slots()[i]));
}

void BlockScan::run(const SearchView& view, const QueryForms& query,
                    const std::vector<RoutedLeaf>& leaves, const Request& request,
                    std::uint64_t keep, const PageKeeper& pages, Candidates* candidates) {
  score_blocks(view, query, leaves);
  choose_blocks(request);
  const auto scan =
      view.multiplies_norm() ? kernels().scan_codes_multiplicative : kernels().scan_codes_additive;
  const CodeTables& tables = query.tables();
  candidates->clear();
  float threshold = kInfinity;
  std::uint64_t full = keep * 2 + 64;  // candidates that are worth cutting
  for (std::size_t first = 0; first < runs_.size(); first += tuning::kBlocksAtOnce) {
    const std::size_t some = std::min<std::size_t>(tuning::kBlocksAtOnce, runs_.size() - first);
    pages.keep();
    const Survivors room = candidates->room((some + 1) * kBlockPoints);
    candidates->extend(scan(view.codes.blocks, view.codes.code_count, &runs_[first], some,
                            tables.luts(), tables.step, threshold, request.eligible_words(), room));
    if (candidates->count() < full) continue;
    threshold = candidates->keep_near_best(keep);
    // Equal scores all stay: cut again only when there are twice as many, or work grows squared.
    if (candidates->count() >= full) full = 2 * candidates->count();
  }
  if (candidates->count() > keep) candidates->keep_near_best(keep);
}

}  // namespace annidx
