#include <algorithm>
#include <limits>

#include "harness.h"
#include "kernels/split_gemm.h"
#include "ops/ceil_div.h"
#include "ops/gemm.h"
#include "ops/gemm_product.h"
#include "reference/gemm.h"

using namespace pynn;
using namespace pynn::test;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The kernels that are tested, or null where the instruction set has none, which is said.
const SplitGemmKernels<float>* tiles() {
  const SplitGemmKernels<float>& kernels = pynn::kernels<float>().split_gemm;
  if (kernels.block != nullptr) return &kernels;
  MESSAGE("not run: ", std::string(isa_name(active_isa())), " multiplies no tiles");
  return nullptr;
}

float value_of(uint16_t part) {
  const uint32_t bits = uint32_t(part) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

int64_t parts_size(int64_t outer, int64_t k) {
  return ops::round_up(outer, kSplitTile) * ops::round_up(k, kSplitDepth) * kSplitParts;
}

struct Shape {
  int64_t m, n, k;
};

}  // namespace

TEST_CASE("three parts add up to the number") {
  const auto* kernel = tiles();
  if (kernel == nullptr) return;
  const int64_t outer = 21, k = 77, steps = 3;
  Guarded<float> x(outer * k);
  for (int64_t i = 0; i < x.size(); ++i) {
    const uint64_t random = generator()();
    x[i] =
        std::ldexp(1 + static_cast<float>(random % (1 << 23)) / (1 << 23), static_cast<int>(random >> 32 & 127) - 60);
    if (random >> 63) x[i] = -x[i];
  }
  x[5] = 0;
  x[6] = std::ldexp(1.0f, 100) * (2 - std::ldexp(1.0f, -23));  // all bits
  Guarded<uint16_t> parts(parts_size(outer, k));
  kernel->split_a(parts.data(), x.data(), k, false, outer, k);
  for (int64_t i = 0; i < 32; ++i) {
    for (int64_t p = 0; p < steps * kSplitDepth; ++p) {
      // Numbers k and k + 16 of a tile lie side by side.
      const int64_t tile = (i / kSplitTile * steps + p / kSplitDepth) * kSplitTileSize, q = p % kSplitDepth;
      const int64_t at = tile + i % kSplitTile * kSplitDepth + q % 16 * 2 + q / 16;
      constexpr int64_t plane = kSplitTile * kSplitDepth;
      const double sum = double(value_of(parts[at])) + value_of(parts[at + plane]) + value_of(parts[at + 2 * plane]);
      CHECK(sum == (i < outer && p < k ? x[i * k + p] : 0.0f));
    }
  }
}

TEST_CASE("a block of tiles is the naive product, at every size, however its operands are stored") {
  const auto* kernel = tiles();
  if (kernel == nullptr) return;
  for (const int64_t m : {1, 15, 16, 17, 31, 32}) {
    for (const int64_t n : {1, 15, 16, 17, 31, 32}) {
      for (const int64_t k : {1, 15, 16, 17, 31, 32, 33, 100}) {
        const Guarded<float> a = random_array<float>(m * k), b = random_array<float>(k * n),
                             bias = random_array<float>(n), before = random_array<float>(m * n);
        Guarded<double> product(m * n);
        reference::gemm(product.data(), a.data(), false, b.data(), false, static_cast<const float*>(nullptr), m, n, k);
        for (int stored = 0; stored < 4; ++stored) {
          const bool a_outside = stored & 1, b_outside = stored & 2;
          const BeforeNoAccess<float> of_a(a_outside ? transposed(a, m, k) : a),
              of_b(b_outside ? b : transposed(b, k, n));
          Guarded<uint16_t> a_parts(parts_size(m, k)), b_parts(parts_size(n, k));
          kernel->split_a(a_parts.data(), of_a.data(), a_outside ? m : k, a_outside, m, k);
          kernel->split_b(b_parts.data(), of_b.data(), b_outside ? n : k, b_outside, n, k);
          for (int kind = 0; kind < 4; ++kind) {
            GemmEpilogue<float> epilogue;
            epilogue.accumulate = kind == 1;
            epilogue.relu = kind == 2;
            if (kind >= 2) epilogue.bias = bias.data();
            Guarded<float> c = before;
            Guarded<double> want = product;
            for (int64_t i = 0; i < want.size(); ++i) {
              want[i] += kind == 1 ? before[i] : kind >= 2 ? bias[i % n] : 0;
              if (kind == 2) want[i] = std::max(want[i], 0.0);
            }
            kernel->begin(m);
            const uint32_t left = kernel->block(c.data(), n, a_parts.data(), b_parts.data(), epilogue, m, n, k);
            kernel->end();
            CHECK(left == 0);
            check_close(c, want, rounding<float>(8, std::sqrt(double(k))), "a block of tiles");
          }
        }
      }
    }
  }
}

