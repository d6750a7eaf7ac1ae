// format.cpp owns the layout of a file: which sections there are, opening and writing an image.
// docs/FORMAT.md says the same for people; change both together. The check of every value is in
// format_verify.cpp. It must not know any algorithm, and it must not map, read or write files.
//
// Everything read from an image is untrusted until checked here: sizes are compared before they
// are used, arithmetic on them saturates, and no check reads outside [image, image + bytes).

#include "format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <utility>

#include "error.h"
#include "format_detail.h"
#include "kernels.h"
#include "metric.h"

namespace annidx::format {

using namespace detail;

namespace {

constexpr const char* kSectionNames[] = {
    "unknown",         "params",         "vectors",        "slot_rows",
    "row_slots",       "ids_int64",      "id_order",       "id_text_offsets",
    "id_text",         "mean",           "trees",          "leaf_ranges",
    "leaf_centres",    "leaf_mults",     "leaf_biases",    "leaf_scan_factors",
    "leaf_radii",      "group_ranges",   "group_centres",  "group_mults",
    "group_biases",    "tree_slots",     "codes",          "code_scalars",
    "codebook",        "code_first_dims", "rotation",      "rotation_scales",
    "rotation_order",  "byte_rows",      "row_scalars",    "curve",
    "metadata"};
constexpr std::uint32_t kLastKnownKind = static_cast<std::uint32_t>(Section::metadata);
static_assert(sizeof(kSectionNames) / sizeof(kSectionNames[0]) == kLastKnownKind + 1);

constexpr std::uint32_t kKnownFlags = kRequired;
constexpr std::uint32_t kSwappedEndianMark = 0x04030201u;
constexpr std::uint32_t kMaxCodes = 256;
// Trees and curve are read on opening: bounds keep that short whatever a file claims.
constexpr std::uint32_t kMaxTrees = 65'535;
constexpr std::uint32_t kMaxCurvePoints = 65'536;
// code_first_dims holds dimensions as u16 and ends with dim itself.
constexpr std::uint32_t kMaxCodedDim = 65535;
constexpr std::uint64_t kChecksumStep = std::uint64_t{16} << 20;
constexpr std::uint64_t kSaturated = std::numeric_limits<std::uint64_t>::max();

constexpr std::uint32_t number(Section kind) noexcept { return static_cast<std::uint32_t>(kind); }

// ---- sizes -----------------------------------------------------------------------------

std::uint64_t times(std::uint64_t a, std::uint64_t b) noexcept {
  return b != 0 && a > kSaturated / b ? kSaturated : a * b;
}

std::uint64_t plus(std::uint64_t a, std::uint64_t b) noexcept {
  return a > kSaturated - b ? kSaturated : a + b;
}

std::uint64_t aligned(std::uint64_t offset) noexcept {
  return plus(offset, kSectionAlignment - 1) / kSectionAlignment * kSectionAlignment;
}

// ---- structs in raw bytes --------------------------------------------------------------

template <class T>
const T* as(const std::byte* bytes) noexcept {
  return static_cast<const T*>(static_cast<const void*>(bytes));
}

template <class T>
T* as(std::byte* bytes) noexcept {
  return static_cast<T*>(static_cast<void*>(bytes));
}

SectionEntry* table_of(std::byte* image) noexcept {
  return as<SectionEntry>(image + sizeof(FileHeader));
}

// ---- messages --------------------------------------------------------------------------

[[noreturn]] void not_annidx(const std::string& name, const std::string& found) {
  throw Error(ErrorCode::format, name + " is not an annidx file: " + found + ", expected " +
                                     hex(kMagic, sizeof kMagic));
}

[[noreturn]] void too_new(const std::string& name, const std::string& what) {
  throw Error(ErrorCode::format, name + " was written " + what + "; upgrade annidx");
}

std::string entry_place(std::uint32_t index, std::uint32_t kind) {
  return "table entry " + shown(index) + " (section '" + section_name(static_cast<Section>(kind)) +
         "', kind " + shown(kind) + ") at offset " + shown(table_end(index));
}

// ---- checksums and identity ------------------------------------------------------------

std::uint32_t header_checksum(FileHeader header, const SectionEntry* table) noexcept {
  header.header_crc = 0;
  const std::uint32_t crc = kernels().crc32c(0, &header, sizeof header);
  return kernels().crc32c(crc, table, header.section_count * sizeof(SectionEntry));
}

// FNV-1a of 128 bits, fed with little-endian numbers.
class IdentityHash {
 public:
  void add_bytes(const void* data, std::size_t bytes) noexcept {
    const unsigned char* from = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < bytes; ++i) {
      low_ ^= from[i];
      multiply();
    }
  }
  template <class T>
  void add(T value) noexcept {
    add_bytes(&value, sizeof value);
  }
  void write(std::uint8_t (&out)[16]) const noexcept {
    std::memcpy(out, &low_, 8);
    std::memcpy(out + 8, &high_, 8);
  }

