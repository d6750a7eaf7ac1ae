# binding.pxd owns the C++ declarations that the binding uses. It holds no code.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector
cimport numpy as cnp

# Turns the C++ exception being handled into a Python one. The only place that does.
cdef int raise_py_error() except *


cdef extern from "<string_view>" namespace "std" nogil:
    cppclass string_view:
        string_view()
        string_view(const char*, size_t)
        const char* data()
        size_t size()


cdef extern from "<cstddef>" namespace "std" nogil:
    cppclass Byte "std::byte":
        pass


cdef extern from "<vector>" namespace "std" nogil:
    cppclass Image "std::vector<std::byte>":
        Image()
        Image(const Byte*, const Byte*) except +raise_py_error
        const void* data()
        size_t size()


cdef extern from "base/error.h" namespace "annidx" nogil:
    enum class ErrorCode(uint32_t):
        invalid_argument
        format
        state
        io
        memory
        not_found
        out_of_range
        interrupted


cdef extern from "base/types.h" namespace "annidx" nogil:
    ctypedef uint32_t Row
    ctypedef uint32_t Slot
    const Row kNoRow

    enum class Metric(uint32_t):
        angular
        cosine
        euclidean
        manhattan
        dot
        hamming

    enum class Dtype(uint32_t):
        float32
        float16
        int8
        uint8
        bits

    enum class InputType(uint32_t):
        float32
        float16
        int8
        uint8
        bits

    enum class IdKind(uint32_t):
        row
        int64
        text


cdef extern from "base/parallel.h" namespace "annidx" nogil:
    cppclass Monitor:
        pass


cdef extern from "rows/ids.h" namespace "annidx" nogil:
    cppclass SlotSet:
        SlotSet(uint64_t) except +raise_py_error
        SlotSet(const SlotSet&) except +raise_py_error
        void insert(Slot)
        void erase(Slot)
        cbool contains(Slot)
        void complement()
        void intersect(const SlotSet&)
        void subtract(const SlotSet&)
        uint64_t slot_count()
        uint64_t count()
        void freeze()
        void set_stamp(uint64_t)


