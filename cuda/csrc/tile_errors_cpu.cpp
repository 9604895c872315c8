// Residuals of a render against its photo, pooled into tiles: see lpm/zones/error_maps.py, which has the formulas.
//
// A first pass over the rows finds the exposure gain, a second one gathers the moments of each tile. Rows are summed on
// their own and then in order, and a tile belongs to one thread: the same bits for any number of threads.
#include <vector>

#include "../include/loss_steps.h"

namespace lpm {

// The pixels looked at: every `stride`-th of each row and column of [height, width, 3].
template <typename S>
struct Pair {
    int64_t height, width;
    int stride;
    const S *render, *truth;
    const uint8_t* mask;  // [height, width], 0 hides a pixel; or null

    int64_t rows() const { return (height + stride - 1) / stride; }
    int64_t columns() const { return (width + stride - 1) / stride; }
    int64_t pixel(int64_t row, int64_t column) const { return (row * width + column) * stride; }
    // Broken pixels are no evidence. A sum is finite where all of its terms are, but for an overflow.
    bool counts(int64_t pixel) const {
        const S *x = render + 3 * pixel, *y = truth + 3 * pixel;
        return (!mask || mask[pixel]) && std::isfinite(x[0] + x[1] + x[2] + y[0] + y[1] + y[2]);
    }
};

// Least-squares gain of each channel, within a factor of two.
template <typename S>
static void exposure_gain(int threads, const Pair<S>& images, S* gain) {
    std::vector<S> sums(6 * images.rows());
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < images.rows(); row++) {
        S cross[3] = {}, square[3] = {};
        for (int64_t column = 0; column < images.columns(); column++) {
            const int64_t pixel = images.pixel(row, column);
            if (!images.counts(pixel)) continue;
            for (int c = 0; c < 3; c++) {
                const S x = images.render[3 * pixel + c], y = images.truth[3 * pixel + c];
                cross[c] += x * y;
                square[c] += x * x;
            }
        }
        for (int c = 0; c < 3; c++) {
            sums[6 * row + c] = cross[c];
            sums[6 * row + 3 + c] = square[c];
        }
    }
    for (int c = 0; c < 3; c++) {
        double cross = 0, square = 0;
        for (int64_t row = 0; row < images.rows(); row++) {
            cross += sums[6 * row + c];
            square += sums[6 * row + 3 + c];
        }
        gain[c] = S(min_of(2.0, max_of(0.5, cross / max_of(square, 1e-12))));
    }
}

// out: [ceil(rows / tile), ceil(columns / tile)], tiles of `tile` x `tile` of the pixels looked at.
template <typename S>
static void tile_errors(int threads, const Pair<S>& images, int tile, S dssim, S* out) {
    const int64_t down = (images.rows() + tile - 1) / tile, across = (images.columns() + tile - 1) / tile;
    S gain[3];
    exposure_gain(threads, images, gain);
#pragma omp parallel num_threads(threads)
    {
        std::vector<TileMoments<S>> sums(across);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < down; i++) {
            sums.assign(across, {});
            for (int64_t row = i * tile; row < min_of((i + 1) * tile, images.rows()); row++) {
                for (int64_t j = 0; j < across; j++) {
                    TileMoments<S> m = sums[j];
                    for (int64_t column = j * tile; column < min_of((j + 1) * tile, images.columns()); column++) {
                        const int64_t pixel = images.pixel(row, column);
                        if (!images.counts(pixel)) continue;
                        S x = 0, y = 0, l1 = 0;
                        for (int c = 0; c < 3; c++) {
                            const S a = images.render[3 * pixel + c] * gain[c], b = images.truth[3 * pixel + c];
                            x += a;
                            y += b;
                            l1 += std::abs(a - b);
                        }
                        x *= S(1) / 3;
                        y *= S(1) / 3;
                        m.count += 1;
                        m.l1 += l1 * (S(1) / 3);
                        m.x += x;
                        m.y += y;
                        m.xx += x * x;
                        m.yy += y * y;
                        m.xy += x * y;
                    }
                    sums[j] = m;
                }
            }
            for (int64_t j = 0; j < across; j++) out[i * across + j] = tile_error(sums[j], dssim);
        }
    }
}

}  // namespace lpm

#define LPM_TILE_ERRORS_API(S, SUFFIX)                                                                                          \
    extern "C" void lpm_tile_errors_##SUFFIX(int threads, int64_t height, int64_t width, int stride, int tile, const S* render, \
                                             const S* truth, const uint8_t* mask, double dssim, S* out) {                       \
        lpm::tile_errors<S>(threads, {height, width, stride, render, truth, mask}, tile, S(dssim), out);                        \
    }
LPM_TILE_ERRORS_API(float, f32)
LPM_TILE_ERRORS_API(double, f64)