 private:
  // By the FNV prime 2^88 + 0x13b, modulo 2^128.
  void multiply() noexcept {
    constexpr std::uint64_t kPrimeLow = 0x13b;
    const std::uint64_t first = (low_ & 0xffffffffu) * kPrimeLow;
    const std::uint64_t second = (low_ >> 32) * kPrimeLow + (first >> 32);
    high_ = high_ * kPrimeLow + (second >> 32) + (low_ << 24);
    low_ = (second << 32) | (first & 0xffffffffu);
  }
  std::uint64_t high_ = 0x6c62272e07bb0142u;
  std::uint64_t low_ = 0x62b821756295c58du;
};

// ---- what parameters are possible ------------------------------------------------------

// The first thing wrong with a set of fields, as "field 'x': expected ..., found ...".
struct Problem {
  std::string field;
  std::string expected;
  std::string found;
  explicit operator bool() const noexcept { return !field.empty(); }
};

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

// The four header fields that decide, with Params, which sections there are and their sizes.
struct Shape {
  std::uint32_t metric;
  std::uint32_t dtype;
  std::uint32_t dim;
  std::uint64_t item_count;
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

Problem problem_of(const Shape& shape) {
  Expectations all;
  all.expect(shape.metric >= 1 && shape.metric <= static_cast<std::uint32_t>(Metric::hamming),
             "metric", "1 to 6", shape.metric);
  all.expect(shape.dtype >= 1 && shape.dtype <= static_cast<std::uint32_t>(Dtype::bits), "dtype",
             "1 to 5", shape.dtype);
  all.expect(metric_allows(static_cast<Metric>(shape.metric), static_cast<Dtype>(shape.dtype)),
             "dtype", "one that the metric can be stored as", shape.dtype);
  all.expect(shape.dim >= 1 && shape.dim <= kMaxDim, "dim", "1 to 65535", shape.dim);
  all.expect(shape.item_count <= kMaxItems, "item_count", "at most 4294967294", shape.item_count);
  return all.first();
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

// Scans of bytes need copies unless the vectors are bytes themselves; codes can do without a re-ranking
// by bytes.
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

Problem problem_of(const Shape& shape, const Params& params) {
  Expectations all;
  all.expect(params.id_kind <= static_cast<std::uint32_t>(IdKind::text), "id_kind", "0 to 2",
             params.id_kind);
  all.expect(params.scan_kind >= 1 &&
                 params.scan_kind <= static_cast<std::uint32_t>(ScanKind::vectors),
             "scan_kind", "1 to 4", params.scan_kind);
  all.expect(scans(shape, params.scan_kind), "scan_kind", "one that the metric can use",
             params.scan_kind);
  all.expect(params.tree_count >= 1 && params.tree_count <= kMaxTrees, "tree_count",
             "1 to 65535", params.tree_count);
  all.expect(params.curve_points <= kMaxCurvePoints, "curve_points", "at most 65536",
             params.curve_points);
  all.expect(params.work_dim4 == (shape.dim + 3) / 4 * 4, "work_dim4",
             "dim rounded up to a multiple of 4", params.work_dim4);
  all.expect(params.leaf_entries % kPanelWidth == 0, "leaf_entries", "a multiple of 16",
             params.leaf_entries);
  all.expect(shape.item_count == 0 ||
                 params.leaf_entries / kPanelWidth >= params.tree_count,
             "leaf_entries", "at least 16 a tree", params.leaf_entries);
  all.expect(params.group_entries % kPanelWidth == 0, "group_entries", "a multiple of 16",
             params.group_entries);
  expect_code_params(shape, params, all);
  expect_byte_row_params(shape, params, all);
  all.expect(is_divisor(params.value_scale) && params.value_scale <= kLargestValueScale,
             "value_scale", "a positive number of at most 2.658e36", params.value_scale);
  all.expect(is_divisor(params.byte_scale), "byte_scale", "a positive number", params.byte_scale);
  all.expect(std::isfinite(params.byte_offset), "byte_offset", "a finite number",
             params.byte_offset);
  all.expect(params.default_recall >= 0.0f && params.default_recall <= 1.0f, "default_recall",
             "0 to 1", params.default_recall);
  all.expect(std::isfinite(params.residual_weight), "residual_weight", "a finite number",
             params.residual_weight);
  all.expect(is_power_of_two(params.work_scale), "work_scale", "a power of two",
             params.work_scale);
  for (const std::uint32_t word : params.reserved) all.expect(word == 0, "reserved", "0", word);
  return all.first();
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
  const std::uint64_t centre_block = times(kPanelWidth, params.work_dim4);
  list.add(Section::leaf_ranges, params.leaf_entries, sizeof(LeafRange));
  list.add(Section::leaf_centres, params.leaf_entries / kPanelWidth, centre_block);
  list.add(Section::leaf_mults, params.leaf_entries, 4);
  list.add(Section::leaf_biases, params.leaf_entries, 4);
  list.add(Section::leaf_scan_factors, params.leaf_entries, 4);
  list.add(Section::leaf_radii, params.leaf_entries, 4);
  if (params.group_entries == 0) return;
  list.add(Section::group_ranges, params.group_entries, sizeof(GroupRange));
  list.add(Section::group_centres, params.group_entries / kPanelWidth, centre_block);
  list.add(Section::group_mults, params.group_entries, 4);
  list.add(Section::group_biases, params.group_entries, 4);
}

void add_codes(SectionList& list, std::uint64_t items, std::uint64_t dim, const Params& params) {
  if (!is(params.scan_kind, ScanKind::codes)) return;
  list.add(Section::codes, params.block_count, params.code_count * kBlockCodeBytes);
  list.add(Section::code_scalars, items, 4);
  list.add(Section::codebook, dim, kCodewords * 4);
  list.add(Section::code_first_dims, std::uint64_t{params.code_count} + 1, 2);
  list.add(Section::rotation, dim, params.rotation_block);
  list.add(Section::rotation_scales, dim, 4);
  list.add(Section::rotation_order, dim, 4);
}

// Sizes that do not fit in 64 bits are kSaturated.
std::vector<PlannedSection> sections_of(const Shape& shape, const Params& params,
                                        std::uint64_t id_text_bytes) {
  const std::uint64_t items = shape.item_count;
  SectionList list;
  list.add(Section::params, 1, sizeof(Params));
  list.add(Section::vectors, items, row_bytes(static_cast<Dtype>(shape.dtype), shape.dim));
  list.add(Section::slot_rows, items, 4);
  list.add(Section::row_slots, items, 4);
  add_ids(list, items, params, id_text_bytes);
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
  if (params.curve_points != 0) list.add(Section::curve, params.curve_points, sizeof(CurvePoint));
  list.add_optional(Section::metadata);
  return list.take();
}

// Every image has one.
const SectionEntry* metadata_entry(const View& view) noexcept {
  return find_entry(view.table.data(), view.table.size(), Section::metadata);
}

// ---- opening ---------------------------------------------------------------------------

// The checks of open_view in the order in which each makes the next one safe.
class Opening {
 public:
  Opening(const std::byte* image, std::uint64_t bytes, const std::string& name)
      : image_(image), bytes_(bytes), name_(name) {}

  View open() {
    check_magic();
    std::memcpy(&header_, image_, sizeof header_);
    check_version();
    check_head();
    check_file_size();
    check_header_fields();
    check_table();
    check_params();
    check_sections();
    return {header_, params_, std::move(table_), image_, bytes_};
  }

 private:
  Shape shape() const noexcept {
    return {header_.metric, header_.dtype, header_.dim, header_.item_count};
  }

  void check_magic() const {
    if (bytes_ == 0) not_annidx(name_, "it is empty");
    const std::uint64_t known = std::min<std::uint64_t>(bytes_, sizeof kMagic);
    if (std::memcmp(image_, kMagic, known) != 0) {
      not_annidx(name_, "starts with " + hex(image_, known));
    }
    if (bytes_ < sizeof(FileHeader)) truncated(sizeof(FileHeader));
  }

  [[noreturn]] void truncated(std::uint64_t at_least) const {
    damaged(name_, "it is cut short", "at least " + shown(at_least) + " bytes",
            shown(bytes_) + " bytes");
  }

  // Magic, version, endian mark and library version keep their places in every format version.
  void check_version() const {
    const std::string mark_place = header_place("endian_mark", offsetof(FileHeader, endian_mark));
    if (header_.endian_mark == kSwappedEndianMark) {
      damaged(name_, mark_place, hex32(kEndianMark) + " (little-endian)",
              hex32(kSwappedEndianMark) + " (big-endian)");
    }
    if (header_.version > kVersion) {
      too_new(name_, "in format version " + shown(header_.version) + " by annidx " +
                         writer_version() + "; this annidx reads version " + shown(kVersion));
    }
    if (header_.version != kVersion) {
      damaged(name_, header_place("version", offsetof(FileHeader, version)), shown(kVersion),
              shown(header_.version));
    }
    if (header_.endian_mark != kEndianMark) {
      damaged(name_, mark_place, hex32(kEndianMark), hex32(header_.endian_mark));
    }
  }

  // Untrusted text, made harmless for a terminal.
  std::string writer_version() const {
    std::string text;
    for (const char c : header_.library_version) {
      if (c == '\0') break;
      text += c >= '!' && c <= '~' ? c : '?';
    }
    return text.empty() ? "(unnamed)" : text;
  }

  void check_head() {
    const std::uint32_t count = header_.section_count;
    if (count < 1 || count > kMaxSections) {
      damaged(name_, header_place("section_count", offsetof(FileHeader, section_count)), "1 to 64",
              shown(count));
    }
    if (bytes_ < table_end(count)) truncated(table_end(count));
    table_.resize(count);
    std::memcpy(table_.data(), image_ + sizeof(FileHeader), count * sizeof(SectionEntry));
    const std::uint32_t crc = header_checksum(header_, table_.data());
    if (crc != header_.header_crc) {
      damaged(name_, header_place("header_crc", offsetof(FileHeader, header_crc)),
              hex32(crc) + ", the checksum of header and table", hex32(header_.header_crc));
    }
  }

  void check_file_size() const {
    const std::uint64_t promised = header_.file_bytes;
    if (bytes_ < promised) {
      damaged(name_, "it is cut short", shown(promised) + " bytes", shown(bytes_) + " bytes");
    }
    if (bytes_ > promised) {
      damaged(name_, "something was appended to it", shown(promised) + " bytes",
              shown(bytes_) + " bytes");
    }
  }

  void check_header_fields() const {
    if (const Problem problem = problem_of(shape())) {
      damaged(name_, "header field '" + problem.field + "'", problem.expected, problem.found);
    }
    const char* version = header_.library_version;
    const std::size_t capacity = sizeof(FileHeader::library_version);
    const char* end = std::find(version, version + capacity, '\0');
    if (end == version + capacity || !is_zero(end, version + capacity)) {
      damaged(name_, header_place("library_version", offsetof(FileHeader, library_version)),
              "at most 15 characters and NULs", hex(version, capacity));
    }
    if (!is_zero(std::begin(header_.reserved), std::end(header_.reserved))) {
      damaged(name_, header_place("reserved", offsetof(FileHeader, reserved)), "zeros",
              hex(header_.reserved, sizeof(FileHeader::reserved)));
    }
  }

  template <class T>
  static bool is_zero(const T* begin, const T* end) noexcept {
    return std::all_of(begin, end, [](T value) { return value == 0; });
  }

  // Kinds ascend, sections follow one another with no gap but alignment, the last ends the file.
  void check_table() const {
    std::uint32_t previous_kind = 0;
    std::uint64_t end = table_end(header_.section_count);
    for (std::uint32_t i = 0; i < header_.section_count; ++i) {
      const SectionEntry& entry = table_[i];
      if (entry.kind > kLastKnownKind && (entry.flags & kRequired) != 0) {
        too_new(name_, "by a newer annidx (" + writer_version() + ") and needs section kind " +
                           shown(entry.kind) + ", which this annidx does not know");
      }
      if (entry.kind <= previous_kind) {
        damaged(name_, entry_place(i, entry.kind), "a kind above " + shown(previous_kind),
                shown(entry.kind));
      }
      check_entry(i, entry, aligned(end));
      previous_kind = entry.kind;
      end = entry.offset + entry.bytes;
    }
    if (end != bytes_) {
      damaged(name_, "the table", "sections up to the end of the file at " + shown(bytes_),
              "the last one ending at " + shown(end));
    }
  }

  void check_entry(std::uint32_t index, const SectionEntry& entry, std::uint64_t offset) const {
    const auto refuse = [&](const std::string& expected, const std::string& found) {
      damaged(name_, entry_place(index, entry.kind), expected, found);
    };
    if ((entry.flags & ~kKnownFlags) != 0 || entry.reserved != 0) {
      refuse("flags 0 or 1 and a zero reserved field",
             shown(entry.flags) + " and " + shown(entry.reserved));
    }
    if (entry.offset != offset) refuse("offset " + shown(offset), shown(entry.offset));
    if (offset > bytes_ || entry.bytes > bytes_ - offset) {
      refuse("a section inside the file of " + shown(bytes_) + " bytes",
             "offset " + shown(offset) + " and " + shown(entry.bytes) + " bytes");
    }
    if (entry.record_bytes == 0 || entry.bytes % entry.record_bytes != 0) {
      refuse("a whole number of records",
             shown(entry.bytes) + " bytes in records of " + shown(entry.record_bytes));
    }
  }

  void check_params() {
    const SectionEntry& entry = table_[0];
    if (entry.kind != number(Section::params) || entry.bytes != sizeof(Params)) {
      damaged(name_, entry_place(0, entry.kind), "section 'params' of 128 bytes",
              shown(entry.bytes) + " bytes of kind " + shown(entry.kind));
    }
    std::memcpy(&params_, image_ + entry.offset, sizeof params_);
    const std::uint32_t crc = kernels().crc32c(0, &params_, sizeof params_);
    if (crc != entry.crc) {
      damaged(name_, section_place(entry), "checksum " + hex32(entry.crc), hex32(crc));
    }
    if (const Problem problem = problem_of(shape(), params_)) {
      damaged(name_, section_place(entry) + ", field '" + problem.field + "'", problem.expected,
              problem.found);
    }
  }

  // The sections known to us are exactly those that header and params ask for.
  void check_sections() const {
    const SectionEntry* text = find_entry(table_.data(), table_.size(), Section::id_text);
    const auto planned = sections_of(shape(), params_, text == nullptr ? 0 : text->bytes);
    std::uint32_t next = 0;
    for (const PlannedSection& plan : planned) {
      if (next == header_.section_count || table_[next].kind > number(plan.kind)) {
        damaged(name_, "the table", std::string("section '") + section_name(plan.kind) + "'",
                "none");
      }
      if (table_[next].kind < number(plan.kind)) unexpected(next);
      check_size(next, plan);
      ++next;
    }
    if (next < header_.section_count && table_[next].kind <= kLastKnownKind) unexpected(next);
  }

  [[noreturn]] void unexpected(std::uint32_t index) const {
    damaged(name_, entry_place(index, table_[index].kind),
            "no such section with these parameters", shown(table_[index].bytes) + " bytes");
  }

  void check_size(std::uint32_t index, const PlannedSection& plan) const {
    const SectionEntry& entry = table_[index];
    const bool any_size = plan.kind == Section::metadata;
    if ((entry.bytes == plan.bytes || any_size) && entry.record_bytes == plan.record_bytes &&
        entry.flags == plan.flags) {
      return;
    }
    damaged(name_, entry_place(index, entry.kind),
            shown(plan.bytes) + " bytes in records of " + shown(plan.record_bytes) +
                " with flags " + shown(plan.flags),
            shown(entry.bytes) + " in records of " + shown(entry.record_bytes) + " with flags " +
                shown(entry.flags));
  }

  const std::byte* image_;
  std::uint64_t bytes_;
  const std::string& name_;
  FileHeader header_ = {};
  std::vector<SectionEntry> table_;
  Params params_ = {};
};

}  // namespace

namespace detail {

std::string hex(const void* data, std::size_t bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  const unsigned char* from = static_cast<const unsigned char*>(data);
  std::string text;
  for (std::size_t i = 0; i < bytes; ++i) {
    if (i != 0) text += ' ';
    text += kDigits[from[i] >> 4];
    text += kDigits[from[i] & 15];
  }
  return text;
}

std::string hex32(std::uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", static_cast<unsigned>(value));
  return text;
}

[[noreturn]] void damaged(const std::string& name, const std::string& where,
                          const std::string& expected, const std::string& found) {
  throw Error(ErrorCode::format,
              name + " is damaged: " + where + ": expected " + expected + ", found " + found);
}

std::string header_place(const char* field, std::size_t offset) {
  return std::string("header field '") + field + "' at offset " + shown(offset);
}

std::string section_place(const SectionEntry& entry) {
  return std::string("section '") + section_name(static_cast<Section>(entry.kind)) +
         "' at offset " + shown(entry.offset);
}

const SectionEntry* find_entry(const SectionEntry* table, std::uint64_t count,
                               Section kind) noexcept {
  for (std::uint64_t i = 0; i < count; ++i) {
    if (table[i].kind == number(kind)) return &table[i];
  }
  return nullptr;
}

std::uint32_t checksum(const std::byte* image, std::uint64_t offset, std::uint64_t bytes,
                       const Progress& progress) {
  std::uint32_t crc = 0;
  for (std::uint64_t done = 0; done < bytes;) {
    const std::uint64_t step = std::min(kChecksumStep, bytes - done);
    crc = kernels().crc32c(crc, image + offset + done, step);
    if (progress) progress(offset + done, step);
    done += step;
  }
  return crc;
}

// Optional sections, the user's metadata among them, do not change what an index answers.
void compute_identity(const FileHeader& header, const SectionEntry* table, const Params& params,
                      std::uint8_t (&out)[16]) noexcept {
  IdentityHash hash;
  hash.add(header.metric);
  hash.add(header.dtype);
  hash.add(header.dim);
  hash.add(header.item_count);
  hash.add_bytes(&params, sizeof params);
  for (std::uint32_t i = 0; i < header.section_count; ++i) {
    if ((table[i].flags & kRequired) == 0) continue;
    hash.add(table[i].kind);
    hash.add(table[i].bytes);
    hash.add(table[i].crc);
  }
  hash.write(out);
}

std::uint64_t first_bad_utf8(const std::uint8_t* text, std::uint64_t bytes) noexcept {
  const auto continues = [&](std::uint64_t at) { return at < bytes && (text[at] & 0xC0) == 0x80; };
  for (std::uint64_t at = 0; at < bytes;) {
    const std::uint8_t lead = text[at];
    if (lead < 0x80) {
      ++at;
    } else if (lead >= 0xC2 && lead < 0xE0) {
      if (!continues(at + 1)) return at;
      at += 2;
    } else if (lead >= 0xE0 && lead < 0xF0) {
      if (!continues(at + 1) || !continues(at + 2)) return at;
      const std::uint8_t second = text[at + 1];
      if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second >= 0xA0)) return at;
      at += 3;
    } else if (lead >= 0xF0 && lead < 0xF5) {
      if (!continues(at + 1) || !continues(at + 2) || !continues(at + 3)) return at;
      const std::uint8_t second = text[at + 1];
      if ((lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second >= 0x90)) return at;
      at += 4;
    } else {
      return at;
    }
  }
  return bytes;
}

}  // namespace detail

