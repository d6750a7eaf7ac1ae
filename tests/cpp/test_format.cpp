// Tests of src_c/format: images of many kinds are built, opened and verified; then truncated,
// damaged byte by byte and planted with faults. Build: g++ -std=c++17 -g -O1
// -fsanitize=address,undefined -ffp-contract=off -Isrc_c
//   tests/cpp/test_format.cpp src_c/format/*.cpp src_c/os/*.cpp src_c/rows/metric.cpp
//   src_c/kernels/*.cpp
// Run: ./test_format [FOLDER]; with a folder, the images are written there and kept.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "format/format.h"
#include "format/sets.h"
#include "kernels/kernels.h"
#include "os/file.h"

using namespace annidx;
using namespace annidx::format;
using namespace annidx_test;

namespace {

// ---- images ----------------------------------------------------------------------------

// A copy of exactly its bytes on the heap, so that the sanitizer sees every read outside.
class Image {
 public:
  explicit Image(std::uint64_t bytes) : data_(new std::byte[bytes]()), bytes_(bytes) {}
  Image(const std::byte* from, std::uint64_t bytes) : Image(bytes) {
    if (bytes != 0) std::memcpy(data_.get(), from, bytes);
  }
  Image(const Image& other) : Image(other.data(), other.bytes()) {}
  Image& operator=(const Image&) = delete;
  std::byte* data() const { return data_.get(); }
  std::uint64_t bytes() const { return bytes_; }
  FileHeader& header() const { return *static_cast<FileHeader*>(static_cast<void*>(data())); }
  SectionEntry* table() const {
    return static_cast<SectionEntry*>(static_cast<void*>(data() + sizeof(FileHeader)));
  }
  SectionEntry& entry(Section kind) const {
    SectionEntry* found = table();
    while (found->kind != static_cast<std::uint32_t>(kind)) ++found;
    return *found;
  }
  template <class T>
  T* array(Section kind) const {
    return mutable_array<T>(data(), kind);
  }
  Params& params() const { return *array<Params>(Section::params); }
  View open() const { return open_view(data(), bytes(), "test"); }
  void repair_header() const {
    header().header_crc = 0;
    const std::uint64_t head = sizeof(FileHeader) + header().section_count * sizeof(SectionEntry);
    header().header_crc = kernels().crc32c(0, data(), std::min(head, bytes()));
  }

 private:
  std::unique_ptr<std::byte[]> data_;
  std::uint64_t bytes_;
};

struct Case {
  const char* name;
  Metric metric;
  Dtype dtype;
  std::uint32_t dim;
  std::uint32_t items;
  IdKind ids;
  ScanKind scan;
  std::uint32_t trees;
  bool groups;
  std::uint32_t rotation_block;
  std::uint32_t byte_row_bytes;
  std::uint32_t code_count;
};

const Case kCases[] = {
    {"codes_full", Metric::euclidean, Dtype::float32, 13, 75, IdKind::text, ScanKind::codes, 2,
     true, 5, 13, 4},
    {"codes_plain", Metric::angular, Dtype::float16, 8, 33, IdKind::int64, ScanKind::codes, 1,
     false, 8, 8, 8},
    {"codes_bytes", Metric::euclidean, Dtype::uint8, 7, 40, IdKind::row, ScanKind::codes, 1, true,
     7, 0, 4},
    {"codes_dot", Metric::dot, Dtype::int8, 12, 20, IdKind::row, ScanKind::codes, 3, false, 6, 0,
     4},
    {"sketch", Metric::manhattan, Dtype::float32, 9, 30, IdKind::int64, ScanKind::byte_rows, 2,
     true, 0, 9, 0},
    {"bytes_l1", Metric::manhattan, Dtype::uint8, 5, 21, IdKind::row, ScanKind::byte_rows, 1, false,
     0, 0, 0},
    {"bits", Metric::hamming, Dtype::bits, 13, 50, IdKind::text, ScanKind::bits, 2, false, 0, 0, 0},
    {"plain", Metric::cosine, Dtype::float32, 3, 10, IdKind::row, ScanKind::vectors, 1, false, 0, 0,
     0},
    {"one", Metric::cosine, Dtype::int8, 1, 1, IdKind::text, ScanKind::vectors, 1, false, 0, 0, 0},
    {"empty", Metric::euclidean, Dtype::float32, 2, 0, IdKind::row, ScanKind::vectors, 1, false, 0,
     0, 0},
    {"codes_lean", Metric::angular, Dtype::float32, 9, 40, IdKind::row, ScanKind::codes, 2, false,
     9, 0, 4},
};

// Leaves of a tree as entries; a padding entry has no points. With groups, a group is a block of 16
// entries of which the last few are padding.
std::vector<std::uint32_t> leaf_counts(const Case& c, std::mt19937& random) {
  std::vector<std::uint32_t> counts;
  for (std::uint32_t left = c.items; left > 0;) {
    if (c.groups && counts.size() % 16 == 3) counts.resize((counts.size() + 15) / 16 * 16);
    const std::uint32_t count = std::min<std::uint32_t>(left, 1 + random() % 40);
    counts.push_back(count);
    left -= count;
  }
  counts.resize((counts.size() + 15) / 16 * 16);
  return counts;
}

// A lean file has neither byte rows nor lists.
bool has_lists(const Case& c) {
  return c.scan == ScanKind::codes &&
         (c.byte_row_bytes > 0 || c.dtype == Dtype::int8 || c.dtype == Dtype::uint8);
}

struct Plan {
  Params params = {};
  std::vector<std::vector<std::uint32_t>> leaves;  // of each tree
  std::vector<std::string> ids;
};

Plan plan_of(const Case& c, std::mt19937& random) {
  Plan plan;
  Params& p = plan.params;
  p.id_kind = static_cast<std::uint32_t>(c.ids);
  p.scan_kind = static_cast<std::uint32_t>(c.scan);
  p.tree_count = c.trees;
  p.work_dim4 = (c.dim + 3) / 4 * 4;
  p.code_count = c.code_count;
  p.rotation_block = c.rotation_block;
  p.byte_row_bytes = c.byte_row_bytes;
  p.curve_points = c.items > 1 ? 4 : 0;
  p.value_scale = 1.0f;
  p.byte_scale = 0.125f;
  p.work_scale = 0.5f;
  p.default_recall = 0.95f;
  p.leaf_points = 20;
  p.radius_weight = 0.3f;
  p.region_count = c.metric == Metric::dot ? 3 : c.metric == Metric::angular ? 2 : 1;
  p.norm_unit = c.metric == Metric::dot ? 4.0f : 0.0f;
  for (std::uint32_t t = 0; t < c.trees; ++t) {
    plan.leaves.push_back(leaf_counts(c, random));
    p.leaf_entries += static_cast<std::uint32_t>(plan.leaves.back().size());
    if (c.groups) p.group_entries += 16;
  }
  p.centroid_scale = 1.0f;
  if (c.scan == ScanKind::codes) {
    p.has_blocks = 1;
    p.centroid_scale = 1.5f;
    for (const std::uint32_t count : plan.leaves[0]) {
      p.block_count += (count + 31) / 32;
      p.centroid_blocks += (count + 1023) / 1024;
    }
    if (has_lists(c)) {
      p.record_bytes = record_bytes_for(c.code_count);
      p.neighbour_count = 4;
      p.neighbour_bytes = neighbour_bytes_for(c.items);
    }
  }
  for (std::uint32_t i = 0; i < c.items; ++i) {
    plan.ids.push_back("k\xc3\xb6ln-" + std::to_string(random()) + "-" + std::to_string(i));
  }
  return plan;
}

void fill_floats(const Image& image, Section kind, std::mt19937& random) {
  const std::uint64_t count = image.open().section_bytes(kind) / 4;
  for (std::uint64_t i = 0; i < count; ++i) {
    image.array<float>(kind)[i] = static_cast<float>(random() % 2000) / 100.0f - 10.0f;
  }
}

void fill_bytes(const Image& image, Section kind, std::mt19937& random) {
  const std::uint64_t count = image.open().section_bytes(kind);
  for (std::uint64_t i = 0; i < count; ++i) {
    image.array<std::uint8_t>(kind)[i] = static_cast<std::uint8_t>(random());
  }
}

std::vector<std::uint32_t> shuffled(std::uint32_t n, std::mt19937& random) {
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), random);
  return order;
}

