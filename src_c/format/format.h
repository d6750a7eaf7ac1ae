// format.h owns the bytes on disk: every struct, the section table, the validator, the layout.
// It must not know any algorithm, and it must not map or write files: it works on memory that the
// caller holds. docs/FORMAT.md says the same for people; change both together.
//
// A file is: FileHeader, SectionEntry[section_count], then the sections in table order, each
// starting at the next multiple of kSectionAlignment, gaps filled with zeros, and nothing after
// the last section. All numbers are little-endian. Nothing in it depends on time, path or machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/types.h"

namespace annidx::format {

inline constexpr char kMagic[8] = {'\x89', 'A', 'N', 'N', 'I', 'D', 'X', '\n'};
inline constexpr std::uint32_t kVersion = 2;
inline constexpr std::uint32_t kEndianMark = 0x01020304u;
inline constexpr std::uint64_t kSectionAlignment = 64;
inline constexpr std::uint32_t kMaxSections = 64;

// What a file is there for. All of them hold a whole model, and open and verify alike.
enum class FileKind : std::uint32_t {
  index = 1,    // rows to be asked
  model = 2,    // no rows: what others are coded by
  part = 3,     // rows coded by a model, to be merged
  changes = 4,  // rows added to an index, and ids removed from it
};

struct FileHeader {
  char magic[8];
  std::uint32_t version;
  std::uint32_t endian_mark;
  char library_version[16];  // NUL-padded text of the writer
  std::uint64_t file_bytes;
  std::uint32_t metric;  // types.h Metric
  std::uint32_t dtype;   // types.h Dtype
  std::uint32_t dim;     // of the vectors as the user sees them (bits for hamming)
  std::uint32_t section_count;
  std::uint64_t item_count;
  std::uint8_t identity[16];        // of the content: parameters and all sections' checksums
  std::uint32_t kind;               // FileKind
  std::uint8_t model_identity[16];  // of what divides and codes the rows
  std::uint8_t base_identity[16];   // of changes: of the index that they change; else zero
  std::uint8_t reserved[8];         // zero
  std::uint32_t header_crc;         // CRC-32C of header and table, this field taken as zero
};
static_assert(sizeof(FileHeader) == 128);

enum class Section : std::uint32_t {
  params = 1,           // Params
  vectors = 2,          // item_count rows as stored, in slot order
  slot_rows = 3,        // u32[item_count]: slot -> row
  row_slots = 4,        // u32[item_count]: row -> slot
  ids_int64 = 5,        // i64[item_count], row order (id_kind int64)
  id_order = 6,         // u32[item_count]: rows sorted by id (id_kind int64 or text)
  id_text_offsets = 7,  // u64[item_count + 1] into id_text, row order (id_kind text)
  id_text = 8,          // UTF-8
  mean = 9,             // f32[dim]: subtracted before partition and codes
  trees = 10,           // Tree[tree_count]
  leaf_ranges = 11,     // LeafRange[leaf_entries]
  leaf_centroids = 12,  // u8[leaf_entries * dim4], blocks of 16 centroids (kernels.h route_scores)
  leaf_scales = 13,     // f32[leaf_entries]: centroid = scale * (byte - 128); 0 in padding entries
  leaf_regions = 14,    // u8[leaf_entries], if region_count > 1: whose rows the leaf takes
  norm_bounds = 15,  // f32[region_count - 1], of dot: the least norm of each region but the first
  leaf_mults = 16,   // f32[leaf_entries]
  leaf_biases = 17,  // f32[leaf_entries]; +inf in entries without points
  leaf_scan_factors = 18,  // f32[leaf_entries]
  leaf_radii = 19,         // f32[leaf_entries]: bound for radius queries
  group_ranges = 20,       // GroupRange[group_entries]
  group_centroids = 21,    // as leaf_centroids
  group_mults = 22,        // f32[group_entries]
  group_biases = 23,       // f32[group_entries]
  tree_slots = 24,         // u32[(tree_count - 1) * item_count]: slots of further trees, leaf order
  codes = 25,              // block_count code blocks of the points (kernels.h scan_codes_*)
  block_centroids = 26,    // centroid_blocks code blocks of the centroids of the points' blocks
  code_records = 27,       // CodeRecord[item_count], slot order
  neighbours = 28,         // neighbour_count slots of neighbour_bytes each a point, slot order
  codebook = 29,           // f32[dim * 16]
  code_first_dims = 30,    // u16[code_count + 1]
  rotation = 31,           // i8[dim * rotation_block]: each row's own block of input dimensions
  rotation_scales = 32,    // f32[dim]
  rotation_order = 33,     // u32[dim]: where each rotated component goes
  byte_rows = 34,          // 8-bit copies of the vectors (re-ranking; L1 sketch), slot order
  row_scalars = 35,        // f32[item_count * 2]: mult, bias of kernels.h RowScalars, slot order
  removed_ids = 36,  // i64[removed_count], ascending (changes of an index with int64 or row ids)
  removed_text_offsets =
      37,             // u64[removed_count + 1] into removed_text (changes, text ids), ascending
  removed_text = 38,  // UTF-8
  curve = 39,         // CurvePoint[curve_points]
  metadata = 40,      // UTF-8 JSON the user gave at save, 0 bytes if none; an optional section,
                      // but every file of this version has it
  sets = 41,          // named sets of rows (sets.h); optional, in files that have any. It and the
                      // metadata are what saving writes anew: they come last.
};
inline constexpr std::uint64_t kSetsAlignment = 8;  // record_bytes of the section `sets`
const char* section_name(Section kind) noexcept;    // "leaf_ranges"; "unknown" for others

inline constexpr std::uint32_t kRequired = 1;  // flag: a reader that does not know it must refuse

struct SectionEntry {
  std::uint32_t kind;
  std::uint32_t flags;
  std::uint64_t offset;
  std::uint64_t bytes;
  std::uint64_t record_bytes;  // bytes is a multiple of it
  std::uint32_t crc;           // CRC-32C of the section's bytes
  std::uint32_t reserved;      // zero
};
static_assert(sizeof(SectionEntry) == 40);

// How leaves are scanned.
enum class ScanKind : std::uint32_t {
  codes = 1,      // 4-bit codes, then byte rows, then vectors
  byte_rows = 2,  // L1 over byte_rows (or over the vectors themselves if they are bytes)
  bits = 3,       // popcount over the vectors
  vectors = 4,    // the vectors themselves (few dimensions or few items)
};

struct Params {
  std::uint32_t id_kind;         // types.h IdKind
  std::uint32_t scan_kind;       // ScanKind
  std::uint32_t tree_count;      // >= 1
  std::uint32_t work_dim4;       // dim rounded up to a multiple of 4
  std::uint32_t leaf_entries;    // multiple of 16, over all trees
  std::uint32_t group_entries;   // multiple of 16; 0: all leaves are scored
  std::uint32_t block_count;     // blocks of 32 codes; 0 unless scan_kind is codes
  std::uint32_t code_count;      // sub-quantizers, multiple of 4, <= 256; 0 unless codes
  std::uint32_t rotation_block;  // input dimensions of a rotation row, 1..dim; 0 unless codes
  std::uint32_t byte_row_bytes;  // dim if scan_kind is codes or byte_rows and vectors are floats;
                                 // otherwise 0: no byte_rows section
  std::uint32_t curve_points;
  std::uint32_t given_bytes;  // 1: int8/uint8 vectors are kept exactly as given
  float value_scale;          // a stored value times this is the vector's value; 1 unless int8
  float byte_scale;           // L1 sketch: step of byte_rows
  float byte_offset;          // L1 sketch: value of byte 0
  float default_recall;       // target of build(recall=)
  float residual_weight;      // beta of the code scalars (for information)
  std::uint32_t build_seed_low, build_seed_high;
  std::uint32_t leaf_points;      // target size of a leaf at build (for information)
  float work_scale;               // power of two: stored values times this are at most 1 in size
  std::uint32_t centroid_blocks;  // code blocks of block centroids; 0: leaves are scanned whole
  float centroid_scale;           // block centroids' residuals are coded times this; 1 without
  std::uint32_t record_bytes;     // of a code record; 0: none
  std::uint32_t neighbour_count;  // entries of a point's list; 0: no lists. Needs records.
  std::uint32_t neighbour_bytes;  // of an entry: 3 or 4; 0 without lists
  std::uint32_t has_blocks;       // 1: leaves are cut into blocks, whose centroids are coded
  std::uint32_t region_count;     // 1: leaves take any row; else norm bands of dot, or 2: zero
                                  // vectors have leaves of their own
  float norm_unit;                // dot: norms are relative to this, in units of 2^8; else 0
  float radius_weight;            // of mean squared radii in the biases of leaves
  std::uint32_t removed_count;    // of changes: ids removed from the base; else 0
  std::uint32_t reserved[1];      // zero
};
static_assert(sizeof(Params) == 128);

struct Tree {
  std::uint32_t first_leaf_entry;   // multiple of 16
  std::uint32_t leaf_entry_count;   // multiple of 16
  std::uint32_t first_group_entry;  // multiple of 16
  std::uint32_t group_entry_count;  // multiple of 16; 0: score every leaf of the tree
};
static_assert(sizeof(Tree) == 16);

// Leaf of the first tree: slots [first, first + count), codes from block first_block, centroids of
// its blocks of 32 points in code blocks from first_centroid_block.
// Leaf of a further tree: entries [first, first + count) of tree_slots; both blocks are 0.
// In entry order each leaf starts where the one before ended; entries without points, which may
// stand anywhere, are all zero. Padding is told from an empty leaf by its scale.
struct LeafRange {
  std::uint64_t first;
  std::uint32_t count;  // 0 in padding entries, and in leaves without points
  std::uint32_t first_block;
  std::uint32_t first_centroid_block;
  std::uint32_t reserved;  // zero
};
static_assert(sizeof(LeafRange) == 24);

struct GroupRange {
  std::uint32_t first_leaf_block;  // 16 leaf entries a block, counted over all trees
  std::uint32_t leaf_blocks;       // 0 in padding entries
};
static_assert(sizeof(GroupRange) == 8);

// What stands behind the codes of a code record (code_count / 2 bytes: byte j holds code 2j in its
// low 4 bits and code 2j + 1 in its high ones); zeros fill the record up to record_bytes.
struct CodeRecordTail {
  float scalar;         // as in the point's code block
  std::uint32_t entry;  // of the point's leaf
};
static_assert(sizeof(CodeRecordTail) == 8);
// Bytes of a code record; kernels read its codes in pieces of 16 bytes, for which it has room.
std::uint32_t record_bytes_for(std::uint32_t code_count) noexcept;
// An entry of a list that names no neighbour, in as many bytes as it has; none stands behind it.
inline constexpr std::uint32_t kNoNeighbour = 0xFFFFFFFFu;
// Bytes of an entry: 3 as long as they can tell so many points and kNoNeighbour apart.
std::uint32_t neighbour_bytes_for(std::uint64_t item_count) noexcept;

// One measured setting: inspecting `candidates` points and re-ranking so many finds this share
// of the true k nearest. Points of one k stand together, recall ascending.
struct CurvePoint {
  std::uint32_t k;
  float recall;
  std::uint32_t opened;      // points of visited leaves
  std::uint32_t candidates;  // of these, scanned
  std::uint32_t expanded;    // of these, whose lists are read, a round
  std::uint32_t rerank;      // of all met, re-ranked by byte rows
  std::uint32_t exact;       // of these, scored by the vectors
  float far_ratio;           // queries beyond it are far from all items (reach.h); 0: not told
};
static_assert(sizeof(CurvePoint) == 32);

// Told [offset, offset + bytes) of the image each time a part has been read through, at most
// 16 MiB later than the last time: to show progress, give pages back, or stop (by throwing).
using Progress = std::function<void(std::uint64_t offset, std::uint64_t bytes)>;

// Bytes of one stored vector.
std::uint64_t row_bytes(Dtype dtype, std::uint32_t dim) noexcept;

// ---- reading ---------------------------------------------------------------------------

// Header, table and params are copies, made before they were checked: a file that is overwritten in
// place changes what sections hold, never where they are.
struct View {
  FileHeader header = {};
  Params params = {};
  std::vector<SectionEntry> table;
  const std::byte* image = nullptr;
  std::uint64_t image_bytes = 0;

