// What the recurrent layers share: how their time steps are cut into tasks, and the product of a step.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

#include "kernels/gemm.h"
#include "ops/ceil_div.h"
#include "ops/gemm.h"
#include "ops/recurrent.h"
#include "ops/tiles.h"
#include "runtime/arena.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {

struct RecurrentRange {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

// Sequences do not need each other: a thread takes some of them through all steps. Few sequences, and weights that the
// L2 cache does not hold, are cut by hidden units instead, and the threads meet after every step.
struct RecurrentCut {
  int64_t row_parts, unit_parts;
};
template <class T>
RecurrentCut recurrent_cut(RecurrentSizes s, int64_t gates);

// Whether the products of the steps are made of tiles of bfloat16 parts: by the shape alone, as they add in another
// order than vectors.
template <class T>
bool recurrent_in_tiles(RecurrentSizes s, int64_t gates);

// Calls step(i, rows, blocks of units) for i = 0..steps-1, in this order for each part.
template <class Step>
void run_recurrent(RecurrentCut cut, RecurrentSizes s, int64_t blocks, bool in_tiles, const Step& step) {
  if (s.batch == 0 || s.hidden == 0) return;  // of nothing, there can be more steps than can be counted through
  const auto part_of = [](int64_t size, int64_t part, int64_t parts) {
    return RecurrentRange{size * part / parts, size * (part + 1) / parts};
  };
  if (cut.unit_parts == 1) {
    parallel_for(cut.row_parts, [&](int64_t part) {
      const RecurrentRange rows = part_of(s.batch, part, cut.row_parts);
      const TileRegisters registers(in_tiles, rows.size());
      for (int64_t i = 0; i < s.steps; ++i) step(i, rows, RecurrentRange{0, blocks});
    });
    return;
  }
  for (int64_t i = 0; i < s.steps; ++i) {
    parallel_for(cut.unit_parts, [&](int64_t part) {
      const TileRegisters registers(in_tiles, s.batch);
      step(i, RecurrentRange{0, s.batch}, part_of(blocks, part, cut.unit_parts));
    });
  }
}

// Rows that a product of a step reads, and their parts if it is made of tiles.
template <class T>
struct RecurrentRows {
  const T* data;
  int64_t stride;
  bool transposed;
  const uint16_t* parts;
};

// weight[gates * hidden, depth] as the right operand of every step's product, packed once if that pays: weight_hh with
// depth = hidden, or weight_ih. Its columns come in blocks of `unit`: of the hidden units within a gate (forward, times
// weight^T), or of `depth` (backward).
template <class T>
class RecurrentWeights {
 public:
  // joint: the gates whose gradients a product of backward takes, beginning with the first; another takes the others.
  // None: forward.
  RecurrentWeights(const T* weight, int64_t gates, int64_t depth, RecurrentSizes s, int64_t joint);

  bool in_tiles() const { return in_tiles_; }
  int64_t unit() const { return in_tiles_ ? kSplitBlock : kernel_.nr; }
  int64_t blocks() const { return ceil_div(columns_, unit()); }
  RecurrentRange columns(RecurrentRange blocks) const {
    return {blocks.begin * unit(), std::min(blocks.end * unit(), columns_)};
  }

  // Rows [rows, k] with the stride ld; moved where that stride makes them fall on one set of the L1 cache, or split,
  // into scratch of this slot.
  RecurrentRows<T> rows(const T* data, int64_t ld, int64_t rows, int64_t k, arena::Slot slot) const;

  // c[rows, units of the block] = bias, 0 or c, + h * weight^T of one gate
  void forward(T* c, int64_t ldc, RecurrentRows<T> h, int64_t gate, int64_t block, const T* bias, bool accumulate,
               int64_t rows) const;
  // c[rows, columns of the block] (+)= dz * weight with dz[rows, ...] the gradients of `gates` gates from `gate` on
  void backward(T* c, int64_t ldc, RecurrentRows<T> dz, int64_t gate, int64_t gates, int64_t block, bool accumulate,
                int64_t rows) const;

 private:
  void pack(int64_t block) const;
  void split(int64_t block) const;
  int64_t parts_offset(int64_t block, int64_t gate) const;
  // The product in tiles; vectors(first, rows) makes that of rows that are not finite.
  template <class Vectors>
  void multiply_tiles(T* c, int64_t ldc, const uint16_t* a, const uint16_t* b, const GemmEpilogue<T>& epilogue,
                      int64_t rows, int64_t n, int64_t k, const Vectors& vectors) const;

  const GemmKernels<T>& kernel_ = kernels<T>().gemm;
  const T* weight_;
  int64_t gates_, hidden_, depth_, joint_, columns_;
  bool in_tiles_, packs_;
  arena::Buffer<T> packed_;        // [block][gate][depth][unit], or [block][gates * hidden][unit]
  arena::Buffer<uint16_t> parts_;  // [block][gate], or [block][joint gates, other gates]
};

// The sums that the gates are made of. What does not depend on the steps before, x weight_ih^T + bias_ih + the first
// `shared` of bias_hh, is made step by step, in scratch of the thread, while its weights stay in the L2 cache
// beside weight_hh, or if it is only looked up; else for all steps at once.
template <class T>
class RecurrentSums {
 public:
  // all[steps, batch, gates * hidden]: for the sums of all steps
  RecurrentSums(T* all, const RecurrentInputs<T>& in, int64_t gates, int64_t shared, RecurrentSizes s);

