#include "ops/recurrent_dweight.h"

namespace pynn::ops {

template <class T>
void gru(T* y, T* h_n, T* gates, T* hn, const RecurrentInputs<T>& in, RecurrentSizes s) {
  const int64_t hidden = s.hidden, state = s.batch * hidden, width = 3 * hidden;
  const RecurrentSums<T> sums(gates, in, 3, 2 * hidden, s);
  const RecurrentWeights<T> weights(in.weight_hh, 3, hidden, s, 0);
  const arena::Buffer<T> zeros(in.h0 != nullptr ? 0 : state);
  if (in.h0 == nullptr) copy_state<T>(zeros.get(), nullptr, state);
  const T* h_start = in.h0 != nullptr ? in.h0 : zeros.get();
  run_recurrent(
      recurrent_cut<T>(s, 3), s, weights.blocks(), weights.in_tiles(),
      [&](int64_t step, RecurrentRange rows, RecurrentRange blocks) {
        const RecurrentTime t = recurrent_time(step, s);
        const RecurrentRange units = weights.columns(blocks);
        const int64_t first = rows.begin * hidden, row = t.now * s.batch + rows.begin;
        T* z = sums.at(t.now, rows, units);
        const RecurrentRows<T> x = sums.input(t.now, rows);
        const T* h_prev = t.first ? h_start : y + t.before * state;
        const RecurrentRows<T> h = weights.rows(h_prev + first, hidden, rows.size(), hidden, arena::Slot::split_a);
        for (int64_t block = blocks.begin; block < blocks.end; ++block) {
          const int64_t j = block * weights.unit();
          const T* bias_n = in.bias_hh != nullptr ? in.bias_hh + 2 * hidden + j : nullptr;
          for (int64_t gate = 0; gate < 3; ++gate) sums.add_input(z, x, gate, block, rows.size());
          for (int64_t gate = 0; gate < 2; ++gate) {
            weights.forward(z + gate * hidden + j, sums.ld(), h, gate, block, nullptr, true, rows.size());
          }
          weights.forward(hn + row * hidden + j, hidden, h, 2, block, bias_n, false, rows.size());
        }
        const int64_t at = row * hidden + units.begin;
        kernels<T>().recurrent.gru(y + at, gates + row * width + units.begin, z + units.begin, hn + at,
                                   h_prev + first + units.begin, {hidden, sums.ld(), rows.size(), units.size()});
      });
  copy_state(h_n, s.steps > 0 ? y + recurrent_time(s.steps - 1, s).now * state : in.h0, state);
}

template <class T>
void gru_backward(const RecurrentGradients<T>& out, const T* dy, const T* dh_n, const T* gates, const T* hn, const T* y,
                  const RecurrentInputs<T>& in, RecurrentSizes s) {
  const int64_t hidden = s.hidden, state = s.batch * hidden, width = 3 * hidden;
  const RecurrentWeights<T> weights(in.weight_hh, 3, hidden, s, 2);
  // The gradients of n's sums differ by a factor r between the input's part, in dz, and the hidden state's, which
  // stands behind it in each row.
  const RecurrentDz<T> dz(width + hidden, s, weights.in_tiles());
  const arena::Buffer<T> states(2 * state);
  T* dh = out.dh0 != nullptr ? out.dh0 : states.get();
  T* zeros = states.get() + state;
  copy_state(dh, dh_n, state);
  if (in.h0 == nullptr) copy_state<T>(zeros, nullptr, state);
  const T* h_start = in.h0 != nullptr ? in.h0 : zeros;
  const RecurrentCut cut = recurrent_cut<T>(s, 3);
  const RecurrentDx<T> dx(out.dx, in, 3, s, cut);
  const RecurrentDweights<T> dweights(out, in, y, 3, 1, s);
  const auto walk = [&](int64_t back, RecurrentRange rows, RecurrentRange blocks) {
    const int64_t step = s.steps - 1 - back, first = rows.begin * hidden;
    if (back > 0) {
      const T* later = dz.at(back - 1, rows.begin);
      const RecurrentRows<T> of_rz = weights.rows(later, dz.ld(), rows.size(), 2 * hidden, arena::Slot::split_a);
      const RecurrentRows<T> of_hn = weights.rows(later + width, dz.ld(), rows.size(), hidden, arena::Slot::split_b);
      for (int64_t block = blocks.begin; block < blocks.end; ++block) {
        T* to = dh + first + block * weights.unit();
        weights.backward(to, hidden, of_rz, 0, 2, block, true, rows.size());
        weights.backward(to, hidden, of_hn, 2, 1, block, true, rows.size());
      }
    }
    if (step < 0) return;
    const RecurrentTime t = recurrent_time(step, s);
    const RecurrentRange units = weights.columns(blocks);
    const int64_t row = t.now * s.batch + rows.begin, here = first + units.begin, at = row * hidden + units.begin;
    const T* h_prev = t.first ? h_start : y + t.before * state;
    T* dz_now = dz.at(back, rows.begin);
    kernels<T>().recurrent.gru_backward(dz_now + units.begin, dz_now + width + units.begin, dh + here,
                                        dy != nullptr ? dy + at : nullptr, gates + row * width + units.begin, hn + at,
                                        h_prev + here, {hidden, dz.ld(), rows.size(), units.size()});
    // Where threads share these rows, the others still write their units of them.
    if (dx.by_steps()) dx.step(dx.rows(dz_now, dz.ld(), rows.size()), t.now, rows);
  };
  dz.run(cut, weights.blocks(), weights.in_tiles(), out.dh0 != nullptr, walk, [&](RecurrentChunk<T> chunk) {
    dx.finish(chunk);
    dweights.add(chunk);
    chunk.dz += width;
    if (out.dbias_hh != nullptr) {
      linear_dbias(out.dbias_hh + 2 * hidden, chunk.dz, chunk.ldz, chunk.steps * s.batch, hidden, chunk.accumulate);
    }
  });
  dweights.finish();
  if (out.dbias_hh != nullptr) copy_state(out.dbias_hh, out.dbias_ih, 2 * hidden);
}

#define PYNN_INSTANTIATE(T)                                                                                  \
  template void gru(T*, T*, T*, T*, const RecurrentInputs<T>&, RecurrentSizes);                              \
  template void gru_backward(const RecurrentGradients<T>&, const T*, const T*, const T*, const T*, const T*, \
                             const RecurrentInputs<T>&, RecurrentSizes);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
