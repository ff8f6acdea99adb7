#include <pybind11/stl.h>

#include <new>

#include "bindings/array.h"
#include "ops/peak.h"
#include "runtime/counters.h"
#include "runtime/dispatch.h"
#include "runtime/threads.h"

namespace pynn::bindings {
namespace {

py::dict info() {
  py::list usable;
  for (const Isa isa : usable_isas()) usable.append(isa_name(isa));
  py::dict facts;
  facts["isa"] = isa_name(active_isa());
  facts["isas"] = usable;
  facts["compiler"] = PYNN_COMPILER;
  facts["num_threads"] = num_threads();
  facts["max_threads"] = max_threads();
  return facts;
}

py::dict arena_stats() {
  const arena::Stats stats = arena::stats();
  py::dict result;
  result["bytes_reserved"] = stats.bytes_reserved;
  result["bytes_in_use"] = stats.bytes_in_use;
  result["blocks_in_use"] = stats.blocks_in_use;
  return result;
}

py::dtype to_dtype(const char* op, const py::object& dtype) {
  try {
    return py::dtype::from_args(dtype);
  } catch (const py::error_already_set&) {
    throw_type(op, "dtype is " + py::cast<std::string>(py::repr(dtype)) + ", needs float32 or float64");
  }
}

py::array empty_by_dtype(const Shape& shape, const py::object& dtype) {
  const py::array like(to_dtype("empty", dtype), Shape{0});
  return by_dtype("empty", "dtype", like,
                  [&](auto zero) -> py::array { return empty<decltype(zero)>("empty", shape); });
}

void set_threads(const py::object& n) {
  constexpr const char* op = "set_num_threads";
  const std::string message = "n is " + py::cast<std::string>(py::repr(n)) + ", needs an integer from 1 to 256";
  if (!PyIndex_Check(n.ptr())) throw_type(op, message);
  const py::ssize_t count = PyNumber_AsSsize_t(n.ptr(), nullptr);  // the nearest one, if n is too large
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  if (count != static_cast<int>(count)) throw_value(op, message);
  set_num_threads(static_cast<int>(count));
}

double peak_flops() {
  const Computing scope;
  return ops::peak_flops();
}

double copy_rate(int64_t nbytes) {
  if (nbytes < 1) throw std::invalid_argument("copy_rate: nbytes is " + std::to_string(nbytes) + ", needs at least 1");
  try {
    const Computing scope;
    return ops::copy_rate(nbytes);
  } catch (const std::bad_alloc&) {
    throw_memory("copy_rate", "no memory for two arrays of together " + std::to_string(nbytes) + " bytes");
  }
}

}  // namespace

void bind_runtime(py::module_& m) {
  active_isa();  // a wrong PYNN_ISA or PYNN_NUM_THREADS is reported at import
  num_threads();
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const FloatingPointError& e) {
      py::set_error(PyExc_FloatingPointError, e.what());
    }
  });
  m.def("info", info);
  m.def("num_threads", num_threads,
        "Return how many threads compute: at first PYNN_NUM_THREADS, or one for each core.");
  m.def("set_num_threads", set_threads, py::arg("n"),
        "Compute with `n` threads, the caller included: ValueError unless 1 <= n <= 256.");
  m.def("keep_awake", keep_awake, "Let threads that wait for a call, and do not sleep yet, wait for as long again.");
  m.def("kernel_counts", kernel_counts, "Return how often each kernel ran since the start or `reset_kernel_counts`.");
  m.def("reset_kernel_counts", reset_kernel_counts, "Count again from 0.");
  m.def("arena_stats", arena_stats);
  m.def("peak_flops", peak_flops,
        "Measure how many float32 operations a second the machine can do, 2 per multiply-add.");
  m.def("copy_rate", copy_rate, py::arg("nbytes"),
        "Measure how many bytes a second a copy between two arrays of `nbytes` together reads and writes.");
  m.def("empty", empty_by_dtype, py::arg("shape"), py::arg("dtype"));
}

}  // namespace pynn::bindings
