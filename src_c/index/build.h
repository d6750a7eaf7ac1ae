// build.h owns the way from a trained model and rows to a file image. It must not know how a query
// is asked, save that it measures the recall curve of what it built.
//
// One way for all: an index is built, parts are encoded and merged, changes are kept and saved by
// it; they differ in where the rows come from, and in what is measured at the end.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "base/tuning.h"
#include "base/types.h"
#include "format/format.h"
#include "index/trained.h"
#include "os/file.h"
#include "rows/ids.h"
#include "rows/vectors.h"

namespace annidx {

// An index whose neighbour lists are kept for the rows that were in it.
struct KeptLists {
  const LoadedImage* image = nullptr;
  std::vector<Row> rows;  // by slot of that image: the row now; kNoRow when it was removed
};

struct BuildPlan {
  format::FileKind kind = format::FileKind::index;
  std::uint32_t n_trees = 1;
  bool lean = false;  // a smaller file for slower queries: see TrainPlan
  std::uint32_t neighbours = tuning::kNeighbours;  // of a point's list; 0: no lists
  const KeptLists* kept_lists = nullptr;           // null: all lists are made anew
  bool measure_recall = true;  // of `queries`, or of rows that training held out
  // Where recall is not measured: the curve of the index that this one continues, and its weight of
  // radii.
  std::vector<format::CurvePoint> curve;
  float radius_weight = tuning::kRadiusWeight;
  float default_recall = 0.95f;
  unsigned n_threads = 1;
  std::uint64_t seed = 0;
  const std::byte* queries = nullptr;  // calibration queries; null: held-out rows
  std::uint64_t n_queries = 0;
  std::uint64_t memory_limit = 0;  // bytes; 0: none
  const char* library_version = "";
  Monitor* monitor = nullptr;
  std::string metadata;         // UTF-8
  std::vector<std::byte> sets;  // content of the section `sets`; empty: none
  // Of changes: the index they belong to, and the ids that they remove from it.
  const std::uint8_t* base_identity = nullptr;
  const RemovedIds* removed = nullptr;
};

// Where the image is put: gives zeroed memory of the size it is asked for.
class ImagePlace {
 public:
  virtual ~ImagePlace() = default;
  virtual std::unique_ptr<Memory> allocate(std::uint64_t bytes) = 0;
};

// Builds a sealed image. The same rows, ids, model and plan give the same bytes, whatever the
// threads, memory limit, place and instruction set, and whoever found the leaves: `leaf_of_row` is
// what the encoder finds, or empty.
std::unique_ptr<Memory> build_image(const StoredRows& source, const IdCollector& ids,
                                    const Encoder& encoder, std::vector<std::uint32_t> leaf_of_row,
                                    const BuildPlan& plan, ImagePlace* place);

// The least memory_limit that a build of this size accepts.
std::uint64_t least_memory(std::uint64_t items, std::uint32_t dim, std::uint32_t neighbours);

}  // namespace annidx