  int64_t ld() const { return ld_; }
  // z[rows, gates * hidden] of the step `now`. It may lack x's part, which add_input then makes of the step's input.
  T* at(int64_t now, RecurrentRange rows, RecurrentRange units) const;
  RecurrentRows<T> input(int64_t now, RecurrentRange rows) const;
  void add_input(T* z, RecurrentRows<T> x, int64_t gate, int64_t block, int64_t rows) const;

 private:
  T* all_;
  const RecurrentInputs<T>& in_;
  int64_t gates_;
  RecurrentSizes sizes_;
  bool by_steps_;
  int64_t ld_;
  arena::Buffer<T> bias_, table_;  // table: the sums for each index
  std::optional<RecurrentWeights<T>> weights_;
};

// The row stride of the sums and of their gradients. Rows that are a multiple of 512 bytes apart would fall on few sets
// of the L1 cache when the gradients of the weights read columns.
template <class T>
int64_t recurrent_ldz(int64_t outputs) {
  return outputs % int64_t(512 / sizeof(T)) == 0 ? outputs + int64_t(64 / sizeof(T)) : outputs;
}

// The gradients of the sums of some time steps, from `first` on in memory, which the gradients of the weights are made
// of. Chunks come from the last step taken to the first.
template <class T>
struct RecurrentChunk {
  const T* dz;  // [steps, batch, outputs], its rows ldz apart
  int64_t ldz, first, steps;
  bool accumulate;  // not the first chunk
};

// dz of as many time steps as stay in cache until the gradients of the weights are made, and of as many before them.
template <class T>
class RecurrentDz {
 public:
  RecurrentDz(int64_t outputs, RecurrentSizes s, bool in_tiles);

  int64_t ld() const { return ld_; }
  // of the step that is `back` before the last
  T* at(int64_t back, int64_t row) const;

  // Calls step(back, rows, blocks) as run_recurrent does, for one step more if `one_more`, and finish(chunk) after the
  // steps of each chunk.
  template <class Step, class Finish>
  void run(RecurrentCut cut, int64_t blocks, bool in_tiles, bool one_more, const Step& step,
           const Finish& finish) const {
    for (int64_t i = 0; i < chunks_; ++i) {
      const RecurrentRange chunk = chunk_of(i);
      RecurrentSizes some = sizes_;
      some.steps = chunk.size() + (one_more && i + 1 == chunks_ ? 1 : 0);
      run_recurrent(cut, some, blocks, in_tiles, [&](int64_t back, RecurrentRange rows, RecurrentRange of_blocks) {
        step(chunk.begin + back, rows, of_blocks);
      });
      finish(RecurrentChunk<T>{buffer(i), ld_, first_of(chunk), chunk.size(), i > 0});
    }
  }

 private:
  RecurrentRange chunk_of(int64_t i) const {
    return {std::min(i * length_, sizes_.steps), std::min((i + 1) * length_, sizes_.steps)};
  }
  int64_t first_of(RecurrentRange chunk) const { return sizes_.reverse ? chunk.begin : sizes_.steps - chunk.end; }
  T* buffer(int64_t chunk) const { return buffer_.get() + chunk % 2 * length_ * sizes_.batch * ld_; }

  RecurrentSizes sizes_;
  int64_t ld_, chunks_, length_;
  arena::Buffer<T> buffer_;  // [2][length][batch][ld]
};

// The gradient of x, made step by step under the same condition; chunk by chunk where threads share rows.
template <class T>
class RecurrentDx {
 public:
  RecurrentDx(T* dx, const RecurrentInputs<T>& in, int64_t gates, RecurrentSizes s, RecurrentCut cut);

  bool by_steps() const { return by_steps_; }
  // dz[rows, gates * hidden] for `step`, or for the product of the same dz and weight_hh
  RecurrentRows<T> rows(const T* dz, int64_t ldz, int64_t rows) const;
  // from dz of the step `now`
  void step(RecurrentRows<T> dz, int64_t now, RecurrentRange rows) const;
  // what is left to do behind the steps of a chunk
  void finish(const RecurrentChunk<T>& chunk) const;

 private:
  // rows of dx, from `first` on
  void multiply(RecurrentRows<T> dz, int64_t first, int64_t rows) const;

  T* dx_;
  const RecurrentInputs<T>& in_;
  int64_t gates_;
  RecurrentSizes sizes_;
  bool by_steps_;
  std::optional<RecurrentWeights<T>> weights_;
};

// to[size] = state, or zeros if that is null
template <class T>
void copy_state(T* to, const T* state, int64_t size) {
  if (state != nullptr) {
    std::memcpy(to, state, static_cast<size_t>(size) * sizeof(T));
  } else {
    std::memset(to, 0, static_cast<size_t>(size) * sizeof(T));
  }
}

// The places of a step in arrays of all time steps, and of the step before it.
struct RecurrentTime {
  int64_t now, before;
  bool first;
};
inline RecurrentTime recurrent_time(int64_t step, RecurrentSizes s) {
  const int64_t now = s.reverse ? s.steps - 1 - step : step;
  return {now, s.reverse ? now + 1 : now - 1, step == 0};
}

}  // namespace pynn::ops
