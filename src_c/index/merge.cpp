// merge.cpp owns the merging of parts; see merge.h.
#include "index/merge.h"

#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/tuning.h"

namespace annidx {
namespace {

using format::Section;

// The rows of a collection from a part on, and the leaf of each.
class CollectedRows final : public StoredRows {
 public:
  CollectedRows(const Collection& all, std::size_t first_part, std::uint32_t model_leaves)
      : StoredRows(all.common().dtype(), all.common().dim()),
        all_(all),
        first_part_(first_part),
        model_leaves_(model_leaves) {
    first_row_ = first_part < all.parts().size() ? all.parts()[first_part].first_row : all.items();
    rows_.resize(all.items() - first_row_);
    leaves_.resize(rows_.size());
    for (std::size_t i = first_part; i < all.parts().size(); ++i) collect(all.parts()[i]);
  }

  std::uint64_t size() const noexcept override { return rows_.size(); }
  const std::byte* stored(Row row, std::byte*) const override { return rows_[row]; }
  bool converts(Row) const noexcept override { return false; }
  void prefetch(Row row) const noexcept override { prefetch_l2(rows_[row], row_bytes_); }
  void release_pages() const noexcept override {
    for (std::size_t i = first_part_; i < all_.parts().size(); ++i) {
      const Part& part = all_.parts()[i];
      if (part.mapped) part.mapped->release(0, part.mapped->bytes());
    }
  }

  std::vector<std::uint32_t> take_leaves() { return std::move(leaves_); }
  // The row here of a row of a part; kNoRow when it was removed.
  Row row_of(const Part& part, Row row) const {
    if (part.alive && !part.alive->contains(row)) return kNoRow;
    const std::uint64_t number = part.alive ? part.alive->rank(row) : row;
    return static_cast<Row>(part.first_row - first_row_ + number);
  }

 private:
  void collect(const Part& part) {
    const LoadedImage& image = *part.image;
    const SearchView& view = image.search();
    const std::vector<std::uint32_t> leaves = leaves_of_entries(image);
    for (std::uint32_t entry = 0; entry < leaves.size(); ++entry) {
      const LeafSpan span = checked_leaf(view.forest, entry, true);
      if (span.count > 0 && leaves[entry] >= model_leaves_) {
        throw Error(ErrorCode::format, image.name() + " is damaged: section 'leaf_scales', entry " +
                                           std::to_string(entry) +
                                           ": expected a leaf of the model");
      }
      for (std::uint32_t i = 0; i < span.count; ++i) {
        const auto slot = static_cast<Slot>(span.first + i);
        const Row row = row_of(part, checked_row(view, slot));
        if (row == kNoRow) continue;
        rows_[row] = image.stored(slot);
        leaves_[row] = leaves[entry];
      }
    }
    // In a damaged file some rows may be in no leaf.
    for (std::uint64_t row = part.first_row; row < part.first_row + part.count(); ++row) {
      if (rows_[row - first_row_]) continue;
      throw Error(ErrorCode::format, image.name() +
                                         " is damaged: section 'leaf_ranges': expected " +
                                         "leaves that hold all rows");
    }
  }

