#include "ops/layout.h"

#include <algorithm>
#include <cstring>

#include "ops/ceil_div.h"
#include "runtime/counters.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::ops {
namespace {

constexpr int64_t kElementsPerTask = 16384;  // a smaller part is not worth waking a thread for
constexpr int64_t kBytesPerTask = 65536;
constexpr int64_t kFetchedBytes = 4096;  // of the next row to take: longer ones are as quick without

// The same box with as few axes as possible: those of size 1 are dropped, and neighbours that both arrays step through
// evenly become one. Empty for a single element.
std::vector<CopyAxis> merge_axes(const std::vector<CopyAxis>& axes) {
  std::vector<CopyAxis> merged;
  for (const CopyAxis& axis : axes) {
    if (axis.size == 1) continue;
    if (!merged.empty() && merged.back().dst_stride == axis.size * axis.dst_stride &&
        merged.back().src_stride == axis.size * axis.src_stride) {
      merged.back() = {merged.back().size * axis.size, axis.dst_stride, axis.src_stride};
    } else {
      merged.push_back(axis);
    }
  }
  return merged;
}

// Calls body(dst offset, src offset) for the indices begin..end-1 of a box, in row-major order.
template <class Body>
void for_offsets(const std::vector<CopyAxis>& axes, int64_t begin, int64_t end, const Body& body) {
  std::vector<int64_t> index(axes.size());
  int64_t dst = 0, src = 0, rest = begin;
  for (size_t a = axes.size(); a-- > 0;) {
    index[a] = rest % axes[a].size;
    rest /= axes[a].size;
    dst += index[a] * axes[a].dst_stride;
    src += index[a] * axes[a].src_stride;
  }
  for (int64_t i = begin; i < end; ++i) {
    body(dst, src);
    for (size_t a = axes.size(); a-- > 0;) {
      dst += axes[a].dst_stride;
      src += axes[a].src_stride;
      if (++index[a] < axes[a].size) break;
      dst -= axes[a].size * axes[a].dst_stride;
      src -= axes[a].size * axes[a].src_stride;
      index[a] = 0;
    }
  }
}

int64_t box_size(const std::vector<CopyAxis>& axes) {
  int64_t size = 1;
  for (const CopyAxis& axis : axes) size *= axis.size;
  return size;
}

}  // namespace

template <class T>
void strided_copy(T* dst, const T* src, std::vector<CopyAxis> axes) {
  static Counter rows_path("copy.rows"), transpose_path("copy.transpose");
  const LayoutKernels<T>& kernel = kernels<T>().layout;
  if (box_size(axes) == 0) return;
  axes = merge_axes(axes);
  if (axes.empty()) {
    *dst = *src;
    return;
  }
  const CopyAxis inner = axes.back();
  axes.pop_back();

  // dst runs along `inner` and src along another axis: pairs of the two are matrices to transpose.
  const auto along_src = std::find_if(axes.begin(), axes.end(), [](const CopyAxis& a) { return a.src_stride == 1; });
  if (inner.dst_stride == 1 && inner.src_stride != 1 && along_src != axes.end()) {
    transpose_path.add();
    const CopyAxis rows = *along_src;
    axes.erase(along_src);
    constexpr int64_t kRowsPerTask = 64;
    const int64_t row_parts = ceil_div(rows.size, kRowsPerTask), outer = box_size(axes);
    const int64_t per_part = std::min(rows.size, kRowsPerTask) * inner.size;
    parallel_ranges(outer * row_parts, 1 + kElementsPerTask / per_part, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        const int64_t first = part % row_parts * kRowsPerTask, n = std::min(kRowsPerTask, rows.size - first);
        for_offsets(axes, part / row_parts, part / row_parts + 1, [&](int64_t to, int64_t from) {
          kernel.transpose(dst + to + first * rows.dst_stride, rows.dst_stride, src + from + first, inner.src_stride,
                           inner.size, n);
        });
      }
    });
    return;
  }

  rows_path.add();
  const auto copy_rows = [&](int64_t begin, int64_t end, int64_t first, int64_t n) {
    for_offsets(axes, begin, end, [&](int64_t to, int64_t from) {
      kernel.copy(dst + to + first * inner.dst_stride, inner.dst_stride, src + from + first * inner.src_stride,
                  inner.src_stride, n);
    });
  };
  const int64_t rows = box_size(axes);
  if (rows < 4 * num_threads() && inner.size >= 2 * kElementsPerTask) {  // too few to share
    parallel_ranges(inner.size, kElementsPerTask,
                    [&](int64_t begin, int64_t end) { copy_rows(0, rows, begin, end - begin); });
  } else {
    parallel_ranges(rows, 1 + kElementsPerTask / inner.size,
                    [&](int64_t begin, int64_t end) { copy_rows(begin, end, 0, inner.size); });
  }
}

template <class T>
void fill(T* y, T value, int64_t n) {
  parallel_ranges(n, kElementsPerTask,
                  [&](int64_t begin, int64_t end) { kernels<T>().layout.fill(y + begin, value, end - begin); });
}

void take_rows(void* y, const void* x, const int64_t* rows, int64_t count, int64_t row_bytes) {
  if (row_bytes == 0) return;
  auto* to = static_cast<char*>(y);
  const auto* from = static_cast<const char*>(x);
  const auto length = static_cast<size_t>(row_bytes);
  parallel_ranges(count, 1 + kBytesPerTask / row_bytes, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t b = 0; i + 1 < end && b < std::min(row_bytes, kFetchedBytes); b += 64) {
        __builtin_prefetch(from + rows[i + 1] * row_bytes + b);
      }
      std::memcpy(to + i * row_bytes, from + rows[i] * row_bytes, length);
    }
  });
}

template <class T>
void embedding_backward(T* dweight, const T* dy, int64_t ldy, const int64_t* indices, int64_t count, int64_t dim) {
  // Split by columns: a row that is named twice is added to in the order of the indices.
  const int64_t grain = count * dim < kElementsPerTask ? dim : 64;
  parallel_ranges(dim, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < count; ++i) {
      kernels<T>().layout.accumulate(dweight + indices[i] * dim + begin, dy + i * ldy + begin, end - begin);
    }
  });
}

#define PYNN_INSTANTIATE(T)                                        \
  template void strided_copy(T*, const T*, std::vector<CopyAxis>); \
  template void fill(T*, T, int64_t);                              \
  template void embedding_backward(T*, const T*, int64_t, const int64_t*, int64_t, int64_t);
PYNN_INSTANTIATE(float)
PYNN_INSTANTIATE(double)

}  // namespace pynn::ops
