// mutate.cpp owns the mutator and the crossing of annidx files; see mutate.h. libFuzzer calls the
// two functions at the end.
#include "mutate.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <map>
#include <random>
#include <vector>

#include "base/error.h"
#include "format/format.h"

using namespace annidx;
using format::FileHeader;
using format::Params;
using format::Section;
using format::SectionEntry;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

using Bytes = std::vector<std::uint8_t>;
using Random = std::minstd_rand;

std::uint64_t below(Random& random, std::uint64_t limit) {
  return limit == 0 ? 0 : (std::uint64_t{random()} << 31 | random()) % limit;
}

bool one_in(Random& random, unsigned times) { return random() % times == 0; }

std::byte* as_bytes(std::uint8_t* data) {
  return static_cast<std::byte*>(static_cast<void*>(data));
}

// ---- the parts of a file ---------------------------------------------------------------------

// Whether header and table can be read and each section lies in the file.
bool has_parts(const std::uint8_t* data, std::size_t size) {
  FileHeader header;
  if (size < sizeof header) return false;
  std::memcpy(&header, data, sizeof header);
  const std::uint64_t count = header.section_count;
  if (count == 0 || count > format::kMaxSections) return false;
  if (size < sizeof header + count * sizeof(SectionEntry)) return false;
  bool has_params = false;
  for (std::uint64_t i = 0; i < count; ++i) {
    SectionEntry entry;
    std::memcpy(&entry, data + sizeof header + i * sizeof entry, sizeof entry);
    if (entry.offset > size || entry.bytes > size - entry.offset) return false;
    const bool is_params = entry.kind == static_cast<std::uint32_t>(Section::params);
    if (is_params && entry.bytes < sizeof(Params)) return false;
    has_params = has_params || is_params;
  }
  return has_params;
}

// A file taken apart, to be put together with other parameters.
struct Parts {
  FileHeader header;
  Params params;
  std::map<std::uint32_t, Bytes> sections;

  Parts(const std::uint8_t* data) {
    std::memcpy(&header, data, sizeof header);
    for (std::uint32_t i = 0; i < header.section_count; ++i) {
      SectionEntry entry;
      std::memcpy(&entry, data + sizeof header + i * sizeof entry, sizeof entry);
      sections[entry.kind].assign(data + entry.offset, data + entry.offset + entry.bytes);
    }
    const Bytes& stored = sections[static_cast<std::uint32_t>(Section::params)];
    std::memcpy(&params, stored.data(), sizeof params);
  }

  // The file that these parameters ask for, from the sections' bytes as far as they go (repeated
  // where they are too few). Empty when there is no such file, or none of `max_size`.
  Bytes together(std::size_t max_size) const {
    try {
      const auto kind = static_cast<format::FileKind>(header.kind);
      auto plan = format::plan_sections(
          kind, static_cast<Metric>(header.metric), static_cast<Dtype>(header.dtype), header.dim,
          header.item_count, params, {size_of(Section::id_text), size_of(Section::removed_text)});
      plan.back().bytes = size_of(Section::metadata);
      const std::uint64_t bytes = format::image_bytes(plan);
      if (bytes > max_size) return {};
      Bytes image(bytes);
      format::begin_image(as_bytes(image.data()), kind, static_cast<Metric>(header.metric),
                          static_cast<Dtype>(header.dtype), header.dim, header.item_count, params,
                          plan, "0.0.0", header.base_identity);
      for (const auto& section : plan) fill(image.data(), section);
      format::seal_image(as_bytes(image.data()));
      return image;
    } catch (const Error&) {
      return {};
    }
  }

 private:
  std::uint64_t size_of(Section kind) const {
    const auto found = sections.find(static_cast<std::uint32_t>(kind));
    return found == sections.end() ? 0 : found->second.size();
  }
  void fill(std::uint8_t* image, const format::PlannedSection& section) const {
    const auto found = sections.find(static_cast<std::uint32_t>(section.kind));
    if (section.kind == Section::params || found == sections.end() || found->second.empty()) return;
    const Bytes& from = found->second;
    auto* to = static_cast<std::uint8_t*>(
        static_cast<void*>(format::mutable_section(as_bytes(image), section.kind)));
    for (std::uint64_t i = 0; i < section.bytes; ++i) to[i] = from[i % from.size()];
  }
};

