// (1 - lambda) L1 + lambda (1 - SSIM) of two images and its gradient, in one call.
//
// Images are rows of `width` pixels with `channels` interleaved values; the window is applied without padding, as a
// column pass and a row pass. Neighbours of a value lie `channels` apart in a row, so colours need no separate planes,
// and every inner loop runs over contiguous memory. Each row is summed on its own and the rows in order: the same bits
// for any number of threads.
#include <algorithm>
#include <vector>

#include "../include/ssim.h"
#include "../include/vectors.h"

namespace lpm {

template <typename V, typename S>
static inline V load(const S* from) {
    V value;
    memcpy(&value, from, sizeof value);
    return value;
}

// f(V{}, i) for blocks of a vector over 0..n, then f(S{}, i) for the values that are left.
template <typename S, typename F>
static inline void in_vectors(int64_t n, F f) {
    int64_t i = 0;
    for (; i + lanes<S> <= n; i += lanes<S>) f(VecF<S>{}, i);
    for (; i < n; i++) f(S(0), i);
}

// One row of the five blurred moments: columns first, from the images, then along the row. Sums stay in registers.
template <typename S>
static void blurred_row(const S* x, const S* y, int64_t row, int channels, const S* taps, S* columns, S* out) {
    const int64_t valid = row - (ssim_taps - 1) * channels;
    in_vectors<S>(row, [&](auto zero, int64_t i) {
        typedef decltype(zero) V;
        V cx = zero, cy = zero, cxx = zero, cyy = zero, cxy = zero;
        for (int k = 0; k < ssim_taps; k++) {
            const V xk = load<V>(x + k * row + i), yk = load<V>(y + k * row + i), wx = taps[k] * xk, wy = taps[k] * yk;
            cx += wx;
            cy += wy;
            cxx += wx * xk;
            cyy += wy * yk;
            cxy += wx * yk;
        }
        const V sums[5] = {cx, cy, cxx, cyy, cxy};
        for (int m = 0; m < 5; m++) memcpy(columns + m * row + i, &sums[m], sizeof(V));
    });
    for (int m = 0; m < 5; m++) {
        in_vectors<S>(valid, [&](auto sum, int64_t i) {
            for (int k = 0; k < ssim_taps; k++) sum += taps[k] * load<decltype(sum)>(columns + m * row + i + k * channels);
            memcpy(out + m * valid + i, &sum, sizeof sum);
        });
    }
}

// The gradient of one row: the window's transpose over the three derivative maps, and the sign of the residual.
template <typename S>
static void gradient_row(const S* x, const S* y, int64_t row, int channels, const S* taps, const S* maps, int64_t y0,
                         int64_t rows, int64_t stride, S l1_scale, S ssim_scale, S* columns, S* out) {
    const int64_t margin = (ssim_taps - 1) * channels, valid = row - margin, padded = row + margin;
    const int first = int(max_of(int64_t(0), y0 - rows + 1)), last = int(min_of(int64_t(ssim_taps - 1), y0));
    for (int m = 0; m < 3; m++) {  // what lies beside the maps is zero
        std::fill_n(columns + m * padded, margin, S(0));
        std::fill_n(columns + m * padded + row, margin, S(0));
    }
    in_vectors<S>(valid, [&](auto zero, int64_t i) {
        typedef decltype(zero) V;
        V sums[3] = {zero, zero, zero};
        for (int k = first; k <= last; k++)
            for (int m = 0; m < 3; m++) sums[m] += taps[k] * load<V>(maps + m * stride + (y0 - k) * valid + i);
        for (int m = 0; m < 3; m++) memcpy(columns + m * padded + margin + i, &sums[m], sizeof(V));
    });
    in_vectors<S>(row, [&](auto zero, int64_t i) {
        typedef decltype(zero) V;
        V by_a = zero, by_aa = zero, by_ab = zero;
        for (int k = 0; k < ssim_taps; k++) {
            const S* from = columns + margin + i - k * channels;
            by_a += taps[k] * load<V>(from);
            by_aa += taps[k] * load<V>(from + padded);
            by_ab += taps[k] * load<V>(from + 2 * padded);
        }
        const V xi = load<V>(x + i), yi = load<V>(y + i), one = zero + S(1);
        const V sign = (xi > yi ? one : zero) - (xi < yi ? one : zero);
        const V gradient = l1_scale * sign - ssim_scale * (by_a + S(2) * xi * by_aa + yi * by_ab);
        memcpy(out + i, &gradient, sizeof(V));
    });
}

// loss[0]: (1 - lambda) mean L1 + lambda (1 - mean SSIM). gradient: [height, width, channels] of it, or null.
// maps: scratch for 3 (height - 10) (width - 10) channels values, or null together with gradient.
template <typename S>
static void l1_ssim(int threads, int64_t height, int64_t width, int channels, const S* x, const S* y, S lambda, S* maps,
                    S* gradient, S* loss) {
    const int64_t row = width * channels, margin = (ssim_taps - 1) * channels, valid = row - margin;
    const int64_t rows = height - ssim_taps + 1, stride = rows * valid;
    S taps[ssim_taps];
    gaussian(taps);
    std::vector<S> row_ssim(rows), row_l1(height);
#pragma omp parallel num_threads(threads)
    {
        std::vector<S> scratch(5 * row + 5 * valid + 3 * (row + margin));
        S *columns = scratch.data(), *moments = columns + 5 * row;
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            blurred_row(x + r * row, y + r * row, row, channels, taps, columns, moments);
            const S *a = moments, *b = a + valid, *aa = b + valid, *bb = aa + valid, *ab = bb + valid;
            S sum = 0;
            if (maps) {
                S *da = maps + r * valid, *daa = da + stride, *dab = daa + stride;
#pragma omp simd reduction(+ : sum)
                for (int64_t i = 0; i < valid; i++) {
                    const Ssim<S> s = ssim_of(a[i], b[i], aa[i], bb[i], ab[i]);
                    sum += s.value;
                    da[i] = s.by_a;
                    daa[i] = s.by_aa;
                    dab[i] = s.by_ab;
                }
            } else {
#pragma omp simd reduction(+ : sum)
                for (int64_t i = 0; i < valid; i++) sum += ssim_of(a[i], b[i], aa[i], bb[i], ab[i]).value;
            }
            row_ssim[r] = sum;
        }
#pragma omp for schedule(static)
        for (int64_t r = 0; r < height; r++) {
            const S *xr = x + r * row, *yr = y + r * row;
            S sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = 0; i < row; i++) sum += std::abs(xr[i] - yr[i]);
            row_l1[r] = sum;
            if (gradient)
                gradient_row(xr, yr, row, channels, taps, maps, r, rows, stride, (1 - lambda) / S(height * row),
                             lambda / S(stride), columns, gradient + r * row);
        }
    }
    double l1 = 0, ssim = 0;
    for (S v : row_l1) l1 += v;
    for (S v : row_ssim) ssim += v;
    loss[0] = S((1 - double(lambda)) * l1 / double(height * row) + double(lambda) * (1 - ssim / double(stride)));
}

}  // namespace lpm

extern "C" void lpm_l1_ssim_f32(int threads, int64_t height, int64_t width, int channels, const float* x, const float* y,
                                double lambda, float* maps, float* gradient, float* loss) {
    lpm::l1_ssim<float>(threads, height, width, channels, x, y, float(lambda), maps, gradient, loss);
}
extern "C" void lpm_l1_ssim_f64(int threads, int64_t height, int64_t width, int channels, const double* x, const double* y,
                                double lambda, double* maps, double* gradient, double* loss) {
    lpm::l1_ssim<double>(threads, height, width, channels, x, y, lambda, maps, gradient, loss);
}
