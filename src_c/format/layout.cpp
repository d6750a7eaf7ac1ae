// layout.cpp owns what an image can hold: which parameters are possible, which sections they
// ask for, and their sizes. It must not look at any image.
//
// Parameters come from untrusted files too: arithmetic on them saturates.

#include <cmath>
#include <utility>

#include "base/error.h"
#include "format/detail.h"
#include "format/format.h"
#include "kernels/kernels.h"
#include "rows/metric.h"

namespace annidx::format {

using namespace detail;

namespace {

constexpr const char* kSectionNames[] = {"unknown",
                                         "params",
                                         "vectors",
                                         "slot_rows",
                                         "row_slots",
                                         "ids_int64",
                                         "id_order",
                                         "id_text_offsets",
                                         "id_text",
                                         "mean",
                                         "trees",
                                         "leaf_ranges",
                                         "leaf_centroids",
                                         "leaf_scales",
                                         "leaf_regions",
                                         "norm_bounds",
                                         "leaf_mults",
                                         "leaf_biases",
                                         "leaf_scan_factors",
                                         "leaf_radii",
                                         "group_ranges",
                                         "group_centroids",
                                         "group_mults",
                                         "group_biases",
                                         "tree_slots",
                                         "codes",
                                         "block_centroids",
                                         "code_records",
                                         "neighbours",
                                         "codebook",
                                         "code_first_dims",
                                         "rotation",
                                         "rotation_scales",
                                         "rotation_order",
                                         "byte_rows",
                                         "row_scalars",
                                         "removed_ids",
                                         "removed_text_offsets",
                                         "removed_text",
                                         "curve",
                                         "metadata",
                                         "sets"};
static_assert(sizeof(kSectionNames) / sizeof(kSectionNames[0]) == kLastKnownKind + 1);

constexpr std::uint32_t kMaxCodes = 256;
// Trees and curve are read on opening: bounds keep that short whatever a file claims.
constexpr std::uint32_t kMaxTrees = 65'535;
constexpr std::uint32_t kMaxCurvePoints = 65'536;
// code_first_dims holds dimensions as u16 and ends with dim itself.
constexpr std::uint32_t kMaxCodedDim = 65535;
// Bounds the work of a query on a hostile file.
constexpr std::uint32_t kMaxNeighbours = 256;
constexpr std::uint32_t kMaxRegions = 255;
constexpr std::uint64_t kMaxShortSlots = (std::uint64_t{1} << 24) - 1;

std::uint64_t times(std::uint64_t a, std::uint64_t b) noexcept {
  return b != 0 && a > kSaturated / b ? kSaturated : a * b;
}

// ---- what parameters are possible ------------------------------------------------------

class Expectations {
 public:
  template <class T>
  void expect(bool holds, const char* field, const char* expected, T found) {
    if (holds || first_) return;
    first_ = Problem{field, expected, shown(found)};
  }
  const Problem& first() const noexcept { return first_; }

