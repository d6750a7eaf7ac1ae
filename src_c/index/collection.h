// collection.h owns what an index holds at one moment: the rows of one image, or of several that
// are asked as one, some of them perhaps removed. Immutable: a change makes another collection,
// which shares the images. It must not know how images are made.
//
// Rows are numbered through all images, in their order, those that were removed left out. Of one
// image without removed rows, slots are its own; of any other collection slots are the rows.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "format/format.h"
#include "os/file.h"
#include "rows/ids.h"
#include "search/loaded.h"
#include "search/searcher.h"

namespace annidx {

// Which rows of an image are there, and their numbers among those.
class AliveRows {
 public:
  AliveRows(const LoadedImage& image, const AliveRows* before, const std::vector<Row>& removed);

  std::uint64_t count() const noexcept { return count_; }
  bool contains(Row row) const noexcept { return words_[row / 64] >> row % 64 & 1; }
  std::uint64_t rank(Row row) const noexcept;       // rows that are there before it
  Row select(std::uint64_t number) const noexcept;  // number < count()
  const SlotSet& slots() const noexcept { return slots_; }

 private:
  std::vector<std::uint64_t> words_;  // by row
  std::vector<std::uint64_t> ranks_;  // of each word's first row
  std::uint64_t count_ = 0;
  SlotSet slots_;  // of the image
};

struct Part {
  std::shared_ptr<const LoadedImage> image;
  MappedFile* mapped = nullptr;            // the image's memory when it is a mapped file
  std::string path;                        // of that file
  std::shared_ptr<const AliveRows> alive;  // null: all rows are there
  std::vector<format::CurvePoint> curve;   // the image's, or a tuned one
  // Set by the collection:
  std::uint64_t first_row = 0;
  std::size_t router = 0;  // the part whose routing serves this one: itself, or one of its model
  SearchView view;         // of the image, scored as the router's leaves are

  std::uint64_t count() const noexcept { return alive ? alive->count() : image->items(); }
};

class CollectionSearcher;

class Collection {
 public:
  // Parts of one kind of ids, dim, metric and dtype; at least one.
  explicit Collection(std::vector<Part> parts);

  const std::vector<Part>& parts() const noexcept { return parts_; }
  const Part& base() const noexcept { return parts_.front(); }
  // The one image whose rows and slots are the collection's; null where there is more to it.
  const LoadedImage* single() const noexcept { return single_; }
  // The first image: what all have in common is its.
  const LoadedImage& common() const noexcept { return *base().image; }
  std::uint64_t items() const noexcept { return items_; }
  IdKind id_kind() const noexcept { return id_kind_; }
  // Tells sets of this collection's rows from those of others: alike for equal files.
  std::uint64_t stamp() const noexcept { return stamp_; }

  Row find(std::int64_t id) const;      // kNoRow when absent
  Row find(std::string_view id) const;  // kNoRow when absent
  std::int64_t int64_of(Row row) const;
  std::string_view text_of(Row row) const;
  // The part of a row, and its row there.
  struct Place {
    const Part* part;
    Row row;
  };
  Place place_of(Row row) const;
  const std::byte* stored(Row row) const;
  Slot slot_of(Row row) const;
  Row row_of(Slot slot) const;

  // The nearest of all parts, as Searcher finds them in one; efforts: by part.
  const std::vector<Neighbour>& run(const void* values, const Request& request,
                                    const std::vector<Efforts>& efforts,
                                    CollectionSearcher* searcher) const;

 private:
  friend class CollectionSearcher;
  // A set of rows as sets of slots, a part each.
  using PartSets = std::vector<SlotSet>;

  void bind(std::size_t part);
  std::shared_ptr<const PartSets> split(const SlotSet& rows) const;

  std::vector<Part> parts_;
  std::vector<std::size_t> order_;  // parts behind their routers
  const LoadedImage* single_ = nullptr;
  std::uint64_t items_ = 0;
  IdKind id_kind_ = IdKind::row;
  std::uint64_t stamp_ = 0;
  // Route numbers of leaves that have points in some part but not in its router, by router.
  std::vector<std::unique_ptr<std::vector<float>>> tables_;
};

// Runs queries of collections, one at a time. One a thread.
class CollectionSearcher {
 public:
  Searcher& searcher() noexcept { return searcher_; }

 private:
  friend class Collection;
  void ask_all(const Collection& all, const void* values, const Request& request,
               const std::vector<Efforts>& efforts, const Collection::PartSets* sets,
               bool everything);
  Request request_for(const Collection& all, std::size_t part, const Request& request,
                      const Collection::PartSets* sets) const;
  void take(const Part& part, const std::vector<Neighbour>& found);
  void order(const Collection& all, const Request& request);

  Searcher searcher_;
  std::vector<Neighbour> found_;
};

}  // namespace annidx
