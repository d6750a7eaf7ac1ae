// verify.cpp owns the check of every byte of an image: checksums, and what format.h promises
// of the values inside sections. It must not know any algorithm, and it must not map or read files.
//
// The view is open, so sections exist with their sizes; their values are untrusted, and each is
// checked before anything is found by it. Memory used is one bit an item at most.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "format/detail.h"
#include "format/format.h"
#include "format/sets.h"
#include "kernels/kernels.h"

namespace annidx::format {

using namespace detail;

namespace {

// Negative, zero or positive as text `a` is before, equal to or after text `b`, byte by byte.
int compare_text(const std::byte* a, std::uint64_t a_bytes, const std::byte* b,
                 std::uint64_t b_bytes) noexcept {
  const int order = std::memcmp(a, b, std::min(a_bytes, b_bytes));
  if (order != 0) return order;
  return a_bytes < b_bytes ? -1 : a_bytes > b_bytes ? 1 : 0;
}

class DeepCheck {
 public:
  DeepCheck(const View& view, const std::string& name)
      : view_(view),
        name_(name),
        params_(view.params),
        items_(view.header.item_count),
        dim_(view.header.dim) {}

  void run(const Progress& progress) const {
    check_head();
    check_checksums(progress);
    check_gaps();
    check_identity();
    check_vectors();
    check_permutation();
    check_ids();
    check_all_floats();
    check_trees();
    check_regions();
    check_tree_slots();
    check_codes();
    check_removed();
    check_curve();
    check_metadata();
    check_sets();
  }

 private:
  template <class T>
  const T* array(Section kind) const noexcept {
    return view_.array<T>(kind);
  }

  template <class T>
  std::uint64_t count(Section kind) const noexcept {
    return view_.section_bytes(kind) / sizeof(T);
  }

  bool has(Section kind) const noexcept { return view_.section(kind) != nullptr; }

  // Refuses the file for element `index` of a section of elements of `size` bytes.
  [[noreturn]] void refuse(Section kind, std::uint64_t index, std::uint64_t size,
                           const std::string& expected, const std::string& found) const {
    const std::uint64_t at =
        static_cast<std::uint64_t>(view_.section(kind) - view_.image) + index * size;
    damaged(name_,
            std::string("section '") + section_name(kind) + "' at offset " + shown(at) +
                " (element " + shown(index) + ")",
            expected, found);
  }

  // Opening has checked its copies of them; the bytes may have changed since.
  void check_head() const {
    expect_unchanged("header", &view_.header, 0, sizeof view_.header);
    expect_unchanged("section table", view_.table.data(), sizeof view_.header,
                     view_.table.size() * sizeof(SectionEntry));
  }

  void expect_unchanged(const char* part, const void* opened, std::uint64_t offset,
                        std::uint64_t bytes) const {
    if (std::memcmp(view_.image + offset, opened, bytes) == 0) return;
    damaged(name_, std::string(part) + " at offset " + shown(offset),
            "the bytes that it was opened with", "others: it was overwritten in place");
  }

  void check_checksums(const Progress& progress) const {
    for (const SectionEntry& entry : view_.table) {
      const std::uint32_t crc = checksum(view_.image, entry.offset, entry.bytes, progress);
      if (crc != entry.crc) {
        damaged(name_, section_place(entry), "checksum " + hex32(entry.crc), hex32(crc));
      }
    }
  }

  void check_gaps() const {
    std::uint64_t end = table_end(view_.table.size());
    for (const SectionEntry& entry : view_.table) {
      for (std::uint64_t at = end; at < entry.offset; ++at) {
        if (view_.image[at] != std::byte{0}) {
          damaged(name_, "padding at offset " + shown(at), "zero", hex(view_.image + at, 1));
        }
      }
      end = entry.offset + entry.bytes;
    }
  }

  void check_identity() const {
    std::uint8_t identity[16];
    compute_identity(view_.header, view_.table.data(), params_, identity);
    if (std::memcmp(identity, view_.header.identity, sizeof identity) != 0) {
      damaged(name_, header_place("identity", offsetof(FileHeader, identity)),
              hex(identity, sizeof identity), hex(view_.header.identity, sizeof identity));
    }
    compute_model_identity(view_.header, view_.table.data(), params_, view_.image, identity);
    if (std::memcmp(identity, view_.header.model_identity, sizeof identity) != 0) {
      damaged(name_, header_place("model_identity", offsetof(FileHeader, model_identity)),
              hex(identity, sizeof identity), hex(view_.header.model_identity, sizeof identity));
    }
  }

