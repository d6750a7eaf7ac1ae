// index.h owns the facade: the states of an index (filling -> built; opened), and what each allows.
// It joins the rooms and must not know instruction sets or the layout of bytes beyond format.h's
// views. The binding calls nothing else (besides ids.h SlotSet and annoy_file.h).
//
// Threads: const members may be called from many threads at once; the others need the index alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/parallel.h"
#include "base/tuning.h"
#include "base/types.h"
#include "rows/ids.h"

namespace annidx {

class Memory;
struct Part;

// Makes the calling thread's buffers ready. Where memory is too short for that, the C library ends
// the process: better when the library is loaded than at the first query.
void prepare_thread();

struct BuildOptions {
  std::uint32_t n_trees = 0;  // 0: the library chooses
  // Default target of queries, at most 1. 0: no curve is measured; queries then name their
  // search_k, or are answered by a full scan.
  double recall = 0.95;
  bool lean = false;  // see BuildPlan
  // Entries of a point's neighbour list; 0: no lists. Without meaning where none are made: see
  // Build::has_lists.
  std::uint32_t neighbours = tuning::kNeighbours;
  int n_jobs = -1;
  std::uint64_t seed = 0;
  const void* queries = nullptr;  // calibration queries, query_bytes() each; null: held-out rows
  std::uint64_t n_queries = 0;
  std::string out_path;            // not empty: the image is built in this file, not in memory
  std::uint64_t memory_limit = 0;  // bytes; 0: no limit. Needs out_path.
  Monitor* monitor = nullptr;
};

struct QueryOptions {
  std::uint32_t k = 10;
  double recall = 0.0;         // 0: not given
  std::uint64_t search_k = 0;  // 0: not given; candidates inspected; wins over recall
  double radius = 0.0;         // used when has_radius: keep distance <= radius (dot: >= radius)
  bool has_radius = false;
  bool exact = false;  // brute force
  int n_jobs = 1;
  // Eligible slots: none (all), one for the batch, or one a query.
  const SlotSet* const* eligible = nullptr;
  std::uint64_t eligible_count = 0;  // 0, 1 or the number of queries
  // Slot to leave out of query i, or to put first (query_items); null: none.
  const Slot* excluded = nullptr;
  const Slot* leading = nullptr;
  Monitor* monitor = nullptr;  // batches only
};

// What is found for one query where its number is not known before.
struct Answer {
  std::vector<std::int64_t> ids;  // rows for text ids
  std::vector<double> distances;
};

// A measured point of the recall curve.
struct CurveRow {
  std::uint32_t k;
  double recall;
  std::uint64_t opened;
  std::uint64_t candidates;
  std::uint64_t expanded;
  std::uint64_t rerank;
  std::uint64_t exact;
};

struct IndexInfo {
  Metric metric;
  Dtype dtype;
  IdKind id_kind;
  std::uint32_t dim = 0;
  std::uint64_t items = 0;
  bool built = false;
  // The rest is filled for a built index.
  std::uint32_t n_trees = 0;
  std::uint64_t leaves = 0;
  std::uint64_t file_bytes = 0;    // of the image
  std::uint64_t vector_bytes = 0;  // of the vectors section
  std::uint32_t code_bytes = 0;    // a vector; 0: no codes
  std::uint32_t format_version = 0;
  double default_recall = 0;
  double value_scale = 1;
  std::uint64_t seed = 0;
  std::string identity;       // 32 hexadecimal digits; a changed index has others than any file
  std::string base_identity;  // of the first image
  std::string model_identity;
  const char* kind = "";      // "index", "model", "part", "changes": of the first image
  std::uint64_t images = 0;   // that it consists of
  std::uint64_t removed = 0;  // rows in them that were removed or replaced
  std::uint64_t added = 0;    // rows beside those of the first image
  // How far the added rows are from the centroids of their leaves, over how far the first image's
  // are, by mean squared distance; 0: there are none.
  double drift = 0;
  std::string library_version;
  const char* scan = "";  // "codes", "byte_rows", "bits", "vectors"
  std::vector<CurveRow> curve;
  struct SectionInfo {
    std::string name;
    std::uint64_t offset, bytes;
  };
  std::vector<SectionInfo> sections;
};

// A file that an index was opened from.
struct FileFacts {
  std::string path;
  std::string identity;  // 32 hexadecimal digits
  const char* kind;      // as in IndexInfo
};

// Takes bytes one after the other.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual void append(const void* data, std::uint64_t bytes) = 0;
};

// The neighbours of all items, found; ends before its index does.
class KnnGraph {
 public:
  ~KnnGraph();
  // Of the n items from row `first` on, k places each: rows and distances, nearest first; missing
  // places get -1 and NaN. From many threads at once.
  void answer(Row first, std::uint64_t n, std::int64_t* rows, double* distances,
              Monitor* monitor) const;

