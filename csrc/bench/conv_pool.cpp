// Backward of convolution, ReLU and 2 x 2 max-pooling as one operation, beside the chain of three that it stands for.
// 70 % of the windows are live. The rates count the products of the dense gradients, so that those of the two compare.
#include "ops/conv_pool.h"

#include <algorithm>
#include <random>

#include "bench/bench.h"
#include "ops/pool.h"
#include "runtime/dispatch.h"

namespace pynn::bench {
namespace {

constexpr double kLive = 0.7;

struct Layer {
  const char* name;
  int64_t images, channels, outputs, size, kernel, padding;
};

constexpr Layer kLayers[] = {
    {"lenet1", 128, 1, 6, 28, 5, 2},      {"lenet2", 128, 6, 16, 14, 5, 0},   {"cnn1", 128, 1, 32, 28, 3, 0},
    {"cnn2", 128, 32, 64, 26, 3, 0},      {"rgb", 128, 3, 16, 32, 3, 1},      {"narrow", 128, 12, 20, 14, 3, 1},
    {"deep", 128, 64, 64, 14, 3, 1},      {"wide5x5", 128, 16, 32, 14, 5, 2}, {"7x7", 32, 3, 32, 32, 7, 2},
    {"pointwise", 128, 64, 64, 14, 1, 0}, {"one_image", 1, 32, 64, 26, 3, 0}};

enum class Gradient { data, weight };

struct Arrays {
  ops::ConvShape shape;
  PoolShape pool;
  Array<float> x, weight, y, dy, masked, before, dx, dweight, dbias;
  Array<uint8_t> indices;

  Arrays(const Layer& l, const ops::ConvAxis& axis)
      : shape{l.images, l.channels, l.outputs, 1, axis, axis},
        pool{{axis.out, axis.out / 2, 2, 2, 0, 1}, {axis.out, axis.out / 2, 2, 2, 0, 1}},
        x(random_array(l.images * l.channels * l.size * l.size)),
        weight(random_array(l.outputs * l.channels * l.kernel * l.kernel)),
        y(random_array(l.images * l.outputs * (axis.out / 2) * (axis.out / 2), static_cast<float>(kLive - 1),
                       static_cast<float>(kLive))),
        dy(random_array(y.size())),
        masked(y.size()),
        before(l.images * l.outputs * axis.out * axis.out),
        dx(x.size()),
        dweight(weight.size()),
        dbias(l.outputs),
        indices(y.size()) {
    const std::vector<int64_t> winners = random_indices(y.size(), 4);
    std::copy(winners.begin(), winners.end(), indices.get());
  }

  void fused(Gradient gradient) const {
    const bool data = gradient == Gradient::data;
    ops::conv2d_max_pool2d_backward(data ? dx.get() : nullptr, data ? nullptr : dweight.get(),
                                    data ? nullptr : dbias.get(), dy.get(), y.get(), indices.get(), x.get(),
                                    weight.get(), true, shape);
  }
  void chain(Gradient gradient, float* to_dx, float* to_dweight, float* to_dbias) const {
    const bool data = gradient == Gradient::data;
    kernels<float>().elementwise.relu_backward(masked.get(), dy.get(), y.get(), y.size());
    ops::max_pool2d_backward(before.get(), masked.get(), indices.get(), pool, shape.images * shape.outputs);
    ops::conv2d_backward(data ? to_dx : nullptr, data ? nullptr : to_dweight, data ? nullptr : to_dbias, before.get(),
                         static_cast<const float*>(nullptr), x.get(), weight.get(), false, shape);
  }
};

Arrays arrays_of(const Layer& l) {
  return {l, {l.size, l.kernel, l.size + 2 * l.padding - l.kernel + 1, 1, l.padding, 1}};
}

Work make_fused(const Layer& layer, Gradient gradient) {
  const Arrays a = arrays_of(layer);
  const auto check = [=] {
    const Array<float> dx(a.dx.size()), dweight(a.dweight.size()), dbias(a.dbias.size());
    a.chain(gradient, dx.get(), dweight.get(), dbias.get());
    const auto expect = [](const Array<float>& got, const Array<float>& want, int64_t terms) {
      const std::vector<double> exact(want.get(), want.get() + want.size());
      expect_close(got.get(), exact.data(), got.size(), static_cast<double>(terms));
    };
    if (gradient == Gradient::data) {
      expect(a.dx, dx, a.weight.size() / layer.channels);
    } else {
      expect(a.dweight, dweight, a.y.size() / layer.outputs);
      expect(a.dbias, dbias, a.y.size() / layer.outputs);
    }
  };
  return {[=] { a.fused(gradient); }, check};
}

Work make_chain(const Layer& layer, Gradient gradient) {
  const Arrays a = arrays_of(layer);
  return {[=] { a.chain(gradient, a.dx.get(), a.dweight.get(), a.dbias.get()); }, [] {}};
}

}  // namespace

void add_conv_pool_cases() {
  for (const Layer& l : kLayers) {
    const int64_t out = l.size + 2 * l.padding - l.kernel + 1;
    const Cost cost{2.0 * static_cast<double>(l.images * l.outputs * out * out * l.channels * l.kernel * l.kernel), 0};
    for (const auto& [gradient, of] : {std::pair{Gradient::data, "data/"}, std::pair{Gradient::weight, "weight/"}}) {
      const std::string name = std::string(of) + l.name;
      const Gradient which = gradient;
      add_case("conv2d_max_pool2d_backward_" + name, cost, [&l, which] { return make_fused(l, which); });
      add_case("conv2d_then_max_pool2d_backward_" + name, cost, [&l, which] { return make_chain(l, which); });
    }
  }
}

}  // namespace pynn::bench
