// The library of custom operators that a session of ONNX Runtime loads: domain `wootz.native`, version 1, in float32.
// Gradients are what the functions of the same name in passes/training/gradient_functions.onnxtxt compute.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

#include "onnxruntime_abi.h"
#include "parallel.h"
#include "vector_kernels.h"
#include "weight_gradient.h"
#include "weights.h"

namespace wootz {
namespace {

// The widest that the processor has, or those that WOOTZ_KERNELS names, for tests.
const VectorKernels& chosen_kernels() {
  const char* wanted = std::getenv("WOOTZ_KERNELS");
  const auto is_wanted = [wanted](const VectorKernels& k) { return !wanted || !std::strcmp(wanted, k.name); };
#ifdef WOOTZ_X86
  const bool has_avx512 =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (has_avx512 && is_wanted(avx512_kernels())) return avx512_kernels();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2 && is_wanted(avx2_kernels())) return avx2_kernels();
#endif
  return baseline_kernels();
}

const VectorKernels& vector_kernels() {
  static const VectorKernels& chosen = chosen_kernels();
  return chosen;
}

template <typename... Arguments>
ort::Status* call(const ort::Function* api, ort::Place place, Arguments... arguments) {
  return reinterpret_cast<ort::Status* (*)(Arguments...)>(api[place])(arguments...);
}

ort::Status* failure(const ort::Function* api, const char* message) {
  return call(api, ort::kCreateStatus, static_cast<int>(ort::kInvalidArgument), message);
}

struct Refused {
  ort::Status* status;
};

void check(ort::Status* status) {
  if (status) throw Refused{status};
}

using Dimensions = std::vector<std::int64_t>;

std::size_t elements(const Dimensions& d, std::size_t begin = 0) {
  std::size_t product = 1;
  for (std::size_t i = begin; i < d.size(); ++i) product *= static_cast<std::size_t>(d[i]);
  return product;
}

// The operands and results of a node that is run.
class Run {
 public:
  Run(const ort::Function* api, ort::KernelContext* context) : api_(api), context_(context) {}

  Threads threads() const { return {api_, context_}; }

  const float* input(std::size_t index, Dimensions* dimensions = nullptr) const {
    const ort::Value* value = nullptr;
    check(call(api_, ort::kKernelContextGetInput, static_cast<const ort::KernelContext*>(context_), index, &value));
    if (dimensions) *dimensions = shape(value);
    return data(const_cast<ort::Value*>(value));
  }

  // An operand that must have these extents.
  const float* input_of(std::size_t index, const Dimensions& extents) const {
    Dimensions found;
    const float* values = input(index, &found);
    require(found == extents, "operands of different shapes");
    return values;
  }

  float* output(std::size_t index, const Dimensions& dimensions) const {
    ort::Value* value = nullptr;
    check(call(api_, ort::kKernelContextGetOutput, context_, index, dimensions.data(), dimensions.size(), &value));
    return data(value);
  }

  void require(bool holds, const char* what) const {
    if (!holds) throw Refused{failure(api_, what)};
  }

 private:
  float* data(ort::Value* value) const {
    void* found = nullptr;
    check(call(api_, ort::kGetTensorMutableData, value, &found));
    return static_cast<float*>(found);
  }

  Dimensions shape(const ort::Value* value) const {
    ort::Shape* info = nullptr;
    check(call(api_, ort::kGetTensorTypeAndShape, value, &info));
    std::size_t rank = 0;
    ort::Status* status = call(api_, ort::kGetDimensionsCount, static_cast<const ort::Shape*>(info), &rank);
    Dimensions found(rank);
    if (!status) status = call(api_, ort::kGetDimensions, static_cast<const ort::Shape*>(info), found.data(), rank);
    reinterpret_cast<void (*)(ort::Shape*)>(api_[ort::kReleaseTensorTypeAndShapeInfo])(info);
    check(status);
    return found;
  }

  const ort::Function* api_;
  ort::KernelContext* context_;
};

// The attributes of a node.
class Attributes {
 public:
  Attributes(const ort::Function* api, const ort::KernelInfo* info) : api_(api), info_(info) {}

  float number(const char* name) const {
    float value = 0;
    check(call(api_, ort::kKernelInfoGetAttributeFloat, info_, name, &value));
    return value;
  }

  // That of a ReLU, for which 0 stands where it has none.
  float ceiling() const {
    const float found = number("ceiling");
    return found > 0 ? found : std::numeric_limits<float>::infinity();
  }

  std::int64_t integer(const char* name) const {
    std::int64_t value = 0;
    check(call(api_, ort::kKernelInfoGetAttributeInt64, info_, name, &value));
    return value;
  }

  std::vector<std::int64_t> integers(const char* name) const {
    return array<std::int64_t>(ort::kKernelInfoGetAttributeArrayInt64, name);
  }

  std::vector<float> numbers(const char* name) const {
    return array<float>(ort::kKernelInfoGetAttributeArrayFloat, name);
  }

