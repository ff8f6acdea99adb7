// Pooling of the activations of LeNet and the CNN, and of windows without a kernel of their own.
#include "ops/pool.h"

#include "bench/bench.h"
#include "reference/pool.h"

namespace pynn::bench {
namespace {

constexpr int64_t kBatch = 128;

struct Pool {
  int64_t channels, size, kernel, stride, padding;
};

constexpr Pool kPools[] = {
    {6, 28, 2, 2, 0}, {16, 10, 2, 2, 0}, {64, 24, 2, 2, 0}, {64, 24, 3, 2, 1}, {64, 24, 3, 1, 1}};

PoolShape shape_of(const Pool& p) {
  const PoolAxis axis{p.size, (p.size + 2 * p.padding - p.kernel) / p.stride + 1, p.kernel, p.stride, p.padding, 1};
  return {axis, axis};
}

struct Arrays {
  PoolShape shape;
  int64_t planes;
  Array<float> x, dx, y, dy;
  Array<uint8_t> indices;

  explicit Arrays(const Pool& p)
      : shape(shape_of(p)),
        planes(kBatch * p.channels),
        x(random_array(planes * p.size * p.size)),
        dx(x.size()),
        y(planes * shape.rows.out * shape.columns.out),
        dy(random_array(y.size())),
        indices(y.size()) {}
};

Work make_max_pool(const Pool& p) {
  const Arrays a(p);
  const auto run = [=] { ops::max_pool2d(a.y.get(), a.indices.get(), a.x.get(), a.shape, a.planes); };
  const auto check = [=] {
    std::vector<float> y(static_cast<size_t>(a.y.size()));
    std::vector<uint8_t> indices(y.size());
    reference::max_pool2d(y.data(), indices.data(), a.x.get(), a.shape, a.planes);
    expect_equal(a.y.get(), y.data(), a.y.size());
    expect_equal(a.indices.get(), indices.data(), a.y.size());
  };
  return {run, check};
}

Work make_max_pool_backward(const Pool& p) {
  const Arrays a(p);
  ops::max_pool2d(a.y.get(), a.indices.get(), a.x.get(), a.shape, a.planes);
  const auto run = [=] { ops::max_pool2d_backward(a.dx.get(), a.dy.get(), a.indices.get(), a.shape, a.planes); };
  const auto check = [=] {
    std::vector<double> dx(static_cast<size_t>(a.dx.size()));
    reference::max_pool2d_backward(dx.data(), a.dy.get(), a.indices.get(), a.shape, a.planes);
    expect_close(a.dx.get(), dx.data(), a.dx.size(), static_cast<double>(p.kernel * p.kernel));
  };
  return {run, check};
}

Work make_avg_pool(const Pool& p) {
  const Arrays a(p);
  const auto run = [=] { ops::avg_pool2d(a.y.get(), a.x.get(), a.shape, true, a.planes); };
  const auto check = [=] {
    std::vector<double> y(static_cast<size_t>(a.y.size()));
    reference::avg_pool2d(y.data(), a.x.get(), a.shape, true, a.planes);
    expect_close(a.y.get(), y.data(), a.y.size(), static_cast<double>(p.kernel * p.kernel));
  };
  return {run, check};
}

Work make_avg_pool_backward(const Pool& p) {
  const Arrays a(p);
  const auto run = [=] { ops::avg_pool2d_backward(a.dx.get(), a.dy.get(), a.shape, true, a.planes); };
  const auto check = [=] {
    std::vector<double> dx(static_cast<size_t>(a.dx.size()));
    reference::avg_pool2d_backward(dx.data(), a.dy.get(), a.shape, true, a.planes);
    expect_close(a.dx.get(), dx.data(), a.dx.size(), static_cast<double>(p.kernel * p.kernel));
  };
  return {run, check};
}

}  // namespace

void add_pool_cases() {
  for (const Pool& p : kPools) {
    const PoolShape shape = shape_of(p);
    const int64_t planes = kBatch * p.channels, inputs = planes * p.size * p.size;
    const int64_t outputs = planes * shape.rows.out * shape.columns.out;
    const std::string what = std::to_string(kBatch) + "x" + std::to_string(p.channels) + "x" + std::to_string(p.size) +
                             "x" + std::to_string(p.size) + "/k" + std::to_string(p.kernel) + "s" +
                             std::to_string(p.stride);
    const Cost average{0, 4 * (inputs + outputs)}, maximum{0, 4 * (inputs + outputs) + outputs};
    add_case("max_pool2d/" + what, maximum, [&p] { return make_max_pool(p); });
    add_case("max_pool2d_backward/" + what, maximum, [&p] { return make_max_pool_backward(p); });
    add_case("avg_pool2d/" + what, average, [&p] { return make_avg_pool(p); });
    add_case("avg_pool2d_backward/" + what, average, [&p] { return make_avg_pool_backward(p); });
  }
}

}  // namespace pynn::bench
