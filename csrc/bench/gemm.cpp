// Matrix products: the three of each linear layer of the networks that benchmarks/compare.py trains, and squares; the
// layers whole, forward for a few batch sizes and backward.
#include "ops/gemm.h"

#include "bench/bench.h"
#include "reference/gemm.h"

namespace pynn::bench {
namespace {

struct Layer {
  int64_t batch, in, out;
};

constexpr Layer kLayers[] = {
    {128, 784, 128}, {32, 784, 128},   {128, 128, 10},    {128, 784, 512}, {128, 512, 256},
    {128, 256, 10},  {128, 784, 2048}, {128, 2048, 2048}, {128, 2048, 10}, {128, 400, 120},
    {128, 120, 84},  {128, 84, 10},    {128, 9216, 128},
};
constexpr int64_t kInferenceBatches[] = {1, 4, 16};
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

// Arrays of one layer with ReLU; y is what its forward made.
struct LayerArrays {
  Array<float> x, weight, bias, y, dy, dx, dweight, dbias;

  explicit LayerArrays(const Layer& s)
      : x(random_array(s.batch * s.in)),
        weight(random_array(s.out * s.in)),
        bias(random_array(s.out)),
        y(s.batch * s.out),
        dy(random_array(s.batch * s.out)),
        dx(s.batch * s.in),
        dweight(s.out * s.in),
        dbias(s.out) {
    forward(s);
  }
  void forward(const Layer& s) const {
    ops::linear(y.get(), x.get(), weight.get(), bias.get(), ops::Activation::relu, s.batch, s.in, s.out);
  }
  float dz(int64_t at, ops::Activation activation) const {
    return activation == ops::Activation::none || y[at] > 0 ? dy[at] : 0.0f;
  }
};

Work make_linear(const Layer& s) {
  const LayerArrays a(s);
  const auto check = [=] {
    for (const int64_t at : random_indices(kSamples, s.batch * s.out)) {
      double want;
      reference::gemm<float>(&want, a.x.get() + at / s.out * s.in, false, a.weight.get() + at % s.out * s.in, true,
                             a.bias.get() + at % s.out, 1, 1, s.in);
      want = want > 0 ? want : 0;
      expect_close(&a.y[at], &want, 1, static_cast<double>(s.in));
    }
  };
  return {[=] { a.forward(s); }, check};
}

Work make_linear_backward(const Layer& s, bool need_dx, ops::Activation activation = ops::Activation::relu) {
  const LayerArrays a(s);
  const auto run = [=] {
    ops::linear_backward(need_dx ? a.dx.get() : nullptr, a.dweight.get(), a.dbias.get(), a.dy.get(), a.y.get(),
                         a.x.get(), a.weight.get(), activation, s.batch, s.in, s.out);
  };
  const auto check = [=] {
    for (const int64_t at : random_indices(kSamples, s.out * s.in)) {
      double dweight = 0, dbias = 0;
      for (int64_t i = 0; i < s.batch; ++i) {
        const double dz = static_cast<double>(a.dz(i * s.out + at / s.in, activation));
        dweight += dz * static_cast<double>(a.x[i * s.in + at % s.in]);
        dbias += dz;
      }
      expect_close(&a.dweight[at], &dweight, 1, static_cast<double>(s.batch));
      expect_close(&a.dbias[at / s.in], &dbias, 1, static_cast<double>(s.batch));
    }
    for (const int64_t at : random_indices(need_dx ? kSamples : 0, s.batch * s.in)) {
      double dx = 0;
      for (int64_t j = 0; j < s.out; ++j) {
        dx += static_cast<double>(a.dz(at / s.in * s.out + j, activation)) *
              static_cast<double>(a.weight[j * s.in + at % s.in]);
      }
      expect_close(&a.dx[at], &dx, 1, static_cast<double>(s.out));
    }
  };
  return {run, check};
}

void add_linear(const Layer& s) {
  const std::string shape = std::to_string(s.batch) + "x" + std::to_string(s.in) + "x" + std::to_string(s.out);
  const double flops = 2.0 * static_cast<double>(s.batch * s.in * s.out);
  add_case("linear/forward/" + shape, {flops}, [=] { return make_linear(s); });
  // Behind a ReLU half of the gradient is 0: rates count the operations of dense products.
  add_case("linear/backward/" + shape, {2 * flops}, [=] { return make_linear_backward(s, true); });
  add_case("linear/backward_without_dx/" + shape, {flops}, [=] { return make_linear_backward(s, false); });
  add_case("linear/backward_without_dx_or_relu/" + shape, {flops},
           [=] { return make_linear_backward(s, false, ops::Activation::none); });
  for (const int64_t batch : kInferenceBatches) {
    const Layer few{batch, s.in, s.out};
    add_case("linear/inference/" + std::to_string(batch) + "x" + std::to_string(s.in) + "x" + std::to_string(s.out),
             {2.0 * static_cast<double>(batch * s.in * s.out)}, [=] { return make_linear(few); });
  }
}

}  // namespace

void add_gemm_cases() {
  for (const Layer& layer : kLayers) {
    add("forward", layer.batch, layer.out, layer.in, false, true);          // y = x weight^T
    add("backward_data", layer.batch, layer.in, layer.out, false, false);   // dx = dy weight
    add("backward_weight", layer.out, layer.in, layer.batch, true, false);  // dweight = dy^T x
    if (layer.batch == 128) add_linear(layer);
  }
  for (const int64_t size : kSquares) {
    add("nn", size, size, size, false, false);
    add("nt", size, size, size, false, true);
    add("tn", size, size, size, true, false);
    add("tt", size, size, size, true, true);
  }
}

}  // namespace pynn::bench