  // `count` integers that aren't negative.
  void sizes(const char* name, std::size_t* found, std::size_t count) const {
    const std::vector<std::int64_t> values = integers(name);
    require(values.size() == count, name);
    for (std::size_t i = 0; i < count; ++i) {
      require(values[i] >= 0, name);
      found[i] = static_cast<std::size_t>(values[i]);
    }
  }

  void require(bool holds, const char* what) const {
    if (!holds) throw Refused{failure(api_, what)};
  }

 private:
  template <typename Number>
  std::vector<Number> array(ort::Place place, const char* name) const {
    std::size_t size = 0;
    check(call(api_, place, info_, name, static_cast<Number*>(nullptr), &size));
    std::vector<Number> values(size);
    check(call(api_, place, info_, name, values.data(), &size));
    return values;
  }

  const ort::Function* api_;
  const ort::KernelInfo* info_;
};

constexpr std::size_t kLeastWork = 1 << 14;  // numbers that are worth waking a thread for

// Calls task(c) for each channel of [N, C, …].
template <typename Task>
void each_channel(const Run& run, const Dimensions& shape, Task&& task) {
  const std::size_t channels = static_cast<std::size_t>(shape[1]);
  const std::size_t channel = elements(shape) / (channels ? channels : 1);
  const std::size_t together = channel < kLeastWork ? kLeastWork / (channel ? channel : 1) : 1;
  run.threads().run((channels + together - 1) / together, [&](std::size_t i) {
    for (std::size_t c = i * together; c < channels && c < (i + 1) * together; ++c) task(c);
  });
}

Rows rows_of(const Dimensions& shape) {
  const std::size_t length = elements(shape, 2);
  return {static_cast<std::size_t>(shape[0]), length, length * static_cast<std::size_t>(shape[1])};
}

// What the gradient of a batch normalisation needs of a channel: dx = dy_slope · dy + x_slope · x + offset, which is
// scale/σ · (dy - Σ dy / n - h · Σ dy h / n) with h = (x - mean)/σ (Ioffe & Szegedy 2015, section 3).
struct GradientOfChannel {
  GradientOfChannel(double scale, double mean, double variance, double epsilon, double gradient, double product,
                    double count) {
    const double inverse = 1 / std::sqrt(variance + epsilon), slope = scale * inverse;
    const double of_x = -slope * inverse * inverse * product / count;
    dscale = static_cast<float>(product * inverse);
    dy_slope = static_cast<float>(slope);
    x_slope = static_cast<float>(of_x);
    offset = static_cast<float>(-slope * gradient / count - of_x * mean);
  }

  float dscale, dy_slope, x_slope, offset;
};

// How the blocks of a tensor [N, count · lanes, …] are dealt out: each one's images in parts, by the shape alone, and all
// blocks of the first images first: so threads keep the images that they had in the node before.
struct Blocks {
  Blocks(const Run& run, const Dimensions& shape, const Dimensions& of_channels) : channels(wootz::elements(of_channels)) {
    const std::size_t lanes = vector_kernels().lanes;
    run.require(shape.size() >= 2 && of_channels.size() == 1 && wootz::elements(shape) > 0 &&
                    (channels + lanes - 1) / lanes * lanes == static_cast<std::size_t>(shape[1]),
                "the operand isn't in blocks of the machine's layout, or empty");
    count = static_cast<std::size_t>(shape[1]) / lanes;
    images = static_cast<std::size_t>(shape[0]);
    pixels = wootz::elements(shape, 2);
    elements = static_cast<double>(images * pixels);
    const std::size_t wanted = std::max(kLeastParts, (kPartsOfTensor + count - 1) / count);
    const std::size_t worthwhile = images * pixels * lanes / kLeastWork;
    parts = std::max<std::size_t>(1, std::min({wanted, worthwhile, images}));
  }

  std::size_t tasks() const { return count * parts; }

  Rows rows(std::size_t task) const {
    const std::size_t part = task / count;
    const std::size_t begin = images * part / parts, end = images * (part + 1) / parts;
    return {end - begin, pixels, count * pixels * vector_kernels().lanes};
  }

  std::size_t offset(std::size_t task) const {
    const std::size_t begin = images * (task / count) / parts;
    return (begin * count + task % count) * pixels * vector_kernels().lanes;
  }

  // Where a block of the first image begins.
  std::size_t first(std::size_t block) const { return block * pixels * vector_kernels().lanes; }

  // Calls task(channel, first sum, second sum), with the two sums of all parts.
  template <typename Task>
  void each_channel(const std::vector<double>& sums, Task&& task) const {
    const std::size_t lanes = vector_kernels().lanes;
    for (std::size_t c = 0; c < channels; ++c) {
      double first = 0, second = 0;
      for (std::size_t part = 0; part < parts; ++part) {
        const double* of_part = &sums[(part * count + c / lanes) * 2 * lanes + c % lanes];
        first += of_part[0], second += of_part[lanes];
      }
      task(c, first, second);
    }
  }

