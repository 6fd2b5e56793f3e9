#include "weights.h"

#include <algorithm>
#include <cstring>

namespace wootz {

void turn_weights(const Threads& threads, const Weights& w, std::size_t group, const float* from, float* turned) {
  const std::size_t taps = w.height * w.width, filters = w.filters / group;
  threads.run(group, [&](std::size_t g) {
    for (std::size_t m = 0; m < filters; ++m)
      for (std::size_t c = 0; c < w.channels; ++c) {
        const float* one = from + ((g * filters + m) * w.channels + c) * taps;
        float* other = turned + ((g * w.channels + c) * filters + m) * taps;
        for (std::size_t t = 0; t < taps; ++t) other[t] = one[taps - 1 - t];
      }
  });
}

void order_weights(const Threads& threads, const Weights& w, std::size_t block, std::size_t together, bool turned,
                   const float* from, float* ordered) {
  const std::size_t taps = w.height * w.width;
  const std::size_t filters = turned ? w.channels : w.filters, channels = turned ? w.filters : w.channels;
  const std::size_t of_filter = turned ? taps : w.channels * taps, of_channel = turned ? w.channels * taps : taps;
  const std::size_t groups = (channels + together - 1) / together, tile = taps * together * block;
  threads.run((filters + block - 1) / block, [&](std::size_t b) {
    const std::size_t first = b * block, width = std::min(block, filters - first);
    for (std::size_t g = 0; g < groups; ++g) {
      const std::size_t channel = g * together, depth = std::min(together, channels - channel);
      float* to = ordered + (b * groups + g) * tile;
      if (width < block || depth < together) std::memset(to, 0, tile * sizeof(float));
      // The loop over what lies side by side in w is the inner one: lines far from each other fall into one set of a cache.
      const std::size_t outer = turned ? depth : width, inner = turned ? width : depth;
      for (std::size_t i = 0; i < outer; ++i)
        for (std::size_t j = 0; j < inner; ++j) {
          const std::size_t f = turned ? j : i, c = turned ? i : j;
          const float* one = from + (first + f) * of_filter + (channel + c) * of_channel;
          for (std::size_t t = 0; t < taps; ++t) to[(t * together + c) * block + f] = one[turned ? taps - 1 - t : t];
        }
    }
  });
}

}  // namespace wootz