void fill_vectors(const Image& image, const Case& c, std::mt19937& random) {
  if (c.dtype == Dtype::float32) return fill_floats(image, Section::vectors, random);
  fill_bytes(image, Section::vectors, random);
  const std::uint64_t bytes = image.open().section_bytes(Section::vectors);
  std::uint8_t* values = image.array<std::uint8_t>(Section::vectors);
  if (c.dtype == Dtype::float16) {
    for (std::uint64_t i = 1; i < bytes; i += 2) values[i] &= 0xBF;  // exponent not all ones
  }
  if (c.dtype == Dtype::bits && c.dim % 8 != 0) {
    const std::uint64_t row = row_bytes(c.dtype, c.dim);
    for (std::uint64_t i = row - 1; i < bytes; i += row) values[i] &= 0xFF << (8 - c.dim % 8);
  }
}

void fill_ids(const Image& image, const Case& c, const Plan& plan, std::mt19937& random) {
  if (c.ids == IdKind::row) return;
  std::uint32_t* order = image.array<std::uint32_t>(Section::id_order);
  std::iota(order, order + c.items, 0u);
  if (c.ids == IdKind::int64) {
    std::int64_t* ids = image.array<std::int64_t>(Section::ids_int64);
    for (std::uint32_t i = 0; i < c.items; ++i) {
      ids[i] = static_cast<std::int64_t>((std::uint64_t{random()} << 32 | i) ^ (i % 2 ? ~0ull : 0));
    }
    std::sort(order, order + c.items, [&](auto a, auto b) { return ids[a] < ids[b]; });
    return;
  }
  std::uint64_t* offsets = image.array<std::uint64_t>(Section::id_text_offsets);
  offsets[0] = 0;
  for (std::uint32_t i = 0; i < c.items; ++i) {
    std::memcpy(image.array<char>(Section::id_text) + offsets[i], plan.ids[i].data(),
                plan.ids[i].size());
    offsets[i + 1] = offsets[i] + plan.ids[i].size();
  }
  std::sort(order, order + c.items, [&](auto a, auto b) { return plan.ids[a] < plan.ids[b]; });
}

void fill_trees(const Image& image, const Case& c, const Plan& plan, std::mt19937& random) {
  LeafRange* ranges = image.array<LeafRange>(Section::leaf_ranges);
  std::uint32_t entry = 0, group = 0;
  for (std::uint32_t t = 0; t < c.trees; ++t) {
    const std::uint32_t entries = static_cast<std::uint32_t>(plan.leaves[t].size());
    image.array<Tree>(Section::trees)[t] = {entry, entries, group, c.groups ? 16u : 0u};
    for (std::uint32_t b = 0; c.groups && b < 16; ++b, ++group) {
      const bool real = b < entries / 16;
      image.array<GroupRange>(Section::group_ranges)[group] =
          real ? GroupRange{entry / 16 + b, 1} : GroupRange{0, 0};
      if (!real) {
        image.array<float>(Section::group_biases)[group] = std::numeric_limits<float>::infinity();
      }
    }
    std::uint64_t first = t == 0 ? 0 : std::uint64_t{t - 1} * c.items;
    std::uint32_t block = 0, centroids = 0;
    for (const std::uint32_t count : plan.leaves[t]) {
      ranges[entry] = {count == 0 ? 0 : first, count, count == 0 ? 0 : block,
                       count == 0 ? 0 : centroids, 0};
      if (count == 0) {
        image.array<float>(Section::leaf_biases)[entry] = std::numeric_limits<float>::infinity();
      }
      first += count;
      if (t == 0 && c.scan == ScanKind::codes) {
        block += (count + 31) / 32;
        centroids += (count + 1023) / 1024;
      }
      ++entry;
    }
    if (t == 0) continue;
    const auto slots = shuffled(c.items, random);
    std::copy(slots.begin(), slots.end(),
              image.array<std::uint32_t>(Section::tree_slots) + std::uint64_t{t - 1} * c.items);
  }
}

std::uint8_t* block_of(const Image& image, Section kind, std::uint64_t block) {
  return image.array<std::uint8_t>(kind) + block * code_block_bytes(image.params().code_count);
}

void set_code(const Image& image, std::uint64_t block, std::uint32_t code, std::uint32_t point,
              unsigned value, Section kind = Section::codes) {
  std::uint8_t& byte = block_of(image, kind, block)[code * 16 + point % 16];
  byte = point < 16 ? static_cast<std::uint8_t>((byte & 0xF0) | value)
                    : static_cast<std::uint8_t>((byte & 0x0F) | value << 4);
}

void set_scalar(const Image& image, std::uint64_t block, std::uint32_t point, float value,
                Section kind = Section::codes) {
  std::memcpy(block_of(image, kind, block) + image.params().code_count * 16 + point * 4, &value, 4);
}

// Random codes and scalars of so many points from a block on.
void fill_blocks(const Image& image, Section kind, std::uint64_t block, std::uint32_t points,
                 std::mt19937& random) {
  for (std::uint32_t i = 0; i < points; ++i) {
    for (std::uint32_t m = 0; m < image.params().code_count; ++m) {
      set_code(image, block + i / 32, m, i % 32, random() % 16, kind);
    }
    set_scalar(image, block + i / 32, i % 32, static_cast<float>(random() % 100), kind);
  }
}

void fill_record(const Image& image, std::uint32_t slot, std::uint32_t entry, std::uint64_t block,
                 std::uint32_t point) {
  const Params& params = image.params();
  std::uint8_t* record =
      image.array<std::uint8_t>(Section::code_records) + std::size_t{slot} * params.record_bytes;
  const std::uint8_t* codes = block_of(image, Section::codes, block);
  for (std::uint32_t m = 0; m < params.code_count; ++m) {
    const unsigned pair = codes[m * 16 + point % 16];
    const unsigned code = point < 16 ? pair & 15 : pair >> 4;
    record[m / 2] = static_cast<std::uint8_t>(m % 2 == 0 ? code : record[m / 2] | code << 4);
  }
  CodeRecordTail tail{0.0f, entry};
  std::memcpy(&tail.scalar, codes + params.code_count * 16 + point * 4, 4);
  std::memcpy(record + params.code_count / 2, &tail, sizeof(tail));
}

