// The gradient of a convolution's weights, without columns.
//
// x and dy are laid out once more, so that all images of a channel are one row of numbers, in which a step of one pixel
// and of one line is the same distance for both. Then the element (m, c, i, j) of dw is the product of row m of dy with
// row c of x, shifted by a distance that i and j give: a plain sum over long rows, for which a tile of filters and of
// shifted channels stays in registers. dy has zeros where a shift brings in what belongs to another line or image, and
// x has zeros for pads; lines share them: what is a pad behind one line is the pad before the next. Where the
// convolution has strides, x is divided by the remainders of its coordinates into planes in which it has none.
//
// The rows are divided into parts and the filters into groups, by the shape alone: sums are taken in one order,
// whatever the number of threads.

#include "weight_gradient.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "scratch.h"

namespace wootz {
namespace {

constexpr std::size_t kLongestVector = 16;
constexpr std::size_t kBlock = 2048;            // numbers of a row at a time
constexpr std::size_t kFiltersAtOnce = 64;      // whose blocks stay in the second one
constexpr std::size_t kTasks = 16;              // so many threads have something to do
constexpr std::size_t kLeastPart = 2 * kBlock;  // shorter parts would be mostly adding up

std::size_t divided(std::size_t number, std::size_t by) { return (number + by - 1) / by; }

// How pixels lie in rows.
struct Layout {
  std::size_t planes[2];    // remainders of y and x that the kernel meets
  std::size_t line, image;  // distances from a line to the next one, and from an image
  std::size_t row;          // of dy: from a filter to the next one
  std::size_t plane;        // of x: from one of a channel's planes to the next one

  explicit Layout(const Convolution& c) {
    std::size_t extent[2];
    for (int axis = 0; axis < 2; ++axis) {
      const std::size_t stride = c.strides[axis], reach = (c.kernel[axis] - 1) * c.dilations[axis];
      planes[axis] = std::min(stride, reach + 1);
      const std::size_t padded = c.size[axis] + c.pads_begin[axis] + c.pads_end[axis];
      const std::size_t shared = c.size[axis] + std::max(c.pads_begin[axis], c.pads_end[axis]);
      extent[axis] = std::max(stride == 1 ? shared : divided(padded, stride), c.count[axis]);
    }
    line = extent[1];
    image = extent[0] * line;
    row = c.images * image;
    const std::size_t last_line = (c.kernel[0] - 1) * c.dilations[0] / c.strides[0] + 1;
    const std::size_t last_column = (c.kernel[1] - 1) * c.dilations[1] / c.strides[1] + 1;
    plane = row + last_line * line + last_column + kLongestVector;
  }

  std::size_t channel() const { return planes[0] * planes[1] * plane; }

