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

namespace annidx {

// Buffers of one thread while leaves are filled.
struct LeafScratch {
  std::vector<float> work, residuals, rotated, decoded, rotated_centre;
  std::vector<float> norms;
  std::vector<std::uint8_t> codes;
  std::vector<std::byte> stored;
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
  std::memcpy(section<float>(Section::mean), mean_.data(), sizeof(float) * dim_);
  std::memcpy(section<format::Tree>(Section::trees), trees_.data(),
              sizeof(format::Tree) * trees_.size());
}

// Quantized centres of a tree's leaves, and the ranges of their points.
void Build::fill_centres(std::uint32_t t) {
  const Partition& partition = partitions_[t];
  const format::Tree& tree = trees_[t];
  auto* ranges = section<format::LeafRange>(Section::leaf_ranges);
  auto* centres = section<std::uint8_t>(Section::leaf_centres);
  auto* mults = section<float>(Section::leaf_mults);
  auto* biases = section<float>(Section::leaf_biases);
  std::vector<std::uint8_t> bytes(dim_, 128);
  for (std::uint32_t i = 0; i < tree.leaf_entry_count; ++i) {
    biases[tree.first_leaf_entry + i] = std::numeric_limits<float>::infinity();
    place_centre(bytes.data(), dim_, params_.work_dim4, tree.first_leaf_entry + i, centres);
  }
  if (t == 0) stored_centres_.resize(partition.centres.size());
  std::uint32_t block = 0;
  const std::uint64_t list = t == 0 ? 0 : (t - 1) * items_;
  for (std::uint32_t leaf = 0; leaf < partition.leaf_count(); ++leaf) {
    const std::uint32_t entry = leaf_entries_[t][leaf];
    const float scale =
        quantize_centre(&partition.centres[std::size_t{leaf} * dim_], dim_, bytes.data());
    place_centre(bytes.data(), dim_, params_.work_dim4, entry, centres);
    mults[entry] = scale;  // completed when the leaf's points are known
    const auto count =
        static_cast<std::uint32_t>(partition.first[leaf + 1] - partition.first[leaf]);
    ranges[entry] = {list + partition.first[leaf], count,
                     t == 0 && scan_ == Scan::codes ? block : 0};
    block += (count + kBlockPoints - 1) / kBlockPoints;
    if (t != 0) continue;
    for (std::uint32_t j = 0; j < dim_; ++j) {
      stored_centres_[std::size_t{leaf} * dim_ + j] =
          scale * static_cast<float>(static_cast<int>(bytes[j]) - 128);
    }
  }
}

namespace {

// What routing needs to know of a leaf's points.
struct LeafSpread {
  float mean_square = 0.0f;  // squared distance to the centre
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
  const std::uint64_t first = tree.first[leaf];
  const auto count = static_cast<std::uint32_t>(tree.first[leaf + 1] - first);
  const Row* rows = &tree.rows[first];
  const std::uint32_t entry = leaf_entries_[0][leaf];
  const float* centre = &stored_centres_[std::size_t{leaf} * dim_];
  const float centre_square = kernels().dot_f32(centre, centre, dim_);

  scratch->work.resize(std::size_t{count} * dim_);
  work_rows().load(rows, count, scratch->work.data());
  scratch->residuals = scratch->work;
  scratch->norms.clear();
  LeafSpread spread;
  for (std::uint32_t i = 0; i < count; ++i) {
    float* residual = &scratch->residuals[std::size_t{i} * dim_];
    kernels().axpy(-1.0f, centre, residual, dim_);
    const float square = kernels().dot_f32(residual, residual, dim_);
    spread.mean_square += square / static_cast<float>(count);
    spread.radius = std::max(spread.radius, square);
    spread.zero_term += zero_vector_term(rows[i]) / static_cast<float>(count);
    if (traits_.multiplies_norm) scratch->norms.push_back(relative_norm(rows[i]));
  }
  spread.high_norm = high_norm_of(&scratch->norms);
  float& mult = section<float>(Section::leaf_mults)[entry];
  const RouteNumbers numbers = route_numbers(traits_.multiplies_norm, mult, spread.high_norm);
  mult = numbers.mult;
  section<float>(Section::leaf_scan_factors)[entry] = numbers.scan_factor;
  leaf_bases_[entry] = centre_square + spread.zero_term;
  leaf_mean_squares_[entry] = spread.mean_square;
  section<float>(Section::leaf_radii)[entry] = std::sqrt(spread.radius);

