#include <limits>

#include "harness.h"
#include "ops/conv.h"
#include "ops/conv_pool.h"
#include "ops/conv_tiles.h"
#include "ops/pool.h"
#include "reference/conv.h"

using namespace pynn;
using namespace pynn::test;

namespace {

// Whether the instruction set has the kernels that are tested; where it has none, that is said.
bool has_tiles() {
  if (kernels<float>().conv_tiles.block != nullptr) return true;
  MESSAGE("not run: ", std::string(isa_name(active_isa())), " multiplies no tiles");
  return false;
}

ops::ConvAxis axis(int64_t size, int64_t kernel, int64_t stride = 1, int64_t before = 0, int64_t after = 0) {
  return {size, kernel, (size + before + after - kernel) / stride + 1, stride, before, 1};
}

int64_t x_size(const ops::ConvShape& s) { return s.images * s.channels * s.rows.size * s.columns.size; }
int64_t y_size(const ops::ConvShape& s) { return s.images * s.outputs * s.rows.out * s.columns.out; }
int64_t weight_size(const ops::ConvShape& s) { return s.outputs * s.channels * s.rows.kernel * s.columns.kernel; }
double terms(const ops::ConvShape& s) { return double(s.channels * s.rows.kernel * s.columns.kernel); }

std::string name(const ops::ConvShape& s) {
  const auto text = [](const ops::ConvAxis& a) {
    return std::to_string(a.size) + "/" + std::to_string(a.kernel) + " stride " + std::to_string(a.stride) +
           " padding " + std::to_string(a.padding);
  };
  return std::to_string(s.images) + " images, " + std::to_string(s.channels) + " to " + std::to_string(s.outputs) +
         " channels, rows " + text(s.rows) + ", columns " + text(s.columns);
}

std::vector<ops::ConvShape> shapes() {
  std::vector<ops::ConvShape> all;
  // Every number of pairs of channels up to a tile's and beyond, every filling of the last tile of outputs.
  for (int64_t channels = 1; channels <= 36; ++channels) all.push_back({2, channels, 5, 1, axis(6, 3), axis(9, 2)});
  for (int64_t outputs = 1; outputs <= 34; ++outputs) all.push_back({1, 3, outputs, 1, axis(5, 2), axis(7, 3)});
  for (int64_t width = 1; width <= 50; ++width)
    all.push_back({1, 4, 3, 1, axis(5, 3, 1, 1, 1), axis(width, 3, 1, 1, 1)});
  all.push_back({3, 6, 16, 1, axis(14, 5), axis(14, 5)});
  all.push_back({2, 32, 40, 1, axis(26, 3), axis(26, 3)});
  all.push_back({2, 16, 20, 1, axis(13, 5, 2, 2, 2), axis(14, 5, 2, 2, 2)});
  all.push_back({2, 5, 20, 1, axis(13, 3, 3, 1, 0), axis(40, 7, 3, 2, 5)});
  all.push_back({1, 64, 70, 1, axis(40, 1), axis(40, 1)});  // bands of rows, parts of outputs
  all.push_back({1, 40, 33, 1, axis(60, 3, 1, 1, 1), axis(61, 3, 1, 1, 1)});
  all.push_back({2, 3, 4, 1, axis(2, 3, 1, 6, 7), axis(3, 5, 1, 9, 2)});      // padding alone
  all.push_back({1, 130, 140, 1, axis(5, 3, 1, 1, 1), axis(5, 3, 1, 1, 1)});  // filters that threads share
  for (int i = 0; i < 60; ++i) {
    const auto random = [](int64_t most) {
      return 1 + static_cast<int64_t>(generator()() % static_cast<uint64_t>(most));
    };
    const auto random_axis = [&] {
      const int64_t kernel = random(7), before = random(kernel) - 1, after = random(kernel) - 1;
      return axis(std::max<int64_t>(1, kernel - before - after) + random(30) - 1, kernel, random(3), before, after);
    };
    const ops::ConvAxis rows = random_axis(), columns = random_axis();
    all.push_back({random(4), random(50), random(50), 1, rows, columns});
  }
  return all;
}

// What is convolved, and the job on it; `pool` leaves an odd last row or column out.
struct Case {
  ops::ConvShape shape, covered;
  ops::AxisPlan rows, columns;
  Guarded<float> x, weight, bias;

