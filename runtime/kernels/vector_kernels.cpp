// Compiled once for each instruction set, with WOOTZ_LANES floats to a vector and WOOTZ_KERNELS as the name of what it
// gives. Nothing of the standard library is used: its inline functions would be compiled for that instruction set, too,
// and the linker might take them for all callers.

#include "vector_kernels.h"

namespace wootz {
namespace {

constexpr std::size_t kLanes = WOOTZ_LANES;
constexpr std::size_t kTileRows = WOOTZ_TILE_ROWS, kTileColumns = WOOTZ_TILE_COLUMNS;

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));
typedef Vector Unaligned __attribute__((aligned(sizeof(float))));

inline Vector load(const float* p) { return *reinterpret_cast<const Unaligned*>(p); }
inline void store(float* p, Vector v) { *reinterpret_cast<Unaligned*>(p) = v; }
inline Vector all(float value) { return value - Vector{}; }  // + would be computed: it makes 0 of -0

typedef int Indices __attribute__((vector_size(kLanes * sizeof(int))));

// Numbers of a, and behind them of b, by their places.
inline Vector picked(Vector a, Vector b, Indices places) {
#ifdef __clang__
  Vector v;
  for (std::size_t i = 0; i < kLanes; ++i) {
    const std::size_t place = static_cast<std::size_t>(places[i]);
    v[i] = place < kLanes ? a[place] : b[place - kLanes];
  }
  return v;
#else
  return __builtin_shuffle(a, b, places);
#endif
}

template <std::size_t distance>
inline Vector fold(Vector v) {
  Indices from;
  for (std::size_t i = 0; i < kLanes; ++i) from[i] = static_cast<int>((i + distance) % kLanes);
  return v + picked(v, v, from);
}

inline float sum(Vector v) {
  if constexpr (kLanes >= 16) v = fold<8>(v);
  if constexpr (kLanes >= 8) v = fold<4>(v);
  return fold<1>(fold<2>(v))[0];
}

// NaN stays NaN: a training that has failed must be seen to.
template <typename T>
inline T positive(T v) { return v <= 0.0f ? T{} : v; }

template <bool is_there, typename T>
inline T rectified(T v, T ceiling) {
  if constexpr (!is_there) return v;
  v = positive(v);
  return v >= ceiling ? ceiling : v;
}

// How gradients pass a ReLU: all of them, those where y isn't 0 or less, or of these those where it isn't a ceiling or more.
// Where y is NaN they pass.
enum class Mask { none, positive, bounded };

inline Mask mask_of(Relu relu) {
  if (!relu.is_there) return Mask::none;
  return relu.ceiling < __builtin_inff() ? Mask::bounded : Mask::positive;
}

template <Mask mask, typename T>
inline T passed(T dy, const float* y, T (*get)(const float*), float ceiling) {
  if constexpr (mask == Mask::none) return dy;
  const T v = get(y);
  const T positive = v <= 0.0f ? T{} : dy;
  if constexpr (mask == Mask::positive) return positive;
  return v >= ceiling ? T{} : positive;
}

inline float load_one(const float* p) { return *p; }
inline void store_one(float* p, float v) { *p = v; }

Moments moments_about(const float* x, Rows rows, float shift) {
  double total = 0, squares = 0;
  for (std::size_t n = 0; n < rows.images; ++n, x += rows.stride) {
    Vector s[2] = {}, q[2] = {};
    std::size_t i = 0;
    for (; i + 2 * kLanes <= rows.length; i += 2 * kLanes)
      for (std::size_t k = 0; k < 2; ++k) {
        const Vector d = load(x + i + k * kLanes) - shift;
        s[k] += d;
        q[k] += d * d;
      }
    float tail = 0, tail_squares = 0;
    for (; i < rows.length; ++i) {
      const float d = x[i] - shift;
      tail += d;
      tail_squares += d * d;
    }
    total += sum(s[0] + s[1]) + tail;
    squares += sum(q[0] + q[1]) + tail_squares;
  }
  const double count = static_cast<double>(rows.images * rows.length), mean = total / count;
  const double variance = squares / count - mean * mean;
  return {mean + shift, variance < 0 ? 0 : variance};
}

