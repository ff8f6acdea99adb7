#include "runtime/threads.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "runtime/cpu.h"
#include "runtime/denormals.h"
#include "runtime/jobs.h"

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pynn {
namespace {

using detail::Announcement;
using detail::Count;
using detail::Failure;
using detail::Job;
using detail::Participant;

constexpr int kMostThreads = 256;

int checked_threads(long n, const std::string& given) {
  if (n < 1 || n > kMostThreads) {
    throw std::invalid_argument(given + ", needs an integer from 1 to " + std::to_string(kMostThreads));
  }
  return static_cast<int>(n);
}

// What starts several processes (joblib, Dask, Ray, batch systems) tells numerical libraries their share of the cores
// this way. It may be a list, one number for each nesting level. What is no such number is no concern of ours.
int default_threads() {
  const char* text = std::getenv("OMP_NUM_THREADS");
  const long n = text == nullptr ? 0 : std::strtol(text, nullptr, 10);
  return n >= 1 && n < max_threads() ? static_cast<int>(n) : max_threads();
}

std::atomic<int>& thread_setting() {
  static std::atomic<int> setting = [] {
    const char* text = std::getenv("PYNN_NUM_THREADS");
    if (text == nullptr || *text == '\0') return default_threads();
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    return checked_threads(*end == '\0' ? n : 0, "PYNN_NUM_THREADS is " + std::string(text));
  }();
  return setting;
}

// Set while a thread runs tasks: a nested parallel_for runs inline.
thread_local bool inside_task = false;

thread_local int64_t calls_with_others = 0;

// One job runs at a time; a second thread that asks meanwhile does its tasks itself.
std::atomic<bool> busy{false};

struct Claim {
  Claim() : claimed(!busy.exchange(true, std::memory_order_acquire)) {}
  ~Claim() {
    if (claimed) busy.store(false, std::memory_order_release);
  }
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;
  const bool claimed;
};

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Threads that wait for a job: first spinning for a bounded time, so that the many short jobs of a training step start
// in under a microsecond, then asleep; those beyond num_threads(), where it was lowered, apart. A job ends as soon as
// its pieces are done: a worker that never woke, because another process has its core, is not waited for. One that
// comes late finds nothing to claim. What the caller owns is used only by who has claimed a piece.
class Pool {
 public:
  void run(Job& job) {
    grow(static_cast<int>(job.participants) - 1);
    Failure failure;
    job.failure = &failure;
    const uint64_t number = announcement_.publish(job);
    if (any_asleep()) wake_workers();
    const int64_t done = work(0, job, number);
    for (int spins = 0; done + finished_by_workers(job, number) < job.pieces(); ++spins) {
      if (spins < 4000) {
        relax();
      } else {
        std::this_thread::yield();
      }
    }
    if (failure.happened) std::rethrow_exception(failure.error);
  }

  // Who waits awake finds no job, and waits from now on.
  void keep_awake() { announcement_.publish({}); }

  bool any_asleep() const { return sleeping_.load(std::memory_order_seq_cst) > 0; }

  // After a change of num_threads(): each worker waits where it now belongs.
  void sort_workers() {
    {
      const std::lock_guard<std::mutex> lock(sleep_mutex_);
    }
    needed_.notify_all();
    wake_.notify_all();  // who sleeps and is no longer needed counts no more
  }

 private:
  // Runs pieces, those of the participant's own share first, and returns how many. The caller, participant 0, has the
  // first piece of its share without claiming it.
  int64_t work(int64_t participant, const Job& job, uint64_t number) {
    set_float_mode(job.float_mode);
    inside_task = true;
    int64_t done = 0;
    if (participant == 0) {
      job.run(0);
      ++done;
    }
    for (int64_t other = 0; other < job.participants; ++other) {
      const int64_t owner = (participant + other) % job.participants, pieces = job.pieces();
      const int64_t begin = pieces * owner / job.participants, size = pieces * (owner + 1) / job.participants - begin;
      const int64_t before = done, first = owner == 0 ? 1 : 0;
      for (int64_t i; (i = participants_[owner].claim(number, first, size)) >= 0; ++done) job.run(begin + i);
      if (participant > 0 && done > before) {
        participants_[participant].finished.store(Count(number, done), std::memory_order_release);
      }
    }
    inside_task = false;
    return done;
  }

  int64_t finished_by_workers(const Job& job, uint64_t number) const {
    int64_t pieces = 0;
    for (int64_t p = 1; p < job.participants; ++p) {
      const Count finished = participants_[p].finished.load(std::memory_order_acquire);
      if (finished.job() == number) pieces += finished.pieces();
    }
    return pieces;
  }

  // Where the system refuses a thread, the others do its tasks.
  void grow(int workers) {
    try {
      if (static_cast<int>(workers_.size()) >= workers) return;
#if defined(__linux__)
      core_ = -1;
#endif
      workers_.reserve(static_cast<size_t>(workers));
      while (static_cast<int>(workers_.size()) < workers) {
        std::thread worker([this, id = static_cast<int>(workers_.size()) + 1] { serve(id); });
        workers_.push_back(worker.native_handle());
        worker.detach();
      }
    } catch (const std::system_error&) {
    }
  }

  // The system may wake a thread on the core of the one that woke it, where it waits for milliseconds although another
  // core is idle: the caller has no reason to give way.
  void keep_workers_off_this_core() {
#if defined(__linux__)
    const int here = sched_getcpu();
    if (here < 0 || here == core_) return;
    core_ = here;
    // The caller's own cores, asked anew: who has restricted a running process finds its workers there, too.
    cpu_set_t others;
    if (sched_getaffinity(0, sizeof others, &others) != 0) return;
    CPU_CLR(here, &others);
    if (CPU_COUNT(&others) == 0) return;
    for (const pthread_t worker : workers_) pthread_setaffinity_np(worker, sizeof others, &others);
#endif
  }

  void wake_workers() {
    keep_workers_off_this_core();
    {
      const std::lock_guard<std::mutex> lock(sleep_mutex_);
    }
    wake_.notify_all();
  }

  void serve(int id) {
    for (uint64_t seen = 0;;) {
      wait_until_needed(id);
      const uint64_t number = wait_for_job(id, seen);
      if (number == seen) continue;
      seen = number;
      Job job;
      if (announcement_.read(number, job) && id < job.participants) work(id, job, number);
    }
  }

  // Here wait workers beyond num_threads(), whom no job wakes: they would take cores from those that work.
  void wait_until_needed(int id) {
    if (id < num_threads()) return;
    std::unique_lock<std::mutex> lock(sleep_mutex_);
    needed_.wait(lock, [&] { return id < num_threads(); });
  }

  // Returns the number of another job than `seen`. Once this worker is beyond num_threads(), `seen` as well.
  uint64_t wait_for_job(int id, uint64_t seen) {
    using Clock = std::chrono::steady_clock;
    constexpr auto kSpinTime = std::chrono::microseconds(100);
    const auto start = Clock::now();
    const auto is_new = [seen](uint64_t number) { return number != seen && Announcement::is_complete(number); };
    do {
      for (int i = 0; i < 64; ++i) {
        const uint64_t number = announcement_.number();
        if (is_new(number)) return number;
        relax();
      }
    } while (Clock::now() - start < kSpinTime);
    std::unique_lock<std::mutex> lock(sleep_mutex_);
    sleeping_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, [&] { return is_new(announcement_.number()) || id >= num_threads(); });
    sleeping_.fetch_sub(1, std::memory_order_relaxed);
    const uint64_t number = announcement_.number();
    return is_new(number) ? number : seen;
  }

  Announcement announcement_;
  Participant participants_[kMostThreads];
  std::atomic<int> sleeping_{0};
  std::mutex sleep_mutex_;
  std::condition_variable wake_;    // a job
  std::condition_variable needed_;  // another num_threads()
  std::vector<pthread_t> workers_;
#if defined(__linux__)
  int core_ = -1;  // that the workers are kept off
#endif
};

// Never destroyed: its threads wait in it until the process ends. A forked child has none of them and gets a new pool.
std::atomic<Pool*> pool{nullptr};

void forget_pool_in_child() {
  pool.store(new Pool);
  busy.store(false);
  inside_task = false;
}

Pool& the_pool() {
  static const bool made = [] {
    pool.store(new Pool);
    pthread_atfork(nullptr, nullptr, forget_pool_in_child);
    return true;
  }();
  (void)made;
  return *pool.load(std::memory_order_acquire);
}

}  // namespace

int max_threads() {
  static const int cores = usable_cores();
  return cores;
}

int num_threads() { return thread_setting().load(std::memory_order_relaxed); }

int awake_threads() {
  const int threads = num_threads();
  return threads > 1 && the_pool().any_asleep() ? 1 : threads;
}

void keep_awake() {
  const Claim claim;  // a job that is running keeps them awake
  if (claim.claimed) the_pool().keep_awake();
}

int64_t parallel_calls() { return calls_with_others; }

void set_num_threads(int n) {
  thread_setting().store(checked_threads(n, "set_num_threads: n is " + std::to_string(n)));
  the_pool().sort_workers();
}

namespace detail {

void run_tasks(int64_t tasks, Task task, void* context) {
  if (tasks <= 0) return;
  const int participants = static_cast<int>(std::min<int64_t>(num_threads(), tasks));
  if (participants > 1 && !inside_task) {
    const Claim claim;
    if (claim.claimed) {
      ++calls_with_others;
      Job job{task, context, tasks, participants, float_mode(), nullptr};
      the_pool().run(job);
      return;
    }
  }
  for (int64_t i = 0; i < tasks; ++i) task(context, i);
}

}  // namespace detail
}  // namespace pynn