  explicit Case(const ops::ConvShape& s, bool pool = false)
      : shape(s),
        covered(s),
        rows({}),
        columns({}),
        x(random_array<float>(x_size(s))),
        weight(random_array<float>(weight_size(s))),
        bias(random_array<float>(s.outputs)) {
    set_pool(pool);
  }
  void set_pool(bool pool) {
    covered = shape;
    if (pool) {
      covered.rows.out -= covered.rows.out % 2;
      covered.columns.out -= covered.columns.out % 2;
    }
    rows = ops::forward_plan(covered.rows);
    columns = ops::forward_plan(covered.columns);
  }
  ops::Job job() const {
    ops::Job job = ops::forward_job(rows, columns, covered);
    job.odd_rows = shape.rows.out - covered.rows.out;
    job.odd_columns = shape.columns.out - covered.columns.out;
    return job;
  }
  Guarded<float> run(bool relu = false) const {
    Guarded<float> y(y_size(shape), 7.0f);
    ops::correlate_tiles({y.data(), nullptr, bias.data(), relu, false}, x.data(), nullptr, weight.data(), job());
    return y;
  }
};

}  // namespace

TEST_CASE("convolution in tiles equals the naive one, with the same bits on any threads") {
  if (!has_tiles()) return;
  for (const ops::ConvShape& s : shapes()) {
    Case c(s);
    REQUIRE(ops::can_use_conv_tiles(c.job()));
    const BeforeNoAccess<float> placed(c.x);
    Guarded<double> want(y_size(s));
    reference::conv2d(want.data(), c.x.data(), c.weight.data(), c.bias.data(), s);
    Guarded<float> first(y_size(s));
    for (const int threads : {1, 2, 3}) {
      const Threads scope(threads);
      Guarded<float> y(y_size(s), 7.0f);
      ops::correlate_tiles({y.data(), nullptr, c.bias.data(), false, false}, placed.data(), nullptr, c.weight.data(),
                           c.job());
      if (threads == 1) first = y;
      check_close(y, first, 0, "bits on several threads of " + name(s));
    }
    check_close(first, want, rounding<float>(16, std::sqrt(terms(s))), "convolution in tiles of " + name(s));
    for (int64_t i = 0; i < want.size(); ++i) want[i] = std::max(want[i], 0.0);
    check_close(c.run(true), want, rounding<float>(16, std::sqrt(terms(s))), "with relu");
  }
}

TEST_CASE("pooled convolution in tiles has the bits of convolution in tiles, then max_pool2d") {
  if (!has_tiles()) return;
  for (const ops::ConvShape& s : shapes()) {
    if (s.rows.out < 2 || s.columns.out < 2) continue;
    for (const float special : {0.0f, std::numeric_limits<float>::quiet_NaN(), 1e30f}) {
      Case c(s);
      // In the last row and column, which pooling may leave out.
      if (special != 0) c.x[s.channels * s.rows.size * s.columns.size - 1] = special;
      const Guarded<float> before = c.run(true);
      const PoolShape pool{{s.rows.out, s.rows.out / 2, 2, 2, 0, 1}, {s.columns.out, s.columns.out / 2, 2, 2, 0, 1}};
      const int64_t size = s.images * s.outputs * (s.rows.out / 2) * (s.columns.out / 2);
      Guarded<float> want(size);
      Guarded<uint8_t> want_indices(size);
      ops::max_pool2d(want.data(), want_indices.data(), before.data(), pool, s.images * s.outputs);
      c.set_pool(true);
      for (const int threads : {1, 2, 3}) {
        const Threads scope(threads);
        for (const bool with_indices : {true, false}) {
          Guarded<float> y(size, 7.0f);
          Guarded<uint8_t> indices(size);
          ops::correlate_tiles({y.data(), with_indices ? indices.data() : nullptr, c.bias.data(), true, true},
                               c.x.data(), nullptr, c.weight.data(), c.job());
          bool same = true;
          for (int64_t i = 0; i < size; ++i) {
            same = same && (y[i] == want[i] || (std::isnan(y[i]) && std::isnan(want[i])));
            same = same && (!with_indices || indices[i] == want_indices[i]);
          }
          INFO(name(s));
          CHECK(same);
        }
      }
    }
  }
}

