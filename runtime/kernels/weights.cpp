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

// Weights are read line by line as they lie in memory: what is far apart there are the places that are written to, which
// stay in the cache. A line of w is a filter; of turned weights these are the channels.
void order_weights(const Threads& threads, const Weights& w, std::size_t block, std::size_t together, bool turned,
                   const float* from, float* ordered) {
  const std::size_t taps = w.height * w.width, line = w.channels * taps;
  const std::size_t of_lines = turned ? together : block, of_others = turned ? block : together;
  const std::size_t blocks = (w.channels + of_others - 1) / of_others, tile = taps * together * block;
  const std::size_t tasks = (w.filters + of_lines - 1) / of_lines;
  threads.run(tasks, [&](std::size_t task) {
    const std::size_t height = std::min(of_lines, w.filters - task * of_lines);
    const auto tile_of = [&](std::size_t b) { return ordered + (turned ? b * tasks + task : task * blocks + b) * tile; };
    for (std::size_t b = 0; b < blocks; ++b)
      if (height < of_lines || (b + 1) * of_others > w.channels) std::memset(tile_of(b), 0, tile * sizeof(float));
    for (std::size_t l = 0; l < height; ++l)
      for (std::size_t b = 0; b < blocks; ++b) {
        const float* one = from + (task * of_lines + l) * line + b * of_others * taps;
        const std::size_t width = std::min(of_others, w.channels - b * of_others);
        float* to = tile_of(b) + (turned ? l * block : l);
        const std::size_t step = turned ? 1 : block;
        for (std::size_t k = 0; k < width; ++k)
          for (std::size_t t = 0; t < taps; ++t)
            to[t * together * block + k * step] = one[k * taps + (turned ? taps - 1 - t : t)];
      }
  });
}

}  // namespace wootz
