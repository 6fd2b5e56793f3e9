// The gradient of a convolution's weights from x and dy in ONNX Runtime's own layout, [N, C / lanes, H, W, lanes].
//
// A tile of filters and of blocks of x, each seen from one tap of the kernel, stays in registers, while all pixels of
// some images go by: a number of dy meets a vector of x. Nothing is copied but x, where it has pads, or pixels that
// nothing sees.

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

// How many of the blocks that are left are summed together: not one alone behind three.
std::size_t blocks_at_once(std::size_t left) { return left == 4 ? 2 : std::min(left, kBlocksAtOnce); }

// x with its pads.
const float* with_pads(const VectorKernels& kernels, const Threads& threads, const Convolution& c, const float* x) {
  const std::size_t line = c.size[1] * kernels.lanes, planes = c.images * divided(c.channels, kernels.lanes);
  const std::size_t before = c.pads_begin[1] * kernels.lanes, behind = c.pads_end[1] * kernels.lanes;
  const std::size_t padded_line = before + line + behind;
  const std::size_t plane = (c.pads_begin[0] + c.size[0] + c.pads_end[0]) * padded_line;
  float* copy = scratch(Room::right_operand, planes * plane);
  threads.run(planes, [&](std::size_t i) {
    const float* from = x + i * c.size[0] * line;
    float* to = copy + i * plane;
    const auto clear = [&to](std::size_t count) { std::memset(to, 0, count * sizeof(float)), to += count; };
    clear(c.pads_begin[0] * padded_line);
    for (std::size_t h = 0; h < c.size[0]; ++h, from += line) {
      clear(before);
      std::memcpy(to, from, line * sizeof(float)), to += line;
      clear(behind);
    }
    clear(c.pads_end[0] * padded_line);
  });
  return copy;
}

// The pixels of x that a convolution of one tap sees with its strides.
const float* pixels_seen(const VectorKernels& kernels, const Threads& threads, const Convolution& c, const float* x) {
  const std::size_t lanes = kernels.lanes, planes = c.images * divided(c.channels, lanes);
  float* copy = scratch(Room::right_operand, planes * c.count[0] * c.count[1] * lanes);
  threads.run(planes * c.count[0], [&](std::size_t i) {
    const std::size_t line = i / c.count[0] * c.size[0] + i % c.count[0] * c.strides[0];
    const float* from = x + line * c.size[1] * lanes;
    float* to = copy + i * c.count[1] * lanes;
    for (std::size_t w = 0; w < c.count[1]; ++w, from += c.strides[1] * lanes, to += lanes)
      std::memcpy(to, from, lanes * sizeof(float));
  });
  return copy;
}

}  // namespace

