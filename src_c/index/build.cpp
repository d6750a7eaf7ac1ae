// build.cpp owns the order of a build: facts about the rows, partition, layout of the image,
// filling it (build_fill.cpp), calibration. See build.h.
#include "index/build.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/tuning.h"
#include "format/format.h"
#include "index/build_detail.h"
#include "kernels/kernels.h"
#include "model/blocks.h"
#include "model/codes.h"
#include "model/neighbours.h"
#include "model/partition.h"
#include "rows/metric.h"
#include "search/calibrate.h"
#include "search/loaded.h"

namespace annidx {
namespace {

std::uint64_t mix(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

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
    rows.push_back(
        static_cast<Row>(begin + mix(seed ^ (i * 0x9E3779B97F4A7C15ull)) % (end - begin)));
  }
  return rows;
}

std::vector<float> mean_of(const WorkRows& rows) {
  constexpr std::uint64_t kMeanRows = 65'536;
  std::vector<double> sums(rows.dim());
  std::vector<float> vector(rows.dim());
  const std::vector<Row> sample = spread_rows(rows.size(), kMeanRows, 0);
  for (std::size_t i = 0; i < sample.size(); ++i) {
    rows.load_one(sample[i], vector.data());
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

// Norm bands of equal counts for dot; zero vectors apart for the other metrics of directions.
void assign_regions(const MetricTraits& traits, const RowFacts& facts, RowRoles* roles) {
  if (traits.work != WorkSpace::unit) return;
  const std::size_t items = facts.norms.size();
  if (traits.multiplies_norm) {
    std::vector<float> sorted(facts.norms);
    std::sort(sorted.begin(), sorted.end());
    std::vector<float> bounds;  // least norm of band 1, 2, ...
    const std::uint32_t bands = norm_bands(sorted);
    for (std::uint32_t band = 1; band < bands; ++band)
      bounds.push_back(sorted[band * items / bands]);
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

}  // namespace

void Build::learn_rows() {
  most_resident_bytes_ = resident_file_bytes() + plan_.memory_limit / tuning::kFileMemoryShare;
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
  options.leaf_points = has_blocks() ? tuning::kBlockedLeafPoints : tuning::kLeafPoints;
  options.lloyd_passes = plan_.lean ? tuning::kLeanLloydPasses : tuning::kLloydPasses;
  options.n_threads = plan_.n_threads;
  options.monitor = plan_.monitor;
  if (plan_.memory_limit) {
    // Of a chunk's pages each is read from disk once, in whatever order its rows are.
    options.chunk_rows = std::max<std::uint64_t>(
        plan_.memory_limit / tuning::kFileMemoryShare / source_.row_bytes(), 16'384);
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
  if (has_blocks()) order_blocks();
}

// The points of each leaf, block after block.
void Build::order_blocks() {
  Partition& tree = partitions_[0];
  struct Scratch {
    std::vector<float> work;
    std::vector<Row> rows;
    BlockOrder blocks;
  };
  std::vector<Scratch> scratches(plan_.n_threads);
  parallel_for(
      plan_.n_threads, tree.leaf_count(), 1,
      [&](std::uint64_t from, std::uint64_t to, unsigned worker) {
        Scratch& scratch = scratches[worker];
        for (std::uint64_t leaf = from; leaf < to; ++leaf) {
          Row* rows = &tree.rows[tree.first[leaf]];
          const auto count = static_cast<std::uint32_t>(tree.first[leaf + 1] - tree.first[leaf]);
          scratch.work.resize(std::size_t{count} * dim_);
          work_rows().load(rows, count, scratch.work.data());
          scratch.rows.assign(rows, rows + count);
          const auto& order = scratch.blocks.arrange(scratch.work.data(), count, dim_);
          for (std::uint32_t i = 0; i < count; ++i) rows[i] = scratch.rows[order[i]];
        }
      },
      plan_.monitor, "blocks");
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
  std::vector<Row> sample = spread_rows(
      items_, plan_.lean ? tuning::kLeanCodeSample : tuning::kCodeSample, mix(plan_.seed));
  if (!roles_.held_out.empty()) {
    sample.erase(
        std::remove_if(sample.begin(), sample.end(), [&](Row row) { return roles_.held_out[row]; }),
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
      },
      plan_.monitor);
  model_ = CodeModel::train(residuals, dim_, plan_.n_threads, plan_.monitor);
}

// Entries of leaves and groups, parameters, and the empty image.
void Build::lay_out() {
  std::uint32_t leaf_entries = 0, group_entries = 0, blocks = 0, centroid_blocks = 0;
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
    const std::uint64_t own = block_count(tree.first[leaf + 1] - tree.first[leaf]);
    blocks += static_cast<std::uint32_t>(own);
    centroid_blocks += static_cast<std::uint32_t>(block_count(own));
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
  params_.centroid_scale = 1.0f;
  if (has_blocks()) {
    params_.centroid_blocks = centroid_blocks;
    params_.centroid_scale = tuning::kCentroidScale;
  }
  if (has_lists()) {
    params_.record_bytes = format::record_bytes_for(params_.code_count);
    params_.neighbour_count = plan_.neighbours;
    params_.neighbour_bytes = format::neighbour_bytes_for(items_);
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

  const auto sections =
      format::plan_sections(plan_.metric, plan_.dtype, dim_, items_, params_, ids_.text_bytes());
  memory_ = place_->allocate(format::image_bytes(sections));
  image_ = memory_->mutable_data();
  format::begin_image(image_, plan_.metric, plan_.dtype, dim_, items_, params_, sections,
                      plan_.library_version);
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

// Gives the image's pages back to its file, where memory is limited and they may be many.
void Build::keep_image_small() {
  if (!plan_.memory_limit) return;
  const std::uint64_t resident = resident_file_bytes();
  if (resident == 0 || resident > most_resident_bytes_) memory_->release(0, memory_->bytes());
}

void Build::seal() {
  format::seal_image(image_, [this](std::uint64_t, std::uint64_t) {
    keep_image_small();
    if (plan_.monitor) plan_.monitor->poll();
  });
}

// The caller's queries, or the rows that were held out, which `rows` then keeps.
CalibrationQueries Build::queries_to_ask(const LoadedImage& loaded, std::vector<std::byte>* rows) {
  const bool bits = plan_.metric == Metric::hamming;
  CalibrationQueries queries;
  queries.row_bytes = bits ? source_.row_bytes() : sizeof(float) * dim_;
  if (plan_.memory_limit) queries.keep_pages = [this] { keep_image_small(); };
  if (plan_.queries) {
    queries.rows = plan_.queries;
    queries.count = plan_.n_queries;
    return queries;
  }
  const auto* row_slots = section<std::uint32_t>(Section::row_slots);
  queries.count = held_out_.size();
  rows->resize(queries.count * queries.row_bytes);
  queries.rows = rows->data();
  std::vector<float> values(dim_);
  for (std::uint64_t i = 0; i < queries.count; ++i) {
    keep_image_small();
    const Slot slot = row_slots[held_out_[i]];
    queries.excluded.push_back(slot);
    std::byte* out = rows->data() + i * queries.row_bytes;
    if (bits) {
      std::memcpy(out, loaded.stored(slot), queries.row_bytes);
      continue;
    }
    decode_row(plan_.dtype, loaded.stored(slot), dim_, values.data());
    for (float& value : values) value *= source_.value_scale();
    std::memcpy(out, values.data(), queries.row_bytes);
  }
  return queries;
}

namespace {

// Keeps the image's pages few while others work on it.
class PageKeepingMonitor final : public Monitor {
 public:
  PageKeepingMonitor(Monitor* inner, std::function<void()> keep)
      : inner_(inner), keep_(std::move(keep)) {}
  void poll() override {
    keep_();
    if (inner_) inner_->poll();
  }
  void progress(const char* stage, std::uint64_t done, std::uint64_t total) override {
    if (inner_) inner_->progress(stage, done, total);
  }

 private:
  Monitor* inner_;
  std::function<void()> keep_;
};

}  // namespace

// The nearest others of each point, by the rows of bytes that re-ranking reads.
void Build::make_lists() {
  const Partition& tree = first_tree();
  const std::vector<Slot> leaf_first(tree.first.begin(), tree.first.end());
  GraphInput input;
  input.score = GraphScore::additive;
  input.count = items_;
  input.dim = dim_;
  input.rows = section<std::uint8_t>(has_byte_copies() ? Section::byte_rows : Section::vectors);
  input.row_stride = dim_;
  input.rows_signed = has_byte_copies() || plan_.dtype == Dtype::int8;
  input.scalars = section<RowScalars>(Section::row_scalars);
  input.leaf_first = leaf_first.data();
  input.leaf_count = tree.leaf_count();
  std::vector<Slot> lists(items_ * params_.neighbour_count);
  PageKeepingMonitor monitor(plan_.monitor, [this] { keep_image_small(); });
  find_neighbours(input, params_.neighbour_count, list_effort(), plan_.n_threads, &monitor,
                  lists.data());
  auto* out = section<std::uint8_t>(Section::neighbours);
  for (std::size_t i = 0; i < lists.size(); ++i) {
    std::memcpy(out + i * params_.neighbour_bytes, &lists[i], params_.neighbour_bytes);
  }
  keep_image_small();
}

void Build::calibrate() {
  if (plan_.memory_limit) source_.release_pages();
  seal();
  const LoadedImage loaded(std::make_unique<BorrowedImage>(image_, memory_->bytes()), "the build");
  std::vector<std::byte> rows;
  const CalibrationQueries queries = queries_to_ask(loaded, &rows);
  if (!traits_.multiplies_norm) {
    radius_weight_ = choose_radius_weight(loaded.search(), queries, leaf_mean_squares_,
                                          plan_.n_threads, plan_.monitor);
    set_route_biases();
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
  leaf_bases_.resize(params_.leaf_entries);
  leaf_mean_squares_.resize(params_.leaf_entries);
  fill_leaves();
  level_cut_leaves();
  fill_further_trees();
  set_route_biases();
  if (has_lists()) make_lists();
  if (plan_.measure_recall) calibrate();
  seal();
  return std::move(memory_);
}

std::unique_ptr<Memory> build_image(const RowSource& source, const IdCollector& ids,
                                    const BuildPlan& plan, ImagePlace* place) {
  return Build(source, ids, plan, place).run();
}

std::uint64_t least_memory(std::uint64_t items, std::uint32_t dim, std::uint32_t neighbours) {
  const std::uint64_t sample =
      std::max(tuning::kTreeSampleFloor, items / tuning::kLeafPoints * tuning::kTreeSamplePerLeaf);
  const std::uint64_t sample_bytes = std::min(items, sample) * dim * sizeof(float);
  // See find_neighbours: the lists and a copy of them, those that name a point, blocks compared.
  const std::uint64_t list_bytes = neighbours > 0 ? neighbours * 8 + 48 + dim / 32 : 0;
  return (std::uint64_t{128} << 20) + items * (32 + list_bytes) + sample_bytes * 2;
}

}  // namespace annidx