TEST_CASE("the data gradient in tiles equals the naive one, behind a ReLU too") {
  if (!has_tiles()) return;
  for (const ops::ConvShape& s : shapes()) {
    if (s.rows.stride != 1 || s.columns.stride != 1) continue;
    const ops::AxisPlan rows = ops::backward_plan(s.rows), columns = ops::backward_plan(s.columns);
    const ops::Job job = ops::backward_job(rows, columns, s);
    if (!ops::can_use_conv_tiles(job)) continue;
    const Guarded<float> dy = random_array<float>(y_size(s)), y = random_array<float>(y_size(s)),
                         weight = random_array<float>(weight_size(s)), x = random_array<float>(x_size(s));
    for (const bool relu : {false, true}) {
      Guarded<float> dz = dy, dx(x_size(s), 7.0f);
      for (int64_t i = 0; relu && i < dz.size(); ++i) dz[i] = y[i] > 0 ? dz[i] : 0;
      Guarded<double> want(x_size(s)), dweight(weight_size(s)), dbias(s.outputs);
      for (Guarded<double>* zeros : {&want, &dweight, &dbias}) {
        for (int64_t i = 0; i < zeros->size(); ++i) (*zeros)[i] = 0;
      }
      reference::conv2d_backward(want.data(), dweight.data(), dbias.data(), dz.data(), x.data(), weight.data(), s);
      ops::correlate_tiles({dx.data()}, dy.data(), relu ? y.data() : nullptr, weight.data(), job);
      const double sums = double(s.outputs * s.rows.kernel * s.columns.kernel);
      check_close(dx, want, rounding<float>(16, std::sqrt(sums)), "data gradient in tiles of " + name(s));
    }
  }
}

TEST_CASE("an image that is not finite goes through vectors, and no other") {
  if (!has_tiles()) return;
  const ops::ConvShape s{4, 16, 20, 1, axis(13, 5, 1, 2, 2), axis(40, 5, 1, 2, 2)};
  const float infinity = std::numeric_limits<float>::infinity(), largest = std::numeric_limits<float>::max();
  Case c(s);
  const Guarded<float> clean = c.run();
  const auto of_vectors = [&] {
    Guarded<float> y(y_size(s));
    ops::correlate_vectors<float>({y.data(), nullptr, c.bias.data(), false, false}, c.x.data(), nullptr,
                                  c.weight.data(), c.job());
    return y;
  };
  const auto same = [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); };
  const int64_t image_x = x_size(s) / s.images, image_y = y_size(s) / s.images;
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity, largest, -1e20f}) {
    for (const int64_t place : {int64_t(0), image_x / 2 + 7, image_x - 1}) {
      const float before = c.x[2 * image_x + place];
      c.x[2 * image_x + place] = value;
      const Guarded<float> vectors = of_vectors();
      for (const int threads : {1, 2, 3}) {
        const Threads scope(threads);
        const Guarded<float> y = c.run();
        for (int64_t i = 0; i < y.size(); ++i) REQUIRE(same(y[i], i / image_y == 2 ? vectors[i] : clean[i]));
      }
      c.x[2 * image_x + place] = before;
    }
    const float before = c.weight[77];
    c.weight[77] = value;
    const Guarded<float> vectors = of_vectors(), y = c.run();
    for (int64_t i = 0; i < y.size(); ++i) REQUIRE(same(y[i], vectors[i]));
    c.weight[77] = before;
  }
}