  void check_vectors() const {
    const std::uint32_t dtype = view_.header.dtype;
    if (is(dtype, Dtype::float32)) check_finite(Section::vectors);
    if (is(dtype, Dtype::float16)) check_finite_halves();
    if (is(dtype, Dtype::bits)) check_unused_bits();
  }

  void check_finite_halves() const {
    const std::uint16_t* values = array<std::uint16_t>(Section::vectors);
    const std::uint64_t values_count = count<std::uint16_t>(Section::vectors);
    constexpr std::uint16_t kExponent = 0x7C00;  // all ones: infinity or NaN
    for (std::uint64_t i = 0; i < values_count; ++i) {
      if ((values[i] & kExponent) == kExponent) {
        refuse(Section::vectors, i, 2, "a finite number", "float16 bits " + shown(values[i]));
      }
    }
  }

  // Bits after the last dimension would count as differences.
  void check_unused_bits() const {
    if (dim_ % 8 == 0) return;
    const std::uint64_t row = row_bytes(Dtype::bits, dim_);
    const std::uint8_t* bytes = array<std::uint8_t>(Section::vectors);
    const unsigned unused = 0xFFu >> (dim_ % 8);
    for (std::uint64_t slot = 0; slot < items_; ++slot) {
      const std::uint64_t last = slot * row + row - 1;
      if ((bytes[last] & unused) != 0) {
        refuse(Section::vectors, last, 1, "zeros in the bits after the last dimension",
               hex(bytes + last, 1));
      }
    }
  }

  // slot_rows[s] == r and row_slots[r] == s for every s: both are permutations.
  void check_permutation() const {
    const std::uint32_t* slot_rows = array<std::uint32_t>(Section::slot_rows);
    const std::uint32_t* row_slots = array<std::uint32_t>(Section::row_slots);
    for (std::uint64_t slot = 0; slot < items_; ++slot) {
      const std::uint32_t row = slot_rows[slot];
      if (row >= items_) {
        refuse(Section::slot_rows, slot, 4, "a row below " + shown(items_), shown(row));
      }
      if (row_slots[row] != slot) {
        refuse(Section::row_slots, row, 4, "slot " + shown(slot), shown(row_slots[row]));
      }
    }
  }

  // Ids strictly ascending along id_order: it is a permutation, and ids are unique.
  void check_ids() const {
    if (is(params_.id_kind, IdKind::row)) return;
    if (is(params_.id_kind, IdKind::text)) check_texts();
    const std::uint32_t* order = array<std::uint32_t>(Section::id_order);
    for (std::uint64_t i = 0; i < items_; ++i) {
      if (order[i] >= items_) {
        refuse(Section::id_order, i, 4, "a row below " + shown(items_), shown(order[i]));
      }
      if (i != 0 && !id_before(order[i - 1], order[i])) {
        refuse(Section::id_order, i, 4, "the row of an id above that of the element before",
               "row " + shown(order[i]) + " after row " + shown(order[i - 1]));
      }
    }
  }

  bool id_before(std::uint32_t a, std::uint32_t b) const noexcept {
    if (is(params_.id_kind, IdKind::int64)) {
      const std::int64_t* ids = array<std::int64_t>(Section::ids_int64);
      return ids[a] < ids[b];
    }
    const std::uint64_t* offsets = array<std::uint64_t>(Section::id_text_offsets);
    const std::byte* text = view_.section(Section::id_text);
    return compare_text(text + offsets[a], offsets[a + 1] - offsets[a], text + offsets[b],
                        offsets[b + 1] - offsets[b]) < 0;
  }

  void check_texts() const {
    check_text_section(Section::id_text_offsets, Section::id_text, items_);
  }

