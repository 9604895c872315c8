// The loss (1 - lambda) L1 + lambda (1 - SSIM), its gradient, and the residuals pooled into tiles, as steps over single
// values: lpm/render/losses.py and lpm/zones/error_maps.py have the formulas. csrc/device.cu puts them in order.
//
// Images are [height, width, channels]; the window is applied without padding, as a column pass and a row pass.
// Neighbours of a value lie `channels` apart in a row, so colours need no planes.
#pragma once
#include "ssim.h"

namespace lpm {

template <typename S>
struct LossImages {
    int64_t height, width;
    int channels;
    const S *x, *y;  // render and photo
    S taps[ssim_taps];

    LPM_HD int64_t row() const { return width * channels; }
    LPM_HD int64_t rows() const { return height - ssim_taps + 1; }            // of the SSIM map
    LPM_HD int64_t valid() const { return row() - (ssim_taps - 1) * channels; }  // values in one of its rows
};

// Five moments blurred down the columns: out [5, rows, row].
template <typename S>
struct BlurColumns {
    LossImages<S> images;
    S* out;

    LPM_HD void operator()(int64_t i) const {
        const int64_t row = images.row(), stride = images.rows() * row;
        S sum[5] = {};
        for (int k = 0; k < ssim_taps; k++) {
            const S x = images.x[i + k * row], y = images.y[i + k * row], wx = images.taps[k] * x, wy = images.taps[k] * y;
            sum[0] += wx;
            sum[1] += wy;
            sum[2] += wx * x;
            sum[3] += wy * y;
            sum[4] += wx * y;
        }
        for (int m = 0; m < 5; m++) out[m * stride + i] = sum[m];
    }
};

// The rest of the blur, SSIM, and its derivatives: value [rows, valid], maps [3, rows, valid] or null.
template <typename S>
struct SsimRows {
    LossImages<S> images;
    const S* columns;
    S *value, *maps;

    LPM_HD void operator()(int64_t i) const {
        const int64_t row = images.row(), valid = images.valid(), stride = images.rows() * row;
        const S* from = columns + (i / valid) * row + i % valid;
        S sum[5] = {};
        for (int m = 0; m < 5; m++)
            for (int k = 0; k < ssim_taps; k++) sum[m] += images.taps[k] * from[m * stride + k * images.channels];
        const Ssim<S> s = ssim_of(sum[0], sum[1], sum[2], sum[3], sum[4]);
        value[i] = s.value;
        if (!maps) return;
        const int64_t plane = images.rows() * valid;
        maps[i] = s.by_a;
        maps[plane + i] = s.by_aa;
        maps[2 * plane + i] = s.by_ab;
    }
};

// The window's transpose down the columns: out [3, height, valid].
template <typename S>
struct GradientColumns {
    LossImages<S> images;
    const S* maps;
    S* out;

    LPM_HD void operator()(int64_t i) const {
        const int64_t valid = images.valid(), rows = images.rows(), r = i / valid, plane = rows * valid;
        S sum[3] = {};
        for (int k = 0; k < ssim_taps; k++) {
            if (r - k < 0 || r - k >= rows) continue;
            for (int m = 0; m < 3; m++) sum[m] += images.taps[k] * maps[m * plane + i - k * valid];
        }
        for (int m = 0; m < 3; m++) out[m * images.height * valid + i] = sum[m];
    }
};

// The rest of the transpose, and the sign of the residual: out [height, row].
template <typename S>
struct GradientRows {
    LossImages<S> images;
    const S* columns;
    S l1_scale, ssim_scale;
    S* out;

    LPM_HD void operator()(int64_t i) const {
        const int64_t row = images.row(), valid = images.valid(), r = i / row, c = i % row, plane = images.height * valid;
        S by_a = 0, by_aa = 0, by_ab = 0;
        for (int k = 0; k < ssim_taps; k++) {
            const int64_t j = c - k * images.channels;
            if (j < 0 || j >= valid) continue;
            const S* from = columns + r * valid + j;
            by_a += images.taps[k] * from[0];
            by_aa += images.taps[k] * from[plane];
            by_ab += images.taps[k] * from[2 * plane];
        }
        const S residual = images.x[i] - images.y[i], sign = S(residual > 0) - S(residual < 0);
        out[i] = l1_scale * sign - ssim_scale * (by_a + 2 * images.x[i] * by_aa + images.y[i] * by_ab);
    }
};

// What tiles look at: every `stride`-th pixel down and across, of three channels.
template <typename S>
struct TilePixels {
    int64_t height, width;
    int stride, tile;  // tile: in pixels looked at
    const S *x, *y;
    const uint8_t* mask;  // [height, width], 0 hides a pixel; or null

