// Tests of src_c/model/blocks: the order is a permutation, ascending within full blocks; blocks are
// tighter than an arbitrary cut; equal vectors keep their order.
#include "model/blocks.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/kernels.h"

using namespace annidx;

namespace {

bool is_order(const std::vector<std::uint32_t>& order, std::uint32_t count) {
  if (order.size() != count) return false;
  std::vector<bool> seen(count);
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (order[i] >= count || seen[order[i]]) return false;
    seen[order[i]] = true;
    if (i % kBlockPoints != 0 && order[i] < order[i - 1]) return false;
  }
  return true;
}

// Mean squared distance of the points to the means of their blocks.
double spread(const std::vector<float>& vectors, const std::vector<std::uint32_t>& order,
              std::uint32_t dim) {
  double sum = 0.0;
  for (std::size_t begin = 0; begin < order.size(); begin += kBlockPoints) {
    const std::size_t end = std::min(order.size(), begin + kBlockPoints);
    for (std::uint32_t j = 0; j < dim; ++j) {
      double mean = 0.0, squares = 0.0;
      for (std::size_t i = begin; i < end; ++i) {
        const double value = vectors[order[i] * dim + j];
        mean += value / static_cast<double>(end - begin);
        squares += value * value;
      }
      sum += squares - static_cast<double>(end - begin) * mean * mean;
    }
  }
  return sum / static_cast<double>(order.size());
}

void test_random_points() {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  BlockOrder blocks;
  for (std::uint32_t dim : {1u, 2u, 16u, 33u}) {
    for (std::uint32_t count : {0u, 1u, 31u, 32u, 33u, 64u, 65u, 1000u, 2049u}) {
      std::vector<float> vectors(std::size_t{count} * dim);
      for (float& value : vectors) value = normal(random);
      const std::vector<std::uint32_t> order = blocks.arrange(vectors.data(), count, dim);
      CHECK(is_order(order, count));
      BlockOrder fresh;
      CHECK(fresh.arrange(vectors.data(), count, dim) == order);
      if (count < 64) continue;
      std::vector<std::uint32_t> as_given(count);
      std::iota(as_given.begin(), as_given.end(), 0u);
      CHECK(spread(vectors, order, dim) < spread(vectors, as_given, dim));
    }
  }
}

void test_equal_points_keep_their_order() {
  BlockOrder blocks;
  const std::vector<float> vectors(std::size_t{500} * 3, 0.25f);
  std::vector<std::uint32_t> as_given(500);
  std::iota(as_given.begin(), as_given.end(), 0u);
  CHECK(blocks.arrange(vectors.data(), 500, 3) == as_given);
}

void test_levels_agree() {
  std::mt19937 random(11);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> vectors(std::size_t{700} * 48);
  for (float& value : vectors) value = uniform(random);
  const Kernels* levels[4];
  const std::size_t count = available_kernels(levels);
  std::vector<std::uint32_t> expected;
  for (std::size_t i = 0; i < count; ++i) {
    CHECK(force_kernels(levels[i]->name));
    BlockOrder blocks;
    const std::vector<std::uint32_t> order = blocks.arrange(vectors.data(), 700, 48);
    if (i == 0) expected = order;
    CHECK(order == expected);
  }
}

}  // namespace

int main() {
  CHECK(block_count(0) == 0 && block_count(1) == 1 && block_count(32) == 1 && block_count(33) == 2);
  test_random_points();
  test_equal_points_keep_their_order();
  test_levels_agree();
  return annidx_test::report();
}
