// Tests of the tile kernels of src_c/kernels: every table this CPU can run gives, bit for bit, the
// scores that naive sums give, for every dimension and number of rows and columns.
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "check.h"
#include "kernels/kernels.h"
#include "kernels/levels.h"

using namespace annidx;

namespace {

// Heap blocks of their exact size, so that a sanitizer sees what is read beyond a row.
struct Rows {
  std::vector<std::unique_ptr<std::uint8_t[]>> rows;
  std::vector<const std::uint8_t*> pointers;

  Rows(std::size_t n, std::size_t dim, std::mt19937& random) {
    for (std::size_t i = 0; i < n; ++i) {
      rows.emplace_back(new std::uint8_t[dim]);
      const auto extreme = static_cast<std::uint8_t>(random());
      for (std::size_t j = 0; j < dim; ++j) {
        rows[i][j] = i % 3 == 0 ? extreme : static_cast<std::uint8_t>(random());
      }
      pointers.push_back(rows[i].get());
    }
  }
};

std::int32_t naive_dot(const std::uint8_t* a, const std::uint8_t* b, std::size_t dim,
                       std::uint8_t flip) {
  std::int32_t dot = 0;
  for (std::size_t j = 0; j < dim; ++j) {
    dot += static_cast<std::int8_t>(a[j] ^ flip) * static_cast<std::int8_t>(b[j] ^ flip);
  }
  return dot;
}

void test_table(const Kernels& table, std::size_t dim, std::size_t n_rows, std::size_t n_columns,
                std::uint8_t flip) {
  std::mt19937 random(static_cast<unsigned>(dim * 100 + n_rows));
  std::uniform_real_distribution<float> uniform(-2.0f, 2.0f);
  const Rows rows(n_rows, dim, random), columns(n_columns, dim, random);
  std::vector<std::uint8_t> packed_rows(n_rows * tile_row_bytes(dim));
  std::vector<std::uint8_t> packed_columns(tile_column_bytes(dim));
  std::vector<TileRowTerms> terms(n_rows);
  TileColumnTerms column;
  for (std::size_t r = 0; r < n_rows; ++r) {
    table.pack_tile_row(rows.pointers[r], dim, flip, &packed_rows[r * tile_row_bytes(dim)]);
    terms[r] = {uniform(random), uniform(random), 500.0f * uniform(random)};
  }
  for (std::size_t c = 0; c < kTilePoints; ++c) {
    column.mult[c] = uniform(random);
    column.bias[c] = c == 5 ? std::numeric_limits<float>::quiet_NaN() : uniform(random);
    column.offset[c] = uniform(random);
  }
  table.pack_tile_columns(columns.pointers.data(), n_columns, dim, flip, packed_columns.data());
  std::vector<std::uint32_t> places;  // every second row, backwards
  for (std::size_t r = n_rows; r-- > 0;) {
    if (r % 2 == 0) places.push_back(static_cast<std::uint32_t>(r));
  }
  const std::size_t room = (places.size() + 7) / 8 * 8;
  std::vector<std::uint32_t> passed(room);
  std::vector<float> scores(room * kTilePoints);
  table.score_tile(packed_rows.data(), places.data(), places.size(), packed_columns.data(), dim,
                   terms.data(), column, passed.data(), scores.data());
  bool good = true;
  for (std::size_t i = 0; i < places.size(); ++i) {
    const TileRowTerms& term = terms[places[i]];
    for (std::size_t c = 0; c < kTilePoints; ++c) {
      const std::uint8_t* other = columns.pointers[c < n_columns ? c : n_columns - 1];
      const auto sum = static_cast<float>(naive_dot(rows.pointers[places[i]], other, dim, flip));
      const float dot = (sum + term.offset) + column.offset[c];
      const float score = column.bias[c] - column.mult[c] * (term.factor * dot);
      const float got = scores[i * kTilePoints + c];
      const bool same =
          std::memcmp(&score, &got, sizeof score) == 0 || (std::isnan(score) && std::isnan(got));
      good = good && same && ((passed[i] >> c) & 1u) == (score <= term.limit ? 1u : 0u);
    }
  }
  annidx_test::check(good, std::string(table.name) + " at dimension " + std::to_string(dim),
                     __LINE__);
}

}  // namespace

int main() {
  const Kernels* tables[kMaxTables];
  const std::size_t count = usable_tables(tables);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t dim : {1u, 2u, 3u, 4u, 7u, 15u, 16u, 17u, 31u, 33u, 63u, 64u, 65u, 100u, 128u,
                            200u, 384u, 1000u, 4099u}) {
      for (std::uint8_t flip : {std::uint8_t{0}, std::uint8_t{0x80}}) {
        test_table(*tables[i], dim, 1, 1, flip);
        test_table(*tables[i], dim, 7, 31, flip);
        test_table(*tables[i], dim, 32, 32, flip);
      }
    }
    test_table(*tables[i], kMaxDim, 3, 2, 0);
  }
  return annidx_test::report();
}
