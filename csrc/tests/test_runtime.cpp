#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "harness.h"
#include "runtime/arena.h"
#include "runtime/counters.h"
#include "runtime/denormals.h"
#include "runtime/jobs.h"
#include "runtime/threads.h"

#if defined(PYNN_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>  // after doctest, which it breaks
#endif

using namespace pynn;
using namespace pynn::test;

TEST_CASE("parallel_for runs every task once") {
  for (const int64_t tasks : {0, 1, 2, 3, 7, 100, 10000, 65535, 65536, 200003}) {
    std::vector<std::atomic<int>> calls(static_cast<size_t>(tasks));
    parallel_for(tasks, [&](int64_t i) { calls[static_cast<size_t>(i)].fetch_add(1); });
    for (const auto& count : calls) REQUIRE(count == 1);
  }
}

TEST_CASE("a share gives each of its pieces once, and nothing of a job that is over") {
  detail::Participant owner;
  for (const int64_t piece : {0, 1, 2, -1, -1}) CHECK(owner.claim(2, 0, 3) == piece);
  CHECK(owner.claim(4, 0, 2) == 0);
  CHECK(owner.claim(2, 0, 3) == -1);
  CHECK(owner.claim(4, 0, 2) == 1);
  for (const int64_t piece : {1, 2, -1}) CHECK(owner.claim(6, 1, 3) == piece);
  CHECK(owner.claim(8, 1, 1) == -1);
  for (int64_t piece = 0; piece < detail::Job::kMostPieces; ++piece) {
    REQUIRE(owner.claim(10, 0, detail::Job::kMostPieces) == piece);
  }
  CHECK(owner.claim(10, 0, detail::Job::kMostPieces) == -1);
}

TEST_CASE("what is read of an announcement is one job, whole, or nothing") {
  detail::Announcement announcement;
  std::vector<char> places(50000);
  const auto nth = [&](int64_t n) {
    detail::Job job;
    job.context = &places[static_cast<size_t>(n)];
    job.tasks = job.participants = n;
    job.float_mode = static_cast<uint64_t>(n);
    return job;
  };
  std::atomic<bool> done{false};
  std::thread writer([&] {
    for (int64_t n = 1; n < int64_t(places.size()); ++n) announcement.publish(nth(n));
    done = true;
  });
  int64_t torn = 0, latest = 0;
  for (bool last = false; !last;) {
    last = done;
    const uint64_t number = announcement.number();
    detail::Job job;
    if (number == 0 || !announcement.read(number, job)) continue;
    latest = int64_t(number / 2);
    const bool whole = job.tasks == latest && job.participants == latest && job.float_mode == uint64_t(latest) &&
                       job.context == &places[static_cast<size_t>(latest)];
    torn += !whole;
  }
  writer.join();
  CHECK(torn == 0);
  CHECK(latest == int64_t(places.size()) - 1);
  detail::Job job;
  CHECK_FALSE(announcement.read(announcement.number() - 1, job));
  CHECK_FALSE(announcement.read(announcement.number() - 2, job));
}

TEST_CASE("workers that come late run nothing of a job that is over") {
  const int before = num_threads();
  struct Calls {
    std::atomic<bool> over{false};
    std::atomic<int> of[9];
  };
  std::vector<Calls> jobs(64);  // not freed after a job, so that a late call is counted
  std::atomic<int> late{0};
  for (int repeat = 0; repeat < 3000; ++repeat) {
    const int threads[] = {2, 5, 3, 8};
    if (repeat % 500 == 0) set_num_threads(threads[repeat / 500 % 4]);
    Calls& job = jobs[static_cast<size_t>(repeat) % jobs.size()];
    for (auto& calls : job.of) calls = 0;
    job.over = false;
    const int64_t tasks = 2 + repeat % 8;
    parallel_for(tasks, [&](int64_t i) {
      if (job.over) ++late;
      ++job.of[i];
    });
    job.over = true;
    for (int64_t i = 0; i < tasks; ++i) REQUIRE(job.of[i] == 1);
  }
  CHECK(late == 0);
  set_num_threads(before);
}