  // `texts` texts, one after the other, valid UTF-8 each for itself.
  void check_text_section(Section offset_kind, Section text_kind, std::uint64_t texts) const {
    const std::uint64_t* offsets = array<std::uint64_t>(offset_kind);
    const std::uint8_t* text = array<std::uint8_t>(text_kind);
    const std::uint64_t text_bytes = view_.section_bytes(text_kind);
    const auto refuse_offset = [&](std::uint64_t i, const std::string& expected) {
      refuse(offset_kind, i, 8, expected, shown(offsets[i]));
    };
    if (offsets[0] != 0) refuse_offset(0, "0");
    for (std::uint64_t i = 0; i < texts; ++i) {
      const std::uint64_t begin = offsets[i];
      const std::uint64_t end = offsets[i + 1];
      if (end < begin || end > text_bytes) {
        refuse_offset(i + 1, "from " + shown(begin) + " to " + shown(text_bytes));
      }
      const std::uint64_t bad = first_bad_utf8(text + begin, end - begin);
      if (bad != end - begin) {
        refuse(text_kind, begin + bad, 1, "UTF-8 in the id of row " + shown(i),
               hex(text + begin + bad, 1));
      }
    }
    if (offsets[texts] != text_bytes) refuse_offset(texts, shown(text_bytes));
  }

  void check_all_floats() const {
    for (const Section kind :
         {Section::mean, Section::leaf_scales, Section::norm_bounds, Section::leaf_mults,
          Section::leaf_scan_factors, Section::leaf_radii, Section::group_mults, Section::codebook,
          Section::rotation_scales, Section::row_scalars}) {
      check_finite(kind);
    }
  }

  void check_finite(Section kind) const {
    const std::uint64_t values_count = count<float>(kind);
    if (values_count == 0) return;
    const float* values = array<float>(kind);
    const std::uint64_t bad = kernels().first_nonfinite(values, values_count);
    if (bad != values_count) refuse(kind, bad, 4, "a finite number", shown(values[bad]));
  }

  // Trees tile the leaf and group entries; leaves of the first tree tile the slots and the code
  // blocks; leaves of each further tree tile its list; groups tile their tree's leaf blocks.
  void check_trees() const {
    const Tree* trees = array<Tree>(Section::trees);
    std::uint64_t leaves = 0;
    std::uint64_t groups = 0;
    for (std::uint64_t t = 0; t < params_.tree_count; ++t) {
      const Tree& tree = trees[t];
      expect_tree(t,
                  tree.first_leaf_entry == leaves && tree.leaf_entry_count % kPanelWidth == 0 &&
                      tree.leaf_entry_count <= params_.leaf_entries - leaves,
                  "leaf entries from " + shown(leaves) + " up to at most " +
                      shown(params_.leaf_entries) + ", a multiple of 16 of them",
                  tree.first_leaf_entry, tree.leaf_entry_count);
      expect_tree(t,
                  tree.first_group_entry == groups && tree.group_entry_count % kPanelWidth == 0 &&
                      tree.group_entry_count <= params_.group_entries - groups,
                  "group entries from " + shown(groups) + " up to at most " +
                      shown(params_.group_entries) + ", a multiple of 16 of them",
                  tree.first_group_entry, tree.group_entry_count);
      check_leaves(t, tree);
      check_groups(tree);
      leaves += tree.leaf_entry_count;
      groups += tree.group_entry_count;
    }
    const std::uint64_t last = params_.tree_count - 1;
    expect_tree(last, leaves == params_.leaf_entries,
                "leaves up to entry " + shown(params_.leaf_entries), trees[last].first_leaf_entry,
                trees[last].leaf_entry_count);
    expect_tree(last, groups == params_.group_entries,
                "groups up to entry " + shown(params_.group_entries), trees[last].first_group_entry,
                trees[last].group_entry_count);
  }

  void expect_tree(std::uint64_t tree, bool holds, const std::string& expected, std::uint32_t first,
                   std::uint32_t entries) const {
    if (holds) return;
    refuse(Section::trees, tree, sizeof(Tree), expected, shown(entries) + " from " + shown(first));
  }

