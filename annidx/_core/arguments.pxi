# arguments.pxi owns the checks of a query's arguments and of text ids: values of Python in, numbers
# and UTF-8 out, or a ValueError that says what came. It is part of binding.pyx. It must not call an index.

from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.string cimport memcpy

cdef uint32_t MAX_UINT32 = 0xFFFFFFFF


def described(value):
    """Say what came instead of what was expected."""
    shown = repr(value)
    if len(shown) > 60:
        shown = shown[:57] + "..."
    return f"{shown} ({type(value).__name__})"


cdef uint64_t _read_count(str name, object value, uint64_t largest) except? 0:
    """A whole number from 1 on; larger ones than `largest` count as that."""
    cdef object number
    if type(value) is int:
        number = value
    elif isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}: expected a whole number of at least 1, got {described(value)}")
    else:
        try:
            number = operator.index(value)
        except TypeError:
            raise ValueError(
                f"{name}: expected a whole number of at least 1, got {described(value)}"
            ) from None
    if number < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {number}")
    return largest if number > largest else number


cdef double _read_number(str name, str expected, object value) except? -1.0:
    if isinstance(value, (bool, np.bool_, str, bytes)):
        raise ValueError(f"{name}: expected {expected}, got {described(value)}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected {expected}, got {described(value)}") from None


def read_recall(value):
    """Check a recall target and return it as a float."""
    cdef double number = _read_number("recall", "a number above 0 and at most 1", value)
    if not 0.0 < number <= 1.0:
        raise ValueError(f"recall: expected a number above 0 and at most 1, got {described(value)}")
    return number


cdef int _read_options(
    QueryOptions* options, object k, object recall, object search_k, object radius
) except -1:
    options.k = <uint32_t>_read_count("k", k, MAX_UINT32)
    if recall is not None:
        options.recall = read_recall(recall)
    if search_k is not None:
        options.search_k = _read_count("search_k", search_k, <uint64_t>-1)
    if radius is not None:
        options.radius = _read_number("radius", "a number", radius)
        if isnan(options.radius):
            raise ValueError("radius: expected a number, got NaN")
        options.has_radius = True
    return 0


cdef inline bint _is_plain_call(object allow, object deny, object n_jobs) noexcept:
    """Whether the filters and threads of a call need no preparation."""
    return (
        deny is None
        and (allow is None or isinstance(allow, SlotBits))
        and type(n_jobs) is int
        and <object>n_jobs == 1
    )


cdef inline bint _is_one_id(object value) noexcept:
    return type(value) is int or isinstance(value, (str, np.integer))


# ---- text ids ------------------------------------------------------------------------------

def encode_texts(list texts not None, str name):
    """Join strings as UTF-8.

    Returns the bytes and an array of uint64 of one element more than there are strings: string i is
    bytes [offsets[i], offsets[i + 1]).
    """
    cdef Py_ssize_t count = len(texts)
    cdef Py_ssize_t length = 0
    cdef Py_ssize_t i
    cdef uint64_t total = 0
    cdef const char* start
    cdef char* end
    cdef cnp.ndarray offsets_array = np.empty(count + 1, dtype=np.uint64)
    cdef uint64_t* offsets = <uint64_t*>cnp.PyArray_DATA(offsets_array)
    offsets[0] = 0
    for i in range(count):
        _utf8_of(texts[i], name, i, &length)
        total += <uint64_t>length
        offsets[i + 1] = total
    joined = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>total)
    end = PyBytes_AS_STRING(joined)
    for i in range(count):
        start = _utf8_of(texts[i], name, i, &length)
        if <uint64_t>length != offsets[i + 1] - offsets[i]:
            raise ValueError(f"{name}: the list was changed while it was read")
        memcpy(end + offsets[i], start, <size_t>length)
    return joined, offsets_array


cdef const char* _utf8_of(object text, str name, Py_ssize_t place, Py_ssize_t* length) except NULL:
    if not isinstance(text, str):
        raise ValueError(f"{name}: expected only strings, got {described(text)} at place {place}")
    try:
        return PyUnicode_AsUTF8AndSize(text, length)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name}: the string at place {place} cannot be written as UTF-8: {error.reason}"
        ) from None
