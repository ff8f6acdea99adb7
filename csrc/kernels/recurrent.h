// The elementwise work of one time step of a recurrent layer, on a range of hidden units of some sequences.
#pragma once

#include <cstdint>

namespace pynn {

// Where a block lies: `rows` sequences, of each `units` units in a row. Rows of h, c, dh, ... are `hidden` apart, rows
// of gates gates * hidden, with the gates of a unit `hidden` apart: i, f, g, o (LSTM) or r, z, n (GRU). Rows of z, the
// sums of products that the gates are made of, and of their gradients dz and dhn are ldz apart.
struct RecurrentBlock {
  int64_t hidden, ldz, rows, units;
};

// A backward takes the gradient of h in two parts: dy, of this time step's output (null for none), and dh, from the
// step after. Outputs may be their own inputs.
template <class T>
struct RecurrentKernels {
  // h = tanh(z) or relu(z)
  void (*rnn)(T* h, const T* z, bool relu, RecurrentBlock block);
  // dz = (dh + dy) * activation'
  void (*rnn_backward)(T* dz, const T* dh, const T* dy, const T* h, bool relu, RecurrentBlock block);

  // c = f c_prev + i g, h = o tanh(c)
  void (*lstm)(T* h, T* c, T* gates, const T* z, const T* c_prev, RecurrentBlock block);
  // dc becomes the gradient of c_prev
  void (*lstm_backward)(T* dz, T* dc, const T* dh, const T* dy, const T* gates, const T* c, const T* c_prev,
                        RecurrentBlock block);

  // n = tanh(z_n + r hn), h = n + z (h_prev - n); hn: the hidden state's part of the sums of n
  void (*gru)(T* h, T* gates, const T* z, const T* hn, const T* h_prev, RecurrentBlock block);
  // dh becomes the part of the gradient of h_prev that does not pass through the gates
  void (*gru_backward)(T* dz, T* dhn, T* dh, const T* dy, const T* gates, const T* hn, const T* h_prev,
                       RecurrentBlock block);
};

}  // namespace pynn
