// The one place that owns threads: parallel_for over tasks, and the number of threads.
//
// Results must not depend on the number of threads: split work by output, or into a number of tasks that the shape
// alone decides and add their results in order.
#pragma once

#include <cstdint>

namespace pynn {

int num_threads();
int max_threads();    // the cores this process may use
int awake_threads();  // num_threads(), or 1 while one of its workers sleeps: for work that is done before one is awake
void keep_awake();    // workers that are not asleep wait anew: between two calls, for one that comes later
void set_num_threads(int n);  // throws std::invalid_argument unless 1 <= n <= 256

int64_t parallel_calls();  // how many calls this thread has made that woke other threads

namespace detail {
using Task = void (*)(void* context, int64_t task);
void run_tasks(int64_t tasks, Task task, void* context);
}  // namespace detail

// Calls fn(task) once for each task in 0..tasks-1 and returns when all are done. Each thread begins with its own run of
// neighbouring tasks, the same in every call, so that data stays in its cache, and then helps the others. The first
// exception is thrown here. Nested calls, and calls while another thread's are running, run on the calling thread.
template <class Function>
void parallel_for(int64_t tasks, const Function& fn) {
  if (tasks == 1) {
    fn(int64_t(0));
    return;
  }
  detail::run_tasks(
      tasks, [](void* context, int64_t task) { (*static_cast<const Function*>(context))(task); },
      const_cast<void*>(static_cast<const void*>(&fn)));
}

// The same, on this thread alone unless `parallel`: for work that another thread is not worth waking for.
template <class Function>
void parallel_for_if(bool parallel, int64_t tasks, const Function& fn) {
  if (parallel) return parallel_for(tasks, fn);
  for (int64_t task = 0; task < tasks; ++task) fn(task);
}

// Splits 0..size-1 into ranges of a multiple of `grain` (the last may be shorter), one per thread where size allows,
// and calls fn(begin, end) for each: for work in which an output does not depend on the range it falls in.
template <class Function>
void parallel_ranges(int64_t size, int64_t grain, const Function& fn) {
  if (size <= 0) return;
  const int64_t grains = (size + grain - 1) / grain;
  const int64_t threads = num_threads();
  // A few ranges per thread, so that a thread that loses its core delays only a part of its share.
  const int64_t ranges = threads == 1 ? 1 : (grains < 4 * threads ? grains : 4 * threads);
  parallel_for(ranges, [&](int64_t r) {
    const int64_t begin = grains * r / ranges * grain;
    const int64_t end = grains * (r + 1) / ranges * grain;
    fn(begin, end < size ? end : size);
  });
}

}  // namespace pynn
