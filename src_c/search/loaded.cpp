// loaded.cpp joins the sections of an image to the rooms that read them; see loaded.h.
#include "search/loaded.h"

#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"

namespace annidx {
namespace {

using format::Section;

ExactScorer scorer_of(const format::View& view) {
  return ExactScorer(static_cast<Metric>(view.header.metric), static_cast<Dtype>(view.header.dtype),
                     view.header.dim, view.params.value_scale);
}

void require_positive(float value, const char* field, const std::string& name) {
  if (std::isfinite(value) && value > 0.0f) return;
  throw Error(ErrorCode::format, name + " is damaged: section 'params', field " + field +
                                     ": expected a positive number, found " +
                                     std::to_string(value));
}

}  // namespace

LoadedImage::LoadedImage(std::unique_ptr<Memory> memory, const std::string& name)
    : memory_(std::move(memory)),
      name_(name),
      view_(format::open_view(memory_->data(), memory_->bytes(), name)),
      scorer_(scorer_of(view_)) {
  require_positive(view_.params.value_scale, "value_scale", name);
  require_positive(view_.params.work_scale, "work_scale", name);
  require_positive(view_.params.byte_scale, "byte_scale", name);
  search_.item_count = view_.header.item_count;
  connect();
}

void LoadedImage::connect() {
  connect_ids();
  connect_rows();
  connect_forest();
  connect_codes();
}

void LoadedImage::connect_ids() {
  ids_.kind = static_cast<IdKind>(view_.params.id_kind);
  ids_.count = items();
  ids_.int64_ids = view_.array<std::int64_t>(Section::ids_int64);
  ids_.order = view_.array<std::uint32_t>(Section::id_order);
  ids_.text_offsets = view_.array<std::uint64_t>(Section::id_text_offsets);
  ids_.text = view_.array<char>(Section::id_text);
  ids_.text_bytes = view_.section_bytes(Section::id_text);
}

void LoadedImage::connect_rows() {
  const format::Params& params = view_.params;
  const MetricTraits& traits = traits_of(metric());
  SearchView& s = search_;
  s.scorer = &scorer_;
  s.scan = static_cast<Scan>(params.scan_kind);
  s.transform = {traits.work, dim(), params.work_scale,
                 traits.multiplies_norm ? nullptr : view_.array<float>(Section::mean)};
  s.value_scale = params.value_scale;
  s.vectors = view_.section(Section::vectors);
  s.row_bytes = stored_bytes(dtype(), dim());
  s.slot_rows = view_.array<std::uint32_t>(Section::slot_rows);
  s.row_slots = view_.array<std::uint32_t>(Section::row_slots);
}

void LoadedImage::connect_forest() {
  const format::Params& params = view_.params;
  ForestView& forest = search_.forest;
  forest.dim4 = params.work_dim4;
  forest.item_count = items();
  forest.block_count = params.block_count;
  forest.centroid_blocks = params.centroid_blocks;
  forest.leaves = {view_.array<std::uint8_t>(Section::leaf_centroids),
                   view_.array<float>(Section::leaf_mults),
                   view_.array<float>(Section::leaf_biases)};
  forest.groups = {view_.array<std::uint8_t>(Section::group_centroids),
                   view_.array<float>(Section::group_mults),
                   view_.array<float>(Section::group_biases)};
  forest.leaf_spans = view_.array<LeafSpan>(Section::leaf_ranges);
  forest.group_spans = view_.array<GroupSpan>(Section::group_ranges);
  forest.tree_slots = view_.array<Slot>(Section::tree_slots);
  connect_trees();
  search_.leaf_biases = forest.leaves.biases;
  search_.leaf_scan_factors = view_.array<float>(Section::leaf_scan_factors);
  search_.leaf_radii = view_.array<float>(Section::leaf_radii);
}

// The trees are a copy: what is checked must be what is kept, also while the file is overwritten.
void LoadedImage::connect_trees() {
  const format::Params& params = view_.params;
  const auto* first_tree = view_.array<format::Tree>(Section::trees);
  const std::vector<format::Tree> trees(first_tree, first_tree + params.tree_count);
  std::uint64_t leaf_end = 0, group_end = 0;  // of the trees so far, which do not overlap
  for (std::uint32_t t = 0; t < params.tree_count; ++t) {
    const format::Tree& tree = trees[t];
    const bool follows = tree.first_leaf_entry == leaf_end && tree.first_group_entry == group_end;
    leaf_end += tree.leaf_entry_count;
    group_end += tree.group_entry_count;
    const bool fits = leaf_end <= params.leaf_entries && group_end <= params.group_entries &&
                      (tree.leaf_entry_count | tree.group_entry_count) % kPanelWidth == 0;
    if (!follows || !fits) {
      throw Error(ErrorCode::format, name_ + " is damaged: section 'trees', entry " +
                                         std::to_string(t) + ": expected leaves and groups up to " +
                                         std::to_string(params.leaf_entries) + " and " +
                                         std::to_string(params.group_entries) +
                                         ", behind those of the trees before, found " +
                                         std::to_string(tree.leaf_entry_count) + " and " +
                                         std::to_string(tree.group_entry_count));
    }
    search_.forest.trees.push_back({tree.first_leaf_entry, tree.leaf_entry_count,
                                    tree.first_group_entry, tree.group_entry_count});
  }
}

void LoadedImage::connect_codes() {
  const format::Params& params = view_.params;
  SearchView& s = search_;
  s.codes = {dim(),
             params.code_count,
             params.rotation_block,
             view_.array<float>(Section::codebook),
             view_.array<std::uint16_t>(Section::code_first_dims),
             view_.array<std::int8_t>(Section::rotation),
             view_.array<float>(Section::rotation_scales),
             view_.array<std::uint32_t>(Section::rotation_order),
             view_.array<std::uint8_t>(Section::codes)};
  s.block_centroids = view_.array<std::uint8_t>(Section::block_centroids);
  s.centroid_scale = params.centroid_scale;
  s.code_records = view_.array<std::uint8_t>(Section::code_records);
  s.record_bytes = params.record_bytes;
  s.neighbours = {view_.array<std::uint8_t>(Section::neighbours), params.neighbour_count,
                  params.neighbour_bytes};
  const bool has_copies = params.byte_row_bytes > 0;
  s.byte_rows = has_copies ? view_.section(Section::byte_rows) : s.vectors;
  s.planes_of_work = has_copies;
  s.byte_rows_signed = has_copies ? s.scan == Scan::codes : dtype() == Dtype::int8;
  s.row_scalars = view_.array<RowScalars>(Section::row_scalars);  // null: no re-ranking by bytes
  s.byte_scale = params.byte_scale;
  s.byte_offset = params.byte_offset;
}

Slot LoadedImage::slot_of(Row row) const {
  const Slot slot = search_.row_slots[row];
  if (slot >= items()) {
    throw Error(ErrorCode::format, name_ + " is damaged: section 'row_slots', entry " +
                                       std::to_string(row) + ": expected less than " +
                                       std::to_string(items()) + ", found " + std::to_string(slot));
  }
  return slot;
}

}  // namespace annidx
