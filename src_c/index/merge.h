// merge.h owns the way from a collection to one image: rows that were coded by one model, in the
// order of the parts, those that were removed left out. Nothing is trained. It must not know where
// parts come from, nor what becomes of the image.
#pragma once

#include <memory>

#include "index/build.h"
#include "index/collection.h"

namespace annidx {

// Throws Error(invalid_argument) naming the files when the parts are not of one model.
void require_one_model(const Collection& parts);

// The image that `plan` describes (its kept_lists are set here), of the rows from `first_part` on.
// The lists of an index that makes up most of the rows are kept.
std::unique_ptr<Memory> merged_image(const Collection& parts, std::size_t first_part,
                                     const Encoder& encoder, BuildPlan plan, ImagePlace* place);

// See IndexInfo::drift. Looks at some rows.
double drift_of(const Collection& all);

}  // namespace annidx
