#include "ops/packed_rows.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>

#include "ops/ceil_div.h"
#include "ops/gemm_product.h"
#include "runtime/counters.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kBlock = 64;  // columns
constexpr int64_t kRowsOfTask = 2048;
constexpr int64_t kShare = 3;                     // of so many elements of a task at most one is not 0
constexpr int64_t kSlack = 16;                    // words of a vector behind the last value, and more
constexpr int64_t kPass = 256;                    // rows of dz that a thread holds
constexpr int64_t kLeastWork = int64_t(1) << 18;  // multiply-adds of the dense product, for more than one thread
constexpr int64_t kChunkBlocks = 2;               // at least, of a chunk

// Columns of x in chunks whose sums are made apart, by the threads that update the rows of the weight that they read.
int64_t chunks_of(int64_t blocks) { return blocks >= 2 * kChunkBlocks ? 2 : 1; }

template <class T>
std::vector<const uint64_t*> records_of(const char* op, const PackedRows<T>& x, const int64_t* numbers, int64_t count) {
  std::vector<const uint64_t*> records(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t number = numbers[i];
    if (number < 0 || number >= x.rows()) {
      throw std::out_of_range(std::string(op) + ": row " + std::to_string(number) + " at position " +
                              std::to_string(i) + " is not one of the " + std::to_string(x.rows()) + " rows of x");
    }
    records[static_cast<size_t>(i)] = x.record(number);
  }
  return records;
}

// Some blocks of some rows, in this thread's scratch.
template <class T>
struct Gathered {
  PackedBlocks<T> x;
  const T** at;
};

template <class T>
Gathered<T> gathered(const uint64_t* const* records, int64_t rows, int64_t blocks, int64_t first, int64_t count) {
  uint64_t* bits = arena::scratch<uint64_t>(arena::Slot::pack_a, count * rows);
  const T** values = arena::scratch<const T*>(arena::Slot::columns, 2 * rows);
  kernels<T>().packed_rows.gather(bits, values, records, rows, blocks, first, count);
  return {{bits, values, rows}, values + rows};
}

}  // namespace

template <class T>
PackedRows<T>::PackedRows(int64_t rows, int64_t columns, int64_t words)
    : columns_(columns), memory_(words), starts_(static_cast<size_t>(rows)) {}

template <class T>
template <class Room, class Row>
std::shared_ptr<const PackedRows<T>> PackedRows<T>::of_rows(int64_t rows, int64_t columns, const Room& room,
                                                            const Row& row) {
  const int64_t tasks = ceil_div(rows, kRowsOfTask), blocks = ceil_div(columns, kBlock);
  std::vector<int64_t> begins = {0};
  for (int64_t task = 0; task < tasks; ++task) {
    const int64_t begin = task * kRowsOfTask, end = std::min(rows, begin + kRowsOfTask);
    const int64_t values = ceil_div(room(begin, end) * int64_t(sizeof(T)), int64_t(sizeof(uint64_t)));
    begins.push_back(begins.back() + (end - begin) * (blocks + 1) + values + kBlock + kSlack);
  }
  std::shared_ptr<PackedRows> packed(new PackedRows(rows, columns, begins.back()));
  std::atomic<bool> fits{true};
  parallel_for(tasks, [&](int64_t task) {
    const auto pack = kernels<T>().packed_rows.pack;
    const int64_t end = std::min(rows, (task + 1) * kRowsOfTask);
    uint64_t* at = packed->memory_.get() + begins[static_cast<size_t>(task)];
    uint64_t* const last = packed->memory_.get() + begins[static_cast<size_t>(task) + 1];
    for (int64_t i = task * kRowsOfTask; i < end && fits.load(std::memory_order_relaxed); ++i) {
      if (last - at < blocks) {
        fits.store(false);
        return;
      }
      packed->starts_[static_cast<size_t>(i)] = at - packed->memory_.get();
      T* values = pack(at, reinterpret_cast<T*>(at + blocks), reinterpret_cast<T*>(last), row(i), columns);
      if (values == nullptr) {
        fits.store(false);
        return;
      }
      const int64_t bytes = reinterpret_cast<char*>(values) - reinterpret_cast<char*>(at);
      at += ceil_div(bytes, int64_t(sizeof(uint64_t)));
    }
  });
  return fits.load() ? packed : nullptr;
}

template <class T>
std::shared_ptr<const PackedRows<T>> PackedRows<T>::of_dense(const T* x, int64_t rows, int64_t columns) {
  const auto room = [=](int64_t begin, int64_t end) { return (end - begin) * columns / kShare; };
  return of_rows(rows, columns, room, [=](int64_t i) { return x + i * columns; });
}

template <class T>
std::shared_ptr<const PackedRows<T>> PackedRows<T>::of_csr(const int64_t* offsets, const int64_t* indices,
                                                           const T* values, int64_t count, int64_t rows,
                                                           int64_t columns) {
  const auto require_range = [=](int64_t begin, int64_t end) {
    if (begin >= 0 && begin <= end && end <= count) return;
    throw std::out_of_range("PackedRows.pack_csr: a row is at " + std::to_string(begin) + " to " + std::to_string(end) +
                            " of " + std::to_string(count) + " values");
  };
  const auto room = [=](int64_t first, int64_t last) {
    require_range(offsets[first], offsets[last]);
    return offsets[last] - offsets[first];
  };
  return of_rows(rows, columns, room, [=](int64_t i) -> const T* {
    T* row = arena::scratch<T>(arena::Slot::tile, columns);
    std::fill(row, row + columns, T(0));
    const int64_t begin = offsets[i], end = offsets[i + 1];
    require_range(begin, end);
    for (int64_t p = begin; p < end; ++p) {
      const int64_t column = indices[p];
      if (column < 0 || column >= columns) {
        throw std::out_of_range("PackedRows.pack_csr: column " + std::to_string(column) + " at position " +
                                std::to_string(p) + " is not one of the " + std::to_string(columns));
      }
      row[column] += values[p];
    }
    return row;
  });
}

