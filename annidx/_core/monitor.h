// monitor.h owns the way back from the core into Python: the monitor that listens for Ctrl-C and
// reports progress during long work, and the description of a caught C++ exception. It must not
// know what work is going on, and it sets no Python exception itself except by running Python code.
#pragma once

#include <Python.h>

#include <cstdint>
#include <exception>
#include <new>
#include <string>

#include "base/error.h"
#include "base/parallel.h"

namespace annidx_binding {

class HoldGil {
 public:
  HoldGil() : state_(PyGILState_Ensure()) {}
  ~HoldGil() { PyGILState_Release(state_); }
  HoldGil(const HoldGil&) = delete;
  HoldGil& operator=(const HoldGil&) = delete;

 private:
  PyGILState_STATE state_;
};

// Lives on the stack of the thread that calls the core, which is also the only one to call it. When
// Python code raises, the exception stays pending in this thread and Error(interrupted) unwinds the
// core; nothing runs Python until the binding returns to it.
class PythonMonitor final : public annidx::Monitor {
 public:
  // progress: borrowed callable (stage, done, total), or nullptr to listen for signals only.
  explicit PythonMonitor(PyObject* progress) : progress_(progress) {}

  void poll() override {
    stop_if_raised();
    HoldGil gil;
    if (PyErr_CheckSignals() != 0) raise();
  }

  void progress(const char* stage, std::uint64_t done, std::uint64_t total) override {
    stop_if_raised();
    if (!progress_) return;
    HoldGil gil;
    PyObject* result =
        PyObject_CallFunction(progress_, "sKK", stage, static_cast<unsigned long long>(done),
                              static_cast<unsigned long long>(total));
    if (!result) raise();
    Py_DECREF(result);
  }

 private:
  void stop_if_raised() const {
    if (raised_) throw annidx::Error(annidx::ErrorCode::interrupted, "interrupted");
  }
  [[noreturn]] void raise() {
    raised_ = true;
    throw annidx::Error(annidx::ErrorCode::interrupted, "interrupted");
  }

  PyObject* progress_;
  bool raised_ = false;
};

// What the binding needs to know of the exception being handled.
struct Caught {
  std::uint32_t code = 0;  // an annidx::ErrorCode, or 0 for what annidx does not throw
  int os_errno = 0;
  std::string path;
  std::string message;
};

// Call from a catch block only.
inline void describe_caught(Caught* out) {
  try {
    throw;
  } catch (const annidx::Error& error) {
    out->code = static_cast<std::uint32_t>(error.code());
    out->os_errno = error.os_errno();
    out->path = error.path();
    out->message = error.what();
  } catch (const std::bad_alloc&) {
    out->code = static_cast<std::uint32_t>(annidx::ErrorCode::memory);
    out->message = "out of memory";
  } catch (const std::exception& error) {
    out->message = error.what();
  } catch (...) {
    out->message = "unknown C++ exception";
  }
}

}  // namespace annidx_binding