cdef extern from "index/index.h" namespace "annidx" nogil:
    void prepare_thread()

    cppclass BuildOptions:
        uint32_t n_trees
        double recall
        int n_jobs
        uint64_t seed
        const void* queries
        uint64_t n_queries
        string out_path
        uint64_t memory_limit
        cbool lean
        uint32_t neighbours
        Monitor* monitor

    cppclass QueryOptions:
        uint32_t k
        double recall
        uint64_t search_k
        double radius
        cbool has_radius
        cbool exact
        int n_jobs
        SlotSet** eligible
        uint64_t eligible_count
        Monitor* monitor

    cppclass Answer:
        vector[int64_t] ids
        vector[double] distances

    cppclass CurveRow:
        uint32_t k
        double recall
        uint64_t opened
        uint64_t candidates
        uint64_t expanded
        uint64_t rerank
        uint64_t exact

    cppclass SectionInfo "annidx::IndexInfo::SectionInfo":
        string name
        uint64_t offset
        uint64_t bytes

    cppclass IndexInfo:
        uint64_t items
        cbool built
        uint32_t n_trees
        uint64_t leaves
        uint64_t file_bytes
        uint64_t vector_bytes
        uint32_t code_bytes
        uint32_t format_version
        double default_recall
        double value_scale
        uint64_t seed
        string identity
        string base_identity
        string model_identity
        const char* kind
        uint64_t images
        uint64_t removed
        uint64_t added
        double drift
        string library_version
        const char* scan
        vector[CurveRow] curve
        vector[SectionInfo] sections

    cppclass FileFacts:
        string path
        string identity
        const char* kind

    cppclass AddedIds "annidx::Index::Ids":
        const int64_t* int64_ids
        const char* text
        const uint64_t* text_offsets

    cppclass NamedSet "annidx::Index::NamedSet":
        string name
        uint64_t count

    cppclass ByteSink:
        pass

    cppclass OpenOptions "annidx::Index::OpenOptions":
        cbool warm
        cbool lock

    cppclass KnnGraph:
        void answer(Row, uint64_t, int64_t*, double*, Monitor*) except +raise_py_error

    cppclass MergeOptions "annidx::Index::MergeOptions":
        string path
        string metadata
        Image sets
        double recall
        cbool measure_recall
        int64_t neighbours
        uint32_t n_trees
        int n_jobs
        uint64_t memory_limit
        Monitor* monitor

    cppclass Index:
        Index(Metric, Dtype, uint32_t) except +raise_py_error
        void add(const void*, InputType, uint64_t, const AddedIds&, cbool) except +raise_py_error
        cbool accepts(InputType)
        void build(const BuildOptions&) except +raise_py_error
        void train(const BuildOptions&, uint64_t) except +raise_py_error
        void clear() except +raise_py_error
        unique_ptr[Index] with_rows(
            const void*, InputType, uint64_t, const AddedIds&, cbool, int, Monitor*
        ) except +raise_py_error
        unique_ptr[Index] without_rows(const vector[Row]&) except +raise_py_error
        cbool is_changed()
        void save_changes(const string&, int, Monitor*) except +raise_py_error
        Image changes_to_bytes() except +raise_py_error
        unique_ptr[Index] with_changes(const void*, uint64_t) except +raise_py_error
        void merge(const MergeOptions&) except +raise_py_error
        void encode(Index*, const string&, int, uint64_t, Monitor*) except +raise_py_error
        uint64_t set_stamp() except +raise_py_error
        void save(const string&, const string&, const Image&, Monitor*) except +raise_py_error
        void write(ByteSink*, const string&, const Image&, Monitor*) except +raise_py_error
        string metadata() except +raise_py_error
        vector[NamedSet] named_sets() except +raise_py_error
        cbool read_set(const string&, SlotSet*) except +raise_py_error
        Image encoded_sets() except +raise_py_error
        Image encoded_sets_of "encoded_sets"(
            const vector[string]&, const vector[const SlotSet*]&
        ) except +raise_py_error
        void replace_sets(Image) except +raise_py_error
        void query(
            const void*, uint64_t, const QueryOptions&, int64_t*, double*
        ) except +raise_py_error
        void query_within(
            const void*, uint64_t, const QueryOptions&, Answer*
        ) except +raise_py_error
        uint64_t query_bytes()
        void query_rows(
            const Row*, uint64_t, cbool, const QueryOptions&, int64_t*, double*
        ) except +raise_py_error
        void query_rows_within(
            const Row*, uint64_t, cbool, const QueryOptions&, Answer*
        ) except +raise_py_error
        unique_ptr[KnnGraph] knn_graph(const QueryOptions&, cbool) except +raise_py_error
        double distance(Row, Row) except +raise_py_error
        void vectors(const Row*, uint64_t, void*) except +raise_py_error
        void stored_vectors(const Row*, uint64_t, void*) except +raise_py_error
        Row find(int64_t) except +raise_py_error
        Row find_text "find"(string_view) except +raise_py_error
        int64_t id_of(Row) except +raise_py_error
        void int64_ids(int64_t*) except +raise_py_error
        string_view text_id_of(Row) except +raise_py_error
        Slot slot_of(Row) except +raise_py_error
        void tune(const void*, uint64_t, uint32_t, int, Monitor*) except +raise_py_error
        CurveRow setting_for(uint32_t, double) except +raise_py_error
        Metric metric()
        Dtype dtype()
        uint32_t dim()
        uint64_t items()
        cbool built()
        IdKind id_kind()
        IndexInfo info() except +raise_py_error
        string identity() except +raise_py_error
        vector[FileFacts] files() except +raise_py_error
        void verify(Monitor*) except +raise_py_error
        double residency() except +raise_py_error

    unique_ptr[Index] open_index "annidx::Index::open"(
        const string&, const OpenOptions&
    ) except +raise_py_error
    unique_ptr[Index] open_indexes "annidx::Index::open_all"(
        const vector[string]&, const OpenOptions&, cbool
    ) except +raise_py_error
    void verify_file(const string&) except +raise_py_error


cdef extern from "gate.h" namespace "annidx_binding" nogil:
    enum class Entry(int):
        entered
        closed
        busy

    enum class Work(int):
        none
        short_change
        building

    uint16_t fork_epoch

    cppclass Gate:
        Gate()
        void open(unique_ptr[Index])
        Entry enter()
        void leave()
        Entry enter_alone(Work, unsigned long)
        void leave_alone()
        void stop_waiting()
        cbool begin_change()
        void end_change()
        void replace(unique_ptr[Index]) except +
        Work work()
        unsigned long owner()
        void close()
        cbool closed()
        Index* index()

    void rest()


cdef extern from "monitor.h" namespace "annidx_binding" nogil:
    cppclass PythonMonitor(Monitor):
        PythonMonitor(cnp.PyObject*) except +raise_py_error

    cppclass Caught:
        uint32_t code
        int os_errno
        string path
        string message

    void describe_caught(Caught*)


cdef extern from "buffers.h" namespace "annidx_binding":
    cppclass HeldBuffer:
        pass

    int hold_buffer(object, shared_ptr[HeldBuffer]*) except -1

    cppclass PythonSink(ByteSink):
        PythonSink(cnp.PyObject*) except +raise_py_error


cdef extern from "buffers.h" namespace "annidx_binding" nogil:
    unique_ptr[Index] index_in(const shared_ptr[HeldBuffer]&) except +raise_py_error
