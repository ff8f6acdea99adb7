// What threads tell each other of a call of parallel_for: a job, what of it is claimed, and what is finished.
//
// A cache line takes 70 to 150 ns from core to core (Xeon), which is what the overhead of a short job is made of. So a
// job is announced in one line, and each participant has two of its own.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>

#include "runtime/threads.h"

namespace pynn::detail {

// Beside each other, two of these would be fetched together.
constexpr size_t kLinePair = 128;

struct Failure {
  std::atomic<bool> happened{false};
  std::exception_ptr error;
};

// One call of parallel_for. Its tasks are claimed in pieces: as a rule one task each, more where there are very many.
struct Job {
  static constexpr int64_t kMostPieces = UINT16_MAX;

  int64_t pieces() const { return std::min(tasks, kMostPieces); }

  void run(int64_t piece) const {
    for (int64_t i = tasks * piece / pieces(); i < tasks * (piece + 1) / pieces(); ++i) {
      try {
        task(context, i);
      } catch (...) {  // carried to the caller of parallel_for
        if (!failure->happened.exchange(true)) failure->error = std::current_exception();
      }
    }
  }

  Task task = nullptr;
  void* context = nullptr;
  int64_t tasks = 0;
  int64_t participants = 0;
  uint64_t float_mode = 0;  // the caller's: a task's bits do not depend on its thread
  Failure* failure = nullptr;
};

// Where workers learn of a job: one cache line. Who reads while the next job is written notices, by its number, which
// is odd until then.
class alignas(kLinePair) Announcement {
 public:
  uint64_t number() const { return number_.load(std::memory_order_acquire); }

  uint64_t publish(const Job& job) {
    const uint64_t number = number_.load(std::memory_order_relaxed) + 2;
    number_.store(number - 1, std::memory_order_relaxed);
    task_.store(job.task, std::memory_order_release);
    context_.store(job.context, std::memory_order_release);
    tasks_.store(job.tasks, std::memory_order_release);
    participants_.store(job.participants, std::memory_order_release);
    float_mode_.store(job.float_mode, std::memory_order_release);
    failure_.store(job.failure, std::memory_order_release);
    number_.store(number, std::memory_order_release);
    return number;
  }

  // Returns whether `job` is the one of this number: not if another has been announced.
  bool read(uint64_t number, Job& job) const {
    job.task = task_.load(std::memory_order_acquire);
    job.context = context_.load(std::memory_order_acquire);
    job.tasks = tasks_.load(std::memory_order_acquire);
    job.participants = participants_.load(std::memory_order_acquire);
    job.float_mode = float_mode_.load(std::memory_order_acquire);
    job.failure = failure_.load(std::memory_order_acquire);
    return number_.load(std::memory_order_relaxed) == number;
  }

 private:
  std::atomic<uint64_t> number_{0};
  std::atomic<Task> task_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<int64_t> tasks_{0};
  std::atomic<int64_t> participants_{0};
  std::atomic<uint64_t> float_mode_{0};
  std::atomic<Failure*> failure_{nullptr};
};

// A number of pieces, and of the job that they belong to: what an earlier job has left behind counts as none, so that
// nobody has to reset it.
class Count {
 public:
  Count(uint64_t job, int64_t pieces) : bits_(job << kBits | static_cast<uint64_t>(pieces)) {}
  uint64_t job() const { return bits_ >> kBits; }
  int64_t pieces() const { return static_cast<int64_t>(bits_ & Job::kMostPieces); }

 private:
  static constexpr int kBits = 16;
  uint64_t bits_;
};

// A participant's run of a job's pieces.
struct Share {
  // Returns the next piece that nobody has claimed, or -1. Of the caller's share, it has the first.
  int64_t claim(uint64_t job, int64_t size, bool is_callers) {
    for (Count seen = claimed.load(std::memory_order_relaxed);;) {
      if (seen.job() > job) return -1;
      const int64_t piece = seen.job() == job ? seen.pieces() : is_callers ? 1 : 0;
      if (piece >= size) return -1;
      if (claimed.compare_exchange_weak(seen, Count(job, piece + 1), std::memory_order_relaxed)) return piece;
    }
  }

  // Apart, for the caller waits for the second while the first changes.
  alignas(kLinePair) std::atomic<Count> claimed{Count(0, 0)};
  alignas(kLinePair) std::atomic<Count> finished{Count(0, 0)};  // by this participant, whosever share they were of
};

}  // namespace pynn::detail