  void check_leaves(std::uint64_t tree_number, const Tree& tree) const {
    const LeafRange* ranges = array<LeafRange>(Section::leaf_ranges);
    const bool coded = tree_number == 0 && is(params_.scan_kind, ScanKind::codes);
    // Slots of the first tree; of a further one, entries of its part of tree_slots.
    std::uint64_t next = tree_number == 0 ? 0 : (tree_number - 1) * items_;
    const std::uint64_t end = next + items_;
    std::uint64_t next_block = 0;
    const bool has_centroids = coded && params_.centroid_blocks > 0;
    std::uint64_t next_centroids = 0;
    for (std::uint32_t i = 0; i < tree.leaf_entry_count; ++i) {
      const std::uint64_t entry = std::uint64_t{tree.first_leaf_entry} + i;
      const LeafRange& leaf = ranges[entry];
      const bool padding = leaf.count == 0;
      const std::uint64_t first = padding ? 0 : next;
      const std::uint64_t block = padding ? 0 : next_block;
      const std::uint64_t centroids = padding ? 0 : next_centroids;
      if (leaf.first != first || leaf.count > end - next || leaf.first_block != block ||
          leaf.first_centroid_block != centroids || leaf.reserved != 0) {
        refuse(Section::leaf_ranges, entry, sizeof(LeafRange),
               "first " + shown(first) + ", at most " + shown(end - next) + " points, blocks " +
                   shown(block) + " and " + shown(centroids),
               "first " + shown(leaf.first) + ", " + shown(leaf.count) + " points, blocks " +
                   shown(leaf.first_block) + " and " + shown(leaf.first_centroid_block));
      }
      check_bias(Section::leaf_biases, entry, padding);
      next += leaf.count;
      if (coded) next_block += ceil_divide(leaf.count, kBlockPoints);
      if (has_centroids) next_centroids += ceil_divide(blocks_of(leaf), kBlockPoints);
    }
    expect_tree(tree_number, next == end, "leaves that hold " + shown(items_) + " points",
                tree.first_leaf_entry, tree.leaf_entry_count);
    if (tree_number != 0) return;
    expect_count("block_count", next_block, params_.block_count);
    expect_count("centroid_blocks", next_centroids, params_.centroid_blocks);
  }

  // A leaf has a scale; its region is one of those there are. Bounds of norms ascend.
  void check_regions() const {
    const LeafRange* ranges = array<LeafRange>(Section::leaf_ranges);
    const float* scales = array<float>(Section::leaf_scales);
    for (std::uint64_t i = 0; i < params_.leaf_entries; ++i) {
      if (scales[i] > 0.0f || (scales[i] == 0.0f && ranges[i].count == 0)) continue;
      refuse(Section::leaf_scales, i, 4, "a positive number, or 0 in padding", shown(scales[i]));
    }
    if (has(Section::leaf_regions)) {
      const std::uint8_t* regions = array<std::uint8_t>(Section::leaf_regions);
      for (std::uint64_t i = 0; i < params_.leaf_entries; ++i) {
        if (regions[i] < params_.region_count) continue;
        refuse(Section::leaf_regions, i, 1, "less than " + shown(params_.region_count),
               shown(unsigned{regions[i]}));
      }
    }
    const float* bounds = array<float>(Section::norm_bounds);
    for (std::uint64_t i = 0; i < count<float>(Section::norm_bounds); ++i) {
      if (bounds[i] > (i == 0 ? 0.0f : bounds[i - 1])) continue;
      refuse(Section::norm_bounds, i, 4, "more than the one before", shown(bounds[i]));
    }
  }

  static std::uint64_t blocks_of(const LeafRange& leaf) noexcept {
    return ceil_divide(leaf.count, kBlockPoints);
  }

  void expect_count(const char* field, std::uint64_t expected, std::uint64_t found) const {
    if (expected == found) return;
    damaged(name_, std::string("section 'params', field '") + field + "'", shown(expected),
            shown(found));
  }