void blocked_weight_gradient(const VectorKernels& kernels, const Threads& threads, const Convolution& convolution,
                             const float* x, const float* dy, float* dw) {
  Convolution c = convolution;
  const std::size_t lanes = kernels.lanes, taps = c.kernel[0] * c.kernel[1];
  const std::size_t pads = c.pads_begin[0] + c.pads_begin[1] + c.pads_end[0] + c.pads_end[1];
  if (pads > 0) {
    x = with_pads(kernels, threads, c, x);
    for (int axis = 0; axis < 2; ++axis) c.size[axis] += c.pads_begin[axis] + c.pads_end[axis];
  } else if (taps == 1 && c.strides[0] * c.strides[1] > 1) {
    x = pixels_seen(kernels, threads, c, x);
    for (int axis = 0; axis < 2; ++axis) c.size[axis] = c.count[axis], c.strides[axis] = 1;
  }
  const std::size_t blocks_of_x = divided(c.channels, lanes), blocks_of_dy = divided(c.filters, lanes);
  const std::size_t plane = c.size[0] * c.size[1] * lanes;

  const bool is_depthwise = c.group > 1;
  const std::size_t at_once = is_depthwise ? lanes : kernels.filters_at_once;
  const std::size_t seen_blocks = (is_depthwise ? 1 : blocks_of_x) * taps;
  Pixels pixels{};
  pixels.lines = c.count[0], pixels.columns = c.count[1];
  pixels.line_of_dy = c.count[1] * lanes, pixels.image_of_dy = blocks_of_dy * c.count[0] * pixels.line_of_dy;
  pixels.column_of_x = c.strides[1] * lanes, pixels.line_of_x = c.strides[0] * c.size[1] * lanes;
  pixels.image_of_x = blocks_of_x * plane;
  if (pixels.line_of_x == c.count[1] * pixels.column_of_x) pixels.lines = 1, pixels.columns = c.count[0] * c.count[1];

  const std::size_t tiles = divided(c.filters, at_once);
  const std::size_t tiles_of_task = std::max<std::size_t>(1, std::min(divided(tiles, 2), kFiltersOfTask / at_once));
  const std::size_t groups = divided(tiles, tiles_of_task);
  const std::size_t parts = std::max<std::size_t>(1, std::min(divided(kTasks, groups), c.images));
  const std::size_t images_of_part = divided(c.images, parts);
  const std::size_t of_image = plane * std::min(blocks_of_x, kBlocksAtOnce) + c.count[0] * pixels.line_of_dy * 2;
  const std::size_t images_at_once = std::max<std::size_t>(1, kCached / of_image);

  // sums[part][tile][filter of the tile, block as seen, lane]: blocks as seen by blocks_at_once
  const std::size_t of_tile = (is_depthwise ? 1 : at_once) * seen_blocks * lanes, of_part = tiles * of_tile;
  float* sums = scratch(Room::sums, parts * of_part);
  threads.run(groups * parts, [&](std::size_t task) {
    const std::size_t first = task % groups * tiles_of_task, last = std::min(first + tiles_of_task, tiles);
    const std::size_t part = task / groups;  // images in front: threads keep those that they had in the node before
    const std::size_t begin = part * images_of_part, end = std::min(begin + images_of_part, c.images);
    float* of_task = sums + part * of_part;
    if (is_depthwise || begin >= end) std::memset(of_task + first * of_tile, 0, (last - first) * of_tile * sizeof(float));
    const auto see = [&](std::size_t channels, std::size_t index, std::size_t image) {
      const std::size_t block = channels + index / taps, tap = index % taps;
      const std::size_t line = tap / c.kernel[1] * c.dilations[0], column = tap % c.kernel[1] * c.dilations[1];
      return x + (image * blocks_of_x + block) * plane + (line * c.size[1] + column) * lanes;
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
      for (std::size_t k = 0, width; k < seen_blocks; k += width) {
        width = blocks_at_once(seen_blocks - k);
        for (std::size_t tile = first; tile < last; ++tile) {
          const std::size_t filter = tile * at_once;
          const float* of_tile_dy = of_images + filter / lanes * c.count[0] * pixels.line_of_dy + filter % lanes;
          kernels.add_blocks(of_tile_dy, &seen[k], width, some, of_task + tile * of_tile + k * at_once * lanes,
                             n == begin);
        }
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
    const std::size_t filters = std::min(at_once, c.filters - tile * at_once);
    for (std::size_t first = 0, width; first < seen_blocks; first += width) {
      width = blocks_at_once(seen_blocks - first);
      for (std::size_t f = 0; f < filters; ++f)
        for (std::size_t b = 0; b < width; ++b) {
          const std::size_t channel = (first + b) / taps * lanes, tap = (first + b) % taps;
          const float* from = total + (first * at_once + f * width + b) * lanes;
          float* to = dw + ((tile * at_once + f) * c.channels + channel) * taps + tap;
          const std::size_t channels = std::min(lanes, c.channels - channel);
          if (taps == 1)
            std::memcpy(to, from, channels * sizeof(float));
          else
            for (std::size_t i = 0; i < channels; ++i) to[i * taps] = from[i];
        }
    }
  });
}

}  // namespace wootz