 private:
  friend class Index;
  struct State;
  explicit KnnGraph(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

class Index {
 public:
  // ---- filling -----------------------------------------------------------------------
  Index(Metric metric, Dtype dtype, std::uint32_t dim);  // Error(invalid_argument) on a bad mix
  ~Index();
  Index(const Index&) = delete;
  Index& operator=(const Index&) = delete;

  // Rows of C-contiguous elements, of one of the types accepts() allows. Checks all rows first
  // (NaN, infinity: Error(invalid_argument) naming the row as first_row_name + i), then takes all
  // or none. keep_alive false: copied. borrowed true: only the pointer is kept until build() ends;
  // the memory must be a read-only mapping that outlives it (the binding holds a reference). ids:
  // exactly one of the three forms (int64_ids, or text + offsets, or none).
  struct Ids {
    const std::int64_t* int64_ids = nullptr;
    const char* text = nullptr;
    const std::uint64_t* text_offsets = nullptr;
  };
  void add(const void* rows, InputType type, std::uint64_t n, const Ids& ids, bool borrowed);
  // Becomes an index without rows, to which others can be added, or by which they can be coded: the
  // rows added so far are a sample of so many that it is trained on.
  void train(const BuildOptions& options, std::uint64_t expected_items);
  // float32 and the index's own dtype always; int8 for int8, uint8 for uint8, bits for bits.
  bool accepts(InputType type) const noexcept;
  void build(const BuildOptions& options);
  // Back to an empty filling index of the same kind (releases everything).
  void clear();

  // ---- opening -----------------------------------------------------------------------
  struct OpenOptions {
    bool warm = false;
    bool lock = false;
  };
  static std::unique_ptr<Index> open(const std::string& path, const OpenOptions& options);
  // Several files as one index: parts, shards, an index and its changes. That a later file has an
  // id of an earlier one is an error, unless it holds changes or newest_wins. Throws
  // Error(invalid_argument) naming the files that do not fit together.
  static std::unique_ptr<Index> open_all(const std::vector<std::string>& paths,
                                         const OpenOptions& options, bool newest_wins);
  // From the bytes of an image: read where they lie as long as the index lives, with `keeper` to
  // keep them there, which needs kImageAlignment; copied when that is null.
  static constexpr std::uint64_t kImageAlignment = 64;
  static std::unique_ptr<Index> from_bytes(const void* image, std::uint64_t bytes,
                                           std::shared_ptr<void> keeper);

  // ---- saving ------------------------------------------------------------------------
  // Atomic. metadata: UTF-8 JSON, may be empty. sets: as encoded_sets makes them.
  void save(const std::string& path, const std::string& metadata,
            const std::vector<std::byte>& sets, Monitor* monitor) const;
  // The bytes of such a file, to where no file is.
  void write(ByteSink* sink, const std::string& metadata, const std::vector<std::byte>& sets,
             Monitor* monitor) const;
  std::string metadata() const;

  // ---- changing ----------------------------------------------------------------------
  // Each gives another index, which shares what is the same; this one stays as it is. The index is
  // built.
  //
  // With more rows, which replace those of the same ids, or must not when is_update is false.
  std::unique_ptr<Index> with_rows(const void* rows, InputType type, std::uint64_t n,
                                   const Ids& ids, bool is_update, int n_jobs,
                                   Monitor* monitor) const;
  // Without these rows, each below items().
  std::unique_ptr<Index> without_rows(const std::vector<Row>& rows) const;
  // Whether it is more, or less, than the one image that was built or opened.
  bool is_changed() const noexcept;
  // The files that it was opened from, in order, whatever was changed since; none that was built.
  std::vector<FileFacts> files() const;
  std::string identity() const;  // as in IndexInfo. Needs the index built.
  // What differs from the first image, in a file of its own. Atomic.
  void save_changes(const std::string& path, int n_jobs, Monitor* monitor) const;
  std::vector<std::byte> changes_to_bytes() const;
  // The same with the changes that a file's bytes hold.
  std::unique_ptr<Index> with_changes(const void* image, std::uint64_t bytes) const;
  // All rows in one file, as a build would leave it; nothing is trained. Atomic.
  struct MergeOptions {
    std::string path;
    std::string metadata;
    std::vector<std::byte> sets;
    double recall = 0.0;         // the default target; 0: that of the first image
    bool measure_recall = true;  // else the curve of the first image is kept
    std::int64_t neighbours =
        -1;  // of a list; below 0: as many as the first image has, if an index
    std::uint32_t n_trees = 1;
    int n_jobs = -1;
    std::uint64_t memory_limit = 0;
    Monitor* monitor = nullptr;
  };
  void merge(const MergeOptions& options) const;
  // Codes the rows added to `rows`, which is being filled, by this index's model, into a part to be
  // merged. Atomic. `rows` is empty afterwards.
  void encode(Index* rows, const std::string& path, int n_jobs, std::uint64_t memory_limit,
              Monitor* monitor) const;

  // ---- named sets --------------------------------------------------------------------
  // Those of the file, or the ones that took their place in this object. Needs the index built.
  struct NamedSet {
    std::string name;
    std::uint64_t count;
  };
  std::vector<NamedSet> named_sets() const;  // by name, ascending
  // The set of this name into an empty set of items() slots; false when there is none.
  bool read_set(const std::string& name, SlotSet* out) const;
  // Sets of items() slots as the file keeps them; names and sets stand in the same order.
  std::vector<std::byte> encoded_sets(const std::vector<std::string>& names,
                                      const std::vector<const SlotSet*>& sets) const;
  std::vector<std::byte> encoded_sets() const;  // the present ones
  // Gives this object other sets. Needs the index alone.
  void replace_sets(std::vector<std::byte> encoded);

  // ---- asking ------------------------------------------------------------------------
  // queries: n rows of query_bytes(): dim float32, or packed bits for hamming. A NaN or infinity is
  // Error(invalid_argument) naming the row. Outputs are n * k: ids (rows for text ids) and
  // distances; missing places get -1 and NaN.
  void query(const void* queries, std::uint64_t n, const QueryOptions& options, std::int64_t* ids,
             double* distances) const;
  // All within options.radius, exactly: k and the effort mean nothing here. answers: n of them.
  void query_within(const void* queries, std::uint64_t n, const QueryOptions& options,
                    Answer* answers) const;
  std::uint64_t query_bytes() const noexcept;
  // Queries that are the items themselves, by row (rows < items()).
  void query_rows(const Row* rows, std::uint64_t n, bool include_self, const QueryOptions& options,
                  std::int64_t* ids, double* distances) const;
  void query_rows_within(const Row* rows, std::uint64_t n, bool include_self,
                         const QueryOptions& options, Answer* answers) const;
  // All items as queries. k of the options, at least 1, counts the item itself if that is included;
  // of the other options recall, n_jobs and monitor are read.
  std::unique_ptr<KnnGraph> knn_graph(const QueryOptions& options, bool include_self) const;
  // Distance as queries return it, between two items.
  double distance(Row a, Row b) const;

  // Vectors as the user sees them: dim float32 a row, or packed bits for hamming.
  void vectors(const Row* rows, std::uint64_t n, void* out) const;
  // Vectors as stored (format.h row_bytes() each).
  void stored_vectors(const Row* rows, std::uint64_t n, void* out) const;

  Row find(std::int64_t id) const;      // kNoRow when absent
  Row find(std::string_view id) const;  // kNoRow when absent
  std::int64_t id_of(Row row) const;
  // The ids of all rows, in row order; kinds row and int64, built only.
  void int64_ids(std::int64_t* out) const;
  std::string_view text_id_of(Row row) const;
  Slot slot_of(Row row) const;      // built only
  std::uint64_t set_stamp() const;  // see SlotSet::stamp(); built only

  // Measures recall against exact answers for these queries and makes it the curve of this object
  // (of the file too, when saved afterwards). n_queries 0: keeps the stored curve. Needs the index
  // alone.
  void tune(const void* queries, std::uint64_t n, std::uint32_t k, int n_jobs, Monitor* monitor);
  // What recall= would do: the setting for k and a target.
  CurveRow setting_for(std::uint32_t k, double recall) const;

  // ---- state -------------------------------------------------------------------------
  Metric metric() const noexcept;
  Dtype dtype() const noexcept;
  std::uint32_t dim() const noexcept;
  std::uint64_t items() const noexcept;
  bool built() const noexcept;
  IdKind id_kind() const noexcept;
  IndexInfo info() const;
  void verify(Monitor* monitor = nullptr) const;  // Error(format) at the first damage
  // Share of the mapped file in memory; 1 for an index in memory.
  double residency() const;
  const std::string& path() const noexcept;  // empty unless opened from or built into a file

 private:
  struct State;
  explicit Index(std::unique_ptr<State> state);
  std::unique_ptr<Index> with_parts(std::vector<Part> parts) const;
  void join_small_parts(unsigned n_threads, Monitor* monitor);
  std::unique_ptr<Memory> changes_image(class ImagePlace* place, int n_jobs,
                                        Monitor* monitor) const;
  struct BuildPlan merge_plan(const MergeOptions& options) const;
  // As a save of a changed index merges: nothing is measured.
  MergeOptions continued(const std::string& path, const std::string& metadata,
                         const std::vector<std::byte>& sets, Monitor* monitor) const;
  std::unique_ptr<Memory> merged_memory(Monitor* monitor) const;
  std::unique_ptr<State> state_;
};

// open() + verify() without keeping it.
void verify_file(const std::string& path);
const char* library_version() noexcept;

}  // namespace annidx