  static constexpr std::size_t kPartsOfTensor = 16, kLeastParts = 4;
  std::size_t channels, count, images, pixels, parts;
  double elements;
};

// (x[N, C, …], scale[C], bias[C][, added[N, C, …]]) -> y, mean[C], variance[C]: over the batch and space. `added` is added
// to y; `relu`: y is not less than 0, nor more than `ceiling`, if that isn't 0.
template <bool adds>
struct BatchNormalization {
  static constexpr const char* kName = adds ? "BatchNormalizationAdd" : "BatchNormalization";
  static constexpr std::size_t kInputs = adds ? 4 : 3, kOutputs = 3;

  explicit BatchNormalization(const Attributes& a)
      : epsilon(a.number("epsilon")), relu{a.integer("relu") != 0, a.ceiling()} {}

  void compute(const Run& run) const {
    Dimensions shape;
    const float* x = run.input(0, &shape);
    run.require(shape.size() >= 2 && elements(shape) > 0, "BatchNormalization: x is not [N, C, …], or empty");
    const float *scale = run.input_of(1, {shape[1]}), *bias = run.input_of(2, {shape[1]});
    const float* added = adds ? run.input_of(3, shape) : nullptr;
    float *y = run.output(0, shape), *means = run.output(1, {shape[1]}), *variances = run.output(2, {shape[1]});
    const Rows rows = rows_of(shape);
    each_channel(run, shape, [&](std::size_t c) {
      const std::size_t at = c * rows.length;
      const Moments found = vector_kernels().moments(x + at, rows);
      means[c] = static_cast<float>(found.mean);
      variances[c] = static_cast<float>(found.variance);
      const double slope = scale[c] / std::sqrt(found.variance + epsilon);
      const float offset = static_cast<float>(bias[c] - found.mean * slope);
      vector_kernels().normalize(x + at, adds ? added + at : nullptr, y + at, rows, static_cast<float>(slope), offset,
                                 relu);
    });
  }

  float epsilon;
  Relu relu;
};

// (dy, x, scale, mean, variance[, y]) -> dx, dscale, dbias. With y, dy counts only where y is more than 0 and, if that
// isn't 0, less than `ceiling`.
template <bool masked>
struct BatchNormalizationGrad {
  static constexpr const char* kName = masked ? "BatchNormalizationReluGrad" : "BatchNormalizationGrad";
  static constexpr std::size_t kInputs = masked ? 6 : 5, kOutputs = 3;

  explicit BatchNormalizationGrad(const Attributes& a)
      : epsilon(a.number("epsilon")), relu{masked, masked ? a.ceiling() : 0} {}

  void compute(const Run& run) const {
    Dimensions shape;
    const float* dy = run.input(0, &shape);
    run.require(shape.size() >= 2 && elements(shape) > 0, "BatchNormalizationGrad: dy is not [N, C, …], or empty");
    const float *x = run.input_of(1, shape), *scale = run.input_of(2, {shape[1]});
    const float *means = run.input_of(3, {shape[1]}), *variances = run.input_of(4, {shape[1]});
    const float* y = masked ? run.input_of(5, shape) : nullptr;
    float *dx = run.output(0, shape), *dscale = run.output(1, {shape[1]}), *dbias = run.output(2, {shape[1]});
    const Rows rows = rows_of(shape);
    const double count = static_cast<double>(rows.images * rows.length);
    each_channel(run, shape, [&](std::size_t c) {
      const std::size_t at = c * rows.length;
      const float* seen = masked ? y + at : nullptr;
      const Sums sums = vector_kernels().gradient_sums(dy + at, x + at, seen, rows, means[c], relu);
      const GradientOfChannel found(scale[c], means[c], variances[c], epsilon, sums.gradient, sums.product, count);
      dscale[c] = found.dscale;
      dbias[c] = static_cast<float>(sums.gradient);
      vector_kernels().gradient(dy + at, x + at, seen, dx + at, rows, found.dy_slope, found.x_slope, found.offset,
                                relu);
    });
  }

  float epsilon;
  Relu relu;
};

// The same of x in blocks of channels, [N, blocks · lanes, H, W]; scale and bias have an element a channel, and so have
// mean and variance. What fills the last block stays zero.
template <bool adds>
struct BlockedBatchNormalization {
  static constexpr const char* kName = adds ? "BlockedBatchNormalizationAdd" : "BlockedBatchNormalization";
  static constexpr std::size_t kInputs = adds ? 4 : 3, kOutputs = 3;

  explicit BlockedBatchNormalization(const Attributes& a)
      : epsilon(a.number("epsilon")), relu{a.integer("relu") != 0, a.ceiling()} {}

