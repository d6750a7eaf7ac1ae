// blocks.cpp owns balanced 2-means over the points of a leaf; see blocks.h. Sums run in ascending
// order of places, and no result depends on how a library's selection permutes equal elements.
#include "model/blocks.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/tuning.h"
#include "kernels/kernels.h"

namespace annidx {

std::uint64_t block_count(std::uint64_t points) noexcept {
  return (points + kBlockPoints - 1) / kBlockPoints;
}

// The first point and the one farthest from it.
void BlockOrder::start_means(Range range) {
  const float* first = vectors_ + std::size_t{order_[range.begin]} * dim_;
  const float* farthest = first;
  float widest = 0.0f;
  for (std::uint32_t i = range.begin + 1; i < range.end; ++i) {
    const float* point = vectors_ + std::size_t{order_[i]} * dim_;
    const float apart = kernels().l2_squared_build_f32(first, point, dim_);
    if (apart > widest) {
      widest = apart;
      farthest = point;
    }
  }
  low_.assign(first, first + dim_);
  high_.assign(farthest, farthest + dim_);
}

// Each point on the line between the two means.
void BlockOrder::project(Range range) {
  for (std::uint32_t j = 0; j < dim_; ++j) normal_[j] = high_[j] - low_[j];
  for (std::uint32_t i = range.begin; i < range.end; ++i) {
    const std::uint32_t place = order_[i];
    margins_[place] = kernels().dot_f32(vectors_ + std::size_t{place} * dim_, normal_.data(), dim_);
  }
}

// The left_points of least margin to the left; of equal margins the first places. Both sides are
// ascending, as the members are.
void BlockOrder::divide(Range range, std::uint32_t left_points) {
  sorted_margins_.clear();
  for (std::uint32_t place : members_) sorted_margins_.push_back(margins_[place]);
  const auto last = sorted_margins_.begin() + (left_points - 1);
  std::nth_element(sorted_margins_.begin(), last, sorted_margins_.end());
  const float bound = *last;
  const auto is_below = [bound](float margin) { return margin < bound; };
  std::uint32_t equal_left = left_points - static_cast<std::uint32_t>(std::count_if(
                                               sorted_margins_.begin(), last, is_below));
  std::uint32_t left = range.begin, right = range.begin + left_points;
  for (std::uint32_t place : members_) {
    const bool is_equal = margins_[place] == bound && equal_left > 0;
    if (is_equal) --equal_left;
    order_[margins_[place] < bound || is_equal ? left++ : right++] = place;
  }
}

void BlockOrder::update_means(Range range, std::uint32_t left_points) {
  std::fill(low_.begin(), low_.end(), 0.0f);
  std::fill(high_.begin(), high_.end(), 0.0f);
  const std::uint32_t middle = range.begin + left_points;
  const float low_share = 1.0f / static_cast<float>(left_points);
  const float high_share = 1.0f / static_cast<float>(range.end - middle);
  for (std::uint32_t i = range.begin; i < range.end; ++i) {
    const float* point = vectors_ + std::size_t{order_[i]} * dim_;
    kernels().axpy(i < middle ? low_share : high_share, point,
                   i < middle ? low_.data() : high_.data(), dim_);
  }
}

void BlockOrder::cut(Range range, std::uint32_t left_points) {
  members_.assign(order_.begin() + range.begin, order_.begin() + range.end);
  start_means(range);
  for (std::uint32_t round = 0; round < tuning::kBlockRounds; ++round) {
    if (round > 0) update_means(range, left_points);
    project(range);
    divide(range, left_points);
  }
}

const std::vector<std::uint32_t>& BlockOrder::arrange(const float* vectors, std::uint32_t count,
                                                      std::uint32_t dim) {
  vectors_ = vectors;
  dim_ = dim;
  order_.resize(count);
  std::iota(order_.begin(), order_.end(), 0u);
  margins_.resize(count);
  normal_.resize(dim);
  ranges_.assign(1, {0, count});
  while (!ranges_.empty()) {
    const Range range = ranges_.back();
    ranges_.pop_back();
    const std::uint32_t points = range.end - range.begin;
    if (points <= kBlockPoints) continue;
    const auto left_points = static_cast<std::uint32_t>(block_count(points) / 2 * kBlockPoints);
    cut(range, left_points);
    ranges_.push_back({range.begin, range.begin + left_points});
    ranges_.push_back({range.begin + left_points, range.end});
  }
  return order_;
}

}  // namespace annidx
