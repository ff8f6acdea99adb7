#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "harness.h"
#include "runtime/threads.h"

int main(int argc, char** argv) {
  using namespace pynn;
  const char* forced = std::getenv("PYNN_ISA");
  try {
    if (forced != nullptr && *forced != '\0' && std::strcmp(forced, isa_name(active_isa())) != 0) {
      std::fprintf(stderr, "PYNN_ISA=%s, but %s runs\n", forced, isa_name(active_isa()));
      return 1;
    }
  } catch (const std::invalid_argument& error) {
    // Not by an abort, which has failed for CTest even where it is told to skip.
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  std::printf("instruction set %s, %d threads, seed %llu\n", isa_name(active_isa()), num_threads(),
              static_cast<unsigned long long>(test::seed()));
  return doctest::Context(argc, argv).run();
}
