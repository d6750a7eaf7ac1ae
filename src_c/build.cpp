// build.cpp owns the order of a build: facts about the rows, partition, layout of the image, filling
// it leaf by leaf, calibration. See build.h.
#include "build.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "calibrate.h"
#include "codes.h"
#include "error.h"
#include "forest.h"
#include "format.h"
#include "kernels.h"
#include "loaded.h"
#include "metric.h"
#include "tuning.h"

namespace annidx {
namespace {

using format::Section;

constexpr std::uint32_t round_up(std::uint32_t value, std::uint32_t unit) {
  return (value + unit - 1) / unit * unit;
}

std::uint64_t mix(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// What one pass over the rows tells.
struct RowFacts {
  std::vector<float> norms;       // WorkSpace::unit: of the rows, see kept_norm
  float largest = 0.0f;           // absolute value
  float lowest = 0.0f, highest = 0.0f;
};

// 2^-8 of a norm, which is finite for kMaxDim values of the largest float; zero for zero alone.
float kept_norm(double norm) noexcept {
  constexpr float kLeast = std::numeric_limits<float>::denorm_min();
  return norm > 0.0 ? std::max(kLeast, static_cast<float>(norm * 0x1p-8)) : 0.0f;
}

RowFacts examine_rows(const RowSource& source, const MetricTraits& traits, unsigned n_threads,
                      Monitor* monitor) {
  const std::uint32_t dim = source.dim();
  RowFacts facts;
  if (traits.work == WorkSpace::unit) facts.norms.resize(source.size());
  std::vector<RowFacts> parts(n_threads);
  for (RowFacts& part : parts) {
    part.lowest = std::numeric_limits<float>::infinity();
    part.highest = -part.lowest;
  }
  parallel_for(
      n_threads, source.size(), 4096,
      [&](std::uint64_t begin, std::uint64_t end, unsigned worker) {
        RowFacts& part = parts[worker];
        std::vector<float> values(dim);
        std::vector<std::byte> buffer(source.row_bytes());
        for (std::uint64_t row = begin; row < end; ++row) {
          decode_row(source.dtype(), source.stored(static_cast<Row>(row), buffer.data()), dim,
                     values.data());
          if (traits.work == WorkSpace::unit) {
            facts.norms[row] = kept_norm(
                std::sqrt(kernels().dot_square_f32(values.data(), values.data(), dim).square));
          } else if (traits.work == WorkSpace::scaled) {
            part.largest = std::max(part.largest, kernels().max_abs(values.data(), dim));
            const auto ends = std::minmax_element(values.begin(), values.end());
            part.lowest = std::min(part.lowest, *ends.first);
            part.highest = std::max(part.highest, *ends.second);
          }
        }
        source.release_pages(static_cast<Row>(begin), static_cast<Row>(end));
      },
      monitor, "rows");
  for (std::size_t i = 0; i < parts.size(); ++i) {
    facts.largest = std::max(facts.largest, parts[i].largest);
    facts.lowest = i == 0 ? parts[i].lowest : std::min(facts.lowest, parts[i].lowest);
    facts.highest = i == 0 ? parts[i].highest : std::max(facts.highest, parts[i].highest);
  }
  return facts;
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

// Rows spread over the input, at most `wanted`, ascending; one of each stretch, chosen by the seed.
std::vector<Row> spread_rows(std::uint64_t items, std::uint64_t wanted, std::uint64_t seed) {
  std::vector<Row> rows;
  const std::uint64_t count = std::min(items, wanted);
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t begin = i * items / count, end = (i + 1) * items / count;
    rows.push_back(static_cast<Row>(begin + mix(seed ^ (i * 0x9E3779B97F4A7C15ull)) % (end - begin)));
  }
  return rows;
}

std::vector<float> mean_of(const WorkRows& rows) {
  constexpr std::uint64_t kMeanRows = 65'536;
  std::vector<double> sums(rows.dim());
  std::vector<float> vector(rows.dim());
  const std::vector<Row> sample = spread_rows(rows.size(), kMeanRows, 0);
  constexpr std::size_t kReleaseRows = 1024;
  for (std::size_t i = 0; i < sample.size(); ++i) {
    rows.load_one(sample[i], vector.data());
    for (std::uint32_t j = 0; j < rows.dim(); ++j) sums[j] += vector[j];
    if (i % kReleaseRows == 0) rows.source().release_pages(0, sample[i]);
  }
  std::vector<float> mean(rows.dim());
  for (std::uint32_t j = 0; j < rows.dim(); ++j) {
    mean[j] = static_cast<float>(sums[j] / static_cast<double>(sample.size()));
  }
  return mean;
}

// Norm bands of equal counts for dot; zero vectors apart for the other metrics of directions.
void assign_regions(const MetricTraits& traits, const RowFacts& facts, RowRoles* roles) {
  if (traits.work != WorkSpace::unit) return;
  const std::size_t items = facts.norms.size();
  if (traits.multiplies_norm) {
    std::vector<float> sorted(facts.norms);
    std::sort(sorted.begin(), sorted.end());
    std::vector<float> bounds;  // least norm of band 1, 2, ...
    for (std::uint32_t band = 1; band < tuning::kNormBands; ++band) {
      bounds.push_back(sorted[band * items / tuning::kNormBands]);
    }
    bounds.erase(std::unique(bounds.begin(), bounds.end()), bounds.end());
    roles->region.resize(items);
    roles->region_count = static_cast<std::uint32_t>(bounds.size()) + 1;
    for (std::size_t row = 0; row < items; ++row) {
      roles->region[row] = static_cast<std::uint8_t>(
          std::upper_bound(bounds.begin(), bounds.end(), facts.norms[row]) - bounds.begin());
    }
  } else if (std::count(facts.norms.begin(), facts.norms.end(), 0.0f) > 0) {
    roles->region.resize(items);
    roles->region_count = 2;
    for (std::size_t row = 0; row < items; ++row) roles->region[row] = facts.norms[row] == 0.0f;
  }
}

class Build {
 public:
  Build(const RowSource& source, const IdCollector& ids, const BuildPlan& plan, ImagePlace* place)
      : source_(source),
        ids_(ids),
        plan_(plan),
        place_(place),
        traits_(traits_of(plan.metric)),
        items_(source.size()),
        dim_(plan.dim) {}

  std::unique_ptr<Memory> run();

 private:
  void learn_rows();
  void partition();
  void train_codes();
  void lay_out();
  void fill_rows_and_ids();
  void fill_centres(std::uint32_t tree);
  void fill_groups(std::uint32_t tree);
  void fill_leaves();
  void level_cut_leaves();
  void fill_leaf(std::uint32_t leaf, struct LeafScratch* scratch);
  void fill_further_trees();
  void calibrate();
  void seal();
  void release_image();

  WorkRows work_rows() const { return WorkRows(source_, transform_); }
  const Partition& first_tree() const { return partitions_[0]; }
  bool has_byte_copies() const {
    if (scan_ == Scan::codes) return !is_byte_dtype() && !plan_.lean;
    return scan_ == Scan::byte_rows && !is_byte_dtype();
  }
  // Codes are then followed by a re-ranking of bytes.
  bool has_row_scalars() const {
    return scan_ == Scan::codes && (has_byte_copies() || is_byte_dtype());
  }
  bool is_byte_dtype() const {
    return plan_.dtype == Dtype::int8 || plan_.dtype == Dtype::uint8;
  }
  template <class T>
  T* section(Section kind) {
    return format::mutable_array<T>(image_, kind);
  }
  // Added to squared distances to a zero vector under a metric of directions: 1 + 1 - 2 * 0.
  float zero_vector_term(Row row) const {
    return traits_.work == WorkSpace::unit && !traits_.multiplies_norm && facts_.norms[row] == 0.0f
               ? 1.0f
               : 0.0f;
  }
  float relative_norm(Row row) const {
    return largest_norm_ > 0.0f ? facts_.norms[row] / largest_norm_ : 0.0f;
  }

  const RowSource& source_;
  const IdCollector& ids_;
  const BuildPlan& plan_;
  ImagePlace* place_;
  const MetricTraits& traits_;
  const std::uint64_t items_;
  const std::uint32_t dim_;

  RowFacts facts_;
  float largest_norm_ = 0.0f;
  Scan scan_ = Scan::vectors;
  WorkTransform transform_;
  std::vector<float> mean_;
  RowRoles roles_;
  std::vector<Row> held_out_;
  std::vector<Partition> partitions_;
  std::vector<std::vector<std::uint32_t>> leaf_entries_;  // by tree: entry of each leaf
  std::vector<format::Tree> trees_;
  std::vector<float> stored_centres_;                     // first tree, as quantized
  CodeModel model_;
  format::Params params_{};
  std::unique_ptr<Memory> memory_;
  std::byte* image_ = nullptr;
};

// Buffers of one thread while leaves are filled.
struct LeafScratch {
  std::vector<float> work, residuals, rotated, decoded, rotated_centre;
  std::vector<float> norms;
  std::vector<std::uint8_t> codes;
  std::vector<std::byte> stored;
};

void Build::learn_rows() {
  facts_ = examine_rows(source_, traits_, plan_.n_threads, plan_.monitor);
  if (!facts_.norms.empty()) {
    largest_norm_ = *std::max_element(facts_.norms.begin(), facts_.norms.end());
  }
  scan_ = choose_scan(plan_.metric, dim_, items_);
  transform_ = {traits_.work, dim_,
                traits_.work == WorkSpace::scaled ? work_scale_for(facts_.largest) : 1.0f, nullptr};
  if (traits_.multiplies_norm) {
    mean_.assign(dim_, 0.0f);
  } else {
    mean_ = mean_of(work_rows());
    transform_.mean = mean_.data();
  }
  if (plan_.measure_recall && !plan_.queries) {
    held_out_ = spread_rows(
        items_, std::min(tuning::kHeldOutRows, items_ / tuning::kHeldOutShare + 1), plan_.seed);
    if (items_ > held_out_.size() * 2) {
      roles_.held_out.assign(items_, 0);
      for (Row row : held_out_) roles_.held_out[row] = 1;
    }
  }
  assign_regions(traits_, facts_, &roles_);
}

void Build::partition() {
  PartitionOptions options;
  options.leaf_points =
      items_ >= tuning::kLargeLeafItems ? tuning::kLargeLeafPoints : tuning::kLeafPoints;
  options.lloyd_passes = plan_.lean ? tuning::kLeanLloydPasses : tuning::kLloydPasses;
  options.n_threads = plan_.n_threads;
  options.monitor = plan_.monitor;
  if (plan_.memory_limit) {
    // A page may be read for each row of a chunk.
    options.chunk_rows = std::max<std::uint64_t>(plan_.memory_limit / 4 / 4096, 16'384);
  }
  const auto seed_of = [&](std::uint32_t tree) {
    return mix(plan_.seed + 0x9E3779B97F4A7C15ull * (tree + 1));
  };
  options.seed = seed_of(0);
  partitions_.push_back(make_partition(work_rows(), roles_, options));
  for (std::uint32_t tree = 1; tree < plan_.n_trees;) {
    std::vector<std::uint64_t> seeds;
    while (tree < plan_.n_trees && seeds.size() < tuning::kTreesAtOnce) {
      seeds.push_back(seed_of(tree++));
    }
    for (Partition& partition : make_random_partitions(work_rows(), options, seeds)) {
      partitions_.push_back(std::move(partition));
    }
  }
  params_.leaf_points = options.leaf_points;
}

// Codes learn from residuals to the centres as they will be stored.
void Build::train_codes() {
  std::vector<std::uint32_t> leaf_of(items_);
  const Partition& tree = first_tree();
  for (std::uint32_t leaf = 0; leaf < tree.leaf_count(); ++leaf) {
    for (std::uint64_t i = tree.first[leaf]; i < tree.first[leaf + 1]; ++i) {
      leaf_of[tree.rows[i]] = leaf;
    }
  }
  std::vector<Row> sample = spread_rows(items_, tuning::kCodeSample, mix(plan_.seed));
  if (!roles_.held_out.empty()) {
    sample.erase(std::remove_if(sample.begin(), sample.end(),
                                [&](Row row) { return roles_.held_out[row]; }),
                 sample.end());
  }
  std::vector<float> residuals(sample.size() * dim_);
  const WorkRows rows = work_rows();
  parallel_for(
      plan_.n_threads, sample.size(), 256,
      [&](std::uint64_t begin, std::uint64_t end, unsigned) {
        rows.load(&sample[begin], end - begin, &residuals[begin * dim_]);
        for (std::uint64_t i = begin; i < end; ++i) {
          kernels().axpy(-1.0f, &stored_centres_[std::size_t{leaf_of[sample[i]]} * dim_],
                         &residuals[i * dim_], dim_);
        }
        source_.release_pages(sample[begin], sample[end - 1]);
      },
      plan_.monitor);
  model_ = CodeModel::train(residuals, dim_, plan_.n_threads, plan_.monitor);
}

// Entries of leaves and groups, parameters, and the empty image.
void Build::lay_out() {
  std::uint32_t leaf_entries = 0, group_entries = 0, blocks = 0;
  for (const Partition& partition : partitions_) {
    format::Tree tree{leaf_entries, 0, group_entries, 0};
    std::vector<std::uint32_t> entries(partition.leaf_count());
    if (partition.group_count() == 0) {
      std::iota(entries.begin(), entries.end(), leaf_entries);
      leaf_entries += round_up(partition.leaf_count(), kPanelWidth);
    } else {
      for (std::uint32_t g = 0; g < partition.group_count(); ++g) {
        const std::uint32_t first = partition.group_first[g], last = partition.group_first[g + 1];
        std::iota(entries.begin() + first, entries.begin() + last, leaf_entries);
        leaf_entries += round_up(last - first, kPanelWidth);
      }
      tree.group_entry_count = round_up(partition.group_count(), kPanelWidth);
      group_entries += tree.group_entry_count;
    }
    tree.leaf_entry_count = leaf_entries - tree.first_leaf_entry;
    trees_.push_back(tree);
    leaf_entries_.push_back(std::move(entries));
  }
  const Partition& tree = first_tree();
  for (std::uint32_t leaf = 0; leaf < tree.leaf_count(); ++leaf) {
    blocks += static_cast<std::uint32_t>(
        (tree.first[leaf + 1] - tree.first[leaf] + kBlockPoints - 1) / kBlockPoints);
  }
  params_.id_kind = static_cast<std::uint32_t>(ids_.kind());
  params_.scan_kind = static_cast<std::uint32_t>(scan_);
  params_.tree_count = plan_.n_trees;
  params_.work_dim4 = round_up(dim_, 4);
  params_.leaf_entries = leaf_entries;
  params_.group_entries = group_entries;
  if (scan_ == Scan::codes) {
    params_.block_count = blocks;
    params_.code_count = code_count_for(dim_);
    params_.rotation_block = rotation_block_for(dim_);
  }
  params_.byte_row_bytes = has_byte_copies() ? dim_ : 0;
  if (plan_.measure_recall) {
    params_.curve_points =
        tuning::kCurvePointsPerK * static_cast<std::uint32_t>(curve_ks(items_).size());
  }
  params_.given_bytes = source_.given_bytes();
  params_.value_scale = source_.value_scale();
  params_.work_scale = transform_.work_scale;
  params_.byte_scale = 1.0f;
  if (scan_ == Scan::byte_rows && has_byte_copies()) {
    params_.byte_offset = facts_.lowest;
    params_.byte_scale = std::max(facts_.highest / 255.0f - facts_.lowest / 255.0f, 1e-30f);
  } else if (plan_.dtype == Dtype::int8) {
    params_.byte_offset = -128.0f;
  }
  params_.default_recall = plan_.default_recall;
  params_.build_seed_low = static_cast<std::uint32_t>(plan_.seed);
  params_.build_seed_high = static_cast<std::uint32_t>(plan_.seed >> 32);
  params_.residual_weight = tuning::kResidualWeight;

  const auto sections = format::plan_sections(plan_.metric, plan_.dtype, dim_, items_, params_,
                                              ids_.text_bytes());
  memory_ = place_->allocate(format::image_bytes(sections));
  image_ = memory_->mutable_data();
  format::begin_image(image_, plan_.metric, plan_.dtype, dim_, items_, params_, sections,
                      plan_.library_version);
}

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
    const float scale = quantize_centre(&partition.centres[std::size_t{leaf} * dim_], dim_,
                                        bytes.data());
    place_centre(bytes.data(), dim_, params_.work_dim4, entry, centres);
    mults[entry] = scale;  // completed when the leaf's points are known
    const auto count = static_cast<std::uint32_t>(partition.first[leaf + 1] - partition.first[leaf]);
    ranges[entry] = {list + partition.first[leaf], count, t == 0 && scan_ == Scan::codes ? block : 0};
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
  float high_norm = 0.0f;    // 90th percentile of the relative norms
};

struct RouteNumbers {
  float mult, bias, scan_factor;
};

RouteNumbers route_numbers(bool multiplies_norm, float scale, float centre_square,
                           const LeafSpread& spread) {
  if (multiplies_norm) {
    constexpr float kLeastNorm = 1e-30f;  // below it the inverse may be infinite
    const float factor = spread.high_norm > kLeastNorm ? 1.0f / spread.high_norm : 0.0f;
    return {spread.high_norm * scale, 0.0f, factor};
  }
  return {2.0f * scale,
          centre_square + tuning::kRadiusWeight * spread.mean_square + spread.zero_term, 1.0f};
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
  const RouteNumbers numbers =
      route_numbers(traits_.multiplies_norm, mult, centre_square, spread);
  mult = numbers.mult;
  section<float>(Section::leaf_biases)[entry] = numbers.bias;
  section<float>(Section::leaf_scan_factors)[entry] = numbers.scan_factor;
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
        row_scalars[i] = {2.0f * scale, scale * scale * static_cast<float>(square) +
                                            zero_vector_term(rows[i])};
      }
    } else if (row_scalars) {
      std::vector<float>& values = scratch->decoded;
      decode_row(plan_.dtype, vectors + (first + i) * source_.row_bytes(), dim_, values.data());
      const double square =
          kernels().dot_square_f32(values.data(), values.data(), dim_).square;
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
    const std::uint64_t rows = std::max<std::uint64_t>(plan_.memory_limit / 4 / 8192, 16'384);
    chunk = std::max<std::uint64_t>(1, leaves * rows / items_);
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
    source_.release_pages(0, static_cast<Row>(items_));
    release_image();
  }
}

// The pieces of an overfull leaf share its centre. They share the best of their route numbers too: a
// query then reads them in the order of rows, and of equal vectors finds the first rows first.
void Build::level_cut_leaves() {
  const Partition& tree = first_tree();
  auto* mults = section<float>(Section::leaf_mults);
  auto* biases = section<float>(Section::leaf_biases);
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
      if (mults[entry] > mults[best] || biases[entry] < biases[best]) best = entry;
    }
    const RouteNumbers numbers{mults[best], biases[best], factors[best]};
    for (std::uint32_t piece = first; piece < leaf; ++piece) {
      const std::uint32_t entry = leaf_entries_[0][piece];
      mults[entry] = numbers.mult;
      biases[entry] = numbers.bias;
      factors[entry] = numbers.scan_factor;
    }
    first = leaf;
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
                route_numbers(traits_.multiplies_norm, mult,
                              kernels().dot_f32(centre, centre, dim_), spread);
            mult = numbers.mult;
            section<float>(Section::leaf_biases)[entry] = numbers.bias;
            section<float>(Section::leaf_scan_factors)[entry] = numbers.scan_factor;
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
  const float* leaf_biases = section<float>(Section::leaf_biases);
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
      kernels().axpy(count / points, &partition.centres[std::size_t{leaf} * dim_], mean.data(), dim_);
    }
    for (std::uint32_t leaf = first; leaf < last; ++leaf) {
      const std::uint32_t entry = leaf_entries_[t][leaf];
      const float* centre = &partition.centres[std::size_t{leaf} * dim_];
      const auto count = static_cast<float>(partition.first[leaf + 1] - partition.first[leaf]);
      if (traits_.multiplies_norm) {
        const float norm = leaf_factors[entry] > 0.0f ? 1.0f / leaf_factors[entry] : 0.0f;
        spread.high_norm = std::max(spread.high_norm, norm);
      } else {
        const float inner = (leaf_biases[entry] - kernels().dot_f32(centre, centre, dim_)) /
                            tuning::kRadiusWeight;
        spread.mean_square +=
            count / points *
            (std::max(0.0f, inner) + kernels().l2_squared_build_f32(mean.data(), centre, dim_));
      }
    }
    const std::uint32_t entry = tree.first_group_entry + g;
    const float scale = quantize_centre(mean.data(), dim_, bytes.data());
    place_centre(bytes.data(), dim_, params_.work_dim4, entry, centres);
    const RouteNumbers numbers =
        route_numbers(traits_.multiplies_norm, scale,
                      kernels().dot_f32(mean.data(), mean.data(), dim_), spread);
    mults[entry] = numbers.mult;
    biases[entry] = numbers.bias;
    const std::uint32_t leaves = round_up(last - first, kPanelWidth);
    ranges[entry] = {leaf_entries_[t][first] / static_cast<std::uint32_t>(kPanelWidth),
                     leaves / static_cast<std::uint32_t>(kPanelWidth)};
  }
}

