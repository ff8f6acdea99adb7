#include "runtime/recording.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>

#include "bindings/elements.h"

namespace pynn::bindings {

namespace {

// Calls function(*args), which is one of this module, without computing: its computation becomes that of step `at`,
// and writes its results to `outputs`. With `scratch` it calls elementwise functions of this module, which become one
// computation; those of their results that are in `scratch` stay with the threads.
void record(Recording& recording, int64_t at, const py::function& function, const py::tuple& args,
            const std::vector<py::array>& outputs, const std::optional<std::vector<py::array>>& scratch) {
  if (at < 0 || at > recording.size())
    throw_value("Recording.record", "step " + std::to_string(at) + " is out of range");
  Links chain;
  Recorder current{recording, outputs, scratch ? &chain : nullptr};
  struct Scope {
    explicit Scope(Recorder* r) : before(recorder()) { recorder() = r; }
    ~Scope() { recorder() = before; }
    Recorder* before;
  };
  recording.discard();  // of a call that was refused
  {
    const Scope scope(&current);
    function(*args);
  }
  if (scratch) {
    if (recording.is_pending()) throw_value("Recording.record", "a chain takes elementwise operations only");
    std::vector<char*> untouched;
    size_t arrays = 0;
    for (const ops::Link& link : chain.links) arrays += link.arrays.size();
    if (arrays > static_cast<size_t>(ops::Chain::kMostArrays)) {
      throw_value("Recording.record", "a chain of " + std::to_string(arrays) + " arrays, needs at most " +
                                          std::to_string(ops::Chain::kMostArrays));
    }
    for (const py::array& array : *scratch) untouched.push_back(static_cast<char*>(const_cast<void*>(array.data())));
    recording.add([run = ops::Chain(std::move(chain.links), untouched, chain.n, chain.width)] { run.run(); });
  }
  recording.put(at);
}

int64_t run(Recording& recording, int64_t begin, std::optional<int64_t> end) {
  const int64_t last = end.value_or(recording.size());
  if (begin < 0 || begin > last || last > recording.size()) {
    throw_value("Recording.run", "steps " + std::to_string(begin) + " to " + std::to_string(last) + " of " +
                                     std::to_string(recording.size()));
  }
  const Computing scope;
  return recording.run(begin, last);
}

using Api = py::detail::npy_api;

// The array whose memory this is a view of.
PyObject* owner(PyObject* array) {
  for (;;) {
    PyObject* base = py::detail::array_proxy(array)->base;
    if (base == nullptr || !Api::get().PyArray_Check_(base)) return array;
    array = base;
  }
}

py::object memory(PyObject* array) { return py::reinterpret_steal<py::object>(PyLong_FromVoidPtr(owner(array))); }

// Copies nested lists and tuples with change(array) in place of each array.
template <class Change>
py::object changed(PyObject* value, const Change& change) {
  if (Api::get().PyArray_Check_(value)) return change(py::reinterpret_borrow<py::array>(value));
  const bool is_tuple = PyTuple_Check(value);
  if (!is_tuple && !PyList_Check(value)) return py::reinterpret_borrow<py::object>(value);
  if (Py_EnterRecursiveCall(" in nested arguments") != 0) throw py::error_already_set();
  struct Scope {
    ~Scope() { Py_LeaveRecursiveCall(); }
  } const scope;
  auto items = py::reinterpret_steal<py::list>(PySequence_List(value));
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items.ptr()); ++i) {
    PyObject* item = PyList_GET_ITEM(items.ptr(), i);
    if (PyLong_CheckExact(item) || PyFloat_CheckExact(item)) continue;
    PyList_SetItem(items.ptr(), i, changed(item, change).release().ptr());
  }
  if (is_tuple) return py::reinterpret_steal<py::object>(PyList_AsTuple(items.ptr()));
  return items;
}