  const Collection& all_;
  std::size_t first_part_;
  std::uint32_t model_leaves_;
  std::uint64_t first_row_ = 0;
  std::vector<const std::byte*> rows_;
  std::vector<std::uint32_t> leaves_;
};

// The ids of the rows from `first` on. Rows of parts that have no ids of their own are numbered
// through.
IdCollector collected_ids(const Collection& all, std::uint64_t first, bool is_numbered) {
  IdCollector ids;
  const std::uint64_t count = all.items() - first;
  if (all.id_kind() == IdKind::text) {
    std::string text;
    std::vector<std::uint64_t> offsets{0};
    for (std::uint64_t row = first; row < all.items(); ++row) {
      text += all.text_of(static_cast<Row>(row));
      offsets.push_back(text.size());
    }
    ids.add_text(text.data(), offsets.data(), count);
    return ids;
  }
  if (is_numbered) {
    ids.add_implicit(count);
    return ids;
  }
  std::vector<std::int64_t> numbers(count);
  bool are_rows = true;
  for (std::uint64_t i = 0; i < count; ++i) {
    numbers[i] = all.int64_of(static_cast<Row>(first + i));
    are_rows = are_rows && numbers[i] == static_cast<std::int64_t>(i);
  }
  if (are_rows && first == 0) {
    ids.add_implicit(count);
  } else {
    ids.add_int64(numbers.data(), count);
  }
  return ids;
}

bool are_all_numbered_parts(const Collection& all) {
  for (const Part& part : all.parts()) {
    const bool is_part =
        part.image->view().header.kind == static_cast<std::uint32_t>(format::FileKind::part);
    if (!is_part || part.alive || part.image->ids().kind != IdKind::row) return false;
  }
  return true;
}

// Whether most rows are those of the first part, which has lists.
bool keeps_lists(const Collection& all, const BuildPlan& plan) {
  const Part& base = all.base();
  const std::uint64_t fresh = all.items() - base.count();
  return plan.neighbours > 0 && base.image->view().params.neighbour_count == plan.neighbours &&
         fresh * tuning::kFewFreshRows <= all.items();
}

}  // namespace

void require_one_model(const Collection& all) {
  const format::FileHeader& first = all.common().view().header;
  for (const Part& part : all.parts()) {
    const format::FileHeader& other = part.image->view().header;
    if (std::memcmp(first.model_identity, other.model_identity, sizeof first.model_identity) == 0) {
      continue;
    }
    throw Error(ErrorCode::invalid_argument,
                "expected parts of one model, found two: " + all.common().name() + " and " +
                    part.image->name() + " (load them together, or build one index of their rows)");
  }
}

std::unique_ptr<Memory> merged_image(const Collection& all, std::size_t first_part,
                                     const Encoder& encoder, BuildPlan plan, ImagePlace* place) {
  CollectedRows rows(all, first_part, encoder.model().division.leaf_count());
  const IdCollector ids =
      collected_ids(all, all.items() - rows.size(), are_all_numbered_parts(all));
  KeptLists kept;
  if (first_part == 0 && keeps_lists(all, plan)) {
    const LoadedImage& image = *all.base().image;
    kept.image = &image;
    for (std::uint64_t slot = 0; slot < image.items(); ++slot) {
      kept.rows.push_back(
          rows.row_of(all.base(), checked_row(image.search(), static_cast<Slot>(slot))));
    }
    plan.kept_lists = &kept;
  }
  return build_image(rows, ids, encoder, rows.take_leaves(), plan, place);
}

// ---- drift -----------------------------------------------------------------------------------

namespace {

// Mean squared distance of some of a part's rows to the centroids of their leaves; below 0 when it
// has no rows.
class Spread {
 public:
  void add(const Part& part) {
    const LoadedImage& image = *part.image;
    const SearchView& view = image.search();
    const auto* scales = image.view().array<float>(Section::leaf_scales);
    std::vector<float> work(image.dim());
    std::vector<std::uint8_t> bytes(image.dim());
    const std::uint32_t entries = view.forest.trees[0].leaf_entry_count;
    for (std::uint32_t entry = 0; entry < entries; ++entry) {
      const LeafSpan span = checked_leaf(view.forest, entry, true);
      if (span.count == 0) continue;
      take_centroid(view.forest.leaves.centroids, image.dim(), view.forest.dim4, entry,
                    bytes.data());
      const std::uint32_t step = std::max(1u, span.count / tuning::kDriftRowsPerLeaf);
      for (std::uint32_t i = 0; i < span.count; i += step) {
        decode_row(image.dtype(), image.stored(static_cast<Slot>(span.first + i)), image.dim(),
                   work.data());
        view.transform.apply(work.data(), work.data());
        double square = 0.0;
        for (std::uint32_t j = 0; j < image.dim(); ++j) {
          const double apart = work[j] - scales[entry] * (bytes[j] - 128.0);
          square += apart * apart;
        }
        sum_ += square * step;
        weight_ += step;
      }
    }
  }
  double mean() const noexcept { return weight_ > 0.0 ? sum_ / weight_ : -1.0; }

 private:
  double sum_ = 0.0, weight_ = 0.0;
};

}  // namespace

double drift_of(const Collection& all) {
  Spread added, base;
  for (std::size_t i = 1; i < all.parts().size(); ++i) {
    if (all.parts()[i].router == 0) added.add(all.parts()[i]);
  }
  if (added.mean() < 0.0) return 0.0;
  base.add(all.base());
  return base.mean() > 0.0 ? added.mean() / base.mean() : 0.0;
}

}  // namespace annidx