Moments moments(const float* x, Rows rows) {
  const Moments found = moments_about(x, rows, x[0]);
  const float mean = static_cast<float>(found.mean);
  return is_far(found.mean - x[0], found.variance) ? moments_about(x, rows, mean) : found;
}

template <bool adds, bool relu>
void normalize_rows(const float* x, const float* added, float* y, Rows rows, float slope, float offset, float ceiling) {
  const Vector ceilings = all(ceiling);
  for (std::size_t n = 0; n < rows.images; ++n) {
    std::size_t i = 0;
    for (; i + kLanes <= rows.length; i += kLanes) {
      Vector v = load(x + i) * slope + offset;
      if (adds) v += load(added + i);
      store(y + i, rectified<relu>(v, ceilings));
    }
    for (; i < rows.length; ++i) {
      float v = x[i] * slope + offset;
      if (adds) v += added[i];
      y[i] = rectified<relu>(v, ceiling);
    }
    x += rows.stride, y += rows.stride, added += adds ? rows.stride : 0;
  }
}

void normalize(const float* x, const float* added, float* y, Rows rows, float slope, float offset, Relu relu) {
  const auto normalize_these = added ? relu.is_there ? normalize_rows<true, true> : normalize_rows<true, false>
                                     : relu.is_there ? normalize_rows<false, true> : normalize_rows<false, false>;
  normalize_these(x, added, y, rows, slope, offset, relu.ceiling);
}

template <Mask mask>
Sums sum_rows(const float* dy, const float* x, const float* y, Rows rows, float mean, float ceiling) {
  if (mask == Mask::none) y = dy;  // isn't read
  Sums sums{0, 0};
  for (std::size_t n = 0; n < rows.images; ++n) {
    Vector s[2] = {}, q[2] = {};
    std::size_t i = 0;
    for (; i + 2 * kLanes <= rows.length; i += 2 * kLanes)
      for (std::size_t k = 0, j = i; k < 2; ++k, j += kLanes) {
        const Vector g = passed<mask>(load(dy + j), y + j, load, ceiling);
        s[k] += g;
        q[k] += g * (load(x + j) - mean);
      }
    float tail = 0, tail_products = 0;
    for (; i < rows.length; ++i) {
      const float g = passed<mask>(dy[i], y + i, load_one, ceiling);
      tail += g;
      tail_products += g * (x[i] - mean);
    }
    sums.gradient += sum(s[0] + s[1]) + tail;
    sums.product += sum(q[0] + q[1]) + tail_products;
    dy += rows.stride, x += rows.stride, y += rows.stride;
  }
  return sums;
}

Sums gradient_sums(const float* dy, const float* x, const float* y, Rows rows, float mean, Relu relu) {
  const Mask mask = mask_of(relu);
  const auto add_up = mask == Mask::bounded    ? sum_rows<Mask::bounded>
                      : mask == Mask::positive ? sum_rows<Mask::positive>
                                               : sum_rows<Mask::none>;
  return add_up(dy, x, y, rows, mean, relu.ceiling);
}

template <Mask mask>
void gradient_rows(const float* dy, const float* x, const float* y, float* dx, Rows rows, float dy_slope, float x_slope,
                   float offset, float ceiling) {
  if (mask == Mask::none) y = dy;
  for (std::size_t n = 0; n < rows.images; ++n) {
    std::size_t i = 0;
    for (; i + kLanes <= rows.length; i += kLanes) {
      const Vector g = passed<mask>(load(dy + i), y + i, load, ceiling);
      store(dx + i, g * dy_slope + (load(x + i) * x_slope + offset));
    }
    for (; i < rows.length; ++i)
      dx[i] = passed<mask>(dy[i], y + i, load_one, ceiling) * dy_slope + (x[i] * x_slope + offset);
    dy += rows.stride, x += rows.stride, dx += rows.stride, y += rows.stride;
  }
}

