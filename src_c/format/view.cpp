// format.cpp owns the opening of an image, and what finds its parts. What an image can hold is in
// layout.cpp, writing one in write.cpp, the check of every value in
// verify.cpp. docs/FORMAT.md says the same for people; change both together. It must not
// know any algorithm, and it must not map, read or write files.
//
// Everything read from an image is untrusted until checked here: sizes are compared before they
// are used, arithmetic on them saturates, and no check reads outside [image, image + bytes).

#include "format/format.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "format/detail.h"
#include "kernels/kernels.h"

namespace annidx::format {

using namespace detail;

namespace {

constexpr std::uint32_t kKnownFlags = kRequired;
constexpr std::uint32_t kSwappedEndianMark = 0x04030201u;
constexpr std::uint32_t kUnreleasedVersion = 1;
constexpr std::uint64_t kChecksumStep = std::uint64_t{16} << 20;

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

// ---- identity ----------------------------------------------------------------------------

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
    return {header_.kind, header_.metric, header_.dtype, header_.dim, header_.item_count};
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
    if (header_.version == kUnreleasedVersion) {
      throw Error(ErrorCode::format, name_ + " is in format version 1, which was never released: " +
                                         "build the index again with this annidx");
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
    const bool has_base =
        !is_zero(std::begin(header_.base_identity), std::end(header_.base_identity));
    if (has_base && !is(header_.kind, FileKind::changes)) {
      damaged(name_, header_place("base_identity", offsetof(FileHeader, base_identity)),
              "zeros unless the file holds changes",
              hex(header_.base_identity, sizeof(FileHeader::base_identity)));
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
    const auto bytes_of = [&](Section kind) {
      const SectionEntry* entry = find_entry(table_.data(), table_.size(), kind);
      return entry == nullptr ? 0 : entry->bytes;
    };
    const auto planned = sections_of(shape(), params_,
                                     {bytes_of(Section::id_text), bytes_of(Section::removed_text)});
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
    if (next < header_.section_count && table_[next].kind == number(Section::sets)) {
      check_size(next, {Section::sets, 0, table_[next].bytes, kSetsAlignment});
      ++next;
    }
    if (next < header_.section_count && table_[next].kind <= kLastKnownKind) unexpected(next);
  }

  [[noreturn]] void unexpected(std::uint32_t index) const {
    damaged(name_, entry_place(index, table_[index].kind), "no such section with these parameters",
            shown(table_[index].bytes) + " bytes");
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

std::uint32_t header_checksum(FileHeader header, const SectionEntry* table) noexcept {
  header.header_crc = 0;
  const std::uint32_t crc = kernels().crc32c(0, &header, sizeof header);
  return kernels().crc32c(crc, table, header.section_count * sizeof(SectionEntry));
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

// The leaves of the first tree only: others are made anew at each merge. Sections of which the
// first tree has a part are summed up to there.
void compute_model_identity(const FileHeader& header, const SectionEntry* table,
                            const Params& params, const std::byte* image,
                            std::uint8_t (&out)[16]) noexcept {
  Tree tree{};
  const SectionEntry* trees = find_entry(table, header.section_count, Section::trees);
  if (trees != nullptr && trees->bytes >= sizeof tree) {
    std::memcpy(&tree, image + trees->offset, sizeof tree);
  }
  const std::uint64_t leaves = std::min(tree.leaf_entry_count, params.leaf_entries);
  IdentityHash hash;
  hash.add(header.metric);
  hash.add(header.dtype);
  hash.add(header.dim);
  for (const std::uint32_t number :
       {params.scan_kind, params.code_count, params.rotation_block, params.byte_row_bytes,
        params.given_bytes, params.leaf_points, params.has_blocks, params.region_count}) {
    hash.add(number);
  }
  for (const float number :
       {params.value_scale, params.byte_scale, params.byte_offset, params.residual_weight,
        params.work_scale, params.centroid_scale, params.norm_unit}) {
    hash.add(number);
  }
  const auto add_first = [&](Section kind, std::uint64_t bytes) {
    const SectionEntry* entry = find_entry(table, header.section_count, kind);
    if (entry == nullptr) return;
    bytes = std::min(bytes, entry->bytes);
    hash.add(entry->kind);
    hash.add(bytes);
    hash.add(kernels().crc32c(0, image + entry->offset, bytes));
  };
  add_first(Section::leaf_centroids, leaves * params.work_dim4);
  add_first(Section::leaf_scales, leaves * sizeof(float));
  add_first(Section::leaf_regions, leaves);
  for (const Section kind :
       {Section::mean, Section::norm_bounds, Section::codebook, Section::code_first_dims,
        Section::rotation, Section::rotation_scales, Section::rotation_order}) {
    add_first(kind, kSaturated);
  }
  hash.write(out);
}

// Optional sections, the user's metadata among them, do not change what an index answers.
void compute_identity(const FileHeader& header, const SectionEntry* table, const Params& params,
                      std::uint8_t (&out)[16]) noexcept {
  IdentityHash hash;
  hash.add(header.metric);
  hash.add(header.dtype);
  hash.add(header.dim);
  hash.add(header.item_count);
  hash.add(header.kind);
  hash.add_bytes(header.base_identity, sizeof header.base_identity);
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

}  // namespace annidx::format
