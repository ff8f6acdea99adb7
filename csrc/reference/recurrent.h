// The naive twins of the recurrent layers, in double: one time step after the other, one unit after the other.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace pynn::reference {

enum class Cell { rnn_tanh, rnn_relu, lstm, gru };

inline int64_t gates_of(Cell cell) { return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1; }

// A layer from the first time step to the last: x [T, N, in], weights [gates * H, in] and [gates * H, H], biases
// [gates * H], states [N, H].
struct RecurrentLayer {
  Cell cell;
  int64_t steps, batch, input, hidden;
  std::vector<double> x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh;
};

// y [T, N, H]; c_n [N, H] of an LSTM, else empty
struct RecurrentOutput {
  std::vector<double> y, c_n;
};

inline RecurrentOutput recurrent(const RecurrentLayer& a) {
  const int64_t H = a.hidden;
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  std::vector<double> h = a.h0, c = a.c0, y;
  for (int64_t t = 0; t < a.steps; ++t) {
    std::vector<double> next = h;
    for (int64_t n = 0; n < a.batch; ++n) {
      for (int64_t u = 0; u < H; ++u) {
        const auto from_x = [&](int64_t gate) {
          const int64_t row = gate * H + u;
          double sum = a.bias_ih[size_t(row)];
          for (int64_t i = 0; i < a.input; ++i) {
            sum += a.weight_ih[size_t(row * a.input + i)] * a.x[size_t((t * a.batch + n) * a.input + i)];
          }
          return sum;
        };
        const auto from_h = [&](int64_t gate) {
          const int64_t row = gate * H + u;
          double sum = a.bias_hh[size_t(row)];
          for (int64_t i = 0; i < H; ++i) sum += a.weight_hh[size_t(row * H + i)] * h[size_t(n * H + i)];
          return sum;
        };
        const auto both = [&](int64_t gate) { return from_x(gate) + from_h(gate); };
        double& out = next[size_t(n * H + u)];
        switch (a.cell) {
          case Cell::rnn_tanh: out = std::tanh(both(0)); break;
          case Cell::rnn_relu: out = std::max(0.0, both(0)); break;
          case Cell::lstm: {
            double& cell = c[size_t(n * H + u)];
            cell = sigmoid(both(1)) * cell + sigmoid(both(0)) * std::tanh(both(2));
            out = sigmoid(both(3)) * std::tanh(cell);
            break;
          }
          case Cell::gru: {
            const double r = sigmoid(both(0)), z = sigmoid(both(1)), candidate = std::tanh(from_x(2) + r * from_h(2));
            out = (1 - z) * candidate + z * out;
            break;
          }
        }
      }
    }
    h = next;
    y.insert(y.end(), h.begin(), h.end());
  }
  return {y, a.cell == Cell::lstm ? c : std::vector<double>()};
}

// The gradient of sum(dy * y) + sum(dc_n * c_n) along the numbers in `along`, which belong to `layer`, by central
// differences.
inline std::vector<double> recurrent_gradient(RecurrentLayer& layer, std::vector<double>& along,
                                              const std::vector<double>& dy, const std::vector<double>& dc_n) {
  const double step = 1e-5;
  const auto loss = [&] {
    const RecurrentOutput out = recurrent(layer);
    double sum = 0;
    for (size_t i = 0; i < out.y.size(); ++i) sum += dy[i] * out.y[i];
    for (size_t i = 0; i < out.c_n.size(); ++i) sum += dc_n[i] * out.c_n[i];
    return sum;
  };
  std::vector<double> gradient;
  for (double& value : along) {
    const double here = value;
    value = here + step;
    const double above = loss();
    value = here - step;
    const double below = loss();
    value = here;
    gradient.push_back((above - below) / (2 * step));
  }
  return gradient;
}

}  // namespace pynn::reference
