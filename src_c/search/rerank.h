// rerank.h owns the second opinion on candidates: keys from rows of bytes.
#pragma once

#include <cstdint>

#include "search/candidates.h"
#include "search/page_keeper.h"
#include "search/query_forms.h"
#include "search/view.h"

namespace annidx {

// Scores all candidates by their byte rows, in place; the view has row_scalars.
void score_by_byte_rows(const SearchView& view, const QueryForms& query, const PageKeeper& pages,
                        Candidates* candidates);

// Orders the candidates by their byte rows; the best `keep`, and few more, stay.
void rerank(const SearchView& view, const QueryForms& query, std::uint64_t keep,
            const PageKeeper& pages, Candidates* candidates);

}  // namespace annidx