TEST_CASE("a block of tiles leaves the rows that are not finite") {
  const auto* kernel = tiles();
  if (kernel == nullptr) return;
  const int64_t m = 30, n = 20, k = 40;
  const float largest = std::numeric_limits<float>::max();
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity, largest, -largest}) {
    for (const bool in_a : {true, false}) {
      Guarded<float> a = random_array<float>(m * k), b = random_array<float>(n * k);
      (in_a ? a[29 * k + 39] : b[19 * k + 39]) = value;
      Guarded<uint16_t> a_parts(parts_size(m, k)), b_parts(parts_size(n, k));
      kernel->split_a(a_parts.data(), a.data(), k, false, m, k);
      kernel->split_b(b_parts.data(), b.data(), k, false, n, k);
      const Guarded<float> before = random_array<float>(m * n);
      Guarded<float> c = before;
      kernel->begin(m);
      const uint32_t left = kernel->block(c.data(), n, a_parts.data(), b_parts.data(), {}, m, n, k);
      kernel->end();
      CHECK(left == (in_a ? uint32_t(1) << 29 : (uint32_t(1) << m) - 1));
      for (int64_t i = 0; i < c.size(); ++i) CHECK((c[i] == before[i]) == ((left >> i / n & 1) != 0));
    }
  }
}

TEST_CASE("a row of a block of tiles has the same bits whatever stands beside it") {
  const auto* kernel = tiles();
  if (kernel == nullptr) return;
  const int64_t k = 100;
  for (const int64_t n : {7, 16, 17, 32}) {
    const Guarded<float> a = random_array<float>(kSplitBlock * k), b = random_array<float>(n * k);
    Guarded<uint16_t> b_parts(parts_size(n, k));
    kernel->split_b(b_parts.data(), b.data(), k, false, n, k);
    const auto product = [&](int64_t first, int64_t m) {
      Guarded<uint16_t> a_parts(parts_size(m, k));
      kernel->split_a(a_parts.data(), a.data() + first * k, k, false, m, k);
      Guarded<float> c(m * n);
      kernel->begin(m);
      CHECK(kernel->block(c.data(), n, a_parts.data(), b_parts.data(), {}, m, n, k) == 0);
      kernel->end();
      return c;
    };
    const Guarded<float> all = product(0, kSplitBlock);
    for (const int64_t first : {0, 5, 16, 31}) {
      const Guarded<float> rows = product(first, kSplitBlock - first);
      for (int64_t i = 0; i < rows.size(); ++i) CHECK(rows[i] == all[first * n + i]);
    }
    const Guarded<float> one = product(3, 1);
    for (int64_t i = 0; i < n; ++i) CHECK(one[i] == all[3 * n + i]);
  }
}

