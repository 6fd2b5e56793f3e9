// The gradient of a convolution's weights from x and dy in ONNX Runtime's own layout, [N, C / lanes, H, W, lanes].
//
// A tile of filters and of blocks of x, each seen from one tap of the kernel, stays in registers, while all pixels of
// some images go by: a number of dy meets a vector of x. Nothing is copied but x, where it has pads.

#include <algorithm>
#include <cstring>
#include <vector>

#include "scratch.h"
#include "weight_gradient.h"

namespace wootz {
namespace {

constexpr std::size_t kTasks = 16;               // so many threads have something to do
constexpr std::size_t kFiltersOfTask = 64;
constexpr std::size_t kCached = std::size_t{1} << 16;  // numbers of x and dy that stay in the second cache

std::size_t divided(std::size_t number, std::size_t by) { return (number + by - 1) / by; }

}  // namespace

void blocked_weight_gradient(const VectorKernels& kernels, const Threads& threads, const Convolution& c, const float* x,
                             const float* dy, float* dw) {
  const std::size_t lanes = kernels.lanes, taps = c.kernel[0] * c.kernel[1];
  const std::size_t blocks_of_x = divided(c.channels, lanes), blocks_of_dy = divided(c.filters, lanes);
  std::size_t padded[2];
  for (int axis = 0; axis < 2; ++axis) padded[axis] = c.size[axis] + c.pads_begin[axis] + c.pads_end[axis];
  const std::size_t plane = padded[0] * padded[1] * lanes;

  if (padded[0] * padded[1] > c.size[0] * c.size[1]) {
    float* copy = scratch(Room::right_operand, c.images * blocks_of_x * plane);
    threads.run(c.images * blocks_of_x, [&](std::size_t i) {
      const std::size_t line = c.size[1] * lanes, before = c.pads_begin[1] * lanes, behind = c.pads_end[1] * lanes;
      const float* from = x + i * c.size[0] * line;
      float* to = copy + i * plane;
      const auto clear = [&to](std::size_t count) { std::memset(to, 0, count * sizeof(float)), to += count; };
      clear(c.pads_begin[0] * (before + line + behind));
      for (std::size_t h = 0; h < c.size[0]; ++h, from += line) {
        clear(before);
        std::memcpy(to, from, line * sizeof(float)), to += line;
        clear(behind);
      }
      clear(c.pads_end[0] * (before + line + behind));
    });
    x = copy;
  }

  const bool is_depthwise = c.group > 1;
  const std::size_t at_once = is_depthwise ? lanes : kernels.filters_at_once;
  const std::size_t seen_blocks = (is_depthwise ? 1 : blocks_of_x) * taps;
  Pixels pixels{};
  pixels.lines = c.count[0], pixels.columns = c.count[1];
  pixels.line_of_dy = c.count[1] * lanes, pixels.image_of_dy = blocks_of_dy * c.count[0] * pixels.line_of_dy;
  pixels.column_of_x = c.strides[1] * lanes, pixels.line_of_x = c.strides[0] * padded[1] * lanes;
  pixels.image_of_x = blocks_of_x * plane;

  const std::size_t tiles = divided(c.filters, at_once);
  const std::size_t tiles_of_task = std::max<std::size_t>(1, std::min(divided(tiles, 2), kFiltersOfTask / at_once));
  const std::size_t groups = divided(tiles, tiles_of_task);
  const std::size_t parts = std::max<std::size_t>(1, std::min(divided(kTasks, groups), c.images));
  const std::size_t images_of_part = divided(c.images, parts);
  const std::size_t of_image = plane * std::min(blocks_of_x, kBlocksAtOnce) + c.count[0] * pixels.line_of_dy * 2;
  const std::size_t images_at_once = std::max<std::size_t>(1, kCached / of_image);

  // sums[part][tile][filter of the tile, block as seen, lane]: blocks as seen by threes
  const std::size_t of_tile = (is_depthwise ? 1 : at_once) * seen_blocks * lanes, of_part = tiles * of_tile;
  float* sums = scratch(Room::sums, parts * of_part);
  threads.run(groups * parts, [&](std::size_t task) {
    const std::size_t first = task % groups * tiles_of_task, last = std::min(first + tiles_of_task, tiles);
    const std::size_t part = task / groups;  // images in front: threads keep those that they had in the node before
    const std::size_t begin = part * images_of_part, end = std::min(begin + images_of_part, c.images);
    float* of_task = sums + part * of_part;
    std::memset(of_task + first * of_tile, 0, (last - first) * of_tile * sizeof(float));
    const auto see = [&](std::size_t channels, std::size_t index, std::size_t image) {
      const std::size_t block = channels + index / taps, tap = index % taps;
      const std::size_t line = tap / c.kernel[1] * c.dilations[0], column = tap % c.kernel[1] * c.dilations[1];
      return x + (image * blocks_of_x + block) * plane + (line * padded[1] + column) * lanes;
    };
    Pixels some = pixels;
    for (std::size_t n = begin; n < end; n += some.images) {
      some.images = std::min(images_at_once, end - n);
      const float* of_images = dy + n * pixels.image_of_dy;
      std::vector<const float*> seen(seen_blocks);
      if (is_depthwise) {
        for (std::size_t tile = first; tile < last; ++tile) {
          for (std::size_t k = 0; k < taps; ++k) seen[k] = see(tile, k, n);
          kernels.add_depthwise(of_images + tile * c.count[0] * pixels.line_of_dy, seen.data(), taps, some,
                                of_task + tile * of_tile);
        }
        continue;
      }
      for (std::size_t k = 0; k < seen_blocks; ++k) seen[k] = see(0, k, n);
      for (std::size_t k = 0; k < seen_blocks; k += kBlocksAtOnce)
        for (std::size_t tile = first; tile < last; ++tile) {
          const std::size_t filter = tile * at_once, width = std::min(kBlocksAtOnce, seen_blocks - k);
          const float* of_tile_dy = of_images + filter / lanes * c.count[0] * pixels.line_of_dy + filter % lanes;
          kernels.add_blocks(of_tile_dy, &seen[k], width, some, of_task + tile * of_tile + k * at_once * lanes);
        }
    }
  });

  threads.run(tiles, [&](std::size_t tile) {
    float* total = sums + tile * of_tile;
    for (std::size_t p = 1; p < parts; ++p)
      for (std::size_t i = 0; i < of_tile; ++i) total[i] += total[p * of_part + i];
    if (is_depthwise) {
      for (std::size_t k = 0; k < taps; ++k)
        for (std::size_t i = 0; i < lanes && tile * lanes + i < c.channels; ++i)
          dw[(tile * lanes + i) * taps + k] = total[k * lanes + i];
      return;
    }
    for (std::size_t k = 0; k < seen_blocks; ++k) {
      const std::size_t first = k / kBlocksAtOnce * kBlocksAtOnce, width = std::min(kBlocksAtOnce, seen_blocks - first);
      const std::size_t channel = k / taps * lanes, tap = k % taps;
      for (std::size_t f = 0; f < at_once && tile * at_once + f < c.filters; ++f) {
        const float* from = total + (first * at_once + f * width + k - first) * lanes;
        float* to = dw + ((tile * at_once + f) * c.channels + channel) * taps + tap;
        for (std::size_t i = 0; i < lanes && channel + i < c.channels; ++i) to[i * taps] = from[i];
      }
    }
  });
}

}  // namespace wootz
