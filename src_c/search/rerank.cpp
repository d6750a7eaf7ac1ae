// rerank.cpp owns the keys of byte rows; see rerank.h.
#include "search/rerank.h"

#include <algorithm>

#include "kernels/kernels.h"

namespace annidx {
namespace {

void score_slots(const SearchView& view, const QueryPlanes& planes, const Slot* slots,
                 std::size_t count, float* keys) {
  const std::uint32_t dim = view.scorer->dim();
  const void* rows = view.byte_rows;
  if (view.byte_rows_signed) {
    kernels().rerank_i8(static_cast<const std::int8_t*>(rows), dim, dim, planes, view.row_scalars,
                        slots, count, keys);
  } else {
    kernels().rerank_u8(static_cast<const std::uint8_t*>(rows), dim, dim, planes, view.row_scalars,
                        slots, count, keys);
  }
}

}  // namespace

void score_by_byte_rows(const SearchView& view, const QueryForms& query, const PageKeeper& pages,
                        Candidates* candidates) {
  const std::size_t count = candidates->count();
  const std::size_t step = pages.is_set() ? PageKeeper::kRows : count;
  for (std::size_t first = 0; first < count; first += step) {
    pages.keep();
    score_slots(view, query.planes(), candidates->slots() + first, std::min(step, count - first),
                candidates->scores() + first);
  }
}

void rerank(const SearchView& view, const QueryForms& query, std::uint64_t keep,
            const PageKeeper& pages, Candidates* candidates) {
  score_by_byte_rows(view, query, pages, candidates);
  if (candidates->count() > keep) candidates->keep_near_best(keep);
}

}  // namespace annidx