  void compute(const Run& run) const {
    Dimensions shape, channels;
    const float *x = run.input(0, &shape), *scale = run.input(1, &channels);
    const float *bias = run.input_of(2, channels), *added = adds ? run.input_of(3, shape) : nullptr;
    const Blocks blocks(run, shape, channels);
    float *y = run.output(0, shape), *means = run.output(1, channels), *variances = run.output(2, channels);
    const VectorKernels& kernels = vector_kernels();
    const std::size_t lanes = kernels.lanes;

    std::vector<float> slopes(blocks.count * lanes), offsets(slopes), shifts(slopes);
    for (std::size_t b = 0; b < blocks.count; ++b)
      std::memcpy(&shifts[b * lanes], x + blocks.first(b), lanes * sizeof(float));
    bool again = true;
    for (int pass = 0; again && pass < 2; ++pass) {
      std::vector<double> sums(blocks.tasks() * 2 * lanes);
      run.threads().run(blocks.tasks(), [&](std::size_t task) {
        double* found = &sums[task * 2 * lanes];
        const float* shift = &shifts[task % blocks.count * lanes];
        kernels.add_moments(x + blocks.offset(task), blocks.rows(task), shift, found, found + lanes);
      });
      again = false;
      blocks.each_channel(sums, [&](std::size_t c, double total, double squares) {
        const double distance = total / blocks.elements, mean = distance + shifts[c];
        const double variance = std::max(squares / blocks.elements - distance * distance, 0.0);  // NaN stays NaN
        means[c] = static_cast<float>(mean);
        variances[c] = static_cast<float>(variance);
        const double slope = scale[c] / std::sqrt(variance + epsilon);
        slopes[c] = static_cast<float>(slope);
        offsets[c] = static_cast<float>(bias[c] - mean * slope);
        if (is_far(distance, variance)) again = true, shifts[c] = means[c];
      });
    }
    run.threads().run(blocks.tasks(), [&](std::size_t task) {
      const std::size_t at = blocks.offset(task), c = task % blocks.count * lanes;
      kernels.normalize_block(x + at, adds ? added + at : nullptr, y + at, blocks.rows(task), &slopes[c], &offsets[c],
                              relu);
    });
  }

  float epsilon;
  Relu relu;
};

template <bool masked>
struct BlockedBatchNormalizationGrad {
  static constexpr const char* kName = masked ? "BlockedBatchNormalizationReluGrad" : "BlockedBatchNormalizationGrad";
  static constexpr std::size_t kInputs = masked ? 6 : 5, kOutputs = 3;

  explicit BlockedBatchNormalizationGrad(const Attributes& a)
      : epsilon(a.number("epsilon")), relu{masked, masked ? a.ceiling() : 0} {}

  void compute(const Run& run) const {
    Dimensions shape, channels;
    const float *dy = run.input(0, &shape), *x = run.input_of(1, shape), *scale = run.input(2, &channels);
    const float *means = run.input_of(3, channels), *variances = run.input_of(4, channels);
    const float* y = masked ? run.input_of(5, shape) : nullptr;
    const Blocks blocks(run, shape, channels);
    float *dx = run.output(0, shape), *dscale = run.output(1, channels), *dbias = run.output(2, channels);
    const VectorKernels& kernels = vector_kernels();
    const std::size_t lanes = kernels.lanes;

    std::vector<float> padded_means(blocks.count * lanes);
    std::memcpy(padded_means.data(), means, blocks.channels * sizeof(float));
    std::vector<double> sums(blocks.tasks() * 2 * lanes);
    run.threads().run(blocks.tasks(), [&](std::size_t task) {
      const std::size_t at = blocks.offset(task);
      double* found = &sums[task * 2 * lanes];
      kernels.add_gradient_sums(dy + at, x + at, masked ? y + at : nullptr, blocks.rows(task),
                                &padded_means[task % blocks.count * lanes], found, found + lanes, relu);
    });
    std::vector<float> dy_slopes(blocks.count * lanes), x_slopes(dy_slopes), offsets(dy_slopes);
    blocks.each_channel(sums, [&](std::size_t c, double gradient, double product) {
      const GradientOfChannel found(scale[c], means[c], variances[c], epsilon, gradient, product, blocks.elements);
      dscale[c] = found.dscale;
      dbias[c] = static_cast<float>(gradient);
      dy_slopes[c] = found.dy_slope, x_slopes[c] = found.x_slope, offsets[c] = found.offset;
    });
    run.threads().run(blocks.tasks(), [&](std::size_t task) {
      const std::size_t at = blocks.offset(task), c = task % blocks.count * lanes;
      kernels.gradient_block(dy + at, x + at, masked ? y + at : nullptr, dx + at, blocks.rows(task), &dy_slopes[c],
                             &x_slopes[c], &offsets[c], relu);
    });
  }

  float epsilon;
  Relu relu;
};

// (dy, y) -> dy where y is more than 0 and, if that isn't 0, less than `ceiling`, else 0.
struct ReluGrad {
  static constexpr const char* kName = "ReluGrad";
  static constexpr std::size_t kInputs = 2, kOutputs = 1;

