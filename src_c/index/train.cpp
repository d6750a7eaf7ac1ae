// train.cpp owns training: facts about the rows, the division of the space, the codes. See
// trained.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/tuning.h"
#include "index/trained.h"
#include "kernels/kernels.h"

namespace annidx {
namespace {

// The least and largest value of all rows.
struct Extremes {
  float lowest = std::numeric_limits<float>::infinity();
  float highest = -std::numeric_limits<float>::infinity();

  float largest() const noexcept { return std::max(std::fabs(lowest), std::fabs(highest)); }
};

Extremes extremes_of(const StoredRows& rows, unsigned n_threads, Monitor* monitor) {
  std::vector<Extremes> parts(n_threads);
  parallel_for(
      n_threads, rows.size(), 4096,
      [&](std::uint64_t begin, std::uint64_t end, unsigned worker) {
        std::vector<float> values(rows.dim());
        std::vector<std::byte> buffer(rows.row_bytes());
        for (std::uint64_t row = begin; row < end; ++row) {
          decode_row(rows.dtype(), rows.stored(static_cast<Row>(row), buffer.data()), rows.dim(),
                     values.data());
          const auto ends = std::minmax_element(values.begin(), values.end());
          parts[worker].lowest = std::min(parts[worker].lowest, *ends.first);
          parts[worker].highest = std::max(parts[worker].highest, *ends.second);
        }
      },
      monitor, "rows");
  Extremes all;
  for (const Extremes& part : parts) {
    all.lowest = std::min(all.lowest, part.lowest);
    all.highest = std::max(all.highest, part.highest);
  }
  return all;
}

// The power of two that brings the largest value to at most 1.
float work_scale_for(float largest) {
  if (!(largest > 0.0f)) return 1.0f;
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0f, std::clamp(-exponent, -126, 126));
}

Scan choose_scan(Metric metric, std::uint32_t dim, std::uint64_t items) {
  if (metric == Metric::hamming) return Scan::bits;
  if (dim <= tuning::kPlainScanDim || items < tuning::kPlainScanItems) return Scan::vectors;
  return metric == Metric::manhattan ? Scan::byte_rows : Scan::codes;
}

std::vector<float> mean_of(const WorkRows& rows) {
  constexpr std::uint64_t kMeanRows = 65'536;
  std::vector<double> sums(rows.dim());
  std::vector<float> vector(rows.dim());
  const std::vector<Row> sample = spread_rows(rows.size(), kMeanRows, 0);
  for (const Row row : sample) {
    rows.load_one(row, vector.data());
    for (std::uint32_t j = 0; j < rows.dim(); ++j) sums[j] += vector[j];
  }
  std::vector<float> mean(rows.dim());
  for (std::uint32_t j = 0; j < rows.dim(); ++j) {
    mean[j] = static_cast<float>(sums[j] / static_cast<double>(sample.size()));
  }
  return mean;
}

// How many bands norms (ascending) deserve: those of like norms gain nothing by being kept apart,
// and their neighbours would be spread over the leaves of all bands.
std::uint32_t norm_bands(const std::vector<float>& sorted) {
  const float low = sorted[sorted.size() / 20],
              high = sorted[sorted.size() - 1 - sorted.size() / 20];
  if (!(low > 0.0f)) return tuning::kMostNormBands;
  const double bands = 1.0 + tuning::kNormBandsPerDoubling * std::log2(double{high} / low);
  return static_cast<std::uint32_t>(std::min<double>(bands, tuning::kMostNormBands));
}

// Least norms of bands of about equal counts, but for the first.
std::vector<float> bounds_of_bands(std::vector<float> norms) {
  std::sort(norms.begin(), norms.end());
  std::vector<float> bounds;
  const std::uint32_t bands = norm_bands(norms);
  for (std::uint32_t band = 1; band < bands; ++band) {
    const float bound = norms[band * norms.size() / bands];
    if (bound > (bounds.empty() ? 0.0f : bounds.back())) bounds.push_back(bound);
  }
  return bounds;
}

class Training {
 public:
  Training(const StoredRows& rows, const TrainPlan& plan)
      : rows_(rows),
        plan_(plan),
        traits_(traits_of(plan.metric)),
        dim_(rows.dim()),
        expected_items_(std::max(plan.expected_items, rows.size())) {}

