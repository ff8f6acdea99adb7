// Convolutions: the layers of LeNet and the CNN that benchmarks/compare.py trains, and their neighbours, so that a
// shape beside the usual ones that is slow shows.
#include "ops/conv.h"

#include <algorithm>

#include "bench/bench.h"
#include "ops/conv_pool.h"
#include "reference/conv.h"

namespace pynn::bench {
namespace {

constexpr int64_t kBatch = 128;

struct Layer {
  const char* name;
  int64_t channels, outputs, size, kernel, stride, padding, dilation, groups;
};

constexpr Layer kLayers[] = {{"lenet1", 1, 6, 28, 5, 1, 2, 1, 1},      {"lenet2", 6, 16, 14, 5, 1, 0, 1, 1},
                             {"cnn1", 1, 32, 28, 3, 1, 0, 1, 1},       {"cnn2", 32, 64, 26, 3, 1, 0, 1, 1},
                             {"rgb", 3, 16, 32, 3, 1, 1, 1, 1},        {"narrow", 12, 20, 14, 3, 1, 1, 1, 1},
                             {"deep", 64, 64, 14, 3, 1, 1, 1, 1},      {"vgg", 32, 32, 32, 3, 1, 1, 1, 1},
                             {"late", 128, 128, 8, 3, 1, 1, 1, 1},     {"pointwise", 64, 64, 14, 1, 1, 0, 1, 1},
                             {"strided", 32, 64, 28, 3, 2, 1, 1, 1},   {"strided5x5", 16, 32, 28, 5, 2, 2, 1, 1},
                             {"dilated", 16, 32, 28, 3, 1, 2, 2, 1},   {"grouped", 32, 64, 14, 3, 1, 1, 1, 4},
                             {"depthwise", 32, 32, 28, 3, 1, 1, 1, 32}};

ops::ConvShape shape_of(const Layer& l, int64_t images) {
  const int64_t out = (l.size + 2 * l.padding - l.dilation * (l.kernel - 1) - 1) / l.stride + 1;
  const ops::ConvAxis axis{l.size, l.kernel, out, l.stride, l.padding, l.dilation};
  return {images, l.channels, l.outputs, l.groups, axis, axis};
}

struct Arrays {
  ops::ConvShape shape;
  int64_t image_x, image_y;  // elements of one image
  Array<float> x, weight, bias, y, dx, dy, dweight, dbias;

  explicit Arrays(const Layer& l)
      : shape(shape_of(l, kBatch)),
        image_x(l.channels * l.size * l.size),
        image_y(l.outputs * shape.rows.out * shape.columns.out),
        x(random_array(kBatch * image_x)),
        weight(random_array(l.outputs * (l.channels / l.groups) * l.kernel * l.kernel)),
        bias(random_array(l.outputs)),
        y(kBatch * image_y),
        dx(x.size()),
        dy(random_array(y.size())),
        dweight(weight.size()),
        dbias(l.outputs) {}