  explicit ReluGrad(const Attributes& a) : relu{true, a.ceiling()} {}

  void compute(const Run& run) const {
    Dimensions shape;
    const float *dy = run.input(0, &shape), *y = run.input_of(1, shape);
    float* dx = run.output(0, shape);
    const std::size_t count = elements(shape);
    run.threads().run((count + kLeastWork - 1) / kLeastWork, [&](std::size_t i) {
      const std::size_t begin = i * kLeastWork, end = begin + kLeastWork < count ? begin + kLeastWork : count;
      vector_kernels().relu_gradient(dy + begin, y + begin, dx + begin, end - begin, relu);
    });
  }

  Relu relu;
};

// (dy[N, C, P, Q], x[N, C, H, W], y[N, C, P, Q]) -> dx[N, C, H, W]: dy goes to the first maximum of each window. What
// fills the last block of channels stays zero.
template <bool blocked>
struct MaxPoolGrad {
  static constexpr const char* kName = blocked ? "BlockedMaxPoolGrad" : "MaxPoolGrad";
  static constexpr std::size_t kInputs = 3, kOutputs = 1;

  explicit MaxPoolGrad(const Attributes& a) : windows{} {
    a.sizes("kernel_shape", windows.kernel, 2);
    a.sizes("strides", windows.strides, 2);
    a.sizes("dilations", windows.dilations, 2);
    a.sizes("pads_begin", windows.pads_begin, 2);
  }

  void compute(const Run& run) const {
    Dimensions of_x, of_dy;
    const float *dy = run.input(0, &of_dy), *x = run.input(1, &of_x), *y = run.input_of(2, of_dy);
    const std::size_t lanes = blocked ? vector_kernels().lanes : 1;
    run.require(of_x.size() == 4 && of_dy.size() == 4 && of_x[0] == of_dy[0] && of_x[1] == of_dy[1] &&
                    static_cast<std::size_t>(of_x[1]) % lanes == 0,
                "MaxPoolGrad: x and dy don't belong to one pooling");
    Windows w = windows;
    for (int axis = 0; axis < 2; ++axis) {
      w.size[axis] = static_cast<std::size_t>(of_x[2 + axis]);
      w.count[axis] = static_cast<std::size_t>(of_dy[2 + axis]);
    }
    float* dx = run.output(0, of_x);
    const std::size_t plane = w.size[0] * w.size[1] * lanes, plane_of_dy = w.count[0] * w.count[1] * lanes;
    const auto gradient = blocked ? vector_kernels().max_pool_gradient_block : vector_kernels().max_pool_gradient;
    run.threads().run(static_cast<std::size_t>(of_x[0] * of_x[1]) / lanes, [&](std::size_t i) {
      gradient(dy + i * plane_of_dy, x + i * plane, y + i * plane_of_dy, dx + i * plane, w);
    });
  }

  Windows windows;
};

// (dy[N, C, P, Q], w[C, 1, kernel…]) -> dx[N, C, size…]: the gradient of a depthwise convolution's operand. In blocks, what
// fills the last block of channels of dy and dx is zero.
template <bool blocked>
struct DepthwiseInputGrad {
  static constexpr const char* kName = blocked ? "BlockedDepthwiseInputGrad" : "DepthwiseInputGrad";
  static constexpr std::size_t kInputs = 2, kOutputs = 1;

  explicit DepthwiseInputGrad(const Attributes& a) : windows{} {
    a.sizes("size", windows.size, 2);
    a.sizes("strides", windows.strides, 2);
    a.sizes("dilations", windows.dilations, 2);
    a.sizes("pads_begin", windows.pads_begin, 2);
  }

  void compute(const Run& run) const {
    Dimensions of_dy, of_w;
    const float *dy = run.input(0, &of_dy), *w = run.input(1, &of_w);
    const std::size_t lanes = blocked ? vector_kernels().lanes : 1, channels = static_cast<std::size_t>(of_w[0]);
    const std::size_t blocks = (channels + lanes - 1) / lanes;
    run.require(of_dy.size() == 4 && of_w.size() == 4 && of_w[1] == 1 &&
                    static_cast<std::size_t>(of_dy[1]) == blocks * lanes,
                "DepthwiseInputGrad: dy and w don't belong to one convolution");
    Windows v = windows;
    for (int axis = 0; axis < 2; ++axis) {
      v.count[axis] = static_cast<std::size_t>(of_dy[2 + axis]);
      v.kernel[axis] = static_cast<std::size_t>(of_w[2 + axis]);
    }
    const auto extent = [](std::size_t n) { return static_cast<std::int64_t>(n); };
    float* dx = run.output(0, {of_dy[0], of_dy[1], extent(v.size[0]), extent(v.size[1])});
    const std::size_t taps = v.kernel[0] * v.kernel[1];
    std::vector<float> weights(blocks * taps * lanes);  // [block, tap, lane]
    for (std::size_t c = 0; c < channels; ++c)
      for (std::size_t t = 0; t < taps; ++t) weights[(c / lanes * taps + t) * lanes + c % lanes] = w[c * taps + t];
    const std::size_t plane = v.size[0] * v.size[1] * lanes, plane_of_dy = v.count[0] * v.count[1] * lanes;
    const auto spread = blocked ? vector_kernels().spread_block : vector_kernels().spread;
    run.threads().run(static_cast<std::size_t>(of_dy[0]) * blocks, [&](std::size_t i) {
      spread(dy + i * plane_of_dy, &weights[i % blocks * taps * lanes], dx + i * plane, v);
    });
  }