TEST_CASE("convolution in tiles is at least as exact as that of vectors") {
  if (!has_tiles()) return;
  const ops::ConvShape s{4, 32, 64, 1, axis(14, 5, 1, 2, 2), axis(14, 5, 1, 2, 2)};
  const Case c(s);
  Guarded<double> want(y_size(s));
  reference::conv2d(want.data(), c.x.data(), c.weight.data(), c.bias.data(), s);
  const auto squared_error = [&](const Guarded<float>& y) {
    double sum = 0;
    for (int64_t i = 0; i < y.size(); ++i) sum += (y[i] - want[i]) * (y[i] - want[i]);
    return sum;
  };
  Guarded<float> vectors(y_size(s));
  ops::correlate_vectors<float>({vectors.data(), nullptr, c.bias.data(), false, false}, c.x.data(), nullptr,
                                c.weight.data(), c.job());
  CHECK(squared_error(c.run()) < squared_error(vectors));
}

TEST_CASE("tiles are chosen for many channels, with and without pooling alike, and not for few") {
  if (!has_tiles()) return;
  const auto pays = [](const ops::ConvShape& s) {
    Case c(s);
    const bool whole = ops::conv_tiles_pay(c.job());
    c.set_pool(true);
    CHECK(ops::conv_tiles_pay(c.job()) == whole);
    return whole;
  };
  CHECK(pays({128, 32, 64, 1, axis(28, 3, 2, 1, 1), axis(28, 3, 2, 1, 1)}));
  CHECK(pays({128, 32, 64, 1, axis(14, 5, 1, 2, 2), axis(14, 5, 1, 2, 2)}));
  CHECK(pays({1, 64, 128, 1, axis(55, 3, 2, 1, 1), axis(57, 3, 2, 1, 1)}));
  CHECK_FALSE(pays({256, 1, 6, 1, axis(28, 5, 1, 2, 2), axis(28, 5, 1, 2, 2)}));
  CHECK_FALSE(pays({256, 6, 16, 1, axis(14, 5), axis(14, 5)}));
  CHECK_FALSE(pays({128, 3, 16, 1, axis(32, 3, 1, 1, 1), axis(32, 3, 1, 1, 1)}));
  // Wide images are gone through in bands of few rows, which read the rows between them again.
  CHECK(pays({1, 64, 64, 1, axis(64, 5, 1, 2, 2), axis(1024, 5, 1, 2, 2)}));
  CHECK(pays({16, 24, 48, 1, axis(64, 5, 1, 2, 2), axis(64, 5, 1, 2, 2)}));
  CHECK_FALSE(pays({1, 24, 48, 1, axis(64, 5, 1, 2, 2), axis(1024, 5, 1, 2, 2)}));
  CHECK_FALSE(pays({16, 48, 16, 1, axis(64, 5, 1, 2, 2), axis(64, 5, 1, 2, 2)}));
  CHECK_FALSE(pays({4, 16, 16, 1, axis(128, 5, 1, 2, 2), axis(128, 5, 1, 2, 2)}));
}

TEST_CASE("tiles take the place of Winograd where they are full, with and without pooling alike") {
  if (!has_tiles()) return;
  const auto beat = [](int64_t images, int64_t channels, int64_t outputs, int64_t height, int64_t width) {
    Case c({images, channels, outputs, 1, axis(height, 3, 1, 1, 1), axis(width, 3, 1, 1, 1)});
    const bool whole = ops::conv_tiles_beat_winograd(c.job());
    c.set_pool(true);
    CHECK(ops::conv_tiles_beat_winograd(c.job()) == whole);
    return whole;
  };
  CHECK(beat(1, 32, 64, 24, 24));
  CHECK(beat(16, 63, 12, 13, 7));
  CHECK(beat(16, 32, 64, 5, 5));
  CHECK(beat(16, 32, 64, 4, 4));
  CHECK_FALSE(beat(1, 48, 64, 24, 24));   // tiles would have to be placed
  CHECK_FALSE(beat(1, 32, 17, 24, 24));   // the last tile of outputs has one
  CHECK_FALSE(beat(16, 32, 64, 3, 3));    // tiles of two or three positions
  CHECK_FALSE(beat(1, 256, 64, 8, 300));  // four rows are more than the L2 cache holds
}