py::tuple arrays_in(const py::object& value) {
  py::list arrays, numbers;
  changed(value.ptr(), [&](const py::array& array) -> py::object {
    arrays.append(array);
    numbers.append(memory(array.ptr()));
    return array;
  });
  return py::make_tuple(arrays, numbers);
}

// The numbers of the memory that a call reads, of what it makes, and the bytes of the latter, in whole cache lines.
py::tuple memory_of_call(const py::object& args, const py::object& outputs) {
  constexpr py::ssize_t kLine = 64;
  py::list read, made, sizes;
  changed(args.ptr(), [&](const py::array& array) -> py::object {
    read.append(memory(array.ptr()));
    return array;
  });
  changed(outputs.ptr(), [&](const py::array& array) -> py::object {
    made.append(memory(array.ptr()));
    sizes.append((array.nbytes() + kLine - 1) / kLine * kLine);
    return array;
  });
  return py::make_tuple(read, made, sizes);
}

// The array at an offset in `block`, if `places` has one for its memory.
py::object placed(const py::array& array, const py::dict& places, const py::array& block) {
  constexpr const char* op = "Recording.place";
  PyObject* place = PyDict_GetItemWithError(places.ptr(), memory(array.ptr()).ptr());
  if (place == nullptr) {
    if (PyErr_Occurred() != nullptr) throw py::error_already_set();
    return array;
  }
  require_layout(op, "an array", array);
  const auto owned = py::reinterpret_borrow<py::array>(owner(array.ptr()));
  const auto within = static_cast<const char*>(array.data()) - static_cast<const char*>(owned.data());
  const int64_t begin = PyLong_AsLongLong(place), nbytes = static_cast<int64_t>(array.nbytes());
  if (begin == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  if (begin < 0 || within < 0 || within + nbytes > owned.nbytes() || begin > block.nbytes() - within - nbytes) {
    throw_value(op, "an array of " + std::to_string(nbytes) + " bytes does not fit at byte " + std::to_string(begin) +
                        " of a block of " + std::to_string(block.nbytes()));
  }
  const Shape shape = shape_of(array);
  char* data = static_cast<char*>(const_cast<void*>(block.data())) + begin + within;
  constexpr int kFlags = Api::NPY_ARRAY_C_CONTIGUOUS_ | Api::NPY_ARRAY_ALIGNED_ | Api::NPY_ARRAY_WRITEABLE_;
  const Api& api = Api::get();
  PyObject* view =
      api.PyArray_NewFromDescr_(api.PyArray_Type_, array.dtype().release().ptr(), static_cast<int>(array.ndim()),
                                reinterpret_cast<const Py_intptr_t*>(shape.data()), nullptr, data, kFlags, nullptr);
  if (view == nullptr) throw py::error_already_set();
  auto result = py::reinterpret_steal<py::object>(view);
  if (api.PyArray_SetBaseObject_(view, block.inc_ref().ptr()) != 0) throw py::error_already_set();
  return result;
}

py::object place(const py::object& value, const py::dict& places, const py::array& block) {
  require_writeable("Recording.place", "block", block);
  return changed(value.ptr(), [&](const py::array& array) { return placed(array, places, block); });
}

bool is_array(PyObject* thing) {
  return reinterpret_cast<PyObject*>(Py_TYPE(thing)) == reinterpret_cast<PyObject*>(Api::get().PyArray_Type_);
}

// Whether both have the same descriptor and shape and are plain, so that one can be copied to the other as bytes.
bool are_alike(PyObject* a, PyObject* b) {
  const auto *x = py::detail::array_proxy(a), *y = py::detail::array_proxy(b);
  return x->descr == y->descr && x->nd == y->nd && std::equal(x->dimensions, x->dimensions + x->nd, y->dimensions) &&
         is_plain(py::reinterpret_borrow<py::array>(a), false) && is_plain(py::reinterpret_borrow<py::array>(b), true);
}

// thing.name, null if it has none.
py::object attribute(PyObject* thing, PyObject* name) {
  PyObject* value = PyObject_GetAttr(thing, name);
  if (value != nullptr) return py::reinterpret_steal<py::object>(value);
  // An empty cell is a ValueError.
  if (!PyErr_ExceptionMatches(PyExc_AttributeError) && !PyErr_ExceptionMatches(PyExc_ValueError)) {
    throw py::error_already_set();
  }
  PyErr_Clear();
  return {};
}

// Items of a tuple by threes or twos; TypeError unless it has a whole number of groups.
struct Groups {
  Groups(const char* op, const py::tuple& tuple, Py_ssize_t of) : tuple_(tuple.ptr()), of_(of) {
    if (size() % of != 0) throw_type(op, "needs items in groups of " + std::to_string(of));
  }
  Py_ssize_t size() const { return PyTuple_GET_SIZE(tuple_); }
  Py_ssize_t count() const { return size() / of_; }
  PyObject* get(Py_ssize_t group, Py_ssize_t item) const { return PyTuple_GET_ITEM(tuple_, group * of_ + item); }

 private:
  PyObject* tuple_;
  Py_ssize_t of_;
};

// Where the elements of an array lie: the first byte, and the one behind the last; nowhere if there are none.
struct Extent {
  int64_t begin, end;
};

Extent extent(PyObject* array) {
  const auto* x = py::detail::array_proxy(array);
  const py::array borrowed = py::reinterpret_borrow<py::array>(array);
  Extent result{reinterpret_cast<int64_t>(x->data), reinterpret_cast<int64_t>(x->data)};
  if (borrowed.size() == 0) return result;
  for (int axis = 0; axis < x->nd; ++axis) {
    (x->strides[axis] < 0 ? result.begin : result.end) += (x->dimensions[axis] - 1) * x->strides[axis];
  }
  result.end += borrowed.itemsize();
  return result;
}

// The extents of arrays as rows in order, one for those that touch.
py::array extents(const std::vector<py::array>& arrays) {
  std::vector<Extent> found, merged;
  for (const py::array& array : arrays) found.push_back(extent(array.ptr()));
  std::sort(found.begin(), found.end(), [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (const Extent& e : found) {
    if (e.begin == e.end) continue;
    if (merged.empty() || e.begin > merged.back().end) {
      merged.push_back(e);
    } else {
      merged.back().end = std::max(merged.back().end, e.end);
    }
  }
  py::array_t<int64_t> result({static_cast<py::ssize_t>(merged.size()), py::ssize_t{2}});
  if (!merged.empty()) std::memcpy(result.mutable_data(), merged.data(), merged.size() * sizeof(Extent));
  return std::move(result);
}

// What `extents` returned.
struct Extents {
  Extents(const char* op, const py::array& rows) {
    if (!holds<int64_t>(rows) || rows.ndim() != 2 || rows.shape(1) != 2 || !is_plain(rows, false)) {
      throw_type(op, "needs extents, int64 [n, 2]");
    }
    begin = static_cast<const Extent*>(rows.data());
    end = begin + rows.shape(0);
  }
  bool overlap(PyObject* array) const {
    if (begin == end) return false;
    const Extent e = extent(array);
    const Extent* at = std::upper_bound(begin, end, e.begin, [](int64_t x, const Extent& row) { return x < row.end; });
    return at != end && at->begin < e.end && e.begin < e.end;
  }

 private:
  const Extent *begin, *end;
};

// Which of the arrays share memory with extents.
std::vector<py::ssize_t> overlapping(const std::vector<py::array>& arrays, const py::array& rows) {
  const Extents written("Recording.overlapping", rows);
  std::vector<py::ssize_t> found;
  for (size_t i = 0; i < arrays.size(); ++i) {
    if (written.overlap(arrays[i].ptr())) found.push_back(static_cast<py::ssize_t>(i));
  }
  return found;
}

// Whether the arguments are as `expected`: for each its type, an array or the very value, and whether an array is to be
// copied to that one; and share no memory with `written`. Anything that needs a closer look is not.
bool takes(const py::tuple& args, const py::tuple& expected, const py::array& written) {
  const Groups groups("Recording.is_ready", expected, 3);
  const Extents extents("Recording.is_ready", written);
  if (PyTuple_GET_SIZE(args.ptr()) != groups.count()) return false;
  static PyObject* const data = PyUnicode_InternFromString("data");
  static PyObject* const requires_grad = PyUnicode_InternFromString("requires_grad");
  for (Py_ssize_t i = 0; i < groups.count(); ++i) {
    PyObject *arg = PyTuple_GET_ITEM(args.ptr(), i), *own = groups.get(i, 1);
    if (reinterpret_cast<PyObject*>(Py_TYPE(arg)) != groups.get(i, 0)) return false;
    if (!is_array(own)) {
      if (arg != own) return false;
      continue;
    }
    py::object array = py::reinterpret_borrow<py::object>(arg);
    if (!is_array(arg)) {
      if (attribute(arg, requires_grad).ptr() != Py_False) return false;
      array = attribute(arg, data);
      if (!array || !is_array(array.ptr())) return false;
    }
    if (!are_alike(array.ptr(), own) || extents.overlap(array.ptr())) return false;
    if (groups.get(i, 2) != Py_True) continue;
    const auto to = py::reinterpret_borrow<py::array>(own);
    std::memmove(py::detail::array_proxy(own)->data, py::detail::array_proxy(array.ptr())->data,
                 static_cast<size_t>(to.nbytes()));
  }
  return true;
}

// Whether each thing's attribute is the very value: thing, name, value, ...
bool has_attributes(const py::tuple& wanted) {
  const Groups groups("Recording.unchanged", wanted, 3);
  for (Py_ssize_t i = 0; i < groups.count(); ++i) {
    if (attribute(groups.get(i, 0), groups.get(i, 1)).ptr() != groups.get(i, 2)) return false;
  }
  return true;
}

// Whether each dict has the very value under its key: dict, key, value, ...
bool has_entries(const py::tuple& wanted) {
  const Groups groups("Recording.unchanged", wanted, 3);
  for (Py_ssize_t i = 0; i < groups.count(); ++i) {
    if (!PyDict_Check(groups.get(i, 0))) throw_type("Recording.unchanged", "needs dicts for entries");
    PyObject* entry = PyDict_GetItemWithError(groups.get(i, 0), groups.get(i, 1));
    if (entry == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
    if (entry != groups.get(i, 2)) return false;
  }
  return true;
}

// Whether each list holds the very values of a tuple, and each dict its equal keys with the very values, key, value,
// ..., in order: container, tuple, ...
bool has_items(const py::tuple& wanted) {
  const Groups groups("Recording.unchanged", wanted, 2);
  for (Py_ssize_t i = 0; i < groups.count(); ++i) {
    PyObject *container = groups.get(i, 0), *values = groups.get(i, 1);
    if (!PyTuple_Check(values)) throw_type("Recording.unchanged", "needs a tuple of values for each container");
    const Py_ssize_t n = PyTuple_GET_SIZE(values);
    if (PyList_Check(container)) {
      if (PyList_GET_SIZE(container) != n) return false;
      for (Py_ssize_t j = 0; j < n; ++j) {
        if (PyList_GET_ITEM(container, j) != PyTuple_GET_ITEM(values, j)) return false;
      }
      continue;
    }
    if (!PyDict_Check(container)) throw_type("Recording.unchanged", "needs lists and dicts as containers");
    if (PyDict_GET_SIZE(container) * 2 != n) return false;
    PyObject *key = nullptr, *value = nullptr;
    Py_ssize_t position = 0;
    for (Py_ssize_t j = 0; j < n && PyDict_Next(container, &position, &key, &value) != 0; j += 2) {
      if (value != PyTuple_GET_ITEM(values, j + 1)) return false;
      if (key == PyTuple_GET_ITEM(values, j)) continue;
      const auto held = py::reinterpret_borrow<py::object>(key);  // a comparison may run anything
      const int is_equal = PyObject_RichCompareBool(held.ptr(), PyTuple_GET_ITEM(values, j), Py_EQ);
      if (is_equal < 0) throw py::error_already_set();
      if (is_equal == 0) return false;
    }
  }
  return true;
}

// Whether each callable returns a value that equals the one that it returned: callable, value, ...
bool are_met(const py::tuple& conditions) {
  const Groups groups("Recording.unchanged", conditions, 2);
  for (Py_ssize_t i = 0; i < groups.count(); ++i) {
    const auto value = py::reinterpret_steal<py::object>(PyObject_CallNoArgs(groups.get(i, 0)));
    if (!value) throw py::error_already_set();
    const int is_equal = PyObject_RichCompareBool(value.ptr(), groups.get(i, 1), Py_EQ);
    if (is_equal < 0) throw py::error_already_set();
    if (is_equal == 0) return false;
  }
  return true;
}

bool unchanged(const py::tuple& attributes, const py::tuple& entries, const py::tuple& items,
               const py::tuple& conditions) {
  return has_items(items) && has_attributes(attributes) && has_entries(entries) && are_met(conditions);
}

// What has to hold before a replay, with `takes` first.
bool is_ready(const py::tuple& args, const py::tuple& expected, const py::array& written, const py::tuple& attributes,
              const py::tuple& entries, const py::tuple& items, const py::tuple& conditions) {
  return takes(args, expected, written) && unchanged(attributes, entries, items, conditions);
}

// Calls the actions, then thing.name = value for thing, name, value, ...
void finish(const py::tuple& actions, const py::tuple& attributes) {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(actions.ptr()); ++i) {
    if (!py::reinterpret_steal<py::object>(PyObject_CallNoArgs(PyTuple_GET_ITEM(actions.ptr(), i)))) {
      throw py::error_already_set();
    }
  }
  const Groups groups("Recording.finish", attributes, 3);
  for (Py_ssize_t i = 0; i < groups.count(); ++i) {
    if (PyObject_SetAttr(groups.get(i, 0), groups.get(i, 1), groups.get(i, 2)) != 0) throw py::error_already_set();
  }
}

}  // namespace

void bind_recording(py::module_& m) {
  py::class_<Recording>(m, "Recording")
      .def(py::init<>())
      .def("record", record, py::arg("at"), py::arg("function"), py::arg("args"), py::arg("outputs"),
           py::arg("scratch") = py::none())
      .def("run", run, py::arg("begin") = 0, py::arg("end") = py::none())
      .def_property_readonly("position", &Recording::position)
      .def_static(
          "memory", [](const py::array& array) { return memory(array.ptr()); }, py::arg("array"))
      .def_static("memory_of_call", memory_of_call, py::arg("args"), py::arg("outputs"))
      .def_static("arrays_in", arrays_in, py::arg("value"))
      .def_static("place", place, py::arg("value"), py::arg("places"), py::arg("block"))
      .def_static("is_ready", is_ready, py::arg("args"), py::arg("expected"), py::arg("written"), py::arg("attributes"),
                  py::arg("entries"), py::arg("items"), py::arg("conditions"))
      .def_static("extents", extents, py::arg("arrays"))
      .def_static("overlapping", overlapping, py::arg("arrays"), py::arg("extents"))
      .def_static("unchanged", unchanged, py::arg("attributes"), py::arg("entries"), py::arg("items"),
                  py::arg("conditions") = py::tuple())
      .def_static("finish", finish, py::arg("actions"), py::arg("attributes"))
      .def("__len__", &Recording::size);
}

}  // namespace pynn::bindings
