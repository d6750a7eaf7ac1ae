// state.h owns what the facade's sources share: the state of an index, and the places where images
// are put. Only sources of index.h include it.
#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/format.h"
#include "format/sets.h"
#include "index/build.h"
#include "index/collection.h"
#include "index/index.h"
#include "os/file.h"

namespace annidx {

// Memory that a build fills and the index then keeps.
class InMemory final : public ImagePlace {
 public:
  std::unique_ptr<Memory> allocate(std::uint64_t bytes) override {
    return allocate_anonymous(bytes);
  }
};

// A file that appears under its name only when the build is complete.
class InFile final : public ImagePlace {
 public:
  explicit InFile(const std::string& path) : file_(path) {}
  std::unique_ptr<Memory> allocate(std::uint64_t bytes) override {
    return file_.map_writable(bytes);
  }
  void commit() { file_.commit(); }

 private:
  AtomicFile file_;
};

[[noreturn]] inline void wrong_state(const std::string& message) {
  throw Error(ErrorCode::state, message);
}

// The model of an index, read when rows are first added, and shared by all that came of it by
// changes.
class SharedEncoder {
 public:
  const Encoder& of(const LoadedImage& image) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!encoder_) encoder_ = std::make_unique<Encoder>(read_model(image));
    return *encoder_;
  }

 private:
  std::mutex mutex_;
  std::unique_ptr<Encoder> encoder_;
};

// Ids that are gone from files: what a file of changes must say.
struct GoneIds {
  std::vector<std::int64_t> ids;
  std::vector<std::string> texts;
};

struct Index::State {
  State(Metric metric_in, Dtype dtype_in, std::uint32_t dim_in)
      : metric(metric_in),
        dtype(dtype_in),
        dim(dim_in),
        source(std::make_unique<RowSource>(dtype_in, dim_in)) {}

  Metric metric;
  Dtype dtype;
  std::uint32_t dim;
  // Filling.
  std::unique_ptr<RowSource> source;
  IdCollector ids;
  // Built or opened.
  std::unique_ptr<const Collection> rows;
  std::shared_ptr<SharedEncoder> encoder = std::make_shared<SharedEncoder>();
  std::shared_ptr<const GoneIds> gone = std::make_shared<GoneIds>();
  std::size_t file_parts = 1;  // the first so many parts are files, or what was built
  bool is_tuned = false;       // the first part's curve is not the image's
  bool has_own_sets = false;   // named sets, of the first part's rows, are not the image's
  std::vector<std::byte> own_sets;
  std::string path;

  const Collection& built() const {
    if (!rows) wrong_state("the index is not built yet: call build() first");
    return *rows;
  }
  // The image, where one is all there is.
  const LoadedImage& base() const { return built().common(); }
  format::Bytes sets_section() const {
    if (has_own_sets) return {own_sets.data(), own_sets.size()};
    const format::View& view = base().view();
    return {view.section(format::Section::sets), view.section_bytes(format::Section::sets)};
  }
  format::SetsView sets() const {
    const format::Bytes section = sets_section();
    if (section.size == 0) return {};
    return {section.data, section.size, base().items(), base().name()};
  }
  void adopt(std::vector<Part> parts) {
    rows = std::make_unique<const Collection>(std::move(parts));
    metric = rows->common().metric();
    dtype = rows->common().dtype();
    dim = rows->common().dim();
    source.reset();
  }
  void adopt_file(const std::string& file_path);
};

// Error(invalid_argument) unless the set is one of this collection's items.
void require_set_fits(const SlotSet& set, const Collection& all);
// Error(invalid_argument) naming the query at a number that is not finite.
void require_finite(const float* values, std::uint32_t dim, std::uint64_t row);

Part part_of(std::unique_ptr<Memory> memory, const std::string& name);
Part part_of_file(const std::string& path);
// A file's pages, as the caller wants them.
void make_ready(const Part& part, const Index::OpenOptions& options);

}  // namespace annidx
