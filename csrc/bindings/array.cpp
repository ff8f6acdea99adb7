#include "bindings/array.h"

#include <new>
#include <stdexcept>

namespace pynn::bindings {

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string number_text(double value) {
  char* text = PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, nullptr);
  if (text == nullptr) throw py::error_already_set();
  const std::string copy = text;
  PyMem_Free(text);
  return copy;
}

std::string dtype_name(const py::array& array) { return py::str(array.dtype()); }

void throw_type(const char* op, const std::string& text) { throw py::type_error(std::string(op) + ": " + text); }
void throw_value(const char* op, const std::string& text) { throw py::value_error(std::string(op) + ": " + text); }
void throw_index(const char* op, const std::string& text) { throw std::out_of_range(std::string(op) + ": " + text); }
void throw_memory(const char* op, const std::string& text) {
  py::set_error(PyExc_MemoryError, (std::string(op) + ": " + text).c_str());
  throw py::error_already_set();
}

namespace {

py::array next_output(const char* op, const Shape& shape, const py::dtype& dtype) {
  Recorder& r = *recorder();
  if (r.next == r.outputs.size()) throw_value(op, "a recording needs an array for each result");
  py::array output = r.outputs[r.next++];
  if (shape_of(output) != shape || !output.dtype().is(dtype)) {
    throw_value(op, "a recording's array for a result is " + dtype_name(output) + " " + to_string(shape_of(output)) +
                        ", needs " + dtype_name(py::array(dtype, Shape{0})) + " " + to_string(shape));
  }
  require_writeable(op, "a recording's array for a result", output);
  return output;
}

}  // namespace

py::array empty_of(const char* op, const Shape& shape, py::dtype dtype) {
  if (recorder() != nullptr) return next_output(op, shape, dtype);
  const int64_t size = checked_size(op, shape);
  void* block = nullptr;
  try {
    block = arena::allocate(static_cast<size_t>(size) * static_cast<size_t>(dtype.itemsize()));
  } catch (const std::bad_alloc&) {
    throw_memory(op, "no memory for a result of shape " + to_string(shape));
  }
  // Through the C interfaces: py::capsule and py::array would cost as much as the rest of a small operation.
  PyObject* owner =
      PyCapsule_New(block, nullptr, [](PyObject* c) { arena::release(PyCapsule_GetPointer(c, nullptr)); });
  if (owner == nullptr) {
    arena::release(block);
    throw py::error_already_set();
  }
  using Api = py::detail::npy_api;
  static const Api& api = Api::get();
  constexpr int kFlags = Api::NPY_ARRAY_C_CONTIGUOUS_ | Api::NPY_ARRAY_ALIGNED_ | Api::NPY_ARRAY_WRITEABLE_;
  static_assert(sizeof(Py_intptr_t) == sizeof(int64_t));
  const auto* dims = reinterpret_cast<const Py_intptr_t*>(shape.data());
  PyObject* array = api.PyArray_NewFromDescr_(api.PyArray_Type_, dtype.release().ptr(), static_cast<int>(shape.size()),
                                              dims, nullptr, block, kFlags, nullptr);
  if (array == nullptr || api.PyArray_SetBaseObject_(array, owner) != 0) {  // it takes the owner in any case
    if (array == nullptr) Py_DECREF(owner);
    Py_XDECREF(array);
    throw py::error_already_set();
  }
  return py::reinterpret_steal<py::array>(array);
}

int64_t checked_size(const char* op, const Shape& shape) {
  constexpr size_t kMostAxes = 64;                     // NumPy's own limit
  constexpr int64_t kMostElements = int64_t(1) << 43;  // 2^46 bytes of float64
  if (shape.size() > kMostAxes)
    throw_value(op, "a shape of " + std::to_string(shape.size()) + " axes, at most 64 are possible");
  int64_t size = 1;
  bool overflow = false, none = false;
  for (const int64_t n : shape) {
    if (n < 0) throw_value(op, "shape " + to_string(shape) + " has a negative size");
    none = none || n == 0;  // as in NumPy, the other sizes must fit all the same: strides are made of them
    overflow = overflow || __builtin_mul_overflow(size, n == 0 ? 1 : n, &size) || size > kMostElements;
  }
  if (overflow) throw_value(op, "shape " + to_string(shape) + " has more elements than memory can hold");
  return none ? 0 : size;
}

Shape shape_of(const py::array& array) { return Shape(array.shape(), array.shape() + array.ndim()); }

bool is_plain(const py::array& array, bool written) {
  using Api = py::detail::npy_api;
  const int needed = Api::NPY_ARRAY_ALIGNED_ | Api::NPY_ARRAY_C_CONTIGUOUS_ | (written ? Api::NPY_ARRAY_WRITEABLE_ : 0);
  return (array.flags() & needed) == needed;
}

void throw_dtype(const char* op, const char* name, const py::array& array, const std::string& needed,
                 const char* first) {
  const std::string got = dtype_name(array), argument = name;
  if (needed.rfind("float", 0) != 0) {
    throw_type(op, argument + " is " + got + ", needs " + needed + "; convert it with .astype");
  }
  // What a module owns is seldom the odd one: it is the input that came as NumPy's float64.
  if ((argument == "weight" || argument == "running_mean") && (holds<float>(array) || holds<double>(array))) {
    throw_type(op, "input is " + needed + ", " + argument + " is " + got + "; convert the input with .astype(np." +
                       got + ") or the module with .astype(np." + needed + ")");
  }
  throw_type(op,
             argument + " is " + got + ", needs " + needed + " as " + first + " is; convert one of them with .astype");
}

void require_layout(const char* op, const char* name, const py::array& array) {
  if (!is_plain(array, false)) {
    throw_type(op, std::string(name) + " " + to_string(shape_of(array)) +
                       " is not C-contiguous and aligned; pass it through numpy.ascontiguousarray");
  }
}

void require_writeable(const char* op, const char* name, const py::array& array) {
  require_layout(op, name, array);
  if (!array.writeable()) throw_value(op, std::string(name) + " is read-only, and this operation writes to it");
}

void require_range(const char* op, const char* name, const Shape& values, int64_t least) {
  for (const int64_t value : values) {
    if (value < least || value > INT32_MAX) {
      throw_value(op, std::string(name) + " is " + to_string(values) + ", needs " + std::to_string(least) + " to " +
                          std::to_string(INT32_MAX));
    }
  }
}

void require_shape(const char* op, const char* name, const Shape& got, const Shape& needed) {
  if (got != needed) throw_value(op, std::string(name) + " is " + to_string(got) + ", needs " + to_string(needed));
}

}  // namespace pynn::bindings