    LPM_HD int64_t rows() const { return (height + stride - 1) / stride; }
    LPM_HD int64_t columns() const { return (width + stride - 1) / stride; }
    LPM_HD int64_t across() const { return (columns() + tile - 1) / tile; }
    // Broken pixels are no evidence. A sum is finite where all of its terms are, but for an overflow.
    LPM_HD bool counts(int64_t pixel) const {
        if (mask && !mask[pixel]) return false;
        const S *a = x + 3 * pixel, *b = y + 3 * pixel, sum = a[0] + a[1] + a[2] + b[0] + b[1] + b[2];
        return sum - sum == 0;
    }
};

struct RowSums {
    double l1, ssim, cross[3], square[3];

    LPM_HD RowSums& operator+=(const RowSums& o) {
        l1 += o.l1;
        ssim += o.ssim;
        for (int c = 0; c < 3; c++) {
            cross[c] += o.cross[c];
            square[c] += o.square[c];
        }
        return *this;
    }
};

// Sums of each row of the image: of |x - y|, of SSIM, and of what the exposure gain is made from.
template <typename S>
struct SumRows {
    using Sum = RowSums;
    LossImages<S> images;
    TilePixels<S> pixels;  // height 0: no tiles are wanted
    const S* value;
    RowSums* out;  // [height]

    LPM_HD int64_t count(int64_t) const { return images.row(); }
    LPM_HD void add(int64_t g, int64_t i, RowSums& sum) const {
        const S x = images.x[g * images.row() + i], y = images.y[g * images.row() + i];
        sum.l1 += x < y ? y - x : x - y;
        if (g < images.rows() && i < images.valid()) sum.ssim += value[g * images.valid() + i];
        const int64_t column = i / 3;
        if (!pixels.height || g % pixels.stride || column % pixels.stride || !pixels.counts(g * pixels.width + column)) return;
        sum.cross[i % 3] += x * y;
        sum.square[i % 3] += x * x;
    }
    LPM_HD void finish(int64_t g, const RowSums& sum) const { out[g] = sum; }
};

// Means over the image, loss [2], and the least-squares gain of each channel within a factor of two, gain [3] or null.
template <typename S>
struct SumImage {
    using Sum = RowSums;
    LossImages<S> images;
    const RowSums* rows;
    S *loss, *gain;

    LPM_HD int64_t count(int64_t) const { return images.height; }
    LPM_HD void add(int64_t, int64_t i, RowSums& sum) const { sum += rows[i]; }
    LPM_HD void finish(int64_t, const RowSums& sum) const {
        loss[0] = S(sum.l1 / double(images.height * images.row()));
        loss[1] = S(sum.ssim / double(images.rows() * images.valid()));
        for (int c = 0; c < 3 && gain; c++) gain[c] = S(min_of(2.0, max_of(0.5, sum.cross[c] / max_of(sum.square[c], 1e-12))));
    }
};

template <typename S>
struct TileMoments {
    S count, l1, x, y, xx, yy, xy;

    LPM_HD TileMoments& operator+=(const TileMoments& o) {
        count += o.count;
        l1 += o.l1;
        x += o.x;
        y += o.y;
        xx += o.xx;
        yy += o.yy;
        xy += o.xy;
        return *this;
    }
};

// One tile's error from its moments.
template <typename S>
LPM_HD inline S tile_error(const TileMoments<S>& m, S dssim) {
    if (!(m.count > 0)) return S(0);
    const S share = S(1) / m.count;
    const S ssim = ssim_of(m.x * share, m.y * share, m.xx * share, m.yy * share, m.xy * share).value;
    return (1 - dssim) * m.l1 * share + dssim * max_of(S(0), S(0.5) - S(0.5) * ssim);
}

// out: [tiles down, tiles across], the error of each; with `old` the moving average, of which `keep` stays.
template <typename S>
struct TileErrors {
    using Sum = TileMoments<S>;
    TilePixels<S> pixels;
    const S *gain, *old;
    S dssim, keep;
    S* out;

    LPM_HD int64_t count(int64_t) const { return int64_t(pixels.tile) * pixels.tile; }
    LPM_HD void add(int64_t g, int64_t i, TileMoments<S>& m) const {
        const int64_t row = (g / pixels.across()) * pixels.tile + i / pixels.tile;
        const int64_t column = (g % pixels.across()) * pixels.tile + i % pixels.tile;
        const int64_t pixel = (row * pixels.width + column) * pixels.stride;
        if (row >= pixels.rows() || column >= pixels.columns() || !pixels.counts(pixel)) return;
        S x = 0, y = 0, l1 = 0;
        for (int c = 0; c < 3; c++) {
            const S a = pixels.x[3 * pixel + c] * gain[c], b = pixels.y[3 * pixel + c];
            x += a;
            y += b;
            l1 += a < b ? b - a : a - b;
        }
        x *= S(1) / 3;
        y *= S(1) / 3;
        m += {S(1), l1 * (S(1) / 3), x, y, x * x, y * y, x * y};
    }
    LPM_HD void finish(int64_t g, const TileMoments<S>& m) const {
        const S error = tile_error(m, dssim);
        out[g] = old ? error + keep * (old[g] - error) : error;
    }
};

}  // namespace lpm