const char* section_name(Section kind) noexcept {
  return number(kind) <= kLastKnownKind ? kSectionNames[number(kind)] : kSectionNames[0];
}

std::uint64_t row_bytes(Dtype dtype, std::uint32_t dim) noexcept {
  return stored_bytes(dtype, dim);
}

const std::byte* View::section(Section kind) const noexcept {
  const SectionEntry* entry = find_entry(table.data(), table.size(), kind);
  return entry == nullptr ? nullptr : image + entry->offset;
}

std::uint64_t View::section_bytes(Section kind) const noexcept {
  const SectionEntry* entry = find_entry(table.data(), table.size(), kind);
  return entry == nullptr ? 0 : entry->bytes;
}

View open_view(const std::byte* image, std::uint64_t bytes, const std::string& name) {
  return Opening(image, bytes, name).open();
}

std::vector<PlannedSection> plan_sections(Metric metric, Dtype dtype, std::uint32_t dim,
                                          std::uint64_t item_count, const Params& params,
                                          std::uint64_t id_text_bytes) {
  const Shape shape{static_cast<std::uint32_t>(metric), static_cast<std::uint32_t>(dtype), dim,
                    item_count};
  Problem problem = problem_of(shape);
  if (!problem) problem = problem_of(shape, params);
  if (problem) {
    throw Error(ErrorCode::invalid_argument, "file layout: field '" + problem.field +
                                                 "': expected " + problem.expected + ", found " +
                                                 problem.found);
  }
  auto sections = sections_of(shape, params, id_text_bytes);
  image_bytes(sections);  // throws when a size does not fit
  return sections;
}