 private:
  Problem first_;
};

bool holds_bytes(std::uint32_t dtype) noexcept {
  return is(dtype, Dtype::int8) || is(dtype, Dtype::uint8);
}

// Both are validated values.
bool scans(const Shape& shape, std::uint32_t scan_kind) noexcept {
  if (is(shape.dtype, Dtype::bits)) return is(scan_kind, ScanKind::bits);
  if (is(scan_kind, ScanKind::vectors)) return true;
  const bool codes_serve = traits_of(static_cast<Metric>(shape.metric)).work_orders;
  return is(scan_kind, codes_serve ? ScanKind::codes : ScanKind::byte_rows);
}

// Its inverse is finite as well.
bool is_divisor(float value) noexcept { return std::isnormal(value) && value > 0.0f; }

bool is_power_of_two(float value) noexcept {
  int exponent = 0;
  return std::isfinite(value) && std::frexp(value, &exponent) == 0.5f;
}

void expect_code_params(const Shape& shape, const Params& params, Expectations& all) {
  if (!is(params.scan_kind, ScanKind::codes)) {
    all.expect(params.block_count == 0, "block_count", "0 without codes", params.block_count);
    all.expect(params.code_count == 0, "code_count", "0 without codes", params.code_count);
    all.expect(params.rotation_block == 0, "rotation_block", "0 without codes",
               params.rotation_block);
    return;
  }
  all.expect(shape.dim <= kMaxCodedDim, "scan_kind", "no codes above 65535 dimensions",
             params.scan_kind);
  all.expect(params.code_count >= 4 && params.code_count <= kMaxCodes && params.code_count % 4 == 0,
             "code_count", "a multiple of 4 from 4 to 256", params.code_count);
  all.expect(params.block_count >= ceil_divide(shape.item_count, kBlockPoints), "block_count",
             "room for every item in blocks of 32", params.block_count);
  all.expect(params.rotation_block >= 1 && params.rotation_block <= shape.dim, "rotation_block",
             "1 to dim", params.rotation_block);
}

// Blocks, records and lists each build on the one before, and all on codes.
void expect_list_params(const Shape& shape, const Params& params, Expectations& all) {
  const bool coded = is(params.scan_kind, ScanKind::codes);
  all.expect(params.has_blocks <= (coded ? 1u : 0u), "has_blocks", "0 or 1, 0 without codes",
             params.has_blocks);
  all.expect((params.centroid_blocks > 0) == (params.has_blocks == 1 && shape.item_count > 0),
             "centroid_blocks", "some if leaves are cut into blocks and hold items, else 0",
             params.centroid_blocks);
  all.expect(params.centroid_blocks <= params.block_count, "centroid_blocks", "at most block_count",
             params.centroid_blocks);
  all.expect(
      params.has_blocks == 1 ? is_divisor(params.centroid_scale) : params.centroid_scale == 1.0f,
      "centroid_scale", "a positive number, 1 without blocks", params.centroid_scale);
  all.expect(params.record_bytes == 0 ||
                 (coded && params.record_bytes == record_bytes_for(params.code_count)),
             "record_bytes", "that of code_count codes, or 0", params.record_bytes);
  all.expect(params.neighbour_count <= kMaxNeighbours, "neighbour_count", "at most 256",
             params.neighbour_count);
  all.expect(params.neighbour_count == 0 || params.record_bytes > 0, "neighbour_count",
             "0 without code records", params.neighbour_count);
  const std::uint32_t bytes =
      params.neighbour_count > 0 ? neighbour_bytes_for(shape.item_count) : 0;
  all.expect(params.neighbour_bytes == bytes, "neighbour_bytes",
             "the bytes that a slot needs, 0 without lists", params.neighbour_bytes);
}

// Regions are of directions; removed ids are what changes alone tell.
void expect_model_params(const Shape& shape, const Params& params, Expectations& all) {
  const MetricTraits& traits = traits_of(static_cast<Metric>(shape.metric));
  const std::uint32_t most = traits.work != WorkSpace::unit ? 1
                             : traits.multiplies_norm       ? kMaxRegions
                                                            : 2;
  all.expect(params.region_count >= 1 && params.region_count <= most, "region_count",
             "1, 2 under angular and cosine, up to 255 under dot", params.region_count);
  all.expect(traits.multiplies_norm ? std::isfinite(params.norm_unit) && params.norm_unit >= 0.0f
                                    : params.norm_unit == 0.0f,
             "norm_unit", "a number of at least 0, 0 unless the metric is dot", params.norm_unit);
  all.expect(std::isfinite(params.radius_weight), "radius_weight", "a finite number",
             params.radius_weight);
  all.expect(is(shape.kind, FileKind::changes) || params.removed_count == 0, "removed_count",
             "0 unless the file holds changes", params.removed_count);
}

// Scans of bytes need copies unless the vectors are bytes themselves; codes can do without a
// re-ranking by bytes.
void expect_byte_row_params(const Shape& shape, const Params& params, Expectations& all) {
  const bool reads_bytes =
      is(params.scan_kind, ScanKind::codes) || is(params.scan_kind, ScanKind::byte_rows);
  if (reads_bytes && !holds_bytes(shape.dtype)) {
    const bool may_lack = is(params.scan_kind, ScanKind::codes);
    all.expect(params.byte_row_bytes == shape.dim || (may_lack && params.byte_row_bytes == 0),
               "byte_row_bytes", may_lack ? "dim or 0" : "dim", params.byte_row_bytes);
  } else {
    all.expect(params.byte_row_bytes == 0, "byte_row_bytes", "0: the scan reads the vectors",
               params.byte_row_bytes);
  }
  all.expect(params.given_bytes <= 1, "given_bytes", "0 or 1", params.given_bytes);
  all.expect(params.given_bytes == 0 || holds_bytes(shape.dtype), "given_bytes",
             "0 unless vectors are int8 or uint8", params.given_bytes);
}

// ---- which sections there are ----------------------------------------------------------

class SectionList {
 public:
  void add(Section kind, std::uint64_t records, std::uint64_t record_bytes) {
    list_.push_back({kind, kRequired, times(records, record_bytes), record_bytes});
  }
  void add_optional(Section kind) { list_.push_back({kind, 0, 0, 1}); }
  std::vector<PlannedSection> take() { return std::move(list_); }

