#include "ops/gemm.h"

#include <algorithm>

#include "runtime/arena.h"
#include "runtime/counters.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kSerialWork = int64_t(1) << 19;  // multiply-adds below which a second thread costs more than it gives
constexpr int64_t kDepth = 512;                    // k of one pass over a packed B: its panel stays in the first cache
constexpr int64_t kDepthUnsplit = 1024;            // a k up to this is done in one pass, C is then written once
constexpr int64_t kRows = 252;                     // rows of A that stay in the second cache beside a panel of B
constexpr int64_t kDotRows = 3;                    // packing B does not pay for this few rows
constexpr int64_t kPageFloats = 1024;              // row strides of 4 KiB fall on one set of the first cache
constexpr int64_t kUnpackedBytes = int64_t(1) << 20;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
void activate(Activation activation, T* y, int64_t n) {
  const ElementwiseKernels<T>& elementwise = kernels<T>().elementwise;
  switch (activation) {
    case Activation::none:
    case Activation::relu: break;  // in the epilogue of the product
    case Activation::leaky_relu: elementwise.leaky_relu(y, y, T(kLeakySlope), n); break;
    case Activation::sigmoid: elementwise.sigmoid(y, y, n); break;
    case Activation::tanh: elementwise.tanh(y, y, n); break;
  }
}

template <class T>
void activation_backward(Activation activation, T* dz, const T* dy, const T* y, int64_t n) {
  const ElementwiseKernels<T>& elementwise = kernels<T>().elementwise;
  switch (activation) {
    case Activation::none: break;
    case Activation::relu: elementwise.relu_backward(dz, dy, y, n); break;
    case Activation::leaky_relu:
      elementwise.leaky_relu_backward(dz, dy, y, T(kLeakySlope), n);
      break;  // sign(y) = sign(x)
    case Activation::sigmoid: elementwise.sigmoid_backward(dz, dy, y, n); break;
    case Activation::tanh: elementwise.tanh_backward(dz, dy, y, n); break;
  }
}

// How C is cut for the threads: pm x pn parts of whole register blocks, the cut that makes the largest part and the
// traffic of its operands smallest. Only the order of work depends on it, never a sum.
struct Grid {
  int64_t rows, cols;  // of a part
};

Grid choose_grid(int64_t m, int64_t n, int64_t mr, int64_t nr, int64_t threads) {
  Grid best{m, n};
  int64_t best_cost = INT64_MAX;
  for (int64_t pm = 1; pm <= threads; ++pm) {
    if (threads % pm != 0) continue;
    const int64_t pn = threads / pm;
    const Grid grid{ceil_div(ceil_div(m, mr), pm) * mr, ceil_div(ceil_div(n, nr), pn) * nr};
    const int64_t rows = std::min(grid.rows, m), cols = std::min(grid.cols, n);
    const int64_t cost = rows * cols + 8 * (rows + cols);
    if (cost < best_cost) {
      best_cost = cost;
      best = grid;
    }
  }
  best.rows = std::min(best.rows, kRows);
  return best;
}

template <class T>
void scale_or_bias(const GemmArguments<T>& g) {  // k == 0: the product is 0
  for (int64_t i = 0; i < g.m; ++i) {
    T* row = g.c + i * g.ldc;
    if (!g.accumulate) {
      for (int64_t j = 0; j < g.n; ++j) row[j] = g.bias != nullptr ? g.bias[j] : T(0);
    }
    if (g.activation == Activation::relu) kernels<T>().elementwise.relu(row, row, g.n);
    activate(g.activation, row, g.n);
  }
}

}  // namespace