  Windows windows;
};

// (x[N, C, H, W], dy[N, M, P, Q]) -> dw[M, C / group, kernel…]. Where the operands are in blocks of channels, attributes
// say how many channels and filters there are without what fills the last blocks.
template <bool blocked>
struct ConvWeightGrad {
  static constexpr const char* kName = blocked ? "BlockedConvWeightGrad" : "ConvWeightGrad";
  static constexpr std::size_t kInputs = 2, kOutputs = 1;

  explicit ConvWeightGrad(const Attributes& a) : convolution{} {
    std::size_t pads[4];
    a.sizes("kernel_shape", convolution.kernel, 2);
    a.sizes("strides", convolution.strides, 2);
    a.sizes("dilations", convolution.dilations, 2);
    a.sizes("pads", pads, 4);
    for (int axis = 0; axis < 2; ++axis) {
      convolution.pads_begin[axis] = pads[axis];
      convolution.pads_end[axis] = pads[axis + 2];
    }
    convolution.group = static_cast<std::size_t>(a.integer("group"));
    if (!blocked) return;
    convolution.channels = static_cast<std::size_t>(a.integer("channels"));
    convolution.filters = static_cast<std::size_t>(a.integer("filters"));
  }

  void compute(const Run& run) const {
    Dimensions of_x, of_dy;
    const float *x = run.input(0, &of_x), *dy = run.input(1, &of_dy);
    run.require(of_x.size() == 4 && of_dy.size() == 4 && of_x[0] == of_dy[0], "ConvWeightGrad: not [N, C, H, W]");
    Convolution c = convolution;
    c.images = static_cast<std::size_t>(of_x[0]);
    if constexpr (blocked) {
      const auto fits = [](std::size_t count, std::int64_t extent) {
        const std::size_t lanes = vector_kernels().lanes;
        return count > 0 && (count + lanes - 1) / lanes * lanes == static_cast<std::size_t>(extent);
      };
      run.require(fits(c.channels, of_x[1]) && fits(c.filters, of_dy[1]) &&
                      (c.group == 1 || (c.group == c.channels && c.group == c.filters)),
                  "BlockedConvWeightGrad: the operands aren't in blocks of the machine's layout");
    } else {
      c.channels = static_cast<std::size_t>(of_x[1]);
      c.filters = static_cast<std::size_t>(of_dy[1]);
    }
    run.require(c.group > 0 && c.channels % c.group == 0 && c.filters % c.group == 0,
                "ConvWeightGrad: channels or filters aren't a multiple of group");
    for (int axis = 0; axis < 2; ++axis) {
      c.size[axis] = static_cast<std::size_t>(of_x[2 + axis]);
      c.count[axis] = static_cast<std::size_t>(of_dy[2 + axis]);
      const std::size_t reach = (c.kernel[axis] - 1) * c.dilations[axis] + 1;
      const std::size_t padded = c.size[axis] + c.pads_begin[axis] + c.pads_end[axis];
      run.require(padded >= reach && c.count[axis] == (padded - reach) / c.strides[axis] + 1,
                  "ConvWeightGrad: x and dy don't belong to one convolution");
    }
    const auto extent = [](std::size_t n) { return static_cast<std::int64_t>(n); };
    float* dw = run.output(
        0, {extent(c.filters), extent(c.channels / c.group), extent(c.kernel[0]), extent(c.kernel[1])});
    (blocked ? blocked_weight_gradient : weight_gradient)(vector_kernels(), run.threads(), c, x, dy, dw);
  }

  Convolution convolution;
};

// (w[M, C / group, kh, kw]) -> [C, M / group, kh, kw]: the weights of the convolution that gives dx of dy, the kernel
// turned by 180° and channels and filters exchanged.
struct TurnWeights {
  static constexpr const char* kName = "TurnWeights";
  static constexpr std::size_t kInputs = 1, kOutputs = 1;

  explicit TurnWeights(const Attributes& a) : group(a.integer("group")) {}

