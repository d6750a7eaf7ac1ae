// codes.h owns the 4-bit codes of residuals: training, encoding, packing into blocks, and a query's
// lookup tables. It must not know trees or files.
//
// Product quantization (Jegou, Douze, Schmid) with 16 codewords a sub-quantizer, scanned by byte
// shuffles as in Quicker ADC and ScaNN. Residuals are rotated by their own principal axes, and
// each code gets a run of axes so that the expected error is least.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/parallel.h"
#include "base/types.h"
#include "kernels/kernels.h"

namespace annidx {

// Sub-quantizers for a dimension: a multiple of 4.
std::uint32_t code_count_for(std::uint32_t dim) noexcept;
// Input dimensions of a rotation row.
std::uint32_t rotation_block_for(std::uint32_t dim) noexcept;

class CodeModel {
 public:
  // residuals: count rows of dim. Depends on its arguments only, not on threads.
  static CodeModel train(const std::vector<float>& residuals, std::uint32_t dim, unsigned n_threads,
                         Monitor* monitor);

  // The model that others wrote: see codebook(), first_dims() and write_rotation(). Throws
  // Error(format) when its indexes point outside.
  static CodeModel read(std::uint32_t dim, std::uint32_t code_count, std::uint32_t rotation_block,
                        const float* codebook, const std::uint16_t* first_dims,
                        const std::int8_t* rotation, const float* rotation_scales,
                        const std::uint32_t* rotation_order);

  std::uint32_t dim() const noexcept { return dim_; }
  std::uint32_t code_count() const noexcept { return code_count_; }
  std::uint32_t rotation_block() const noexcept { return rotation_block_; }

  // n rows of dim floats to rotated components.
  void rotate(const float* rows, std::uint64_t n, float* out) const;
  // n rotated rows to codes (one byte each, code_count() a row).
  void encode(const float* rotated, std::uint64_t n, std::uint8_t* codes) const;
  // The rotated components that codes stand for.
  void decode(const std::uint8_t* codes, float* rotated) const;

  const std::vector<float>& codebook() const noexcept { return codebook_; }  // [dim][16]
  const std::vector<std::uint16_t>& first_dims() const noexcept { return first_dims_; }
  // The rotation as signed bytes with a scale a row, as all use it: [dim][rotation_block].
  void write_rotation(std::int8_t* matrix, float* scales, std::uint32_t* order) const;

 private:
  void learn_rotation(const std::vector<float>& residuals, std::uint64_t count, unsigned n_threads,
                      Monitor* monitor);
  void learn_codebook(const std::vector<float>& rotated, std::uint64_t count, unsigned n_threads,
                      Monitor* monitor);
  void round_rotation();
  void pack_rotation();
  void square_codewords();

  std::uint32_t dim_ = 0;
  std::uint32_t code_count_ = 0;
  std::uint32_t rotation_block_ = 0;
  std::vector<float> rotation_;  // [dim][rotation_block]; row i reads input block i / block
  std::vector<std::int8_t> rotation_bytes_;  // rotation_ is these times the row's scale
  std::vector<float> rotation_scales_;
  std::vector<float> rotation_panels_;  // the same for panel_dot
  std::vector<std::uint32_t> order_;    // rotated row i is component order_[i]
  std::vector<std::uint16_t> first_dims_;
  std::vector<float> codebook_;
  std::vector<float> half_squares_;  // [code][16]
};

// Packs codes (one byte each) and scalars of n points into blocks (kernels.h scan_codes_*). blocks:
// zeroed memory of block_count(n) * code_block_bytes(code_count) bytes.
void pack_blocks(const std::uint8_t* codes, const float* scalars, std::uint64_t n,
                 std::uint32_t code_count, std::uint8_t* blocks) noexcept;

// A query's lookup tables; see kernels.h. Four tables a cache line: scans are a quarter slower when
// they straddle two.
struct alignas(64) LutLine {
  std::uint8_t entries[64];
};
struct CodeTables {
  std::vector<LutLine> lines;
  const std::uint8_t* luts() const noexcept { return lines.data()->entries; }
  float step = 1.0f;
  float base = 0.0f;
};

// What a query needs of a model, in memory that others own. first_dims and rotation_order may hold
// anything; prepare() checks them once a query.
struct CodesView {
  std::uint32_t dim = 0;
  std::uint32_t code_count = 0;
  std::uint32_t rotation_block = 0;
  const float* codebook = nullptr;
  const std::uint16_t* first_dims = nullptr;
  const std::int8_t* rotation = nullptr;
  const float* rotation_scales = nullptr;
  const std::uint32_t* rotation_order = nullptr;
  const std::uint8_t* blocks = nullptr;

  std::size_t block_bytes() const noexcept { return code_block_bytes(code_count); }
};

struct PlaneBuffers {
  std::vector<std::int8_t> high, low;
  QueryPlanes planes{};
  // Quantizes to 14 bits with a power-of-two step: integers up to 8191 stay exact.
  void set(const float* values, std::uint32_t dim);
};

struct TableScratch {
  std::vector<float> rotated, permuted, tables;
  std::vector<std::uint16_t> first_dims;
};

// Tables of factor * <query, residual> for a query of the working space. 7 bits a value are enough:
// entries of the tables have 8.
// Throws Error(format) when the model's indexes point outside.
void make_tables(const CodesView& codes, const QueryBytes& query, float factor,
                 TableScratch* scratch, CodeTables* out);

}  // namespace annidx
