#include "bench/peak.h"

#include <map>
#include <tuple>

#include "ops/peak.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::bench {
namespace {

constexpr int64_t kLeast = 1 << 14, kMost = int64_t(1) << 27;  // bytes of working sets that are told apart

// Each key's value, made on its first use.
template <class Key, class Measure>
double once(std::map<Key, double>& known, const Key& key, Isa isa, int threads, const Measure& measure) {
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  set_active_isa(isa);
  set_num_threads(threads);
  return known[key] = measure();
}

}  // namespace

double peak_flops(Isa isa, int threads) {
  static std::map<std::tuple<Isa, int>, double> known;
  return once(known, {isa, threads}, isa, threads, [] { return ops::peak_flops(); });
}

double copy_rate(Isa isa, int threads, int64_t bytes) {
  static std::map<std::tuple<Isa, int, int64_t>, double> known;
  int64_t rounded = kLeast;
  while (rounded < bytes && rounded < kMost) rounded *= 2;
  return once(known, {isa, threads, rounded}, isa, threads, [=] { return ops::copy_rate(rounded); });
}

}  // namespace pynn::bench
