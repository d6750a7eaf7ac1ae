// loaded.h owns a file image made ready for queries: the memory, its validated view and the views
// of every room that point into it. It is the only place where sections become pointers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "format/format.h"
#include "os/file.h"
#include "rows/ids.h"
#include "rows/metric.h"
#include "search/searcher.h"

namespace annidx {

class LoadedImage {
 public:
  // Validates the header. `name` opens error messages. Throws Error(format).
  LoadedImage(std::unique_ptr<Memory> memory, const std::string& name);
  LoadedImage(const LoadedImage&) = delete;
  LoadedImage& operator=(const LoadedImage&) = delete;

  const format::View& view() const noexcept { return view_; }
  const SearchView& search() const noexcept { return search_; }
  const ExactScorer& scorer() const noexcept { return scorer_; }
  const IdsView& ids() const noexcept { return ids_; }
  Metric metric() const noexcept { return scorer_.metric(); }
  Dtype dtype() const noexcept { return scorer_.dtype(); }
  std::uint32_t dim() const noexcept { return scorer_.dim(); }
  std::uint64_t items() const noexcept { return search_.item_count; }
  const std::string& name() const noexcept { return name_; }
  Memory* memory() const noexcept { return memory_.get(); }

  // The slot of a row and the stored bytes of a slot; checked. row < items().
  Slot slot_of(Row row) const;
  const std::byte* stored(Slot slot) const noexcept {
    return search_.vectors + std::size_t{slot} * search_.row_bytes;
  }

 private:
  void connect();
  void connect_ids();
  void connect_rows();
  void connect_forest();
  void connect_trees();
  void connect_codes();

  std::unique_ptr<Memory> memory_;
  std::string name_;
  format::View view_;
  ExactScorer scorer_;
  SearchView search_;
  IdsView ids_;
};

}  // namespace annidx
