// The walk of pynn/tape.py over its nodes. The loops are here because in Python they took longer than everything else
// that surrounds the core in a small step; what a node is, and what its functions compute, is Python's business.
#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "bindings/array.h"

namespace pynn::bindings {
namespace {

// The names of a node's attributes, made once: with C strings each look would make them.
struct Names {
  py::handle backward = name("backward"), check = name("check"), copy = name("copy"), name_of = name("name"),
             order = name("order"), parents = name("parents"), retained = name("retained"), saved = name("saved");

 private:
  static py::handle name(const char* text) { return PyUnicode_InternFromString(text); }
};

const Names& names() {
  static const Names all;
  return all;
}

// The items of a sequence, which they keep alive.
class Items {
 public:
  explicit Items(const py::object& sequence)
      : list_(py::reinterpret_steal<py::object>(
            PySequence_Fast(sequence.ptr(), "backward: needs a sequence, one gradient (or None) for each parent"))) {
    if (!list_) throw py::error_already_set();
  }
  Py_ssize_t size() const { return PySequence_Fast_GET_SIZE(list_.ptr()); }
  py::handle operator[](Py_ssize_t i) const { return PySequence_Fast_GET_ITEM(list_.ptr(), i); }

 private:
  py::object list_;
};

// A call of a function with arrays, without pybind11's collecting of arguments.
template <class... Args>
py::object call(const py::object& function, const Args&... args) {
  PyObject* result = PyObject_CallFunctionObjArgs(function.ptr(), args.ptr()..., nullptr);
  if (result == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(result);
}

int64_t integer(const py::object& value) {
  const long long number = PyLong_AsLongLong(value.ptr());
  if (number == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return number;
}

// All nodes behind `start`, newest first. Each is asked to check itself, before any of them runs, if it was released or
// is older than the latest write in place.
std::vector<py::object> history(const py::object& start, int64_t latest_write) {
  const PyTypeObject* node_type = Py_TYPE(start.ptr());
  using Found = std::pair<int64_t, py::object>;
  const auto is_older = [](const Found& a, const Found& b) { return a.first < b.first; };
  std::vector<Found> found;  // a heap: the newest comes first, and again as often as it is a parent
  const auto find = [&](py::handle node) {
    found.emplace_back(integer(py::getattr(node, names().order)), py::reinterpret_borrow<py::object>(node));
    std::push_heap(found.begin(), found.end(), is_older);
  };
  std::vector<py::object> nodes;
  find(start);
  while (!found.empty()) {
    std::pop_heap(found.begin(), found.end(), is_older);
    const auto [order, node] = std::move(found.back());
    found.pop_back();
    if (!nodes.empty() && nodes.back().is(node)) continue;
    nodes.push_back(node);
    if (order < latest_write || py::getattr(node, names().backward).is_none()) node.attr(names().check)();
    const Items parents(py::getattr(node, names().parents));
    for (Py_ssize_t i = 0; i < parents.size(); ++i) {
      if (Py_TYPE(parents[i].ptr()) == node_type) find(parents[i]);
    }
  }
  return nodes;
}

py::list tape_history(const py::object& start, int64_t latest_write) {
  py::list nodes;
  for (const py::object& node : history(start, latest_write)) nodes.append(node);
  return nodes;
}

// The sums of gradients so far, by who they are of.
class Sums {
 public:
  void set(py::handle source, const py::object& dy) {
    if (PyDict_SetItem(all.ptr(), source.ptr(), dy.ptr()) != 0) throw py::error_already_set();
  }
  py::object get(py::handle source) const {  // null if there is none
    PyObject* dy = PyDict_GetItemWithError(all.ptr(), source.ptr());
    if (dy == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
    return py::reinterpret_borrow<py::object>(dy);
  }
  py::object pop(py::handle source) {
    py::object dy = get(source);
    if (dy && PyDict_DelItem(all.ptr(), source.ptr()) != 0) throw py::error_already_set();
    return dy;
  }

  py::dict all;
};

py::object copy_of(const py::object& array) { return array.attr(names().copy)(); }

// Whether an array is the memory of another one, too.
bool is_shared(const py::object& array) {
  return py::isinstance<py::array>(array) && py::isinstance<py::array>(py::detail::array_proxy(array.ptr())->base);
}

void release(py::handle node) {
  const Names& n = names();
  const py::tuple none;
  py::setattr(node, n.backward, py::none());
  py::setattr(node, n.parents, none);
  py::setattr(node, n.saved, none);
}

// Runs the nodes behind `start`, whose gradient is `dy`, and returns the gradients of the leaves, of the nodes in
// `keep` and of those under `retain_grad`; no array appears twice. `add` sums two of them, `own` (or None) gives a leaf
// memory of its own where a recorder wants to know of that.
py::dict tape_gradients(const py::object& start, const py::object& dy_of_start, int64_t latest_write,
                        const py::object& keep, bool retain_graph, const py::object& add, const py::object& own) {
  const Names& n = names();
  const PyTypeObject* node_type = Py_TYPE(start.ptr());
  const bool keeps = py::len(keep) != 0;
  Sums sums;
  std::unordered_set<PyObject*> given;  // to leaves, which keep them alive
  sums.set(start, dy_of_start);
  for (const py::object& node : history(start, latest_write)) {
    if (const py::object dy = sums.pop(node)) {
      if (!py::getattr(node, n.retained).is_none() || (keeps && keep.contains(node))) sums.set(node, copy_of(dy));
      const py::object function = py::getattr(node, n.backward);
      const Items dxs(call(function, dy)), parents(py::getattr(node, n.parents));
      if (dxs.size() != parents.size()) {
        throw_value("backward", std::string(py::str(py::getattr(node, n.name_of))) + " has " +
                                    std::to_string(parents.size()) + " parents, got " + std::to_string(dxs.size()) +
                                    " gradients");
      }
      for (Py_ssize_t i = 0; i < dxs.size(); ++i) {
        const py::handle parent = parents[i];
        py::object dx = py::reinterpret_borrow<py::object>(dxs[i]);
        if (parent.is_none() || dx.is_none()) continue;
        if (const py::object sum = sums.get(parent)) {
          dx = call(add, sum, dx);                        // not in place: the sum so far may be someone's dy
        } else if (Py_TYPE(parent.ptr()) != node_type) {  // a leaf's gradient will be its own
          if (!own.is_none()) {
            dx = call(own, dx);
          } else if (dx.is(dy) || is_shared(dx) || !given.insert(dx.ptr()).second) {
            dx = copy_of(dx);
          }
        }
        sums.set(parent, dx);
      }
    }
    if (!retain_graph) release(node);
  }
  return sums.all;
}

}  // namespace

void bind_tape(py::module_& m) {
  m.def("tape_history", tape_history, py::arg("start"), py::arg("latest_write"));
  m.def("tape_gradients", tape_gradients, py::arg("start"), py::arg("dy"), py::arg("latest_write"), py::arg("keep"),
        py::arg("retain_graph"), py::arg("add"), py::arg("own"));
}

}  // namespace pynn::bindings