  scratch->stored.resize(source_.row_bytes());
  std::byte* vectors = format::mutable_section(image_, Section::vectors);
  for (std::uint32_t i = 0; i < count; ++i) {
    std::memcpy(vectors + (first + i) * source_.row_bytes(),
                source_.stored(rows[i], scratch->stored.data()), source_.row_bytes());
  }
  if (scan_ == Scan::byte_rows && has_byte_copies()) {
    auto* bytes = section<std::uint8_t>(Section::byte_rows) + first * dim_;
    std::vector<float> values(dim_);
    for (std::uint32_t i = 0; i < count; ++i) {
      decode_row(plan_.dtype, vectors + (first + i) * source_.row_bytes(), dim_, values.data());
      for (std::uint32_t j = 0; j < dim_; ++j) {
        const float byte = std::nearbyint((values[j] - params_.byte_offset) / params_.byte_scale);
        bytes[std::size_t{i} * dim_ + j] =
            static_cast<std::uint8_t>(std::clamp(byte, 0.0f, 255.0f));
      }
    }
  }
  if (scan_ != Scan::codes) return;

  scratch->rotated.resize(std::size_t{count} * dim_);
  scratch->codes.resize(std::size_t{count} * params_.code_count);
  scratch->rotated_centre.resize(dim_);
  scratch->decoded.resize(dim_);
  model_.rotate(scratch->residuals.data(), count, scratch->rotated.data());
  model_.rotate(centre, 1, scratch->rotated_centre.data());
  model_.encode(scratch->rotated.data(), count, scratch->codes.data());
  const format::LeafRange& range = section<format::LeafRange>(Section::leaf_ranges)[entry];
  pack_blocks(scratch->codes.data(), count, params_.code_count,
              section<std::uint8_t>(Section::codes) +
                  std::size_t{range.first_block} * params_.code_count * 16);