void set_neighbour(const Image& image, std::uint32_t slot, std::uint32_t place,
                   std::uint32_t other) {
  const Params& params = image.params();
  std::memcpy(image.array<std::uint8_t>(Section::neighbours) +
                  (std::size_t{slot} * params.neighbour_count + place) * params.neighbour_bytes,
              &other, params.neighbour_bytes);
}

// Each slot's list names those behind it; every seventh ends early.
void fill_lists(const Image& image, const Case& c) {
  for (std::uint32_t slot = 0; slot < c.items; ++slot) {
    for (std::uint32_t i = 0; i < image.params().neighbour_count; ++i) {
      const bool ended = slot % 7 == 0 && i >= 2;
      set_neighbour(image, slot, i, ended ? kNoNeighbour : (slot + i + 1) % c.items);
    }
  }
}

void fill_codes(const Image& image, const Case& c, const Plan& plan, std::mt19937& random) {
  if (c.scan != ScanKind::codes) return;
  std::uint64_t block = 0, centroids = 0;
  std::uint32_t slot = 0, entry = 0;
  for (const std::uint32_t count : plan.leaves[0]) {
    fill_blocks(image, Section::codes, block, count, random);
    fill_blocks(image, Section::block_centroids, centroids, (count + 31) / 32, random);
    for (std::uint32_t i = 0; has_lists(c) && i < count; ++i) {
      fill_record(image, slot++, entry, block + i / 32, i % 32);
    }
    block += (count + 31) / 32;
    centroids += (count + 1023) / 1024;
    ++entry;
  }
  if (has_lists(c)) fill_lists(image, c);
  std::uint16_t* first = image.array<std::uint16_t>(Section::code_first_dims);
  for (std::uint32_t m = 0; m <= c.code_count; ++m) {
    first[m] = static_cast<std::uint16_t>(c.dim * m / c.code_count);
  }
  std::int8_t* rotation = image.array<std::int8_t>(Section::rotation);
  for (std::uint32_t row = 0; row < c.dim; ++row) {
    const std::uint32_t begin = row / c.rotation_block * c.rotation_block;
    for (std::uint32_t j = 0; j < c.rotation_block && begin + j < c.dim; ++j) {
      rotation[row * c.rotation_block + j] = static_cast<std::int8_t>(random());
    }
  }
  const auto order = shuffled(c.dim, random);
  std::copy(order.begin(), order.end(), image.array<std::uint32_t>(Section::rotation_order));
}

// Scales of leaves, padding apart; an empty leaf has one too. Their regions, and bounds of norms.
void fill_model(const Image& image, const Case& c, const Plan& plan, std::mt19937& random) {
  std::uint32_t entry = 0;
  for (const auto& counts : plan.leaves) {
    for (const std::uint32_t count : counts) {
      image.array<float>(Section::leaf_scales)[entry++] = count > 0 ? 0.25f : 0.0f;
    }
  }
  const Params& params = image.params();
  for (std::uint32_t i = 0; params.region_count > 1 && i < entry; ++i) {
    image.array<std::uint8_t>(Section::leaf_regions)[i] =
        static_cast<std::uint8_t>(random() % params.region_count);
  }
  for (std::uint32_t i = 0; c.metric == Metric::dot && i + 1 < params.region_count; ++i) {
    image.array<float>(Section::norm_bounds)[i] = 1.0f + static_cast<float>(i);
  }
}

void fill(const Image& image, const Case& c, const Plan& plan, std::mt19937& random) {
  const auto rows = shuffled(c.items, random);
  for (std::uint32_t slot = 0; slot < c.items; ++slot) {
    image.array<std::uint32_t>(Section::slot_rows)[slot] = rows[slot];
    image.array<std::uint32_t>(Section::row_slots)[rows[slot]] = slot;
  }
  fill_vectors(image, c, random);
  for (const Section kind :
       {Section::mean, Section::leaf_mults, Section::leaf_biases, Section::leaf_scan_factors,
        Section::leaf_radii, Section::group_mults, Section::group_biases, Section::codebook,
        Section::rotation_scales, Section::row_scalars}) {
    fill_floats(image, kind, random);
  }
  fill_bytes(image, Section::leaf_centroids, random);
  fill_bytes(image, Section::group_centroids, random);
  fill_ids(image, c, plan, random);
  fill_trees(image, c, plan, random);
  fill_model(image, c, plan, random);
  fill_codes(image, c, plan, random);
  fill_bytes(image, Section::byte_rows, random);
  for (std::uint32_t i = 0; i < image.params().curve_points; ++i) {
    image.array<CurvePoint>(Section::curve)[i] = {
        i < 2 ? 1u : 10u, 0.5f + 0.25f * (i % 2), 80 * i, 10 * i, 2, 5, 3, 1.25f};
  }
}

Image make(const Case& c) {
  std::mt19937 random(42);
  const Plan plan = plan_of(c, random);
  const std::string text = std::accumulate(plan.ids.begin(), plan.ids.end(), std::string());
  const auto sections = plan_sections(FileKind::index, c.metric, c.dtype, c.dim, c.items,
                                      plan.params, {text.size(), 0});
  Image image(image_bytes(sections));
  begin_image(image.data(), FileKind::index, c.metric, c.dtype, c.dim, c.items, plan.params,
              sections, "0.1.0-test", nullptr);
  seal_image(image.data());  // so that open() finds the sections to fill
  fill(image, c, plan, random);
  seal_image(image.data());
  return image;
}

std::string open_error(const Image& image) {
  return error_of(ErrorCode::format, [&] { image.open(); });
}

std::string verify_error(const Image& image) {
  return error_of(ErrorCode::format, [&] { verify_deep(image.open(), "test"); });
}

// True when the image is either good or refused as a file; anything else escapes and ends the test.
void open_and_verify(const Image& image) {
  try {
    verify_deep(image.open(), "test");
  } catch (const Error& error) {
    if (error.code() != ErrorCode::format) CHECK(error.code() == ErrorCode::format);
  }
}

// ---- tests of format -------------------------------------------------------------------

void test_good_image(const Case& c) {
  const Image image = make(c);
  const View view = image.open();
  verify_deep(view, c.name);
  CHECK(view.header.item_count == c.items && view.header.dim == c.dim);
  CHECK(view.section_bytes(Section::vectors) == c.items * row_bytes(c.dtype, c.dim));
  CHECK(view.section(Section::metadata) != nullptr && view.section_bytes(Section::metadata) == 0);
  CHECK((view.section(Section::codes) != nullptr) == (c.scan == ScanKind::codes));
  const Image again = make(c);
  CHECK(std::memcmp(again.data(), image.data(), image.bytes()) == 0);
}

