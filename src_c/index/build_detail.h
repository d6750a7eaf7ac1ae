// build_detail.h owns the state of one build, which build.cpp and build_fill.cpp share. Nothing
// else includes it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/tuning.h"
#include "format/format.h"
#include "index/build.h"
#include "model/codes.h"
#include "model/partition.h"
#include "rows/metric.h"
#include "search/calibrate.h"
#include "search/searcher.h"

namespace annidx {

using format::Section;

inline constexpr std::uint32_t round_up(std::uint32_t value, std::uint32_t unit) {
  return (value + unit - 1) / unit * unit;
}

// What one pass over the rows tells.
struct RowFacts {
  std::vector<float> norms;  // WorkSpace::unit: of the rows, see kept_norm
  float largest = 0.0f;      // absolute value
  float lowest = 0.0f, highest = 0.0f;
};

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
  void order_blocks();
  void train_codes();
  void lay_out();
  void fill_rows_and_ids();
  void fill_centres(std::uint32_t tree);
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
  void set_route_biases();
  CalibrationQueries queries_to_ask(const class LoadedImage& loaded, std::vector<std::byte>* rows);
  void calibrate();
  void seal();
  void keep_image_small();

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
  // A lean file is the smallest: leaves small enough to be scanned whole. So are those of dot,
  // whose neighbours are where norms are large: on factors 17k blocks and lists make queries half
  // as fast.
  bool has_blocks() const {
    return scan_ == Scan::codes && !plan_.lean && !traits_.multiplies_norm;
  }
  bool has_lists() const { return has_blocks() && plan_.neighbours > 0; }
  bool is_byte_dtype() const { return plan_.dtype == Dtype::int8 || plan_.dtype == Dtype::uint8; }
  std::byte* stored_row(std::uint64_t slot) {
    return format::mutable_section(image_, Section::vectors) + slot * source_.row_bytes();
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
  std::vector<float> stored_centres_;  // first tree, as quantized
  CodeModel model_;
  format::Params params_{};
  // By leaf entry: what set_route_biases() needs.
  std::vector<float> leaf_bases_;         // squared centre, and what zero vectors add
  std::vector<float> leaf_mean_squares_;  // of the points' distances to the centre
  float radius_weight_ = tuning::kRadiusWeight;
  std::unique_ptr<Memory> memory_;
  std::byte* image_ = nullptr;
  std::uint64_t most_resident_bytes_ = 0;  // of files in the process, where memory is limited
};

}  // namespace annidx
