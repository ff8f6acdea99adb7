#include "ops/recurrent_dweight.h"

namespace pynn::ops {

template <class T>
void rnn(T* y, T* h_n, const RecurrentInputs<T>& in, bool relu, RecurrentSizes s) {
  const int64_t hidden = s.hidden, state = s.batch * hidden;
  const RecurrentSums<T> sums(y, in, 1, hidden, s);
  const RecurrentWeights<T> weights(in.weight_hh, 1, hidden, s, 0);
  run_recurrent(recurrent_cut<T>(s, 1), s, weights.blocks(), weights.in_tiles(),
                [&](int64_t step, RecurrentRange rows, RecurrentRange blocks) {
                  const RecurrentTime t = recurrent_time(step, s);
                  const RecurrentRange units = weights.columns(blocks);
                  const int64_t first = rows.begin * hidden, at = t.now * state + first + units.begin;
                  T* z = sums.at(t.now, rows, units);
                  const RecurrentRows<T> x = sums.input(t.now, rows);
                  const T* h_prev = t.first ? in.h0 : y + t.before * state;
                  RecurrentRows<T> h{};
                  if (h_prev != nullptr)
                    h = weights.rows(h_prev + first, hidden, rows.size(), hidden, arena::Slot::split_a);
                  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
                    sums.add_input(z, x, 0, block, rows.size());
                    if (h_prev == nullptr) continue;
                    weights.forward(z + block * weights.unit(), sums.ld(), h, 0, block, nullptr, true, rows.size());
                  }
                  kernels<T>().recurrent.rnn(y + at, z + units.begin, relu,
                                             {hidden, sums.ld(), rows.size(), units.size()});
                });
  copy_state(h_n, s.steps > 0 ? y + recurrent_time(s.steps - 1, s).now * state : in.h0, state);
}

template <class T>
void rnn_backward(const RecurrentGradients<T>& out, const T* dy, const T* dh_n, const T* y,
                  const RecurrentInputs<T>& in, bool relu, RecurrentSizes s) {
  const int64_t hidden = s.hidden, state = s.batch * hidden;
  const RecurrentWeights<T> weights(in.weight_hh, 1, hidden, s, 1);
  const RecurrentDz<T> dz(hidden, s, weights.in_tiles());
  const arena::Buffer<T> dh_buffer(state);
  T* dh = out.dh0 != nullptr ? out.dh0 : dh_buffer.get();
  copy_state(dh, dh_n, state);
  const RecurrentCut cut = recurrent_cut<T>(s, 1);
  const RecurrentDx<T> dx(out.dx, in, 1, s, cut);
  const RecurrentDweights<T> dweights(out, in, y, 1, 0, s);
  const auto walk = [&](int64_t back, RecurrentRange rows, RecurrentRange blocks) {
    const int64_t step = s.steps - 1 - back, first = rows.begin * hidden;
    if (back > 0) {
      const RecurrentRows<T> later =
          weights.rows(dz.at(back - 1, rows.begin), dz.ld(), rows.size(), hidden, arena::Slot::split_a);
      if (step >= 0 || out.dh0 != nullptr) {
        for (int64_t block = blocks.begin; block < blocks.end; ++block) {
          weights.backward(dh + first + block * weights.unit(), hidden, later, 0, 1, block, false, rows.size());
        }
      }
      dx.step(later, recurrent_time(step + 1, s).now, rows);
    }
    if (step < 0) return;
    const RecurrentRange units = weights.columns(blocks);
    const int64_t now = recurrent_time(step, s).now, here = first + units.begin, at = now * state + here;
    T* dz_now = dz.at(back, rows.begin);
    kernels<T>().recurrent.rnn_backward(dz_now + units.begin, dh + here, dy != nullptr ? dy + at : nullptr, y + at,
                                        relu, {hidden, dz.ld(), rows.size(), units.size()});
  };
  dz.run(cut, weights.blocks(), weights.in_tiles(), out.dh0 != nullptr || dx.by_steps(), walk,
         [&](const RecurrentChunk<T>& chunk) {
           dx.finish(chunk);
           dweights.add(chunk);
         });
  dweights.finish();
}

#define PYNN_INSTANTIATE(T)                                                                                         \
  template void rnn(T*, T*, const RecurrentInputs<T>&, bool, RecurrentSizes);                                       \
  template void rnn_backward(const RecurrentGradients<T>&, const T*, const T*, const T*, const RecurrentInputs<T>&, \
                             bool, RecurrentSizes);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
