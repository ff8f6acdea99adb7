#include "bench/bench.h"

#include <benchmark/benchmark.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <random>
#include <sstream>
#include <stdexcept>

#include "bench/peak.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::bench {
namespace {

bool failed = false;

void run_case(benchmark::State& state, Isa isa, int threads, Cost cost, const std::function<Work()>& make) {
  const double peak = cost.bytes > 0 ? copy_rate(isa, threads, cost.bytes) : peak_flops(isa, threads);
  set_active_isa(isa);
  set_num_threads(threads);
  const Work work = make();
  work.run();
  try {
    work.check();
  } catch (const std::runtime_error& error) {
    failed = true;
    state.SkipWithError(error.what());
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) work.run();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double amount = cost.bytes > 0 ? static_cast<double>(cost.bytes) : cost.flops;
  const double rate = amount * static_cast<double>(state.iterations()) / seconds;
  state.counters[cost.bytes > 0 ? "GB/s" : "GFLOP/s"] = 1e-9 * rate;
  state.counters[cost.bytes > 0 ? "%copy" : "%peak"] = 100 * rate / peak;
}

void add_peaks_to_context() {
  for (const Isa isa : usable_isas()) {
    for (const int threads : {1, max_threads()}) {
      std::ostringstream text;
      text << static_cast<int64_t>(1e-9 * peak_flops(isa, threads)) << " GFLOP/s float32";
      benchmark::AddCustomContext("peak/" + std::string(isa_name(isa)) + "/" + std::to_string(threads), text.str());
      if (max_threads() == 1) break;
    }
  }
  const Isa isa = usable_isas().back();
  if (peak_flops(isa, max_threads()) < 0.75 * max_threads() * peak_flops(isa, 1)) {
    benchmark::AddCustomContext("warning", "the machine is busy, or its cores share units: percentages are too high");
  }
}

}  // namespace

Array<float> random_array(int64_t size, float low, float high) {
  static std::minstd_rand engine(1);
  std::uniform_real_distribution<float> uniform(low, high);
  Array<float> array(size);
  for (int64_t i = 0; i < size; ++i) array[i] = uniform(engine);
  return array;
}

Array<float> constant_array(int64_t size, float value) {
  Array<float> array(size);
  for (int64_t i = 0; i < size; ++i) array[i] = value;
  return array;
}

std::vector<int64_t> random_indices(int64_t count, int64_t below) {
  std::minstd_rand engine(2);
  std::uniform_int_distribution<int64_t> uniform(0, below - 1);
  std::vector<int64_t> indices(static_cast<size_t>(count));
  for (int64_t& index : indices) index = uniform(engine);
  return indices;
}

void expect_close(const float* got, const double* want, int64_t size, double terms, double magnitude) {
  const double tolerance = 4 * terms * magnitude * static_cast<double>(std::numeric_limits<float>::epsilon());
  for (int64_t i = 0; i < size; ++i) {
    if (std::abs(static_cast<double>(got[i]) - want[i]) <= tolerance) continue;
    std::ostringstream text;
    text << "wrong result: element " << i << " is " << got[i] << ", expected " << want[i] << " within " << tolerance;
    throw std::runtime_error(text.str());
  }
}

void add_case(const std::string& name, Cost cost, std::function<Work()> make) {
  for (const Isa isa : usable_isas()) {
    for (const int threads : {1, max_threads()}) {
      const std::string full = name + "/" + isa_name(isa) + "/" + std::to_string(threads);
      benchmark::RegisterBenchmark(full.c_str(),
                                   [=](benchmark::State& state) { run_case(state, isa, threads, cost, make); })
          ->UseRealTime()
          ->MinTime(0.1)
          ->Unit(benchmark::kMicrosecond);
      if (max_threads() == 1) break;
    }
  }
}

}  // namespace pynn::bench

int main(int argc, char** argv) {
  using namespace pynn::bench;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  add_conv_cases();
  add_conv_pool_cases();
  add_elementwise_cases();
  add_gemm_cases();
  add_loss_cases();
  add_optim_cases();
  add_pool_cases();
  add_peaks_to_context();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return failed ? 1 : 0;
}
