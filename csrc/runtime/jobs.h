// What threads tell each other of a call of parallel_for: a job, what of it is claimed, and what is finished.
//
// A cache line takes 70 to 150 ns from core to core (Xeon), which is what the overhead of a short job is made of. So a
// job is announced in one line, and each participant has two of its own. Numbers of jobs last for 2^47 of them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>

#include "runtime/threads.h"

namespace pynn::detail {

constexpr size_t kLinePair = 128;  // processors fetch lines in pairs: what changes apart lies in pairs of its own

struct Failure {
  std::atomic<bool> happened{false};
  std::exception_ptr error;
};

// One call of parallel_for. Its tasks are claimed in pieces, of one task each unless there are very many.
struct Job {
  static constexpr int64_t kMostPieces = UINT16_MAX;

  int64_t pieces() const { return std::min(tasks, kMostPieces); }

  void run(int64_t piece) const {
    const int64_t end = tasks * (piece + 1) / pieces();
    for (int64_t i = tasks * piece / pieces(); i < end; ++i) {
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

// Where workers learn of a job: one cache line. Its number is odd while a job is written; who finds another number
// behind reading than before has read nothing.
class alignas(kLinePair) Announcement {
 public:
  // In the one order of all seq_cst operations, as is a worker that counts itself asleep and then looks here once more:
  // either it sees the job, or the caller sees that it sleeps.
  uint64_t number() const { return number_.load(std::memory_order_seq_cst); }

  uint64_t publish(const Job& job) {
    const uint64_t number = number_.load(std::memory_order_relaxed) + 2;
    number_.store(number - 1, std::memory_order_relaxed);
    task_.store(job.task, std::memory_order_release);
    context_.store(job.context, std::memory_order_release);
    tasks_.store(job.tasks, std::memory_order_release);
    participants_.store(job.participants, std::memory_order_release);
    float_mode_.store(job.float_mode, std::memory_order_release);
    failure_.store(job.failure, std::memory_order_release);
    number_.store(number, std::memory_order_seq_cst);
    return number;
  }

  // Returns whether `job` is now the one of this number, which `number` has returned; else its content means nothing.
  bool read(uint64_t number, Job& job) const {
    job.task = task_.load(std::memory_order_acquire);
    job.context = context_.load(std::memory_order_acquire);
    job.tasks = tasks_.load(std::memory_order_acquire);
    job.participants = participants_.load(std::memory_order_acquire);
    job.float_mode = float_mode_.load(std::memory_order_acquire);
    job.failure = failure_.load(std::memory_order_acquire);
    return is_complete(number) && number_.load(std::memory_order_relaxed) == number;
  }

  static bool is_complete(uint64_t number) { return number % 2 == 0; }

 private:
  std::atomic<uint64_t> number_{0};
  std::atomic<Task> task_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<int64_t> tasks_{0};
  std::atomic<int64_t> participants_{0};
  std::atomic<uint64_t> float_mode_{0};
  std::atomic<Failure*> failure_{nullptr};
};

// How many pieces, and of which job: what an earlier job has left behind counts as none, so that nobody resets it.
class Count {
 public:
  Count(uint64_t job, int64_t pieces) : bits_(job << kBits | static_cast<uint64_t>(pieces)) {}
  uint64_t job() const { return bits_ >> kBits; }
  int64_t pieces() const { return static_cast<int64_t>(bits_ & ((uint64_t(1) << kBits) - 1)); }

 private:
  static constexpr int kBits = 16;
  static_assert(Job::kMostPieces < int64_t(1) << kBits);
  uint64_t bits_;
};

// One of the threads that run a job, and its share: the pieces that it begins with, before it helps others.
struct Participant {
  // Returns the next piece of the share, from `first` to `size` - 1, that nobody has claimed, or -1.
  int64_t claim(uint64_t job, int64_t first, int64_t size) {
    for (Count seen = claimed.load(std::memory_order_relaxed);;) {
      if (seen.job() > job) return -1;
      const int64_t piece = seen.job() == job ? seen.pieces() : first;
      if (piece >= size) return -1;
      if (claimed.compare_exchange_weak(seen, Count(job, piece + 1), std::memory_order_relaxed)) return piece;
    }
  }

  // Apart, for the caller waits for the second while the first changes.
  alignas(kLinePair) std::atomic<Count> claimed{Count(0, 0)};   // of the share, by anyone
  alignas(kLinePair) std::atomic<Count> finished{Count(0, 0)};  // by this participant, of any share
};

}  // namespace pynn::detail