  TrainedModel run() {
    model_.metric = plan_.metric;
    model_.dtype = rows_.dtype();
    model_.dim = dim_;
    model_.value_scale = plan_.value_scale;
    model_.given_bytes = plan_.given_bytes;
    choose_storage();
    learn_scales();
    learn_mean();
    hold_rows_out();
    learn_regions();
    divide();
    if (model_.scan == Scan::codes) learn_codes();
    return std::move(model_);
  }

 private:
  WorkRows work_rows() const { return WorkRows(rows_, model_.transform()); }

  // A lean file is the smallest: leaves small enough to be scanned whole. So are those of dot,
  // whose neighbours are where norms are large: on factors 17k blocks and lists make queries half
  // as fast.
  void choose_storage() {
    model_.scan = choose_scan(plan_.metric, dim_, expected_items_);
    const bool is_coded = model_.scan == Scan::codes;
    model_.has_blocks = is_coded && !plan_.lean && !traits_.multiplies_norm;
    model_.has_byte_copies =
        !model_.holds_bytes() && (is_coded ? !plan_.lean : model_.scan == Scan::byte_rows);
    model_.leaf_points = model_.has_blocks ? tuning::kBlockedLeafPoints : tuning::kLeafPoints;
  }

  void learn_scales() {
    if (traits_.work == WorkSpace::unit) {
      norms_ = kept_norms(rows_, plan_.n_threads, plan_.monitor);
      if (traits_.multiplies_norm) {
        model_.norm_unit = *std::max_element(norms_.begin(), norms_.end());
      }
    }
    if (traits_.work == WorkSpace::scaled) {
      const Extremes values = extremes_of(rows_, plan_.n_threads, plan_.monitor);
      model_.work_scale = work_scale_for(values.largest());
      if (model_.scan == Scan::byte_rows && model_.has_byte_copies) {
        model_.byte_offset = values.lowest;
        model_.byte_scale = std::max(values.highest / 255.0f - values.lowest / 255.0f, 1e-30f);
      }
    }
    if (model_.dtype == Dtype::int8) model_.byte_offset = -128.0f;
  }

  void learn_mean() {
    model_.mean.assign(dim_, 0.0f);
    if (!traits_.multiplies_norm) model_.mean = mean_of(work_rows());
  }

  void hold_rows_out() {
    if (!plan_.hold_out) return;
    const std::vector<Row> held_out = held_out_rows(rows_.size(), plan_.seed);
    if (rows_.size() <= held_out.size() * 2) return;
    roles_.held_out.assign(rows_.size(), 0);
    for (const Row row : held_out) roles_.held_out[row] = 1;
  }

  // Norm bands for dot; zero vectors apart for the other metrics of directions.
  void learn_regions() {
    if (norms_.empty()) return;
    if (traits_.multiplies_norm) {
      model_.norm_bounds = bounds_of_bands(norms_);
      model_.region_count = static_cast<std::uint32_t>(model_.norm_bounds.size()) + 1;
    } else if (std::count(norms_.begin(), norms_.end(), 0.0f) > 0) {
      model_.region_count = 2;
    }
    if (model_.region_count == 1) return;
    roles_.region_count = model_.region_count;
    for (const float norm : norms_) roles_.region.push_back(model_.region_of(norm));
  }

  // Leaves are as many as the expected items need, however few rows there are to learn from.
  std::uint32_t rows_a_leaf() const {
    constexpr double kLeast = 4.0;  // rows that a centroid is learned from
    const double share = static_cast<double>(rows_.size()) / static_cast<double>(expected_items_);
    return static_cast<std::uint32_t>(std::max(kLeast, model_.leaf_points * share));
  }

