#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <tuple>

#include "bench/bench.h"
#include "bench/peak.h"
#include "runtime/threads.h"

namespace pynn {

namespace baseline {
void register_peak(bench::PeakLoops&);
}
#if defined(__x86_64__)
namespace avx2 {
void register_peak(bench::PeakLoops&);
}
namespace avx512 {
void register_peak(bench::PeakLoops&);
}
#elif defined(__aarch64__)
namespace neon {
void register_peak(bench::PeakLoops&);
}
#endif

namespace bench {
namespace {

constexpr int kTries = 50;                                     // the best one counts: others may use the machine
constexpr int64_t kRounds = 200000;                            // of multiply_add: about 1 ms
constexpr int64_t kCopied = int64_t(1) << 24;                  // bytes that a try copies at least
constexpr int64_t kLeast = 1 << 14, kMost = int64_t(1) << 27;  // of working sets that are told apart

// The shortest time that run() takes, in seconds.
template <class Run>
double best_time(Run run) {
  double best = 1e9;
  run();
  for (int i = 0; i < kTries; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

double measure_flops(Isa isa, int threads) {
  set_num_threads(threads);
  std::vector<float> sinks(static_cast<size_t>(threads) * 16);  // a cache line each
  std::vector<int64_t> counts(static_cast<size_t>(threads));
  const double seconds = best_time([&] {
    parallel_for(threads, [&](int64_t t) {
      counts[static_cast<size_t>(t)] = peak_loops(isa).multiply_add(&sinks[static_cast<size_t>(t) * 16], kRounds);
    });
  });
  double total = 0;
  for (const int64_t count : counts) total += static_cast<double>(count);
  return total / seconds;
}

double measure_copy(Isa isa, int threads, int64_t bytes) {
  set_num_threads(threads);
  const int64_t size = bytes / 2 / static_cast<int64_t>(sizeof(float)), part = size / threads;
  const Array<float> x = random_array(size), y(size);
  const int64_t times = std::max<int64_t>(1, kCopied / bytes);
  // A thread copies its own part again and again: the cost of starting the threads is not that of copying.
  const double seconds = best_time([&] {
    parallel_for(threads, [&](int64_t t) {
      for (int64_t i = 0; i < times; ++i) peak_loops(isa).copy(y.get() + t * part, x.get() + t * part, part);
    });
  });
  return static_cast<double>(2 * part * threads * times) * sizeof(float) / seconds;
}

}  // namespace

const PeakLoops& peak_loops(Isa isa) {
  static const std::array<PeakLoops, 4> loops = [] {
    std::array<PeakLoops, 4> all{};
    baseline::register_peak(all[static_cast<size_t>(Isa::baseline)]);
#if defined(__x86_64__)
    avx2::register_peak(all[static_cast<size_t>(Isa::avx2)]);
    avx512::register_peak(all[static_cast<size_t>(Isa::avx512)]);
#elif defined(__aarch64__)
    neon::register_peak(all[static_cast<size_t>(Isa::neon)]);
#endif
    return all;
  }();
  return loops[static_cast<size_t>(isa)];
}

double peak_flops(Isa isa, int threads) {
  static std::map<std::tuple<Isa, int>, double> known;
  const auto found = known.find({isa, threads});
  if (found != known.end()) return found->second;
  return known[{isa, threads}] = measure_flops(isa, threads);
}

double copy_rate(Isa isa, int threads, int64_t bytes) {
  static std::map<std::tuple<Isa, int, int64_t>, double> known;
  int64_t rounded = kLeast;
  while (rounded < bytes && rounded < kMost) rounded *= 2;
  const auto found = known.find({isa, threads, rounded});
  if (found != known.end()) return found->second;
  return known[{isa, threads, rounded}] = measure_copy(isa, threads, rounded);
}

}  // namespace bench
}  // namespace pynn