void test_every_truncation(const Case& c) {
  const Image image = make(c);
  std::uint64_t refused = 0;
  for (std::uint64_t bytes = 0; bytes < image.bytes(); ++bytes) {
    refused += !open_error(Image(image.data(), bytes)).empty();
  }
  CHECK(refused == image.bytes());
  Image longer(image.bytes() + 1);
  std::memcpy(longer.data(), image.data(), image.bytes());
  CHECK_IN(open_error(longer), "appended");
}

void test_every_head_byte(const Case& c) {
  const Image image = make(c);
  const std::uint64_t head =
      sizeof(FileHeader) + image.header().section_count * sizeof(SectionEntry);
  std::uint64_t refused = 0;
  for (std::uint64_t at = 0; at < head; ++at) {
    for (const unsigned flip : {0x01u, 0x80u, 0xFFu}) {
      const Image bad(image);
      bad.data()[at] ^= std::byte(flip);
      refused += !open_error(bad).empty();
      bad.repair_header();
      open_and_verify(bad);
    }
  }
  CHECK(refused == 3 * head);
}

void test_every_body_byte(const Case& c) {
  const Image image = make(c);
  const std::uint64_t body =
      sizeof(FileHeader) + image.header().section_count * sizeof(SectionEntry);
  std::uint64_t refused = 0, tried = 0;
  const Image bad(image);
  for (std::uint64_t at = body; at < image.bytes(); ++at, ++tried) {
    bad.data()[at] ^= std::byte(1u << at % 8);
    refused += !verify_error(bad).empty();
    bad.data()[at] = image.data()[at];
  }
  CHECK(refused == tried);
}

// Bytes of any kind anywhere, with every checksum repaired: good or refused, never a crash.
void test_random_damage(const Case& c) {
  const Image image = make(c);
  std::mt19937 random(7);
  const unsigned values[] = {0, 1, 0x7F, 0x80, 0xFE, 0xFF};
  for (int round = 0; round < 1500; ++round) {
    const Image bad(image);
    const bool repaired = round % 3 != 0;
    const std::uint64_t begin = round % 2 == 0 ? image.table()[0].offset : 0;
    for (unsigned i = 0; i < 1 + random() % 4; ++i) {
      const std::uint64_t at = begin + random() % (image.bytes() - begin);
      const std::uint64_t width = std::min<std::uint64_t>(1u << random() % 4, image.bytes() - at);
      std::memset(bad.data() + at, static_cast<int>(values[random() % 6]), width);
    }
    if (repaired && begin != 0) seal_image(bad.data());
    if (repaired) bad.repair_header();
    open_and_verify(bad);
  }
}

void test_message_families() {
  const Image image = make(kCases[0]);
  CHECK(open_error(image).empty());
  CHECK_IN(open_error(Image(0)), "test is not an annidx file: it is empty");
  const Image text(image);
  std::memcpy(text.data(), "PK\x03\x04hello", 9);
  CHECK_IN(open_error(text),
           "is not an annidx file: starts with 50 4b 03 04 68 65 6c 6c, expected 89");
  CHECK_IN(open_error(Image(image.data(), 5)), "is damaged: it is cut short");
  CHECK_IN(open_error(Image(image.data(), image.bytes() - 1)),
           "expected " + std::to_string(image.bytes()) + " bytes, found " +
               std::to_string(image.bytes() - 1) + " bytes");

  const Image newer(image);
  newer.header().version = 7;
  CHECK_IN(open_error(newer),
           "was written in format version 7 by annidx 0.1.0-test; this annidx "
           "reads version 2; upgrade annidx");
  const Image swapped(image);
  swapped.header().endian_mark = 0x04030201;
  CHECK_IN(open_error(swapped), "big-endian");

  const Image body(image);
  body.array<std::uint8_t>(Section::leaf_ranges)[3] ^= 1;
  CHECK_IN(verify_error(body), "test is damaged: section 'leaf_ranges' at offset " +
                                   std::to_string(image.entry(Section::leaf_ranges).offset) +
                                   ": expected checksum");
}

struct Fault {
  const char* what;
  std::size_t image;  // of kCases
  std::function<void(const Image&)> plant;
  const char* message;
};

template <class T>
std::function<void(const Image&)> set(Section kind, std::uint64_t index, T value) {
  return [=](const Image& image) { image.array<T>(kind)[index] = value; };
}

// Sets an element of a section to another's value.
template <class T>
std::function<void(const Image&)> copy(Section kind, std::uint64_t to, std::uint64_t from) {
  return [=](const Image& image) { image.array<T>(kind)[to] = image.array<T>(kind)[from]; };
}

std::function<void(const Image&)> param(std::uint32_t Params::* field, std::uint32_t value) {
  return [=](const Image& image) { image.params().*field = value; };
}

std::function<void(const Image&)> field(std::uint32_t FileHeader::* member, std::uint32_t value) {
  return [=](const Image& image) { image.header().*member = value; };
}

const float kNan = std::numeric_limits<float>::quiet_NaN();
const float kInf = std::numeric_limits<float>::infinity();