  void check_groups(const Tree& tree) const {
    if (tree.group_entry_count == 0) return;
    const GroupRange* ranges = array<GroupRange>(Section::group_ranges);
    std::uint64_t next = tree.first_leaf_entry / kPanelWidth;
    const std::uint64_t end = next + tree.leaf_entry_count / kPanelWidth;
    for (std::uint32_t i = 0; i < tree.group_entry_count; ++i) {
      const std::uint64_t entry = std::uint64_t{tree.first_group_entry} + i;
      const GroupRange& group = ranges[entry];
      const bool padding = group.leaf_blocks == 0;
      const std::uint64_t first = padding ? 0 : next;
      if (group.first_leaf_block != first || group.leaf_blocks > end - next) {
        refuse(Section::group_ranges, entry, sizeof(GroupRange),
               "first leaf block " + shown(first) + ", at most " + shown(end - next) + " blocks",
               shown(group.leaf_blocks) + " from " + shown(group.first_leaf_block));
      }
      check_bias(Section::group_biases, entry, padding);
      next += group.leaf_blocks;
    }
    if (next != end) {
      refuse(Section::group_ranges, tree.first_group_entry, sizeof(GroupRange),
             "groups up to leaf block " + shown(end), "up to " + shown(next));
    }
  }

  // +inf keeps a padding entry from ever being chosen.
  void check_bias(Section kind, std::uint64_t entry, bool padding) const {
    const float bias = array<float>(kind)[entry];
    const float infinity = std::numeric_limits<float>::infinity();
    if (padding ? bias == infinity : std::isfinite(bias)) return;
    refuse(kind, entry, 4, padding ? "inf in a padding entry" : "a finite number", shown(bias));
  }

  void check_tree_slots() const {
    const std::uint32_t* slots = array<std::uint32_t>(Section::tree_slots);
    for (std::uint64_t tree = 1; tree < params_.tree_count; ++tree) {
      const std::uint64_t begin = (tree - 1) * items_;
      expect_permutation(Section::tree_slots, slots + begin, begin, items_);
    }
  }

  // `values` are elements [begin, begin + values_count) of the section.
  void expect_permutation(Section kind, const std::uint32_t* values, std::uint64_t begin,
                          std::uint64_t values_count) const {
    std::vector<bool> seen(values_count);
    for (std::uint64_t i = 0; i < values_count; ++i) {
      const std::uint32_t value = values[i];
      if (value >= values_count || seen[value]) {
        refuse(kind, begin + i, 4, "a number below " + shown(values_count) + " not met before",
               shown(value));
      }
      seen[value] = true;
    }
  }

  void check_codes() const {
    if (!is(params_.scan_kind, ScanKind::codes)) return;
    check_first_dims();
    check_code_blocks();
    check_records();
    check_neighbours();
    expect_permutation(Section::rotation_order, array<std::uint32_t>(Section::rotation_order), 0,
                       dim_);
    check_rotation_padding();
  }

  void check_first_dims() const {
    const std::uint16_t* first = array<std::uint16_t>(Section::code_first_dims);
    for (std::uint64_t i = 0; i <= params_.code_count; ++i) {
      const std::uint64_t low = i == 0 ? 0 : i == params_.code_count ? dim_ : first[i - 1];
      const std::uint64_t high = i == 0 ? 0 : dim_;
      if (first[i] < low || first[i] > high) {
        refuse(Section::code_first_dims, i, 2, "from " + shown(low) + " to " + shown(high),
               shown(first[i]));
      }
    }
  }

  // Codes and scalars of the points that a leaf's last block lacks are zero; so are those of the
  // centroids that its last centroid block lacks.
  void check_code_blocks() const {
    const LeafRange* ranges = array<LeafRange>(Section::leaf_ranges);
    const std::uint32_t entries = array<Tree>(Section::trees)[0].leaf_entry_count;
    for (std::uint32_t entry = 0; entry < entries; ++entry) {
      const LeafRange& leaf = ranges[entry];
      check_blocks(Section::codes, leaf.first_block, leaf.count);
      if (params_.centroid_blocks == 0) continue;
      check_blocks(Section::block_centroids, leaf.first_centroid_block, blocks_of(leaf));
    }
  }

  // The blocks from `first` on of so many points.
  void check_blocks(Section kind, std::uint64_t first, std::uint64_t points) const {
    for (std::uint64_t at = 0; at < points; at += kBlockPoints) {
      const std::uint64_t in_block = std::min<std::uint64_t>(kBlockPoints, points - at);
      check_block(kind, first + at / kBlockPoints, in_block);
    }
  }

