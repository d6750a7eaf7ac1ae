// buffers.h owns bytes on their way between Python and the core: the hold on a buffer that an index
// is read from, and the sink that hands on what an index writes. It must not know what they mean.
#pragma once

#include <Python.h>

#include <cstdint>
#include <memory>

#include "base/error.h"
#include "index/index.h"
#include "monitor.h"

namespace annidx_binding {

// The bytes of a Python object, which stay where they are as long as this lives.
class HeldBuffer {
 public:
  HeldBuffer() = default;
  ~HeldBuffer() {
    if (!view_.obj) return;
    HoldGil gil;
    PyBuffer_Release(&view_);
  }
  HeldBuffer(const HeldBuffer&) = delete;
  HeldBuffer& operator=(const HeldBuffer&) = delete;

  // Once. Needs the GIL; false with a Python exception set when the object has no such bytes.
  bool take(PyObject* object) { return PyObject_GetBuffer(object, &view_, PyBUF_SIMPLE) == 0; }

  const void* data() const noexcept { return view_.len > 0 ? view_.buf : ""; }
  std::uint64_t bytes() const noexcept { return static_cast<std::uint64_t>(view_.len); }
  bool may_change() const noexcept { return !view_.readonly; }

 private:
  Py_buffer view_{};
};

// -1 with a Python exception set when the object has no bytes in one piece.
inline int hold_buffer(PyObject* object, std::shared_ptr<HeldBuffer>* out) {
  *out = std::make_shared<HeldBuffer>();
  return (*out)->take(object) ? 0 : -1;
}

// Opens the image in a buffer: where it lies, or a copy of what may change or is not aligned.
inline std::unique_ptr<annidx::Index> index_in(const std::shared_ptr<HeldBuffer>& buffer) {
  void* start = const_cast<void*>(buffer->data());
  std::size_t space = 1;
  const bool is_aligned = std::align(annidx::Index::kImageAlignment, 1, start, space) != nullptr;
  const bool in_place = is_aligned && !buffer->may_change();
  return annidx::Index::from_bytes(buffer->data(), buffer->bytes(), in_place ? buffer : nullptr);
}

// Lives as a PythonMonitor does, and stops the core as that does when Python code raises.
class PythonSink final : public annidx::ByteSink {
 public:
  // write: borrowed callable that takes bytes.
  explicit PythonSink(PyObject* write) : write_(write) {}

  void append(const void* data, std::uint64_t bytes) override {
    if (bytes == 0) return;
    HoldGil gil;
    PyObject* result = PyObject_CallFunction(write_, "N", copied(data, bytes));
    if (!result) throw annidx::Error(annidx::ErrorCode::interrupted, "interrupted");
    Py_DECREF(result);
  }

 private:
  static PyObject* copied(const void* data, std::uint64_t bytes) {
    return PyBytes_FromStringAndSize(static_cast<const char*>(data),
                                     static_cast<Py_ssize_t>(bytes));
  }

  PyObject* write_;
};

}  // namespace annidx_binding
