// build_fill.cpp owns the filling of an image's sections from a partition; see build.h. What is
// written is laid out in format.h; the order in which it is filled is build.cpp's.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "base/tuning.h"
#include "index/build_detail.h"
#include "kernels/kernels.h"
#include "model/blocks.h"

namespace annidx {

// One leaf under way, with buffers that a thread keeps from leaf to leaf.
struct LeafScratch {
  std::uint32_t entry = 0;
  std::uint64_t first = 0;  // slot
  std::uint32_t count = 0;
  const Row* rows = nullptr;
  const float* centroid = nullptr;
  float centroid_square = 0.0f;
  std::vector<float> work, residuals, rotated, rotated_centroid, scalars;
  std::vector<float> decoded, norms;  // of one point; of all
  std::vector<std::uint8_t> codes;
  std::vector<std::byte> stored;
  // Of the leaf's blocks.
  std::vector<float> block_means, block_spreads, block_norms;
};

void Build::fill_rows_and_ids() {
  const Partition& tree = first_tree();
  auto* slot_rows = section<std::uint32_t>(Section::slot_rows);
  auto* row_slots = section<std::uint32_t>(Section::row_slots);
  for (std::uint64_t slot = 0; slot < items_; ++slot) {
    slot_rows[slot] = tree.rows[slot];
    row_slots[tree.rows[slot]] = static_cast<Slot>(slot);
  }
  if (ids_.kind() == IdKind::int64) {
    ids_.write_int64(section<std::int64_t>(Section::ids_int64));
    ids_.write_order(section<std::uint32_t>(Section::id_order));
  } else if (ids_.kind() == IdKind::text) {
    ids_.write_text(section<std::uint64_t>(Section::id_text_offsets),
                    format::mutable_section(image_, Section::id_text));
    ids_.write_order(section<std::uint32_t>(Section::id_order));
  }
  std::memcpy(format::mutable_section(image_, Section::metadata), plan_.metadata.data(),
              plan_.metadata.size());
  if (!plan_.sets.empty()) {
    std::memcpy(format::mutable_section(image_, Section::sets), plan_.sets.data(),
                plan_.sets.size());
  }
  if (plan_.removed) {
    plan_.removed->write(section<std::int64_t>(Section::removed_ids),
                         section<std::uint64_t>(Section::removed_text_offsets),
                         format::mutable_section(image_, Section::removed_text));
  }
  std::memcpy(section<format::Tree>(Section::trees), trees_.data(),
              sizeof(format::Tree) * trees_.size());
}

void Build::fill_model() {
  std::memcpy(section<float>(Section::mean), model_.mean.data(), sizeof(float) * dim_);
  if (!model_.norm_bounds.empty()) {
    std::memcpy(section<float>(Section::norm_bounds), model_.norm_bounds.data(),
                sizeof(float) * model_.norm_bounds.size());
  }
  if (scan_ != Scan::codes) return;
  const CodeModel& codes = model_.codes;
  std::memcpy(section<float>(Section::codebook), codes.codebook().data(),
              sizeof(float) * codes.codebook().size());
  std::memcpy(section<std::uint16_t>(Section::code_first_dims), codes.first_dims().data(),
              sizeof(std::uint16_t) * codes.first_dims().size());
  codes.write_rotation(section<std::int8_t>(Section::rotation),
                       section<float>(Section::rotation_scales),
                       section<std::uint32_t>(Section::rotation_order));
}

// Quantized centroids of a tree's leaves, and the ranges of their points.
void Build::fill_centroids(std::uint32_t t) {
  const Partition& partition = partitions_[t];
  const format::Tree& tree = trees_[t];
  auto* ranges = section<format::LeafRange>(Section::leaf_ranges);
  auto* centroids = section<std::uint8_t>(Section::leaf_centroids);
  auto* mults = section<float>(Section::leaf_mults);
  auto* biases = section<float>(Section::leaf_biases);
  std::vector<std::uint8_t> bytes(dim_, 128);
  for (std::uint32_t i = 0; i < tree.leaf_entry_count; ++i) {
    biases[tree.first_leaf_entry + i] = std::numeric_limits<float>::infinity();
    place_centroid(bytes.data(), dim_, params_.work_dim4, tree.first_leaf_entry + i, centroids);
  }
  auto* scales = section<float>(Section::leaf_scales);
  auto* regions = section<std::uint8_t>(Section::leaf_regions);
  std::uint32_t block = 0, centroid_block = 0;
  const std::uint64_t list = t == 0 ? 0 : (t - 1) * items_;
  for (std::uint32_t leaf = 0; leaf < partition.leaf_count(); ++leaf) {
    const std::uint32_t entry = leaf_entries_[t][leaf];
    if (t == 0) {
      const std::uint32_t origin = partition.origins[leaf];
      scales[entry] = model_.centroid_scales[origin];
      if (regions) regions[entry] = model_.division.regions[origin];
      place_centroid(&model_.centroid_bytes[std::size_t{origin} * dim_], dim_, params_.work_dim4,
                     entry, centroids);
    } else {
      scales[entry] =
          quantize_centroid(&partition.centroids[std::size_t{leaf} * dim_], dim_, bytes.data());
      place_centroid(bytes.data(), dim_, params_.work_dim4, entry, centroids);
    }
    mults[entry] = scales[entry];  // completed when the leaf's points are known
    const auto count =
        static_cast<std::uint32_t>(partition.first[leaf + 1] - partition.first[leaf]);
    if (count == 0) continue;
    const bool is_coded = t == 0 && scan_ == Scan::codes;
    ranges[entry] = {list + partition.first[leaf], count, is_coded ? block : 0,
                     is_coded && has_blocks() ? centroid_block : 0, 0};
    block += static_cast<std::uint32_t>(block_count(count));
    centroid_block += static_cast<std::uint32_t>(block_count(block_count(count)));
  }
}

namespace {

// What routing needs to know of a leaf's points.
struct LeafSpread {
  float mean_square = 0.0f;  // squared distance to the centroid
  float radius = 0.0f;
  float zero_term = 0.0f;
  float high_norm = 0.0f;  // 90th percentile of the relative norms
};

struct RouteNumbers {
  float mult, scan_factor;
};

RouteNumbers route_numbers(bool multiplies_norm, float scale, float high_norm) {
  if (!multiplies_norm) return {2.0f * scale, 1.0f};
  constexpr float kLeastNorm = 1e-30f;  // below it the inverse may be infinite
  return {high_norm * scale, high_norm > kLeastNorm ? 1.0f / high_norm : 0.0f};
}

float high_norm_of(std::vector<float>* norms) {
  if (norms->empty()) return 0.0f;
  const std::size_t place = norms->size() * 9 / 10;
  std::nth_element(norms->begin(), norms->begin() + static_cast<std::ptrdiff_t>(place),
                   norms->end());
  return (*norms)[place];
}

}  // namespace

void Build::fill_leaf(std::uint32_t leaf, LeafScratch* scratch) {
  const Partition& tree = first_tree();
  scratch->entry = leaf_entries_[0][leaf];
  scratch->first = tree.first[leaf];
  scratch->count = static_cast<std::uint32_t>(tree.first[leaf + 1] - scratch->first);
  scratch->rows = tree.rows.data() + scratch->first;  // a model has leaves without rows
  scratch->centroid = &tree.centroids[std::size_t{leaf} * dim_];
  scratch->centroid_square = kernels().dot_f32(scratch->centroid, scratch->centroid, dim_);
  fill_spread(scratch);
  fill_vectors(scratch);
  if (scan_ == Scan::byte_rows && has_byte_copies()) fill_sketch(*scratch);
  if (scan_ != Scan::codes) return;
  fill_codes(scratch);
  if (has_blocks()) fill_block_centroids(scratch);
  if (has_lists()) fill_records(*scratch);
  if (has_byte_copies()) {
    fill_byte_rows(*scratch);
  } else if (has_row_scalars()) {
    fill_row_scalars(scratch);
  }
}

// Residuals of the points, and what routing needs to know of them.
void Build::fill_spread(LeafScratch* scratch) {
  const std::uint32_t count = scratch->count;
  scratch->work.resize(std::size_t{count} * dim_);
  work_rows().load(scratch->rows, count, scratch->work.data());
  scratch->residuals = scratch->work;
  scratch->norms.clear();
  LeafSpread spread;
  for (std::uint32_t i = 0; i < count; ++i) {
    float* residual = &scratch->residuals[std::size_t{i} * dim_];
    kernels().axpy(-1.0f, scratch->centroid, residual, dim_);
    const float square = kernels().dot_f32(residual, residual, dim_);
    spread.mean_square += square / static_cast<float>(count);
    spread.radius = std::max(spread.radius, square);
    spread.zero_term += zero_vector_term(scratch->rows[i]) / static_cast<float>(count);
    if (traits_.multiplies_norm) scratch->norms.push_back(relative_norm(scratch->rows[i]));
  }
  spread.high_norm = high_norm_of(&scratch->norms);
  const std::uint32_t entry = scratch->entry;
  float& mult = section<float>(Section::leaf_mults)[entry];
  const RouteNumbers numbers = route_numbers(traits_.multiplies_norm, mult, spread.high_norm);
  mult = numbers.mult;
  section<float>(Section::leaf_scan_factors)[entry] = numbers.scan_factor;
  leaf_bases_[entry] = scratch->centroid_square + spread.zero_term;
  leaf_mean_squares_[entry] = spread.mean_square;
  section<float>(Section::leaf_radii)[entry] = std::sqrt(spread.radius);
}

void Build::fill_vectors(LeafScratch* scratch) {
  const std::size_t row_bytes = source_.row_bytes();
  scratch->stored.resize(row_bytes);
  std::byte* vectors = stored_row(scratch->first);
  for (std::uint32_t i = 0; i < scratch->count; ++i) {
    std::memcpy(vectors + i * row_bytes, source_.stored(scratch->rows[i], scratch->stored.data()),
                row_bytes);
  }
}

// Bytes whose L1 distance stands for that of the vectors.
void Build::fill_sketch(const LeafScratch& scratch) {
  auto* bytes = section<std::uint8_t>(Section::byte_rows) + scratch.first * dim_;
  std::vector<float> values(dim_);
  for (std::uint32_t i = 0; i < scratch.count; ++i) {
    decode_row(model_.dtype, stored_row(scratch.first + i), dim_, values.data());
    for (std::uint32_t j = 0; j < dim_; ++j) {
      const float byte = std::nearbyint((values[j] - params_.byte_offset) / params_.byte_scale);
      bytes[std::size_t{i} * dim_ + j] = static_cast<std::uint8_t>(std::clamp(byte, 0.0f, 255.0f));
    }
  }
}

// What a residual's codes say of it whatever the query is: the squares of centroid and decoded
// residual, and twice their product.
float Build::decoded_term(const std::uint8_t* codes, float scale, LeafScratch* scratch,
                          float* decoded_square) const {
  scratch->decoded.resize(dim_);
  float* decoded = scratch->decoded.data();
  model_.codes.decode(codes, decoded);
  if (scale != 1.0f) {
    for (std::uint32_t j = 0; j < dim_; ++j) decoded[j] /= scale;
  }
  *decoded_square = kernels().dot_f32(decoded, decoded, dim_);
  const float cross = kernels().dot_f32(decoded, scratch->rotated_centroid.data(), dim_);
  return scratch->centroid_square + 2.0f * cross + *decoded_square;
}

void Build::fill_codes(LeafScratch* scratch) {
  const std::uint32_t count = scratch->count;
  scratch->rotated.resize(std::size_t{count} * dim_);
  scratch->codes.resize(std::size_t{count} * params_.code_count);
  scratch->rotated_centroid.resize(dim_);
  scratch->scalars.resize(count);
  model_.codes.rotate(scratch->residuals.data(), count, scratch->rotated.data());
  model_.codes.rotate(scratch->centroid, 1, scratch->rotated_centroid.data());
  model_.codes.encode(scratch->rotated.data(), count, scratch->codes.data());
  for (std::uint32_t i = 0; i < count; ++i) {
    const Row row = scratch->rows[i];
    if (traits_.multiplies_norm) {
      scratch->scalars[i] = relative_norm(row);
      continue;
    }
    const float* rotated = &scratch->rotated[std::size_t{i} * dim_];
    float coded_square;
    const float term = decoded_term(&scratch->codes[std::size_t{i} * params_.code_count], 1.0f,
                                    scratch, &coded_square);
    const float true_square = kernels().dot_f32(rotated, rotated, dim_);
    scratch->scalars[i] =
        term + params_.residual_weight * (true_square - coded_square) + zero_vector_term(row);
  }
  const format::LeafRange& range = section<format::LeafRange>(Section::leaf_ranges)[scratch->entry];
  pack_blocks(scratch->codes.data(), scratch->scalars.data(), count, params_.code_count,
              section<std::uint8_t>(Section::codes) +
                  range.first_block * code_block_bytes(params_.code_count));
}

// Mean residual, spread and highest norm of each block of the leaf.
void Build::measure_blocks(LeafScratch* scratch) const {
  const auto blocks = static_cast<std::uint32_t>(block_count(scratch->count));
  scratch->block_means.assign(std::size_t{blocks} * dim_, 0.0f);
  scratch->block_spreads.assign(blocks, 0.0f);
  scratch->block_norms.assign(blocks, 0.0f);
  for (std::uint32_t b = 0; b < blocks; ++b) {
    const auto begin = b * static_cast<std::uint32_t>(kBlockPoints);
    const std::uint32_t end =
        std::min<std::uint32_t>(scratch->count, begin + static_cast<std::uint32_t>(kBlockPoints));
    const float share = 1.0f / static_cast<float>(end - begin);
    float* mean = &scratch->block_means[std::size_t{b} * dim_];
    for (std::uint32_t i = begin; i < end; ++i) {
      kernels().axpy(share, &scratch->residuals[std::size_t{i} * dim_], mean, dim_);
    }
    for (std::uint32_t i = begin; i < end; ++i) {
      const float* residual = &scratch->residuals[std::size_t{i} * dim_];
      const Row row = scratch->rows[i];
      scratch->block_spreads[b] += share * (kernels().l2_squared_build_f32(residual, mean, dim_) *
                                                tuning::kBlockRadiusWeight +
                                            zero_vector_term(row));
      if (traits_.multiplies_norm) {
        scratch->block_norms[b] = std::max(scratch->block_norms[b], relative_norm(row));
      }
    }
  }
}

// Block centroids are coded as points are, by the same codebook.
void Build::fill_block_centroids(LeafScratch* scratch) {
  measure_blocks(scratch);
  const auto blocks = static_cast<std::uint32_t>(scratch->block_norms.size());
  std::vector<float> rotated(std::size_t{blocks} * dim_);
  model_.codes.rotate(scratch->block_means.data(), blocks, rotated.data());
  for (float& value : rotated) value *= params_.centroid_scale;
  std::vector<std::uint8_t> codes(std::size_t{blocks} * params_.code_count);
  model_.codes.encode(rotated.data(), blocks, codes.data());
  std::vector<float> scalars(blocks);
  for (std::uint32_t b = 0; b < blocks; ++b) {
    float coded_square;
    scalars[b] = traits_.multiplies_norm
                     ? scratch->block_norms[b]
                     : decoded_term(&codes[std::size_t{b} * params_.code_count],
                                    params_.centroid_scale, scratch, &coded_square) +
                           scratch->block_spreads[b];
  }
  const format::LeafRange& range = section<format::LeafRange>(Section::leaf_ranges)[scratch->entry];
  pack_blocks(codes.data(), scalars.data(), blocks, params_.code_count,
              section<std::uint8_t>(Section::block_centroids) +
                  range.first_centroid_block * code_block_bytes(params_.code_count));
}

// The codes once more, each point's side by side.
void Build::fill_records(const LeafScratch& scratch) {
  std::uint8_t* record =
      section<std::uint8_t>(Section::code_records) + scratch.first * params_.record_bytes;
  const std::uint8_t* codes = scratch.codes.data();
  const std::uint32_t pairs = params_.code_count / 2;
  for (std::uint32_t i = 0; i < scratch.count; ++i) {
    for (std::uint32_t j = 0; j < pairs; ++j) {
      record[j] = static_cast<std::uint8_t>(codes[2 * j] | codes[2 * j + 1] << 4);
    }
    const format::CodeRecordTail tail{scratch.scalars[i], scratch.entry};
    std::memcpy(record + pairs, &tail, sizeof(tail));
    record += params_.record_bytes;
    codes += params_.code_count;
  }
}

// Copies of the working-space vectors as signed bytes, each with a scale of its own.
void Build::fill_byte_rows(const LeafScratch& scratch) {
  std::int8_t* bytes = section<std::int8_t>(Section::byte_rows) + scratch.first * dim_;
  RowScalars* scalars = section<RowScalars>(Section::row_scalars) + scratch.first;
  for (std::uint32_t i = 0; i < scratch.count; ++i, bytes += dim_) {
    const float* work = &scratch.work[std::size_t{i} * dim_];
    const float largest = kernels().max_abs(work, dim_);
    const float scale = largest > 0.0f ? largest / 127.0f : 1.0f;
    std::int64_t square = 0;
    for (std::uint32_t j = 0; j < dim_; ++j) {
      bytes[j] = static_cast<std::int8_t>(std::nearbyint(work[j] / scale));
      square += std::int64_t{bytes[j]} * bytes[j];
    }
    const Row row = scratch.rows[i];
    if (traits_.multiplies_norm) {
      scalars[i] = {scale * relative_norm(row), 0.0f};
    } else {
      scalars[i] = {2.0f * scale,
                    scale * scale * static_cast<float>(square) + zero_vector_term(row)};
    }
  }
}

// Vectors that are bytes themselves need their scalars only.
void Build::fill_row_scalars(LeafScratch* scratch) {
  RowScalars* scalars = section<RowScalars>(Section::row_scalars) + scratch->first;
  std::vector<float>& values = scratch->decoded;
  values.resize(dim_);
  for (std::uint32_t i = 0; i < scratch->count; ++i) {
    decode_row(model_.dtype, stored_row(scratch->first + i), dim_, values.data());
    const double square = kernels().dot_square_f32(values.data(), values.data(), dim_).square;
    if (traits_.multiplies_norm) {
      scalars[i] = {1.0f, 0.0f};
    } else if (traits_.work == WorkSpace::unit) {
      scalars[i] = {square > 0.0 ? static_cast<float>(2.0 / std::sqrt(square)) : 0.0f, 0.0f};
    } else {
      scalars[i] = {2.0f, static_cast<float>(square)};
    }
  }
}

void Build::fill_leaves() {
  const std::uint32_t leaves = first_tree().leaf_count();
  std::uint64_t chunk = leaves;
  if (plan_.memory_limit) {
    const std::uint64_t chunks =
        memory_->bytes() / (plan_.memory_limit / tuning::kFileMemoryShare / 2) + 1;
    chunk = std::max<std::uint64_t>(1, leaves / chunks);
  }
  std::vector<LeafScratch> scratches(plan_.n_threads);
  for (std::uint64_t begin = 0; begin < leaves; begin += chunk) {
    const std::uint64_t end = std::min<std::uint64_t>(leaves, begin + chunk);
    parallel_for(
        plan_.n_threads, end - begin, 4,
        [&](std::uint64_t from, std::uint64_t to, unsigned worker) {
          for (std::uint64_t i = from; i < to; ++i) {
            fill_leaf(static_cast<std::uint32_t>(begin + i), &scratches[worker]);
          }
        },
        plan_.monitor, "leaves");
    keep_image_small();
  }
}

// The pieces of an overfull leaf share its centroid. They share the best of their route numbers
// too: a query then reads them in the order of rows, and of equal vectors finds the first rows
// first.
void Build::level_cut_leaves() {
  const Partition& tree = first_tree();
  auto* mults = section<float>(Section::leaf_mults);
  auto* factors = section<float>(Section::leaf_scan_factors);
  const std::size_t centroid_bytes = sizeof(float) * dim_;
  std::uint32_t first = 0;
  for (std::uint32_t leaf = 1; leaf <= tree.leaf_count(); ++leaf) {
    const float* centroid = &tree.centroids[std::size_t{first} * dim_];
    if (leaf < tree.leaf_count() &&
        std::memcmp(centroid, &tree.centroids[std::size_t{leaf} * dim_], centroid_bytes) == 0) {
      continue;
    }
    std::uint32_t best = leaf_entries_[0][first];
    for (std::uint32_t piece = first; piece < leaf; ++piece) {
      const std::uint32_t entry = leaf_entries_[0][piece];
      if (tree.first[piece] == tree.first[piece + 1]) continue;
      if (mults[entry] > mults[best] || leaf_bases_[entry] < leaf_bases_[best]) best = entry;
    }
    for (std::uint32_t piece = first; piece < leaf; ++piece) {
      const std::uint32_t entry = leaf_entries_[0][piece];
      mults[entry] = mults[best];
      factors[entry] = factors[best];
      leaf_bases_[entry] = leaf_bases_[best];
      leaf_mean_squares_[entry] = leaf_mean_squares_[best];
    }
    first = leaf;
  }
}

// What orders leaves of all trees, and groups of them, besides the query: see
// tuning::kRadiusWeight.
void Build::set_route_biases() {
  auto* biases = section<float>(Section::leaf_biases);
  const auto* ranges = section<format::LeafRange>(Section::leaf_ranges);
  for (std::uint32_t t = 0; t < partitions_.size(); ++t) {
    for (const std::uint32_t entry : leaf_entries_[t]) {
      if (ranges[entry].count == 0) continue;  // never chosen
      biases[entry] = traits_.multiplies_norm
                          ? 0.0f
                          : leaf_bases_[entry] + radius_weight_ * leaf_mean_squares_[entry];
    }
    fill_groups(t);
  }
}

// Further trees keep lists of slots, and of their leaves only what routing needs.
void Build::fill_further_trees() {
  const WorkRows rows = work_rows();
  const auto* row_slots = section<std::uint32_t>(Section::row_slots);
  for (std::uint32_t t = 1; t < partitions_.size(); ++t) {
    const Partition& partition = partitions_[t];
    auto* list = section<Slot>(Section::tree_slots) + (t - 1) * items_;
    parallel_for(
        plan_.n_threads, partition.leaf_count(), 4,
        [&](std::uint64_t from, std::uint64_t to, unsigned) {
          std::vector<float> vector(dim_), norms;
          for (std::uint64_t leaf = from; leaf < to; ++leaf) {
            const float* centroid = &partition.centroids[leaf * dim_];
            const std::uint64_t first = partition.first[leaf], last = partition.first[leaf + 1];
            LeafSpread spread;
            norms.clear();
            for (std::uint64_t i = first; i < last; ++i) list[i] = row_slots[partition.rows[i]];
            // Some rows tell how all are spread.
            const std::uint64_t told =
                std::min<std::uint64_t>(last - first, tuning::kRandomSamplePerLeaf);
            for (std::uint64_t i = 0; i < told; ++i) {
              const Row row = partition.rows[first + i * (last - first) / told];
              rows.load_one(row, vector.data());
              const float square = kernels().l2_squared_build_f32(vector.data(), centroid, dim_);
              spread.mean_square += square / static_cast<float>(told);
              spread.radius = std::max(spread.radius, square);
              spread.zero_term += zero_vector_term(row) / static_cast<float>(told);
              if (traits_.multiplies_norm) norms.push_back(relative_norm(row));
            }
            std::sort(list + first, list + last);
            spread.high_norm = high_norm_of(&norms);
            const std::uint32_t entry = leaf_entries_[t][leaf];
            float& mult = section<float>(Section::leaf_mults)[entry];
            const RouteNumbers numbers =
                route_numbers(traits_.multiplies_norm, mult, spread.high_norm);
            mult = numbers.mult;
            section<float>(Section::leaf_scan_factors)[entry] = numbers.scan_factor;
            leaf_bases_[entry] = kernels().dot_f32(centroid, centroid, dim_) + spread.zero_term;
            leaf_mean_squares_[entry] = spread.mean_square;
            section<float>(Section::leaf_radii)[entry] = std::sqrt(spread.radius);
          }
        },
        plan_.monitor, "further trees");
  }
}

// A group's centroid is the mean of its points, or of its leaves where it has none; its spread,
// theirs.
void Build::fill_groups(std::uint32_t t) {
  const Partition& partition = partitions_[t];
  const format::Tree& tree = trees_[t];
  if (tree.group_entry_count == 0) return;
  auto* ranges = section<format::GroupRange>(Section::group_ranges);
  auto* centroids = section<std::uint8_t>(Section::group_centroids);
  auto* mults = section<float>(Section::group_mults);
  auto* biases = section<float>(Section::group_biases);
  const float* leaf_factors = section<float>(Section::leaf_scan_factors);
  std::vector<std::uint8_t> bytes(dim_, 128);
  for (std::uint32_t i = 0; i < tree.group_entry_count; ++i) {
    biases[tree.first_group_entry + i] = std::numeric_limits<float>::infinity();
    place_centroid(bytes.data(), dim_, params_.work_dim4, tree.first_group_entry + i, centroids);
  }
  std::vector<float> mean(dim_);
  for (std::uint32_t g = 0; g < partition.group_count(); ++g) {
    const std::uint32_t first = partition.group_first[g], last = partition.group_first[g + 1];
    const auto points = static_cast<float>(partition.first[last] - partition.first[first]);
    const auto share_of = [&](std::uint32_t leaf) {
      if (points == 0.0f) return 1.0f / static_cast<float>(last - first);
      return static_cast<float>(partition.first[leaf + 1] - partition.first[leaf]) / points;
    };
    std::fill(mean.begin(), mean.end(), 0.0f);
    LeafSpread spread;
    for (std::uint32_t leaf = first; leaf < last; ++leaf) {
      kernels().axpy(share_of(leaf), &partition.centroids[std::size_t{leaf} * dim_], mean.data(),
                     dim_);
    }
    for (std::uint32_t leaf = first; leaf < last; ++leaf) {
      const std::uint32_t entry = leaf_entries_[t][leaf];
      const float* centroid = &partition.centroids[std::size_t{leaf} * dim_];
      if (traits_.multiplies_norm) {
        const float norm = leaf_factors[entry] > 0.0f ? 1.0f / leaf_factors[entry] : 0.0f;
        spread.high_norm = std::max(spread.high_norm, norm);
      } else {
        spread.mean_square +=
            share_of(leaf) * (leaf_mean_squares_[entry] +
                              kernels().l2_squared_build_f32(mean.data(), centroid, dim_));
      }
    }
    const std::uint32_t entry = tree.first_group_entry + g;
    const float scale = quantize_centroid(mean.data(), dim_, bytes.data());
    place_centroid(bytes.data(), dim_, params_.work_dim4, entry, centroids);
    mults[entry] = route_numbers(traits_.multiplies_norm, scale, spread.high_norm).mult;
    biases[entry] = traits_.multiplies_norm ? 0.0f
                                            : kernels().dot_f32(mean.data(), mean.data(), dim_) +
                                                  radius_weight_ * spread.mean_square;
    const std::uint32_t leaves = round_up(last - first, kPanelWidth);
    ranges[entry] = {leaf_entries_[t][first] / static_cast<std::uint32_t>(kPanelWidth),
                     leaves / static_cast<std::uint32_t>(kPanelWidth)};
  }
}

}  // namespace annidx
