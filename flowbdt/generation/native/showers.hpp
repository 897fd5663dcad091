// Calorimeter showers: energies of layers divided in two, again and again, until voxels are left.

#ifndef FLOWBDT_SHOWERS_HPP
#define FLOWBDT_SHOWERS_HPP

#include "flowbdt.hpp"

namespace flowbdt {
namespace detail {

/// Returns z at which the cumulative normal distribution is p: Wichura, Applied Statistics 37
/// (1988) 477, algorithm AS 241, PPND16.
inline double normal_quantile(double p) {
  static constexpr double kMiddle[2][8] = {
      {2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
       13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608},
      {5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
       5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0}};
  static constexpr double kTail[2][8] = {
      {7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177,
       1.27045825245236838258, 3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959,
       1.42343711074968357734},
      {1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966,
       0.14810397642748007459, 0.68976733498510000455, 1.6763848301838038494,
       2.05319162663775882187, 1.0}};
  static constexpr double kFarTail[2][8] = {
      {2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386,
       0.026532189526576123093, 0.29656057182850489123, 1.7848265399172913358,
       5.4637849111641143699, 6.6579046435011037772},
      {2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5,
       7.868691311456132591e-4, 0.0148753612908506148525, 0.13692988092273580531,
       0.59983220655588793769, 1.0}};
  const auto ratio = [](const double(&terms)[2][8], double r) {
    double top = 0.0, low = 0.0;
    for (int i = 0; i < 8; ++i) top = top * r + terms[0][i], low = low * r + terms[1][i];
    return top / low;
  };
  const double q = p - 0.5;
  if (std::fabs(q) <= 0.425) return q * ratio(kMiddle, 0.180625 - q * q);
  const double r = std::sqrt(-std::log(q < 0 ? p : 1.0 - p));
  const double z = r <= 5.0 ? ratio(kTail, r - 1.6) : ratio(kFarTail, r - 5.0);
  return q < 0 ? -z : z;
}

/// Divisions of the energies of all layers into rings, and of rings into sectors; see
/// flowbdt/physics/calorimeter/model/voxel_arrays.py. Never changes; threads may share it.
class Showers {
 public:
  explicit Showers(const File& file) : trees_(file, "trees") {
    const auto sizes = file.sizes("showers", 3);
    n_known_ = sizes[0];
    n_segments_ = sizes[1];
    ring_width_ = sizes[2];
    distributions_ = file.get<std::int64_t>("showers.distributions");
    ends_ = file.get<double>("showers.ends");
    knots_ = file.get<double>("showers.knots");
    layers_ = file.get<std::int64_t>("showers.layers");
    ring_steps_ = file.get<std::int64_t>("showers.ring_steps");
    start_ = file.get<std::int64_t>("showers.start", n_layers());
    rings_ = file.get<std::int64_t>("showers.rings");
    sector_steps_ = file.get<std::int64_t>("showers.sector_steps");
    away_ = file.get<double>("showers.away", sector_steps_.size / kSectorStep * 2);
    cells_ = file.get<std::int64_t>("showers.cells");
    turn_ = file.get<double>("showers.turn", 2 * cells_.size);
    check(file);
  }

  Trees& trees() { return trees_; }
  std::size_t n_known() const { return n_known_; }
  std::size_t n_layers() const { return layers_.size / kLayer; }
  std::size_t n_voxels() const { return n_voxels_; }
  std::size_t n_uniform() const { return n_uniform_; }

  /// Working memory of one call.
  struct Room {
    std::vector<float> x, total;
    std::vector<double> segments, cells, share, location, ranks;
    std::vector<std::size_t> active, first, inner;
    std::vector<double> side;
  };