  void divide() {
    PartitionOptions options;
    options.leaf_points = rows_a_leaf();
    options.lloyd_passes = plan_.lean ? tuning::kLeanLloydPasses : tuning::kLloydPasses;
    options.n_threads = plan_.n_threads;
    options.monitor = plan_.monitor;
    options.seed = mixed_seed(plan_.seed, 1);
    if (plan_.memory_limit) {
      // Of a chunk's pages each is read from disk once, in whatever order its rows are.
      options.chunk_rows = std::max<std::uint64_t>(
          plan_.memory_limit / tuning::kFileMemoryShare / rows_.row_bytes(), 16'384);
    }
    model_.division = divide_space(work_rows(), roles_, options);
    store_centroids();
  }

  // From here on centroids are what the file will say.
  void store_centroids() {
    Division& division = model_.division;
    const std::uint32_t leaves = division.leaf_count();
    model_.centroid_bytes.resize(std::size_t{leaves} * dim_);
    for (std::uint32_t leaf = 0; leaf < leaves; ++leaf) {
      float* centroid = &division.centroids[std::size_t{leaf} * dim_];
      std::uint8_t* bytes = &model_.centroid_bytes[std::size_t{leaf} * dim_];
      const float scale = quantize_centroid(centroid, dim_, bytes);
      model_.centroid_scales.push_back(scale);
      for (std::uint32_t j = 0; j < dim_; ++j) {
        centroid[j] = scale * static_cast<float>(static_cast<int>(bytes[j]) - 128);
      }
    }
  }

  // Codes learn from residuals of some rows, each to the centroid of its leaf.
  void learn_codes() {
    std::vector<Row> sample =
        spread_rows(rows_.size(), plan_.lean ? tuning::kLeanCodeSample : tuning::kCodeSample,
                    mixed_seed(plan_.seed, 0));
    if (!roles_.held_out.empty()) {
      sample.erase(std::remove_if(sample.begin(), sample.end(),
                                  [&](Row row) { return roles_.held_out[row]; }),
                   sample.end());
    }
    const SampledRows sampled(rows_, sample);
    const WorkRows work(sampled, model_.transform());
    std::vector<std::uint8_t> regions;
    if (!roles_.region.empty()) {
      for (const Row row : sample) regions.push_back(roles_.region[row]);
    }
    PartitionOptions options;
    options.n_threads = plan_.n_threads;
    options.monitor = plan_.monitor;
    const LeafFinder finder(model_.division, plan_.n_threads, plan_.monitor);
    const std::vector<std::uint32_t> leaves = finder.leaves_of(work, regions, options);
    std::vector<float> residuals(sample.size() * dim_);
    parallel_for(
        plan_.n_threads, sample.size(), 256,
        [&](std::uint64_t begin, std::uint64_t end, unsigned) {
          for (std::uint64_t i = begin; i < end; ++i) {
            float* residual = &residuals[i * dim_];
            work.load_one(static_cast<Row>(i), residual);
            kernels().axpy(-1.0f, &model_.division.centroids[std::size_t{leaves[i]} * dim_],
                           residual, dim_);
          }
        },
        plan_.monitor);
    model_.codes = CodeModel::train(residuals, dim_, plan_.n_threads, plan_.monitor);
  }

  // Some rows of others.
  class SampledRows final : public StoredRows {
   public:
    SampledRows(const StoredRows& rows, const std::vector<Row>& sample)
        : StoredRows(rows.dtype(), rows.dim()), rows_(rows), sample_(sample) {}
    std::uint64_t size() const noexcept override { return sample_.size(); }
    const std::byte* stored(Row row, std::byte* buffer) const override {
      return rows_.stored(sample_[row], buffer);
    }
    bool converts(Row row) const noexcept override { return rows_.converts(sample_[row]); }
    void prefetch(Row row) const noexcept override { rows_.prefetch(sample_[row]); }
    void release_pages() const noexcept override { rows_.release_pages(); }

   private:
    const StoredRows& rows_;
    const std::vector<Row>& sample_;
  };

  const StoredRows& rows_;
  const TrainPlan& plan_;
  const MetricTraits& traits_;
  const std::uint32_t dim_;
  const std::uint64_t expected_items_;
  std::vector<float> norms_;  // of directions: see kept_norm
  RowRoles roles_;
  TrainedModel model_;
};

}  // namespace

TrainedModel train_model(const StoredRows& rows, const TrainPlan& plan) {
  return Training(rows, plan).run();
}

}  // namespace annidx
