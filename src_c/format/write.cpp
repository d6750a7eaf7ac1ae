// write.cpp owns the writing of an image in memory: its head, its checksums, and a head with
// other metadata and sets. It must not open images, and it must not write files.

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "format/detail.h"
#include "format/format.h"
#include "kernels/kernels.h"

namespace annidx::format {

using namespace detail;

namespace {

SectionEntry* table_of(std::byte* image) noexcept {
  return as<SectionEntry>(image + sizeof(FileHeader));
}

// Every image has one.
const SectionEntry* metadata_entry(const View& view) noexcept {
  return find_entry(view.table.data(), view.table.size(), Section::metadata);
}

}  // namespace

void begin_image(std::byte* image, FileKind kind, Metric metric, Dtype dtype, std::uint32_t dim,
                 std::uint64_t item_count, const Params& params,
                 const std::vector<PlannedSection>& sections, const char* library_version,
                 const std::uint8_t* base) {
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
  header.kind = static_cast<std::uint32_t>(kind);
  if (base) std::memcpy(header.base_identity, base, sizeof header.base_identity);
  std::memcpy(image, &header, sizeof header);

  SectionEntry* entry = table_of(image);
  std::uint64_t end = table_end(sections.size());
  for (const PlannedSection& section : sections) {
    *entry = SectionEntry{number(section.kind),
                          section.flags,
                          aligned(end),
                          section.bytes,
                          section.record_bytes,
                          0,
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
  const Params& params = *as<Params>(image + table[0].offset);
  compute_identity(*header, table, params, header->identity);
  compute_model_identity(*header, table, params, image, header->model_identity);
  header->header_crc = header_checksum(*header, table);
}

bool is_text(const std::string& metadata) noexcept {
  const void* text = metadata.data();
  const std::uint64_t bytes = metadata.size();
  return first_bad_utf8(static_cast<const std::uint8_t*>(text), bytes) == bytes;
}

void require_text(const std::string& metadata) {
  if (!is_text(metadata)) {
    throw Error(ErrorCode::invalid_argument, "metadata: expected UTF-8 text");
  }
}

// Sections after the metadata are the sets, or of kinds unknown to us: the latter were optional and
// are left out. The table may get shorter or longer and so move the body, always by whole
// alignments.
std::vector<std::byte> head_with(const View& view, const std::string& metadata, const Bytes& sets) {
  const std::uint32_t kept =
      static_cast<std::uint32_t>(metadata_entry(view) - view.table.data()) + 1;
  const std::uint32_t count = kept + (sets.size > 0 ? 1 : 0);
  std::vector<std::byte> head(aligned(table_end(count)));
  FileHeader* header = as<FileHeader>(head.data());
  SectionEntry* table = table_of(head.data());
  *header = view.header;
  std::copy_n(view.table.data(), kept, table);

  for (std::uint32_t i = 0; i < kept; ++i) {
    table[i].offset = table[i].offset - head_bytes(view) + head.size();
  }
  SectionEntry& last = table[kept - 1];
  last.bytes = metadata.size();
  last.crc = kernels().crc32c(0, metadata.data(), metadata.size());
  if (sets.size > 0) {
    table[kept] = {number(Section::sets),
                   0,
                   aligned(last.offset + last.bytes),
                   sets.size,
                   kSetsAlignment,
                   kernels().crc32c(0, sets.data, sets.size),
                   0};
  }
  header->section_count = count;
  header->file_bytes = table[count - 1].offset + table[count - 1].bytes;
  header->header_crc = header_checksum(*header, table);
  return head;
}

// The metadata starts at a multiple of the alignment.
std::uint64_t metadata_padding(const std::string& metadata) noexcept {
  return aligned(metadata.size()) - metadata.size();
}

std::uint64_t head_bytes(const View& view) noexcept { return view.table[0].offset; }

std::uint64_t body_end(const View& view) noexcept { return metadata_entry(view)->offset; }

}  // namespace annidx::format
