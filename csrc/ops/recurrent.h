// Layers of recurrent networks over whole sequences, split over the threads.
#pragma once

#include <cstdint>

namespace pynn::ops {

struct RecurrentSizes {
  int64_t steps, batch, input, hidden;
  bool reverse;  // from the last time step to the first
};

// Gates is 1 (RNN), 3 (GRU) or 4 (LSTM). Pointers that may be null stand for zeros.
template <class T>
struct RecurrentInputs {
  const T* x;                        // [steps, batch, input]; not read with indices
  const T* h0;                       // [batch, hidden], may be null
  const T* weight_ih;                // [gates * hidden, input]
  const T* weight_hh;                // [gates * hidden, hidden]
  const T* bias_ih;                  // [gates * hidden], may be null
  const T* bias_hh;                  // the same
  const int64_t* indices = nullptr;  // [steps, batch], below `input`: x is 1 there, else 0
};

// What is null is not computed.
template <class T>
struct RecurrentGradients {
  T* dx;          // [steps, batch, input]
  T* dh0;         // [batch, hidden]
  T* dweight_ih;  // [gates * hidden, input]
  T* dweight_hh;  // [gates * hidden, hidden]
  T* dbias_ih;    // [gates * hidden]
  T* dbias_hh;    // the same; only GRU, where it differs, and only with dbias_ih
};

// y[steps, batch, hidden]: y_t = tanh or relu (x_t weight_ih^T + bias_ih + y_(t-1) weight_hh^T + bias_hh), y_(-1) = h0.
// h_n[batch, hidden] is y after the last step, h0 if there is none.
template <class T>
void rnn(T* y, T* h_n, const RecurrentInputs<T>& in, bool relu, RecurrentSizes s);

// dy and dh_n, the gradients of y and h_n, may be null.
template <class T>
void rnn_backward(const RecurrentGradients<T>& out, const T* dy, const T* dh_n, const T* y,
                  const RecurrentInputs<T>& in, bool relu, RecurrentSizes s);

// gates[steps, batch, 4 hidden] = i, f, g, o; cells[steps, batch, hidden]: c_t = f c_(t-1) + i g; y_t = o tanh(c_t).
template <class T>
void lstm(T* y, T* h_n, T* c_n, T* gates, T* cells, const RecurrentInputs<T>& in, const T* c0, RecurrentSizes s);

// dc0[batch, hidden] may be null, as may dy, dh_n and dc_n.
template <class T>
void lstm_backward(const RecurrentGradients<T>& out, T* dc0, const T* dy, const T* dh_n, const T* dc_n, const T* gates,
                   const T* cells, const T* y, const RecurrentInputs<T>& in, const T* c0, RecurrentSizes s);

// gates[steps, batch, 3 hidden] = r, z, n; hn[steps, batch, hidden]: y_(t-1) weight_hn^T + bias_hn, which r multiplies
// within n; y_t = (1 - z) n + z y_(t-1).
template <class T>
void gru(T* y, T* h_n, T* gates, T* hn, const RecurrentInputs<T>& in, RecurrentSizes s);

template <class T>
void gru_backward(const RecurrentGradients<T>& out, const T* dy, const T* dh_n, const T* gates, const T* hn, const T* y,
                  const RecurrentInputs<T>& in, RecurrentSizes s);

}  // namespace pynn::ops
