// trained.cpp owns what a trained model says of rows, and the reading of models; see trained.h.
// Training is in train.cpp.
#include "index/trained.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/tuning.h"
#include "format/format.h"
#include "kernels/kernels.h"

namespace annidx {
namespace {

using format::Section;

std::uint64_t mix(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

}  // namespace

WorkTransform TrainedModel::transform() const noexcept {
  return {traits().work, dim, work_scale, traits().multiplies_norm ? nullptr : mean.data()};
}

std::uint8_t TrainedModel::region_of(float norm) const noexcept {
  if (region_count == 1) return 0;
  if (!traits().multiplies_norm) return norm == 0.0f;
  return static_cast<std::uint8_t>(std::upper_bound(norm_bounds.begin(), norm_bounds.end(), norm) -
                                   norm_bounds.begin());
}

float kept_norm(double norm) noexcept {
  constexpr float kLeast = std::numeric_limits<float>::denorm_min();
  return norm > 0.0 ? std::max(kLeast, static_cast<float>(norm * 0x1p-8)) : 0.0f;
}

std::vector<float> kept_norms(const StoredRows& rows, unsigned n_threads, Monitor* monitor) {
  std::vector<float> norms(rows.size());
  parallel_for(
      n_threads, rows.size(), 4096,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        std::vector<float> values(rows.dim());
        std::vector<std::byte> buffer(rows.row_bytes());
        for (std::uint64_t row = begin; row < end; ++row) {
          decode_row(rows.dtype(), rows.stored(static_cast<Row>(row), buffer.data()), rows.dim(),
                     values.data());
          norms[row] = kept_norm(
              std::sqrt(kernels().dot_square_f32(values.data(), values.data(), rows.dim()).square));
        }
      },
      monitor, "rows");
  return norms;
}

std::uint64_t mixed_seed(std::uint64_t seed, std::uint64_t use) noexcept {
  return mix(seed + 0x9E3779B97F4A7C15ull * use);
}

std::vector<Row> spread_rows(std::uint64_t items, std::uint64_t wanted, std::uint64_t seed) {
  std::vector<Row> rows;
  const std::uint64_t count = std::min(items, wanted);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t begin = i * items / count, end = (i + 1) * items / count;
    rows.push_back(
        static_cast<Row>(begin + mix(seed ^ (i * 0x9E3779B97F4A7C15ull)) % (end - begin)));
  }
  return rows;
}

std::vector<Row> held_out_rows(std::uint64_t items, std::uint64_t seed) {
  return spread_rows(items, std::min(tuning::kHeldOutRows, items / tuning::kHeldOutShare + 1),
                     seed);
}

const LeafFinder& Encoder::finder(unsigned n_threads, Monitor* monitor) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!finder_) finder_ = std::make_unique<LeafFinder>(model_.division, n_threads, monitor);
  return *finder_;
}

// ---- reading ---------------------------------------------------------------------------------

namespace {

class ModelReader {
 public:
  explicit ModelReader(const LoadedImage& image)
      : image_(image),
        view_(image.view()),
        params_(view_.params),
        tree_(image.search().forest.trees[0]) {}

  TrainedModel read() {
    read_params();
    read_leaves();
    read_groups();
    if (model_.scan == Scan::codes) {
      model_.codes = CodeModel::read(model_.dim, params_.code_count, params_.rotation_block,
                                     view_.array<float>(Section::codebook),
                                     view_.array<std::uint16_t>(Section::code_first_dims),
                                     view_.array<std::int8_t>(Section::rotation),
                                     view_.array<float>(Section::rotation_scales),
                                     view_.array<std::uint32_t>(Section::rotation_order));
    }
    return std::move(model_);
  }

 private:
  [[noreturn]] void damaged(const char* section, std::uint64_t entry, const char* expected) const {
    throw Error(ErrorCode::format, image_.name() + " is damaged: section '" + section +
                                       "', entry " + std::to_string(entry) + ": expected " +
                                       expected);
  }