void gradient(const float* dy, const float* x, const float* y, float* dx, Rows rows, float dy_slope, float x_slope,
              float offset, Relu relu) {
  const Mask mask = mask_of(relu);
  const auto compute = mask == Mask::bounded    ? gradient_rows<Mask::bounded>
                       : mask == Mask::positive ? gradient_rows<Mask::positive>
                                                : gradient_rows<Mask::none>;
  compute(dy, x, y, dx, rows, dy_slope, x_slope, offset, relu.ceiling);
}

template <Mask mask>
void masked(const float* dy, const float* y, float* dx, std::size_t length, float ceiling) {
  std::size_t i = 0;
  for (; i + kLanes <= length; i += kLanes) store(dx + i, passed<mask>(load(dy + i), y + i, load, ceiling));
  for (; i < length; ++i) dx[i] = passed<mask>(dy[i], y + i, load_one, ceiling);
}

void relu_gradient(const float* dy, const float* y, float* dx, std::size_t length, Relu relu) {
  (mask_of(relu) == Mask::bounded ? masked<Mask::bounded> : masked<Mask::positive>)(dy, y, dx, length, relu.ceiling);
}

template <std::size_t rows, std::size_t columns>
void add_tile(const float* const* left, const float* const* right, std::size_t length, float* sums,
              std::size_t stride) {
  Vector totals[rows][columns] = {};
  const float *a[rows], *b[columns];
  for (std::size_t r = 0; r < rows; ++r) a[r] = left[r];
  for (std::size_t c = 0; c < columns; ++c) b[c] = right[c];
  std::size_t i = 0;
  for (; i + kLanes <= length; i += kLanes) {
    Vector l[rows];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < rows; ++r) l[r] = load(a[r] + i);
#pragma GCC unroll 8
    for (std::size_t c = 0; c < columns; ++c) {
      const Vector v = load(b[c] + i);
#pragma GCC unroll 8
      for (std::size_t r = 0; r < rows; ++r) totals[r][c] += l[r] * v;
    }
  }
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < columns; ++c) {
      float total = sum(totals[r][c]);
      for (std::size_t k = i; k < length; ++k) total += a[r][k] * b[c][k];
      sums[r * stride + c] += total;
    }
}

using Tile = void (*)(const float* const*, const float* const*, std::size_t, float*, std::size_t);

template <std::size_t rows>
constexpr Tile kTiles[kMostTileColumns] = {add_tile<rows, 1>, add_tile<rows, 2>, add_tile<rows, 3>,
                                           add_tile<rows, 4>, add_tile<rows, 5>, add_tile<rows, 6>};
constexpr const Tile* kTilesOfRows[kMostTileRows] = {kTiles<1>, kTiles<2>, kTiles<3>, kTiles<4>};

void add_products(const float* const* left, std::size_t rows, const float* const* right, std::size_t columns,
                  std::size_t length, float* sums, std::size_t stride) {
  kTilesOfRows[rows - 1][columns - 1](left, right, length, sums, stride);
}

constexpr std::size_t kFiltersAtOnce = WOOTZ_FILTERS_AT_ONCE;

template <std::size_t blocks>
void add_blocks_of(const float* dy, const float* const* x, const Pixels& p, float* sums, bool are_first) {
  Vector totals[kFiltersAtOnce][blocks] = {};
  if (!are_first)
    for (std::size_t f = 0; f < kFiltersAtOnce; ++f)
      for (std::size_t b = 0; b < blocks; ++b) totals[f][b] = load(sums + (f * blocks + b) * kLanes);
  for (std::size_t n = 0; n < p.images; ++n) {
    const float* g = dy + n * p.image_of_dy;
    std::size_t at = n * p.image_of_x;
    for (std::size_t l = 0; l < p.lines; ++l, at += p.line_of_x - p.columns * p.column_of_x)
      for (std::size_t q = 0; q < p.columns; ++q, g += kLanes, at += p.column_of_x) {
        Vector seen[blocks];
#pragma GCC unroll 8
        for (std::size_t b = 0; b < blocks; ++b) seen[b] = load(x[b] + at);
#pragma GCC unroll 16
        for (std::size_t f = 0; f < kFiltersAtOnce; ++f) {
          const Vector weight = all(g[f]);
#pragma GCC unroll 8
          for (std::size_t b = 0; b < blocks; ++b) totals[f][b] += weight * seen[b];
        }
      }
  }
  for (std::size_t f = 0; f < kFiltersAtOnce; ++f)
    for (std::size_t b = 0; b < blocks; ++b) store(sums + (f * blocks + b) * kLanes, totals[f][b]);
}

