// Patches of one photo in another one, at many depths: see Warp in lpm/multiview/patch_warp.py, the torch twin.
#pragma once
#include "launch.h"

namespace lpm {

template <typename S>
struct Photo {
    const S* gray;  // [height, width], NaN where there is no data
    int height, width;

    // Where a value at -1..1 from edge to edge (as torch's grid_sample with align_corners=False; beyond is as the border) lies:
    // the upper left of its four pixels, and how far it is from there to the right, u, and down, v. Two pixels each way at least.
    LPM_HD int corner(S x, S y, S* u, S* v) const {
        const S column = min_of(max_of(S(0), ((x + 1) * S(width) - 1) / 2), S(width - 1));
        const S row = min_of(max_of(S(0), ((y + 1) * S(height) - 1) / 2), S(height - 1));
        const int left = min_of(int(column), width - 2), top = min_of(int(row), height - 2);
        *u = column - S(left);
        *v = row - S(top);
        return top * width + left;
    }
    // Bilinear, between pairs of pixels that are neighbours in a row.
    LPM_HD static S between(const S* high, const S* low, S u, S v) {
        const S above = high[0] + u * (high[1] - high[0]), below = low[0] + u * (low[1] - low[0]);
        return above + v * (below - above);
    }
};

// One correlation a call, of a pair of a patch and a neighbour at one depth; left as it is where a corner of the patch is not
// seen. The arrays are those of zncc() in patches_cpu.cpp, which has a pair a thread, and the pixels of a patch in vectors.
template <typename S>
struct Zncc {
    const int64_t *pairs, *rows;
    int k;
    int64_t depths;
    int side;
    Photo<S> photo;
    const S *a, *b, *ref, *w, *slope;
    S* out;

    // Where pixel `pixel` of the patch falls, from -1 to 1; false if that is beyond the photo or behind its camera.
    LPM_HD bool place(const S* from, const S* toward, int pixel, S depth, S slope_x, S slope_y, S* x, S* y) const {
        const S right = S(pixel % side - side / 2), down = S(pixel / side - side / 2);
        const S here = depth * (1 + (slope_x * right + slope_y * down));
        const S z = from[3 * pixel + 2] + toward[2] * here, scale = 1 / max_of(z, S(1e-6));
        *x = (from[3 * pixel] + toward[0] * here) * scale;
        *y = (from[3 * pixel + 1] + toward[1] * here) * scale;
        const S limit_x = 1 - 1 / S(photo.width), limit_y = 1 - 1 / S(photo.height);
        return *x >= -limit_x && *x <= limit_x && *y >= -limit_y && *y <= limit_y && z > S(1e-6);
    }

    LPM_HD void operator()(int64_t i) const {
        const int64_t pair = pairs[i / depths], row = pair / k, at = row * depths + i % depths;
        const int64_t seen_by = rows[row] * k + pair % k;
        const int n = side * side;
        const S *from = a + seen_by * n * 3, *toward = b + seen_by * 3, *own = ref + rows[row] * n;
        const S slope_x = slope ? slope[2 * at] : S(0), slope_y = slope ? slope[2 * at + 1] : S(0), depth = w[at];
        const int corners[4] = {0, side - 1, n - side, n - 1};
        S x, y;
        for (int c = 0; c < 4; c++)
            if (!place(from, toward, corners[c], depth, slope_x, slope_y, &x, &y)) return;
        S sum = 0, square = 0, cross = 0;
        for (int pixel = 0; pixel < n; pixel++) {
            place(from, toward, pixel, depth, slope_x, slope_y, &x, &y);
            S u, v;
            const S* pixels = photo.gray + photo.corner(x, y, &u, &v);
            const S value = photo.between(pixels, pixels + photo.width, u, v);
            sum += value;
            square += value * value;
            cross += value * own[pixel];
        }
        const S mean = sum / n, variance = square / n - mean * mean;
        // The reference is centred and of length 1.
        const S score = cross / (std::sqrt(max_of(S(1e-7), variance)) * side);
        if (score - score == 0) out[pair * depths + i % depths] = score;  // it is finite
    }
};

}  // namespace lpm
