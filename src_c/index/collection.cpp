// collection.cpp owns the asking of several images as one; see collection.h.
#include "index/collection.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "rows/metric.h"

namespace annidx {
namespace {

// Whether a query made ready for one image suits the other, as it must where they say they are of
// one model: a file may say anything.
bool are_of_one_model(const LoadedImage& a, const LoadedImage& b) noexcept {
  const format::Params& p = a.view().params;
  const format::Params& q = b.view().params;
  const auto& id = a.view().header.model_identity;
  return std::memcmp(id, b.view().header.model_identity, sizeof id) == 0 &&
         p.scan_kind == q.scan_kind && p.work_dim4 == q.work_dim4 && p.code_count == q.code_count &&
         p.rotation_block == q.rotation_block && p.byte_row_bytes == q.byte_row_bytes &&
         p.value_scale == q.value_scale && p.work_scale == q.work_scale &&
         a.search().forest.trees[0].leaf_entry_count == b.search().forest.trees[0].leaf_entry_count;
}

std::uint64_t bits_in(std::uint64_t word) noexcept {
  return static_cast<std::uint64_t>(__builtin_popcountll(word));
}

// Told apart from the stamps of files, which are hashes, by chance alone.
std::uint64_t next_stamp() noexcept {
  static std::atomic<std::uint64_t> count{1};
  return count.fetch_add(1, std::memory_order_relaxed) * 0x9E3779B97F4A7C15ull;
}

}  // namespace

// ---- rows that are there ---------------------------------------------------------------------

AliveRows::AliveRows(const LoadedImage& image, const AliveRows* before,
                     const std::vector<Row>& removed)
    : slots_(before ? before->slots_ : SlotSet(image.items())) {
  const std::uint64_t items = image.items();
  if (before) {
    words_ = before->words_;
  } else {
    slots_.complement();
    words_.assign(items / 64 + 1, ~std::uint64_t{0});
    words_.back() = (std::uint64_t{1} << items % 64) - 1;
  }
  for (const Row row : removed) {
    words_[row / 64] &= ~(std::uint64_t{1} << row % 64);
    slots_.erase(image.slot_of(row));
  }
  slots_.freeze();
  ranks_.reserve(words_.size());
  for (const std::uint64_t word : words_) {
    ranks_.push_back(count_);
    count_ += bits_in(word);
  }
}

std::uint64_t AliveRows::rank(Row row) const noexcept {
  const std::uint64_t before = words_[row / 64] & ((std::uint64_t{1} << row % 64) - 1);
  return ranks_[row / 64] + bits_in(before);
}

Row AliveRows::select(std::uint64_t number) const noexcept {
  const auto word = static_cast<std::size_t>(
      std::upper_bound(ranks_.begin(), ranks_.end(), number) - ranks_.begin() - 1);
  std::uint64_t bits = words_[word];
  for (std::uint64_t skip = number - ranks_[word]; skip > 0; --skip) bits &= bits - 1;
  return static_cast<Row>(word * 64 + static_cast<std::uint64_t>(__builtin_ctzll(bits)));
}

// ---- making ----------------------------------------------------------------------------------

Collection::Collection(std::vector<Part> parts) : parts_(std::move(parts)) {
  for (Part& part : parts_) {
    part.first_row = items_;
    items_ += part.count();
    // Rows that were removed leave gaps, which row numbers could not name.
    if (part.image->items() == 0) continue;
    const IdKind kind = part.image->ids().kind;
    const bool has_gaps = kind == IdKind::row && (part.alive || part.first_row > 0);
    if (id_kind_ == IdKind::row) id_kind_ = has_gaps ? IdKind::int64 : kind;
  }
  if (items_ > kMaxItems) {
    throw Error(ErrorCode::invalid_argument, "an index holds at most " + std::to_string(kMaxItems) +
                                                 " items, these files " + std::to_string(items_));
  }
  tables_.resize(parts_.size());
  for (std::size_t i = 0; i < parts_.size(); ++i) bind(i);
  for (std::size_t router = 0; router < parts_.size(); ++router) {
    for (std::size_t i = router; i < parts_.size(); ++i) {
      if (parts_[i].router == router) order_.push_back(i);
    }
  }
  const bool is_single = parts_.size() == 1 && !parts_[0].alive;
  single_ = is_single ? parts_[0].image.get() : nullptr;
  stamp_ = next_stamp();
  if (is_single) std::memcpy(&stamp_, common().view().header.identity, sizeof stamp_);
}

// A part of the model of an earlier one is routed by that; its leaves' scores are the router's
// then. Where the router has no points in a leaf, what it says of the leaf comes from the part.
void Collection::bind(std::size_t at) {
  Part& part = parts_[at];
  part.router = at;
  part.view = part.image->search();
  for (std::size_t i = 0; i < at; ++i) {
    const bool is_router = parts_[i].router == i && parts_[i].count() > 0;
    if (is_router && are_of_one_model(*part.image, *parts_[i].image)) {
      part.router = i;
      break;
    }
  }
  if (part.router == at) return;
  Part& router = parts_[part.router];
  const std::uint32_t leaves = part.view.forest.trees[0].leaf_entry_count;
  const std::uint32_t entries = router.image->view().params.leaf_entries;
  std::unique_ptr<std::vector<float>>& table = tables_[part.router];
  for (std::uint32_t i = 0; i < leaves; ++i) {
    const bool is_missing = router.view.leaf_biases[i] == std::numeric_limits<float>::infinity() &&
                            part.view.forest.leaf_spans[i].count > 0;
    if (!is_missing) continue;
    if (!table) {
      table = std::make_unique<std::vector<float>>();
      for (const float* values : {router.view.forest.leaves.biases, router.view.forest.leaves.mults,
                                  router.view.leaf_scan_factors}) {
        table->insert(table->end(), values, values + entries);
      }
      router.view.forest.leaves.biases = router.view.leaf_biases = table->data();
      router.view.forest.leaves.mults = table->data() + entries;
      router.view.leaf_scan_factors = table->data() + 2 * std::size_t{entries};
    }
    (*table)[i] = part.view.leaf_biases[i];
    (*table)[entries + i] = part.view.forest.leaves.mults[i];
    (*table)[2 * std::size_t{entries} + i] = part.view.leaf_scan_factors[i];
  }
  for (std::size_t i = part.router + 1; i <= at; ++i) {
    if (parts_[i].router != part.router) continue;
    parts_[i].view.leaf_biases = router.view.leaf_biases;
    parts_[i].view.leaf_scan_factors = router.view.leaf_scan_factors;
  }
}

// ---- rows and ids ----------------------------------------------------------------------------

Collection::Place Collection::place_of(Row row) const {
  if (row >= items_) {
    throw Error(ErrorCode::out_of_range,
                "row " + std::to_string(row) + ": expected less than " + std::to_string(items_));
  }
  const auto behind =
      std::upper_bound(parts_.begin(), parts_.end(), std::uint64_t{row},
                       [](std::uint64_t r, const Part& part) { return r < part.first_row; });
  const Part& part = *(behind - 1);
  const std::uint64_t number = row - part.first_row;
  return {&part, part.alive ? part.alive->select(number) : static_cast<Row>(number)};
}

const std::byte* Collection::stored(Row row) const {
  const Place place = place_of(row);
  return place.part->image->stored(place.part->image->slot_of(place.row));
}

Slot Collection::slot_of(Row row) const {
  if (single_) {
    place_of(row);
    return single_->slot_of(row);
  }
  return place_of(row).part ? static_cast<Slot>(row) : kNoRow;
}

Row Collection::row_of(Slot slot) const {
  return single_ ? checked_row(single_->search(), slot) : static_cast<Row>(slot);
}

namespace {

Row row_in(const Part& part, Row row) {
  if (row == kNoRow || (part.alive && !part.alive->contains(row))) return kNoRow;
  const std::uint64_t number = part.alive ? part.alive->rank(row) : row;
  return static_cast<Row>(part.first_row + number);
}

}  // namespace

// The newest part that has an id is asked first: most likely it is still there.
Row Collection::find(std::int64_t id) const {
  for (auto part = parts_.rbegin(); part != parts_.rend(); ++part) {
    const Row row = row_in(*part, part->image->ids().find_int64(id));
    if (row != kNoRow) return row;
  }
  return kNoRow;
}

Row Collection::find(std::string_view id) const {
  for (auto part = parts_.rbegin(); part != parts_.rend(); ++part) {
    const Row row = row_in(*part, part->image->ids().find_text(id));
    if (row != kNoRow) return row;
  }
  return kNoRow;
}

std::int64_t Collection::int64_of(Row row) const {
  const Place place = place_of(row);
  return place.part->image->ids().int64_of(place.row);
}

std::string_view Collection::text_of(Row row) const {
  const Place place = place_of(row);
  return place.part->image->ids().text_of(place.row);
}

// ---- asking ----------------------------------------------------------------------------------

std::shared_ptr<const Collection::PartSets> Collection::split(const SlotSet& rows) const {
  if (auto known = rows.derived().get(stamp_)) {
    return std::static_pointer_cast<const PartSets>(known);
  }
  auto sets = std::make_shared<PartSets>();
  for (const Part& part : parts_) sets->emplace_back(part.image->items());
  for (const Slot row : rows.to_slots()) {
    const Place place = place_of(row);
    (*sets)[static_cast<std::size_t>(place.part - parts_.data())].insert(
        place.part->image->slot_of(place.row));
  }
  for (SlotSet& set : *sets) set.freeze();
  rows.derived().put(stamp_, sets);
  return sets;
}

const std::vector<Neighbour>& Collection::run(const void* values, const Request& request,
                                              const std::vector<Efforts>& efforts,
                                              CollectionSearcher* searcher) const {
  if (single_) {
    Request own = request;
    own.setting = efforts[0].usual;
    own.efforts = &efforts[0];
    return searcher->searcher_.run(single_->search(), values, own);
  }
  std::shared_ptr<const PartSets> sets;
  if (request.eligible) sets = split(*request.eligible);
  searcher->ask_all(*this, values, request, efforts, sets.get(), false);
  std::uint64_t eligible = request.eligible ? request.eligible->count() : items_;
  if (request.excluded != kNoRow && request.is_eligible(request.excluded)) --eligible;
  const bool is_short = searcher->found_.size() < std::min(request.k, eligible);
  if (is_short && !request.has_radius) {
    searcher->ask_all(*this, values, request, efforts, sets.get(), true);
  }
  return searcher->found_;
}

Request CollectionSearcher::request_for(const Collection& all, std::size_t at,
                                        const Request& request,
                                        const Collection::PartSets* sets) const {
  const Part& part = all.parts_[at];
  Request own = request;
  own.excluded = own.leading = kNoRow;
  for (const auto& [row, out] :
       {std::pair{request.excluded, &own.excluded}, std::pair{request.leading, &own.leading}}) {
    if (row == kNoRow) continue;
    const Collection::Place place = all.place_of(row);
    if (place.part == &part) *out = part.image->slot_of(place.row);
  }
  own.eligible = sets ? &(*sets)[at] : part.alive ? &part.alive->slots() : nullptr;
  own.few_are_gone = !sets && part.alive && part.count() * 4 > part.image->items() * 3;
  if (request.all_within) own.k = part.image->items();
  return own;
}

void CollectionSearcher::take(const Part& part, const std::vector<Neighbour>& found) {
  for (const Neighbour& neighbour : found) {
    const Row row = row_in(part, neighbour.row);
    if (row != kNoRow) found_.push_back({neighbour.key, neighbour.distance, row, row});
  }
}

void CollectionSearcher::ask_all(const Collection& all, const void* values, const Request& request,
                                 const std::vector<Efforts>& efforts,
                                 const Collection::PartSets* sets, bool everything) {
  found_.clear();
  for (const std::size_t at : all.order_) {
    const Part& part = all.parts_[at];
    if (part.count() == 0 || (sets && (*sets)[at].count() == 0)) continue;
    Request own = request_for(all, at, request, sets);
    own.setting = efforts[part.router].usual;
    own.efforts = &efforts[part.router];
    own.setting.everything = own.setting.everything || everything;
    const bool is_routed = part.router != at && !request.has_radius && !own.setting.everything &&
                           own.leading == kNoRow &&
                           searcher_.has_routed(all.parts_[part.router].view);
    // Without a route through its own leaves only a scan of all tells what a part holds.
    if (part.router != at && !is_routed) own.setting.everything = true;
    take(part,
         is_routed ? searcher_.run_routed(part.view, own) : searcher_.run(part.view, values, own));
  }
  order(all, request);
}

// Nearest first, ties by row, behind the leading one.
void CollectionSearcher::order(const Collection& all, const Request& request) {
  const bool larger = traits_of(all.common().metric()).larger_is_nearer;
  std::sort(found_.begin(), found_.end(), [&](const Neighbour& a, const Neighbour& b) {
    if ((a.row == request.leading) != (b.row == request.leading)) return a.row == request.leading;
    if (a.distance != b.distance) return larger ? a.distance > b.distance : a.distance < b.distance;
    return a.row < b.row;
  });
  if (!request.all_within && found_.size() > request.k) found_.resize(request.k);
}

}  // namespace annidx
