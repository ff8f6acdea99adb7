// Arguments of linear layers, which their own functions and the optimisers' take.
#pragma once

#include <cstdint>
#include <string>

#include "bindings/array.h"
#include "ops/gemm.h"

namespace pynn::bindings {

// ValueError for an unknown name.
ops::Activation activation_from_name(const char* op, const std::string& name);

// The sizes of x [..., in] and weight [out, in], checked against each other.
struct LinearSizes {
  int64_t rows, in, out;
};
LinearSizes linear_sizes(const char* op, const Shape& x, const Shape& weight);

}  // namespace pynn::bindings
