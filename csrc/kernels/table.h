// The kernel table: one struct of function pointers per op family and element type, filled once per instruction set.
// This header is shared by kernels and runtime: plain structs only.
#pragma once

#include "kernels/attention.h"
#include "kernels/broadcast.h"
#include "kernels/conv.h"
#include "kernels/conv_tiles.h"
#include "kernels/dropout.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/layout.h"
#include "kernels/loss.h"
#include "kernels/norm.h"
#include "kernels/optim.h"
#include "kernels/packed_rows.h"
#include "kernels/peak.h"
#include "kernels/pool.h"
#include "kernels/recurrent.h"
#include "kernels/reduction.h"
#include "kernels/sparse_conv.h"
#include "kernels/split_gemm.h"
#include "kernels/winograd.h"

// Every family has one file kernels/<family>.cpp that defines register_<family> and exports nothing else. Not listed:
// split_gemm and conv_tiles, which only processors with AMX have, in kernels/amx/.
#define PYNN_FOR_EACH_FAMILY(X) \
  X(attention)                  \
  X(broadcast)                  \
  X(conv)                       \
  X(dropout)                    \
  X(elementwise)                \
  X(gemm)                       \
  X(layout)                     \
  X(loss)                       \
  X(norm)                       \
  X(optim)                      \
  X(packed_rows)                \
  X(peak)                       \
  X(pool)                       \
  X(recurrent)                  \
  X(reduction)                  \
  X(sparse_conv)                \
  X(winograd)

namespace pynn {

template <class T>
struct KernelTable {
  AttentionKernels<T> attention;
  BroadcastKernels<T> broadcast;
  ConvKernels<T> conv;
  ConvTilesKernels<T> conv_tiles;
  DropoutKernels<T> dropout;
  ElementwiseKernels<T> elementwise;
  GemmKernels<T> gemm;
  LayoutKernels<T> layout;
  LossKernels<T> loss;
  NormKernels<T> norm;
  OptimKernels<T> optim;
  PackedRowsKernels<T> packed_rows;
  PeakKernels<T> peak;
  PoolKernels<T> pool;
  RecurrentKernels<T> recurrent;
  ReductionKernels<T> reduction;
  SparseConvKernels<T> sparse_conv;
  SplitGemmKernels<T> split_gemm;
  WinogradKernels<T> winograd;
};

struct KernelSet {
  KernelTable<float> f32;
  KernelTable<double> f64;
};

}  // namespace pynn