  void check_block(Section kind, std::uint64_t block, std::uint64_t points) const {
    const std::uint64_t bytes = code_block_bytes(params_.code_count);
    const std::uint64_t begin = block * bytes;
    const std::uint64_t code_bytes = std::uint64_t{params_.code_count} * kBlockCodeBytes;
    const std::uint8_t* section = array<std::uint8_t>(kind);
    for (std::uint64_t i = 0; points < kBlockPoints && i < code_bytes; ++i) {
      const std::uint64_t lane = i % kBlockCodeBytes;
      const unsigned unused =
          (lane >= points ? 0x0Fu : 0u) | (kBlockCodeBytes + lane >= points ? 0xF0u : 0u);
      if ((section[begin + i] & unused) != 0) {
        refuse(kind, begin + i, 1, "zero codes after the last point", hex(section + begin + i, 1));
      }
    }
    for (std::uint64_t lane = 0; lane < kBlockPoints; ++lane) {
      const std::uint64_t at = begin + code_bytes + lane * sizeof(float);
      float scalar;
      std::memcpy(&scalar, section + at, sizeof(scalar));
      const bool good = lane < points ? std::isfinite(scalar) : scalar == 0.0f;
      if (!good) refuse(kind, at, 1, lane < points ? "a finite scalar" : "0", shown(scalar));
    }
  }

  // A record says again what the point's block and leaf say.
  void check_records() const {
    if (params_.record_bytes == 0) return;
    const LeafRange* ranges = array<LeafRange>(Section::leaf_ranges);
    const std::uint32_t entries = array<Tree>(Section::trees)[0].leaf_entry_count;
    for (std::uint32_t entry = 0; entry < entries; ++entry) {
      for (std::uint32_t i = 0; i < ranges[entry].count; ++i) check_record(entry, ranges[entry], i);
    }
  }

  void check_record(std::uint32_t entry, const LeafRange& leaf, std::uint32_t place) const {
    const std::uint64_t slot = leaf.first + place;
    const std::uint8_t* record =
        array<std::uint8_t>(Section::code_records) + slot * params_.record_bytes;
    const std::uint8_t* block =
        array<std::uint8_t>(Section::codes) +
        (leaf.first_block + place / kBlockPoints) * code_block_bytes(params_.code_count);
    const std::size_t lane = place % kBlockPoints;
    CodeRecordTail expected{};
    std::memcpy(&expected.scalar,
                block + params_.code_count * kBlockCodeBytes + lane * sizeof(float), sizeof(float));
    expected.entry = entry;
    bool same = std::memcmp(record + params_.code_count / 2, &expected, sizeof(expected)) == 0;
    for (std::uint32_t m = 0; m < params_.code_count; ++m) {
      const unsigned pair = block[m * kBlockCodeBytes + lane % kBlockCodeBytes];
      const unsigned code = lane < kBlockCodeBytes ? pair & 15u : pair >> 4;
      same = same && (m % 2 == 0 ? record[m / 2] & 15u : record[m / 2] >> 4) == code;
    }
    if (!same) {
      refuse(Section::code_records, slot, params_.record_bytes,
             "the codes, scalar and leaf of its slot", "others");
    }
    expect_zeros(Section::code_records, array<std::uint8_t>(Section::code_records),
                 slot * params_.record_bytes + params_.code_count / 2 + sizeof(expected),
                 (slot + 1) * params_.record_bytes);
  }

  // Lists name other slots; behind kNoNeighbour stands nothing else.
  void check_neighbours() const {
    if (params_.neighbour_count == 0) return;
    const std::uint32_t all_ones = kNoNeighbour >> (32 - 8 * params_.neighbour_bytes);
    const std::uint8_t* lists = array<std::uint8_t>(Section::neighbours);
    for (std::uint64_t slot = 0; slot < items_; ++slot) {
      bool ended = false;
      for (std::uint32_t i = 0; i < params_.neighbour_count; ++i) {
        const std::uint64_t entry = slot * params_.neighbour_count + i;
        std::uint32_t other = 0;
        std::memcpy(&other, lists + entry * params_.neighbour_bytes, params_.neighbour_bytes);
        ended = ended || other == all_ones;
        if (ended ? other != all_ones : other >= items_ || other == slot) {
          refuse(Section::neighbours, entry, params_.neighbour_bytes,
                 ended ? "no neighbour behind the end of a list"
                       : "another slot below " + shown(items_),
                 shown(other));
        }
      }
    }
  }