template <class T>
void gemm(const GemmArguments<T>& g) {
  static Counter dot_path("gemm.rows_dot"), packed_path("gemm.packed"), plain_path("gemm.unpacked");
  const GemmKernels<T>& kernel = kernels<T>().gemm;
  if (g.m == 0 || g.n == 0) return;
  if (g.k == 0) return scale_or_bias(g);
  const int64_t work = g.m * g.n * g.k;
  const int64_t threads = work < kSerialWork ? 1 : num_threads();
  const bool relu = g.activation == Activation::relu;

  if (g.m <= kDotRows && g.b_transposed && !g.a_transposed) {
    dot_path.add();
    const int64_t cols = ceil_div(ceil_div(g.n, threads), 8) * 8;
    parallel_for(ceil_div(g.n, cols), [&](int64_t part) {
      const int64_t j = part * cols, n = std::min(cols, g.n - j);
      const GemmEpilogue<T> epilogue{g.bias != nullptr ? g.bias + j : nullptr, g.accumulate, relu};
      kernel.rows_dot(g.c + j, g.ldc, g.a, g.lda, g.b + j * g.ldb, g.ldb, epilogue, g.m, n, g.k);
      for (int64_t i = 0; i < g.m; ++i) activate(g.activation, g.c + i * g.ldc + j, n);
    });
    return;
  }

  const int64_t nr = kernel.nr, panels = ceil_div(g.n, nr);
  const bool pack_b = g.b_transposed || (g.m > kernel.mr &&
                                         (g.ldb % kPageFloats == 0 || g.k * g.n * int64_t(sizeof(T)) > kUnpackedBytes));
  const bool pack_a = !g.a_transposed && g.n >= 4 * nr && (g.lda % kPageFloats == 0 || g.k > kDepthUnsplit);
  const int64_t depth = g.k <= kDepthUnsplit ? g.k : ceil_div(g.k, ceil_div(g.k, kDepth));
  const Grid grid = choose_grid(g.m, g.n, kernel.mr, nr, threads);
  const int64_t row_parts = ceil_div(g.m, grid.rows), col_parts = ceil_div(g.n, grid.cols);
  (pack_b ? packed_path : plain_path).add();
  T* packed_b = pack_b ? arena::scratch<T>(arena::Slot::pack_b, panels * nr * depth) : nullptr;

  for (int64_t p = 0; p < g.k; p += depth) {
    const int64_t k = std::min(depth, g.k - p);
    const bool first = p == 0, last = p + k == g.k;
    if (pack_b) {
      const int64_t panels_per_task = threads == 1 ? panels : ceil_div(panels, threads);
      parallel_for(ceil_div(panels, panels_per_task), [&](int64_t task) {
        for (int64_t q = task * panels_per_task; q < std::min(panels, (task + 1) * panels_per_task); ++q) {
          const T* b = g.b + (g.b_transposed ? q * nr * g.ldb + p : p * g.ldb + q * nr);
          kernel.pack_panel(packed_b + q * nr * k, b, g.ldb, g.b_transposed, k, std::min(nr, g.n - q * nr));
        }
      });
    }
    parallel_for(row_parts * col_parts, [&](int64_t part) {
      // Column-major order of parts: a thread's neighbouring tasks share their panels of B.
      const int64_t i = part % row_parts * grid.rows, j = part / row_parts * grid.cols;
      const int64_t m = std::min(grid.rows, g.m - i), n = std::min(grid.cols, g.n - j);
      GemmPanels<T> b{g.b + p * g.ldb + j, g.ldb, nr};
      if (pack_b) b = {packed_b + j / nr * nr * k, nr, nr * k};
      const T* a = g.a + (g.a_transposed ? p * g.lda + i : i * g.lda + p);
      int64_t lda = g.lda;
      if (pack_a) {
        T* packed_a = arena::scratch<T>(arena::Slot::pack_a, m * k);
        kernel.pack_rows(packed_a, a, g.lda, m, k);
        a = packed_a;
        lda = m;
      }
      GemmEpilogue<T> epilogue;
      epilogue.bias = first && g.bias != nullptr && !g.accumulate ? g.bias + j : nullptr;
      epilogue.accumulate = g.accumulate || !first;
      epilogue.relu = relu && last;
      kernel.block(g.c + i * g.ldc + j, g.ldc, a, lda, g.a_transposed || pack_a, b, epilogue, m, n, k);
      if (last && g.activation != Activation::none && !relu) {
        for (int64_t r = 0; r < m; ++r) activate(g.activation, g.c + (i + r) * g.ldc + j, n);
      }
    });
  }
}

template <class T>
void batched_gemm(const GemmArguments<T>& first, int64_t batch, const int64_t* a_offsets, const int64_t* b_offsets,
                  int64_t c_step) {
  const auto one = [&](int64_t i) {
    GemmArguments<T> g = first;
    g.a += a_offsets[i];
    g.b += b_offsets[i];
    g.c += i * c_step;
    gemm(g);
  };
  // Inside parallel_for a product runs on its one thread; few large products are better split themselves.
  if (batch >= num_threads() && first.m * first.n * first.k * batch >= kSerialWork) {
    parallel_for(batch, one);
  } else {
    for (int64_t i = 0; i < batch; ++i) one(i);
  }
}

template <class T>
void linear(T* y, const T* x, const T* weight, const T* bias, Activation activation, int64_t rows, int64_t in,
            int64_t out) {
  gemm<T>({y, out, x, in, false, weight, in, true, rows, out, in, bias, activation});
}

template <class T>
void linear_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* y, const T* x, const T* weight,
                     Activation activation, int64_t rows, int64_t in, int64_t out) {
  const arena::Buffer<T> dz_buffer(activation == Activation::none ? 0 : rows * out);
  const T* dz = dy;
  if (activation != Activation::none) {
    parallel_ranges(rows * out, 16384, [&](int64_t begin, int64_t end) {
      activation_backward(activation, dz_buffer.get() + begin, dy + begin, y + begin, end - begin);
    });
    dz = dz_buffer.get();
  }
  if (dx != nullptr) gemm<T>({dx, in, dz, out, false, weight, in, false, rows, in, out});
  if (dweight != nullptr) gemm<T>({dweight, in, dz, out, true, x, in, false, out, in, rows});
  if (dbias != nullptr) {
    const int64_t grain = rows * out < 65536 ? out : 64;
    parallel_ranges(out, grain, [&](int64_t begin, int64_t end) {
      kernels<T>().gemm.column_sums(dbias + begin, dz + begin, out, rows, end - begin);
    });
  }
}

#define PYNN_INSTANTIATE(T)                                                                                       \
  template void gemm(const GemmArguments<T>&);                                                                    \
  template void batched_gemm(const GemmArguments<T>&, int64_t, const int64_t*, const int64_t*, int64_t);          \
  template void linear(T*, const T*, const T*, const T*, Activation, int64_t, int64_t, int64_t);                  \
  template void linear_backward(T*, T*, T*, const T*, const T*, const T*, const T*, Activation, int64_t, int64_t, \
                                int64_t);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
