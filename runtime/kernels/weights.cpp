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
void order_weights(const VectorKernels& kernels, const Threads& threads, const Weights& w, std::size_t block,
                   std::size_t together, bool turned, const float* from, float* ordered) {
  const std::size_t taps = w.height * w.width, line = w.channels * taps;
  const std::size_t of_lines = turned ? together : block, of_others = turned ? block : together;
  const std::size_t blocks = (w.channels + of_others - 1) / of_others, tile = taps * together * block;
  const std::size_t tasks = (w.filters + of_lines - 1) / of_lines;
  threads.run(tasks, [&](std::size_t task) {
    const std::size_t height = std::min(of_lines, w.filters - task * of_lines);
    const float* lines = from + task * of_lines * line;
    const auto tile_of = [&](std::size_t b) { return ordered + (turned ? b * tasks + task : task * blocks + b) * tile; };
    for (std::size_t b = 0; b < blocks; ++b)
      if (height < of_lines || (b + 1) * of_others > w.channels) std::memset(tile_of(b), 0, tile * sizeof(float));
    // Where channel `c` of line l has its number of tap t.
    const auto place = [&](std::size_t l, std::size_t c, std::size_t t) {
      float* at = tile_of(c / of_others) + (turned ? taps - 1 - t : t) * together * block;
      return at + (turned ? l * block + c % of_others : c % of_others * block + l);
    };
    const auto copy = [&](std::size_t l, std::size_t begin, std::size_t end) {
      for (std::size_t k = begin; k < end; ++k) *place(l, k / taps, k % taps) = lines[l * line + k];
    };
    const std::size_t lanes = kernels.lanes;
    if (block != lanes) {
      for (std::size_t l = 0; l < height; ++l) copy(l, 0, line);
    } else if (turned) {
      const std::size_t whole = w.channels / lanes * lanes;
      for (std::size_t l = 0; l < height; ++l) {
        for (std::size_t c = 0; c < whole; c += lanes)
          kernels.turn(lines + l * line + c * taps, taps, place(l, c, taps - 1), together * block);
        copy(l, whole * taps, line);
      }
    } else {
      const std::size_t whole = height == lanes ? line / lanes * lanes : 0;
      float* to[kMostLanes];
      for (std::size_t k = 0; k < whole; k += lanes) {
        for (std::size_t i = 0; i < lanes; ++i) to[i] = place(0, (k + i) / taps, (k + i) % taps);
        kernels.transpose(lines + k, line, to);
      }
      for (std::size_t l = 0; l < height; ++l) copy(l, whole, line);
    }
  });
}

}  // namespace wootz
