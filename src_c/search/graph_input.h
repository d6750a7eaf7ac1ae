// graph_input.h owns what model/neighbours.h reads of an index: its rows of bytes, where it keeps
// some. It must not know which rows are compared.
#pragma once

#include "model/neighbours.h"
#include "search/view.h"

namespace annidx {

// All of the input but the leaves; false where the view's rows are not scored as bytes. Throws
// Error(format) where a damaged file's numbers would not stay finite.
bool describe_rows(const SearchView& view, GraphInput* input);

}  // namespace annidx
