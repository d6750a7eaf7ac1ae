// build.cpp owns the order of a build: the leaves of the rows, layout of the image, filling it
// (build_fill.cpp), lists (build_lists.cpp), calibration. See build.h.
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
#include "model/partition.h"
#include "rows/metric.h"
#include "search/calibrate.h"
#include "search/loaded.h"

namespace annidx {
PartitionOptions Build::partition_options() const {
  PartitionOptions options;
  options.leaf_points = model_.leaf_points;
  options.n_threads = plan_.n_threads;
  options.monitor = plan_.monitor;
  if (plan_.memory_limit) {
    // Of a chunk's pages each is read from disk once, in whatever order its rows are.
    options.chunk_rows = std::max<std::uint64_t>(
        plan_.memory_limit / tuning::kFileMemoryShare / source_.row_bytes(), 16'384);
  }
  return options;
}

void Build::find_leaves() {
  most_resident_bytes_ = resident_file_bytes() + plan_.memory_limit / tuning::kFileMemoryShare;
  if (traits_.work == WorkSpace::unit) {
    norms_ = kept_norms(source_, plan_.n_threads, plan_.monitor);
  }
  if (leaf_of_row_.empty() && items_ > 0) {
    std::vector<std::uint8_t> regions;
    if (model_.region_count > 1) {
      for (const float norm : norms_) regions.push_back(model_.region_of(norm));
    }
    leaf_of_row_ = encoder_.finder(plan_.n_threads, plan_.monitor)
                       .leaves_of(work_rows(), regions, partition_options());
  }
  // A part keeps the leaves of its model, by which it is routed and merged, however full.
  const bool may_cut = plan_.kind == format::FileKind::index;
  const std::uint64_t most = may_cut ? overfull_points(model_.leaf_points) : kMaxItems;
  partitions_.push_back(lay_out_rows(leaf_of_row_, model_.division, model_.leaf_points, most));
  std::vector<std::uint32_t>().swap(leaf_of_row_);
  if (has_blocks()) order_blocks();
}

void Build::grow_further_trees() {
  constexpr std::uint64_t kFirstUse = 2;  // of the seed: training has the first ones
  for (std::uint32_t tree = 1; tree < plan_.n_trees;) {
    std::vector<std::uint64_t> seeds;
    while (tree < plan_.n_trees && seeds.size() < tuning::kTreesAtOnce) {
      seeds.push_back(mixed_seed(plan_.seed, kFirstUse + tree++));
    }
    for (Partition& partition : make_random_partitions(work_rows(), partition_options(), seeds)) {
      partitions_.push_back(std::move(partition));
    }
  }
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
          Row* rows = tree.rows.data() + tree.first[leaf];  // a model has none
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

// Where each tree's leaves and groups stand in the tables: leaves of a group from a multiple of
// kPanelWidth on.
void Build::enter_leaves() {
  std::uint32_t leaf_entries = 0, group_entries = 0;
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
  params_.leaf_entries = leaf_entries;
  params_.group_entries = group_entries;
}

void Build::count_blocks() {
  const Partition& tree = first_tree();
  for (std::uint32_t leaf = 0; leaf < tree.leaf_count(); ++leaf) {
    const std::uint64_t own = block_count(tree.first[leaf + 1] - tree.first[leaf]);
    params_.block_count += static_cast<std::uint32_t>(own);
    if (has_blocks()) params_.centroid_blocks += static_cast<std::uint32_t>(block_count(own));
  }
}

void Build::set_params() {
  params_.id_kind = static_cast<std::uint32_t>(ids_.kind());
  if (plan_.removed && plan_.removed->are_texts()) {
    params_.id_kind = static_cast<std::uint32_t>(IdKind::text);
  }
  params_.scan_kind = static_cast<std::uint32_t>(scan_);
  params_.tree_count = static_cast<std::uint32_t>(partitions_.size());
  params_.work_dim4 = round_up(dim_, 4);
  if (scan_ == Scan::codes) {
    count_blocks();
    params_.code_count = model_.codes.code_count();
    params_.rotation_block = model_.codes.rotation_block();
  }
  params_.has_blocks = has_blocks();
  params_.centroid_scale = has_blocks() ? tuning::kCentroidScale : 1.0f;
  if (has_lists()) {
    params_.record_bytes = format::record_bytes_for(params_.code_count);
    params_.neighbour_count = plan_.neighbours;
    params_.neighbour_bytes = format::neighbour_bytes_for(items_);
  }
  params_.byte_row_bytes = has_byte_copies() ? dim_ : 0;
  params_.curve_points =
      plan_.measure_recall
          ? tuning::kCurvePointsPerK * static_cast<std::uint32_t>(curve_ks(items_).size())
          : static_cast<std::uint32_t>(plan_.curve.size());
  params_.given_bytes = model_.given_bytes;
  params_.value_scale = model_.value_scale;
  params_.work_scale = model_.work_scale;
  params_.byte_scale = model_.byte_scale;
  params_.byte_offset = model_.byte_offset;
  params_.default_recall = plan_.default_recall;
  params_.build_seed_low = static_cast<std::uint32_t>(plan_.seed);
  params_.build_seed_high = static_cast<std::uint32_t>(plan_.seed >> 32);
  params_.leaf_points = model_.leaf_points;
  params_.residual_weight = tuning::kResidualWeight;
  params_.region_count = model_.region_count;
  params_.norm_unit = model_.norm_unit;
  params_.radius_weight = radius_weight_;
  params_.removed_count = plan_.removed ? plan_.removed->count() : 0;
}

void Build::lay_out() {
  enter_leaves();
  set_params();
  format::TextBytes texts{ids_.text_bytes(), 0};
  if (plan_.removed) texts.removed = plan_.removed->text_bytes();
  auto sections =
      format::plan_sections(plan_.kind, model_.metric, model_.dtype, dim_, items_, params_, texts);
  sections.back().bytes = plan_.metadata.size();
  if (!plan_.sets.empty()) {
    sections.push_back({Section::sets, 0, plan_.sets.size(), format::kSetsAlignment});
  }
  memory_ = place_->allocate(format::image_bytes(sections));
  image_ = memory_->mutable_data();
  format::begin_image(image_, plan_.kind, model_.metric, model_.dtype, dim_, items_, params_,
                      sections, plan_.library_version, plan_.base_identity);
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

std::unique_ptr<Memory> Build::borrowed_image() const {
  return std::make_unique<BorrowedImage>(image_, memory_->bytes());
}

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
  const bool bits = model_.metric == Metric::hamming;
  CalibrationQueries queries;
  queries.row_bytes = bits ? source_.row_bytes() : sizeof(float) * dim_;
  if (plan_.memory_limit) queries.keep_pages = [this] { keep_image_small(); };
  if (plan_.queries) {
    queries.rows = plan_.queries;
    queries.count = plan_.n_queries;
    return queries;
  }
  const auto* row_slots = section<std::uint32_t>(Section::row_slots);
  const std::vector<Row> held_out = held_out_rows(items_, plan_.seed);
  queries.count = held_out.size();
  rows->resize(queries.count * queries.row_bytes);
  queries.rows = rows->data();
  std::vector<float> values(dim_);
  for (std::uint64_t i = 0; i < queries.count; ++i) {
    keep_image_small();
    const Slot slot = row_slots[held_out[i]];
    queries.excluded.push_back(slot);
    std::byte* out = rows->data() + i * queries.row_bytes;
    if (bits) {
      std::memcpy(out, loaded.stored(slot), queries.row_bytes);
      continue;
    }
    decode_row(model_.dtype, loaded.stored(slot), dim_, values.data());
    for (float& value : values) value *= model_.value_scale;
    std::memcpy(out, values.data(), queries.row_bytes);
  }
  return queries;
}

void Build::calibrate() {
  if (plan_.memory_limit) source_.release_pages();
  seal();
  const LoadedImage loaded(borrowed_image(), "the build");
  std::vector<std::byte> rows;
  const CalibrationQueries queries = queries_to_ask(loaded, &rows);
  if (!traits_.multiplies_norm) {
    radius_weight_ = choose_radius_weight(loaded.search(), queries, leaf_mean_squares_,
                                          plan_.n_threads, plan_.monitor);
    set_route_biases();
    section<format::Params>(Section::params)->radius_weight = radius_weight_;
  }
  const std::vector<format::CurvePoint> curve =
      measure_curve(loaded.search(), queries, curve_ks(items_), plan_.n_threads, plan_.monitor);
  std::memcpy(section<format::CurvePoint>(Section::curve), curve.data(),
              sizeof(format::CurvePoint) * curve.size());
}

std::unique_ptr<Memory> Build::run() {
  find_leaves();
  grow_further_trees();
  lay_out();
  fill_rows_and_ids();
  fill_model();
  for (std::uint32_t t = 0; t < partitions_.size(); ++t) fill_centroids(t);
  leaf_bases_.resize(params_.leaf_entries);
  leaf_mean_squares_.resize(params_.leaf_entries);
  fill_leaves();
  level_cut_leaves();
  fill_further_trees();
  set_route_biases();
  if (has_lists()) make_lists();
  if (plan_.measure_recall) {
    calibrate();
  } else if (!plan_.curve.empty()) {
    std::memcpy(section<format::CurvePoint>(Section::curve), plan_.curve.data(),
                sizeof(format::CurvePoint) * plan_.curve.size());
  }
  seal();
  return std::move(memory_);
}

std::unique_ptr<Memory> build_image(const StoredRows& source, const IdCollector& ids,
                                    const Encoder& encoder, std::vector<std::uint32_t> leaf_of_row,
                                    const BuildPlan& plan, ImagePlace* place) {
  return Build(source, ids, encoder, std::move(leaf_of_row), plan, place).run();
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
