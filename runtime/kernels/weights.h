#pragma once

#include "parallel.h"
#include "vector_kernels.h"

namespace wootz {

// The extents of w[filters, channels, taps…].
struct Weights {
  std::size_t filters, channels, height, width;
};

template <typename Dimensions>
Weights weights_of(const Dimensions& d) {
  return {static_cast<std::size_t>(d[0]), static_cast<std::size_t>(d[1]), static_cast<std::size_t>(d[2]),
          static_cast<std::size_t>(d[3])};
}

// w[M, C / group, kh, kw] -> [C, M / group, kh, kw], turned by 180° in the last two axes.
void turn_weights(const Threads&, const Weights&, std::size_t group, const float* w, float* turned);

// w[M, C, kh, kw], or what turn_weights makes of it in one group -> [M / block, C / together, kh, kw, together, block].
void order_weights(const VectorKernels&, const Threads&, const Weights&, std::size_t block, std::size_t together,
                   bool turned, const float* w, float* ordered);

}  // namespace wootz