std::uint64_t image_bytes(const std::vector<PlannedSection>& sections) {
  std::uint64_t end = table_end(sections.size());
  for (const PlannedSection& section : sections) {
    end = plus(aligned(end), section.bytes);
    if (end > kSaturated - kSectionAlignment) {
      throw Error(ErrorCode::invalid_argument,
                  std::string("file layout: section '") + section_name(section.kind) +
                      "' does not fit in 64-bit sizes");
    }
  }
  return end;
}

void begin_image(std::byte* image, Metric metric, Dtype dtype, std::uint32_t dim,
                 std::uint64_t item_count, const Params& params,
                 const std::vector<PlannedSection>& sections, const char* library_version) {
  FileHeader header = {};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.endian_mark = kEndianMark;
  std::strncpy(header.library_version, library_version, sizeof header.library_version - 1);
  header.file_bytes = image_bytes(sections);
  header.metric = static_cast<std::uint32_t>(metric);
  header.dtype = static_cast<std::uint32_t>(dtype);
  header.dim = dim;
  header.section_count = static_cast<std::uint32_t>(sections.size());
  header.item_count = item_count;
  std::memcpy(image, &header, sizeof header);

  SectionEntry* entry = table_of(image);
  std::uint64_t end = table_end(sections.size());
  for (const PlannedSection& section : sections) {
    *entry = SectionEntry{number(section.kind), section.flags,        aligned(end),
                          section.bytes,        section.record_bytes, 0,
                          0};
    end = entry->offset + entry->bytes;
    ++entry;
  }
  std::memcpy(mutable_section(image, Section::params), &params, sizeof params);
}

