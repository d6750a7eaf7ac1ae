// build.h owns the way from rows to a file image. It must not know how a query is asked, save that
// it measures the recall curve of what it built.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/parallel.h"
#include "base/tuning.h"
#include "base/types.h"
#include "os/file.h"
#include "rows/ids.h"
#include "rows/vectors.h"

namespace annidx {

struct BuildPlan {
  Metric metric;
  Dtype dtype;
  std::uint32_t dim = 0;
  std::uint32_t n_trees = 1;
  bool measure_recall = true;  // false: no curve, and nothing held out
  // A faster build of a smaller file for slower queries: fewer Lloyd passes, no copies of float
  // rows as bytes.
  bool lean = false;
  std::uint32_t neighbours = tuning::kNeighbours;  // of a point's list; 0: no lists
  float default_recall = 0.95f;
  unsigned n_threads = 1;
  std::uint64_t seed = 0;
  const std::byte* queries = nullptr;  // calibration queries; null: held-out rows
  std::uint64_t n_queries = 0;
  std::uint64_t memory_limit = 0;  // bytes; 0: none
  const char* library_version = "";
  Monitor* monitor = nullptr;
};

// Where the image is put: gives zeroed memory of the size it is asked for.
class ImagePlace {
 public:
  virtual ~ImagePlace() = default;
  virtual std::unique_ptr<Memory> allocate(std::uint64_t bytes) = 0;
};

// Builds a sealed image. The same rows, ids, plan and seed give the same bytes, whatever the
// threads, memory limit, place and instruction set. The source must be settled.
std::unique_ptr<Memory> build_image(const RowSource& source, const IdCollector& ids,
                                    const BuildPlan& plan, ImagePlace* place);

// The least memory_limit that a build of this size accepts.
std::uint64_t least_memory(std::uint64_t items, std::uint32_t dim, std::uint32_t neighbours);

}  // namespace annidx