  // The last block of input dimensions may be shorter than rotation_block.
  void check_rotation_padding() const {
    const std::uint64_t block = params_.rotation_block;
    const std::uint8_t* matrix = array<std::uint8_t>(Section::rotation);
    const std::uint64_t last_width = dim_ % block;
    if (last_width == 0) return;
    for (std::uint64_t row = dim_ - last_width; row < dim_; ++row) {
      expect_zeros(Section::rotation, matrix, row * block + last_width, (row + 1) * block);
    }
  }

  void expect_zeros(Section kind, const std::uint8_t* bytes, std::uint64_t begin,
                    std::uint64_t end) const {
    for (std::uint64_t at = begin; at < end; ++at) {
      if (bytes[at] != 0) refuse(kind, at, 1, "zero padding", hex(bytes + at, 1));
    }
  }

  // Ids that were removed ascend strictly.
  void check_removed() const {
    const std::int64_t* ids = array<std::int64_t>(Section::removed_ids);
    for (std::uint64_t i = 1; ids && i < params_.removed_count; ++i) {
      if (ids[i - 1] < ids[i]) continue;
      refuse(Section::removed_ids, i, 8, "more than " + shown(ids[i - 1]), shown(ids[i]));
    }
    if (has(Section::removed_text_offsets)) check_removed_texts();
  }

  void check_removed_texts() const {
    check_text_section(Section::removed_text_offsets, Section::removed_text, params_.removed_count);
    const std::uint64_t* offsets = array<std::uint64_t>(Section::removed_text_offsets);
    const std::byte* text = view_.section(Section::removed_text);
    for (std::uint64_t i = 1; i < params_.removed_count; ++i) {
      const int order = compare_text(text + offsets[i - 1], offsets[i] - offsets[i - 1],
                                     text + offsets[i], offsets[i + 1] - offsets[i]);
      if (order >= 0) {
        refuse(Section::removed_text_offsets, i, 8, "a text after the one before", "another");
      }
    }
  }

  // k ascends, and recall within one k.
  void check_curve() const {
    const CurvePoint* points = array<CurvePoint>(Section::curve);
    for (std::uint64_t i = 0; i < params_.curve_points; ++i) {
      const CurvePoint& point = points[i];
      const auto require = [&](bool holds, const char* expected, const std::string& found) {
        if (!holds) refuse(Section::curve, i, sizeof(CurvePoint), expected, found);
      };
      require(point.k >= 1, "k of at least 1", "0");
      require(point.recall >= 0.0f && point.recall <= 1.0f, "a recall from 0 to 1",
              shown(point.recall));
      require(std::isfinite(point.far_ratio) && point.far_ratio >= 0.0f,
              "a finite far_ratio of at least 0", shown(point.far_ratio));
      if (i == 0) continue;
      const CurvePoint& before = points[i - 1];
      require(point.k >= before.k, "k ascending", shown(point.k) + " after " + shown(before.k));
      require(point.k != before.k || point.recall >= before.recall, "recall ascending",
              shown(point.recall) + " after " + shown(before.recall));
    }
  }

  void check_metadata() const {
    const std::uint8_t* text = array<std::uint8_t>(Section::metadata);
    const std::uint64_t bytes = view_.section_bytes(Section::metadata);
    const std::uint64_t bad = first_bad_utf8(text, bytes);
    if (bad != bytes) refuse(Section::metadata, bad, 1, "UTF-8", hex(text + bad, 1));
  }

  void check_sets() const {
    if (!has(Section::sets)) return;
    SetsView(view_.section(Section::sets), view_.section_bytes(Section::sets), items_, name_)
        .verify();
  }

  const View& view_;
  const std::string& name_;
  const Params& params_;
  const std::uint64_t items_;
  const std::uint32_t dim_;
};

}  // namespace

void verify_deep(const View& view, const std::string& name, const Progress& progress) {
  DeepCheck(view, name).run(progress);
}

}  // namespace annidx::format
