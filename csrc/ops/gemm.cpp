#include "ops/gemm.h"

#include <algorithm>

#include "ops/gemm_product.h"
#include "ops/sparse_linear.h"
#include "ops/work.h"
#include "runtime/arena.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

// Elements from which a weight in the caches of both threads makes the update after it slower than another cut of dx.
constexpr int64_t kLargeWeight = int64_t(1) << 16;

// Few rows take as long as three: they wait for the other operand's memory.
int64_t threads_for_product(int64_t m, int64_t n, int64_t k) {
  return threads_for(static_cast<double>(std::max<int64_t>(m, 3)) * static_cast<double>(n) * static_cast<double>(k));
}

// The tasks of both products, evenly mixed, so that every thread has its share of either.
template <class T>
void run_together(const Product<T>& a, const Product<T>& b, int64_t threads) {
  const int64_t tasks = a.tasks() + b.tasks();
  if (threads == 1) {  // two tasks, for which another thread is not worth waiting
    if (a.tasks() > 0) a.run(0);
    if (b.tasks() > 0) b.run(0);
    return;
  }
  parallel_for(tasks, [&](int64_t task) {
    const int64_t of_a = task * a.tasks() / tasks;
    if ((task + 1) * a.tasks() / tasks > of_a) {
      a.run(of_a);
    } else {
      b.run(task - of_a);
    }
  });
}

}  // namespace

template <class T>
void gemm(const GemmArguments<T>& g) {
  const Product<T> product(g, {}, threads_for_product(g.m, g.n, g.k));
  parallel_for(product.tasks(), [&](int64_t task) { product.run(task); });
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
  parallel_for_if(batch >= num_threads() && threads_for_product(first.m * batch, first.n, first.k) > 1, batch, one);
}

template <class T>
void linear(T* y, const T* x, const T* weight, const T* bias, Activation activation, int64_t rows, int64_t in,
            int64_t out, bool trained) {
  GemmArguments<T> g{y, out, x, in, false, weight, in, true, rows, out, in, bias, activation};
  // Dot products add in another order: a row's bits would depend on the rows of its batch that are looked at.
  if (!dot_pays(g) && zeros_pay(x, rows, in, out)) {
    sparse_linear(y, x, weight, bias, activation, rows, in, out);
    return;
  }
  g.b_is_weight = trained;
  gemm(g);
}

template <class T>
void linear_backward(T* dx, T* dweight, T* dbias, const T* dy, const T* y, const T* x, const T* weight,
                     Activation activation, int64_t rows, int64_t in, int64_t out) {
  if (activation == Activation::none) y = dy;  // it may be null, and is not read
  if (dweight != nullptr && dweight_zeros_pay(x, activation, dy, y, rows, in, out)) {
    sparse_dweight(dweight, dbias, dy, y, x, activation, rows, in, out);
    dweight = dbias = nullptr;
  }
  // dz is made by the tasks that read it. dbias is the sum of the rows that dweight's tasks read; without such tasks,
  // or without columns of dweight, it is summed on its own.
  const bool sums_with_dweight = dweight != nullptr && in > 0;
  const bool zeros = gradient_zeros_pay(activation, dy, y, rows, in, out);
  const int64_t threads = threads_for_product(rows * ((dx != nullptr) + (dweight != nullptr)), in, out);
  Product<T> dx_product, dweight_product;
  if (dx != nullptr) {
    GemmArguments<T> g{dx, in, dy, out, false, weight, in, false, rows, in, out};
    g.b_is_weight = in * out >= kLargeWeight;
    dx_product = Product<T>(g, {activation, y, nullptr, zeros}, threads);
  }
  if (dweight != nullptr) {
    dweight_product =
        Product<T>({dweight, in, dy, out, true, x, in, false, out, in, rows},
                   {activation, y, sums_with_dweight ? dbias : nullptr, zeros && rows == pass_depth(rows)}, threads);
  }
  run_together(dx_product, dweight_product, threads);
  if (dbias != nullptr && !sums_with_dweight) {
    const arena::Buffer<T> dz_buffer(activation == Activation::none ? 0 : rows * out);
    if (activation != Activation::none) activation_backward(activation, dz_buffer.get(), dy, y, rows * out);
    linear_dbias(dbias, activation == Activation::none ? dy : dz_buffer.get(), out, rows, out, false);
  }
}

template <class T>
void linear_dweight(T* dweight, T* dbias, const T* dz, int64_t ldz, const T* x, int64_t rows, int64_t in, int64_t out,
                    bool accumulate) {
  GemmArguments<T> g{dweight, in, dz, ldz, true, x, in, false, out, in, rows};
  g.accumulate = accumulate;
  GemmSource<T> source;
  if (in > 0) source.row_sums = dbias;
  const Product<T> product(g, source, threads_for_product(rows, in, out));
  parallel_for(product.tasks(), [&](int64_t task) { product.run(task); });
  if (dbias != nullptr && in == 0) linear_dbias(dbias, dz, ldz, rows, out, accumulate);
}

template <class T>
void linear_dbias(T* dbias, const T* dz, int64_t ldz, int64_t rows, int64_t out, bool accumulate) {
  const int64_t grain = rows * out < 65536 ? out : 64;
  parallel_ranges(out, grain, [&](int64_t begin, int64_t end) {
    const int64_t n = end - begin;
    T* sums = accumulate ? arena::scratch<T>(arena::Slot::columns, n) : dbias + begin;
    kernels<T>().gemm.column_sums(sums, dz + begin, ldz, rows, n);
    if (accumulate) kernels<T>().layout.accumulate(dbias + begin, sums, n);
  });
}

#define PYNN_INSTANTIATE(T)                                                                                       \
  template void gemm(const GemmArguments<T>&);                                                                    \
  template void batched_gemm(const GemmArguments<T>&, int64_t, const int64_t*, const int64_t*, int64_t);          \
  template void linear(T*, const T*, const T*, const T*, Activation, int64_t, int64_t, int64_t, bool);            \
  template void linear_backward(T*, T*, T*, const T*, const T*, const T*, const T*, Activation, int64_t, int64_t, \
                                int64_t);                                                                         \
  template void linear_dweight(T*, T*, const T*, int64_t, const T*, int64_t, int64_t, int64_t, bool);             \
  template void linear_dbias(T*, const T*, int64_t, int64_t, int64_t, bool);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
