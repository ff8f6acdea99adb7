#include "ops/recurrent_steps.h"

namespace pynn::ops {

template <class T>
void rnn(T* y, T* h_n, const RecurrentInputs<T>& in, bool relu, RecurrentSizes s) {
  const int64_t hidden = s.hidden, state = s.batch * hidden;
  recurrent_input(y, in, hidden, hidden, s);
  const RecurrentWeights<T> weights(in.weight_hh, 1, hidden, s.steps * s.batch, false);
  run_recurrent<T>(s, 1, weights.blocks(), [&](int64_t step, RecurrentRange rows, RecurrentRange blocks) {
    const RecurrentTime t = recurrent_time(step, s);
    const int64_t first = rows.begin * hidden;
    const T* h_prev = t.first ? in.h0 : y + t.before * state;
    RecurrentRows<T> h{};
    if (h_prev != nullptr) h = weights.rows(h_prev + first, hidden, rows.size(), hidden);
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      const int64_t j = block * weights.unit(), units = std::min(weights.unit(), hidden - j);
      T* z = y + t.now * state + first + j;
      if (h_prev != nullptr) weights.forward(z, hidden, h, 0, block, nullptr, true, rows.size());
      kernels<T>().recurrent.rnn(z, relu, {hidden, rows.size(), units});
    }
  });
  copy_state(h_n, s.steps > 0 ? y + recurrent_time(s.steps - 1, s).now * state : in.h0, state);
}

template <class T>
void rnn_backward(const RecurrentGradients<T>& out, const T* dy, const T* dh_n, const T* y,
                  const RecurrentInputs<T>& in, bool relu, RecurrentSizes s) {
  const int64_t hidden = s.hidden, state = s.batch * hidden;
  const RecurrentWeights<T> weights(in.weight_hh, 1, hidden, s.steps * s.batch, true);
  const arena::Buffer<T> dz_buffer(s.steps * state), dh_buffer(state);
  T* dz = dz_buffer.get();
  T* dh = out.dh0 != nullptr ? out.dh0 : dh_buffer.get();
  copy_state(dh, dh_n, state);
  // One step more for the gradient of h0.
  RecurrentSizes walk = s;
  walk.steps += out.dh0 != nullptr;
  run_recurrent<T>(walk, 1, weights.blocks(), [&](int64_t back, RecurrentRange rows, RecurrentRange blocks) {
    const int64_t step = s.steps - 1 - back, first = rows.begin * hidden;
    RecurrentRows<T> later{};
    if (back > 0) {
      later = weights.rows(dz + recurrent_time(step + 1, s).now * state + first, hidden, rows.size(), hidden);
    }
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      const int64_t j = block * weights.unit(), units = std::min(weights.unit(), hidden - j), here = first + j;
      if (back > 0) weights.backward(dh + here, hidden, later, 0, 1, block, false, rows.size());
      if (step < 0) continue;
      const int64_t at = recurrent_time(step, s).now * state + here;
      kernels<T>().recurrent.rnn_backward(dz + at, dh + here, dy != nullptr ? dy + at : nullptr, y + at, relu,
                                          {hidden, rows.size(), units});
    }
  });
  recurrent_input_backward(out, dz, in, hidden, s);
  if (out.dweight_hh != nullptr) recurrent_dweight_hh(out.dweight_hh, dz, hidden, hidden, y, in.h0, s);
}

#define PYNN_INSTANTIATE(T)                                                                                         \
  template void rnn(T*, T*, const RecurrentInputs<T>&, bool, RecurrentSizes);                                       \
  template void rnn_backward(const RecurrentGradients<T>&, const T*, const T*, const T*, const RecurrentInputs<T>&, \
                             bool, RecurrentSizes);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
