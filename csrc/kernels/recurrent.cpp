#include "kernels/recurrent.h"

#include "kernels/table.h"
#include "simd/math.h"

namespace pynn::PYNN_ISA {
namespace {

// The slope of tanh where it is y. Near 1, 1 - y * y would lose what the product rounds away.
template <class T>
PYNN_INLINE Vec<T> one_minus_square(Vec<T> y) {
  const Vec<T> one(T(1));
  return (one - y) * (one + y);
}

// Calls body(place in rows of h, place in rows of gates, place in rows of z, lanes).
template <class T, class Body>
PYNN_INLINE void for_block(RecurrentBlock block, int64_t gates, Body body) {
  for (int64_t r = 0; r < block.rows; ++r) {
    const int64_t h = r * block.hidden, g = r * gates * block.hidden, z = r * block.ldz;
    for_lanes<T>(block.units, [&](int64_t j, auto lanes) { body(h + j, g + j, z + j, lanes); });
  }
}

template <class T, class Lanes>
PYNN_INLINE Vec<T> gradient_of_h(const T* dh, const T* dy, int64_t at, Lanes lanes) {
  const Vec<T> d = load(dh + at, lanes);
  return dy != nullptr ? d + load(dy + at, lanes) : d;
}

template <class T>
void rnn(T* h, const T* z, bool relu, RecurrentBlock block) {
  for_block<T>(block, 1, [&](int64_t at, int64_t, int64_t sum, auto lanes) {
    const Vec<T> x = load(z + sum, lanes);
    store(h + at, relu ? select(x < Vec<T>::zero(), Vec<T>::zero(), x) : tanh(x), lanes);
  });
}
template <class T>
void rnn_backward(T* dz, const T* dh, const T* dy, const T* h, bool relu, RecurrentBlock block) {
  for_block<T>(block, 1, [&](int64_t at, int64_t, int64_t sum, auto lanes) {
    const Vec<T> d = gradient_of_h(dh, dy, at, lanes), y = load(h + at, lanes);
    store(dz + sum, relu ? select(y <= Vec<T>::zero(), Vec<T>::zero(), d) : d * one_minus_square(y), lanes);
  });
}

template <class T>
void lstm(T* h, T* c, T* gates, const T* z, const T* c_prev, RecurrentBlock block) {
  const int64_t hidden = block.hidden;
  for_block<T>(block, 4, [&](int64_t at, int64_t gate, int64_t sum, auto lanes) {
    const T* x = z + sum;
    const Vec<T> i = sigmoid(load(x, lanes)), f = sigmoid(load(x + hidden, lanes));
    const Vec<T> g = gate_tanh(load(x + 2 * hidden, lanes)), o = sigmoid(load(x + 3 * hidden, lanes));
    const Vec<T> cell = fma(f, load(c_prev + at, lanes), i * g);
    T* a = gates + gate;
    store(a, i, lanes);
    store(a + hidden, f, lanes);
    store(a + 2 * hidden, g, lanes);
    store(a + 3 * hidden, o, lanes);
    store(c + at, cell, lanes);
    store(h + at, o * gate_tanh(cell), lanes);
  });
}
template <class T>
void lstm_backward(T* dz, T* dc, const T* dh, const T* dy, const T* gates, const T* c, const T* c_prev,
                   RecurrentBlock block) {
  const int64_t hidden = block.hidden;
  const Vec<T> one(T(1));
  for_block<T>(block, 4, [&](int64_t at, int64_t gate, int64_t sum, auto lanes) {
    const T* a = gates + gate;
    // A row further on. What the forward has left is in the L3 cache or beyond, and the prefetchers lose their way
    // at the ends of rows.
    for (int64_t k = 4; k < 8; ++k) __builtin_prefetch(a + k * hidden);
    __builtin_prefetch(c + at + hidden);
    __builtin_prefetch(c_prev + at + hidden);
    if (dy != nullptr) __builtin_prefetch(dy + at + hidden);
    const Vec<T> i = load(a, lanes), f = load(a + hidden, lanes);
    const Vec<T> g = load(a + 2 * hidden, lanes), o = load(a + 3 * hidden, lanes);
    const Vec<T> d = gradient_of_h(dh, dy, at, lanes), t = gate_tanh(load(c + at, lanes));
    const Vec<T> dcell = fma(d * o, one_minus_square(t), load(dc + at, lanes));
    T* dx = dz + sum;
    store(dx, dcell * g * i * (one - i), lanes);
    store(dx + hidden, dcell * load(c_prev + at, lanes) * f * (one - f), lanes);
    store(dx + 2 * hidden, dcell * i * one_minus_square(g), lanes);
    store(dx + 3 * hidden, d * t * o * (one - o), lanes);
    store(dc + at, dcell * f, lanes);
  });
}

template <class T>
void gru(T* h, T* gates, const T* z, const T* hn, const T* h_prev, RecurrentBlock block) {
  const int64_t hidden = block.hidden;
  for_block<T>(block, 3, [&](int64_t at, int64_t gate, int64_t sum, auto lanes) {
    const T* x = z + sum;
    const Vec<T> r = sigmoid(load(x, lanes)), update = sigmoid(load(x + hidden, lanes));
    const Vec<T> n = gate_tanh(fma(r, load(hn + at, lanes), load(x + 2 * hidden, lanes)));
    T* a = gates + gate;
    store(a, r, lanes);
    store(a + hidden, update, lanes);
    store(a + 2 * hidden, n, lanes);
    store(h + at, fma(update, load(h_prev + at, lanes) - n, n), lanes);
  });
}
template <class T>
void gru_backward(T* dz, T* dhn, T* dh, const T* dy, const T* gates, const T* hn, const T* h_prev,
                  RecurrentBlock block) {
  const int64_t hidden = block.hidden;
  const Vec<T> one(T(1));
  for_block<T>(block, 3, [&](int64_t at, int64_t gate, int64_t sum, auto lanes) {
    const T* a = gates + gate;
    const Vec<T> r = load(a, lanes), z = load(a + hidden, lanes), n = load(a + 2 * hidden, lanes);
    const Vec<T> d = gradient_of_h(dh, dy, at, lanes);
    const Vec<T> dn = d * (one - z) * one_minus_square(n);
    T* dx = dz + sum;
    store(dx, dn * load(hn + at, lanes) * r * (one - r), lanes);
    store(dx + hidden, d * (load(h_prev + at, lanes) - n) * z * (one - z), lanes);
    store(dx + 2 * hidden, dn, lanes);
    store(dhn + sum, dn * r, lanes);
    store(dh + at, d * z, lanes);
  });
}

template <class T>
RecurrentKernels<T> table() {
  return {rnn<T>, rnn_backward<T>, lstm<T>, lstm_backward<T>, gru<T>, gru_backward<T>};
}

}  // namespace

void register_recurrent(KernelSet& set) {
  set.f32.recurrent = table<float>();
  set.f64.recurrent = table<double>();
}

}  // namespace pynn::PYNN_ISA
