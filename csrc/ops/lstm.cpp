#include "ops/recurrent_dweight.h"

namespace pynn::ops {

template <class T>
void lstm(T* y, T* h_n, T* c_n, T* gates, T* cells, const RecurrentInputs<T>& in, const T* c0, RecurrentSizes s) {
  const int64_t hidden = s.hidden, state = s.batch * hidden, width = 4 * hidden;
  const RecurrentSums<T> sums(gates, in, 4, width, s);
  const RecurrentWeights<T> weights(in.weight_hh, 4, hidden, s, 0);
  const arena::Buffer<T> zeros(c0 != nullptr ? 0 : state);
  if (c0 == nullptr) copy_state<T>(zeros.get(), nullptr, state);
  const T* c_start = c0 != nullptr ? c0 : zeros.get();
  run_recurrent(recurrent_cut<T>(s, 4), s, weights.blocks(), weights.in_tiles(),
                [&](int64_t step, RecurrentRange rows, RecurrentRange blocks) {
                  const RecurrentTime t = recurrent_time(step, s);
                  const RecurrentRange units = weights.columns(blocks);
                  const int64_t first = rows.begin * hidden, row = t.now * s.batch + rows.begin;
                  const T* h_prev = t.first ? in.h0 : y + t.before * state;
                  const T* c_prev = t.first ? c_start : cells + t.before * state;
                  T* z = sums.at(t.now, rows, units);
                  const RecurrentRows<T> x = sums.input(t.now, rows);
                  RecurrentRows<T> h{};
                  if (h_prev != nullptr)
                    h = weights.rows(h_prev + first, hidden, rows.size(), hidden, arena::Slot::split_a);
                  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
                    for (int64_t gate = 0; gate < 4; ++gate) {
                      sums.add_input(z, x, gate, block, rows.size());
                      if (h_prev == nullptr) continue;
                      weights.forward(z + gate * hidden + block * weights.unit(), sums.ld(), h, gate, block, nullptr,
                                      true, rows.size());
                    }
                  }
                  const int64_t at = row * hidden + units.begin;
                  kernels<T>().recurrent.lstm(y + at, cells + at, gates + row * width + units.begin, z + units.begin,
                                              c_prev + first + units.begin,
                                              {hidden, sums.ld(), rows.size(), units.size()});
                });
  const int64_t last = recurrent_time(s.steps - 1, s).now * state;
  copy_state(h_n, s.steps > 0 ? y + last : in.h0, state);
  copy_state(c_n, s.steps > 0 ? cells + last : c0, state);
}

template <class T>
void lstm_backward(const RecurrentGradients<T>& out, T* dc0, const T* dy, const T* dh_n, const T* dc_n, const T* gates,
                   const T* cells, const T* y, const RecurrentInputs<T>& in, const T* c0, RecurrentSizes s) {
  const int64_t hidden = s.hidden, state = s.batch * hidden, width = 4 * hidden;
  const RecurrentWeights<T> weights(in.weight_hh, 4, hidden, s, 4);
  const RecurrentDz<T> dz(width, s, weights.in_tiles());
  const arena::Buffer<T> states(3 * state);
  T* dh = out.dh0 != nullptr ? out.dh0 : states.get();
  T* dc = dc0 != nullptr ? dc0 : states.get() + state;
  T* zeros = states.get() + 2 * state;
  copy_state(dh, dh_n, state);
  copy_state(dc, dc_n, state);
  if (c0 == nullptr) copy_state<T>(zeros, nullptr, state);
  const T* c_start = c0 != nullptr ? c0 : zeros;
  const RecurrentCut cut = recurrent_cut<T>(s, 4);
  const RecurrentDx<T> dx(out.dx, in, 4, s, cut);
  const RecurrentDweights<T> dweights(out, in, y, 4, 0, s);
  const auto walk = [&](int64_t back, RecurrentRange rows, RecurrentRange blocks) {
    const int64_t step = s.steps - 1 - back, first = rows.begin * hidden;
    if (back > 0) {
      const RecurrentRows<T> later =
          weights.rows(dz.at(back - 1, rows.begin), dz.ld(), rows.size(), 4 * hidden, arena::Slot::split_a);
      if (step >= 0 || out.dh0 != nullptr) {
        for (int64_t block = blocks.begin; block < blocks.end; ++block) {
          weights.backward(dh + first + block * weights.unit(), hidden, later, 0, 4, block, false, rows.size());
        }
      }
      dx.step(later, recurrent_time(step + 1, s).now, rows);
    }
    if (step < 0) return;
    const RecurrentTime t = recurrent_time(step, s);
    const RecurrentRange units = weights.columns(blocks);
    const T* c_prev = t.first ? c_start : cells + t.before * state;
    const int64_t row = t.now * s.batch + rows.begin, here = first + units.begin, at = row * hidden + units.begin;
    T* dz_now = dz.at(back, rows.begin);
    kernels<T>().recurrent.lstm_backward(dz_now + units.begin, dc + here, dh + here, dy != nullptr ? dy + at : nullptr,
                                         gates + row * width + units.begin, cells + at, c_prev + here,
                                         {hidden, dz.ld(), rows.size(), units.size()});
  };
  dz.run(cut, weights.blocks(), weights.in_tiles(), out.dh0 != nullptr || dx.by_steps(), walk,
         [&](const RecurrentChunk<T>& chunk) {
           dx.finish(chunk);
           dweights.add(chunk);
         });
  dweights.finish();
}

#define PYNN_INSTANTIATE(T)                                                                                       \
  template void lstm(T*, T*, T*, T*, T*, const RecurrentInputs<T>&, const T*, RecurrentSizes);                    \
  template void lstm_backward(const RecurrentGradients<T>&, T*, const T*, const T*, const T*, const T*, const T*, \
                              const T*, const RecurrentInputs<T>&, const T*, RecurrentSizes);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