  /// Fills voxels (n, n_voxels) from known features (n, n_layers, n_known), the energies of layers
  /// (n, n_layers), axes (n, 2) and uniform numbers (n, n_uniform).
  void fill(const float* known, const double* layers, const double* axes, const double* uniform,
            double threshold, std::size_t n, double* voxels) const {
    const std::size_t stride = n_uniform_;
    Room room;
    for (std::size_t low = 0; low < n; low += kTogetherShowers) {
      const std::size_t rows = std::min(kTogetherShowers, n - low);
      const float* features = known + low * n_layers() * n_known_;
      const double* numbers = uniform + low * stride;
      fill_rings(features, layers + low * n_layers(), numbers, stride, threshold, rows, room);
      std::size_t ring = 0, column = ring_steps_.size / ring_width_;
      for (std::size_t l = 0; l < n_layers(); ++l) {
        fill_layer(l, ring, features, axes + 2 * low, numbers + column, stride, threshold, rows,
                   room, voxels + low * n_voxels_);
        ring += layer(l, kRings);
        if (layer(l, kSectors) > 1) column += layer(l, kRings) * (layer(l, kSectors) + 1);
      }
    }
  }

 private:
  static constexpr std::size_t kTogetherShowers = 64;

  /// Columns of a layer: its numbers of rings and sectors, its first voxel, its first division of
  /// sectors and one past its last, its first cell.
  enum LayerColumn { kRings, kSectors, kVoxel, kStep, kStepEnd, kCell, kLayer };
  /// Columns of a distribution: the forest that tells the leaf, that of the location (the scale
  /// follows it) and of the bend, -1 if there is none, its levels; leaves, where their ends begin,
  /// quantiles of each, where these begin; the forest of the ends, -1: leaves have them.
  enum Column {
    kLeaf, kLocation, kBend, kLevels, kLeaves, kEnds, kKnots, kFirstKnot, kOfEnds, kColumns
  };
  static constexpr std::size_t kSectorStep = 5, kRingStep = 7;
  static constexpr double kClip = 1e-9;
  static constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();

  static std::size_t at(std::int64_t place) { return static_cast<std::size_t>(place); }

  static bool below(std::int64_t place, std::size_t end) {
    return place >= 0 && static_cast<std::uint64_t>(place) < end;
  }

  std::size_t layer(std::size_t l, LayerColumn what) const {
    return at(layers_[l * kLayer + what]);
  }

  void check(const File& file) {
    const char* what = "divisions of showers";
    constexpr std::int64_t most = 1 << 20;
    file.require(layers_.size % kLayer == 0 && distributions_.size % kColumns == 0 &&
                     sector_steps_.size % kSectorStep == 0 && ring_width_ >= kRingStep &&
                     (ring_width_ - kRingStep) % 2 == 0 && ring_steps_.size % ring_width_ == 0,
                 what);
    const std::size_t count = distributions_.size / kColumns;
    const std::size_t fractions = (ring_width_ - kRingStep) / 2;
    for (std::size_t i = 0; i < distributions_.size; ++i)
      file.require(distributions_[i] >= -1 && distributions_[i] <= (std::int64_t{1} << 40), what);
    for (std::size_t d = 0; d < count; ++d)
      check_distribution(file, distributions_.data + d * kColumns);
    file.require(trees_.n_inputs() >= n_known_ + 5 && trees_.n_inputs() >= n_known_ + 3 + fractions,
                 what);
    const auto known = [&](std::int64_t number, std::size_t end) {
      file.require(number == -1 || below(number, end), what);
    };
    for (std::size_t i = 0; i < ring_steps_.size; i += ring_width_) {
      const std::int64_t* step = ring_steps_.data + i;
      file.require(below(step[0], n_layers()), what);
      for (std::size_t q = 1; q < 4; ++q) file.require(below(step[q], n_segments_), what);
      for (std::size_t q = 4; q < ring_width_; ++q) known(step[q], q == 6 ? count : n_segments_);
      for (std::size_t q = 0; q < fractions; ++q)  // a fraction of nothing is unknown
        file.require(step[8 + 2 * q] == -1 || step[7 + 2 * q] >= 0, what);
    }
    std::size_t all_rings = 0;
    n_uniform_ = ring_steps_.size / ring_width_;
    for (std::size_t l = 0; l < n_layers(); ++l) {
      for (std::size_t q = 0; q < kLayer; ++q)
        file.require(layers_[l * kLayer + q] >= 0 && layers_[l * kLayer + q] <= most, what);
      const std::size_t rings = layer(l, kRings), sectors = layer(l, kSectors);
      file.require(rings > 0 && sectors > 0 && rings * sectors <= most &&
                       layer(l, kStep) <= layer(l, kStepEnd) &&
                       layer(l, kStepEnd) <= sector_steps_.size / kSectorStep &&
                       (sectors == 1 || layer(l, kCell) + sectors <= cells_.size) &&
                       (sectors == 1 || layer(l, kStepEnd) - layer(l, kStep) == sectors - 1),
                   what);
      file.require(layer(l, kVoxel) == n_voxels_, what);
      n_voxels_ += rings * sectors;
      if (sectors > 1) n_uniform_ += rings * (sectors + 1);
      all_rings += rings;
      file.require(below(start_[l], n_segments_), what);
      for (std::size_t s = layer(l, kStep) * kSectorStep; s < layer(l, kStepEnd) * kSectorStep; ++s)
        if (s % kSectorStep < 3) file.require(below(sector_steps_[s], 2 * sectors), what);
        else known(sector_steps_[s], s % kSectorStep == 3 ? 2 * sectors : count);
      for (std::size_t a = 0; sectors > 1 && a < sectors; ++a)
        file.require(below(cells_[layer(l, kCell) + a], 2 * sectors), what);
    }
    file.require(rings_.size == all_rings && n_voxels_ <= at(most), what);
    for (std::size_t i = 0; i < rings_.size; ++i) file.require(below(rings_[i], n_segments_), what);
  }

