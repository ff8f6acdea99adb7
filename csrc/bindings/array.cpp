#include "bindings/array.h"

#include <new>

namespace pynn::bindings {

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

std::string dtype_name(const py::array& array) { return py::str(array.dtype()); }

void throw_type(const char* op, const std::string& text) { throw py::type_error(std::string(op) + ": " + text); }
void throw_value(const char* op, const std::string& text) { throw py::value_error(std::string(op) + ": " + text); }
void throw_index(const char* op, const std::string& text) { throw py::index_error(std::string(op) + ": " + text); }

void* allocate(const char* op, const Shape& shape, size_t bytes) {
  try {
    return arena::allocate(bytes);
  } catch (const std::bad_alloc&) {
    const std::string text = std::string(op) + ": no memory for a result of shape " + to_string(shape);
    py::set_error(PyExc_MemoryError, text.c_str());
    throw py::error_already_set();
  }
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

void require_layout(const char* op, const char* name, const py::array& array) {
  namespace detail = py::detail;
  const int flags = array.flags();
  if (!(flags & detail::npy_api::NPY_ARRAY_ALIGNED_) || !(flags & detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_)) {
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

std::vector<int64_t> copy_of(const View<int64_t>& indices) {
  return std::vector<int64_t>(indices.data, indices.data + indices.size);
}

void require_shape(const char* op, const char* name, const Shape& got, const Shape& needed) {
  if (got != needed) throw_value(op, std::string(name) + " is " + to_string(got) + ", needs " + to_string(needed));
}

}  // namespace pynn::bindings