void add_blocks(const float* dy, const float* const* x, std::size_t blocks, const Pixels& pixels, float* sums,
                bool are_first) {
  if (blocks == 3) return add_blocks_of<3>(dy, x, pixels, sums, are_first);
  if (blocks == 2) return add_blocks_of<2>(dy, x, pixels, sums, are_first);
  add_blocks_of<1>(dy, x, pixels, sums, are_first);
}

template <std::size_t taps>
void add_taps(const float* dy, const float* const* x, const Pixels& p, float* sums) {
  Vector totals[taps];
  for (std::size_t t = 0; t < taps; ++t) totals[t] = load(sums + t * kLanes);
  for (std::size_t n = 0; n < p.images; ++n)
    for (std::size_t l = 0; l < p.lines; ++l) {
      const float *g = dy + n * p.image_of_dy + l * p.line_of_dy, *v[taps];
      for (std::size_t t = 0; t < taps; ++t) v[t] = x[t] + n * p.image_of_x + l * p.line_of_x;
      for (std::size_t q = 0; q < p.columns; ++q) {
        const Vector weight = load(g + q * kLanes);
#pragma GCC unroll 16
        for (std::size_t t = 0; t < taps; ++t) totals[t] += weight * load(v[t] + q * p.column_of_x);
      }
    }
  for (std::size_t t = 0; t < taps; ++t) store(sums + t * kLanes, totals[t]);
}

void add_depthwise(const float* dy, const float* const* x, std::size_t taps, const Pixels& pixels, float* sums) {
  for (; taps >= 3; taps -= 3, x += 3, sums += 3 * kLanes) add_taps<3>(dy, x, pixels, sums);
  for (; taps; --taps, ++x, sums += kLanes) add_taps<1>(dy, x, pixels, sums);
}

// Of blocks of `size` × `size` numbers in pairs of rows, the upper right one for the lower left one.
template <std::size_t size>
inline void exchange(Vector (&rows)[kLanes]) {
  if constexpr (size > 0) {
    Indices upper, lower;
    for (std::size_t i = 0; i < kLanes; ++i) {
      const bool is_right = i & size;
      upper[i] = static_cast<int>(is_right ? kLanes + i - size : i);
      lower[i] = static_cast<int>(is_right ? kLanes + i : i + size);
    }
#pragma GCC unroll 16
    for (std::size_t r = 0; r < kLanes; ++r) {
      if (r & size) continue;
      const Vector a = rows[r], b = rows[r + size];
      rows[r] = picked(a, b, upper);
      rows[r + size] = picked(a, b, lower);
    }
    exchange<size / 2>(rows);
  }
}

void transpose(const float* from, std::size_t line, float* const* to) {
  Vector rows[kLanes];
#pragma GCC unroll 16
  for (std::size_t i = 0; i < kLanes; ++i) rows[i] = load(from + i * line);
  exchange<kLanes / 2>(rows);
#pragma GCC unroll 16
  for (std::size_t i = 0; i < kLanes; ++i) store(to[i], rows[i]);
}

void turn(const float* from, std::size_t taps, float* to, std::size_t step) {
  if (taps == 1) return store(to, load(from));
  for (std::size_t t = 0; t < taps; ++t) {
    Vector v;
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kLanes; ++i) v[i] = from[i * taps + t];
    store(to + (taps - 1 - t) * step, v);
  }
}

constexpr std::size_t kPixelsInFloat = 256;  // so many are added up in float32, their sums in float64

struct BlockSums {
  Vector first[2] = {}, second[2] = {};

  void add(std::size_t k, Vector a, Vector b) { first[k] += a, second[k] += b; }

  void add_to(double* firsts, double* seconds) const {
    const Vector a = first[0] + first[1], b = second[0] + second[1];
    for (std::size_t i = 0; i < kLanes; ++i) firsts[i] += a[i], seconds[i] += b[i];
  }
};