  void check_distribution(const File& file, const std::int64_t* row) const {
    const std::size_t forests = trees_.n_forests();
    const std::int64_t bend = row[kBend], location = row[kLocation], ends = row[kOfEnds];
    const bool forests_fit = below(row[kLeaf], forests) && (bend == -1 || below(bend, forests)) &&
                             (ends == -1 || (below(ends, forests) && trees_.across() > 1)) &&
                             (location == -1 || below(location + 1, forests));
    const bool bend_fits = bend == -1 || (row[kLevels] > 0 && at(row[kLevels]) <= trees_.across());
    const std::size_t leaves = at(row[kLeaves]), knots = at(row[kKnots]);
    const bool leaves_fit = row[kLeaves] > 0 && row[kKnots] > 1 && row[kEnds] >= 0 &&
                            row[kFirstKnot] >= 0 && at(row[kEnds]) <= ends_.size / 2 &&
                            leaves <= ends_.size / 2 - at(row[kEnds]) &&
                            at(row[kFirstKnot]) <= knots_.size &&
                            leaves <= (knots_.size - at(row[kFirstKnot])) / knots;
    file.require(forests_fit && bend_fits && leaves_fit, "distributions of shares");
  }

  /// NaN becomes 0.
  static double unit_range(double value) {
    return value > 0.0 ? (value < 1.0 ? value : 1.0) : 0.0;
  }

  /// A whole number below `end`, which is above 0; NaN becomes 0.
  static std::size_t whole_number(double value, std::size_t end) {
    if (!(value > 0.0)) return 0;
    return value < static_cast<double>(end) ? static_cast<std::size_t>(value) : end - 1;
  }

  static float logarithm(double energy) {
    return energy > 0 ? static_cast<float>(std::log(energy)) : kUnknown;
  }

  static float fraction(double part, double whole) {
    return whole > 0 ? static_cast<float>(part / whole) : kUnknown;
  }

  static double left_of(double share, double whole, double threshold) {
    if (whole <= 0 || share <= 0) return 0.0;
    if (share >= 1) return whole;
    if (whole < 2 * threshold) return share > 0.5 ? whole : 0.0;
    return threshold + share * (whole - 2 * threshold);
  }

