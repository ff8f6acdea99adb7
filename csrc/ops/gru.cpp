#include "ops/recurrent_steps.h"

namespace pynn::ops {

template <class T>
void gru(T* y, T* h_n, T* gates, T* hn, const RecurrentInputs<T>& in, RecurrentSizes s) {
  const int64_t hidden = s.hidden, state = s.batch * hidden, width = 3 * hidden;
  recurrent_input(gates, in, width, 2 * hidden, s);
  const RecurrentWeights<T> weights(in.weight_hh, 3, hidden, s.steps * s.batch, false);
  const arena::Buffer<T> zeros(in.h0 != nullptr ? 0 : state);
  if (in.h0 == nullptr) copy_state<T>(zeros.get(), nullptr, state);
  const T* h_start = in.h0 != nullptr ? in.h0 : zeros.get();
  run_recurrent<T>(s, 3, weights.blocks(), [&](int64_t step, RecurrentRange rows, RecurrentRange blocks) {
    const RecurrentTime t = recurrent_time(step, s);
    const int64_t first = rows.begin * hidden;
    const T* h_prev = t.first ? h_start : y + t.before * state;
    const RecurrentRows<T> h = weights.rows(h_prev + first, hidden, rows.size(), hidden);
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      const int64_t j = block * weights.unit(), units = std::min(weights.unit(), hidden - j);
      const int64_t at = t.now * state + first + j;
      T* z = gates + (t.now * s.batch + rows.begin) * width + j;
      const T* bias_n = in.bias_hh != nullptr ? in.bias_hh + 2 * hidden + j : nullptr;
      for (int64_t gate = 0; gate < 2; ++gate) {
        weights.forward(z + gate * hidden, width, h, gate, block, nullptr, true, rows.size());
      }
      weights.forward(hn + at, hidden, h, 2, block, bias_n, false, rows.size());
      kernels<T>().recurrent.gru(y + at, z, hn + at, h_prev + first + j, {hidden, rows.size(), units});
    }
  });
  copy_state(h_n, s.steps > 0 ? y + recurrent_time(s.steps - 1, s).now * state : in.h0, state);
}

template <class T>
void gru_backward(const RecurrentGradients<T>& out, const T* dy, const T* dh_n, const T* gates, const T* hn, const T* y,
                  const RecurrentInputs<T>& in, RecurrentSizes s) {
  const int64_t hidden = s.hidden, state = s.batch * hidden, width = 3 * hidden;
  const RecurrentWeights<T> weights(in.weight_hh, 3, hidden, s.steps * s.batch, true);
  // The gradients of n's sums differ by a factor r between the input's part, in dz, and the hidden state's, dhn.
  const arena::Buffer<T> dz_buffer(s.steps * s.batch * width), dhn_buffer(s.steps * state), states(2 * state);
  T *dz = dz_buffer.get(), *dhn = dhn_buffer.get();
  T* dh = out.dh0 != nullptr ? out.dh0 : states.get();
  T* zeros = states.get() + state;
  copy_state(dh, dh_n, state);
  if (in.h0 == nullptr) copy_state<T>(zeros, nullptr, state);
  const T* h_start = in.h0 != nullptr ? in.h0 : zeros;
  // One step more for the gradient of h0.
  RecurrentSizes walk = s;
  walk.steps += out.dh0 != nullptr;
  run_recurrent<T>(walk, 3, weights.blocks(), [&](int64_t back, RecurrentRange rows, RecurrentRange blocks) {
    const int64_t step = s.steps - 1 - back, first = rows.begin * hidden;
    if (back > 0) {
      const int64_t later = recurrent_time(step + 1, s).now * s.batch + rows.begin;
      const auto add = [&](const T* gradients, int64_t ld, int64_t gate, int64_t gates_of_them) {
        const int64_t k = gates_of_them * hidden;
        const RecurrentRows<T> part = weights.rows(gradients + later * ld, ld, rows.size(), k);
        for (int64_t block = blocks.begin; block < blocks.end; ++block) {
          weights.backward(dh + first + block * weights.unit(), hidden, part, gate, gates_of_them, block, true,
                           rows.size());
        }
      };
      add(dz, width, 0, 2);
      add(dhn, hidden, 2, 1);
    }
    if (step < 0) return;
    const RecurrentTime t = recurrent_time(step, s);
    const int64_t j = blocks.begin * weights.unit(), units = std::min(blocks.end * weights.unit(), hidden) - j;
    const int64_t here = first + j, at = t.now * state + here, gate = (t.now * s.batch + rows.begin) * width + j;
    const T* h_prev = t.first ? h_start : y + t.before * state;
    kernels<T>().recurrent.gru_backward(dz + gate, dhn + at, dh + here, dy != nullptr ? dy + at : nullptr, gates + gate,
                                        hn + at, h_prev + here, {hidden, rows.size(), units});
  });
  recurrent_input_backward(out, dz, in, width, s);
  if (out.dweight_hh != nullptr) {
    recurrent_dweight_hh(out.dweight_hh, dz, width, 2 * hidden, y, in.h0, s);
    recurrent_dweight_hh(out.dweight_hh + 2 * hidden * hidden, dhn, hidden, hidden, y, in.h0, s);
  }
  if (out.dbias_hh != nullptr) {
    copy_state(out.dbias_hh, out.dbias_ih, 2 * hidden);
    linear_backward<T>(nullptr, nullptr, out.dbias_hh + 2 * hidden, dhn, nullptr, nullptr, nullptr, Activation::none,
                       s.steps * s.batch, hidden, hidden);
  }
}

#define PYNN_INSTANTIATE(T)                                                                                  \
  template void gru(T*, T*, T*, T*, const RecurrentInputs<T>&, RecurrentSizes);                              \
  template void gru_backward(const RecurrentGradients<T>&, const T*, const T*, const T*, const T*, const T*, \
                             const RecurrentInputs<T>&, RecurrentSizes);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