TEST_CASE("products of tiles are right over slabs, groups and passes, and their bits the same on any threads") {
  if (tiles() == nullptr) return;
  for (const Shape s :
       {Shape{130, 700, 90}, Shape{700, 130, 300}, Shape{200, 230, 1700}, Shape{400, 500, 900}, Shape{96, 700, 900}}) {
    for (int stored = 0; stored < 4; ++stored) {
      for (const bool accumulate : {false, true}) {
        const bool a_transposed = stored & 1, b_transposed = stored & 2;
        const Guarded<float> a = random_array<float>(s.m * s.k), b = random_array<float>(s.k * s.n),
                             bias = random_array<float>(s.n), before = random_array<float>(s.m * s.n);
        ops::GemmArguments<float> g{nullptr,
                                    s.n,
                                    a.data(),
                                    a_transposed ? s.m : s.k,
                                    a_transposed,
                                    b.data(),
                                    b_transposed ? s.k : s.n,
                                    b_transposed,
                                    s.m,
                                    s.n,
                                    s.k};
        if (accumulate) {
          g.accumulate = true;
        } else {
          g.bias = bias.data();
        }
        REQUIRE(ops::split_pays<float>(s.m, s.n, s.k, b_transposed));
        Guarded<double> want(s.m * s.n);
        reference::gemm(want.data(), a.data(), a_transposed, b.data(), b_transposed, g.bias, s.m, s.n, s.k);
        Guarded<float> first(s.m * s.n);
        for (const int threads : {1, 2, 3}) {
          const Threads scope(threads);
          Guarded<float> c = before;
          g.c = c.data();
          ops::gemm(g);
          if (threads == 1) first = c;
          check_close(c, first, 0, "bits on several threads");
        }
        for (int64_t i = 0; accumulate && i < want.size(); ++i) want[i] += before[i];
        check_close(first, want, rounding<float>(16, std::sqrt(double(s.k))), "gemm of tiles");
      }
    }
  }
}

TEST_CASE("a product of tiles is cut in one task for each thread, for each splits its operands anew") {
  if (tiles() == nullptr) return;
  ops::GemmArguments<float> g{nullptr, 128, nullptr, 784, false, nullptr, 784, true, 256, 128, 784};
  for (const bool is_weight : {false, true}) {
    g.b_is_weight = is_weight;
    CHECK(ops::Product<float>(g, {}, 2).tasks() == 2);
  }
}

TEST_CASE("products of tiles are at least as exact as those of vectors") {
  if (tiles() == nullptr) return;
  const int64_t m = 300, n = 300, k = 300;
  const Guarded<float> a = random_array<float>(m * k), b = random_array<float>(k * n);
  Guarded<double> want(m * n);
  reference::gemm(want.data(), a.data(), false, b.data(), false, static_cast<const float*>(nullptr), m, n, k);
  const auto squared_error = [&] {
    Guarded<float> c(m * n);
    ops::gemm<float>({c.data(), n, a.data(), k, false, b.data(), n, false, m, n, k});
    double sum = 0;
    for (int64_t i = 0; i < c.size(); ++i) sum += (c[i] - want[i]) * (c[i] - want[i]);
    return sum;
  };
  REQUIRE(ops::split_pays<float>(m, n, k, false));
  const double of_tiles = squared_error();
  const VectorBlocks blocks;
  CHECK(of_tiles < squared_error());
}

TEST_CASE("NaN, infinities and the largest numbers pass through tiles as through vectors, and touch no other block") {
  if (tiles() == nullptr) return;
  const int64_t m = 260, n = 250, k = 1100;
  const float largest = std::numeric_limits<float>::max();
  REQUIRE(ops::split_pays<float>(m, n, k, false));
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity, largest}) {
    Guarded<float> a = random_array<float>(m * k), b = random_array<float>(k * n), clean(m * n), vectors(m * n);
    const auto multiply = [&](Guarded<float>& c) {
      ops::gemm<float>({c.data(), n, a.data(), k, false, b.data(), n, false, m, n, k});
    };
    multiply(clean);
    a[40 * k + 700] = value;
    for (int64_t j = 0; j < n; ++j) b[700 * n + j] = 0.5f;
    {
      const VectorBlocks blocks;
      multiply(vectors);
    }
    for (const int threads : {1, 2, 3}) {
      const Threads scope(threads);
      Guarded<float> c(m * n);
      multiply(c);
      for (int64_t j = 0; j < n; ++j) {
        const float got = c[40 * n + j], want = vectors[40 * n + j];
        CHECK((got == want || (std::isnan(got) && std::isnan(want))));
        CHECK(std::isfinite(c[39 * n + j]));
      }
    }
  }
}
