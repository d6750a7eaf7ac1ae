// build_detail.h owns the state of one build, which build.cpp and build_fill.cpp share. Nothing
// else includes it.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "format/format.h"
#include "index/build.h"
#include "model/partition.h"
#include "rows/metric.h"
#include "search/calibrate.h"
#include "search/searcher.h"

namespace annidx {

using format::Section;

inline constexpr std::uint32_t round_up(std::uint32_t value, std::uint32_t unit) {
  return (value + unit - 1) / unit * unit;
}

class Build {
 public:
  Build(const StoredRows& source, const IdCollector& ids, const Encoder& encoder,
        std::vector<std::uint32_t> leaf_of_row, const BuildPlan& plan, ImagePlace* place)
      : source_(source),
        ids_(ids),
        encoder_(encoder),
        model_(encoder.model()),
        plan_(plan),
        place_(place),
        traits_(model_.traits()),
        scan_(model_.scan),
        items_(source.size()),
        dim_(model_.dim),
        leaf_of_row_(std::move(leaf_of_row)),
        radius_weight_(plan.radius_weight) {}

  std::unique_ptr<Memory> run();

 private:
  PartitionOptions partition_options() const;
  void find_leaves();
  void order_blocks();
  void grow_further_trees();
  void enter_leaves();
  void count_blocks();
  void set_params();
  void lay_out();
  void fill_model();
  void fill_rows_and_ids();
  void fill_centroids(std::uint32_t tree);
  void fill_groups(std::uint32_t tree);
  void fill_leaves();
  void level_cut_leaves();
  void fill_leaf(std::uint32_t leaf, struct LeafScratch* scratch);
  void fill_spread(LeafScratch* scratch);
  void fill_vectors(LeafScratch* scratch);
  void fill_sketch(const LeafScratch& scratch);
  float decoded_term(const std::uint8_t* codes, float scale, LeafScratch* scratch,
                     float* decoded_square) const;
  void fill_codes(LeafScratch* scratch);
  void measure_blocks(LeafScratch* scratch) const;
  void fill_block_centroids(LeafScratch* scratch);
  void fill_records(const LeafScratch& scratch);
  void fill_byte_rows(const LeafScratch& scratch);
  void fill_row_scalars(LeafScratch* scratch);
  void fill_further_trees();
  void make_lists();
  std::vector<Slot> mended_lists(const struct GraphInput& input);
  std::unique_ptr<Memory> borrowed_image() const;
  void set_route_biases();
  CalibrationQueries queries_to_ask(const class LoadedImage& loaded, std::vector<std::byte>* rows);
  void calibrate();
  void seal();
  void keep_image_small();

  WorkRows work_rows() const { return WorkRows(source_, model_.transform()); }
  const Partition& first_tree() const { return partitions_[0]; }
  bool has_byte_copies() const { return model_.has_byte_copies; }
  // Codes are then followed by a re-ranking of bytes.
  bool has_row_scalars() const {
    return scan_ == Scan::codes && (has_byte_copies() || model_.holds_bytes());
  }
  bool has_blocks() const { return model_.has_blocks; }
  bool has_lists() const { return has_blocks() && plan_.neighbours > 0 && items_ > 0; }
  std::byte* stored_row(std::uint64_t slot) {
    return format::mutable_section(image_, Section::vectors) + slot * source_.row_bytes();
  }
  template <class T>
  T* section(Section kind) {
    return format::mutable_array<T>(image_, kind);
  }
  // Added to squared distances to a zero vector under a metric of directions: 1 + 1 - 2 * 0.
  float zero_vector_term(Row row) const {
    return traits_.work == WorkSpace::unit && !traits_.multiplies_norm && norms_[row] == 0.0f
               ? 1.0f
               : 0.0f;
  }
  float relative_norm(Row row) const { return model_.relative_norm(norms_[row]); }

  const StoredRows& source_;
  const IdCollector& ids_;
  const Encoder& encoder_;
  const TrainedModel& model_;
  const BuildPlan& plan_;
  ImagePlace* place_;
  const MetricTraits& traits_;
  const Scan scan_;
  const std::uint64_t items_;
  const std::uint32_t dim_;

  std::vector<std::uint32_t> leaf_of_row_;  // of the model's leaves
  std::vector<float> norms_;                // of directions: of the rows, see kept_norm
  std::vector<Partition> partitions_;
  std::vector<std::vector<std::uint32_t>> leaf_entries_;  // by tree: entry of each leaf
  std::vector<format::Tree> trees_;
  format::Params params_{};
  // By leaf entry: what set_route_biases() needs.
  std::vector<float> leaf_bases_;         // squared centroid, and what zero vectors add
  std::vector<float> leaf_mean_squares_;  // of the points' distances to the centroid
  float radius_weight_;
  std::unique_ptr<Memory> memory_;
  std::byte* image_ = nullptr;
  std::uint64_t most_resident_bytes_ = 0;  // of files in the process, where memory is limited
};

}  // namespace annidx