  void compute(const Run& run) const {
    Dimensions shape;
    const float* w = run.input(0, &shape);
    run.require(shape.size() == 4 && group > 0 && shape[0] % group == 0, "TurnWeights: w is not [M, C, kh, kw]");
    float* turned = run.output(0, {shape[1] * group, shape[0] / group, shape[2], shape[3]});
    turn_weights(run.threads(), weights_of(shape), static_cast<std::size_t>(group), w, turned);
  }

  std::int64_t group;
};

// (w[M, C, kh, kw]) -> the same in the order that ONNX Runtime's blocked convolutions read, with zeros where M and C
// aren't multiples of `block` and `together`: [M / block, C / together, kh, kw, together, block]. With `turned` these
// are the weights that TurnWeights gives.
struct OrderWeights {
  static constexpr const char* kName = "OrderWeights";
  static constexpr std::size_t kInputs = 1, kOutputs = 1;

  explicit OrderWeights(const Attributes& a)
      : block(a.integer("block")), together(a.integer("together")), turned(a.integer("turned") != 0) {}

  void compute(const Run& run) const {
    Dimensions shape;
    const float* w = run.input(0, &shape);
    run.require(shape.size() == 4 && block > 0 && together > 0, "OrderWeights: w is not [M, C, kh, kw]");
    const std::int64_t filters = turned ? shape[1] : shape[0], channels = turned ? shape[0] : shape[1];
    const auto whole = [](std::int64_t count, std::int64_t of) { return (count + of - 1) / of * of; };
    float* ordered = run.output(0, {whole(filters, block), whole(channels, together), shape[2], shape[3]});
    order_weights(vector_kernels(), run.threads(), weights_of(shape), static_cast<std::size_t>(block),
                  static_cast<std::size_t>(together), turned, w, ordered);
  }

  std::int64_t block, together;
  bool turned;
};

// (values…) -> values…: a program of elementwise operations, each rounded as by an operator of its own. Operands have
// one shape, or one element.
struct Elementwise {
  static constexpr const char* kName = "Elementwise";
  static constexpr std::size_t kInputs = 1, kOutputs = 1;
  static constexpr bool kVariadic = true;

  explicit Elementwise(const Attributes& a) : constants(a.numbers("constants")), inputs(a.integer("inputs")) {
    for (const std::int64_t n : a.integers("results")) results.push_back(static_cast<int>(n));
    const std::vector<std::int64_t> program = a.integers("program");
    const std::size_t first = static_cast<std::size_t>(inputs) + constants.size();
    a.require(inputs > 0 && program.size() % 4 == 0 && first + program.size() / 4 <= kMostValues && !results.empty(),
              "Elementwise: too long a program, or a damaged one");
    for (std::size_t i = 0; i < program.size(); i += 4) {
      const auto known = static_cast<std::int64_t>(first + i / 4);
      a.require(program[i] >= 0 && program[i] <= kLastOperation, "Elementwise: an operation that there isn't");
      for (std::size_t k = 1; k < 4; ++k)
        a.require(program[i + k] >= 0 && program[i + k] < known, "Elementwise: an instruction reads what isn't there yet");
      instructions.push_back({static_cast<Operation>(program[i]), static_cast<int>(program[i + 1]),
                              static_cast<int>(program[i + 2]), static_cast<int>(program[i + 3])});
    }
    for (const int result : results)
      a.require(result >= static_cast<int>(first) && result < static_cast<int>(first + instructions.size()),
                "Elementwise: a result that no instruction gives");
  }

  void compute(const Run& run) const {
    const std::size_t count = static_cast<std::size_t>(inputs);
    std::vector<const float*> operands(count);
    std::vector<Dimensions> shapes(count);
    for (std::size_t i = 0; i < count; ++i) operands[i] = run.input(i, &shapes[i]);
    const Dimensions* largest = &shapes[0];
    for (const Dimensions& shape : shapes)
      if (elements(shape) != 1 || shape.size() > largest->size()) largest = elements(*largest) == 1 ? &shape : largest;
    std::unique_ptr<bool[]> is_scalar(new bool[count]);
    const std::size_t length = elements(*largest);
    for (std::size_t i = 0; i < count; ++i) {
      is_scalar[i] = elements(shapes[i]) == 1 && length != 1;
      run.require(is_scalar[i] || elements(shapes[i]) == length, "Elementwise: operands of different shapes");
    }
    std::vector<float*> computed;
    for (std::size_t i = 0; i < results.size(); ++i) computed.push_back(run.output(i, *largest));
    const Program program{is_scalar.get(),     count,          constants.data(), constants.size(), instructions.data(),
                          instructions.size(), results.data(), results.size()};
    run.threads().run((length + kLeastWork - 1) / kLeastWork, [&](std::size_t task) {
      const std::size_t begin = task * kLeastWork, end = std::min(begin + kLeastWork, length);
      std::vector<const float*> from(operands);
      std::vector<float*> to(computed);
      for (std::size_t i = 0; i < count; ++i) from[i] += is_scalar[i] ? 0 : begin;
      for (float*& result : to) result += begin;
      vector_kernels().compute(program, from.data(), to.data(), end - begin);
    });
  }

