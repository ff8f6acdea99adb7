#include <algorithm>
#include <numeric>

#include "harness.h"
#include "ops/layout.h"
#include "reference/layout.h"

using namespace pynn;
using namespace pynn::test;

namespace {

std::vector<int64_t> dense_strides(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size());
  int64_t step = 1;
  for (size_t a = sizes.size(); a-- > 0; step *= sizes[a]) strides[a] = step;
  return strides;
}

int64_t product(const std::vector<int64_t>& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t(1), std::multiplies<int64_t>());
}

}  // namespace

TEST_CASE_TEMPLATE("strided_copy permutes axes as the naive twin does", T, float, double) {
  const std::vector<std::vector<int64_t>> shapes = {{},
                                                    {1},
                                                    {7},
                                                    {1, 1},
                                                    {3, 5},
                                                    {17, 33},
                                                    {130, 70},
                                                    {2, 3, 4},
                                                    {5, 1, 16, 9},
                                                    {3, 16, 17, 2},
                                                    {0, 4, 3},
                                                    {200, 3, 100},
                                                    {2, 2, 2, 2, 2}};
  for (const std::vector<int64_t>& shape : shapes) {
    std::vector<size_t> axes(shape.size());
    std::iota(axes.begin(), axes.end(), size_t(0));
    const std::vector<int64_t> x_strides = dense_strides(shape);
    const Guarded<T> x = random_array<T>(product(shape));
    do {
      std::vector<int64_t> sizes, from;
      for (const size_t a : axes) {
        sizes.push_back(shape[a]);
        from.push_back(x_strides[a]);
      }
      const std::vector<int64_t> to = dense_strides(sizes);
      std::vector<ops::CopyAxis> box;
      for (size_t a = 0; a < sizes.size(); ++a) box.push_back({sizes[a], to[a], from[a]});
      Guarded<T> y(x.size()), want(x.size());
      ops::strided_copy(y.data(), x.data(), box);
      reference::strided_copy(want.data(), x.data(), sizes, to, from);
      check_close(y, want, 0, "permutation");
    } while (std::next_permutation(axes.begin(), axes.end()));
  }
}

TEST_CASE_TEMPLATE("strided_copy takes steps of either sign on both sides", T, float, double) {
  for (const int64_t n : kSizes) {
    const Guarded<T> x = random_array<T>(6 * n);
    for (const int64_t step : {-2, -1, 1, 2}) {
      Guarded<T> y(2 * n), back(6 * n);
      const int64_t first = step < 0 ? (n - 1) * -step : 0;
      ops::strided_copy<T>(y.data(), x.data() + first, {{2, n, 3 * n}, {n, 1, step}});
      ops::strided_copy<T>(back.data() + first, y.data(), {{2, 3 * n, n}, {n, step, 1}});
      for (int64_t r = 0; r < 2; ++r) {
        for (int64_t i = 0; i < n; ++i) {
          REQUIRE(y[r * n + i] == x[r * 3 * n + first + i * step]);
          REQUIRE(back[r * 3 * n + first + i * step] == y[r * n + i]);
        }
      }
    }
  }
}

TEST_CASE_TEMPLATE("strided_copy of few long rows, which threads share", T, float, double) {
  constexpr int64_t n = 70001, gap = 5;
  for (const int64_t rows : {1, 3}) {
    const Guarded<T> x = random_array<T>(rows * (n + gap));
    Guarded<T> y(rows * n), want(rows * n);
    ops::strided_copy<T>(y.data(), x.data(), {{rows, n, n + gap}, {n, 1, 1}});
    reference::strided_copy(want.data(), x.data(), {rows, n}, {n, 1}, {n + gap, 1});
    check_close(y, want, 0, "rows");
  }
}

TEST_CASE_TEMPLATE("fill, take_rows and the backward of embedding equal the naive ones", T, float, double) {
  for (const int64_t dim : kSizes) {
    const int64_t rows = 11, count = 300;
    const Guarded<T> weight = random_array<T>(rows * dim), dy = random_array<T>(count * dim);
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < count; ++i) indices.push_back(static_cast<int64_t>(generator()() % rows));
    Guarded<T> y(count * dim), dweight(rows * dim, T(9)), filled(dim);
    Guarded<double> want(rows * dim);
    ops::take_rows(y.data(), weight.data(), indices.data(), count, dim * int64_t(sizeof(T)));
    ops::fill(dweight.data(), T(0), rows * dim);
    ops::embedding_backward(dweight.data(), dy.data(), dim, indices.data(), count, dim);
    ops::fill(filled.data(), T(3), dim);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t d = 0; d < dim; ++d) {
        REQUIRE(y[i * dim + d] == weight[indices[static_cast<size_t>(i)] * dim + d]);
        want[indices[static_cast<size_t>(i)] * dim + d] += static_cast<double>(dy[i * dim + d]);
      }
    }
    check_close(dweight, want, rounding<T>(double(count)), "dweight");
    for (int64_t d = 0; d < dim; ++d) REQUIRE(filled[d] == T(3));
  }
}