TEST_CASE("a worker computes in the caller's float mode, and what it throws reaches the caller") {
  const int before = num_threads();
  set_num_threads(2);
  const FlushDenormals flush;
  const volatile float denormal = 1e-40f;
  int by_worker = 0;
  for (int attempt = 0; attempt < 1000 && by_worker < 3; ++attempt) {  // on a busy machine the caller may run both
    const auto caller = std::this_thread::get_id();
    std::atomic<bool> begun{false}, flushed{false}, elsewhere{false};
    const auto task = [&](int64_t i) {
      for (int spins = 0; i == 0 && !begun && spins < 1000000; ++spins) std::this_thread::yield();
      if (i == 0) return;
      begun = true;
      flushed = denormal * 2 == 0;
      elsewhere = std::this_thread::get_id() != caller;
      throw std::runtime_error("one");
    };
    CHECK_THROWS_WITH(parallel_for(2, task), "one");
    CHECK(flushed);
    by_worker += elsewhere;
  }
  CHECK(by_worker == 3);
  set_num_threads(before);
}

TEST_CASE("parallel_ranges covers everything once, in multiples of the grain") {
  for (const int64_t size : {0, 1, 63, 64, 65, 1000, 100003}) {
    std::vector<std::atomic<int>> calls(static_cast<size_t>(size));
    parallel_ranges(size, 64, [&](int64_t begin, int64_t end) {
      CHECK(begin % 64 == 0);
      for (int64_t i = begin; i < end; ++i) calls[static_cast<size_t>(i)].fetch_add(1);
    });
    for (const auto& count : calls) REQUIRE(count == 1);
  }
}

TEST_CASE("an exception in a task reaches the caller, and the threads go on working") {
  const auto fails = [](int64_t i) {
    if (i == 5) throw std::runtime_error("five");
  };
  CHECK_THROWS_WITH(parallel_for(100, fails), "five");
  std::atomic<int> calls{0};
  parallel_for(100, [&](int64_t) { ++calls; });
  CHECK(calls == 100);
}

TEST_CASE("nested and concurrent calls complete") {
  std::atomic<int64_t> sum{0};
  const auto work = [&] {
    for (int repeat = 0; repeat < 50; ++repeat) {
      parallel_for(8, [&](int64_t) { parallel_for(8, [&](int64_t i) { sum += i; }); });
    }
  };
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) callers.emplace_back(work);
  for (std::thread& caller : callers) caller.join();
  CHECK(sum == 4 * 50 * 8 * 28);
}