// Calls add(sums, which, i) for each pixel at i, and adds up what it has put into sums.
template <typename Add>
inline void sum_pixels(Rows rows, double* firsts, double* seconds, Add add) {
  for (std::size_t n = 0; n < rows.images; ++n)
    for (std::size_t begin = 0; begin < rows.length; begin += kPixelsInFloat) {
      const std::size_t end = begin + kPixelsInFloat < rows.length ? begin + kPixelsInFloat : rows.length;
      BlockSums sums;
      std::size_t p = begin;
      for (; p + 2 <= end; p += 2) {
        add(sums, 0, n * rows.stride + p * kLanes);
        add(sums, 1, n * rows.stride + (p + 1) * kLanes);
      }
      if (p < end) add(sums, 0, n * rows.stride + p * kLanes);
      sums.add_to(firsts, seconds);
    }
}

void add_moments(const float* x, Rows rows, const float* shift, double* totals, double* squares) {
  const Vector s = load(shift);
  sum_pixels(rows, totals, squares, [=](BlockSums& sums, std::size_t k, std::size_t i) {
    const Vector d = load(x + i) - s;
    sums.add(k, d, d * d);
  });
}

template <bool adds, bool relu>
void normalize_pixels(const float* x, const float* added, float* y, Rows rows, Vector slope, Vector offset,
                      float ceiling) {
  const Vector ceilings = all(ceiling);
  for (std::size_t n = 0; n < rows.images; ++n) {
    for (std::size_t i = 0; i < rows.length * kLanes; i += kLanes) {
      Vector v = load(x + i) * slope + offset;
      if (adds) v += load(added + i);
      store(y + i, rectified<relu>(v, ceilings));
    }
    x += rows.stride, y += rows.stride, added += adds ? rows.stride : 0;
  }
}

void normalize_block(const float* x, const float* added, float* y, Rows rows, const float* slope, const float* offset,
                     Relu relu) {
  const auto normalize_these = added ? relu.is_there ? normalize_pixels<true, true> : normalize_pixels<true, false>
                                     : relu.is_there ? normalize_pixels<false, true> : normalize_pixels<false, false>;
  normalize_these(x, added, y, rows, load(slope), load(offset), relu.ceiling);
}

template <Mask mask>
void add_masked_sums(const float* dy, const float* x, const float* y, Rows rows, const float* mean, double* gradients,
                     double* products, float ceiling) {
  if (mask == Mask::none) y = dy;
  const Vector m = load(mean);
  sum_pixels(rows, gradients, products, [=](BlockSums& sums, std::size_t k, std::size_t i) {
    const Vector g = passed<mask>(load(dy + i), y + i, load, ceiling);
    sums.add(k, g, g * (load(x + i) - m));
  });
}

void add_gradient_sums(const float* dy, const float* x, const float* y, Rows rows, const float* mean, double* gradients,
                       double* products, Relu relu) {
  const Mask mask = mask_of(relu);
  const auto add_up = mask == Mask::bounded    ? add_masked_sums<Mask::bounded>
                      : mask == Mask::positive ? add_masked_sums<Mask::positive>
                                               : add_masked_sums<Mask::none>;
  add_up(dy, x, y, rows, mean, gradients, products, relu.ceiling);
}

template <Mask mask>
void masked_gradient_block(const float* dy, const float* x, const float* y, float* dx, Rows rows, Vector dy_slope,
                           Vector x_slope, Vector offset, float ceiling) {
  if (mask == Mask::none) y = dy;
  for (std::size_t n = 0; n < rows.images; ++n) {
    for (std::size_t i = 0; i < rows.length * kLanes; i += kLanes) {
      const Vector g = passed<mask>(load(dy + i), y + i, load, ceiling);
      store(dx + i, g * dy_slope + (load(x + i) * x_slope + offset));
    }
    dy += rows.stride, x += rows.stride, dx += rows.stride, y += rows.stride;
  }
}

