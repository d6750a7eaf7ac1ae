// search.h owns the path of a query: route, scan, re-score, top k. It must not know the layout of
// files; views point into memory that others keep alive and that may hold anything.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/types.h"
#include "kernels/kernels.h"
#include "model/codes.h"
#include "model/partition.h"
#include "rows/ids.h"
#include "rows/metric.h"
#include "rows/vectors.h"

namespace annidx {

// How leaves are scanned; values as in the file.
enum class Scan : std::uint32_t {
  codes = 1,      // 4-bit codes, then byte rows, then vectors
  byte_rows = 2,  // L1 over bytes, then vectors
  bits = 3,       // popcount over the vectors
  vectors = 4,    // exact keys of the vectors
};

// Everything a query reads. Immutable while queries run; shared by all threads.
struct SearchView {
  const ExactScorer* scorer = nullptr;
  Scan scan = Scan::vectors;
  WorkTransform transform;
  float value_scale = 1.0f;
  std::uint64_t item_count = 0;

  const std::byte* vectors = nullptr;  // slot order
  std::size_t row_bytes = 0;
  const std::uint32_t* slot_rows = nullptr;
  const std::uint32_t* row_slots = nullptr;

  ForestView forest;
  const float* leaf_biases = nullptr;
  const float* leaf_scan_factors = nullptr;
  const float* leaf_radii = nullptr;

  CodesView codes;
  const std::byte* byte_rows = nullptr;  // dim bytes a slot: copies, or the vectors themselves
  bool byte_rows_signed = true;
  bool planes_of_work = true;  // re-rank with the working-space query, else with the row units'
  const RowScalars* row_scalars = nullptr;  // null: what a scan of codes keeps is scored exactly
  // L1 over bytes: byte b stands for byte_offset + byte_scale * b, in row units.
  float byte_scale = 1.0f;
  float byte_offset = 0.0f;
};

// How much work a query does.
struct Setting {
  std::uint64_t candidates = 0;  // points of the leaves it reads, at least
  std::uint64_t rerank = 0;      // of these, re-scored by byte rows
  std::uint64_t exact = 0;       // of these, re-scored by the vectors
  bool everything = false;       // score all eligible items exactly instead
};

struct Neighbour {
  double key;
  double distance;  // as the user sees it
  Row row;
  Slot slot;
};

// What one query asks.
struct Request {
  std::uint64_t k = 10;
  Setting setting;
  const SlotSet* eligible = nullptr;  // null: all
  Slot excluded = kNoRow;             // never returned
  Slot included = kNoRow;  // scored whether the scan meets it or not (an item asking for itself)
  bool has_radius = false;
  double radius = 0.0;
};

// A candidate as calibration sees it. A step says which of the given depths is the least that
// reaches it.
struct TracedCandidate {
  double key;  // exact
  std::uint32_t scan_step;
  std::uint32_t exact_step;
};

// Depths that calibration asks about, ascending, by the order of the scan and by that of the
// re-ranking.
struct TraceDepths {
  std::vector<std::uint32_t> scan;
  std::vector<std::uint32_t> exact;
};

// Runs queries, one at a time, with buffers that are kept between them. One a thread.
class Searcher {
 public:
  // values: dim floats as the user gave them, or packed bits for hamming. Must outlive the run.
  // Results are nearest first, ties by row, min(k, eligible) of them, fewer only by the radius.
  const std::vector<Neighbour>& run(const SearchView& view, const void* values,
                                    const Request& request);
  // Called while a query reads much, so that pages can be given back where memory is limited. Must
  // outlive the searcher.
  void set_page_keeper(const std::function<void()>* keeper) { page_keeper_ = keeper; }
  // Calibration asks one query with many numbers of candidates: begin_trace once, then trace for
  // each.
  void begin_trace(const SearchView& view, const void* values, Slot excluded);
  // What a scan of so many candidates and a re-ranking of all it keeps leave within the last
  // depths.
  const std::vector<TracedCandidate>& trace(const SearchView& view, std::uint64_t candidates,
                                            const TraceDepths& depths);
  // Route scores of the first tree's leaves for the last query.
  void score_leaves(const SearchView& view, std::vector<float>* scores) const;

 private:
  void prepare(const SearchView& view, const void* values);
  void prepare_routing(const SearchView& view);
  void prepare_scan(const SearchView& view);
  void approximate(const SearchView& view, const Request& request);
  void scan_leaves(const SearchView& view, const Request& request, std::uint64_t keep);
  std::size_t scan_leaf(const SearchView& view, const LeafSpan& span, float route_score,
                        std::uint32_t entry, float threshold, const std::uint64_t* eligible,
                        Survivors out);
  std::size_t scan_vectors(const SearchView& view, const LeafSpan& span, float threshold,
                           const std::uint64_t* eligible, Survivors out);
  float keep_best(const SearchView& view, std::uint64_t keep);
  float keep_best_by_row(const SearchView& view, std::uint64_t keep);
  float keep_near_best(std::uint64_t keep);
  void add_further_trees(const SearchView& view, const Request& request);
  void rerank(const SearchView& view, std::uint64_t keep);
  void score_by_bytes(const SearchView& view, std::size_t first, std::size_t count);
  void score_exactly(const SearchView& view, const Request& request);
  void scan_exactly(const SearchView& view, const Request& request);
  void complete_radius(const SearchView& view, const Request& request);
  void collect_range(const SearchView& view, const Request& request, std::uint64_t first,
                     std::uint64_t count);
  void collect(const SearchView& view, const Request& request, Slot slot);
  void finish_collection(std::uint64_t k);
  void set_distances(const SearchView& view);
  void find_thresholds(const std::vector<float>& scores, std::size_t n,
                       const std::vector<std::uint32_t>& depths,
                       std::vector<std::uint64_t>* thresholds);
  double traced_key(const SearchView& view, Slot slot);
  void keep_pages() const {
    if (page_keeper_) (*page_keeper_)();
  }

  // The query in its forms.
  std::vector<float> row_units_;
  std::vector<float> tamed_;  // row units, finite under any arithmetic of a scan
  std::vector<float> work_;
  std::vector<std::uint8_t> bytes_;  // L1 over bytes
  ExactQuery exact_;
  bool is_zero_ = false;  // under a metric of directions
  RouteQuery routed_query_;
  PlaneBuffers work_planes_;
  PlaneBuffers row_planes_;
  CodeTables tables_;

  // Scratch.
  RouteScratch route_scratch_;
  TableScratch table_scratch_;
  std::vector<RoutedLeaf> leaves_;
  std::vector<float> scores_;  // survivors
  std::vector<Slot> slots_;
  std::size_t survivors_ = 0;
  std::vector<std::uint64_t> keys_;
  std::vector<float> rerank_keys_;
  std::vector<std::uint64_t> seen_;  // slots met, with further trees
  std::vector<Neighbour> found_;
  std::vector<TracedCandidate> traced_;
  std::vector<std::uint64_t> scan_thresholds_, exact_thresholds_;
  struct CachedKey {
    Slot slot;
    double key;
  };
  std::vector<CachedKey> cached_keys_;  // of the query being traced, by the slot's lower bits
  Slot traced_excluded_ = kNoRow;
  double collect_bound_ = 0.0;
  const std::function<void()>* page_keeper_ = nullptr;
};

}  // namespace annidx