namespace {

// The image under construction, lent to a LoadedImage.
class BorrowedImage final : public Memory {
 public:
  BorrowedImage(std::byte* data, std::uint64_t bytes) {
    data_ = data;
    bytes_ = bytes;
  }
  void release(std::uint64_t, std::uint64_t) noexcept override {}
};

}  // namespace

// Gives the image's pages back to its file, where memory is limited.
void Build::release_image() {
  if (plan_.memory_limit) memory_->release(0, memory_->bytes());
}

void Build::seal() {
  format::seal_image(image_, [this](std::uint64_t, std::uint64_t) {
    release_image();
    if (plan_.monitor) plan_.monitor->poll();
  });
}

void Build::calibrate() {
  seal();
  const LoadedImage loaded(std::make_unique<BorrowedImage>(image_, memory_->bytes()), "the build");
  CalibrationQueries queries;
  if (plan_.memory_limit) queries.release_pages = [this] { release_image(); };
  std::vector<std::byte> rows;
  if (plan_.queries) {
    queries.rows = plan_.queries;
    queries.count = plan_.n_queries;
    queries.row_bytes =
        plan_.metric == Metric::hamming ? source_.row_bytes() : sizeof(float) * dim_;
  } else {
    const auto* row_slots = section<std::uint32_t>(Section::row_slots);
    const bool bits = plan_.metric == Metric::hamming;
    queries.row_bytes = bits ? source_.row_bytes() : sizeof(float) * dim_;
    queries.count = held_out_.size();
    rows.resize(queries.count * queries.row_bytes);
    std::vector<float> values(dim_);
    for (std::uint64_t i = 0; i < queries.count; ++i) {
      const Slot slot = row_slots[held_out_[i]];
      queries.excluded.push_back(slot);
      std::byte* out = rows.data() + i * queries.row_bytes;
      if (bits) {
        std::memcpy(out, loaded.stored(slot), queries.row_bytes);
        continue;
      }
      decode_row(plan_.dtype, loaded.stored(slot), dim_, values.data());
      for (float& value : values) value *= source_.value_scale();
      std::memcpy(out, values.data(), queries.row_bytes);
    }
    queries.rows = rows.data();
  }
  const std::vector<format::CurvePoint> curve =
      measure_curve(loaded.search(), queries, curve_ks(items_), plan_.n_threads, plan_.monitor);
  std::memcpy(section<format::CurvePoint>(Section::curve), curve.data(),
              sizeof(format::CurvePoint) * curve.size());
}