  // nullptr / 0 when the section is absent.
  const std::byte* section(Section kind) const noexcept;
  std::uint64_t section_bytes(Section kind) const noexcept;
  template <class T>
  const T* array(Section kind) const noexcept;  // the section as an array of T
};

// Checks everything that costs O(sections) and no more: magic (not an annidx file), version (too
// new), endian mark, file size, header checksum, table order, bounds, alignment, exact coverage,
// duplicate kinds, unknown required kinds (named), enum values, metric x dtype x scan kind, the
// checksum and values of Params, and that each section's size is what Params, dim and item_count
// say. Then every section that the parameters ask for is there with its exact size, and no other
// known one, so that only *values inside* sections remain untrusted. `name` (a path, or "bytes")
// opens every message. Throws Error(format). `image` must be 8-byte aligned and outlive the view.
View open_view(const std::byte* image, std::uint64_t bytes, const std::string& name);

// Every checksum and every deep invariant: padding zero, the identity, permutations are inverse of
// each other, leaves of the first tree tile the slots, leaves of each further tree tile its list
// and the list is a permutation, groups tile the leaf blocks, ids sorted and unique, text offsets
// ascending and valid UTF-8, code_first_dims ascending to dim, rotation_order a permutation, floats
// finite (but biases +inf in padding), curve ascending and recalls in 0..1. Throws Error(format)
// naming file, section, offset and what was found at the first damage.
void verify_deep(const View& view, const std::string& name, const Progress& progress = {});

// ---- writing ---------------------------------------------------------------------------

struct PlannedSection {
  Section kind;
  std::uint32_t flags;
  std::uint64_t bytes;
  std::uint64_t record_bytes;
};

// Bytes of the texts of ids, and of those removed.
struct TextBytes {
  std::uint64_t ids = 0;
  std::uint64_t removed = 0;
};

// What goes into a file of these parameters, in file order (kinds ascending; metadata last and
// of zero bytes: it is always planned, and sets never are). `texts` matters for text ids only.
// Throws Error(invalid_argument) for parameters that open_view would refuse.
std::vector<PlannedSection> plan_sections(FileKind kind, Metric metric, Dtype dtype,
                                          std::uint32_t dim, std::uint64_t item_count,
                                          const Params& params, const TextBytes& texts);
// Total bytes of a file with these sections. Throws Error(invalid_argument) on 64-bit overflow.
std::uint64_t image_bytes(const std::vector<PlannedSection>& sections);

// Lays the header, table and Params into zeroed memory of image_bytes(); checksums come later.
// After it, mutable_section() gives the place of each section.
// `base` is the identity of the index that changes belong to, else null.
void begin_image(std::byte* image, FileKind kind, Metric metric, Dtype dtype, std::uint32_t dim,
                 std::uint64_t item_count, const Params& params,
                 const std::vector<PlannedSection>& sections, const char* library_version,
                 const std::uint8_t* base);
std::byte* mutable_section(std::byte* image, Section kind) noexcept;
template <class T>
T* mutable_array(std::byte* image, Section kind) noexcept;
// Computes the sections' checksums, both identities and the header checksum. Call when all is
// filled.
void seal_image(std::byte* image, const Progress& progress = {});
// The header and table of a sealed image, with `metadata` (UTF-8) and `sets` (as write_sets makes
// them; without bytes no section) in place of its own: the bytes that go before the body. The body
// is [head_bytes, body_end) of the image and is followed by the metadata, metadata_padding zeros
// and the sets; without sets by the metadata alone. The identity stays; optional sections unknown
// to us are left out.
struct Bytes {
  const std::byte* data = nullptr;
  std::uint64_t size = 0;
};
std::vector<std::byte> head_with(const View& view, const std::string& metadata, const Bytes& sets);
std::uint64_t metadata_padding(const std::string& metadata) noexcept;
bool is_text(const std::string& metadata) noexcept;  // UTF-8
void require_text(const std::string& metadata);      // Error(invalid_argument) unless it is UTF-8
std::uint64_t head_bytes(const View& view) noexcept;
std::uint64_t body_end(const View& view) noexcept;  // where the metadata section starts

// ---- templates -------------------------------------------------------------------------

template <class T>
const T* View::array(Section kind) const noexcept {
  return static_cast<const T*>(static_cast<const void*>(section(kind)));
}
template <class T>
T* mutable_array(std::byte* image, Section kind) noexcept {
  return static_cast<T*>(static_cast<void*>(mutable_section(image, kind)));
}

}  // namespace annidx::format
