// The gradients of the weights of a recurrent layer.
#pragma once

#include "ops/recurrent_steps.h"

namespace pynn::ops {

// Those of weight_ih, weight_hh and bias_ih, added up chunk by chunk.
template <class T>
class RecurrentDweights {
 public:
  // y[steps, batch, hidden] are the states. Rows of dz have the gradients of all gates' sums; behind them, those of the
  // last `own` gates' sums with weight_hh, which are not those with weight_ih.
  RecurrentDweights(const RecurrentGradients<T>& out, const RecurrentInputs<T>& in, const T* y, int64_t gates,
                    int64_t own, RecurrentSizes s);

  void add(const RecurrentChunk<T>& chunk) const;
  void finish() const;

 private:
  // A right operand of products in tiles, and the gradient that its products with dz are added up to; without columns
  // where another form makes that, or nobody wants it.
  struct Right {
    const T* data;  // [k, columns]
    int64_t columns;
    T* dweight;
    uint16_t* parts;
  };
  // Columns of dz, and the rows of dweight_ih and dweight_hh where the gradients that they make begin; -1: they make
  // none.
  struct Segment {
    int64_t first, columns, row[2];
  };
  // Rows of a chunk.
  struct Rows {
    int64_t first, size;
  };

  void add_ih(const RecurrentChunk<T>& chunk) const;
  void add_hh(const RecurrentChunk<T>& chunk, int64_t gate, int64_t gates, int64_t column) const;
  void add_in_tiles(const RecurrentChunk<T>& chunk) const;
  void add_half(const RecurrentChunk<T>& chunk, int64_t half, Rows rows, bool accumulate, int64_t part,
                int64_t parts) const;
  void add_block(const Right& right, T* c, const T* a, int64_t lda, const uint16_t* a_parts, int64_t j, int64_t m,
                 int64_t k, bool accumulate) const;
  const T* states_before(const RecurrentChunk<T>& chunk, Rows rows) const;

  const RecurrentGradients<T>& out_;
  const RecurrentInputs<T>& in_;
  const T* y_;
  int64_t gates_, own_;
  RecurrentSizes sizes_;
  bool hh_in_tiles_, ih_in_tiles_;
  arena::Buffer<T> table_;                              // [input, outputs]: the sums of dz for each index
  arena::Buffer<T> second_ih_, second_hh_, second_db_;  // the sums of the second halves of chunks
};

}  // namespace pynn::ops
