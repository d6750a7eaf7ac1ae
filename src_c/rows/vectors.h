// vectors.h owns rows: what a build reads (StoredRows), those handed in before it (RowSource), and
// the way from a row to a vector of the working space (WorkTransform, WorkRows). It must not know
// trees or files.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/types.h"
#include "rows/metric.h"

namespace annidx {

// Rows by number, as they will be stored. Reading is thread-safe.
class StoredRows {
 public:
  StoredRows(Dtype dtype, std::uint32_t dim);
  virtual ~StoredRows() = default;

  virtual std::uint64_t size() const noexcept = 0;
  // The stored form of a row: a pointer to where it is kept, or into `buffer` (row_bytes()) when it
  // had to be converted.
  virtual const std::byte* stored(Row row, std::byte* buffer) const = 0;
  virtual bool converts(Row row) const noexcept = 0;
  // Asks for a row to be near when it is read soon.
  virtual void prefetch(Row row) const noexcept = 0;
  // Gives the pages of rows in mapped memory back now.
  virtual void release_pages() const noexcept = 0;

  Dtype dtype() const noexcept { return dtype_; }
  std::uint32_t dim() const noexcept { return dim_; }
  std::size_t row_bytes() const noexcept { return row_bytes_; }

 protected:
  StoredRows(const StoredRows&) = default;
  StoredRows& operator=(const StoredRows&) = default;

  Dtype dtype_;
  std::uint32_t dim_;
  std::size_t row_bytes_;
};

// Rows in insertion order. Owned rows are copied in chunks that never move; borrowed ones stay
// where the caller keeps them.
class RowSource final : public StoredRows {
 public:
  RowSource(Dtype dtype, std::uint32_t dim);

  // float32 for every dtype but uint8 and bits; otherwise the dtype's own type. int8 indexes take
  // int8 (kept exactly) or float32 (scaled at settle()), never both.
  bool accepts(InputType type) const noexcept;
  // Throws Error(invalid_argument) naming the first row that is not finite (position in this call),
  // or is too large for float16. Takes all rows or none.
  void add(const void* rows, InputType type, std::uint64_t n, bool borrowed);
  // Undoes the last add(), of n rows.
  void take_back(std::uint64_t n) noexcept;
  // Chooses the scale of int8 rows. No add() after it.
  void settle();
  // Takes the scale that an index has chosen. Throws Error(invalid_argument) naming the first row
  // that does not fit it, or when bytes were given and values are wanted, or the reverse.
  void settle_as(float value_scale, bool given_bytes);
  // From now on the pages of borrowed rows are given back when the process has mapped more than
  // about so many bytes of files beyond what it has now, in whatever order rows are read.
  void limit_resident(std::uint64_t bytes) noexcept;
  void release_pages() const noexcept override;

  std::uint64_t size() const noexcept override { return size_; }
  // A stored int8 value times this is the value the user gave.
  float value_scale() const noexcept { return value_scale_; }
  // Whether bytes are kept exactly as given.
  bool given_bytes() const noexcept;

  const std::byte* stored(Row row, std::byte* buffer) const override;
  bool converts(Row row) const noexcept override;
  void prefetch(Row row) const noexcept override;

 private:
  struct Segment {
    std::uint64_t first_row;
    std::uint64_t count;
    std::uint64_t capacity;
    InputType type;
    bool borrowed;
    const std::byte* data;
    std::unique_ptr<std::byte[]> owned;
  };
  std::size_t input_row_bytes(InputType type) const noexcept;
  void check_rows(const void* rows, InputType type, std::uint64_t n, bool borrowed) const;
  std::byte* reserve(InputType type, std::uint64_t n);
  const Segment& segment_of(Row row) const noexcept;
  const std::byte* given(const Segment& segment, Row row) const noexcept;
  void note_read() const noexcept;

  std::uint64_t size_ = 0;
  float value_scale_ = 1.0f;
  std::uint64_t most_resident_bytes_ = 0;  // of files in the process; 0: any
  std::uint64_t reads_per_release_ = 0;    // where the system does not tell what is resident
  mutable std::atomic<std::uint64_t> reads_{0};
  std::vector<Segment> segments_;
};

// From values in the rows' own units to the working space: scaled or normalised, then centred.
struct WorkTransform {
  WorkSpace space = WorkSpace::scaled;
  std::uint32_t dim = 0;
  float work_scale = 1.0f;      // power of two, for WorkSpace::scaled
  const float* mean = nullptr;  // of the working space; null: not centred

  // Returns the norm of the values (in their own units; 0 for a zero vector). In place is allowed.
  double apply(const float* values, float* out) const noexcept;
};

// Rows of a source as vectors of the working space.
class WorkRows {
 public:
  WorkRows(const StoredRows& source, const WorkTransform& transform)
      : source_(source), transform_(transform) {}

  std::uint64_t size() const noexcept { return source_.size(); }
  std::uint32_t dim() const noexcept { return transform_.dim; }
  // Row rows[i] to out + i * dim.
  void load(const Row* rows, std::uint64_t n, float* out) const;
  // Norm of the stored row, in its own units.
  double load_one(Row row, float* out) const;
  const StoredRows& source() const noexcept { return source_; }
  const WorkTransform& transform() const noexcept { return transform_; }

 private:
  const StoredRows& source_;
  WorkTransform transform_;
};

}  // namespace annidx
