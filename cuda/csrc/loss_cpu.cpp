// (1 - lambda) L1 + lambda (1 - SSIM) of two images and its gradient, in one call.
//
// Images are rows of `width` pixels with `channels` interleaved values; the window is applied without padding, as a
// column pass and a row pass. Neighbours of a value lie `channels` apart in a row, so colours need no separate planes,
// and every inner loop runs over contiguous memory. Each row is summed on its own and the rows in order: the same bits
// for any number of threads.
#include <vector>

#include "../include/ssim.h"

namespace lpm {

template <typename S>
static void gaussian(S* taps) {
    double sum = 0, weight[ssim_taps];
    for (int k = 0; k < ssim_taps; k++) {
        const double d = (k - ssim_taps / 2) / 1.5;
        sum += weight[k] = std::exp(-d * d / 2);
    }
    for (int k = 0; k < ssim_taps; k++) taps[k] = S(weight[k] / sum);
}

// One row of the five blurred moments: columns first, from the images, then along the row.
template <typename S>
static void blurred_row(const S* x, const S* y, int64_t row, int channels, const S* taps, S* columns, S* out) {
    const int64_t valid = row - (ssim_taps - 1) * channels;
    S *cx = columns, *cy = cx + row, *cxx = cy + row, *cyy = cxx + row, *cxy = cyy + row;
    for (int64_t i = 0; i < 5 * row; i++) columns[i] = 0;
    for (int k = 0; k < ssim_taps; k++) {
        const S w = taps[k], *xk = x + k * row, *yk = y + k * row;
#pragma omp simd
        for (int64_t i = 0; i < row; i++) {
            const S wx = w * xk[i], wy = w * yk[i];
            cx[i] += wx;
            cy[i] += wy;
            cxx[i] += wx * xk[i];
            cyy[i] += wy * yk[i];
            cxy[i] += wx * yk[i];
        }
    }
    for (int m = 0; m < 5; m++) {
        const S* c = columns + m * row;
        S* o = out + m * valid;
#pragma omp simd
        for (int64_t i = 0; i < valid; i++) {
            S sum = 0;
            for (int k = 0; k < ssim_taps; k++) sum += taps[k] * c[i + k * channels];
            o[i] = sum;
        }
    }
}

// The gradient of one row: the window's transpose over the three derivative maps, and the sign of the residual.
template <typename S>
static void gradient_row(const S* x, const S* y, int64_t row, int channels, const S* taps, const S* maps, int64_t y0,
                         int64_t rows, int64_t stride, S l1_scale, S ssim_scale, S* columns, S* out) {
    const int64_t margin = (ssim_taps - 1) * channels, valid = row - margin, padded = row + margin;
    for (int64_t i = 0; i < 3 * padded; i++) columns[i] = 0;
    for (int k = 0; k < ssim_taps; k++) {
        const int64_t from = y0 - k;
        if (from < 0 || from >= rows) continue;
        for (int m = 0; m < 3; m++) {
            const S w = taps[k], *d = maps + m * stride + from * valid;
            S* c = columns + m * padded + margin;
#pragma omp simd
            for (int64_t i = 0; i < valid; i++) c[i] += w * d[i];
        }
    }
    const S *ca = columns + margin, *caa = ca + padded, *cab = caa + padded;
#pragma omp simd
    for (int64_t i = 0; i < row; i++) {
        S by_a = 0, by_aa = 0, by_ab = 0;
        for (int k = 0; k < ssim_taps; k++) {
            const int64_t j = i - k * channels;
            by_a += taps[k] * ca[j];
            by_aa += taps[k] * caa[j];
            by_ab += taps[k] * cab[j];
        }
        const S residual = x[i] - y[i];
        const S sign = S(residual > 0) - S(residual < 0);
        out[i] = l1_scale * sign - ssim_scale * (by_a + 2 * x[i] * by_aa + y[i] * by_ab);
    }
}

// loss[0]: mean L1, loss[1]: mean SSIM. gradient: [height, width, channels] of the weighted sum, or null.
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
    loss[0] = S(l1 / double(height * row));
    loss[1] = S(ssim / double(stride));
}

}  // namespace lpm

extern "C" void lpm_l1_ssim_f32(int threads, int64_t height, int64_t width, int channels, const float* x,
                                const float* y, double lambda, float* maps, float* gradient, float* loss) {
    lpm::l1_ssim<float>(threads, height, width, channels, x, y, float(lambda), maps, gradient, loss);
}
extern "C" void lpm_l1_ssim_f64(int threads, int64_t height, int64_t width, int channels, const double* x,
                                const double* y, double lambda, double* maps, double* gradient, double* loss) {
    lpm::l1_ssim<double>(threads, height, width, channels, x, y, lambda, maps, gradient, loss);
}
