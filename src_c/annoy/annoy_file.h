// annoy_file.h owns the files that Annoy 1.17 wrote: checking them, walking their trees as Annoy
// does, copying them. It must not know annidx's own format or index.
//
// Such a file has no header: it is an array of equal nodes whose size follows from metric and
// dimension, with the roots repeated at the end. Every count and child index is checked before
// use, so that a wrong dimension or damage is Error(format), never a crash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace annidx {

enum class AnnoyMetric : std::uint32_t { angular, euclidean, manhattan, dot, hamming };

class AnnoyFile {
 public:
  // Maps the file. prefault: reads it ahead. Throws Error(io) or Error(format).
  AnnoyFile(const std::string& path, std::uint32_t f, AnnoyMetric metric, bool prefault);
  ~AnnoyFile();
  AnnoyFile(const AnnoyFile&) = delete;
  AnnoyFile& operator=(const AnnoyFile&) = delete;

  std::uint32_t n_items() const noexcept;  // max id + 1, as Annoy counts
  std::uint32_t n_trees() const noexcept;
  // Dimension of a stored vector as float: f floats, also for hamming (0.0 or 1.0).
  void item_vector(std::uint32_t item, float* out) const;  // Error(out_of_range)
  bool has_item(std::uint32_t item) const;                 // false in holes
  double distance(std::uint32_t a, std::uint32_t b) const;

  // Annoy's search: leaves of all trees by margin until search_k candidates (0: n * n_trees), then
  // exact distances; nearest first, at most n. Const and thread-safe.
  void nearest(const float* query, std::uint32_t n, std::uint64_t search_k,
               std::vector<std::uint32_t>* items, std::vector<float>* distances) const;

  // Writes the same bytes to another file, atomically (file.h AtomicFile).
  void save(const std::string& path) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Distance as Annoy returns it, between two vectors of f floats (hamming: above 0.5 is a one).
double annoy_distance(AnnoyMetric metric, std::uint32_t f, const float* a, const float* b);

// Writes the file that Annoy writes for an index without items, which annidx's own format cannot
// hold.
void save_empty_annoy(const std::string& path, std::uint32_t f, AnnoyMetric metric,
                      std::uint32_t n_trees);

}  // namespace annidx