std::byte* mutable_section(std::byte* image, Section kind) noexcept {
  const SectionEntry* entry =
      find_entry(table_of(image), as<FileHeader>(image)->section_count, kind);
  return entry == nullptr ? nullptr : image + entry->offset;
}

void seal_image(std::byte* image, const Progress& progress) {
  FileHeader* header = as<FileHeader>(image);
  SectionEntry* table = table_of(image);
  for (std::uint32_t i = 0; i < header->section_count; ++i) {
    table[i].crc = checksum(image, table[i].offset, table[i].bytes, progress);
  }
  compute_identity(*header, table, *as<Params>(image + table[0].offset), header->identity);
  header->header_crc = header_checksum(*header, table);
}

// Sections after the metadata are of kinds unknown to us: they were optional and are left out,
// which can shorten the table and so move the body, always by whole alignments.
std::vector<std::byte> head_with_metadata(const View& view, const std::string& metadata) {
  const void* text = metadata.data();
  if (first_bad_utf8(static_cast<const std::uint8_t*>(text), metadata.size()) != metadata.size()) {
    throw Error(ErrorCode::invalid_argument, "metadata: expected UTF-8 text");
  }
  const SectionEntry* last = metadata_entry(view);
  const std::uint32_t count = static_cast<std::uint32_t>(last - view.table.data()) + 1;
  std::vector<std::byte> head(aligned(table_end(count)));
  FileHeader* header = as<FileHeader>(head.data());
  SectionEntry* table = table_of(head.data());
  *header = view.header;
  std::copy_n(view.table.data(), count, table);

  const std::uint64_t moved_up = head_bytes(view) - head.size();
  for (std::uint32_t i = 0; i < count; ++i) table[i].offset -= moved_up;
  SectionEntry& entry = table[count - 1];
  entry.bytes = metadata.size();
  entry.crc = kernels().crc32c(0, metadata.data(), metadata.size());
  header->section_count = count;
  header->file_bytes = entry.offset + entry.bytes;
  header->header_crc = header_checksum(*header, table);
  return head;
}

std::uint64_t head_bytes(const View& view) noexcept { return view.table[0].offset; }

std::uint64_t body_end(const View& view) noexcept {
  return metadata_entry(view)->offset;
}

}  // namespace annidx::format
