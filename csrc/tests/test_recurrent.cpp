#include <algorithm>
#include <limits>

#include "harness.h"
#include "ops/recurrent.h"
#include "ops/recurrent_steps.h"
#include "reference/recurrent.h"

using namespace pynn;
using namespace pynn::test;
using reference::Cell;

namespace {

const std::vector<Cell> kCells = {Cell::rnn_tanh, Cell::rnn_relu, Cell::lstm, Cell::gru};

// A layer with random numbers in T, and its twin in double.
template <class T>
struct Sample {
  Guarded<T> x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh;
  reference::RecurrentLayer naive;
  ops::RecurrentSizes sizes;

  Sample(Cell cell, int64_t steps, int64_t batch, int64_t input, int64_t hidden)
      : x(random_array<T>(steps * batch * input)),
        h0(random_array<T>(batch * hidden)),
        c0(random_array<T>(batch * hidden)),
        weight_ih(scaled(cell, hidden, input)),
        weight_hh(scaled(cell, hidden, hidden)),
        bias_ih(random_array<T>(reference::gates_of(cell) * hidden)),
        bias_hh(random_array<T>(reference::gates_of(cell) * hidden)),
        naive{cell,
              steps,
              batch,
              input,
              hidden,
              doubles(x),
              doubles(h0),
              doubles(c0),
              doubles(weight_ih),
              doubles(weight_hh),
              doubles(bias_ih),
              doubles(bias_hh)},
        sizes{steps, batch, input, hidden, false} {}

  static Guarded<T> scaled(Cell cell, int64_t hidden, int64_t columns) {
    const double bound = 1 / std::sqrt(double(columns + 1));
    return random_array<T>(reference::gates_of(cell) * hidden * columns, -bound, bound);
  }
  static std::vector<double> doubles(const Guarded<T>& a) { return std::vector<double>(a.data(), a.data() + a.size()); }

  ops::RecurrentInputs<T> inputs() const {
    return {x.data(), h0.data(), weight_ih.data(), weight_hh.data(), bias_ih.data(), bias_hh.data()};
  }
  int64_t states() const { return sizes.steps * sizes.batch * sizes.hidden; }
};

template <class T>
struct Forward {
  Guarded<T> y, h_n, c_n, gates, kept;  // kept: cells of an LSTM, hn of a GRU

  Forward(const Sample<T>& a, const ops::RecurrentInputs<T>& in, ops::RecurrentSizes s)
      : y(a.states()),
        h_n(s.batch * s.hidden),
        c_n(s.batch * s.hidden),
        gates(reference::gates_of(a.naive.cell) * a.states()),
        kept(a.states()) {
    switch (a.naive.cell) {
      case Cell::rnn_tanh: ops::rnn(y.data(), h_n.data(), in, false, s); break;
      case Cell::rnn_relu: ops::rnn(y.data(), h_n.data(), in, true, s); break;
      case Cell::lstm:
        ops::lstm(y.data(), h_n.data(), c_n.data(), gates.data(), kept.data(), in, a.c0.data(), s);
        break;
      case Cell::gru: ops::gru(y.data(), h_n.data(), gates.data(), kept.data(), in, s); break;
    }
  }
};

template <class T>
struct Backward {
  Guarded<T> dx, dh0, dc0, dweight_ih, dweight_hh, dbias_ih, dbias_hh;