void gradient_block(const float* dy, const float* x, const float* y, float* dx, Rows rows, const float* dy_slope,
                    const float* x_slope, const float* offset, Relu relu) {
  const Mask mask = mask_of(relu);
  const auto compute = mask == Mask::bounded    ? masked_gradient_block<Mask::bounded>
                       : mask == Mask::positive ? masked_gradient_block<Mask::positive>
                                                : masked_gradient_block<Mask::none>;
  compute(dy, x, y, dx, rows, load(dy_slope), load(x_slope), load(offset), relu.ceiling);
}

// Calls visit(pixel, tap) for each pixel of the image that the window at line p and column q sees.
template <typename Visit>
inline void each_pixel(const Windows& w, std::size_t p, std::size_t q, Visit visit) {
  for (std::size_t i = 0; i < w.kernel[0]; ++i) {
    const std::size_t line = p * w.strides[0] + i * w.dilations[0] - w.pads_begin[0];
    if (line >= w.size[0]) continue;  // before the first one it is a very large number
    for (std::size_t j = 0; j < w.kernel[1]; ++j) {
      const std::size_t column = q * w.strides[1] + j * w.dilations[1] - w.pads_begin[1];
      if (column < w.size[1]) visit(line * w.size[1] + column, i * w.kernel[1] + j);
    }
  }
}

template <typename Number, Number (*get)(const float*), void (*put)(float*, Number)>
void max_pool_gradient_of(const float* dy, const float* x, const float* y, float* dx, const Windows& w) {
  constexpr std::size_t lanes = sizeof(Number) / sizeof(float);
  for (std::size_t i = 0; i < w.size[0] * w.size[1]; ++i) put(dx + i * lanes, Number{});
  for (std::size_t p = 0; p < w.count[0]; ++p)
    for (std::size_t q = 0; q < w.count[1]; ++q, dy += lanes, y += lanes) {
      Number left = get(dy);
      const Number top = get(y);
      each_pixel(w, p, q, [&](std::size_t pixel, std::size_t) {
        float* at = dx + pixel * lanes;
        const auto is_top = get(x + pixel * lanes) == top;
        put(at, get(at) + (is_top ? left : Number{}));
        left = is_top ? Number{} : left;
      });
    }
}

template <typename Number, Number (*get)(const float*), void (*put)(float*, Number)>
void spread_of(const float* dy, const float* weights, float* dx, const Windows& w) {
  constexpr std::size_t lanes = sizeof(Number) / sizeof(float);
  for (std::size_t i = 0; i < w.size[0] * w.size[1]; ++i) put(dx + i * lanes, Number{});
  for (std::size_t p = 0; p < w.count[0]; ++p)
    for (std::size_t q = 0; q < w.count[1]; ++q, dy += lanes) {
      const Number g = get(dy);
      each_pixel(w, p, q, [&](std::size_t pixel, std::size_t tap) {
        float* at = dx + pixel * lanes;
        put(at, get(at) + g * get(weights + tap * lanes));
      });
    }
}

void spread(const float* dy, const float* w, float* dx, const Windows& windows) {
  spread_of<float, load_one, store_one>(dy, w, dx, windows);
}

void spread_block(const float* dy, const float* w, float* dx, const Windows& windows) {
  spread_of<Vector, load, store>(dy, w, dx, windows);
}

void max_pool_gradient(const float* dy, const float* x, const float* y, float* dx, const Windows& windows) {
  max_pool_gradient_of<float, load_one, store_one>(dy, x, y, dx, windows);
}

void max_pool_gradient_block(const float* dy, const float* x, const float* y, float* dx, const Windows& windows) {
  max_pool_gradient_of<Vector, load, store>(dy, x, y, dx, windows);
}

constexpr std::size_t kChunk = 256;

template <typename Compute>
inline void each(const float* a, const float* b, float* result, Compute compute) {
  for (std::size_t i = 0; i < kChunk; i += kLanes) store(result + i, compute(load(a + i), load(b + i)));
}