  void read_params() {
    model_.metric = image_.metric();
    model_.dtype = image_.dtype();
    model_.dim = image_.dim();
    model_.scan = static_cast<Scan>(params_.scan_kind);
    model_.leaf_points = std::max(1u, params_.leaf_points);
    model_.has_blocks = params_.has_blocks != 0;
    model_.has_byte_copies = params_.byte_row_bytes != 0;
    model_.given_bytes = params_.given_bytes != 0;
    model_.value_scale = params_.value_scale;
    model_.work_scale = params_.work_scale;
    model_.byte_scale = params_.byte_scale;
    model_.byte_offset = params_.byte_offset;
    model_.norm_unit = params_.norm_unit;
    model_.region_count = params_.region_count;
    model_.mean = floats(Section::mean, model_.dim);
    if (view_.section(Section::norm_bounds)) {
      model_.norm_bounds = floats(Section::norm_bounds, params_.region_count - 1);
    }
  }

  std::vector<float> floats(Section kind, std::uint64_t count) const {
    const float* values = view_.array<float>(kind);
    for (std::uint64_t i = 0; i < count; ++i) {
      if (!std::isfinite(values[i])) damaged(section_name(kind), i, "a finite number");
    }
    return {values, values + count};
  }

  void read_leaves() {
    model_.division.dim = model_.dim;
    const auto* scales = view_.array<float>(Section::leaf_scales);
    const auto* regions = view_.array<std::uint8_t>(Section::leaf_regions);
    const auto* table = view_.array<std::uint8_t>(Section::leaf_centroids);
    std::vector<std::uint8_t> bytes(model_.dim);
    for (std::uint32_t i = 0; i < tree_.leaf_entry_count; ++i) {
      const float scale = scales[i];
      if (scale == 0.0f) continue;
      if (!(scale > 0.0f && std::isfinite(scale))) damaged("leaf_scales", i, "a positive number");
      take_centroid(table, model_.dim, params_.work_dim4, i, bytes.data());
      const std::uint8_t region = regions ? regions[i] : 0;
      if (region >= model_.region_count) damaged("leaf_regions", i, "a region that there is");
      model_.division.regions.push_back(region);
      model_.centroid_scales.push_back(scale);
      for (const std::uint8_t byte : bytes) {
        model_.centroid_bytes.push_back(byte);
        model_.division.centroids.push_back(scale *
                                            static_cast<float>(static_cast<int>(byte) - 128));
      }
    }
    if (model_.division.leaf_count() == 0) damaged("leaf_scales", 0, "at least one leaf");
  }

  // Groups begin where a block of entries does: leaves are counted up to there.
  void read_groups() {
    if (tree_.group_entry_count == 0) return;
    const auto* ranges = view_.array<format::GroupRange>(Section::group_ranges);
    const std::vector<std::uint32_t> leaves = leaves_of_entries(image_);
    std::vector<std::uint32_t>& first = model_.division.group_first;
    std::uint64_t entry = 0;
    for (std::uint32_t g = 0; g < tree_.group_entry_count; ++g) {
      const format::GroupRange range = ranges[g];
      if (range.leaf_blocks == 0) continue;
      const std::uint64_t begin = std::uint64_t{range.first_leaf_block} * kPanelWidth;
      if (begin != entry || begin >= leaves.size() || leaves[begin] == kNoRow) {
        damaged("group_ranges", g, "a group that begins with a leaf, behind the one before");
      }
      first.push_back(leaves[begin]);
      entry = begin + std::uint64_t{range.leaf_blocks} * kPanelWidth;
    }
    first.push_back(model_.division.leaf_count());
  }

  const LoadedImage& image_;
  const format::View& view_;
  const format::Params& params_;
  const TreeView& tree_;
  TrainedModel model_;
};

}  // namespace

std::vector<std::uint32_t> leaves_of_entries(const LoadedImage& image) {
  const auto* scales = image.view().array<float>(Section::leaf_scales);
  std::vector<std::uint32_t> leaves(image.search().forest.trees[0].leaf_entry_count, kNoRow);
  std::uint32_t leaf = 0;
  for (std::size_t entry = 0; entry < leaves.size(); ++entry) {
    if (scales[entry] > 0.0f) leaves[entry] = leaf++;
  }
  return leaves;
}

TrainedModel read_model(const LoadedImage& image) { return ModelReader(image).read(); }

}  // namespace annidx
