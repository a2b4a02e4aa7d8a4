// Convolutions in bf16 as matrix products over positions: what is multiplied with what.
//
// A strided convolution joins a big and a small map:
//   small(p) = sum_k big(stride * p + k - pad) w(k).
// A convolution goes down from the big map to the small one, a transposed convolution up; each is
// the other's gradient with regard to the map, and both have the same gradient of the weights.
//
// A map is stored as rows of positions with zeros between rows and between images, so that a tap
// is a constant distance in memory: sixteen neighbouring positions under one tap are a matrix
// operand where they stand, and nothing is gathered. The zeros that a row needs on its right are
// those that the next row needs on its left. A big map of a strided convolution is stored as
// stride^2 planes (phases), each of stride 1. Where it has few channels (an image's three), the
// phases become channels of one plane ("merged").
#pragma once
#include <compare>
#include <cstdint>
#include <vector>

namespace deepsim::bf16 {

using Half = uint16_t;  // the upper half of a float

constexpr int TILE = 16;   // rows and columns of a product
constexpr int DEPTH = 32;  // values multiplied and added at once

inline int64_t round_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

struct Geometry {
  int64_t kernel, stride, pad, groups;
  int64_t big, small;  // channels, of all groups together
  int64_t big_height, big_width, small_height, small_width;
  auto operator<=>(const Geometry&) const = default;
};

// How the planes of a map lie in memory.
struct Layout {
  int64_t groups, phases;  // planes of a group: phases^2, or one where they are merged
  bool merged;
  int64_t channels;       // of one plane and group
  int64_t width, height;  // positions from row to row, rows from image to image
  int64_t data_width, data_height;  // of these the first ones: the others are zeros
  int64_t lead, tail;     // zero positions before the first image and after the last

  int64_t planes() const { return merged ? 1 : phases * phases; }
  int64_t positions() const { return width * height; }
  int64_t span(int64_t images) const { return lead + images * positions() + tail; }
  int64_t halves(int64_t images) const { return groups * planes() * span(images) * channels; }
};

// One step of a product: DEPTH values from `element` on, at `shift` positions from the row's own. Of
// their pairs the first `pairs` have weights. They are those of the positions `y` rows below and
// `left` to `right` columns beside the row's own.
struct Step {
  int64_t plane, shift, element, pairs, y, left, right;
};

// One phase of an output map.
struct Part {
  int64_t phase_y, phase_x;
  std::vector<Step> steps;
  // Where each packed weight comes from, -1 for zeros: [block of two column tiles][step][tile]
  // [pair of inputs][column][2].
  std::vector<int32_t> weights;
};

// A correlation of one map that makes another.
struct Correlation {
  Layout in;
  int64_t stride;   // of the output's phases
  bool merged_out;  // columns are channels of all phases
  int64_t columns;  // of one part and group
  std::vector<Part> parts;

  int64_t tiles() const { return round_up(columns, TILE) / TILE; }
  int64_t part_halves(const Part& part) const {
    return static_cast<int64_t>(part.steps.size()) * tiles() * TILE * DEPTH;
  }
  int64_t weight_halves() const {  // of one group
    int64_t sum = 0;
    for (const auto& part : parts) sum += part_halves(part);
    return sum;
  }
};

// The gradient of the weights: a product of both maps over all positions, for each tap.
struct WeightGradient {
  Layout big, small;  // of one width and height
  struct Tap {
    int64_t plane, shift, y;  // y: rows of the shift
  };
  std::vector<Tap> taps;      // in the order of their planes
  int64_t rows, columns;      // channels of the small and of the big map
  int64_t small_height, small_width;  // of the small map without its zeros
  std::vector<int32_t> from;  // for each weight of a group, its place among the sums

  int64_t row_tiles() const { return round_up(rows, TILE) / TILE; }
  int64_t column_tiles() const { return round_up(columns, TILE) / TILE; }
  int64_t sums() const {  // of one group: [tap][row tile][column tile][16][16]
    return static_cast<int64_t>(taps.size()) * row_tiles() * column_tiles() * TILE * TILE;
  }
};

struct Plan {
  Geometry geometry;
  Correlation down, up;
  WeightGradient weight_gradient;
};

Plan make_plan(const Geometry& geometry);

}  // namespace deepsim::bf16