  std::vector<float> constants;
  std::int64_t inputs;
  std::vector<int> results;
  std::vector<Instruction> instructions;
};

template <typename Operator, typename = void>
struct IsVariadic : std::false_type {};
template <typename Operator>
struct IsVariadic<Operator, std::enable_if_t<Operator::kVariadic>> : std::true_type {};

template <typename Operator>
struct Kernel {
  Operator node;
  const ort::Function* api;
};

// What refuses or runs out of memory becomes a status: nothing is thrown into ONNX Runtime.
template <typename Action>
ort::Status* guarded(const ort::Function* api, Action&& action) {
  try {
    action();
    return nullptr;
  } catch (const Refused& refused) {
    return refused.status;
  } catch (const std::bad_alloc&) {
    return failure(api, "out of memory");
  }
}

template <typename Operator>
const ort::CustomOp* described() {
  using Op = ort::CustomOp;
  static const Op op = [] {
    Op d{};
    d.version = ort::kVersion;
    d.get_name = [](const Op*) { return Operator::kName; };
    d.get_provider = [](const Op*) { return "CPUExecutionProvider"; };
    d.get_input_type = [](const Op*, std::size_t) { return ort::kFloat; };
    d.get_output_type = [](const Op*, std::size_t) { return ort::kFloat; };
    d.get_input_count = [](const Op*) { return Operator::kInputs; };
    d.get_output_count = [](const Op*) { return Operator::kOutputs; };
    constexpr auto characteristic = IsVariadic<Operator>::value ? ort::kVariadic : ort::kRequired;
    d.get_input_characteristic = [](const Op*, std::size_t) { return characteristic; };
    d.get_output_characteristic = [](const Op*, std::size_t) { return characteristic; };
    d.get_input_memory_type = [](const Op*, std::size_t) { return 0; };
    d.get_variadic_input_minimum = [](const Op*) { return 1; };
    d.get_variadic_output_minimum = [](const Op*) { return 1; };
    d.get_variadic_input_homogeneity = [](const Op*) { return 1; };
    d.get_variadic_output_homogeneity = [](const Op*) { return 1; };
    d.get_start_version = [](const Op*) { return 1; };
    d.get_end_version = [](const Op*) { return 1; };
    d.create_kernel_v2 = [](const Op*, const ort::Function* api, const ort::KernelInfo* info, void** kernel) {
      return guarded(api, [&] { *kernel = new Kernel<Operator>{Operator(Attributes(api, info)), api}; });
    };
    d.compute_v2 = [](void* kernel, ort::KernelContext* context) {
      const auto* k = static_cast<const Kernel<Operator>*>(kernel);
      return guarded(k->api, [&] { k->node.compute(Run(k->api, context)); });
    };
    d.destroy = [](void* kernel) { delete static_cast<Kernel<Operator>*>(kernel); };
    return d;
  }();
  return &op;
}

template <typename... Operators>
void add(const ort::Function* api, ort::CustomOpDomain* domain) {
  (check(call(api, ort::kCustomOpDomainAdd, domain, described<Operators>())), ...);
}

}  // namespace
}  // namespace wootz

// What ONNX Runtime looks for in a library of operators.
extern "C" __attribute__((visibility("default"))) ort::Status* RegisterCustomOps(ort::SessionOptions* options,
                                                                                 const ort::ApiBase* base) {
  using namespace wootz;
  const ort::Function* api = base->get_api(ort::kVersion);
  static ort::CustomOpDomain* domain = nullptr;  // sessions refer to it as long as they live
  return guarded(api, [&] {
    if (!domain) {
      ort::CustomOpDomain* made = nullptr;
      check(call(api, ort::kCreateCustomOpDomain, "wootz.native", &made));
      add<BatchNormalization<false>, BatchNormalization<true>, BatchNormalizationGrad<false>,
          BatchNormalizationGrad<true>, BlockedBatchNormalization<false>, BlockedBatchNormalization<true>,
          BlockedBatchNormalizationGrad<false>, BlockedBatchNormalizationGrad<true>, ReluGrad, MaxPoolGrad<false>,
          MaxPoolGrad<true>, DepthwiseInputGrad<false>, DepthwiseInputGrad<true>, ConvWeightGrad<false>,
          ConvWeightGrad<true>, TurnWeights, OrderWeights, Elementwise>(api, made);
      domain = made;
    }
    check(call(api, ort::kAddCustomOpDomain, options, domain));
  });
}

// The instruction set that the kernels use here.
extern "C" __attribute__((visibility("default"))) const char* wootz_kernels_name() {
  return wootz::vector_kernels().name;
}

// How many channels its blocked operands have side by side.
extern "C" __attribute__((visibility("default"))) std::size_t wootz_kernels_lanes() {
  return wootz::vector_kernels().lanes;
}
