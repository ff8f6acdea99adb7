// Steps of the optimisers over all parameters of the networks that benchmarks/compare.py trains.
#include "ops/optim.h"

#include "bench/bench.h"
#include "reference/optim.h"

namespace pynn::bench {
namespace {

struct Network {
  const char* name;
  std::vector<int64_t> sizes;  // of its parameters
};

const Network kNetworks[] = {
    {"mlp128", {128 * 784, 128, 10 * 128, 10}},
    {"lenet", {6 * 25, 6, 16 * 6 * 25, 16, 120 * 400, 120, 84 * 120, 84, 10 * 84, 10}},
    {"cnn", {32 * 9, 32, 64 * 32 * 9, 64, 128 * 9216, 128, 10 * 128, 10}},
    {"mlp2048", {2048 * 784, 2048, 2048 * 2048, 2048, 10 * 2048, 10}},
};
constexpr int64_t kSamples = 1000;  // elements that are checked

// Arrays of all parameters, and their values before the first step.
struct State {
  std::vector<Array<float>> arrays;
  std::vector<std::vector<float>> before;
  ops::ArrayList<float> list;

  State(const Network& network, float low, float high) {
    for (const int64_t size : network.sizes) {
      arrays.push_back(random_array(size, low, high));
      before.emplace_back(arrays.back().get(), arrays.back().get() + size);
      list.data.push_back(arrays.back().get());
      list.sizes.push_back(size);
    }
  }
};

// Calls step(parameter, element) on samples of all parameters.
template <class Step>
void for_samples(const Network& network, Step step) {
  for (size_t p = 0; p < network.sizes.size(); ++p) {
    for (const int64_t i : random_indices(kSamples, network.sizes[p])) step(p, static_cast<size_t>(i));
  }
}

Work make_sgd(const Network& network) {
  const State params(network, -1, 1), grads(network, -1, 1), buffers(network, -1, 1);
  const ops::SgdOptions options{0.01, 0.9, 0.0, 1e-4, false, false};
  const auto run = [=] { ops::sgd(params.list, {grads.list}, buffers.list, options); };
  const auto check = [=, &network] {
    for_samples(network, [&](size_t p, size_t i) {
      double param = static_cast<double>(params.before[p][i]), buffer = static_cast<double>(buffers.before[p][i]);
      reference::sgd(param, buffer, static_cast<double>(grads.before[p][i]), options);
      expect_close(params.list.data[p] + i, &param, 1, 4);
      expect_close(buffers.list.data[p] + i, &buffer, 1, 4);
    });
  };
  return {run, check};
}

Work make_adam(const Network& network, bool decoupled) {
  const State params(network, -1, 1), grads(network, -1, 1), exp_avgs(network, -1, 1), exp_avg_sqs(network, 0.01f, 1);
  const ops::AdamOptions options{10, 1e-3, 0.9, 0.999, 1e-8, 1e-2, decoupled};
  const auto run = [=] { ops::adam(params.list, {grads.list}, exp_avgs.list, exp_avg_sqs.list, options); };
  const auto check = [=, &network] {
    for_samples(network, [&](size_t p, size_t i) {
      double param = static_cast<double>(params.before[p][i]);
      double exp_avg = static_cast<double>(exp_avgs.before[p][i]);
      double exp_avg_sq = static_cast<double>(exp_avg_sqs.before[p][i]);
      reference::adam(param, exp_avg, exp_avg_sq, static_cast<double>(grads.before[p][i]), options);
      expect_close(params.list.data[p] + i, &param, 1, 4);
      expect_close(exp_avgs.list.data[p] + i, &exp_avg, 1, 4);
      expect_close(exp_avg_sqs.list.data[p] + i, &exp_avg_sq, 1, 4);
    });
  };
  return {run, check};
}

}  // namespace

void add_optim_cases() {
  for (const Network& network : kNetworks) {
    int64_t bytes = 0;
    for (const int64_t size : network.sizes) bytes += 4 * size;
    const std::string name = network.name;
    // Read: parameter, gradient, state; written: parameter, state.
    add_case("sgd_momentum/" + name, {0, 5 * bytes}, [&network] { return make_sgd(network); });
    add_case("adam/" + name, {0, 7 * bytes}, [&network] { return make_adam(network, false); });
    add_case("adamw/" + name, {0, 7 * bytes}, [&network] { return make_adam(network, true); });
  }
}

}  // namespace pynn::bench
