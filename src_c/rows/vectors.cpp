// vectors.cpp owns the storage of rows before a build and the working space; see vectors.h.
#include "rows/vectors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "base/error.h"
#include "kernels/kernels.h"
#include "os/file.h"

namespace annidx {
namespace {

constexpr std::uint64_t kFirstChunkBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kLargestChunkBytes = std::uint64_t{1} << 26;
constexpr float kLargestHalf = 65504.0f;
// Where all rows are read in order, borrowed ones are given back after so many.
constexpr std::uint64_t kRowsPerRelease = 16'384;

const float* as_floats(const void* rows) noexcept { return static_cast<const float*>(rows); }

// The smallest float with a 16-bit significand that is at least x: times any int8 it is exact, so
// that decoding a row and encoding it again gives the same bytes.
float round_up_to_16_bits(float x) noexcept {
  int exponent = 0;
  const float fraction = std::frexp(x, &exponent);
  return std::ldexp(std::ceil(fraction * 65536.0f) / 65536.0f, exponent);
}

void quantize_to_int8(const float* values, std::uint32_t dim, float scale,
                      std::int8_t* out) noexcept {
  for (std::uint32_t j = 0; j < dim; ++j) {
    const float q = std::nearbyint(values[j] / scale);
    out[j] = static_cast<std::int8_t>(std::clamp(q, -127.0f, 127.0f));
  }
}

}  // namespace

StoredRows::StoredRows(Dtype dtype, std::uint32_t dim)
    : dtype_(dtype), dim_(dim), row_bytes_(stored_bytes(dtype, dim)) {}

RowSource::RowSource(Dtype dtype, std::uint32_t dim) : StoredRows(dtype, dim) {}

bool RowSource::accepts(InputType type) const noexcept {
  switch (dtype_) {
    case Dtype::float32: return type == InputType::float32;
    case Dtype::float16: return type == InputType::float32 || type == InputType::float16;
    case Dtype::int8:
      return (type == InputType::float32 || type == InputType::int8) &&
             (segments_.empty() || segments_.front().type == type);
    case Dtype::uint8: return type == InputType::uint8;
    case Dtype::bits: return type == InputType::bits;
  }
  return false;
}

bool RowSource::given_bytes() const noexcept {
  if (dtype_ == Dtype::uint8) return true;
  return dtype_ == Dtype::int8 && !segments_.empty() && segments_.front().type == InputType::int8;
}

std::size_t RowSource::input_row_bytes(InputType type) const noexcept {
  switch (type) {
    case InputType::float32: return std::size_t{4} * dim_;
    case InputType::float16: return std::size_t{2} * dim_;
    case InputType::int8:
    case InputType::uint8: return dim_;
    case InputType::bits: return row_bytes_;
  }
  return 0;
}

void RowSource::check_rows(const void* rows, InputType type, std::uint64_t n, bool borrowed) const {
  if (type != InputType::float32 && type != InputType::float16) return;
  std::vector<float> decoded(type == InputType::float16 ? dim_ : 0);
  for (std::uint64_t i = 0; i < n; ++i) {
    const float* row = decoded.data();
    if (type == InputType::float32) {
      row = as_floats(rows) + i * dim_;
    } else {
      kernels().f16_to_f32(static_cast<const std::uint16_t*>(rows) + i * dim_, decoded.data(),
                           dim_);
    }
    const std::size_t bad = kernels().first_nonfinite(row, dim_);
    if (bad < dim_) {
      throw Error(ErrorCode::invalid_argument, "vectors: expected finite numbers; row " +
                                                   std::to_string(i) + " holds " +
                                                   (std::isnan(row[bad]) ? "NaN" : "an infinity") +
                                                   " at position " + std::to_string(bad));
    }
    if (dtype_ == Dtype::float16 && kernels().max_abs(row, dim_) > kLargestHalf) {
      throw Error(ErrorCode::invalid_argument,
                  "vectors: row " + std::to_string(i) +
                      " holds a value beyond 65504, too large for dtype float16");
    }
    if (borrowed && (i + 1) % kRowsPerRelease == 0) {
      const std::size_t bytes = input_row_bytes(type);
      release_borrowed(static_cast<const std::byte*>(rows) + (i + 1 - kRowsPerRelease) * bytes,
                       kRowsPerRelease * bytes);
    }
  }
}

std::byte* RowSource::reserve(InputType type, std::uint64_t n) {
  const std::size_t bytes = input_row_bytes(type);
  if (!segments_.empty()) {
    Segment& last = segments_.back();
    if (!last.borrowed && last.type == type && last.capacity - last.count >= n) {
      return last.owned.get() + last.count * bytes;
    }
  }
  const std::uint64_t chunk_bytes =
      std::clamp<std::uint64_t>(size_ * bytes, kFirstChunkBytes, kLargestChunkBytes);
  const std::uint64_t capacity = std::max<std::uint64_t>(n, chunk_bytes / bytes + 1);
  Segment segment{size_,
                  0,
                  capacity,
                  type,
                  false,
                  nullptr,
                  std::unique_ptr<std::byte[]>(new std::byte[capacity * bytes])};
  segment.data = segment.owned.get();
  segments_.push_back(std::move(segment));
  return segments_.back().owned.get();
}

void RowSource::add(const void* rows, InputType type, std::uint64_t n, bool borrowed) {
  if (n == 0) return;
  if (n > kMaxItems - size_) {
    throw Error(ErrorCode::invalid_argument,
                "vectors: an index holds at most " + std::to_string(kMaxItems) + " items");
  }
  check_rows(rows, type, n, borrowed);
  // float16 storage converts at once: half the memory until the build.
  const bool to_half = dtype_ == Dtype::float16 && type == InputType::float32 && !borrowed;
  const InputType kept = to_half ? InputType::float16 : type;
  if (borrowed) {
    segments_.push_back({size_, n, n, kept, true, static_cast<const std::byte*>(rows), nullptr});
  } else {
    std::byte* place = reserve(kept, n);
    if (to_half) {
      kernels().f32_to_f16(as_floats(rows), static_cast<std::uint16_t*>(static_cast<void*>(place)),
                           n * dim_);
    } else {
      std::memcpy(place, rows, n * input_row_bytes(kept));
    }
    segments_.back().count += n;
  }
  size_ += n;
}

void RowSource::take_back(std::uint64_t n) noexcept {
  if (n == 0) return;
  Segment& last = segments_.back();
  last.count -= n;
  size_ -= n;
  if (last.count == 0) segments_.pop_back();
}

void RowSource::settle() {
  if (dtype_ != Dtype::int8 || given_bytes() || segments_.empty()) return;
  float largest = 0.0f;
  for (const Segment& segment : segments_) {
    for (std::uint64_t row = 0; row < segment.count; row += kRowsPerRelease) {
      const std::uint64_t count = std::min(kRowsPerRelease, segment.count - row);
      const float* values = as_floats(segment.data) + row * dim_;
      largest = std::max(largest, kernels().max_abs(values, count * dim_));
      if (segment.borrowed) release_borrowed(values, count * dim_ * sizeof(float));
    }
  }
  // Below the floor a scale would not be a normal float; such data is zero for all purposes.
  constexpr float kFloor = 1e-30f;
  value_scale_ =
      std::min(round_up_to_16_bits(std::max(largest / 127.0f, kFloor)), kLargestValueScale);
}

void RowSource::settle_as(float value_scale, bool wants_bytes) {
  if (dtype_ != Dtype::int8 || segments_.empty()) return;
  if (given_bytes() != wants_bytes) {
    throw Error(ErrorCode::invalid_argument,
                wants_bytes ? "vectors: expected int8, as this index was built of, got float32"
                            : "vectors: expected float32, as this index was built of, got int8");
  }
  value_scale_ = value_scale;
  if (wants_bytes) return;
  const float largest = value_scale * 127.5f;
  for (const Segment& segment : segments_) {
    for (std::uint64_t row = 0; row < segment.count; ++row) {
      const float found = kernels().max_abs(as_floats(segment.data) + row * dim_, dim_);
      if (found <= largest) continue;
      throw Error(ErrorCode::invalid_argument,
                  "vectors: row " + std::to_string(segment.first_row + row) + " holds a value of " +
                      std::to_string(found) + ", beyond the " + std::to_string(largest) +
                      " that the int8 storage of this index can tell: build it anew");
    }
  }
}

const RowSource::Segment& RowSource::segment_of(Row row) const noexcept {
  std::size_t low = 0, high = segments_.size();
  while (high - low > 1) {
    const std::size_t middle = (low + high) / 2;
    (segments_[middle].first_row <= row ? low : high) = middle;
  }
  return segments_[low];
}

const std::byte* RowSource::given(const Segment& segment, Row row) const noexcept {
  return segment.data + (row - segment.first_row) * input_row_bytes(segment.type);
}

void RowSource::prefetch(Row row) const noexcept {
  const Segment& segment = segment_of(row);
  prefetch_l2(given(segment, row), input_row_bytes(segment.type));
}

bool RowSource::converts(Row row) const noexcept {
  return dtype_ != Dtype::float32 && segment_of(row).type == InputType::float32;
}

const std::byte* RowSource::stored(Row row, std::byte* buffer) const {
  const Segment& segment = segment_of(row);
  const std::byte* in = given(segment, row);
  if (most_resident_bytes_ != 0) note_read();
  if (segment.type != InputType::float32 || dtype_ == Dtype::float32) return in;
  const float* values = as_floats(in);
  if (dtype_ == Dtype::float16) {
    kernels().f32_to_f16(values, static_cast<std::uint16_t*>(static_cast<void*>(buffer)), dim_);
  } else {
    quantize_to_int8(values, dim_, value_scale_,
                     static_cast<std::int8_t*>(static_cast<void*>(buffer)));
  }
  return buffer;
}

void RowSource::limit_resident(std::uint64_t bytes) noexcept {
  most_resident_bytes_ = resident_file_bytes() + bytes;
  const std::size_t row_bytes =
      segments_.empty() ? row_bytes_ : input_row_bytes(segments_.front().type);
  reads_per_release_ = std::max<std::uint64_t>(1, bytes / (4096 + row_bytes));
}

// How much a read brings in is the system's choice (the pages around it, or two megabytes at once),
// so that only it can tell when there is too much.
void RowSource::note_read() const noexcept {
  constexpr std::uint64_t kReadsPerCheck = 32;
  const std::uint64_t reads = reads_.fetch_add(1, std::memory_order_relaxed);
  if (reads % kReadsPerCheck != 0) return;
  const std::uint64_t resident = resident_file_bytes();
  if (resident != 0 ? resident < most_resident_bytes_
                    : reads % reads_per_release_ >= kReadsPerCheck) {
    return;
  }
  release_pages();
}

// Other threads may be reading: they find the same bytes again.
void RowSource::release_pages() const noexcept {
  for (const Segment& segment : segments_) {
    if (!segment.borrowed) continue;
    release_borrowed(segment.data, segment.count * input_row_bytes(segment.type));
  }
}

double WorkTransform::apply(const float* values, float* out) const noexcept {
  double norm = 0.0;
  if (space == WorkSpace::unit) {
    norm = std::sqrt(kernels().dot_square_f32(values, values, dim).square);
    const double inverse = norm > 0.0 ? 1.0 / norm : 0.0;
    for (std::uint32_t j = 0; j < dim; ++j) out[j] = static_cast<float>(values[j] * inverse);
  } else {
    for (std::uint32_t j = 0; j < dim; ++j) out[j] = values[j] * work_scale;
  }
  if (mean) {
    for (std::uint32_t j = 0; j < dim; ++j) out[j] -= mean[j];
  }
  return norm;
}

double WorkRows::load_one(Row row, float* out) const {
  // No buffer of the thread: where its memory cannot be had, the C library ends the process.
  std::vector<std::byte> buffer;
  if (source_.converts(row)) buffer.resize(source_.row_bytes());
  decode_row(source_.dtype(), source_.stored(row, buffer.data()), dim(), out);
  return transform_.apply(out, out);
}

void WorkRows::load(const Row* rows, std::uint64_t n, float* out) const {
  constexpr std::uint64_t kAhead = 6;
  for (std::uint64_t i = 0; i < n; ++i) {
    if (i + kAhead < n) source_.prefetch(rows[i + kAhead]);
    load_one(rows[i], out + i * dim());
  }
}

}  // namespace annidx