// ---- changes ---------------------------------------------------------------------------------

// Numbers at the edges of what counts, indexes and floats can be.
std::uint64_t edge_value(Random& random, std::uint64_t items) {
  const std::uint64_t values[] = {0,
                                  1,
                                  2,
                                  15,
                                  16,
                                  17,
                                  31,
                                  32,
                                  64,
                                  255,
                                  256,
                                  65535,
                                  items,
                                  items + 1,
                                  items - 1,
                                  items / 2,
                                  0x7FFFFFFF,
                                  0x80000000,
                                  0xFFFFFFFE,
                                  0xFFFFFFFF,
                                  0x7F800000,
                                  0xFF800000,
                                  0x7FC00000,
                                  0x7F7FFFFF,
                                  0xFF7FFFFF,
                                  0x00000001,
                                  0x00800000,
                                  0x3F800000,
                                  0x7FFFFFFFFFFFFFFF,
                                  0x8000000000000000,
                                  0xFFFFFFFFFFFFFFFF};
  return values[below(random, std::size(values))];
}

// Changes a few numbers of a section, of the width that its records are made of or any other.
void change_numbers(Bytes* section, std::uint64_t items, Random& random) {
  if (section->empty()) return;
  for (std::uint64_t i = 0; i <= below(random, 4); ++i) {
    const std::size_t width =
        std::min<std::size_t>(std::size_t{1} << below(random, 4), section->size());
    const std::size_t at = below(random, section->size() / width) * width;
    std::uint64_t value = 0;
    std::memcpy(&value, section->data() + at, width);
    switch (below(random, 4)) {
      case 0: value = edge_value(random, items); break;
      case 1: value += below(random, 33) - 16; break;
      case 2: value ^= std::uint64_t{1} << below(random, 8 * width); break;
      default:
        std::memcpy(&value, section->data() + below(random, section->size() / width) * width,
                    width);
    }
    std::memcpy(section->data() + at, &value, width);
  }
}

// Overwrites, or moves within a section.
void change_span(Bytes* section, Random& random) {
  if (section->empty()) return;
  const std::size_t size = section->size();
  const std::size_t from = below(random, size), to = below(random, size);
  const std::size_t count = 1 + below(random, size - std::max(from, to));
  std::uint8_t* bytes = section->data();
  switch (below(random, 4)) {
    case 0: std::memset(bytes + to, 0, count); break;
    case 1: std::memset(bytes + to, 0xFF, count); break;
    case 2: std::memmove(bytes + to, bytes + from, count); break;
    default:
      for (std::size_t i = 0; i < count; ++i) std::swap(bytes[from + i], bytes[to + i]);
  }
}

Bytes* any_section(Parts* parts, Random& random) {
  auto section = parts->sections.begin();
  std::advance(section, below(random, parts->sections.size()));
  return &section->second;
}