template <class T>
void packed_linear(T* y, const PackedRows<T>& x, const int64_t* numbers, const T* weight, const T* bias,
                   Activation activation, int64_t count, int64_t out, int64_t width) {
  static Counter taken("packed_linear");
  taken.add();
  if (count == 0) return;
  const int64_t blocks = ceil_div(x.columns(), kBlock), chunks = chunks_of(blocks);
  const std::vector<const uint64_t*> records = records_of("packed_linear", x, numbers, count);
  const arena::Buffer<T> sums(chunks * count * width), start(width);
  std::fill(std::copy(bias, bias + out, start.get()), start.get() + width, T(0));
  if (blocks == 0) {  // where nothing is multiplied, nothing else begins the sums
    for (int64_t i = 0; i < count; ++i) std::copy(start.get(), start.get() + width, sums.get() + i * width);
  }
  const bool parallel = count * x.columns() * width >= kLeastWork;
  const int64_t threads = parallel ? num_threads() : 1;
  const int64_t parts = std::min(count, ceil_div(threads, chunks));
  parallel_for_if(parallel, chunks * parts, [&](int64_t task) {
    const int64_t chunk = task / parts, begin = count * (task % parts) / parts;
    const int64_t rows = count * (task % parts + 1) / parts - begin;
    const int64_t first = blocks * chunk / chunks, size = blocks * (chunk + 1) / chunks - first;
    const Gathered<T> some = gathered<T>(records.data() + begin, rows, blocks, first, size);
    kernels<T>().packed_rows.multiply(sums.get() + (chunk * count + begin) * width, chunk == 0 ? start.get() : nullptr,
                                      some.x, some.at, weight + first * kBlock * width, width, size);
  });
  const int64_t ranges = std::min(count, threads);
  parallel_for_if(parallel, ranges, [&](int64_t range) {
    const int64_t end = count * (range + 1) / ranges;
    for (int64_t i = count * range / ranges; i < end; ++i) {
      const T* sum = sums.get() + i * width;
      kernels<T>().packed_rows.add(y + i * out, sum, chunks > 1 ? sum + count * width : nullptr,
                                   activation == Activation::relu, out);
      if (activation != Activation::none && activation != Activation::relu) activate(activation, y + i * out, out);
    }
  });
}

template <class T>
void packed_linear_backward(T* dweight, T* dbias, const T* dy, const T* y, const PackedRows<T>& x,
                            const int64_t* numbers, Activation activation, int64_t count, int64_t out, int64_t width) {
  static Counter taken("packed_linear_backward");
  taken.add();
  const int64_t columns = x.columns(), blocks = ceil_div(columns, kBlock);
  const std::vector<const uint64_t*> records = records_of("packed_linear_backward", x, numbers, count);
  if (count == 0) {
    std::fill(dweight, dweight + columns * width, T(0));
    std::fill(dbias, dbias + out, T(0));
    return;
  }
  // Each task makes all of dz: a phase of its own would be waited for.
  const int64_t tasks = std::max<int64_t>(1, std::min<int64_t>(num_threads(), blocks));  // one for dbias at least
  parallel_for_if(count * columns * width >= kLeastWork, tasks, [&](int64_t task) {
    const KernelTable<T>& table = kernels<T>();
    const int64_t first = blocks * task / tasks, end = std::min(columns, blocks * (task + 1) / tasks * kBlock);
    for (int64_t row = 0; row < count; row += kPass) {
      const int64_t rows = std::min(kPass, count - row);
      T* dz = arena::scratch<T>(arena::Slot::pack_b, rows * width);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t at = (row + i) * out;
        activation_backward(activation, dz + i * width, dy + at, y + at, out);
        std::fill(dz + i * width + out, dz + (i + 1) * width, T(0));
      }
      if (task == 0) {
        T* total = row > 0 ? arena::scratch<T>(arena::Slot::tile, out) : dbias;
        table.gemm.column_sums(total, dz, width, rows, out);
        if (row > 0) table.layout.accumulate(dbias, total, out);
      }
      const Gathered<T> some = gathered<T>(records.data() + row, rows, blocks, first, ceil_div(end, kBlock) - first);
      table.packed_rows.dweight(dweight + first * kBlock * width, some.x, some.at, dz, width, end - first * kBlock,
                                row > 0);
    }
  });
}

#define PYNN_INSTANTIATE(T)                                                                                          \
  template class PackedRows<T>;                                                                                      \
  template void packed_linear(T*, const PackedRows<T>&, const int64_t*, const T*, const T*, Activation, int64_t,     \
                              int64_t, int64_t);                                                                     \
  template void packed_linear_backward(T*, T*, const T*, const T*, const PackedRows<T>&, const int64_t*, Activation, \
                                       int64_t, int64_t, int64_t);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
