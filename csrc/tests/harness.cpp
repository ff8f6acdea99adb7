#include "harness.h"

#include <cstdlib>

namespace pynn::test {

uint64_t seed() {
  static const uint64_t value = [] {
    const char* text = std::getenv("PYNN_TEST_SEED");
    return text != nullptr ? std::strtoull(text, nullptr, 10) : 20240607ull;
  }();
  return value;
}

std::mt19937_64& generator() {
  static std::mt19937_64 engine(seed());
  return engine;
}

}  // namespace pynn::test