std::vector<Fault> planted_faults() {
  using u16 = std::uint16_t;
  using u32 = std::uint32_t;
  using u64 = std::uint64_t;
  using u8 = std::uint8_t;
  return {
      // Header and params.
      {"metric 0", 0, field(&FileHeader::metric, 0), "'metric'"},
      {"metric 7", 0, field(&FileHeader::metric, 7), "'metric'"},
      {"dtype 6", 0, field(&FileHeader::dtype, 6), "'dtype'"},
      {"euclidean bits", 0, field(&FileHeader::dtype, 5), "metric can be stored as"},
      {"angular uint8", 1, field(&FileHeader::dtype, 4), "metric can be stored as"},
      {"dim 0", 0, field(&FileHeader::dim, 0), "'dim'"},
      {"dim too large", 0, field(&FileHeader::dim, kMaxDim + 1), "'dim'"},
      {"dim other", 0, field(&FileHeader::dim, 14), "expected"},
      {"too many items", 0, [](const Image& i) { i.header().item_count = kMaxItems + 1; },
       "'item_count'"},
      {"an item more", 0, [](const Image& i) { ++i.header().item_count; }, "'vectors'"},
      {"library version unended", 0,
       [](const Image& i) { std::memset(i.header().library_version, 'x', 16); }, "library_version"},
      {"header reserved", 0, [](const Image& i) { i.header().reserved[7] = 1; }, "'reserved'"},
      {"kind 0", 0, field(&FileHeader::kind, 0), "'kind'"},
      {"kind 5", 0, field(&FileHeader::kind, 5), "'kind'"},
      {"a model with items", 0, field(&FileHeader::kind, 2), "'item_count'"},
      {"a base of no changes", 0, [](const Image& i) { i.header().base_identity[0] = 1; },
       "'base_identity'"},
      {"id kind", 0, param(&Params::id_kind, 3), "'id_kind'"},
      {"id kind other", 0, param(&Params::id_kind, 0), "'id_order'"},
      {"scan kind", 0, param(&Params::scan_kind, 9), "'scan_kind'"},
      {"scan kind of another metric", 0, param(&Params::scan_kind, 2), "'scan_kind'"},
      {"no trees", 0, param(&Params::tree_count, 0), "'tree_count'"},
      {"trees without leaves", 8, param(&Params::tree_count, 65535), "'leaf_entries'"},
      {"trees without end", 0, param(&Params::tree_count, 65536), "'tree_count'"},
      {"curve without end", 0, param(&Params::curve_points, 65537), "'curve_points'"},
      {"work dim", 0, param(&Params::work_dim4, 20), "'work_dim4'"},
      {"leaf entries", 0, param(&Params::leaf_entries, 17), "'leaf_entries'"},
      {"group entries", 0, param(&Params::group_entries, 1), "'group_entries'"},
      {"groups without groups", 1, param(&Params::group_entries, 16), "'group_ranges'"},
      {"centroid blocks", 0, param(&Params::centroid_blocks, 1000), "'centroid_blocks'"},
      {"record bytes", 0, param(&Params::record_bytes, 24), "'record_bytes'"},
      {"neighbours 257", 0, param(&Params::neighbour_count, 257), "'neighbour_count'"},
      {"neighbour bytes", 0, param(&Params::neighbour_bytes, 4), "'neighbour_bytes'"},
      {"lists without codes", 4, param(&Params::neighbour_count, 4), "'neighbour_count'"},
      {"codes 5", 0, param(&Params::code_count, 5), "'code_count'"},
      {"codes 260", 0, param(&Params::code_count, 260), "'code_count'"},
      {"blocks 1", 0, param(&Params::block_count, 1), "'block_count'"},
      {"codes without codes", 4, param(&Params::code_count, 4), "'code_count'"},
      {"rotation without codes", 4, param(&Params::rotation_block, 4), "'rotation_block'"},
      {"rotation too wide", 0, param(&Params::rotation_block, 14), "'rotation_block'"},
      {"no rotation", 0, param(&Params::rotation_block, 0), "'rotation_block'"},
      {"byte rows without their parameter", 0, param(&Params::byte_row_bytes, 0), "'byte_rows'"},
      {"byte rows of bytes", 2, param(&Params::byte_row_bytes, 7), "'byte_row_bytes'"},
      {"byte rows short", 0, param(&Params::byte_row_bytes, 12), "'byte_row_bytes'"},
      {"byte rows long", 0, param(&Params::byte_row_bytes, 16), "'byte_row_bytes'"},
      {"sketch without rows", 4, param(&Params::byte_row_bytes, 0), "'byte_row_bytes'"},
      {"bits with byte rows", 6, param(&Params::byte_row_bytes, 13), "'byte_row_bytes'"},
      {"given floats", 0, param(&Params::given_bytes, 1), "'given_bytes'"},
      {"given twice", 2, param(&Params::given_bytes, 2), "'given_bytes'"},
      {"params reserved", 0, [](const Image& i) { *(std::end(i.params().reserved) - 1) = 1; },
       "'reserved'"},
      {"blocks 2", 0, param(&Params::has_blocks, 2), "'has_blocks'"},
      {"no blocks", 0, param(&Params::has_blocks, 0), "'centroid_blocks'"},
      {"blocks without codes", 4, param(&Params::has_blocks, 1), "'has_blocks'"},
      {"no regions", 0, param(&Params::region_count, 0), "'region_count'"},
      {"regions of distances", 0, param(&Params::region_count, 2), "'region_count'"},
      {"three regions of directions", 1, param(&Params::region_count, 3), "'region_count'"},
      {"removed of an index", 0, param(&Params::removed_count, 1), "'removed_count'"},
      {"norm unit", 3, [](const Image& i) { i.params().norm_unit = -1.0f; }, "'norm_unit'"},
      {"norm unit of distances", 0, [](const Image& i) { i.params().norm_unit = 1.0f; },
       "'norm_unit'"},
      {"radius weight", 0, [](const Image& i) { i.params().radius_weight = kNan; },
       "'radius_weight'"},
      {"value scale", 0, [](const Image& i) { i.params().value_scale = kNan; }, "'value_scale'"},
      {"work scale", 0, [](const Image& i) { i.params().work_scale = 0.75f; }, "'work_scale'"},
      {"no work scale", 0, [](const Image& i) { i.params().work_scale = 0.0f; }, "'work_scale'"},
      {"no value scale", 3, [](const Image& i) { i.params().value_scale = 0.0f; }, "'value_scale'"},
      {"no byte scale", 4, [](const Image& i) { i.params().byte_scale = 0.0f; }, "'byte_scale'"},
      {"byte scale", 0, [](const Image& i) { i.params().byte_scale = kInf; }, "'byte_scale'"},
      {"byte offset", 0, [](const Image& i) { i.params().byte_offset = kInf; }, "'byte_offset'"},
      {"recall", 0, [](const Image& i) { i.params().default_recall = 1.5f; }, "'default_recall'"},
      // Rows, ids.
      {"NaN in vectors", 0, set(Section::vectors, 17, kNan), "'vectors'"},
      {"infinity in float16", 1, set<u16>(Section::vectors, 5, 0xFC00), "'vectors'"},
      {"bit after the last", 6, set<u8>(Section::vectors, 1, 0x04), "after the last dimension"},
      {"slot_rows twice", 0, copy<u32>(Section::slot_rows, 1, 0), "'row_slots'"},
      {"slot_rows outside", 0, set<u32>(Section::slot_rows, 3, 75), "'slot_rows'"},
      {"row_slots not inverse", 0, copy<u32>(Section::row_slots, 5, 6), "'row_slots'"},
      {"id_order outside", 1, set<u32>(Section::id_order, 0, 33), "'id_order'"},
      {"id_order twice", 1, copy<u32>(Section::id_order, 1, 0), "'id_order'"},
      {"ids unsorted", 1,
       [](const Image& i) {
         std::swap(i.array<u32>(Section::id_order)[4], i.array<u32>(Section::id_order)[5]);
       },
       "'id_order'"},
      {"ids repeated", 1, copy<std::int64_t>(Section::ids_int64, 7, 8), "'id_order'"},
      {"text ids unsorted", 0,
       [](const Image& i) {
         std::swap(i.array<u32>(Section::id_order)[4], i.array<u32>(Section::id_order)[5]);
       },
       "'id_order'"},
      {"text from 1", 0, set<u64>(Section::id_text_offsets, 0, 1), "'id_text_offsets'"},
      {"text backwards", 0, set<u64>(Section::id_text_offsets, 9, 1), "'id_text_offsets'"},
      {"text outside", 0, set<u64>(Section::id_text_offsets, 9, ~0ull), "'id_text_offsets'"},
      {"text unfinished", 8, set<u64>(Section::id_text_offsets, 1, 2), "'id_text'"},
      {"UTF-8 cut", 0, set<u8>(Section::id_text, 2, 'x'), "UTF-8"},
      {"UTF-8 lead", 0, set<u8>(Section::id_text, 4, 0xFF), "UTF-8"},
      {"UTF-8 surrogate", 0,
       [](const Image& i) { std::memcpy(i.array<u8>(Section::id_text), "\xed\xa0\x80", 3); },
       "UTF-8"},
      {"UTF-8 overlong", 0,
       [](const Image& i) { std::memcpy(i.array<u8>(Section::id_text), "\xc0\xaf", 2); }, "UTF-8"},
      // Trees.
      {"tree start", 0,
       [](const Image& i) { i.array<Tree>(Section::trees)[1].first_leaf_entry = 0; }, "'trees'"},
      {"tree without end", 0,
       [](const Image& i) { i.array<Tree>(Section::trees)[1].leaf_entry_count = 0xFFFFFFF0; },
       "'trees'"},
      {"tree groups", 0,
       [](const Image& i) { i.array<Tree>(Section::trees)[0].group_entry_count = 48; }, "'trees'"},
      {"tree empty", 7,
       [](const Image& i) { i.array<Tree>(Section::trees)[0].leaf_entry_count = 0; }, "'trees'"},
      {"leaves overlap", 0,
       [](const Image& i) { --i.array<LeafRange>(Section::leaf_ranges)[1].first; },
       "'leaf_ranges'"},
      {"leaf too large", 0,
       [](const Image& i) { i.array<LeafRange>(Section::leaf_ranges)[0].count = 0xFFFFFFFF; },
       "'leaf_ranges'"},
      {"leaf shorter", 7,
       [](const Image& i) { --i.array<LeafRange>(Section::leaf_ranges)[0].count; }, "expected"},
      {"leaf block", 0,
       [](const Image& i) { ++i.array<LeafRange>(Section::leaf_ranges)[1].first_block; },
       "'leaf_ranges'"},
      {"padding leaf", 7,
       [](const Image& i) { i.array<LeafRange>(Section::leaf_ranges)[15].first = 1; },
       "'leaf_ranges'"},
      {"padding bias", 7, set(Section::leaf_biases, 15, 1.0f), "'leaf_biases'"},
      {"leaf bias", 7, set(Section::leaf_biases, 0, kInf), "'leaf_biases'"},
      {"leaf bias NaN", 7, set(Section::leaf_biases, 0, kNan), "'leaf_biases'"},
      {"leaf mult", 7, set(Section::leaf_mults, 0, kNan), "'leaf_mults'"},
      {"leaf scale", 7, set(Section::leaf_scales, 0, 0.0f), "'leaf_scales'"},
      {"leaf scale below 0", 7, set(Section::leaf_scales, 15, -1.0f), "'leaf_scales'"},
      {"leaf scale infinite", 7, set(Section::leaf_scales, 15, kInf), "'leaf_scales'"},
      {"region outside", 3, set<u8>(Section::leaf_regions, 0, 3), "'leaf_regions'"},
      {"bounds alike", 3, set(Section::norm_bounds, 1, 1.0f), "'norm_bounds'"},
      {"bound 0", 3, set(Section::norm_bounds, 0, 0.0f), "'norm_bounds'"},
      {"bound NaN", 3, set(Section::norm_bounds, 0, kNan), "'norm_bounds'"},
      {"group start", 0,
       [](const Image& i) { ++i.array<GroupRange>(Section::group_ranges)[0].first_leaf_block; },
       "'group_ranges'"},
      {"group too large", 0,
       [](const Image& i) { i.array<GroupRange>(Section::group_ranges)[0].leaf_blocks = ~0u; },
       "'group_ranges'"},
      {"group padding bias", 0, set(Section::group_biases, 15, 0.0f), "'group_biases'"},
      {"tree_slots twice", 0, copy<u32>(Section::tree_slots, 1, 0), "'tree_slots'"},
      {"tree_slots outside", 0, set<u32>(Section::tree_slots, 2, ~0u), "'tree_slots'"},
      // Codes, curve.
      {"first dims start", 0, set<u16>(Section::code_first_dims, 0, 1), "'code_first_dims'"},
      {"first dims backwards", 0, set<u16>(Section::code_first_dims, 2, 0), "'code_first_dims'"},
      {"first dims end", 0, set<u16>(Section::code_first_dims, 4, 12), "'code_first_dims'"},
      {"first dims outside", 0, set<u16>(Section::code_first_dims, 3, 60000), "'code_first_dims'"},
      {"codebook", 0, set(Section::codebook, 3, kInf), "'codebook'"},
      {"code scalar", 0, [](const Image& i) { set_scalar(i, 0, 0, kNan); }, "'codes'"},
      {"centroid scalar", 0,
       [](const Image& i) { set_scalar(i, 0, 0, kNan, Section::block_centroids); },
       "'block_centroids'"},
      {"scalar after the last centroid", 0,
       [](const Image& i) { set_scalar(i, 0, 31, 1.0f, Section::block_centroids); },
       "'block_centroids'"},
      {"record's code", 0,
       [](const Image& i) { i.array<std::uint8_t>(Section::code_records)[0] ^= 1; },
       "'code_records'"},
      {"record's leaf", 0,
       [](const Image& i) { i.array<std::uint8_t>(Section::code_records)[6] ^= 1; },
       "'code_records'"},
      {"record's padding", 0,
       [](const Image& i) { i.array<std::uint8_t>(Section::code_records)[15] = 1; },
       "'code_records'"},
      {"neighbour outside", 0, [](const Image& i) { set_neighbour(i, 3, 0, 75); }, "'neighbours'"},
      {"its own neighbour", 0, [](const Image& i) { set_neighbour(i, 3, 1, 3); }, "'neighbours'"},
      {"neighbour after the end", 0, [](const Image& i) { set_neighbour(i, 7, 3, 1); },
       "'neighbours'"},
      {"row scalar", 0, set(Section::row_scalars, 3, kNan), "'row_scalars'"},
      {"rotation order", 0, copy<u32>(Section::rotation_order, 1, 0), "'rotation_order'"},
      {"rotation padding", 0, set<u8>(Section::rotation, 13 * 5 - 1, 1), "'rotation'"},
      {"code padding", 0, [](const Image& i) { set_code(i, i.params().block_count - 1, 0, 31, 1); },
       "'codes'"},
      {"curve k", 0, [](const Image& i) { i.array<CurvePoint>(Section::curve)[0].k = 0; },
       "'curve'"},
      {"curve k backwards", 0, [](const Image& i) { i.array<CurvePoint>(Section::curve)[3].k = 2; },
       "k ascending"},
      {"curve recall", 0,
       [](const Image& i) { i.array<CurvePoint>(Section::curve)[1].recall = 1.5f; }, "0 to 1"},
      {"curve falls", 0,
       [](const Image& i) { i.array<CurvePoint>(Section::curve)[1].recall = 0.1f; },
       "recall ascending"},
      {"curve NaN", 0, [](const Image& i) { i.array<CurvePoint>(Section::curve)[1].recall = kNan; },
       "0 to 1"},
      {"curve far ratio", 0,
       [](const Image& i) { i.array<CurvePoint>(Section::curve)[1].far_ratio = -1.0f; },
       "far_ratio"},
      {"gap", 0,
       [](const Image& i) {
         const SectionEntry& mean = i.entry(Section::mean);
         i.data()[mean.offset + mean.bytes] = std::byte{1};
       },
       "padding at offset"},
  };
}