  Backward(const Sample<T>& a, const Forward<T>& f, const ops::RecurrentInputs<T>& in, const Guarded<T>& dy,
           const Guarded<T>& dh_n, const Guarded<T>& dc_n, ops::RecurrentSizes s)
      : dx(a.x.size()),
        dh0(a.h0.size()),
        dc0(a.h0.size()),
        dweight_ih(a.weight_ih.size()),
        dweight_hh(a.weight_hh.size()),
        dbias_ih(a.bias_ih.size()),
        dbias_hh(a.bias_ih.size()) {
    const bool gru = a.naive.cell == Cell::gru;
    const ops::RecurrentGradients<T> out{dx.data(),         dh0.data(),      dweight_ih.data(),
                                         dweight_hh.data(), dbias_ih.data(), gru ? dbias_hh.data() : nullptr};
    switch (a.naive.cell) {
      case Cell::rnn_tanh: ops::rnn_backward(out, dy.data(), dh_n.data(), f.y.data(), in, false, s); break;
      case Cell::rnn_relu: ops::rnn_backward(out, dy.data(), dh_n.data(), f.y.data(), in, true, s); break;
      case Cell::lstm:
        ops::lstm_backward(out, dc0.data(), dy.data(), dh_n.data(), dc_n.data(), f.gates.data(), f.kept.data(),
                           f.y.data(), in, a.c0.data(), s);
        break;
      case Cell::gru:
        ops::gru_backward(out, dy.data(), dh_n.data(), f.gates.data(), f.kept.data(), f.y.data(), in, s);
        break;
    }
  }
};

template <class T>
Guarded<double> guarded(const std::vector<T>& values) {
  Guarded<double> array(static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) array[static_cast<int64_t>(i)] = static_cast<double>(values[i]);
  return array;
}

// Time steps in the opposite order.
template <class T>
Guarded<T> turned(const Guarded<T>& values, int64_t steps) {
  Guarded<T> array(values.size());
  const int64_t step = steps > 0 ? values.size() / steps : 0;
  for (int64_t t = 0; t < steps; ++t) {
    std::copy(values.data() + t * step, values.data() + (t + 1) * step, array.data() + (steps - 1 - t) * step);
  }
  return array;
}

// The sums of one step lose this much, all steps at most as much each.
template <class T>
double tolerance(const ops::RecurrentSizes& s) {
  return rounding<T>(double(s.input + s.hidden + 8), 2.0 * double(s.steps + 1));
}

}  // namespace

TEST_CASE_TEMPLATE("recurrent layers equal the naive ones, in both directions", T, float, double) {
  struct Size {
    int64_t steps, batch, input, hidden;
  };
  for (const Size z : {Size{1, 1, 1, 1}, Size{4, 3, 5, 7}, Size{3, 5, 2, 16}, Size{3, 9, 4, 33}, Size{2, 70, 3, 40},
                       Size{5, 2, 3, 130}, Size{2, 40, 3, 256}, Size{2, 3, 0, 5}, Size{0, 3, 2, 5}}) {
    for (const Cell cell : kCells) {
      const Sample<T> a(cell, z.steps, z.batch, z.input, z.hidden);
      const reference::RecurrentOutput want = reference::recurrent(a.naive);
      const Forward<T> f(a, a.inputs(), a.sizes);
      check_close(f.y, guarded(want.y), tolerance<T>(a.sizes), "y");
      const int64_t state = z.batch * z.hidden;
      Guarded<double> h_n(state);
      for (int64_t i = 0; i < state; ++i) {
        h_n[i] = z.steps > 0 ? want.y[size_t((z.steps - 1) * state + i)] : double(a.h0[i]);
      }
      check_close(f.h_n, h_n, tolerance<T>(a.sizes), "h_n");
      if (cell == Cell::lstm) check_close(f.c_n, guarded(want.c_n), tolerance<T>(a.sizes), "c_n");

      ops::RecurrentSizes reverse = a.sizes;
      reverse.reverse = true;
      const Guarded<T> x = turned(a.x, z.steps);
      ops::RecurrentInputs<T> in = a.inputs();
      in.x = x.data();
      const Forward<T> backwards(a, in, reverse);
      check_close(turned(backwards.y, z.steps), f.y, 0, "y from the last step to the first");
      check_close(backwards.h_n, f.h_n, 0, "h_n from the last step to the first");

      // And the gradients are those of the other direction, turned.
      const Guarded<T> dy = random_array<T>(a.states()), dh = random_array<T>(state), dc = random_array<T>(state);
      const Backward<T> b(a, f, a.inputs(), dy, dh, dc, a.sizes);
      const Backward<T> b_turned(a, backwards, in, turned(dy, z.steps), dh, dc, reverse);
      check_close(turned(b_turned.dx, z.steps), b.dx, 0, "dx from the last step to the first");
      check_close(b_turned.dh0, b.dh0, 0, "dh0 from the last step to the first");
      const double sums = rounding<T>(double(z.steps * z.batch + 4), 4);
      check_close(b_turned.dweight_hh, b.dweight_hh, sums, "dweight_hh from the last step to the first");
      check_close(b_turned.dweight_ih, b.dweight_ih, sums, "dweight_ih from the last step to the first");
    }
  }
}