  int64_t products() const { return weight.size() / shape.outputs; }  // of one output
};

// The first and the last image of x [kBatch, image]: the naive twin takes too long for all.
std::vector<float> outer_images(const Array<float>& x, int64_t image) {
  std::vector<float> images(x.get(), x.get() + image);
  images.insert(images.end(), x.get() + (kBatch - 1) * image, x.get() + kBatch * image);
  return images;
}

void expect_outer_images(const Array<float>& got, int64_t image, const std::vector<double>& want, double terms) {
  expect_close(outer_images(got, image).data(), want.data(), 2 * image, terms);
}

Work make_forward(const Layer& layer) {
  const Arrays a(layer);
  const auto run = [=] { ops::conv2d(a.y.get(), a.x.get(), a.weight.get(), a.bias.get(), false, a.shape); };
  const auto check = [=] {
    std::vector<double> y(static_cast<size_t>(2 * a.image_y));
    reference::conv2d(y.data(), outer_images(a.x, a.image_x).data(), a.weight.get(), a.bias.get(), shape_of(layer, 2));
    expect_outer_images(a.y, a.image_y, y, static_cast<double>(a.products() + 1));
  };
  return {run, check};
}

// conv2d with ReLU and max-pooling.
Work make_pool(const Layer& layer) {
  const Arrays a(layer);
  const int64_t pooled = a.shape.rows.out / 2 * (a.shape.columns.out / 2);
  const Array<uint8_t> indices(kBatch * layer.outputs * pooled);
  const auto run = [=] {
    ops::conv2d_max_pool2d(a.y.get(), indices.get(), a.x.get(), a.weight.get(), a.bias.get(), true, a.shape);
  };
  const auto check = [=] {
    const ops::ConvShape two = shape_of(layer, 2);
    std::vector<double> z(static_cast<size_t>(2 * a.image_y)), y;
    reference::conv2d(z.data(), outer_images(a.x, a.image_x).data(), a.weight.get(), a.bias.get(), two);
    for (int64_t plane = 0; plane < 2 * layer.outputs; ++plane) {
      const double* from = z.data() + plane * two.rows.out * two.columns.out;
      for (int64_t r = 0; r + 1 < two.rows.out; r += 2) {
        for (int64_t c = 0; c + 1 < two.columns.out; c += 2) {
          const double* top = from + r * two.columns.out + c;
          const double* bottom = top + two.columns.out;
          y.push_back(std::max({0.0, top[0], top[1], bottom[0], bottom[1]}));
        }
      }
    }
    expect_outer_images(a.y, layer.outputs * pooled, y, static_cast<double>(a.products() + 1));
  };
  return {run, check};
}

// Either dx, or dweight and dbias. Until the check has passed, dy is 0 but for the outer images, so that the naive twin
// of these two gives the gradients of the whole batch.
Work make_backward(const Layer& layer, bool of_data) {
  const Arrays a(layer);
  std::fill(a.dy.get() + a.image_y, a.dy.get() + (kBatch - 1) * a.image_y, 0.0f);
  const auto run = [=] {
    ops::conv2d_backward(of_data ? a.dx.get() : nullptr, of_data ? nullptr : a.dweight.get(),
                         of_data ? nullptr : a.dbias.get(), a.dy.get(), static_cast<const float*>(nullptr), a.x.get(),
                         a.weight.get(), false, a.shape);
  };
  const auto check = [=] {
    std::vector<double> dx(static_cast<size_t>(2 * a.image_x)), dbias(static_cast<size_t>(a.shape.outputs));
    std::vector<double> dweight(static_cast<size_t>(a.weight.size()));
    reference::conv2d_backward(dx.data(), dweight.data(), dbias.data(), outer_images(a.dy, a.image_y).data(),
                               outer_images(a.x, a.image_x).data(), a.weight.get(), shape_of(layer, 2));
    const double pixels = static_cast<double>(2 * a.shape.rows.out * a.shape.columns.out);
    if (of_data) {
      expect_outer_images(a.dx, a.image_x, dx, static_cast<double>(a.products() * a.shape.outputs / a.shape.channels));
    } else {
      expect_close(a.dweight.get(), dweight.data(), a.weight.size(), pixels);
      expect_close(a.dbias.get(), dbias.data(), a.shape.outputs, pixels);
    }
    const Array<float> dy = random_array(a.dy.size());
    std::copy(dy.get(), dy.get() + dy.size(), a.dy.get());
  };
  return {run, check};
}

}  // namespace

void add_conv_cases() {
  for (const Layer& l : kLayers) {
    const ops::ConvShape s = shape_of(l, kBatch);
    const int64_t outputs = kBatch * l.outputs * s.rows.out * s.columns.out;
    const double flops = 2.0 * static_cast<double>(outputs * (l.channels / l.groups) * l.kernel * l.kernel);
    const std::string name = l.name;
    add_case("conv2d/" + name, {flops, 0}, [&l] { return make_forward(l); });
    add_case("conv2d_max_pool2d/" + name, {flops, 0}, [&l] { return make_pool(l); });
    add_case("conv2d_backward_data/" + name, {flops, 0}, [&l] { return make_backward(l, true); });
    add_case("conv2d_backward_weight/" + name, {flops, 0}, [&l] { return make_backward(l, false); });
  }
}

}  // namespace pynn::bench
