#pragma once

#include <cstdint>

#include "parallel.h"
#include "vector_kernels.h"

namespace wootz {

// A convolution of x[images, channels, height, width] with weights [filters, channels / group, kernel…] to
// y[images, filters, rows, columns].
struct Convolution {
  std::size_t images, channels, filters, group;
  std::size_t size[2], count[2];
  std::size_t kernel[2], strides[2], dilations[2];
  std::size_t pads_begin[2], pads_end[2];
};

// dw[m, c, i, j] = Σ over n, p, q of dy[n, m, p, q] · x[n, c, p · stride + i · dilation - pad, …]
void weight_gradient(const VectorKernels&, const Threads&, const Convolution&, const float* x, const float* dy,
                     float* dw);

// The same of x and dy in blocks of as many channels as a vector has numbers, of one group or depthwise: what fills the
// last blocks of dy must be zeros.
void blocked_weight_gradient(const VectorKernels&, const Threads&, const Convolution&, const float* x, const float* dy,
                             float* dw);

}  // namespace wootz