  /// Turns uniform numbers into shares, for n rows of inputs in `room.x`, which are lost.
  void draw(std::int64_t number, std::size_t n, double* share, Room& room) const {
    const std::int64_t* row = distributions_.data + at(number) * kColumns;
    room.total.resize(std::max(room.total.size(), n * trees_.across()));
    if (row[kOfEnds] < 0) return draw_inner(row, n, share, room);
    const std::size_t inner = draw_ends(at(row[kOfEnds]), n, share, room);
    if (inner == 0) return;
    draw_inner(row, inner, room.ranks.data(), room);
    for (std::size_t i = 0; i < inner; ++i) share[room.inner[i]] = room.ranks[i];
  }

  /// Sets the shares that are 0 or 1; moves the inputs of the others to the front of `room.x` and
  /// enters their numbers and ranks. Returns how many there are.
  std::size_t draw_ends(std::size_t forest, std::size_t n, double* share, Room& room) const {
    const std::size_t width = trees_.n_inputs(), across = trees_.across();
    trees_.sum(forest, forest + 1, room.x.data(), n, width, room.total.data());
    room.inner.resize(std::max(room.inner.size(), n));
    room.ranks.resize(std::max(room.ranks.size(), n));
    const auto chance = [](float margin) {
      return 1.0 / (1.0 + std::exp(-static_cast<double>(margin)));
    };
    std::size_t inner = 0;
    for (std::size_t r = 0; r < n; ++r) {
      const double zero = chance(room.total[r * across]), one = chance(room.total[r * across + 1]);
      if (share[r] < zero) {
        share[r] = 0.0;
      } else if (share[r] >= 1.0 - one) {
        share[r] = 1.0;
      } else {
        room.ranks[inner] = (share[r] - zero) / std::max(1.0 - zero - one, 1e-12);
        if (inner < r) std::copy_n(room.x.data() + r * width, width, room.x.data() + inner * width);
        room.inner[inner++] = r;
      }
    }
    return inner;
  }

  /// Turns ranks into shares, for n rows of inputs in `room.x`.
  void draw_inner(const std::int64_t* row, std::size_t n, double* share, Room& room) const {
    const std::size_t width = trees_.n_inputs(), across = trees_.across();
    float* total = room.total.data();
    const auto sum = [&](std::int64_t forest) {
      trees_.sum(at(forest), at(forest) + 1, room.x.data(), n, width, total);
    };
    if (row[kBend] >= 0) {
      sum(row[kBend]);
      for (std::size_t r = 0; r < n; ++r)
        share[r] = unbent(total + r * across, at(row[kLevels]), share[r]);
    }
    sum(row[kLeaf]);
    const std::size_t leaves = at(row[kLeaves]), knots = at(row[kKnots]);
    bool inside = false;
    for (std::size_t r = 0; r < n; ++r) {
      const std::size_t leaf = whole_number(total[r * across], leaves);
      const double* ends = ends_.data + 2 * (at(row[kEnds]) + leaf);
      share[r] = scaled(share[r], ends[0], ends[1],
                        knots_.data + at(row[kFirstKnot]) + leaf * knots, knots - 1);
      inside = inside || (share[r] > 0.0 && share[r] < 1.0);
    }
    if (row[kLocation] < 0 || !inside) return;
    sum(row[kLocation]);
    for (std::size_t r = 0; r < n; ++r) room.location[r] = total[r * across];
    sum(row[kLocation] + 1);
    for (std::size_t r = 0; r < n; ++r) {
      if (!(share[r] > 0.0 && share[r] < 1.0)) continue;
      const double scale = std::exp(static_cast<double>(total[r * across]));
      const double logit = room.location[r] + scale * normal_quantile(share[r]);
      share[r] = within(1.0 / (1.0 + std::exp(-logit)), kClip, 1.0 - kClip);
    }
  }