void test_planted_faults() {
  for (const Fault& fault : planted_faults()) {
    const Image bad = make(kCases[fault.image]);
    fault.plant(bad);
    seal_image(bad.data());
    const std::string message = verify_error(bad);
    check(
        message.find(fault.message) != std::string::npos && message.find("test is damaged: ") == 0,
        std::string(fault.what) + ": got '" + message + "'", __LINE__);
  }
}

void test_table_faults() {
  const auto with = [](const std::function<void(const Image&)>& change) {
    const Image bad = make(kCases[0]);
    change(bad);
    bad.repair_header();
    return open_error(bad);
  };
  CHECK_IN(with([](const Image& i) { i.table()[1].offset += 64; }), "table entry 1");
  CHECK_IN(with([](const Image& i) { i.table()[1].offset = ~0ull - 63; }), "table entry 1");
  CHECK_IN(with([](const Image& i) { i.table()[1].bytes = ~0ull; }), "inside the file");
  CHECK_IN(with([](const Image& i) { i.table()[1].bytes -= 52; }), "expected");
  CHECK_IN(with([](const Image& i) { i.table()[1].record_bytes = 0; }), "whole number of records");
  CHECK_IN(with([](const Image& i) { i.table()[1].record_bytes = 4; }), "records of 52");
  CHECK_IN(with([](const Image& i) { i.table()[1].reserved = 1; }), "reserved");
  CHECK_IN(with([](const Image& i) { i.table()[1].flags = 3; }), "flags");
  CHECK_IN(with([](const Image& i) { i.table()[1].flags = 0; }), "flags");
  CHECK_IN(with([](const Image& i) { i.table()[1].kind = 1; }), "a kind above 1");
  CHECK_IN(with([](const Image& i) { i.table()[0].kind = 0; }), "a kind above 0");
  CHECK_IN(with([](const Image& i) { i.table()[0].crc ^= 1; }), "'params'");
  CHECK_IN(with([](const Image& i) { i.header().section_count = 0; }), "section_count");
  CHECK_IN(with([](const Image& i) { i.header().section_count = 65; }), "section_count");
  CHECK_IN(with([](const Image& i) { i.header().file_bytes -= 1; }), "appended");
  CHECK_IN(with([](const Image& i) { i.header().version = 0; }), "'version'");
  const auto last = [](const Image& i) -> SectionEntry& {
    return i.table()[i.header().section_count - 1];
  };
  CHECK_IN(with([&](const Image& i) { last(i).kind = 50; }), "section 'metadata'");
  CHECK_IN(with([&](const Image& i) { last(i).kind = 50, last(i).flags = 1; }),
           "needs section kind 50, which this annidx does not know; upgrade annidx");

  const Image identity = make(kCases[0]);
  identity.header().identity[7] ^= 1;
  identity.repair_header();
  CHECK(open_error(identity).empty());
  CHECK_IN(verify_error(identity), "'identity'");
}