TEST_CASE("a forked child can use the threads") {
  parallel_for(64, [](int64_t) {});  // the parent's workers exist, the child's do not
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::atomic<int> calls{0};
    for (int repeat = 0; repeat < 10; ++repeat) parallel_for(64, [&](int64_t) { ++calls; });
    arena::release(arena::allocate(1000));
    _exit(calls == 640 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

TEST_CASE("set_num_threads refuses nonsense") {
  const int before = num_threads();
  CHECK_THROWS_AS(set_num_threads(0), std::invalid_argument);
  CHECK_THROWS_AS(set_num_threads(-3), std::invalid_argument);
  CHECK_THROWS_AS(set_num_threads(100000), std::invalid_argument);
  CHECK(num_threads() == before);
}

TEST_CASE("arena blocks are aligned, disjoint, reused and accounted for") {
  const arena::Stats before = arena::stats();
  std::vector<void*> blocks;
  for (const size_t bytes :
       {size_t(0), size_t(1), size_t(64), size_t(65), size_t(1000), size_t(1) << 20, size_t(5) << 20}) {
    void* block = arena::allocate(bytes);
    CHECK(reinterpret_cast<uintptr_t>(block) % arena::kAlignment == 0);
    std::memset(block, int(blocks.size()) + 1, bytes);
    blocks.push_back(block);
  }
  CHECK(arena::stats().blocks_in_use == before.blocks_in_use + int64_t(blocks.size()));
  CHECK(static_cast<unsigned char*>(blocks[4])[999] == 5);
  void* const last = blocks.back();
  for (void* block : blocks) arena::release(block);
  CHECK(arena::stats().blocks_in_use == before.blocks_in_use);
  CHECK(arena::stats().bytes_in_use == before.bytes_in_use);
  void* again = arena::allocate(size_t(5) << 20);
  CHECK(again == last);
  arena::release(again);
  CHECK_THROWS_AS(arena::allocate(size_t(1) << 60), std::bad_alloc);
}

#if defined(PYNN_ADDRESS_SANITIZER)
TEST_CASE("AddressSanitizer knows what of a block is usable") {
  char* block = static_cast<char*>(arena::allocate(1000));
  CHECK(__asan_address_is_poisoned(block + 999) == 0);
  CHECK(__asan_address_is_poisoned(block + 1000) == 1);
  arena::release(block);
  CHECK(__asan_address_is_poisoned(block) == 1);
  char* scratch = arena::scratch<char>(arena::Slot::tile, 2000);
  CHECK(arena::scratch<char>(arena::Slot::tile, 1000) == scratch);
  CHECK(__asan_address_is_poisoned(scratch + 1000) == 1);
}
#endif

TEST_CASE("a size class wastes at most a quarter") {
  for (size_t bytes = 65; bytes < (size_t(1) << 22); bytes = bytes * 17 / 16 + 1) {
    const int64_t before = arena::stats().bytes_in_use;
    void* block = arena::allocate(bytes);
    const int64_t taken = arena::stats().bytes_in_use - before;
    arena::release(block);
    REQUIRE(taken >= int64_t(bytes));
    REQUIRE(taken <= int64_t(bytes) * 5 / 4 + 64);
  }
}

TEST_CASE("awake_threads is all threads or the caller alone") {
  const int before = num_threads();
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    parallel_for(100, [](int64_t) {});
    const int awake = awake_threads();
    CHECK((awake == 1 || awake == threads));
  }
  set_num_threads(before);
}

TEST_CASE("keep_awake lets workers wait for longer than they would, and wakes nobody") {
  using Clock = std::chrono::steady_clock;
  const int before = num_threads();
  set_num_threads(2);
  const auto for_a_millisecond = [](const auto& each) {  // ten times as long as workers wait
    const auto start = Clock::now();
    while (Clock::now() - start < std::chrono::milliseconds(1)) each();
  };
  // Counted in many attempts: on a busy machine, the worker may get its core late.
  int kept = 0, left = 0, slept_on = 0;
  for (int attempt = 0; attempt < 1000 && (kept < left + 10 || slept_on == 0); ++attempt) {
    parallel_for(2, [](int64_t) {});
    for_a_millisecond(keep_awake);
    if (awake_threads() == 2) ++kept;

    parallel_for(2, [](int64_t) {});
    for_a_millisecond([] {});
    if (awake_threads() == 2) {
      ++left;
      continue;
    }
    keep_awake();
    bool sleeps = true;
    for_a_millisecond([&] { sleeps = sleeps && awake_threads() == 1; });
    if (sleeps) ++slept_on;
  }
  CHECK(kept >= left + 10);
  CHECK(slept_on > 0);
  set_num_threads(before);
}

TEST_CASE("counters count since the last reset") {
  static Counter taken("test.path");
  reset_kernel_counts();
  CHECK(kernel_counts().count("test.path") == 0);
  taken.add();
  taken.add();
  CHECK(kernel_counts().at("test.path") == 2);
}

TEST_CASE("the forced instruction set runs") {
  const Isa before = active_isa();
  for (const Isa isa : usable_isas()) {
    set_active_isa(isa);
    CHECK(active_isa() == isa);
    CHECK(&kernels<float>() == &kernel_set(isa).f32);
  }
  set_active_isa(before);
  CHECK_THROWS_AS(isa_from_name("avx1024"), std::invalid_argument);
}