  /// The rank within a leaf, from what the trees add to the probabilities up to `n` levels.
  static double unbent(const float* added, std::size_t n, double uniform) {
    const double parts = static_cast<double>(n) + 1.0;
    double low = 0.0, largest = -std::numeric_limits<double>::infinity();
    for (std::size_t level = 0; level <= n; ++level) {
      double high = 1.0;
      if (level < n) {
        largest = std::max(largest, added[level] + static_cast<double>(level + 1) / parts);
        high = unit_range(largest);
      }
      if (high > uniform || level == n) {
        const double place = unit_range((uniform - low) / std::max(high - low, 1e-12));
        return (static_cast<double>(level) + place) / parts;
      }
      low = high;
    }
    return uniform;
  }

  /// The share at a rank within a leaf: 0, 1, or between its quantiles.
  static double scaled(double rank, double zero, double one, const double* knots,
                       std::size_t last) {
    if (rank < zero) return 0.0;
    if (one > 0 && rank >= 1 - one) return 1.0;
    const double place = unit_range((rank - zero) / std::max(1 - zero - one, 1e-12)) *
                         static_cast<double>(last);
    const std::size_t low = std::min(static_cast<std::size_t>(place), last - 1);
    const double share =
        knots[low] + (place - static_cast<double>(low)) * (knots[low + 1] - knots[low]);
    return within(share, kClip, 1.0 - kClip);
  }

  void make_room(Room& room, std::size_t rows, std::size_t width) const {
    room.x.resize(std::max(room.x.size(), rows * width));
    room.share.resize(std::max(room.share.size(), rows));
    room.location.resize(std::max(room.location.size(), rows));
    room.active.resize(std::max(room.active.size(), rows));
  }

  /// Divides the segments of `n` rows: those of row r begin at `segments + r * count`; `fill`
  /// enters what the trees see of a row, `uniform` tells its number.
  template <class Fill, class Uniform>
  void divide(std::int64_t whole, std::int64_t left, std::int64_t right, std::int64_t number,
              double threshold, double* segments, std::size_t count, std::size_t n, Room& room,
              Fill&& fill, Uniform&& uniform) const {
    const std::size_t width = trees_.n_inputs();
    std::size_t active = 0;
    for (std::size_t r = 0; r < n; ++r) {
      double* row = segments + r * count;
      if (row[at(whole)] > 0 && number >= 0) {
        fill(r, row, room.x.data() + active * width);
        room.share[active] = uniform(r);
        room.active[active++] = r;
      } else {
        split(row, whole, left, right, uniform(r), threshold);
      }
    }
    if (active == 0) return;
    draw(number, active, room.share.data(), room);
    for (std::size_t i = 0; i < active; ++i)
      split(segments + room.active[i] * count, whole, left, right, room.share[i], threshold);
  }

  static void split(double* row, std::int64_t whole, std::int64_t left, std::int64_t right,
                    double share, double threshold) {
    const double energy = row[at(whole)], part = left_of(share, energy, threshold);
    row[at(left)] = part;
    row[at(right)] = energy - part;
  }

  void fill_rings(const float* known, const double* layers, const double* uniform,
                  std::size_t stride, double threshold, std::size_t n, Room& room) const {
    make_room(room, n, trees_.n_inputs());
    room.segments.assign(n * n_segments_, 0.0);
    for (std::size_t r = 0; r < n; ++r)
      for (std::size_t l = 0; l < n_layers(); ++l)
        room.segments[r * n_segments_ + at(start_[l])] = layers[r * n_layers() + l];
    for (std::size_t i = 0; i < ring_steps_.size / ring_width_; ++i) {
      const std::int64_t* step = ring_steps_.data + i * ring_width_;
      const auto part = [](const double* row, std::int64_t some, std::int64_t all) {
        return all < 0 ? kUnknown : fraction(row[at(some)], row[at(all)]);
      };
      const auto enter = [&](std::size_t r, const double* row, float* x) {
        x = std::copy_n(known + (r * n_layers() + at(step[0])) * n_known_, n_known_, x);
        *x++ = logarithm(row[at(step[1])]);
        for (std::size_t q = 4; q < 6; ++q) *x++ = part(row, step[1], step[q]);
        for (std::size_t q = 7; q < ring_width_; q += 2) *x++ = part(row, step[q], step[q + 1]);
      };
      divide(step[1], step[2], step[3], step[6], threshold, room.segments.data(), n_segments_, n,
             room, enter, [&](std::size_t r) { return uniform[r * stride + i]; });
    }
  }

