// What form a product has, and how it is cut into tasks; gemm_run.cpp and gemm_split.cpp run them.

#include "ops/gemm_product.h"

#include <algorithm>
#include <utility>

#include "ops/ceil_div.h"
#include "runtime/counters.h"
#include "runtime/dispatch.h"

namespace pynn::ops {
namespace {

constexpr int64_t kDepth = 512;          // k of one pass over a packed B
constexpr int64_t kDepthUnsplit = 1024;  // a k up to this is done in one pass, C is then written once
constexpr int64_t kPageFloats = 1024;    // row strides of 4 KiB fall on one set of the L1 cache
constexpr int64_t kUnpackedBytes = int64_t(1) << 20;

// What is done beside the products, in multiply-adds of an element's worth of time.
constexpr int64_t kPackWork = 4;                 // to pack an element
constexpr int64_t kTurnWork = 6;                 // to turn an element of C
constexpr int64_t kBroadcastWork = 2;            // to begin a term of a row without zeros, or the row: vectors
constexpr int64_t kReduceWork = 128;             // to add the lanes of a dot product
constexpr int64_t kReadWork = 1;                 // to read an element of an operand once more
constexpr int64_t kSharedWork = 20;              // to take an element of a weight from another core when it is updated
constexpr int64_t kSplitWork = 35;               // to split an element, which may be far away
constexpr int64_t kSharedLineWork = 4096;        // to write a line that another core writes as well, in all
constexpr int64_t kLongTask = int64_t(1) << 22;  // multiply-adds of a task that is better cut in two

template <class T>
int64_t lanes() {
  return kernels<T>().gemm.nr / 2;
}

// Blocks of fewer than three rows wait for their own sums.
template <class T>
int64_t blocks_work(int64_t m, int64_t n, int64_t k, bool pack) {
  return k * (std::max<int64_t>(m, 3) * round_up(n, lanes<T>()) + (pack ? kPackWork * n : 0));
}

// Of one k of a product in tiles, in the blocks' multiply-adds.
int64_t split_work(int64_t m, int64_t n) {
  return round_up(m, kSplitTile) * round_up(n, kSplitTile) / 2 + kSplitWork * (m + n);
}

template <class T>
int64_t turned_work(const GemmArguments<T>& g) {
  return blocks_work<T>(g.n, g.m, g.k, !g.a_transposed) + kTurnWork * g.m * g.n;
}

}  // namespace

template <class T>
bool dot_pays(const GemmArguments<T>& g) {
  if (!g.b_transposed || g.a_transposed) return false;
  int64_t others = blocks_work<T>(g.m, g.n, g.k, true);
  if (!g.accumulate) others = std::min(others, turned_work(g));
  return g.m * g.n * (round_up(g.k, lanes<T>()) + kReduceWork * lanes<T>() / 16) < others;
}

template <class T>
bool split_pays(int64_t m, int64_t n, int64_t k, bool b_transposed) {
  if (kernels<T>().split_gemm.block == nullptr) return false;
  return round_up(k, kSplitDepth) * split_work(m, n) < blocks_work<T>(m, n, k, b_transposed);
}

int64_t pass_depth(int64_t k) { return k <= kDepthUnsplit ? k : ceil_div(k, ceil_div(k, kDepth)); }

bool bad_row_stride(int64_t stride) { return stride % kPageFloats == 0; }

int64_t good_row_stride(int64_t size) { return bad_row_stride(size) ? size + 16 : size; }

template <class T>
bool bad_to_read(int64_t ldb, int64_t size) {
  return bad_row_stride(ldb) || size * int64_t(sizeof(T)) > kUnpackedBytes;
}

template <class T>
Product<T>::Product(const GemmArguments<T>& g, const GemmSource<T>& source, int64_t threads) : g_(g), source_(source) {
  if (g_.m == 0 || g_.n == 0) return;
  // A vector is a row or a column, whichever is better to read.
  if (g_.m == 1 && g_.a_transposed && g_.lda == 1 && source_.row_sums == nullptr) {
    g_.a_transposed = false;
    g_.lda = g_.k;
  }
  if (g_.n == 1 && !g_.b_transposed && g_.ldb == 1) {
    g_.b_transposed = true;
    g_.ldb = g_.k;
  }
  choose_form();
  choose_cut(threads);
  static Counter dot_form("gemm.dot"), turned_form("gemm.turned"), packed_form("gemm.packed"), plain("gemm.unpacked"),
      sparse_form("gemm.sparse_gradient"), split_form("gemm.split");
  (dot_      ? dot_form
   : sparse_ ? sparse_form
   : split_  ? split_form
   : turned_ ? turned_form
   : pack_b_ ? packed_form
             : plain)
      .add();
}

template <class T>
void Product<T>::choose_form() {
  sparse_ = source_.zeros;
  if (sparse_) {
    pack_a_ = pack_b_ = true;
    return;
  }
  split_ = split_pays<T>(g_.m, g_.n, g_.k, g_.b_transposed);
  if (split_) {
    // A B that is stored by rows is read in slabs of columns, which are wider in shorter passes.
    const int64_t most = g_.k <= kDepthUnsplit || g_.b_transposed ? kDepthUnsplit : kDepth;
    depth_ = ceil_div(ceil_div(g_.k, kSplitDepth), std::max<int64_t>(1, ceil_div(g_.k, most))) * kSplitDepth;
    return;
  }
  const bool plain_source = source_.activation == Activation::none && source_.row_sums == nullptr;
  dot_ = plain_source && dot_pays(g_);
  if (dot_) return;
  turned_ = plain_source && !g_.accumulate && turned_work(g_) < blocks_work<T>(g_.m, g_.n, g_.k, g_.b_transposed);
  if (turned_) {
    std::swap(g_.a, g_.b);
    std::swap(g_.lda, g_.ldb);
    std::swap(g_.m, g_.n);
    std::swap(g_.a_transposed, g_.b_transposed);
    g_.a_transposed = !g_.a_transposed;
    g_.b_transposed = !g_.b_transposed;
  }
  const GemmKernels<T>& kernel = kernels<T>().gemm;
  pack_b_ = g_.b_transposed || (g_.m > kernel.mr && bad_to_read<T>(g_.ldb, g_.k * g_.n));
  pack_a_ = g_.n >= 4 * kernel.nr && (bad_row_stride(g_.lda) || (!g_.a_transposed && g_.k > kDepthUnsplit));
  in_tiles_ = pack_a_ && !g_.a_transposed && source_.activation == Activation::none;
  depth_ = in_tiles_ ? ceil_div(g_.k, std::max<int64_t>(1, ceil_div(g_.k, kDepth))) : pass_depth(g_.k);
}

// The parts whose longest share of a thread is the smallest.
template <class T>
void Product<T>::choose_cut(int64_t threads) {
  row_parts_ = column_parts_ = 1;
  threads_ = threads;
  if (threads == 1) return;
  const int64_t unit = column_unit(), row_unit = split_ ? kSplitBlock : 1;
  const int64_t columns = ceil_div(g_.n, unit);
  // More than one part per thread lets others help a thread that has lost its core; each splits its operands anew.
  const int64_t terms = g_.m * g_.n * g_.k / (split_ ? 8 : sparse_ ? 2 : 1);
  const int64_t least_turns = terms > threads * kLongTask ? 2 : 1;
  int64_t best = INT64_MAX;
  for (int64_t turns = least_turns; turns < least_turns + 3; ++turns) {
    for (int64_t rows = 1; rows <= std::min(ceil_div(g_.m, row_unit), turns * threads); ++rows) {
      const int64_t column_parts = std::min(columns, turns * threads / rows);
      const int64_t m = ceil_div(ceil_div(g_.m, row_unit), rows) * row_unit, n = ceil_div(columns, column_parts) * unit;
      int64_t work = std::max<int64_t>(m, 3) * n + kReadWork * (m + n);
      if (split_) {
        work = split_work(m, n);
        if (column_parts > 1 && g_.ldc % lanes<T>() != 0) work += kSharedLineWork * m / g_.k;
      }
      if (sparse_) {
        work += kBroadcastWork * m * unit * ceil_div(n, kernels<T>().gemm.sparse_columns);
      }
      if (pack_b_) work += kPackWork * n;
      if (pack_a_) work += kPackWork * m;
      work *= ceil_div(rows * column_parts, threads);
      // Threads begin with neighbouring tasks, which are those of a row of parts.
      const bool shared = turned_ ? rows % threads != 0 : rows > 1;
      if (g_.b_is_weight && shared) work += kSharedWork * (turned_ ? g_.m : g_.n);
      if (work < best) {
        best = work;
        row_parts_ = rows;
        column_parts_ = column_parts;
      }
    }
  }
}

template <class T>
int64_t Product<T>::column_unit() const {
  return dot_ ? 1 : split_ ? kSplitBlock : lanes<T>();
}

template Product<float>::Product(const GemmArguments<float>&, const GemmSource<float>&, int64_t);
template Product<double>::Product(const GemmArguments<double>&, const GemmSource<double>&, int64_t);
template int64_t Product<float>::column_unit() const;
template int64_t Product<double>::column_unit() const;
template bool dot_pays(const GemmArguments<float>&);
template bool dot_pays(const GemmArguments<double>&);
template bool split_pays<float>(int64_t, int64_t, int64_t, bool);
template bool split_pays<double>(int64_t, int64_t, int64_t, bool);
template bool bad_to_read<float>(int64_t, int64_t);
template bool bad_to_read<double>(int64_t, int64_t);

}  // namespace pynn::ops