inline Vector root(Vector v) {
  for (std::size_t i = 0; i < kLanes; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
}

void select(const float* condition, const float* a, const float* b, float* result) {
  for (std::size_t i = 0; i < kChunk; i += kLanes)
    store(result + i, load(condition + i) != 0.0f ? load(a + i) : load(b + i));
}

void operate(Operation operation, const float* a, const float* b, const float* c, float* result) {
  switch (operation) {
    case Operation::add: return each(a, b, result, [](Vector x, Vector y) { return x + y; });
    case Operation::subtract: return each(a, b, result, [](Vector x, Vector y) { return x - y; });
    case Operation::multiply: return each(a, b, result, [](Vector x, Vector y) { return x * y; });
    case Operation::divide: return each(a, b, result, [](Vector x, Vector y) { return x / y; });
    case Operation::maximum: return each(a, b, result, [](Vector x, Vector y) { return ((x <= y) | (y != y)) ? y : x; });
    case Operation::minimum: return each(a, b, result, [](Vector x, Vector y) { return ((x >= y) | (y != y)) ? y : x; });
    case Operation::negate: return each(a, b, result, [](Vector x, Vector) { return -x; });
    case Operation::root: return each(a, b, result, [](Vector x, Vector) { return root(x); });
    case Operation::reciprocal: return each(a, b, result, [](Vector x, Vector) { return 1.0f / x; });
    case Operation::positive: return each(a, b, result, [](Vector x, Vector) { return positive(x); });
    case Operation::greater: return each(a, b, result, [](Vector x, Vector y) { return x > y ? all(1.0f) : Vector{}; });
    case Operation::less: return each(a, b, result, [](Vector x, Vector y) { return x < y ? all(1.0f) : Vector{}; });
    case Operation::at_most: return each(a, b, result, [](Vector x, Vector y) { return x <= y ? all(1.0f) : Vector{}; });
    case Operation::at_least: return each(a, b, result, [](Vector x, Vector y) { return x >= y ? all(1.0f) : Vector{}; });
    case Operation::select: return select(a, b, c, result);
  }
}

void compute(const Program& program, const float* const* inputs, float* const* outputs, std::size_t length) {
  alignas(64) float held[kMostValues][kChunk];
  const std::size_t first = program.inputs + program.constant_count;
  const float* values[kMostValues];
  for (std::size_t k = 0; k < kMostValues; ++k) values[k] = held[k];
  for (std::size_t k = 0; k < first; ++k) {
    const bool is_constant = k >= program.inputs;
    if (is_constant || program.is_scalar[k])
      for (float& v : held[k]) v = is_constant ? program.constants[k - program.inputs] : *inputs[k];
  }
  for (std::size_t begin = 0; begin < length; begin += kChunk) {
    const std::size_t count = begin + kChunk < length ? kChunk : length - begin;
    for (std::size_t k = 0; k < program.inputs; ++k) {
      if (program.is_scalar[k]) continue;
      values[k] = count == kChunk ? inputs[k] + begin : held[k];
      if (count < kChunk)
        for (std::size_t i = 0; i < kChunk; ++i) held[k][i] = i < count ? inputs[k][begin + i] : 1.0f;
    }
    float* results[kMostValues];
    for (std::size_t i = 0; i < program.instruction_count; ++i) results[i] = held[first + i];
    if (count == kChunk)
      for (std::size_t k = 0; k < program.result_count; ++k) results[program.results[k] - first] = outputs[k] + begin;
    for (std::size_t i = 0; i < program.instruction_count; ++i) {
      const Instruction& next = program.instructions[i];
      values[first + i] = results[i];
      operate(next.operation, values[next.first], values[next.second], values[next.third], results[i]);
    }
    if (count < kChunk)
      for (std::size_t k = 0; k < program.result_count; ++k)
        for (std::size_t i = 0; i < count; ++i) outputs[k][begin + i] = held[program.results[k]][i];
  }
}

}  // namespace

const VectorKernels& WOOTZ_KERNELS() {
  static constexpr VectorKernels kernels = {
      WOOTZ_NAME,   kTileRows,   kTileColumns,    moments,    normalize,     gradient_sums,
      gradient,     relu_gradient, add_products,  kLanes,     kFiltersAtOnce, add_blocks,
      add_depthwise, transpose,   turn,           add_moments, normalize_block, add_gradient_sums, gradient_block,
      max_pool_gradient, max_pool_gradient_block, spread, spread_block, compute};
  return kernels;
}

}  // namespace wootz