  /// Divides the rings of a layer, of which `ring` is the first of all, into its voxels.
  void fill_layer(std::size_t l, std::size_t ring, const float* known, const double* axes,
                  const double* uniform, std::size_t stride, double threshold, std::size_t n,
                  Room& room, double* voxels) const {
    const std::size_t n_r = layer(l, kRings), n_alpha = layer(l, kSectors), rows = n * n_r;
    const auto energy = [&](std::size_t r, std::size_t k) {
      return room.segments[r * n_segments_ + at(rings_[ring + k])];
    };
    if (n_alpha == 1) {
      for (std::size_t r = 0; r < n; ++r)
        for (std::size_t k = 0; k < n_r; ++k)
          voxels[r * n_voxels_ + layer(l, kVoxel) + k] = energy(r, k);
      return;
    }
    const std::size_t count = 2 * n_alpha;
    make_room(room, rows, trees_.n_inputs());
    room.cells.assign(rows * count, 0.0);
    room.first.resize(std::max(room.first.size(), rows));
    room.side.resize(std::max(room.side.size(), rows));
    for (std::size_t r = 0; r < n; ++r)
      for (std::size_t k = 0; k < n_r; ++k) {
        room.cells[(r * n_r + k) * count] = energy(r, k);
        room.first[r * n_r + k] =
            whole_number(uniform[r * stride + k] * static_cast<double>(n_alpha), n_alpha);
        room.side[r * n_r + k] = uniform[r * stride + n_r + k] < 0.5 ? -1.0 : 1.0;
      }
    for (std::size_t i = layer(l, kStep); i < layer(l, kStepEnd); ++i) {
      const std::int64_t* step = sector_steps_.data + i * kSectorStep;
      const double* numbers = uniform + (2 + i - layer(l, kStep)) * n_r;
      const auto enter = [&](std::size_t row, const double* segments, float* x) {
        const std::size_t r = row / n_r;
        x = std::copy_n(known + (r * n_layers() + l) * n_known_, n_known_, x);
        const double c = away_[2 * i], s = room.side[row] * away_[2 * i + 1];
        const double* turn = turn_.data + 2 * (layer(l, kCell) + room.first[row]);
        x[0] = logarithm(segments[at(step[0])]);
        x[1] = logarithm(energy(r, row % n_r));
        x[2] = static_cast<float>(row % n_r);
        x[3] = static_cast<float>(axes[2 * r] * (c * turn[0] - s * turn[1]) +
                                  axes[2 * r + 1] * (c * turn[1] + s * turn[0]));
        x[4] = step[3] < 0 ? kUnknown : fraction(segments[at(step[0])], segments[at(step[3])]);
      };
      divide(step[0], step[1], step[2], step[4], threshold, room.cells.data(), count, rows, room,
             enter, [&](std::size_t row) { return numbers[row / n_r * stride + row % n_r]; });
    }
    for (std::size_t row = 0; row < rows; ++row) {
      double* to = voxels + row / n_r * n_voxels_ + layer(l, kVoxel) + row % n_r;
      for (std::size_t place = 0; place < n_alpha; ++place) {
        const std::size_t turned = room.side[row] > 0 ? room.first[row] + place
                                                      : room.first[row] + n_alpha - 1 - place;
        to[turned % n_alpha * n_r] = room.cells[row * count + at(cells_[layer(l, kCell) + place])];
      }
    }
  }

  Trees trees_;
  std::size_t n_known_ = 0, n_segments_ = 0, ring_width_ = 1, n_voxels_ = 0, n_uniform_ = 0;
  Span<std::int64_t> distributions_, layers_, ring_steps_, start_, rings_, sector_steps_, cells_;
  Span<double> ends_, knots_, away_, turn_;
};

}  // namespace detail
}  // namespace flowbdt

#endif  // FLOWBDT_SHOWERS_HPP
