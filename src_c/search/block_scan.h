// block_scan.h owns the scan of the best blocks within opened leaves: the coded centroids of their
// blocks are scored by the scan's own kernel, the best blocks' points become candidates.
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

class BlockScan {
 public:
  // The best `keep` points (and few more) of the blocks that hold the wanted candidates, among
  // those of the first tree's leaves. Only blocks with eligible points count. The view has block
  // centroids.
  void run(const SearchView& view, const QueryForms& query, const std::vector<RoutedLeaf>& leaves,
           const Request& request, std::uint64_t keep, const PageKeeper& pages,
           Candidates* candidates);

 private:
  // Blocks are numbered through the opened leaves, those of each leaf from a multiple of
  // kBlockPoints on: block i belongs to unit i / kBlockPoints.
  struct Unit {
    LeafSpan span;
    std::uint32_t first_block;  // within the leaf
    float leaf_score;
  };

  void score_blocks(const SearchView& view, const QueryForms& query,
                    const std::vector<RoutedLeaf>& leaves);
  void choose_blocks(const Request& request);
  CodeRun run_of(Slot block) const noexcept;

  std::vector<Unit> units_;
  std::vector<CodeRun> runs_;
  Candidates blocks_;
};

}  // namespace annidx
