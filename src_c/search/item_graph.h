// item_graph.h owns the asking of all items for their neighbours at once: whole lists by
// model/neighbours.h where rows of bytes are kept, and exact keys of what they hold; elsewhere one
// query after another. It must not know ids or where answers are written.
#pragma once

#include <cstdint>
#include <vector>

#include "base/parallel.h"
#include "format/format.h"
#include "search/request.h"
#include "search/view.h"

namespace annidx {

struct GraphRequest {
  std::uint64_t k = 15;
  bool include_self = false;  // the item comes first and is one of the k
  double recall = 0.95;       // what of the true neighbours is found at least; 1: all
  unsigned n_threads = 1;
};

// The k nearest of all items. Lists are made when it is; answers are read from it afterwards, by
// any thread. The same for every number of threads.
class ItemGraph {
 public:
  // The view must outlive it. `curve`: for indexes whose items are asked as queries. Takes 4 bytes
  // for each of some 1.25 k + 4 places of a list, twice while it is made. `monitor` may be null.
  ItemGraph(const SearchView& view, const std::vector<format::CurvePoint>& curve,
            const GraphRequest& request, Monitor* monitor);

  // Neighbours of the n items from row `first` on, k places each: rows, nearest first, ties by row,
  // and distances as queries return them. Missing places are at the end: -1 and NaN.
  void answer(Row first, std::uint64_t n, std::int64_t* rows, double* distances,
              Monitor* monitor) const;

 private:
  struct Worker;
  void make_lists(Monitor* monitor);
  double share_found(const std::vector<Slot>& lists, const std::vector<Slot>& sample,
                     const std::vector<double>& truth) const;
  std::vector<double> true_keys(const std::vector<Slot>& sample,
                                const std::vector<Slot>& lists) const;
  const std::vector<Neighbour>& neighbours_of(Slot slot, Worker* worker) const;
  void answer_one(Row row, Slot slot, Worker* worker, std::int64_t* rows, double* distances) const;

  const SearchView& view_;
  GraphRequest request_;
  std::uint64_t others_;  // of the k
  Setting setting_;       // of a query
  std::uint32_t degree_ = 0;
  std::vector<Slot> lists_;  // degree_ a slot; empty: items are asked as queries
};

}  // namespace annidx
