// Between NumPy arrays and the core: checks that name operation and argument, and outputs in the arena.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "runtime/arena.h"
#include "runtime/denormals.h"
#include "runtime/recording.h"

namespace pynn::bindings {

namespace py = pybind11;
using Shape = std::vector<int64_t>;

std::string to_string(const Shape& shape);  // "[2, 3]"
std::string number_text(double value);      // as Python shows it
std::string dtype_name(const py::array& array);

// Exceptions whose text begins with the operation; throw_index may be called without the GIL.
[[noreturn]] void throw_type(const char* op, const std::string& text);
[[noreturn]] void throw_value(const char* op, const std::string& text);
[[noreturn]] void throw_index(const char* op, const std::string& text);
[[noreturn]] void throw_memory(const char* op, const std::string& text);

// Python's FloatingPointError, which may be thrown without the GIL.
struct FloatingPointError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The product of a shape; ValueError for too many axes, a negative size, or a product that does not fit memory.
int64_t checked_size(const char* op, const Shape& shape);

Shape shape_of(const py::array& array);

// ValueError unless all values are between `least` and the largest int32: sums and products of two cannot overflow.
void require_range(const char* op, const char* name, const Shape& values, int64_t least);

// Whether the array is C-contiguous, aligned and, if `written`, writeable.
bool is_plain(const py::array& array, bool written);

// TypeError unless the array is C-contiguous and aligned.
void require_layout(const char* op, const char* name, const py::array& array);

// The same, and ValueError unless the array is writeable.
void require_writeable(const char* op, const char* name, const py::array& array);

// An argument that was checked: element type, layout, and (by the caller) shape. Not copied: what is launched needs the
// pointer only.
template <class T>
struct View {
  const T* data;
  Shape shape;
  int64_t size;

  View(const T* at, Shape sizes, int64_t count) : data(at), shape(std::move(sizes)), size(count) {}
  View(View&&) = default;
  int64_t ndim() const { return static_cast<int64_t>(shape.size()); }
};

// Whether the elements are native T. NumPy has one descriptor for each of its types, so that comparing pointers, which
// costs nothing, answers for all arrays but those with a descriptor of their own.
template <class T>
bool holds(const py::array& array) {
  static PyObject* const descriptor = py::dtype::of<T>().release().ptr();
  return py::detail::array_proxy(array.ptr())->descr == descriptor || py::isinstance<py::array_t<T>>(array);
}

// TypeError for an array that is not `needed`, the dtype of `first` if that is a float's.
[[noreturn]] void throw_dtype(const char* op, const char* name, const py::array& array, const std::string& needed,
                              const char* first);

// `first` says which array gave the type, in the error.
template <class T>
View<T> view(const char* op, const char* name, const py::array& array, const char* first = "the first array") {
  if (!holds<T>(array)) throw_dtype(op, name, array, dtype_name(py::array_t<T>(0)), first);
  require_layout(op, name, array);
  return {static_cast<const T*>(array.data()), shape_of(array), static_cast<int64_t>(array.size())};
}

// The elements of indices that are to be checked and then used: a copy, which no other Python thread can change in
// between.
inline std::vector<int64_t> copy_of(const int64_t* indices, int64_t n) {
  return std::vector<int64_t>(indices, indices + n);
}

// ValueError unless the view has this shape.
void require_shape(const char* op, const char* name, const Shape& got, const Shape& needed);

// The data of an argument of this shape, null if it is None.
template <class T>
const T* optional_data(const char* op, const char* name, const std::optional<py::array>& array, const Shape& needed,
                       const char* first = "the first array") {
  if (!array) return nullptr;
  const View<T> v = view<T>(op, name, *array, first);
  require_shape(op, name, v.shape, needed);
  return v.data;
}

// Calls fn(T{}) with T = float or double by the array's dtype; TypeError for any other.
template <class Function>
auto by_dtype(const char* op, const char* name, const py::array& array, const Function& fn) {
  if (holds<float>(array)) return fn(float{});
  if (holds<double>(array)) return fn(double{});
  throw_type(op, std::string(name) + " is " + dtype_name(array) + ", needs float32 or float64");
}

struct Links;  // elements.h

// While this thread records (see recording.cpp): where computations go, and the arrays that they are to write to.
struct Recorder {
  Recording& recording;
  std::vector<py::array> outputs;
  Links* chain = nullptr;  // where elementwise ones go instead
  size_t next = 0;
};
inline Recorder*& recorder() {
  static thread_local Recorder* current = nullptr;
  return current;
}

// A new array in the arena, contents undefined, or the next output of the recorder; MemoryError that names the
// operation if there is no room.
py::array empty_of(const char* op, const Shape& shape, py::dtype dtype);

template <class T>
py::array_t<T> empty(const char* op, const Shape& shape) {
  return py::reinterpret_steal<py::array_t<T>>(empty_of(op, shape, py::dtype::of<T>()).release());
}

// What surrounds a computation: other Python threads run, and denormals are 0.
struct Computing {
  py::gil_scoped_release nogil;
  FlushDenormals flush;
};

// Runs the computation of an operation; a thread that records keeps it instead, for the replays. It must own what it
// captures, except for the memory of arrays, which the recording keeps alive.
template <class Compute>
void launch(const Compute& compute) {
  if (recorder() != nullptr) {
    recorder()->recording.add(compute);
    return;
  }
  const Computing scope;
  compute();
}

template <class T>
T* data_of(py::array_t<T>& array) {
  return static_cast<T*>(static_cast<void*>(py::detail::array_proxy(array.ptr())->data));
}

// null if there is none
template <class T>
T* data_of(std::optional<py::array_t<T>>& array) {
  return array ? data_of(*array) : nullptr;
}

// Every family adds its functions to the module.
void bind_runtime(py::module_& m);
void bind_gemm(py::module_& m);
void bind_attention(py::module_& m);
void bind_conv(py::module_& m);
void bind_pool(py::module_& m);
void bind_elementwise(py::module_& m);
void bind_broadcast(py::module_& m);
void bind_reduction(py::module_& m);
void bind_layout(py::module_& m);
void bind_loss(py::module_& m);
void bind_norm(py::module_& m);
void bind_dropout(py::module_& m);
void bind_embedding(py::module_& m);
void bind_recurrent(py::module_& m);
void bind_optim(py::module_& m);
void bind_packed_rows(py::module_& m);
void bind_labels(py::module_& m);
void bind_recording(py::module_& m);

}  // namespace pynn::bindings
