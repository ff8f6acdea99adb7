#include "ops/recurrent_steps.h"

namespace pynn::ops {

template <class T>
void lstm(T* y, T* h_n, T* c_n, T* gates, T* cells, const RecurrentInputs<T>& in, const T* c0, RecurrentSizes s) {
  const int64_t hidden = s.hidden, state = s.batch * hidden, width = 4 * hidden;
  recurrent_input(gates, in, width, width, s);
  const RecurrentWeights<T> weights(in.weight_hh, 4, hidden, s.steps * s.batch, false);
  const arena::Buffer<T> zeros(c0 != nullptr ? 0 : state);
  if (c0 == nullptr) copy_state<T>(zeros.get(), nullptr, state);
  const T* c_start = c0 != nullptr ? c0 : zeros.get();
  run_recurrent<T>(s, 4, weights.blocks(), [&](int64_t step, RecurrentRange rows, RecurrentRange blocks) {
    const RecurrentTime t = recurrent_time(step, s);
    const int64_t first = rows.begin * hidden;
    const T* h_prev = t.first ? in.h0 : y + t.before * state;
    const T* c_prev = t.first ? c_start : cells + t.before * state;
    RecurrentRows<T> h{};
    if (h_prev != nullptr) h = weights.rows(h_prev + first, hidden, rows.size(), hidden);
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      const int64_t j = block * weights.unit(), units = std::min(weights.unit(), hidden - j);
      const int64_t at = t.now * state + first + j;
      T* z = gates + (t.now * s.batch + rows.begin) * width + j;
      for (int64_t gate = 0; gate < 4 && h_prev != nullptr; ++gate) {
        weights.forward(z + gate * hidden, width, h, gate, block, nullptr, true, rows.size());
      }
      kernels<T>().recurrent.lstm(y + at, cells + at, z, c_prev + first + j, {hidden, rows.size(), units});
    }
  });
  const int64_t last = recurrent_time(s.steps - 1, s).now * state;
  copy_state(h_n, s.steps > 0 ? y + last : in.h0, state);
  copy_state(c_n, s.steps > 0 ? cells + last : c0, state);
}

template <class T>
void lstm_backward(const RecurrentGradients<T>& out, T* dc0, const T* dy, const T* dh_n, const T* dc_n, const T* gates,
                   const T* cells, const T* y, const RecurrentInputs<T>& in, const T* c0, RecurrentSizes s) {
  const int64_t hidden = s.hidden, state = s.batch * hidden, width = 4 * hidden;
  const RecurrentWeights<T> weights(in.weight_hh, 4, hidden, s.steps * s.batch, true);
  const arena::Buffer<T> dz_buffer(s.steps * s.batch * width), states(3 * state);
  T* dz = dz_buffer.get();
  T* dh = out.dh0 != nullptr ? out.dh0 : states.get();
  T* dc = dc0 != nullptr ? dc0 : states.get() + state;
  T* zeros = states.get() + 2 * state;
  copy_state(dh, dh_n, state);
  copy_state(dc, dc_n, state);
  if (c0 == nullptr) copy_state<T>(zeros, nullptr, state);
  const T* c_start = c0 != nullptr ? c0 : zeros;
  // One step more for the gradient of h0.
  RecurrentSizes walk = s;
  walk.steps += out.dh0 != nullptr;
  run_recurrent<T>(walk, 4, weights.blocks(), [&](int64_t back, RecurrentRange rows, RecurrentRange blocks) {
    const int64_t step = s.steps - 1 - back, first = rows.begin * hidden;
    RecurrentRows<T> later{};
    if (back > 0) {
      const int64_t at = recurrent_time(step + 1, s).now * s.batch + rows.begin;
      later = weights.rows(dz + at * width, width, rows.size(), width);
    }
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      const int64_t j = block * weights.unit(), units = std::min(weights.unit(), hidden - j), here = first + j;
      if (back > 0) weights.backward(dh + here, hidden, later, 0, 4, block, false, rows.size());
      if (step < 0) continue;
      const RecurrentTime t = recurrent_time(step, s);
      const T* c_prev = t.first ? c_start : cells + t.before * state;
      const int64_t at = t.now * state + here, gate = (t.now * s.batch + rows.begin) * width + j;
      kernels<T>().recurrent.lstm_backward(dz + gate, dc + here, dh + here, dy != nullptr ? dy + at : nullptr,
                                           gates + gate, cells + at, c_prev + here, {hidden, rows.size(), units});
    }
  });
  recurrent_input_backward(out, dz, in, width, s);
  if (out.dweight_hh != nullptr) recurrent_dweight_hh(out.dweight_hh, dz, width, width, y, in.h0, s);
}

#define PYNN_INSTANTIATE(T)                                                                                       \
  template void lstm(T*, T*, T*, T*, T*, const RecurrentInputs<T>&, const T*, RecurrentSizes);                    \
  template void lstm_backward(const RecurrentGradients<T>&, T*, const T*, const T*, const T*, const T*, const T*, \
                              const T*, const RecurrentInputs<T>&, const T*, RecurrentSizes);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
