// leaf_scan.cpp owns the scan of whole leaves; see leaf_scan.h.
#include "search/leaf_scan.h"

#include <algorithm>
#include <limits>

#include "base/tuning.h"
#include "kernels/kernels.h"
#include "model/blocks.h"
#include "search/exact.h"

namespace annidx {
namespace {

struct LeafJob {
  LeafSpan span;
  float route_score;
  std::uint32_t entry;
  float threshold;
  const std::uint64_t* eligible;
};

std::size_t scan_codes(const SearchView& view, const QueryForms& query, const LeafJob& job,
                       Survivors out) {
  const auto first = static_cast<Slot>(job.span.first);
  const CodesView& codes = view.codes;
  const CodeTables& tables = query.tables();
  const float leaf_score =
      (job.route_score - view.leaf_biases[job.entry]) * view.leaf_scan_factors[job.entry] +
      tables.base;
  const CodeRun run{job.span.first_block, first, job.span.count, leaf_score};
  const auto scan =
      view.multiplies_norm() ? kernels().scan_codes_multiplicative : kernels().scan_codes_additive;
  return scan(codes.blocks, codes.code_count, &run, 1, tables.luts(), tables.step, job.threshold,
              job.eligible, out);
}

std::size_t scan_byte_rows(const SearchView& view, const QueryForms& query, const LeafJob& job,
                           Survivors out) {
  const std::uint32_t dim = view.scorer->dim();
  const auto* rows = static_cast<const std::uint8_t*>(static_cast<const void*>(view.byte_rows));
  return kernels().scan_l1_u8(rows + std::size_t{job.span.first} * dim, job.span.count, dim,
                              view.byte_rows_signed ? 0x80 : 0, query.bytes().data(),
                              view.byte_scale, job.threshold, static_cast<Slot>(job.span.first),
                              job.eligible, out);
}

std::size_t scan_bits(const SearchView& view, const QueryForms& query, const LeafJob& job,
                      Survivors out) {
  const auto first = static_cast<Slot>(job.span.first);
  const auto* rows = static_cast<const std::uint8_t*>(static_cast<const void*>(view.stored(first)));
  return kernels().scan_hamming(rows, job.span.count, view.row_bytes, query.exact().bits,
                                job.threshold, first, job.eligible, out);
}

std::size_t scan_vectors(const SearchView& view, const QueryForms& query, const LeafJob& job,
                         Survivors out) {
  std::size_t passed = 0;
  for (std::uint32_t i = 0; i < job.span.count; ++i) {
    const auto slot = static_cast<Slot>(job.span.first + i);
    if (job.eligible && !(job.eligible[slot / 64] >> (slot % 64) & 1)) continue;
    const auto score = static_cast<float>(exact_key(view, query.exact(), slot));
    if (!(score <= job.threshold)) continue;
    out.scores[passed] = score;
    out.slots[passed++] = slot;
  }
  return passed;
}

std::size_t scan_leaf(const SearchView& view, const QueryForms& query, const LeafJob& job,
                      Survivors out) {
  switch (view.scan) {
    case Scan::codes: return scan_codes(view, query, job, out);
    case Scan::byte_rows: return scan_byte_rows(view, query, job, out);
    case Scan::bits: return scan_bits(view, query, job, out);
    case Scan::vectors: return scan_vectors(view, query, job, out);
  }
  return 0;
}

// Asks for the begin of a leaf's codes.
void prefetch_leaf(const SearchView& view, const LeafSpan& span) {
  if (view.scan != Scan::codes) return;
  const CodesView& codes = view.codes;
  const std::size_t bytes = block_count(span.count) * codes.block_bytes();
  prefetch_l2(codes.blocks + span.first_block * codes.block_bytes(),
              std::min<std::size_t>(tuning::kPrefetchCodeBytes, bytes));
}

}  // namespace

// Cuts the candidates to exactly the best `keep`, ties by row, as results are ordered, and returns
// the worst score kept.
float LeafScan::keep_best_by_row(const SearchView& view, std::uint64_t keep,
                                 Candidates* candidates) {
  keys_.resize(candidates->count());
  for (std::size_t i = 0; i < candidates->count(); ++i) {
    keys_[i] = std::uint64_t{ordered_key(candidates->scores()[i])} << 32 |
               checked_row(view, candidates->slots()[i]);
  }
  const auto last = keys_.begin() + static_cast<std::ptrdiff_t>(keep) - 1;
  std::nth_element(keys_.begin(), last, keys_.end());
  for (std::size_t i = 0; i < keep; ++i) {
    candidates->slots()[i] = checked_slot(view, static_cast<std::uint32_t>(keys_[i]));
    candidates->scores()[i] = float_of_key(static_cast<std::uint32_t>(keys_[i] >> 32));
  }
  candidates->truncate(keep);
  return float_of_key(static_cast<std::uint32_t>(*last >> 32));
}

float LeafScan::keep_best(const SearchView& view, std::uint64_t keep, Candidates* candidates) {
  // A scan whose scores are exact decides ties; an approximate one has nothing to decide.
  const bool is_exact = view.scan == Scan::bits || view.scan == Scan::vectors;
  return is_exact ? keep_best_by_row(view, keep, candidates) : candidates->keep_near_best(keep);
}

void LeafScan::run(const SearchView& view, const QueryForms& query,
                   const std::vector<RoutedLeaf>& leaves, const Request& request,
                   std::uint64_t keep, float threshold, const PageKeeper& pages,
                   Candidates* candidates) {
  candidates->clear();
  std::uint64_t full = keep * 2 + 64;  // candidates that are worth cutting
  // Those of further trees come last.
  const auto is_of_first_tree = [&](std::size_t i) {
    return i < leaves.size() && leaves[i].tree == 0;
  };
  LeafSpan next{};
  if (is_of_first_tree(0)) next = checked_leaf(view.forest, leaves[0].entry, true);
  for (std::size_t i = 0; is_of_first_tree(i); ++i) {
    const LeafSpan span = next;
    if (is_of_first_tree(i + 1)) {
      next = checked_leaf(view.forest, leaves[i + 1].entry, true);
      prefetch_leaf(view, next);
    }
    pages.keep();
    const LeafJob job{span, leaves[i].score, leaves[i].entry, threshold, request.eligible_words()};
    const Survivors room = candidates->room(span.count + 2 * kBlockPoints);
    candidates->extend(scan_leaf(view, query, job, room));
    if (candidates->count() >= full) {
      threshold = keep_best(view, keep, candidates);
      // Equal scores all stay: cut again only when there are twice as many, or work grows squared.
      if (candidates->count() >= full) full = 2 * candidates->count();
    }
  }
  if (candidates->count() > keep) keep_best(view, keep, candidates);
}

}  // namespace annidx