// The image with a section of an unknown kind behind the metadata.
Image with_unknown_section(const Image& image, std::uint32_t flags) {
  const std::uint64_t table_end =
      sizeof(FileHeader) + image.header().section_count * sizeof(SectionEntry);
  const std::uint64_t old_body = image.table()[0].offset;
  const std::uint64_t body = (table_end + sizeof(SectionEntry) + 63) / 64 * 64;
  const std::uint64_t at = (body + image.bytes() - old_body + 63) / 64 * 64;
  Image grown(at + 10);
  std::memcpy(grown.data(), image.data(), table_end);
  std::memcpy(grown.data() + body, image.data() + old_body, image.bytes() - old_body);
  FileHeader& header = grown.header();
  for (std::uint32_t i = 0; i < header.section_count; ++i)
    grown.table()[i].offset += body - old_body;
  grown.table()[header.section_count++] = {99, flags, at, 10, 5, 0, 0};
  header.file_bytes = grown.bytes();
  seal_image(grown.data());
  return grown;
}

// What a saver writes: head, body, metadata, sets.
Image saved(const View& view, const std::string& metadata,
            const std::vector<std::byte>& sets = {}) {
  const auto head = head_with(view, metadata, {sets.data(), sets.size()});
  const std::uint64_t body = body_end(view) - head_bytes(view);
  const std::uint64_t padding = sets.empty() ? 0 : metadata_padding(metadata);
  Image image(head.size() + body + metadata.size() + padding + sets.size());
  std::memcpy(image.data(), head.data(), head.size());
  std::memcpy(image.data() + head.size(), view.image + head_bytes(view), body);
  std::byte* tail = image.data() + head.size() + body;
  std::memcpy(tail, metadata.data(), metadata.size());
  if (!sets.empty()) std::memcpy(tail + metadata.size() + padding, sets.data(), sets.size());
  return image;
}

// Three sets that between them are stored in both ways, when there are items enough.
std::vector<NamedRows> some_sets(std::uint64_t items) {
  const std::uint64_t words = (items + 63) / 64;
  std::vector<NamedRows> sets = {{"none", std::vector<std::uint64_t>(words)},
                                 {"all", std::vector<std::uint64_t>(words)},
                                 {"caf\xc3\xa9", std::vector<std::uint64_t>(words)}};
  for (std::uint64_t row = 0; row < items; ++row) {
    sets[1].words[row / 64] |= std::uint64_t{1} << row % 64;
    if (row % 97 == 5) sets[2].words[row / 64] |= std::uint64_t{1} << row % 64;
  }
  return sets;
}

SetsView sets_of(const View& view) {
  return SetsView(view.section(Section::sets), view.section_bytes(Section::sets),
                  view.header.item_count, "test");
}

void test_sets() {
  for (const Case& c : kCases) {
    const Image image = make(c);
    const std::uint64_t items = image.header().item_count;
    const auto given = some_sets(items);
    const auto section = write_sets(given, items);
    const Image with = saved(image.open(), "{}", section);
    const View view = with.open();
    verify_deep(view, "test");
    CHECK(view.section_bytes(Section::metadata) == 2);
    CHECK(std::memcmp(view.header.identity, image.header().identity, 16) == 0);
    const SetsView sets = sets_of(view);
    CHECK(sets.sets().size() == 3 && sets.sets()[0].name == "all" && sets.find("al") == nullptr);
    for (const NamedRows& set : given) {
      const SetsView::Set* found = sets.find(set.name);
      CHECK(found != nullptr);
      if (found == nullptr) continue;
      const auto rows = sets.rows_of(*found);
      CHECK(rows.size() == found->count && std::is_sorted(rows.begin(), rows.end()));
      for (const std::uint32_t row : rows) CHECK(set.words[row / 64] >> row % 64 & 1);
      CHECK(found->count == (set.name == "none"  ? 0
                             : set.name == "all" ? items
                                                 : (items + 91) / 97));
    }
    const Image without = saved(view, "");
    CHECK(without.bytes() == image.bytes() &&
          std::memcmp(without.data(), image.data(), image.bytes()) == 0);
  }
  CHECK(write_sets({}, 100).empty());
  const auto refused = [](std::vector<NamedRows> sets) {
    return error_of(ErrorCode::invalid_argument, [&] { write_sets(std::move(sets), 64); });
  };
  const std::vector<std::uint64_t> none(1);
  CHECK_IN(refused({{"", none}}), "1 to 255 bytes");
  CHECK_IN(refused({{std::string(256, 'x'), none}}), "got one of 256 bytes");
  CHECK_IN(refused({{"\xff", none}}), "UTF-8");
  CHECK_IN(refused({{"a", none}, {"b", none}, {"a", none}}), "'a' comes twice");
  CHECK_IN(refused(std::vector<NamedRows>(kMaxSets + 1, NamedRows{"a", none})), "at most 4096");
}