TEST_CASE_TEMPLATE("gradients of recurrent layers equal central differences", T, float, double) {
  struct Size {
    int64_t steps, batch, input, hidden;
  };
  for (const Size z : {Size{1, 1, 1, 1}, Size{3, 2, 3, 5}, Size{2, 4, 2, 17}, Size{4, 1, 2, 3}, Size{2, 7, 1, 9}}) {
    for (const Cell cell : kCells) {
      Sample<T> a(cell, z.steps, z.batch, z.input, z.hidden);
      const int64_t state = z.batch * z.hidden;
      const Guarded<T> dh = random_array<T>(state), dc = random_array<T>(state);
      Guarded<T> dy = random_array<T>(a.states());
      const Forward<T> f(a, a.inputs(), a.sizes);
      const Backward<T> b(a, f, a.inputs(), dy, dh, dc, a.sizes);
      std::vector<double> dy_all = Sample<T>::doubles(dy), dc_n = Sample<T>::doubles(dc);
      for (int64_t i = 0; i < state; ++i) dy_all[size_t(a.states() - state + i)] += double(dh[i]);

      reference::RecurrentLayer& naive = a.naive;
      const auto compare = [&](const Guarded<T>& got, std::vector<double>& along, const char* what) {
        const Guarded<double> want = guarded(reference::recurrent_gradient(naive, along, dy_all, dc_n));
        check_close(got, want, 1e-8 + 20 * tolerance<T>(a.sizes), what);
      };
      compare(b.dx, naive.x, "dx");
      compare(b.dh0, naive.h0, "dh0");
      if (cell == Cell::lstm) compare(b.dc0, naive.c0, "dc0");
      compare(b.dweight_ih, naive.weight_ih, "dweight_ih");
      compare(b.dweight_hh, naive.weight_hh, "dweight_hh");
      compare(b.dbias_ih, naive.bias_ih, "dbias_ih");
      compare(cell == Cell::gru ? b.dbias_hh : b.dbias_ih, naive.bias_hh, "dbias_hh");
    }
  }
}

TEST_CASE_TEMPLATE("indices stand for ones in x", T, float, double) {
  for (const Cell cell : kCells) {
    const Sample<T> a(cell, 4, 9, 6, 18);
    Guarded<T> one_hot(a.x.size());
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < 4 * 9; ++i) {
      indices.push_back(static_cast<int64_t>(generator()() % 6));
      one_hot[i * 6 + indices.back()] = T(1);
    }
    ops::RecurrentInputs<T> dense = a.inputs(), in = a.inputs();
    dense.x = one_hot.data();
    in.x = nullptr;
    in.indices = indices.data();
    const Guarded<T> dy = random_array<T>(a.states()), dh = random_array<T>(9 * 18), dc = random_array<T>(9 * 18);
    const Forward<T> f(a, in, a.sizes), f_dense(a, dense, a.sizes);
    check_close(f.y, f_dense.y, tolerance<T>(a.sizes), "y");
    const Backward<T> b(a, f, in, dy, dh, dc, a.sizes), b_dense(a, f_dense, dense, dy, dh, dc, a.sizes);
    check_close(b.dweight_ih, b_dense.dweight_ih, 20 * tolerance<T>(a.sizes), "dweight_ih");
    check_close(b.dbias_ih, b_dense.dbias_ih, 20 * tolerance<T>(a.sizes), "dbias_ih");
    check_close(b.dh0, b_dense.dh0, 20 * tolerance<T>(a.sizes), "dh0");
  }
}

namespace {

// Sequences [first, first + count) of an array [steps, batch, width].
template <class T>
Guarded<T> sequences(const Guarded<T>& values, int64_t steps, int64_t batch, int64_t first, int64_t count) {
  const int64_t width = values.size() / (steps * batch);
  Guarded<T> array(steps * count * width);
  for (int64_t t = 0; t < steps; ++t) {
    const T* from = values.data() + (t * batch + first) * width;
    std::copy(from, from + count * width, array.data() + t * count * width);
  }
  return array;
}

}  // namespace

