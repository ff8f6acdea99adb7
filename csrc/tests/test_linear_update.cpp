#include <atomic>
#include <cstring>

#include "harness.h"
#include "ops/gemm.h"
#include "ops/linear_update.h"
#include "ops/optim.h"
#include "runtime/threads.h"

using namespace pynn;
using namespace pynn::test;

namespace {

struct Size {
  int64_t rows, in, out;
  bool zeros = false;  // most of x
};

// Parts of vectors, tiles and panels; rows of x that are packed; columns in groups, and cut over the threads; and what
// is left to linear_backward: no rows, no columns, several passes over the rows, mostly zeros.
const std::vector<Size> kLayers = {{1, 1, 1},
                                   {5, 7, 3},
                                   {32, 130, 61},
                                   {33, 1024, 40},
                                   {9, 4200, 70},
                                   {70, 4500, 9},
                                   {128, 200, 64},
                                   {20, 5000, 130},
                                   {0, 12, 5},
                                   {4, 0, 6},
                                   {3, 6, 0},
                                   {1500, 20, 33},
                                   {70, 784, 130, true},
                                   {17, 33, 1024},
                                   // several tiles of gradients behind a ReLU, whose zeros are left out
                                   {32, 700, 61},
                                   {64, 300, 500},
                                   {33, 130, 1000}};
const std::vector<ops::Activation> kActivations = {ops::Activation::none, ops::Activation::relu, ops::Activation::tanh};

template <class T>
void check_same(const Guarded<T>& got, const Guarded<T>& want, const Size& size) {
  const bool same = std::memcmp(got.data(), want.data(), static_cast<size_t>(want.size()) * sizeof(T)) == 0;
  CHECK_MESSAGE(same, "rows " << size.rows << ", in " << size.in << ", out " << size.out << ", " << num_threads()
                              << " threads (" << isa_name(active_isa()) << ", seed " << seed() << ")");
}

}  // namespace

TEST_CASE_TEMPLATE("a linear layer's gradient in parts has the bits of linear_backward", T, float, double) {
  const int before = num_threads();
  for (const Size& size : kLayers) {
    Guarded<T> x = random_array<T>(size.rows * size.in);
    for (int64_t i = 0; size.zeros && i < x.size(); ++i) x[i] = i % 9 == 0 ? x[i] : T(0);
    const Guarded<T> dy = random_array<T>(size.rows * size.out), y = random_array<T>(size.rows * size.out);
    const int64_t weights = size.in * size.out;
    for (const ops::Activation activation : kActivations) {
      Guarded<T> dweight(weights), dbias(size.out);
      ops::linear_backward<T>(nullptr, dweight.data(), dbias.data(), dy.data(), y.data(), x.data(), nullptr, activation,
                              size.rows, size.in, size.out);
      for (const int threads : {1, 2, 3}) {
        set_num_threads(threads);
        for (const bool is_kept : {false, true}) {
          Guarded<T> used(weights), kept(weights), bias(size.out);
          std::atomic<int64_t> count{0};
          ops::for_gradient<T>({dy.data(), y.data(), x.data(), activation, size.rows, size.in, size.out,
                                is_kept ? kept.data() : nullptr, is_kept ? bias.data() : nullptr},
                               [&](int64_t begin, const T* values, int64_t n) {
                                 std::memcpy(used.data() + begin, values, static_cast<size_t>(n) * sizeof(T));
                                 count += n;
                               });
          CHECK(count == weights);
          check_same(used, dweight, size);
          if (!is_kept) continue;
          check_same(kept, dweight, size);
          check_same(bias, dbias, size);
        }
      }
    }
  }
  set_num_threads(before);
}

TEST_CASE_TEMPLATE("an update with a gradient in parts has the bits of one with its array", T, float, double) {
  const int64_t rows = 20, in = 5001, out = 37;  // rows of the weight end within vectors
  const Guarded<T> x = random_array<T>(rows * in), dy = random_array<T>(rows * out), y = random_array<T>(rows * out);
  const Size size{rows, in, out};
  for (const bool decoupled : {false, true}) {
    Guarded<T> weight[2] = {random_array<T>(in * out), Guarded<T>(in * out)},
               bias[2] = {random_array<T>(out), Guarded<T>(out)};
    Guarded<T> m[2] = {random_array<T>(in * out), Guarded<T>(in * out)},
               bias_m[2] = {random_array<T>(out), Guarded<T>(out)};
    Guarded<T> v[2] = {random_array<T>(in * out, 0, 1), Guarded<T>(in * out)};
    Guarded<T> bias_v[2] = {random_array<T>(out, 0, 1), Guarded<T>(out)};
    for (Guarded<T>* pair : {weight, bias, m, bias_m, v, bias_v}) {
      std::memcpy(pair[1].data(), pair[0].data(), static_cast<size_t>(pair[0].size()) * sizeof(T));
    }
    Guarded<T> dweight(in * out), dbias(out), dbias_in_parts(out);
    ops::linear_backward<T>(nullptr, dweight.data(), dbias.data(), dy.data(), y.data(), x.data(), nullptr,
                            ops::Activation::relu, rows, in, out);
    for (const bool in_parts : {false, true}) {
      const auto list = [&](Guarded<T>& of_weight, Guarded<T>& of_bias) {
        return ops::ArrayList<T>{{of_weight.data(), of_bias.data()}, {in * out, out}};
      };
      ops::Gradients<T> grads{list(dweight, in_parts ? dbias_in_parts : dbias)};
      if (in_parts) {
        grads.arrays.data[0] = nullptr;
        grads.linear.push_back(
            {0, {dy.data(), y.data(), x.data(), ops::Activation::relu, rows, in, out, nullptr, dbias_in_parts.data()}});
      }
      ops::adam(list(weight[in_parts], bias[in_parts]), grads, list(m[in_parts], bias_m[in_parts]),
                list(v[in_parts], bias_v[in_parts]), {3, 0.1, 0.9, 0.99, 1e-8, 0.05, decoupled});
    }
    for (const Guarded<T>* pair : {weight, bias, m, bias_m, v, bias_v}) check_same(pair[1], pair[0], size);
  }
}
