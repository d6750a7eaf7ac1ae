// trained.h owns what training decides: how a space is divided into leaves, and how rows are coded.
// Together with a row it says everything that a file keeps of the row. It must not know which rows
// there are.
//
// In a file it stands beside the rows (format.h): what is read from one codes exactly as what was
// trained.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/parallel.h"
#include "base/types.h"
#include "model/codes.h"
#include "model/partition.h"
#include "rows/metric.h"
#include "rows/vectors.h"
#include "search/loaded.h"

namespace annidx {

struct TrainedModel {
  Metric metric;
  Dtype dtype;
  std::uint32_t dim = 0;
  Scan scan = Scan::vectors;
  std::uint32_t leaf_points = 0;  // that a leaf aims at
  bool has_blocks = false;        // leaves are cut into blocks
  bool has_byte_copies = false;   // of float rows
  bool given_bytes = false;       // int8 and uint8 vectors are kept as they were given
  float value_scale = 1.0f;       // of stored int8
  float work_scale = 1.0f;
  float byte_scale = 1.0f, byte_offset = 0.0f;  // of the L1 sketch
  float norm_unit = 0.0f;                       // dot: what relative norms are relative to
  std::vector<float> mean;                      // of the working space
  std::uint32_t region_count = 1;
  std::vector<float> norm_bounds;            // dot: least norm of each region but the first
  Division division;                         // centroids as they are stored:
  std::vector<std::uint8_t> centroid_bytes;  // 128 + centroid / scale
  std::vector<float> centroid_scales;
  CodeModel codes;

  const MetricTraits& traits() const noexcept { return traits_of(metric); }
  bool holds_bytes() const noexcept { return dtype == Dtype::int8 || dtype == Dtype::uint8; }
  // The transform points into this model.
  WorkTransform transform() const noexcept;
  // `norm` as kept_norm gives it.
  std::uint8_t region_of(float norm) const noexcept;
  float relative_norm(float norm) const noexcept { return norm_unit > 0.0f ? norm / norm_unit : 0; }
};

// 2^-8 of a norm, which is finite for kMaxDim values of the largest float; zero for zero alone.
float kept_norm(double norm) noexcept;
// kept_norm of each row.
std::vector<float> kept_norms(const StoredRows& rows, unsigned n_threads, Monitor* monitor);

struct TrainPlan {
  Metric metric;
  std::uint64_t expected_items = 0;  // of the index that the rows are a sample of
  bool hold_out = true;              // rows that the recall curve will be measured with
  bool lean = false;                 // see BuildPlan
  float value_scale = 1.0f;          // see RowSource
  bool given_bytes = false;
  unsigned n_threads = 1;
  std::uint64_t seed = 0;
  std::uint64_t memory_limit = 0;  // bytes; 0: none
  Monitor* monitor = nullptr;
};

// Depends on the rows and the plan, but not on threads, memory limit or instruction set.
TrainedModel train_model(const StoredRows& rows, const TrainPlan& plan);

// The model in an image. Throws Error(format) when its indexes point outside.
TrainedModel read_model(const LoadedImage& image);
// By entry of the image's first tree: the leaf of its model; kNoRow in padding.
std::vector<std::uint32_t> leaves_of_entries(const LoadedImage& image);

// Rows held out of training, and asked to measure recall, of so many.
std::vector<Row> held_out_rows(std::uint64_t items, std::uint64_t seed);
// Numbers below `items`, at most `wanted`, ascending; one of each stretch, chosen by the seed.
std::vector<Row> spread_rows(std::uint64_t items, std::uint64_t wanted, std::uint64_t seed);
// A seed for one of several uses.
std::uint64_t mixed_seed(std::uint64_t seed, std::uint64_t use) noexcept;

// A model made ready to take rows in.
class Encoder {
 public:
  explicit Encoder(TrainedModel model) : model_(std::move(model)) {}

  const TrainedModel& model() const noexcept { return model_; }
  // Made when first asked for: it costs about the square of the number of leaves. Thread-safe.
  const LeafFinder& finder(unsigned n_threads, Monitor* monitor) const;

 private:
  TrainedModel model_;
  mutable std::mutex mutex_;
  mutable std::unique_ptr<LeafFinder> finder_;
};

}  // namespace annidx