std::unique_ptr<Memory> Build::run() {
  learn_rows();
  partition();
  lay_out();
  fill_rows_and_ids();
  for (std::uint32_t t = 0; t < plan_.n_trees; ++t) fill_centres(t);
  if (scan_ == Scan::codes) {
    train_codes();
    std::memcpy(section<float>(Section::codebook), model_.codebook().data(),
                sizeof(float) * model_.codebook().size());
    std::memcpy(section<std::uint16_t>(Section::code_first_dims), model_.first_dims().data(),
                sizeof(std::uint16_t) * model_.first_dims().size());
    model_.write_rotation(section<std::int8_t>(Section::rotation),
                          section<float>(Section::rotation_scales),
                          section<std::uint32_t>(Section::rotation_order));
  }
  fill_leaves();
  level_cut_leaves();
  fill_further_trees();
  for (std::uint32_t t = 0; t < plan_.n_trees; ++t) fill_groups(t);
  if (plan_.measure_recall) calibrate();
  seal();
  return std::move(memory_);
}

}  // namespace

std::unique_ptr<Memory> build_image(const RowSource& source, const IdCollector& ids,
                                    const BuildPlan& plan, ImagePlace* place) {
  return Build(source, ids, plan, place).run();
}

std::uint64_t least_memory(std::uint64_t items, std::uint32_t dim) {
  const std::uint64_t sample =
      std::max(tuning::kTreeSampleFloor, items / tuning::kLeafPoints * tuning::kTreeSamplePerLeaf);
  const std::uint64_t sample_bytes = std::min(items, sample) * dim * sizeof(float);
  return (std::uint64_t{128} << 20) + items * 32 + sample_bytes * 2;
}

}  // namespace annidx
