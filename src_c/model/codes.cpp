// codes.cpp owns training, packing and lookup tables of 4-bit codes; see codes.h.
#include "model/codes.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>

#include "base/error.h"
#include "base/tuning.h"

namespace annidx {
namespace {

// Rows of a matrix as panels of 16 for panel_dot: panel p holds rows 16p .. 16p+15.
std::vector<float> pack_rows(const float* rows, std::uint32_t n_rows, std::size_t row_stride,
                             std::uint32_t dim) {
  const std::uint32_t panels = (n_rows + kPanelWidth - 1) / kPanelWidth;
  std::vector<float> packed(std::size_t{panels} * kPanelWidth * dim);
  for (std::uint32_t r = 0; r < n_rows; ++r) {
    float* panel = &packed[std::size_t{r / kPanelWidth} * kPanelWidth * dim];
    for (std::uint32_t j = 0; j < dim; ++j) {
      panel[j * kPanelWidth + r % kPanelWidth] = rows[r * row_stride + j];
    }
  }
  return packed;
}

// Square matrix of d x d floats, rows contiguous.
using Matrix = std::vector<float>;

// The covariance of columns [begin, begin + d) of the residuals (their mean is near zero).
Matrix covariance(const std::vector<float>& residuals, std::uint64_t count, std::uint32_t dim,
                  std::uint32_t begin, std::uint32_t d, unsigned n_threads, Monitor* monitor) {
  const auto samples = static_cast<std::uint32_t>(count);
  std::vector<float> columns(std::size_t{d} * samples);
  for (std::uint32_t s = 0; s < samples; ++s) {
    for (std::uint32_t j = 0; j < d; ++j) {
      columns[std::size_t{j} * samples + s] = residuals[std::size_t{s} * dim + begin + j];
    }
  }
  Matrix out(std::size_t{d} * d);
  const std::uint32_t panels = (d + kPanelWidth - 1) / kPanelWidth;
  parallel_for(
      n_threads, panels, 1,
      [&](std::uint64_t from, std::uint64_t to, unsigned) {
        std::vector<float> dots(std::size_t{d} * kPanelWidth);
        for (std::uint64_t p = from; p < to; ++p) {
          const auto first = static_cast<std::uint32_t>(p * kPanelWidth);
          const std::uint32_t width = std::min<std::uint32_t>(kPanelWidth, d - first);
          const std::vector<float> panel =
              pack_rows(&columns[std::size_t{first} * samples], width, samples, samples);
          kernels().panel_dot(columns.data(), d, samples, panel.data(), samples, dots.data(),
                              kPanelWidth);
          for (std::uint32_t i = 0; i < d; ++i) {
            std::memcpy(&out[std::size_t{i} * d + first], &dots[i * kPanelWidth],
                        sizeof(float) * width);
          }
        }
      },
      monitor);
  return out;
}

// Takes the parts along rows 0 .. i-1 out of row i, twice for accuracy, and scales it to length 1.
// Returns false when nothing is left of it.
bool make_orthogonal(Matrix* rows, std::uint32_t d, std::uint32_t i) {
  float* row = &(*rows)[std::size_t{i} * d];
  const float before = std::sqrt(kernels().dot_f32(row, row, d));
  for (int pass = 0; pass < 2; ++pass) {
    for (std::uint32_t other = 0; other < i; ++other) {
      const float* fixed = &(*rows)[std::size_t{other} * d];
      kernels().axpy(-kernels().dot_f32(row, fixed, d), fixed, row, d);
    }
  }
  const float norm = std::sqrt(kernels().dot_f32(row, row, d));
  constexpr float kLeast = 1e-3f;
  if (!(norm > kLeast * before)) return false;
  const float inverse = 1.0f / norm;
  for (std::uint32_t j = 0; j < d; ++j) row[j] *= inverse;
  return true;
}

// Gram-Schmidt over rows; a row that vanishes (fewer directions than dimensions) is replaced by the
// first coordinate axis that does not.
void orthonormalize(Matrix* rows, std::uint32_t d) {
  std::uint32_t axis = 0;
  for (std::uint32_t i = 0; i < d; ++i) {
    while (!make_orthogonal(rows, d, i) && axis < d) {
      float* row = &(*rows)[std::size_t{i} * d];
      std::fill(row, row + d, 0.0f);
      row[axis++] = 1.0f;
    }
  }
}

// Principal axes by orthogonal iteration, roughly by falling variance: axes of like variance may
// stay mixed, which costs codes nothing.
Matrix principal_axes(const Matrix& covariance, std::uint32_t d, unsigned n_threads,
                      Monitor* monitor) {
  std::vector<std::uint32_t> by_variance(d);
  std::iota(by_variance.begin(), by_variance.end(), 0);
  std::stable_sort(by_variance.begin(), by_variance.end(), [&](std::uint32_t a, std::uint32_t b) {
    return covariance[std::size_t{a} * d + a] > covariance[std::size_t{b} * d + b];
  });
  Matrix axes(std::size_t{d} * d);
  for (std::uint32_t i = 0; i < d; ++i) axes[std::size_t{i} * d + by_variance[i]] = 1.0f;
  float trace = 0.0f;
  for (std::uint32_t i = 0; i < d; ++i) trace += covariance[std::size_t{i} * d + i];
  if (!(trace > 0.0f)) return axes;
  Matrix scaled(covariance);
  for (float& value : scaled) value *= static_cast<float>(d) / trace;

  const std::uint32_t panels = (d + kPanelWidth - 1) / kPanelWidth;
  const std::vector<float> packed = pack_rows(scaled.data(), d, d, d);
  Matrix next(std::size_t{d} * panels * kPanelWidth);
  for (std::uint32_t round = 0; round < tuning::kRotationRounds; ++round) {
    const std::size_t stride = std::size_t{panels} * kPanelWidth;
    parallel_for(
        n_threads, panels, 1,
        [&](std::uint64_t from, std::uint64_t to, unsigned) {
          for (std::uint64_t p = from; p < to; ++p) {
            kernels().panel_dot(axes.data(), d, d, &packed[p * kPanelWidth * d], d,
                                &next[p * kPanelWidth], stride);
          }
        },
        monitor);
    for (std::uint32_t i = 0; i < d; ++i) {
      std::memcpy(&axes[std::size_t{i} * d], &next[i * stride], sizeof(float) * d);
    }
    orthonormalize(&axes, d);
  }
  return axes;
}

// Expected squared error of coding axes [begin, begin + width) (variances falling) by 4 bits: the
// first `active` share the bits as rate-distortion theory gives them, the others are dropped.
float coding_error(const std::vector<float>& variances, std::uint32_t begin, std::uint32_t width) {
  double log_sum = 0.0, total = 0.0;
  for (std::uint32_t j = 0; j < width; ++j) total += variances[begin + j];
  double best = total, covered = 0.0;
  for (std::uint32_t active = 1; active <= width; ++active) {
    const double variance = std::max(1e-30, static_cast<double>(variances[begin + active - 1]));
    log_sum += std::log2(variance);
    covered += variance;
    const double coded = active * std::exp2((log_sum - 2.0 * 4.0) / active);
    best = std::min(best, coded + std::max(0.0, total - covered));
  }
  return static_cast<float>(best);
}

// Cuts the axes into `codes` runs so that the sum of coding_error is least (dynamic programming).
std::vector<std::uint16_t> divide_axes(const std::vector<float>& variances, std::uint32_t codes) {
  const auto dim = static_cast<std::uint32_t>(variances.size());
  const std::uint32_t even = (dim + codes - 1) / codes;
  const std::uint32_t widest =
      std::min(dim, std::max(even * 4, std::min(dim, tuning::kMaxDimsPerCode)));
  std::vector<float> error(std::size_t{dim} * (widest + 1));
  for (std::uint32_t begin = 0; begin < dim; ++begin) {
    for (std::uint32_t w = 1; w <= std::min(widest, dim - begin); ++w) {
      error[std::size_t{begin} * (widest + 1) + w] = coding_error(variances, begin, w);
    }
  }
  constexpr float kWorst = std::numeric_limits<float>::infinity();
  std::vector<float> cost(dim + 1, kWorst), next(dim + 1);
  std::vector<std::uint16_t> width_at(std::size_t{codes} * (dim + 1));
  cost[0] = 0.0f;
  for (std::uint32_t code = 0; code < codes; ++code) {
    std::fill(next.begin(), next.end(), kWorst);
    for (std::uint32_t end = 1; end <= dim; ++end) {
      for (std::uint32_t w = 1; w <= std::min(widest, end); ++w) {
        const float here = cost[end - w] + error[std::size_t{end - w} * (widest + 1) + w];
        if (here < next[end]) {
          next[end] = here;
          width_at[std::size_t{code} * (dim + 1) + end] = static_cast<std::uint16_t>(w);
        }
      }
    }
    cost.swap(next);
  }
  std::vector<std::uint16_t> first(codes + 1);
  std::uint32_t end = dim;
  for (std::uint32_t code = codes; code-- > 0;) {
    first[code + 1] = static_cast<std::uint16_t>(end);
    end -= width_at[std::size_t{code} * (dim + 1) + end];
  }
  return first;
}

// k-means of one sub-quantizer: 16 codewords over its axes. Starts from the quantiles along the
// first axis; an empty codeword takes the point farthest from its own.
void learn_codewords(const float* points, std::uint64_t count, std::uint32_t width,
                     std::vector<float>* codewords) {
  std::vector<std::uint32_t> by_first(count);
  std::iota(by_first.begin(), by_first.end(), 0);
  std::stable_sort(by_first.begin(), by_first.end(), [&](std::uint32_t a, std::uint32_t b) {
    return points[std::size_t{a} * width] < points[std::size_t{b} * width];
  });
  std::vector<float>& words = *codewords;  // [width][16]
  words.assign(std::size_t{width} * kCodewords, 0.0f);
  for (std::size_t c = 0; c < kCodewords; ++c) {
    const std::uint32_t point = by_first[(2 * c + 1) * count / (2 * kCodewords)];
    for (std::uint32_t j = 0; j < width; ++j) {
      words[j * kCodewords + c] = points[std::size_t{point} * width + j];
    }
  }
  const std::uint16_t whole[2] = {0, static_cast<std::uint16_t>(width)};
  std::vector<std::uint8_t> code(count);
  std::vector<float> half(kCodewords);
  for (std::uint32_t round = 0; round < tuning::kCodebookRounds; ++round) {
    for (std::size_t c = 0; c < kCodewords; ++c) {
      half[c] = 0.0f;
      for (std::uint32_t j = 0; j < width; ++j) {
        half[c] += 0.5f * words[j * kCodewords + c] * words[j * kCodewords + c];
      }
    }
    kernels().encode(points, count, width, words.data(), half.data(), whole, 1, code.data());
    std::vector<double> sums(words.size());
    std::vector<std::uint64_t> counts(kCodewords);
    for (std::uint64_t i = 0; i < count; ++i) {
      ++counts[code[i]];
      for (std::uint32_t j = 0; j < width; ++j) {
        sums[j * kCodewords + code[i]] += points[i * width + j];
      }
    }
    for (std::size_t c = 0; c < kCodewords; ++c) {
      if (counts[c] == 0) {
        // Seldom: a point picked by codeword and round, the same every time.
        const std::uint64_t point = (c * 7919 + round * 104729) % count;
        for (std::uint32_t j = 0; j < width; ++j) {
          words[j * kCodewords + c] = points[point * width + j];
        }
        continue;
      }
      for (std::uint32_t j = 0; j < width; ++j) {
        words[j * kCodewords + c] =
            static_cast<float>(sums[j * kCodewords + c] / static_cast<double>(counts[c]));
      }
    }
  }
}

}  // namespace

std::uint32_t code_count_for(std::uint32_t dim) noexcept {
  const std::uint32_t fine = std::min(dim / tuning::kFineDims, tuning::kFineCodes);
  const std::uint32_t codes =
      std::min(std::max(fine, dim / tuning::kCoarseDims), tuning::kMaxCodes);
  return std::max(4u, codes / 4 * 4);
}

std::uint32_t rotation_block_for(std::uint32_t dim) noexcept {
  const std::uint32_t blocks = (dim + tuning::kRotationBlock - 1) / tuning::kRotationBlock;
  return (dim + blocks - 1) / blocks;
}

void CodeModel::learn_rotation(const std::vector<float>& residuals, std::uint64_t count,
                               unsigned n_threads, Monitor* monitor) {
  rotation_.assign(std::size_t{dim_} * rotation_block_, 0.0f);
  for (std::uint32_t begin = 0; begin < dim_; begin += rotation_block_) {
    const std::uint32_t d = std::min(rotation_block_, dim_ - begin);
    const Matrix axes = principal_axes(
        covariance(residuals, count, dim_, begin, d, n_threads, monitor), d, n_threads, monitor);
    for (std::uint32_t i = 0; i < d; ++i) {
      std::memcpy(&rotation_[std::size_t{begin + i} * rotation_block_], &axes[std::size_t{i} * d],
                  sizeof(float) * d);
    }
  }
  order_.resize(dim_);
  std::iota(order_.begin(), order_.end(), 0);
  round_rotation();
  pack_rotation();
}

// From here on the rotation is what the file will say: points, queries and those who code by the
// file rotate alike.
void CodeModel::round_rotation() {
  rotation_bytes_.resize(rotation_.size());
  rotation_scales_.resize(dim_);
  for (std::uint32_t i = 0; i < dim_; ++i) {
    float* row = &rotation_[std::size_t{i} * rotation_block_];
    std::int8_t* bytes = &rotation_bytes_[std::size_t{i} * rotation_block_];
    const float largest = kernels().max_abs(row, rotation_block_);
    const float scale = largest > 0.0f ? largest / 127.0f : 1.0f;
    rotation_scales_[i] = scale;
    for (std::uint32_t j = 0; j < rotation_block_; ++j) {
      bytes[j] = static_cast<std::int8_t>(std::nearbyint(row[j] / scale));
      row[j] = scale * static_cast<float>(bytes[j]);
    }
  }
}

void CodeModel::pack_rotation() {
  const std::uint32_t blocks = (dim_ + rotation_block_ - 1) / rotation_block_;
  const std::uint32_t panels = (rotation_block_ + kPanelWidth - 1) / kPanelWidth;
  const std::size_t block_floats = std::size_t{panels} * kPanelWidth * rotation_block_;
  rotation_panels_.assign(blocks * block_floats, 0.0f);
  for (std::uint32_t b = 0; b < blocks; ++b) {
    const std::uint32_t begin = b * rotation_block_;
    const std::uint32_t d = std::min(rotation_block_, dim_ - begin);
    const std::vector<float> packed =
        pack_rows(&rotation_[std::size_t{begin} * rotation_block_], d, rotation_block_, d);
    std::copy(packed.begin(), packed.end(), rotation_panels_.begin() + b * block_floats);
  }
}

void CodeModel::rotate(const float* rows, std::uint64_t n, float* out) const {
  constexpr std::uint64_t kTile = 64;
  const std::uint32_t panels = (rotation_block_ + kPanelWidth - 1) / kPanelWidth;
  const std::size_t block_floats = std::size_t{panels} * kPanelWidth * rotation_block_;
  const std::size_t stride = std::size_t{panels} * kPanelWidth;
  std::vector<float> tile(kTile * stride);
  for (std::uint64_t at = 0; at < n; at += kTile) {
    const std::uint64_t in_tile = std::min(kTile, n - at);
    for (std::uint32_t begin = 0, b = 0; begin < dim_; begin += rotation_block_, ++b) {
      const std::uint32_t d = std::min(rotation_block_, dim_ - begin);
      for (std::uint32_t p = 0; p * kPanelWidth < d; ++p) {
        kernels().panel_dot(rows + at * dim_ + begin, in_tile, dim_,
                            &rotation_panels_[b * block_floats + std::size_t{p} * kPanelWidth * d],
                            d, &tile[p * kPanelWidth], stride);
      }
      for (std::uint64_t i = 0; i < in_tile; ++i) {
        for (std::uint32_t j = 0; j < d; ++j) {
          out[(at + i) * dim_ + order_[begin + j]] = tile[i * stride + j];
        }
      }
    }
  }
}

void CodeModel::learn_codebook(const std::vector<float>& rotated, std::uint64_t count,
                               unsigned n_threads, Monitor* monitor) {
  codebook_.assign(std::size_t{dim_} * kCodewords, 0.0f);
  parallel_for(
      n_threads, code_count_, 1,
      [&](std::uint64_t from, std::uint64_t to, unsigned) {
        std::vector<float> points, words;
        for (std::uint64_t code = from; code < to; ++code) {
          const std::uint32_t begin = first_dims_[code];
          const std::uint32_t width = first_dims_[code + 1] - begin;
          points.resize(count * width);
          for (std::uint64_t i = 0; i < count; ++i) {
            std::memcpy(&points[i * width], &rotated[i * dim_ + begin], sizeof(float) * width);
          }
          learn_codewords(points.data(), count, width, &words);
          std::copy(words.begin(), words.end(),
                    codebook_.begin() + std::size_t{begin} * kCodewords);
        }
      },
      monitor, "codes");
  square_codewords();
}

void CodeModel::square_codewords() {
  half_squares_.assign(std::size_t{code_count_} * kCodewords, 0.0f);
  for (std::uint32_t code = 0; code < code_count_; ++code) {
    for (std::uint32_t j = first_dims_[code]; j < first_dims_[code + 1]; ++j) {
      for (std::size_t c = 0; c < kCodewords; ++c) {
        const float word = codebook_[std::size_t{j} * kCodewords + c];
        half_squares_[code * kCodewords + c] += 0.5f * word * word;
      }
    }
  }
}

CodeModel CodeModel::train(const std::vector<float>& residuals, std::uint32_t dim,
                           unsigned n_threads, Monitor* monitor) {
  CodeModel model;
  model.dim_ = dim;
  model.code_count_ = code_count_for(dim);
  model.rotation_block_ = rotation_block_for(dim);
  const std::uint64_t count = residuals.size() / dim;
  model.learn_rotation(residuals, count, n_threads, monitor);

  std::vector<float> rotated(residuals.size());
  const auto rotate_all = [&] {
    parallel_for(
        n_threads, count, 512,
        [&](std::uint64_t begin, std::uint64_t end, unsigned) {
          model.rotate(&residuals[begin * dim], end - begin, &rotated[begin * dim]);
        },
        monitor);
  };
  rotate_all();
  std::vector<double> sums(dim);
  for (std::uint64_t i = 0; i < count; ++i) {
    for (std::uint32_t j = 0; j < dim; ++j) {
      sums[j] += static_cast<double>(rotated[i * dim + j]) * rotated[i * dim + j];
    }
  }
  std::vector<std::uint32_t> by_variance(dim);
  std::iota(by_variance.begin(), by_variance.end(), 0);
  std::stable_sort(by_variance.begin(), by_variance.end(),
                   [&](std::uint32_t a, std::uint32_t b) { return sums[a] > sums[b]; });
  std::vector<float> variances(dim);
  for (std::uint32_t place = 0; place < dim; ++place) {
    model.order_[by_variance[place]] = place;
    variances[place] = static_cast<float>(sums[by_variance[place]] / static_cast<double>(count));
  }
  rotate_all();
  model.first_dims_ = divide_axes(variances, model.code_count_);
  model.learn_codebook(rotated, count, n_threads, monitor);
  return model;
}

void CodeModel::encode(const float* rotated, std::uint64_t n, std::uint8_t* codes) const {
  kernels().encode(rotated, n, dim_, codebook_.data(), half_squares_.data(), first_dims_.data(),
                   code_count_, codes);
}

void CodeModel::decode(const std::uint8_t* codes, float* rotated) const {
  for (std::uint32_t code = 0; code < code_count_; ++code) {
    for (std::uint32_t j = first_dims_[code]; j < first_dims_[code + 1]; ++j) {
      rotated[j] = codebook_[std::size_t{j} * kCodewords + codes[code]];
    }
  }
}

void CodeModel::write_rotation(std::int8_t* matrix, float* scales, std::uint32_t* order) const {
  std::copy(rotation_bytes_.begin(), rotation_bytes_.end(), matrix);
  std::copy(rotation_scales_.begin(), rotation_scales_.end(), scales);
  std::copy(order_.begin(), order_.end(), order);
}

namespace {

// What indexes of a model point at: rotated components that there are.
void check_rotation_order(const std::uint32_t* order, std::uint32_t dim) {
  for (std::uint32_t i = 0; i < dim; ++i) {
    if (order[i] < dim) continue;
    throw Error(ErrorCode::format, "the index is damaged: section 'rotation_order', entry " +
                                       std::to_string(i) + ": expected less than " +
                                       std::to_string(dim) + ", found " + std::to_string(order[i]));
  }
}

void check_first_dims(const std::uint16_t* first_dims, std::uint32_t code_count,
                      std::uint32_t dim) {
  for (std::uint32_t code = 0; code < code_count; ++code) {
    if (first_dims[code] <= first_dims[code + 1] && first_dims[code + 1] <= dim) continue;
    throw Error(ErrorCode::format, "the index is damaged: section 'code_first_dims', entry " +
                                       std::to_string(code + 1) + ": expected " +
                                       std::to_string(first_dims[code]) + " to " +
                                       std::to_string(dim) + ", found " +
                                       std::to_string(first_dims[code + 1]));
  }
}

}  // namespace

CodeModel CodeModel::read(std::uint32_t dim, std::uint32_t code_count, std::uint32_t rotation_block,
                          const float* codebook, const std::uint16_t* first_dims,
                          const std::int8_t* rotation, const float* rotation_scales,
                          const std::uint32_t* rotation_order) {
  CodeModel model;
  model.dim_ = dim;
  model.code_count_ = code_count;
  model.rotation_block_ = rotation_block;
  model.codebook_.assign(codebook, codebook + std::size_t{dim} * kCodewords);
  model.first_dims_.assign(first_dims, first_dims + code_count + 1);
  model.rotation_bytes_.assign(rotation, rotation + std::size_t{dim} * rotation_block);
  model.rotation_scales_.assign(rotation_scales, rotation_scales + dim);
  model.order_.assign(rotation_order, rotation_order + dim);
  check_rotation_order(model.order_.data(), dim);
  check_first_dims(model.first_dims_.data(), code_count, dim);
  model.rotation_.resize(model.rotation_bytes_.size());
  for (std::size_t i = 0; i < model.rotation_.size(); ++i) {
    model.rotation_[i] =
        model.rotation_scales_[i / rotation_block] * static_cast<float>(model.rotation_bytes_[i]);
  }
  model.pack_rotation();
  model.square_codewords();
  return model;
}

void pack_blocks(const std::uint8_t* codes, const float* scalars, std::uint64_t n,
                 std::uint32_t code_count, std::uint8_t* blocks) noexcept {
  constexpr std::size_t kHalf = kBlockPoints / 2;
  for (std::uint64_t i = 0; i < n; ++i) {
    std::uint8_t* block = blocks + i / kBlockPoints * code_block_bytes(code_count);
    const std::size_t lane = i % kBlockPoints;
    for (std::uint32_t code = 0; code < code_count; ++code) {
      const auto value = static_cast<unsigned>(codes[i * code_count + code]);
      block[code * kHalf + lane % kHalf] |=
          static_cast<std::uint8_t>(lane < kHalf ? value : value << 4);
    }
    std::memcpy(block + code_count * kHalf + lane * sizeof(float), scalars + i, sizeof(float));
  }
}

void PlaneBuffers::set(const float* values, std::uint32_t dim) {
  high.resize(dim);
  low.resize(dim);
  constexpr float kLargest = 128.0f * kPlaneMax + kPlaneMax;
  constexpr int kLeastExponent = -126;  // of which the inverse is a number too
  int exponent = 0;
  std::frexp(kernels().max_abs(values, dim) / kLargest, &exponent);
  exponent = std::max(exponent, kLeastExponent);
  planes.step = std::ldexp(1.0f, exponent);
  const float inverse = std::ldexp(1.0f, -exponent);
  // Locals: bytes written through a member could be the members themselves, to the compiler.
  std::int8_t* __restrict high_out = high.data();
  std::int8_t* __restrict low_out = low.data();
  std::int32_t high_sum = 0, low_sum = 0;
  for (std::uint32_t j = 0; j < dim; ++j) {
    const int value = static_cast<int>(round_small(values[j] * inverse));
    const int upper = (value + 64) >> 7;  // floor division, so that the rest is in [-64, 63]
    const int lower = value - upper * 128;
    high_out[j] = static_cast<std::int8_t>(upper);
    low_out[j] = static_cast<std::int8_t>(lower);
    high_sum += upper;
    low_sum += lower;
  }
  planes.high_sum = high_sum;
  planes.low_sum = low_sum;
  planes.high = high.data();
  planes.low = low.data();
}

void make_tables(const CodesView& codes, const QueryBytes& query, float factor,
                 TableScratch* scratch, CodeTables* out) {
  scratch->rotated.resize(codes.dim);
  scratch->permuted.assign(codes.dim, 0.0f);
  for (std::uint32_t begin = 0; begin < codes.dim; begin += codes.rotation_block) {
    const std::uint32_t d = std::min(codes.rotation_block, codes.dim - begin);
    QueryBytes part = query;
    part.values += begin;
    if (d < codes.dim) part.sum = std::accumulate(part.values, part.values + d, 0);
    kernels().rotate_i8(codes.rotation + std::size_t{begin} * codes.rotation_block, d,
                        codes.rotation_block, d, part, codes.rotation_scales + begin,
                        &scratch->rotated[begin]);
  }
  for (std::uint32_t i = 0; i < codes.dim; ++i) {
    // A copy: what is checked must be what is used, also while the file is overwritten.
    const std::uint32_t place = codes.rotation_order[i];
    if (place >= codes.dim) check_rotation_order(codes.rotation_order, codes.dim);
    if (place >= codes.dim) continue;
    scratch->permuted[place] = factor * scratch->rotated[i];
  }
  // A copy: what was checked must be what the kernel reads, also while the file is overwritten.
  scratch->first_dims.assign(codes.first_dims, codes.first_dims + codes.code_count + 1);
  const std::uint16_t* first_dims = scratch->first_dims.data();
  check_first_dims(first_dims, codes.code_count, codes.dim);
  scratch->tables.resize(std::size_t{codes.code_count} * kCodewords);
  out->lines.resize(codes.code_count * kCodewords / sizeof(LutLine));
  kernels().lut_floats(scratch->permuted.data(), codes.codebook, first_dims, codes.code_count,
                       scratch->tables.data());
  out->step = kernels().lut_quantize(scratch->tables.data(), codes.code_count,
                                     out->lines.data()->entries, &out->base);
}

}  // namespace annidx