// Each number of a sound section of sets is replaced by others: it is refused on opening, or by
// verify, and reading it stays inside.
void test_damaged_sets() {
  const std::uint64_t items = 700;
  const auto section = write_sets(some_sets(items), items);
  const auto verdict = [&](const std::vector<std::byte>& bytes) {
    return error_of(ErrorCode::format, [&] {
      const SetsView sets(bytes.data(), bytes.size(), items, "test");
      for (const auto& set : sets.sets()) {
        try {
          CHECK(sets.rows_of(set).size() <= items);
        } catch (const Error& error) {
          CHECK(error.code() == ErrorCode::format);
        }
      }
      sets.verify();
    });
  };
  CHECK(verdict(section).empty());
  for (std::size_t at = 0; at + 4 <= section.size(); at += 4) {
    for (const std::uint32_t value : {0u, 1u, 7u, 701u, 0x7fffffffu, 0xffffffffu}) {
      auto damaged = section;
      if (std::memcmp(damaged.data() + at, &value, 4) == 0) continue;
      std::memcpy(damaged.data() + at, &value, 4);
      const std::string message = verdict(damaged);
      // Another row, or another name (also of 7 bytes: NULs are text), is a sound one: only the
      // checksum tells.
      const bool in_table = at < sizeof(SetsHeader) + 3 * sizeof(SetEntry);
      if ((in_table && value != 7u) || !message.empty()) CHECK_IN(message, "section 'sets', byte");
    }
  }
  for (std::size_t size = 0; size < section.size(); ++size) {
    const std::vector<std::byte> cut(section.begin(), section.begin() + static_cast<long>(size));
    CHECK(!verdict(cut).empty());
  }
}

void test_metadata() {
  for (const Case& c : kCases) {
    const Image image = make(c);
    const std::string metadata = "{\"model\": \"caf\xc3\xa9\"}";
    const Image with = saved(image.open(), metadata);
    const View view = with.open();
    verify_deep(view, "test");
    CHECK(view.section_bytes(Section::metadata) == metadata.size());
    CHECK(std::memcmp(view.section(Section::metadata), metadata.data(), metadata.size()) == 0);
    CHECK(std::memcmp(view.header.identity, image.header().identity, 16) == 0);
    const Image without = saved(view, "");
    CHECK(without.bytes() == image.bytes() &&
          std::memcmp(without.data(), image.data(), image.bytes()) == 0);
    for (const bool first_with : {false, true}) {
      const Image unknown = with_unknown_section(first_with ? with : image, 0);
      verify_deep(unknown.open(), "test");
      CHECK(unknown.open().section(static_cast<Section>(99)) != nullptr);
      const Image dropped = saved(unknown.open(), "");
      CHECK(dropped.bytes() == image.bytes() &&
            std::memcmp(dropped.data(), image.data(), image.bytes()) == 0);
    }
    CHECK_IN(open_error(with_unknown_section(image, kRequired)), "needs section kind 99");
  }
  CHECK_IN(error_of(ErrorCode::invalid_argument, [] { require_text("\xff"); }), "UTF-8");
}

void test_plan() {
  std::mt19937 random(42);
  Params params = plan_of(kCases[7], random).params;
  const auto refused = [&](Metric metric, Dtype dtype, std::uint32_t dim, std::uint64_t items) {
    return error_of(ErrorCode::invalid_argument,
                    [&] { plan_sections(FileKind::index, metric, dtype, dim, items, params, {}); });
  };
  CHECK(refused(Metric::cosine, Dtype::float32, 3, 10).empty());
  CHECK_IN(refused(Metric::cosine, Dtype::uint8, 3, 10), "'dtype'");
  CHECK_IN(refused(Metric::cosine, Dtype::float32, 5, 10), "'work_dim4'");
  CHECK_IN(refused(Metric::cosine, Dtype::float32, 3, kMaxItems + 1), "'item_count'");
  params.tree_count = 65535;
  params.leaf_entries = 0xF0000000;
  CHECK(refused(Metric::cosine, Dtype::float32, 3, kMaxItems).empty());  // 2^50 bytes: they fit
  params.tree_count = 1;
  const auto sections =
      plan_sections(FileKind::index, Metric::cosine, Dtype::float32, 3, kMaxItems, params, {});
  CHECK(image_bytes(sections) > std::uint64_t{kMaxItems} * 20);
  auto huge = sections;
  huge[1].bytes = ~0ull - 100;
  CHECK_IN(error_of(ErrorCode::invalid_argument, [&] { image_bytes(huge); }), "64-bit");
  CHECK(std::is_sorted(sections.begin(), sections.end(),
                       [](const auto& a, const auto& b) { return a.kind < b.kind; }));
  CHECK(std::string(section_name(Section::leaf_ranges)) == "leaf_ranges");
  CHECK(std::string(section_name(static_cast<Section>(77))) == "unknown");
}

void test_progress_covers_the_body() {
  const Image image = make(kCases[0]);
  std::uint64_t told = 0, expected = 0;
  for (std::uint32_t i = 0; i < image.header().section_count; ++i)
    expected += image.table()[i].bytes;
  const Progress count = [&](std::uint64_t, std::uint64_t bytes) { told += bytes; };
  verify_deep(image.open(), "test", count);
  CHECK(told == expected);
  seal_image(image.data(), count);
  CHECK(told == 2 * expected);
  struct Stop {};
  bool stopped = false;
  try {
    verify_deep(image.open(), "test", [](std::uint64_t, std::uint64_t) { throw Stop(); });
  } catch (const Stop&) {
    stopped = true;
  }
  CHECK(stopped);
}

void write_images(const std::string& folder) {
  for (const Case& c : kCases) {
    const Image image = make(c);
    const Image with = saved(image.open(), "{\"case\": \"" + std::string(c.name) + "\"}");
    AtomicFile file(folder + "/" + c.name + ".annidx");
    file.append(with.data(), with.bytes());
    file.commit();
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) write_images(argv[1]);
  for (const Case& c : kCases) {
    test_good_image(c);
    test_every_truncation(c);
    test_every_head_byte(c);
    test_every_body_byte(c);
    test_random_damage(c);
  }
  test_message_families();
  test_planted_faults();
  test_table_faults();
  test_metadata();
  test_sets();
  test_damaged_sets();
  test_plan();
  test_progress_covers_the_body();
  return report();
}