  // From a channel's first number to the one that a tap of the kernel sees first.
  std::size_t tap(const Convolution& c, std::size_t i, std::size_t j) const {
    const std::size_t y = i * c.dilations[0], x = j * c.dilations[1];
    const std::size_t at = y % c.strides[0] * planes[1] + x % c.strides[1];
    return at * plane + y / c.strides[0] * line + x / c.strides[1];
  }
};

void lay_out_filter(const Convolution& c, const Layout& layout, const float* dy, std::size_t filter, float* row) {
  std::memset(row, 0, layout.row * sizeof(float));
  for (std::size_t n = 0; n < c.images; ++n)
    for (std::size_t p = 0; p < c.count[0]; ++p)
      std::memcpy(row + n * layout.image + p * layout.line,
                  dy + ((n * c.filters + filter) * c.count[0] + p) * c.count[1], c.count[1] * sizeof(float));
}

void lay_out_channel(const Convolution& c, const Layout& layout, const float* x, std::size_t channel, float* rows) {
  std::memset(rows, 0, layout.channel() * sizeof(float));
  const std::size_t step = c.strides[1];
  for (std::size_t n = 0; n < c.images; ++n)
    for (std::size_t h = 0; h < c.size[0]; ++h) {
      const float* from = x + ((n * c.channels + channel) * c.size[0] + h) * c.size[1];
      const std::size_t y = h + c.pads_begin[0], plane = y % c.strides[0];
      if (plane >= layout.planes[0]) continue;
      float* line = rows + plane * layout.planes[1] * layout.plane + n * layout.image + y / c.strides[0] * layout.line;
      if (step == 1) {
        std::memcpy(line + c.pads_begin[1], from, c.size[1] * sizeof(float));
        continue;
      }
      for (std::size_t remainder = 0; remainder < layout.planes[1]; ++remainder) {
        std::size_t first = (remainder + step - c.pads_begin[1] % step) % step;
        float* to = line + remainder * layout.plane + (first + c.pads_begin[1]) / step;
        for (; first < c.size[1]; first += step) *to++ = from[first];
      }
    }
}

}  // namespace

void weight_gradient(const VectorKernels& kernels, const Threads& threads, const Convolution& c, const float* x,
                     const float* dy, float* dw) {
  const Layout layout(c);
  const std::size_t filters = c.filters / c.group, channels = c.channels / c.group;
  const std::size_t taps = c.kernel[0] * c.kernel[1], columns = channels * taps;
  const std::size_t filters_at_once = std::min(filters, kFiltersAtOnce);
  const std::size_t groups = divided(filters, filters_at_once) * c.group;
  const std::size_t wanted = std::max<std::size_t>(1, kTasks / groups);
  const std::size_t parts = std::max<std::size_t>(1, std::min(wanted, layout.row / kLeastPart));
  const std::size_t part = divided(divided(layout.row, parts), kLongestVector) * kLongestVector;

  float* rows_of_dy = scratch(Room::left_operand, c.filters * layout.row + kLongestVector);
  float* rows_of_x = scratch(Room::right_operand, c.channels * layout.channel());
  threads.run(c.filters + c.channels, [&](std::size_t i) {
    if (i < c.filters)
      lay_out_filter(c, layout, dy, i, rows_of_dy + i * layout.row);
    else
      lay_out_channel(c, layout, x, i - c.filters, rows_of_x + (i - c.filters) * layout.channel());
  });

  const std::size_t weights = c.filters * columns;
  float* further = scratch(Room::sums, (parts - 1) * weights);
  threads.run(groups * parts, [&](std::size_t task) {
    const std::size_t group = task / parts, index = task % parts;
    const std::size_t of_channels = group / (groups / c.group);
    const std::size_t first = of_channels * filters + group % (groups / c.group) * filters_at_once;
    const std::size_t last = std::min(first + filters_at_once, (of_channels + 1) * filters);
    float* sums = (index ? further + (index - 1) * weights : dw) + first * columns;
    std::memset(sums, 0, (last - first) * columns * sizeof(float));

    std::vector<const float*> seen(columns);
    for (std::size_t k = 0; k < columns; ++k) {
      const std::size_t channel = of_channels * channels + k / taps, tap = k % taps;
      seen[k] = rows_of_x + channel * layout.channel() + layout.tap(c, tap / c.kernel[1], tap % c.kernel[1]);
    }
    const std::size_t end = std::min(layout.row, (index + 1) * part);
    for (std::size_t begin = index * part; begin < end; begin += kBlock) {
      const std::size_t length = std::min(kBlock, end - begin);
      for (std::size_t column = 0; column < columns; column += kernels.tile_columns) {
        const std::size_t width = std::min(kernels.tile_columns, columns - column);
        const float* right[kMostTileColumns];
        for (std::size_t k = 0; k < width; ++k) right[k] = seen[column + k] + begin;
        for (std::size_t filter = first; filter < last; filter += kernels.tile_rows) {
          const std::size_t height = std::min(kernels.tile_rows, last - filter);
          const float* left[kMostTileRows];
          for (std::size_t k = 0; k < height; ++k) left[k] = rows_of_dy + (filter + k) * layout.row + begin;
          kernels.add_products(left, height, right, width, length, sums + (filter - first) * columns + column, columns);
        }
      }
    }
  });
  if (parts > 1)
    threads.run(kTasks, [&](std::size_t task) {
      const std::size_t begin = weights * task / kTasks, end = weights * (task + 1) / kTasks;
      for (std::size_t p = 0; p + 1 < parts; ++p)
        for (std::size_t i = begin; i < end; ++i) dw[i] += further[p * weights + i];
    });
}

}  // namespace wootz
