// The loops that take the time, each compiled for several vector instruction sets (vector_kernels.cpp).

#pragma once

#include <cstddef>

namespace wootz {

// A channel of [N, C, …]: `images` rows of `length` numbers side by side, `stride` numbers from one to the next.
struct Rows {
  std::size_t images, length, stride;
};

struct Moments {
  double mean, variance;
};

// Whether numbers must be summed again, less their mean: sums of what is left of them and of its squares are taken in
// float32 less some number near the mean, and where that isn't near, the variance is a small difference of large numbers.
constexpr bool is_far(double distance, double variance) { return distance * distance > 64 * variance; }

struct Sums {
  double gradient, product;
};

// Nothing, or that numbers are not less than 0 nor more than `ceiling`, which may be infinite.
struct Relu {
  bool is_there;
  float ceiling;
};

constexpr std::size_t kMostTileRows = 4, kMostTileColumns = 6;

// Pixels of images in blocks of as many channels as a vector has numbers: how many images, lines and columns, and how far
// it is from one to the next, in an array that has all of them (dy) and in one in which a convolution steps (x).
struct Pixels {
  std::size_t images, lines, columns;
  std::size_t image_of_dy, line_of_dy;
  std::size_t image_of_x, line_of_x, column_of_x;
};

constexpr std::size_t kBlocksAtOnce = 3, kMostLanes = 16;

// The windows of a pooling or convolution over an image of lines and columns; `count` are their positions.
struct Windows {
  std::size_t size[2], count[2];
  std::size_t kernel[2], strides[2], dilations[2], pads_begin[2];
};

struct VectorKernels {
  const char* name;
  std::size_t tile_rows, tile_columns;

  // Mean and variance (over n, not n - 1) of a channel.
  Moments (*moments)(const float* x, Rows);
  // y = slope * x + offset, and `added` where it is given; as `relu` says.
  void (*normalize)(const float* x, const float* added, float* y, Rows, float slope, float offset, Relu relu);
  // Σ dy and Σ dy (x - mean) of what passes `relu`, by y.
  Sums (*gradient_sums)(const float* dy, const float* x, const float* y, Rows, float mean, Relu relu);
  // dx = dy_slope * dy + x_slope * x + offset; dy as above.
  void (*gradient)(const float* dy, const float* x, const float* y, float* dx, Rows, float dy_slope, float x_slope,
                   float offset, Relu relu);
  // dx = dy where it passes `relu`, by y, else 0.
  void (*relu_gradient)(const float* dy, const float* y, float* dx, std::size_t length, Relu relu);
  // sums[row * stride + column] += Σ left[row][i] · right[column][i] over i < length, a multiple of the vector's width
  // or not, for a tile of at most tile_rows × tile_columns.
  void (*add_products)(const float* const* left, std::size_t rows, const float* const* right, std::size_t columns,
                       std::size_t length, float* sums, std::size_t stride);
  // sums[f][b][channel] += Σ dy[pixel][f] · x[b][pixel][channel], for filters_at_once numbers that lie side by side in dy
  // and at most kBlocksAtOnce blocks of x; sums are [filters_at_once][blocks][lanes]. The first time = instead of +=.
  std::size_t lanes, filters_at_once;
  void (*add_blocks)(const float* dy, const float* const* x, std::size_t blocks, const Pixels&, float* sums,
                     bool are_first);
  // sums[tap][channel] += Σ dy[pixel][channel] · x[tap][pixel][channel], of one block of dy.
  void (*add_depthwise)(const float* dy, const float* const* x, std::size_t taps, const Pixels&, float* sums);

  // to[j][i] = from[i * line + j] for i and j < lanes.
  void (*transpose)(const float* from, std::size_t line, float* const* to);
  // to[(taps - 1 - t) * step + i] = from[i * taps + t] for i < lanes.
  void (*turn)(const float* from, std::size_t taps, float* to, std::size_t step);

  // The functions for channels above, for a block of them side by side; `length` of Rows counts pixels, numbers of a
  // channel are `lanes` numbers.
  // totals[channel] += Σ (x - shift), squares[channel] += Σ (x - shift)²
  void (*add_moments)(const float* x, Rows, const float* shift, double* totals, double* squares);
  void (*normalize_block)(const float* x, const float* added, float* y, Rows, const float* slope, const float* offset,
                          Relu relu);
  void (*add_gradient_sums)(const float* dy, const float* x, const float* y, Rows, const float* mean, double* gradients,
                            double* products, Relu relu);
  void (*gradient_block)(const float* dy, const float* x, const float* y, float* dx, Rows, const float* dy_slope,
                         const float* x_slope, const float* offset, Relu relu);

  // dx is dy at the first pixel of each window where x is y, added up, and else 0: of a channel, or of a block of them.
  void (*max_pool_gradient)(const float* dy, const float* x, const float* y, float* dx, const Windows&);
  void (*max_pool_gradient_block)(const float* dy, const float* x, const float* y, float* dx, const Windows&);
  // dx is the sum of dy · w[tap] over all taps of windows that see a pixel: of a channel, or of a block of them, for which
  // w[tap] are as many numbers.
  void (*spread)(const float* dy, const float* w, float* dx, const Windows&);
  void (*spread_block)(const float* dy, const float* w, float* dx, const Windows&);

  // Runs a program of elementwise operations over `length` numbers. Operation i gives value inputs + constants + i.
  void (*compute)(const struct Program&, const float* const* inputs, float* const* outputs, std::size_t length);
};

enum class Operation : int {
  add,
  subtract,
  multiply,
  divide,
  maximum,
  minimum,
  negate,
  root,
  reciprocal,
  positive,
  greater,  // 1 or 0
  less,
  select,  // the second where the first isn't 0, else the third
  at_most,
  at_least,
};

constexpr int kLastOperation = static_cast<int>(Operation::at_least);

struct Instruction {
  Operation operation;
  int first, second, third;
};

// Values are numbered: first the inputs, then the constants, then what the instructions give.
struct Program {
  const bool* is_scalar;  // of each input: it has one number for all
  std::size_t inputs;
  const float* constants;
  std::size_t constant_count;
  const Instruction* instructions;
  std::size_t instruction_count;
  const int* results;
  std::size_t result_count;
};

constexpr std::size_t kMostValues = 48;

const VectorKernels& baseline_kernels();
#ifdef WOOTZ_X86
const VectorKernels& avx2_kernels();
const VectorKernels& avx512_kernels();
#endif

}  // namespace wootz
