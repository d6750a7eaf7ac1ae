// tuning.h owns every numeric default of the core: unit, effect and source. "Measured" means the
// benchmark of docs/performance.md. It must not include anything of annidx.
#pragma once

#include <cstddef>
#include <cstdint>

namespace annidx::tuning {

// ---- partition ---------------------------------------------------------------------------

// Points a leaf aims at: where it is scanned whole, and where it is cut into blocks. Smaller leaves
// give finer routing and more centroids to score; larger ones longer contiguous reads.
inline constexpr std::uint32_t kLeafPoints = 256;
inline constexpr std::uint32_t kBlockedLeafPoints = 1024;
// A leaf with more points than this many times its aim is cut in row order (duplicates).
inline constexpr std::uint32_t kOverfullFactor = 4;
// Points of a node that its 2-means looks at, and its rounds: more changes nothing measurable.
inline constexpr std::uint32_t kSplitSample = 1024;
inline constexpr std::uint32_t kSplitRounds = 12;
// A split that leaves less than this share on one side is replaced by one at the median.
inline constexpr double kMinSplitShare = 1.0 / 32;
// Points the tree is trained on: this many a leaf, at least the floor; all when there are fewer.
inline constexpr std::uint64_t kTreeSamplePerLeaf = 48;
inline constexpr std::uint64_t kTreeSampleFloor = 65'536;
// Lloyd passes over the leaf centroids, each comparing a point with the centroids nearest to its
// own.
inline constexpr std::uint32_t kLloydPasses = 5;
inline constexpr std::uint32_t kLloydNeighbours = 128;
// A lean build (Annoy's place) makes so many passes: each costs a tenth of Annoy's build of ten
// trees.
inline constexpr std::uint32_t kLeanLloydPasses = 1;
// Further trees are a help, not the layout: rows a leaf that their cuts and centroids are learned
// from.
inline constexpr std::uint32_t kRandomSamplePerLeaf = 32;
// Further trees made in one pass over the rows; each takes 4 bytes a row meanwhile.
inline constexpr std::size_t kTreesAtOnce = 8;
// Norm bands of the dot metric (equal counts): routing orders leaves of like norms. At most so many
// (measured on factors), and so many more each time that the norms' 95th percentile is double the
// 5th.
inline constexpr std::uint32_t kMostNormBands = 8;
inline constexpr double kNormBandsPerDoubling = 3.0;

// Rounds of the balanced 2-means that orders a leaf's points into blocks. Source: prototype on SIFT
// and text, where more changes nothing measurable.
inline constexpr std::uint32_t kBlockRounds = 5;

// Residuals of block centroids are coded times this: they are shorter than those of points, for
// which the codebook was learned. Source: prototype, SIFT and text.
inline constexpr float kCentroidScale = 1.5f;
// Blocks are ordered by the score of their centroid plus this times their points' mean squared
// distance to it. Source: prototype.
inline constexpr float kBlockRadiusWeight = 0.45f;

// ---- memory ------------------------------------------------------------------------------

// With memory_limit, mapped pages of the input and of the file may take one part in so many of it;
// the rest is for what a build keeps of each row and for its sample.
inline constexpr std::uint64_t kFileMemoryShare = 4;

// ---- routing -----------------------------------------------------------------------------

// Leaves are ordered by squared distance to the centroid plus this times the mean squared radius:
// best on SIFT and text, whose leaves are much alike.
inline constexpr float kRadiusWeight = 0.3f;
// Where queries are asked at build, the best of these is taken. Source: clustered data whose radii
// vary fivefold, where 0 reads a third of the points at recall 0.98 that 0.3 reads.
inline constexpr float kRadiusWeights[] = {0.3f, 0.2f, 0.4f,  0.1f,  0.5f,
                                           0.0f, 0.6f, -0.1f, -0.2f, -0.3f};
// The queries asked for that, and the recalls at which the points read are compared (their
// product).
inline constexpr std::uint64_t kRadiusWeightQueries = 256;
inline constexpr double kRadiusWeightRecalls[] = {0.90, 0.95, 0.98};
// Up to this many leaves all centroids are scored; above, groups of centroids come first. Source:
// 10M generated points in 16,646 leaves, where 96 groups lost 3 points of recall at equal
// candidates.
inline constexpr std::uint32_t kFlatLeaves = 24'576;
inline constexpr std::uint32_t kGroupLeaves = 32;
// Groups opened by a query at the least, and one for so many leaves it will visit.
inline constexpr std::uint32_t kMinGroups = 256;
inline constexpr std::uint32_t kLeavesPerOpenedGroup = 4;

// Candidates a query inspects for each further tree it consults, and for each point of further
// trees' leaves that it adds: such a point is re-scored, at the price of fifty codes, and routing
// costs a tree as much as the first. Measured on SIFT 500k.
inline constexpr std::uint64_t kCandidatesPerFurtherTree = 4'096;
inline constexpr std::uint64_t kCandidatesPerFurtherPoint = 64;

// ---- codes -------------------------------------------------------------------------------

// At or below this dimension, or with fewer items, vectors are scanned as they are.
inline constexpr std::uint32_t kPlainScanDim = 16;
inline constexpr std::uint64_t kPlainScanItems = 2'048;
// Dimensions a 4-bit code covers up to kFineCodes codes; above, kCoarseDims. At most kMaxCodes.
inline constexpr std::uint32_t kFineDims = 4;
inline constexpr std::uint32_t kFineCodes = 64;
inline constexpr std::uint32_t kCoarseDims = 8;
inline constexpr std::uint32_t kMaxCodes = 256;
inline constexpr std::uint32_t kMaxDimsPerCode = 64;
// Share of the coding error's square that code scalars restore (beta). Source: prototypes measured
// 0.4 best on text, 0 on SIFT.
inline constexpr float kResidualWeight = 0.2f;
// Residuals that rotation and codebooks are trained on; fewer in a lean build, with the same recall
// to three places on SIFT and text at search_k 500 to 2,000.
inline constexpr std::uint32_t kCodeSample = 20'480;
inline constexpr std::uint32_t kLeanCodeSample = 12'288;
inline constexpr std::uint32_t kCodebookRounds = 12;
// The rotation acts on blocks of at most this many dimensions (cost of a query: dim * block).
inline constexpr std::uint32_t kRotationBlock = 512;
inline constexpr std::uint32_t kRotationRounds = 10;

// ---- neighbour lists ---------------------------------------------------------------------

// Entries of a point's list: 32 give more recall a round for twice the rows, 8 are clearly weaker.
// Source: simulations on exact distances, SIFT and text.
inline constexpr std::uint32_t kNeighbours = 16;
inline constexpr std::uint32_t kMostNeighbours = 128;
// The leaves nearest to a leaf whose blocks its blocks look at, how many of these blocks the points
// of a block choose among, and how many each point is compared with. Measured on SIFT 1M in leaves
// of 1,000: 96 blocks instead of 64 find 2 points more for a tenth more time; of 200 leaves instead
// of 128, or 2,048 candidates, next to nothing comes.
inline constexpr std::uint32_t kListLeaves = 128;
inline constexpr std::uint32_t kListBlockCandidates = 1'024;
inline constexpr std::uint32_t kListBlocks = 96;
// Rounds of neighbours' neighbours, how much of a neighbour's list is read, also of those that name
// it, and how many points found so a block is compared with at most. Measured on SIFT 1M: 3,000
// points instead of 1,000 find 3 points more for a fifth more time; twice as many, half a point.
inline constexpr std::uint32_t kListRounds = 1;
inline constexpr std::uint32_t kListJoinDegree = 8;
inline constexpr std::uint32_t kListJoinPoints = 3'072;

// How far a point that joins an index looks for its list: points of opened leaves, points scanned,
// and re-ranked ones. Source: the settings of SIFT at recall 0.95 without lists.
inline constexpr std::uint64_t kMendedOpened = 24'576;
inline constexpr std::uint64_t kMendedCandidates = 6'144;
inline constexpr std::uint64_t kMendedReranked = 96;

// Where at most one row in so many is new, an index's lists are mended; else all are made anew,
// which is then as fast.
inline constexpr std::uint64_t kFewFreshRows = 4;
// A part of added rows is joined with the one before it when that is smaller than this many of it.
inline constexpr std::uint64_t kJoinedPartFactor = 3;

// Rows of each leaf that tell how far rows are from their centroids.
inline constexpr std::uint32_t kDriftRowsPerLeaf = 4;

// ---- neighbours of all items -------------------------------------------------------------

// Places of a list beyond the k asked for, one for so many and so many besides: what the bytes of
// rows rank a little too low is found among them.
inline constexpr std::uint64_t kGraphSpareShare = 4;
inline constexpr std::uint64_t kGraphSpare = 4;
// Items whose true neighbours tell how many rounds are enough, and the most rounds.
inline constexpr std::uint64_t kGraphSample = 1'024;
inline constexpr std::uint32_t kMostGraphRounds = 4;
// What is compared, as for the lists of a build. Measured on SIFT 1M, lists of 16: one round finds
// 0.95 so, and 0.92 with the effort of a build, whose rounds lead to 0.946 and no further.
inline constexpr std::uint32_t kGraphBlocks = 144;
inline constexpr std::uint32_t kGraphJoinDegree = 16;
inline constexpr std::uint32_t kGraphJoinPoints = 6'144;
// Items a thread answers at a time.
inline constexpr std::uint64_t kGraphGrain = 256;

// ---- calibration -------------------------------------------------------------------------

// Rows held out of training and asked as queries.
inline constexpr std::uint64_t kHeldOutRows = 768;
inline constexpr std::uint32_t kHeldOutShare = 8;  // at most one row in so many
// The curve is read as if misses were this much more frequent: held-out rows of the data are
// easier than queries of another origin. Source: text queries fell 2 points short without it.
inline constexpr double kMissMargin = 0.85;
// Of dot even more: its queries are seldom distributed as its items are. Source: users and items of
// factors, uniform data, 1 to 4 points short of 0.80 without it.
inline constexpr double kDotMisses = 1.15;
// Between two points of the curve whose misses differ by more than this factor nothing is
// interpolated.
inline constexpr double kMostBlendedMisses = 3.0;
// A curve that ends this much below a target leads to a full scan.
inline constexpr double kMostShort = 0.005;
inline constexpr std::uint32_t kCurvePointsPerK = 16;
inline constexpr std::uint32_t kCurveKs[] = {1, 10, 30, 100};
// Above it, k is measured by itself: deeper, with fewer queries.
inline constexpr std::uint32_t kLargestUsualK = 100;
// The one such k that a build measures, in indexes of at least so many items. Source: on clustered
// data the curve at 100 says too little of 1000, whose neighbours leave the cluster (recall 0.86
// for 0.99).
inline constexpr std::uint32_t kDeepCurveK = 1'000;
inline constexpr std::uint64_t kDeepCurveItems = 4'000;
inline constexpr std::uint64_t kDeepCurveQueries = 96;
// Candidates of the first rung.
inline constexpr std::uint64_t kFirstLevel = 96;
// The ladder of settings: points of opened leaves on its first rung, lists expanded a round on the
// first that has some, and the growth of one kind of effort from rung to rung.
inline constexpr std::uint64_t kFirstOpened = 1'024;
inline constexpr std::uint64_t kFirstExpanded = 12;
// Bounds of the ladder: from poor candidates lists lead nowhere, and blocks are to be chosen from.
inline constexpr std::uint64_t kCandidatesPerExpanded = 32;
inline constexpr std::uint64_t kLeastOpenedPerCandidate = 4;
inline constexpr double kRungGrowth = 1.6;
inline constexpr double kWholeLeavesGrowth = 1.35;
// Queries asked on each rung, and those of them that choose the next one.
inline constexpr std::uint64_t kCurveQueries = 384;
inline constexpr std::uint64_t kClimbingQueries = 64;
// Fewer misses than this share are none; points of the curve are spread from there to the other.
inline constexpr double kFewestMisses = 0.001;
inline constexpr double kMostMisses = 0.5;
// Where no curve was measured: points of opened leaves for each point scanned, lists a round.
inline constexpr std::uint64_t kOpenedPerCandidate = 8;
inline constexpr std::uint64_t kUnmeasuredExpanded = 32;
// Depth of the re-ranking that calibration looks at.
inline constexpr std::uint32_t kTraceDepth = 2'048;
inline constexpr std::uint64_t kLeastTraceDepth = 128;
// Exact keys of one query that are kept while its effort grows; a power of two.
inline constexpr std::size_t kTracedKeys = 8'192;
// A query whose neighbours have all been found on so many rungs is asked no further.
inline constexpr std::size_t kSettledLevels = 3;
// Items up to which calibration's truth is brute force (times dimension).
inline constexpr std::uint64_t kExactTruthValues = 4'000'000;
// Beyond twice the k neighbours by rows of bytes, so many are scored exactly to know the true ones.
inline constexpr std::uint32_t kSpareTruth = 16;

// Cost of a query in points scanned, to choose the cheapest setting. Measured at 128 and 384
// dimensions; bytes are those of a byte row.
inline constexpr double kScanCostPerCode = 1.0 / 32;  // a point and code
inline constexpr double kBlockCost = 10;              // a block scanned, and
inline constexpr double kOpenedBlockCost = 2;         // one whose centroid is scored
inline constexpr double kListCost = 100;              // a list expanded
inline constexpr double kRerankCostPerByte = 0.12;    // a row byte, and
inline constexpr double kRerankCostFixed = 12;        // a row
inline constexpr double kExactCostPerDim = 0.35;      // a dimension, and
inline constexpr double kExactCostFixed = 60;         // a row

// ---- queries -----------------------------------------------------------------------------

// Of the next leaf's codes so many bytes are asked for ahead: the processor's own streaming does
// the rest. Measured on SIFT, text and factors: all of it is up to a tenth slower.
inline constexpr std::size_t kPrefetchCodeBytes = 512;
// At most so many eligible items are scanned exactly instead of searched.
inline constexpr std::uint64_t kExactScanItems = 1'024;
// Under a filter that leaves next to nothing, lists are worth this many times the points scanned.
// Source: text and SIFT, where a scan alone needs some four times the points at recall 0.95, and
// where filters go with the place.
inline constexpr double kFilteredListStretch = 4.0;
inline constexpr double kFilteredRerankStretch = 2.0;
// Blocks scanned between two looks at how many candidates there are.
inline constexpr std::size_t kBlocksAtOnce = 16;
// Rounds of expanding the best candidates' neighbour lists. Source: simulations on exact distances;
// a third adds little.
inline constexpr std::uint32_t kExpansionRounds = 2;
// The candidate whose distance tells how far a query lies from all items (search/reach.h).
inline constexpr std::size_t kReachCandidates = 10;
// A query is far when its reach exceeds what so large a share of the measuring queries has; nearer
// to the median by kFarSlack of the way between.
inline constexpr double kFarShare = 0.98;
inline constexpr double kFarSlack = 0.1;
// A far query goes as far as one for this many times fewer misses, and one kRemoteRatio times as
// far out for kRemoteMisses times fewer. Source: means of 2 to 20 unrelated rows of SIFT and text,
// which missed 5 to 8 times as much as was asked.
inline constexpr double kFarMisses = 8.0;
inline constexpr double kRemoteMisses = 20.0;
inline constexpr float kRemoteRatio = 1.12f;
// A far query scores at least so many vectors exactly, and re-ranks so many besides.
inline constexpr std::uint64_t kFarExactPerNeighbour = 4;
inline constexpr std::uint64_t kFarExactSpare = 16;
inline constexpr std::uint64_t kFarRerank = 512;
// Each time a query must widen, it inspects this many times more candidates.
inline constexpr std::uint64_t kWidening = 4;
// For k beyond the largest measured one, candidates grow with this power of k: on clustered data
// power 1 is too little.
inline constexpr double kStretchPower = 1.5;
// A filter that leaves fewer eligible points near the query than elsewhere makes it look further,
// at most this many times.
inline constexpr double kMaxFilterStretch = 8.0;
// With search_k given, at least one candidate in so many is re-scored by byte rows.
inline constexpr std::uint64_t kCandidatesPerRerank = 96;
// Where no curve was measured, one candidate in so many is re-scored, and so many at least for each
// neighbour asked for: of float32 rows in memory, each costs as much as scanning fifty points.
// Source: no less found than by Annoy on clustered vectors at search_k 200 to 19,000
// (tests/annoy).
inline constexpr std::uint64_t kCandidatesPerUnmeasuredRerank = 48;
inline constexpr std::uint64_t kUnmeasuredRerankPerNeighbour = 3;
// Queries a thread takes at a time in a batch.
inline constexpr std::uint64_t kBatchGrain = 16;

}  // namespace annidx::tuning
