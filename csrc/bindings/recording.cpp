#include "runtime/recording.h"

#include <pybind11/stl.h>

#include "bindings/array.h"

namespace pynn::bindings {

namespace {

// Calls function(*args), which is one of this module, without computing: its computation becomes that of step `at`,
// and writes its results to `outputs`.
void record(Recording& recording, int64_t at, const py::function& function, const py::tuple& args,
            const std::vector<py::array>& outputs) {
  if (at < 0 || at > recording.size())
    throw_value("Recording.record", "step " + std::to_string(at) + " is out of range");
  Recorder current{recording, outputs};
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
  recording.put(at);
}

}  // namespace

void bind_recording(py::module_& m) {
  py::class_<Recording>(m, "Recording")
      .def(py::init<>())
      .def("record", record, py::arg("at"), py::arg("function"), py::arg("args"), py::arg("outputs"))
      .def("run", &Recording::run, py::call_guard<py::gil_scoped_release>())
      .def("__len__", &Recording::size);
}

}  // namespace pynn::bindings