 private:
  std::vector<PlannedSection> list_;
};

void add_ids(SectionList& list, std::uint64_t items, const Params& params,
             std::uint64_t id_text_bytes) {
  if (is(params.id_kind, IdKind::row)) return;
  if (is(params.id_kind, IdKind::int64)) list.add(Section::ids_int64, items, 8);
  list.add(Section::id_order, items, 4);
  if (is(params.id_kind, IdKind::text)) {
    list.add(Section::id_text_offsets, items + 1, 8);
    list.add(Section::id_text, id_text_bytes, 1);
  }
}

void add_leaves(SectionList& list, const Params& params) {
  const std::uint64_t centroid_block = times(kPanelWidth, params.work_dim4);
  list.add(Section::leaf_ranges, params.leaf_entries, sizeof(LeafRange));
  list.add(Section::leaf_centroids, params.leaf_entries / kPanelWidth, centroid_block);
  list.add(Section::leaf_scales, params.leaf_entries, 4);
  if (params.region_count > 1) list.add(Section::leaf_regions, params.leaf_entries, 1);
  if (params.region_count > 1 && params.norm_unit > 0.0f) {
    list.add(Section::norm_bounds, params.region_count - 1, 4);
  }
  list.add(Section::leaf_mults, params.leaf_entries, 4);
  list.add(Section::leaf_biases, params.leaf_entries, 4);
  list.add(Section::leaf_scan_factors, params.leaf_entries, 4);
  list.add(Section::leaf_radii, params.leaf_entries, 4);
  if (params.group_entries == 0) return;
  list.add(Section::group_ranges, params.group_entries, sizeof(GroupRange));
  list.add(Section::group_centroids, params.group_entries / kPanelWidth, centroid_block);
  list.add(Section::group_mults, params.group_entries, 4);
  list.add(Section::group_biases, params.group_entries, 4);
}

void add_codes(SectionList& list, std::uint64_t items, std::uint64_t dim, const Params& params) {
  if (!is(params.scan_kind, ScanKind::codes)) return;
  const std::uint64_t block_bytes = code_block_bytes(params.code_count);
  list.add(Section::codes, params.block_count, block_bytes);
  if (params.centroid_blocks != 0) {
    list.add(Section::block_centroids, params.centroid_blocks, block_bytes);
  }
  if (params.record_bytes != 0) list.add(Section::code_records, items, params.record_bytes);
  if (params.neighbour_count != 0) {
    list.add(Section::neighbours, items,
             std::uint64_t{params.neighbour_count} * params.neighbour_bytes);
  }
  list.add(Section::codebook, dim, kCodewords * 4);
  list.add(Section::code_first_dims, std::uint64_t{params.code_count} + 1, 2);
  list.add(Section::rotation, dim, params.rotation_block);
  list.add(Section::rotation_scales, dim, 4);
  list.add(Section::rotation_order, dim, 4);
}

void add_removed(SectionList& list, const Params& params, std::uint64_t text_bytes) {
  if (params.removed_count == 0) return;
  if (!is(params.id_kind, IdKind::text)) {
    list.add(Section::removed_ids, params.removed_count, 8);
    return;
  }
  list.add(Section::removed_text_offsets, std::uint64_t{params.removed_count} + 1, 8);
  list.add(Section::removed_text, text_bytes, 1);
}

}  // namespace

namespace detail {

Problem problem_of(const Shape& shape) {
  Expectations all;
  all.expect(shape.kind >= 1 && shape.kind <= static_cast<std::uint32_t>(FileKind::changes), "kind",
             "1 to 4", shape.kind);
  all.expect(shape.metric >= 1 && shape.metric <= static_cast<std::uint32_t>(Metric::hamming),
             "metric", "1 to 6", shape.metric);
  all.expect(shape.dtype >= 1 && shape.dtype <= static_cast<std::uint32_t>(Dtype::bits), "dtype",
             "1 to 5", shape.dtype);
  all.expect(metric_allows(static_cast<Metric>(shape.metric), static_cast<Dtype>(shape.dtype)),
             "dtype", "one that the metric can be stored as", shape.dtype);
  all.expect(shape.dim >= 1 && shape.dim <= kMaxDim, "dim", "1 to 65535", shape.dim);
  all.expect(shape.item_count <= kMaxItems, "item_count", "at most 4294967294", shape.item_count);
  all.expect(!is(shape.kind, FileKind::model) || shape.item_count == 0, "item_count",
             "0 in a model", shape.item_count);
  return all.first();
}

Problem problem_of(const Shape& shape, const Params& params) {
  Expectations all;
  all.expect(params.id_kind <= static_cast<std::uint32_t>(IdKind::text), "id_kind", "0 to 2",
             params.id_kind);
  all.expect(
      params.scan_kind >= 1 && params.scan_kind <= static_cast<std::uint32_t>(ScanKind::vectors),
      "scan_kind", "1 to 4", params.scan_kind);
  all.expect(scans(shape, params.scan_kind), "scan_kind", "one that the metric can use",
             params.scan_kind);
  all.expect(params.tree_count >= 1 && params.tree_count <= kMaxTrees, "tree_count", "1 to 65535",
             params.tree_count);
  all.expect(params.curve_points <= kMaxCurvePoints, "curve_points", "at most 65536",
             params.curve_points);
  all.expect(params.work_dim4 == (shape.dim + 3) / 4 * 4, "work_dim4",
             "dim rounded up to a multiple of 4", params.work_dim4);
  all.expect(params.leaf_entries % kPanelWidth == 0, "leaf_entries", "a multiple of 16",
             params.leaf_entries);
  all.expect(shape.item_count == 0 || params.leaf_entries / kPanelWidth >= params.tree_count,
             "leaf_entries", "at least 16 a tree", params.leaf_entries);
  all.expect(params.group_entries % kPanelWidth == 0, "group_entries", "a multiple of 16",
             params.group_entries);
  expect_code_params(shape, params, all);
  expect_list_params(shape, params, all);
  expect_byte_row_params(shape, params, all);
  expect_model_params(shape, params, all);
  all.expect(is_divisor(params.value_scale) && params.value_scale <= kLargestValueScale,
             "value_scale", "a positive number of at most 2.658e36", params.value_scale);
  all.expect(is_divisor(params.byte_scale), "byte_scale", "a positive number", params.byte_scale);
  all.expect(std::isfinite(params.byte_offset), "byte_offset", "a finite number",
             params.byte_offset);
  all.expect(params.default_recall >= 0.0f && params.default_recall <= 1.0f, "default_recall",
             "0 to 1", params.default_recall);
  all.expect(std::isfinite(params.residual_weight), "residual_weight", "a finite number",
             params.residual_weight);
  all.expect(is_power_of_two(params.work_scale), "work_scale", "a power of two", params.work_scale);
  for (const std::uint32_t word : params.reserved) all.expect(word == 0, "reserved", "0", word);
  return all.first();
}

// Sizes that do not fit in 64 bits are kSaturated.
std::vector<PlannedSection> sections_of(const Shape& shape, const Params& params,
                                        const TextBytes& texts) {
  const std::uint64_t items = shape.item_count;
  SectionList list;
  list.add(Section::params, 1, sizeof(Params));
  list.add(Section::vectors, items, row_bytes(static_cast<Dtype>(shape.dtype), shape.dim));
  list.add(Section::slot_rows, items, 4);
  list.add(Section::row_slots, items, 4);
  add_ids(list, items, params, texts.ids);
  list.add(Section::mean, shape.dim, 4);
  list.add(Section::trees, params.tree_count, sizeof(Tree));
  add_leaves(list, params);
  if (params.tree_count > 1) {
    list.add(Section::tree_slots, times(params.tree_count - 1, items), 4);
  }
  add_codes(list, items, shape.dim, params);
  if (params.byte_row_bytes != 0) list.add(Section::byte_rows, items, params.byte_row_bytes);
  const bool reranks = params.byte_row_bytes != 0 || holds_bytes(shape.dtype);
  if (reranks && is(params.scan_kind, ScanKind::codes)) list.add(Section::row_scalars, items, 8);
  add_removed(list, params, texts.removed);
  if (params.curve_points != 0) list.add(Section::curve, params.curve_points, sizeof(CurvePoint));
  list.add_optional(Section::metadata);
  return list.take();
}

}  // namespace detail

const char* section_name(Section kind) noexcept {
  return number(kind) <= kLastKnownKind ? kSectionNames[number(kind)] : kSectionNames[0];
}

std::uint32_t record_bytes_for(std::uint32_t code_count) noexcept {
  constexpr std::uint32_t kUnit = 8;
  const std::uint32_t bytes = code_count / 2 + static_cast<std::uint32_t>(sizeof(CodeRecordTail));
  return (bytes + kUnit - 1) / kUnit * kUnit;
}

std::uint32_t neighbour_bytes_for(std::uint64_t item_count) noexcept {
  return item_count <= kMaxShortSlots ? 3 : 4;
}

std::uint64_t row_bytes(Dtype dtype, std::uint32_t dim) noexcept {
  return stored_bytes(dtype, dim);
}

std::vector<PlannedSection> plan_sections(FileKind kind, Metric metric, Dtype dtype,
                                          std::uint32_t dim, std::uint64_t item_count,
                                          const Params& params, const TextBytes& texts) {
  const Shape shape{static_cast<std::uint32_t>(kind), static_cast<std::uint32_t>(metric),
                    static_cast<std::uint32_t>(dtype), dim, item_count};
  Problem problem = problem_of(shape);
  if (!problem) problem = problem_of(shape, params);
  if (problem) {
    throw Error(ErrorCode::invalid_argument, "file layout: field '" + problem.field +
                                                 "': expected " + problem.expected + ", found " +
                                                 problem.found);
  }
  auto sections = sections_of(shape, params, texts);
  image_bytes(sections);  // throws when a size does not fit
  return sections;
}

std::uint64_t image_bytes(const std::vector<PlannedSection>& sections) {
  std::uint64_t end = table_end(sections.size());
  for (const PlannedSection& section : sections) {
    end = plus(aligned(end), section.bytes);
    if (end > kSaturated - kSectionAlignment) {
      throw Error(ErrorCode::invalid_argument, std::string("file layout: section '") +
                                                   section_name(section.kind) +
                                                   "' does not fit in 64-bit sizes");
    }
  }
  return end;
}

}  // namespace annidx::format
