// Matrix products: the three of each linear layer of the networks that benchmarks/compare.py trains, and squares.
#include "ops/gemm.h"

#include "bench/bench.h"
#include "reference/gemm.h"

namespace pynn::bench {
namespace {

struct Layer {
  int64_t batch, in, out;
};

constexpr Layer kLayers[] = {
    {128, 784, 128},   {32, 784, 128},  {128, 128, 10},  {128, 784, 512}, {128, 512, 256},  {128, 784, 2048},
    {128, 2048, 2048}, {128, 2048, 10}, {128, 400, 120}, {128, 120, 84},  {128, 9216, 128},
};
constexpr int64_t kSquares[] = {256, 512, 1024, 2048};
constexpr int64_t kSamples = 100;  // elements of C that are checked

// A stored matrix [rows, cols] of which op(A) is the transpose if `transposed`: one row or column of op(A) on its own.
std::vector<float> line(const Array<float>& a, int64_t cols, bool along_columns, int64_t index, int64_t length) {
  std::vector<float> values(static_cast<size_t>(length));
  for (int64_t p = 0; p < length; ++p) {
    values[static_cast<size_t>(p)] = along_columns ? a[p * cols + index] : a[index * cols + p];
  }
  return values;
}

Work make_gemm(int64_t m, int64_t n, int64_t k, bool a_transposed, bool b_transposed) {
  const Array<float> a = random_array(m * k), b = random_array(k * n), c(m * n);
  const int64_t lda = a_transposed ? m : k, ldb = b_transposed ? k : n;
  const auto run = [=] {
    ops::gemm<float>({c.get(), n, a.get(), lda, a_transposed, b.get(), ldb, b_transposed, m, n, k});
  };
  const auto check = [=] {
    for (const int64_t at : random_indices(kSamples, m * n)) {
      const std::vector<float> row = line(a, lda, a_transposed, at / n, k),
                               col = line(b, ldb, !b_transposed, at % n, k);
      double want;
      reference::gemm<float>(&want, row.data(), false, col.data(), false, nullptr, 1, 1, k);
      expect_close(&c[at], &want, 1, static_cast<double>(k));
    }
  };
  return {run, check};
}

void add(const std::string& what, int64_t m, int64_t n, int64_t k, bool a_transposed, bool b_transposed) {
  const std::string shape = std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
  add_case("gemm/" + what + "/" + shape, {2.0 * static_cast<double>(m * n * k)},
           [=] { return make_gemm(m, n, k, a_transposed, b_transposed); });
}

}  // namespace

void add_gemm_cases() {
  for (const Layer& layer : kLayers) {
    add("forward", layer.batch, layer.out, layer.in, false, true);          // y = x weight^T
    add("backward_data", layer.batch, layer.in, layer.out, false, false);   // dx = dy weight
    add("backward_weight", layer.out, layer.in, layer.batch, true, false);  // dweight = dy^T x
  }
  for (const int64_t size : kSquares) {
    add("nn", size, size, size, false, false);
    add("nt", size, size, size, false, true);
    add("tn", size, size, size, true, false);
    add("tt", size, size, size, true, true);
  }
}

}  // namespace pynn::bench