// Of 24 sequences the inputs' part of the sums is made step by step, of 6 for all steps at once.
TEST_CASE_TEMPLATE("a batch of sequences equals its quarters", T, float, double) {
  const VectorBlocks blocks;  // the number of rows decides whether a product is made of tiles
  constexpr int64_t steps = 60, batch = 24, part = 6, input = 20, hidden = 40;
  for (const Cell cell : kCells) {
    for (const bool reverse : {false, true}) {
      const Sample<T> a(cell, steps, batch, input, hidden);
      ops::RecurrentSizes sizes = a.sizes;
      sizes.reverse = reverse;
      const Guarded<T> dy = random_array<T>(a.states()), dh = random_array<T>(batch * hidden),
                       dc = random_array<T>(batch * hidden);
      const Forward<T> f(a, a.inputs(), sizes);
      const Backward<T> b(a, f, a.inputs(), dy, dh, dc, sizes);
      Guarded<double> dweight_ih(a.weight_ih.size()), dweight_hh(a.weight_hh.size()), dbias_ih(a.bias_ih.size()),
          dbias_hh(a.bias_hh.size());
      for (int64_t first = 0; first < batch; first += part) {
        const auto states = [&](const Guarded<T>& values) { return sequences(values, 1, batch, first, part); };
        Sample<T> c = a;
        c.x = sequences(a.x, steps, batch, first, part);
        c.h0 = states(a.h0);
        c.c0 = states(a.c0);
        c.sizes = sizes;
        c.sizes.batch = part;
        const Forward<T> f_part(c, c.inputs(), c.sizes);
        check_close(f_part.y, sequences(f.y, steps, batch, first, part), 0, "y");
        const Backward<T> b_part(c, f_part, c.inputs(), sequences(dy, steps, batch, first, part), states(dh),
                                 states(dc), c.sizes);
        check_close(b_part.dx, sequences(b.dx, steps, batch, first, part), 0, "dx");
        check_close(b_part.dh0, states(b.dh0), 0, "dh0");
        const auto add = [](Guarded<double>& sums, const Guarded<T>& values) {
          for (int64_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<double>(values[i]);
        };
        add(dweight_ih, b_part.dweight_ih);
        add(dweight_hh, b_part.dweight_hh);
        add(dbias_ih, b_part.dbias_ih);
        if (cell == Cell::gru) add(dbias_hh, b_part.dbias_hh);
      }
      const double sums = rounding<T>(double(steps * batch + 4), 4);
      check_close(b.dweight_ih, dweight_ih, sums, "dweight_ih");
      check_close(b.dweight_hh, dweight_hh, sums, "dweight_hh");
      check_close(b.dbias_ih, dbias_ih, sums, "dbias_ih");
      if (cell == Cell::gru) check_close(b.dbias_hh, dbias_hh, sums, "dbias_hh");
    }
  }
}

TEST_CASE("steps in tiles equal those of vectors, with the same bits on any threads") {
  if (kernels<float>().split_gemm.block == nullptr) {
    MESSAGE("not run: ", std::string(isa_name(active_isa())), " multiplies no tiles");
    return;
  }
  struct Size {
    int64_t steps, batch, input, hidden;
  };
  for (const Size z : {Size{8, 700, 5, 65}, Size{9, 34, 33, 250}, Size{10, 130, 40, 128}}) {
    for (const Cell cell : kCells) {
      for (const bool reverse : {false, true}) {
        Sample<float> a(cell, z.steps, z.batch, z.input, z.hidden);
        a.sizes.reverse = reverse;
        REQUIRE(ops::recurrent_in_tiles<float>(a.sizes, reference::gates_of(cell)));
        const int64_t state = z.batch * z.hidden;
        const Guarded<float> dy = random_array<float>(a.states()), dh = random_array<float>(state),
                             dc = random_array<float>(state);
        const Forward<float> f(a, a.inputs(), a.sizes);
        const Backward<float> b(a, f, a.inputs(), dy, dh, dc, a.sizes);
        const auto equal = [&](double tolerance_of_y, double tolerance_of_gradients) {
          const Forward<float> g(a, a.inputs(), a.sizes);
          // Of the same forward: where one rounds to 0 and the other does not, only one has a gradient behind relu.
          const Backward<float> c(a, f, a.inputs(), dy, dh, dc, a.sizes);
          check_close(g.y, f.y, tolerance_of_y, "y");
          check_close(c.dx, b.dx, tolerance_of_gradients, "dx");
          check_close(c.dh0, b.dh0, tolerance_of_gradients, "dh0");
          check_close(c.dweight_ih, b.dweight_ih, tolerance_of_gradients, "dweight_ih");
          check_close(c.dweight_hh, b.dweight_hh, tolerance_of_gradients, "dweight_hh");
          check_close(c.dbias_ih, b.dbias_ih, tolerance_of_gradients, "dbias_ih");
        };
        for (const int threads : {1, 2, 3, 5}) {
          const Threads scope(threads);
          equal(0, 0);
        }
        const VectorBlocks blocks;
        equal(tolerance<float>(a.sizes), 20 * tolerance<float>(a.sizes));
      }
    }
  }
}

TEST_CASE("a sequence that is not finite leaves the bits of the others") {
  constexpr int64_t steps = 8, batch = 130, input = 33, hidden = 129, bad = 21;
  for (const Cell cell : kCells) {
    Sample<float> a(cell, steps, batch, input, hidden);
    const Guarded<float> dy = random_array<float>(a.states()), dh = random_array<float>(batch * hidden),
                         dc = random_array<float>(batch * hidden);
    const Forward<float> f(a, a.inputs(), a.sizes);
    const Backward<float> b(a, f, a.inputs(), dy, dh, dc, a.sizes);
    a.x[(2 * batch + bad) * input + 7] = std::numeric_limits<float>::quiet_NaN();
    const Forward<float> f_bad(a, a.inputs(), a.sizes);
    const Backward<float> b_bad(a, f_bad, a.inputs(), dy, dh, dc, a.sizes);
    const auto others = [&](const Guarded<float>& values, int64_t of) {
      const Guarded<float> before = sequences(values, of, batch, 0, bad),
                           behind = sequences(values, of, batch, bad + 1, batch - bad - 1);
      Guarded<float> all(before.size() + behind.size());
      std::copy(before.data(), before.data() + before.size(), all.data());
      std::copy(behind.data(), behind.data() + behind.size(), all.data() + before.size());
      return all;
    };
    check_close(others(f_bad.y, steps), others(f.y, steps), 0, "y");
    check_close(others(b_bad.dx, steps), others(b.dx, steps), 0, "dx");
    check_close(others(b_bad.dh0, 1), others(b.dh0, 1), 0, "dh0");
    for (int64_t i = 0; i < hidden; ++i) {
      CHECK((cell == Cell::rnn_relu || std::isnan(f_bad.y[((steps - 1) * batch + bad) * hidden + i])));
    }
  }
}

TEST_CASE("gradients of weights by inputs near the largest number are those of vectors") {
  constexpr int64_t steps = 10, batch = 130, input = 33, hidden = 129, large = 7;
  for (const Cell cell : kCells) {
    Sample<float> a(cell, steps, batch, input, hidden);
    a.x[(2 * batch + 20) * input + large] = 3.4e38f;  // of its parts, the first rounds to infinity
    for (int64_t i = 0; i < a.weight_ih.size() / input; ++i) a.weight_ih[i * input + large] = 0;
    Guarded<float> dy = random_array<float>(a.states());
    for (int64_t i = 0; i < dy.size(); ++i) dy[i] *= 1e-3f;
    const Guarded<float> none(batch * hidden);
    const Forward<float> f(a, a.inputs(), a.sizes);
    const Backward<float> b(a, f, a.inputs(), dy, none, none, a.sizes);
    const VectorBlocks blocks;
    const Backward<float> c(a, f, a.inputs(), dy, none, none, a.sizes);
    check_close(b.dweight_hh, c.dweight_hh, tolerance<float>(a.sizes), "dweight_hh");
    double scale = 0;
    for (int64_t i = large; i < c.dweight_ih.size(); i += input)
      scale = std::max<double>(scale, std::abs(c.dweight_ih[i]));
    for (int64_t i = 0; i < c.dweight_ih.size(); ++i) {
      const double unit = i % input == large ? scale : 1;
      REQUIRE(std::isfinite(c.dweight_ih[i]));
      CHECK(std::abs(double(b.dweight_ih[i]) - double(c.dweight_ih[i])) <= tolerance<float>(a.sizes) * unit);
    }
  }
}
