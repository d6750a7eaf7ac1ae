// request.h owns what one query asks and what it gets. It must not know how it is answered.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/types.h"
#include "rows/ids.h"

namespace annidx {

// How much work a query does.
struct Setting {
  std::uint64_t opened = 0;      // points of the leaves whose blocks it looks at, at least
  std::uint64_t candidates = 0;  // points it scans; without blocks those of the leaves it opens
  std::uint64_t expanded = 0;    // candidates whose neighbours it looks at, a round
  std::uint64_t rerank = 0;      // of these, re-ranked by byte rows
  std::uint64_t exact = 0;       // of these, scored by the vectors
  bool everything = false;       // score all eligible items exactly instead
};

// At least as much of every kind of work as either.
inline Setting most_of(const Setting& a, const Setting& b) noexcept {
  return {std::max(a.opened, b.opened),     std::max(a.candidates, b.candidates),
          std::max(a.expanded, b.expanded), std::max(a.rerank, b.rerank),
          std::max(a.exact, b.exact),       a.everything || b.everything};
}

// The work of a query, which it finds out itself by its reach (search/reach.h).
struct Efforts {
  Setting usual;
  float far_ratio = 0.0f;  // the reach beyond which a query is far; 0: none is
  Setting far;
  Setting remote;  // of those much further out
};

struct Request {
  std::uint64_t k = 10;
  Setting setting;
  const Efforts* efforts = nullptr;   // what to do instead should the query be far; null: the same
  const SlotSet* eligible = nullptr;  // null: all
  bool few_are_gone = false;  // what is not eligible is few points, of any place: leaves and blocks
                              // are chosen as if all were
  Slot excluded = kNoRow;     // never returned
  bool excluded_is_hidden = false;  // nor is its list read: as if it were not in the index
  Slot leading = kNoRow;            // comes first, whatever is nearer, if it may come at all
  bool has_radius = false;
  double radius = 0.0;
  bool all_within = false;  // all within the radius, exactly; k is the number of items

  bool is_eligible(Slot slot) const noexcept { return !eligible || eligible->contains(slot); }
  // What leaves and blocks are chosen by.
  const SlotSet* filter() const noexcept { return few_are_gone ? nullptr : eligible; }
  const std::uint64_t* eligible_words() const noexcept {
    return eligible ? eligible->words() : nullptr;
  }
};

struct Neighbour {
  double key;
  double distance;  // as the user sees it
  Row row;
  Slot slot;
};

}  // namespace annidx