// A parameter, and with it the size of sections.
void change_shape(Parts* parts, Random& random) {
  Params& params = parts->params;
  const std::uint64_t items = parts->header.item_count;
  std::uint32_t* fields[] = {&params.id_kind,       &params.scan_kind,      &params.tree_count,
                             &params.leaf_entries,  &params.group_entries,  &params.block_count,
                             &params.code_count,    &params.rotation_block, &params.curve_points,
                             &params.has_blocks,    &params.region_count,   &params.removed_count,
                             &parts->header.metric, &parts->header.dtype,   &parts->header.kind};
  switch (below(random, 4)) {
    case 0: parts->header.item_count = one_in(random, 2) ? below(random, 400) : items + 1; break;
    case 1: parts->header.dim = static_cast<std::uint32_t>(1 + below(random, 70)); break;
    case 2: {
      float* numbers[] = {&params.value_scale,    &params.byte_scale, &params.byte_offset,
                          &params.default_recall, &params.work_scale, &params.norm_unit,
                          &params.radius_weight};
      const auto bits = static_cast<std::uint32_t>(edge_value(random, items));
      std::memcpy(numbers[below(random, std::size(numbers))], &bits, sizeof bits);
      break;
    }
    default: {
      std::uint32_t* field = fields[below(random, std::size(fields))];
      *field = one_in(random, 3) ? static_cast<std::uint32_t>(edge_value(random, items))
                                 : static_cast<std::uint32_t>(below(random, 12));
      const bool is_entries = field == &params.leaf_entries || field == &params.group_entries;
      if (is_entries) *field *= 16;
      if (field == &params.code_count) *field *= 4;
    }
  }
  // What follows from the rest, so that most results are files.
  const std::uint32_t dim = parts->header.dim;
  const bool is_bytes = parts->header.dtype == static_cast<std::uint32_t>(Dtype::int8) ||
                        parts->header.dtype == static_cast<std::uint32_t>(Dtype::uint8);
  params.work_dim4 = (dim + 3) / 4 * 4;
  params.rotation_block = std::min(params.rotation_block, dim);
  params.byte_row_bytes = params.scan_kind <= 2 && !is_bytes ? dim : 0;
  if (params.scan_kind == 1) {
    const std::uint64_t blocks = (parts->header.item_count + 31) / 32;
    params.block_count = std::max(params.block_count, static_cast<std::uint32_t>(blocks));
    params.rotation_block = std::max(params.rotation_block, 1u);
    params.code_count = std::max(params.code_count, 4u);
  } else {
    params.block_count = params.code_count = params.rotation_block = 0;
  }
}

std::size_t give(const Bytes& image, std::uint8_t* data, std::size_t size, std::size_t max_size) {
  if (image.empty() || image.size() > max_size) return size;
  std::memcpy(data, image.data(), image.size());
  return image.size();
}

}  // namespace

namespace fuzz {

void repair(std::uint8_t* data, std::size_t size) {
  if (!has_parts(data, size)) return;
  FileHeader header;
  std::memcpy(&header, data, sizeof header);
  header.file_bytes = size;
  std::memcpy(data, &header, sizeof header);
  // The room `format` asks for aligned memory; inputs need not be.
  std::vector<std::uint64_t> aligned((size + 7) / 8);
  std::memcpy(aligned.data(), data, size);
  format::seal_image(static_cast<std::byte*>(static_cast<void*>(aligned.data())));
  std::memcpy(data, aligned.data(), size);
}

}  // namespace fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned seed) {
  Random random(seed);
  random.discard(4);
  if (!has_parts(data, size) || one_in(random, 16)) {
    size = LLVMFuzzerMutate(data, size, max_size);
    if (!one_in(random, 4)) fuzz::repair(data, size);
    return size;
  }
  Parts parts(data);
  for (std::uint64_t i = 0; i <= below(random, 3); ++i) {
    Bytes* section = any_section(&parts, random);
    switch (below(random, 4)) {
      case 0: change_span(section, random); break;
      case 1: change_shape(&parts, random); break;
      default: change_numbers(section, parts.header.item_count, random);
    }
  }
  size = give(parts.together(max_size), data, size, max_size);
  // Some with the damage that checksums are there for.
  if (one_in(random, 16)) data[below(random, size)] ^= 1u << below(random, 8);
  return size;
}

// The first file with some sections of the second.
extern "C" std::size_t LLVMFuzzerCustomCrossOver(const std::uint8_t* first, std::size_t first_size,
                                                 const std::uint8_t* second,
                                                 std::size_t second_size, std::uint8_t* out,
                                                 std::size_t max_size, unsigned seed) {
  if (first_size > max_size) return 0;
  std::memcpy(out, first, first_size);
  if (!has_parts(first, first_size) || !has_parts(second, second_size)) return first_size;
  Random random(seed);
  Parts parts(first);
  const Parts others(second);
  if (one_in(random, 4)) parts.params = others.params;
  for (const auto& section : others.sections) {
    if (one_in(random, 3)) parts.sections[section.first] = section.second;
  }
  return give(parts.together(max_size), out, first_size, max_size);
}