  float* code_scalars = section<float>(Section::code_scalars) + first;
  RowScalars* row_scalars =
      has_row_scalars() ? section<RowScalars>(Section::row_scalars) + first : nullptr;
  std::int8_t* byte_rows =
      has_byte_copies() ? section<std::int8_t>(Section::byte_rows) + first * dim_ : nullptr;
  for (std::uint32_t i = 0; i < count; ++i) {
    const float* rotated = &scratch->rotated[std::size_t{i} * dim_];
    const float* work = &scratch->work[std::size_t{i} * dim_];
    model_.decode(&scratch->codes[std::size_t{i} * params_.code_count], scratch->decoded.data());
    if (traits_.multiplies_norm) {
      code_scalars[i] = relative_norm(rows[i]);
    } else {
      const float coded_square =
          kernels().dot_f32(scratch->decoded.data(), scratch->decoded.data(), dim_);
      const float cross =
          kernels().dot_f32(scratch->decoded.data(), scratch->rotated_centre.data(), dim_);
      const float true_square = kernels().dot_f32(rotated, rotated, dim_);
      code_scalars[i] = centre_square + 2.0f * cross + coded_square +
                        params_.residual_weight * (true_square - coded_square) +
                        zero_vector_term(rows[i]);
    }
    if (byte_rows) {
      std::int8_t* bytes = byte_rows + std::size_t{i} * dim_;
      const float largest = kernels().max_abs(work, dim_);
      const float scale = largest > 0.0f ? largest / 127.0f : 1.0f;
      std::int64_t square = 0;
      for (std::uint32_t j = 0; j < dim_; ++j) {
        bytes[j] = static_cast<std::int8_t>(std::nearbyint(work[j] / scale));
        square += std::int64_t{bytes[j]} * bytes[j];
      }
      if (traits_.multiplies_norm) {
        row_scalars[i] = {scale * relative_norm(rows[i]), 0.0f};
      } else {
        row_scalars[i] = {2.0f * scale,
                          scale * scale * static_cast<float>(square) + zero_vector_term(rows[i])};
      }
    } else if (row_scalars) {
      std::vector<float>& values = scratch->decoded;
      decode_row(plan_.dtype, vectors + (first + i) * source_.row_bytes(), dim_, values.data());
      const double square = kernels().dot_square_f32(values.data(), values.data(), dim_).square;
      if (traits_.multiplies_norm) {
        row_scalars[i] = {1.0f, 0.0f};
      } else if (traits_.work == WorkSpace::unit) {
        row_scalars[i] = {square > 0.0 ? static_cast<float>(2.0 / std::sqrt(square)) : 0.0f, 0.0f};
      } else {
        row_scalars[i] = {2.0f, static_cast<float>(square)};
      }
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

// The pieces of an overfull leaf share its centre. They share the best of their route numbers too:
// a query then reads them in the order of rows, and of equal vectors finds the first rows first.
void Build::level_cut_leaves() {
  const Partition& tree = first_tree();
  auto* mults = section<float>(Section::leaf_mults);
  auto* factors = section<float>(Section::leaf_scan_factors);
  const std::size_t centre_bytes = sizeof(float) * dim_;
  std::uint32_t first = 0;
  for (std::uint32_t leaf = 1; leaf <= tree.leaf_count(); ++leaf) {
    const float* centre = &tree.centres[std::size_t{first} * dim_];
    if (leaf < tree.leaf_count() &&
        std::memcmp(centre, &tree.centres[std::size_t{leaf} * dim_], centre_bytes) == 0) {
      continue;
    }
    std::uint32_t best = leaf_entries_[0][first];
    for (std::uint32_t piece = first; piece < leaf; ++piece) {
      const std::uint32_t entry = leaf_entries_[0][piece];
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
  for (std::uint32_t t = 0; t < plan_.n_trees; ++t) {
    for (std::uint32_t entry : leaf_entries_[t]) {
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
  for (std::uint32_t t = 1; t < plan_.n_trees; ++t) {
    const Partition& partition = partitions_[t];
    auto* list = section<Slot>(Section::tree_slots) + (t - 1) * items_;
    parallel_for(
        plan_.n_threads, partition.leaf_count(), 4,
        [&](std::uint64_t from, std::uint64_t to, unsigned) {
          std::vector<float> vector(dim_), norms;
          for (std::uint64_t leaf = from; leaf < to; ++leaf) {
            const float* centre = &partition.centres[leaf * dim_];
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
              const float square = kernels().l2_squared_build_f32(vector.data(), centre, dim_);
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
            leaf_bases_[entry] = kernels().dot_f32(centre, centre, dim_) + spread.zero_term;
            leaf_mean_squares_[entry] = spread.mean_square;
            section<float>(Section::leaf_radii)[entry] = std::sqrt(spread.radius);
          }
        },
        plan_.monitor, "further trees");
  }
}

// A group's centre is the mean of its points; its spread, theirs.
void Build::fill_groups(std::uint32_t t) {
  const Partition& partition = partitions_[t];
  const format::Tree& tree = trees_[t];
  if (tree.group_entry_count == 0) return;
  auto* ranges = section<format::GroupRange>(Section::group_ranges);
  auto* centres = section<std::uint8_t>(Section::group_centres);
  auto* mults = section<float>(Section::group_mults);
  auto* biases = section<float>(Section::group_biases);
  const float* leaf_factors = section<float>(Section::leaf_scan_factors);
  std::vector<std::uint8_t> bytes(dim_, 128);
  for (std::uint32_t i = 0; i < tree.group_entry_count; ++i) {
    biases[tree.first_group_entry + i] = std::numeric_limits<float>::infinity();
    place_centre(bytes.data(), dim_, params_.work_dim4, tree.first_group_entry + i, centres);
  }
  std::vector<float> mean(dim_);
  for (std::uint32_t g = 0; g < partition.group_count(); ++g) {
    const std::uint32_t first = partition.group_first[g], last = partition.group_first[g + 1];
    const auto points = static_cast<float>(partition.first[last] - partition.first[first]);
    std::fill(mean.begin(), mean.end(), 0.0f);
    LeafSpread spread;
    for (std::uint32_t leaf = first; leaf < last; ++leaf) {
      const auto count = static_cast<float>(partition.first[leaf + 1] - partition.first[leaf]);
      kernels().axpy(count / points, &partition.centres[std::size_t{leaf} * dim_], mean.data(),
                     dim_);
    }
    for (std::uint32_t leaf = first; leaf < last; ++leaf) {
      const std::uint32_t entry = leaf_entries_[t][leaf];
      const float* centre = &partition.centres[std::size_t{leaf} * dim_];
      const auto count = static_cast<float>(partition.first[leaf + 1] - partition.first[leaf]);
      if (traits_.multiplies_norm) {
        const float norm = leaf_factors[entry] > 0.0f ? 1.0f / leaf_factors[entry] : 0.0f;
        spread.high_norm = std::max(spread.high_norm, norm);
      } else {
        spread.mean_square +=
            count / points *
            (leaf_mean_squares_[entry] + kernels().l2_squared_build_f32(mean.data(), centre, dim_));
      }
    }
    const std::uint32_t entry = tree.first_group_entry + g;
    const float scale = quantize_centre(mean.data(), dim_, bytes.data());
    place_centre(bytes.data(), dim_, params_.work_dim4, entry, centres);
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
