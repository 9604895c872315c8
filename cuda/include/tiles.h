// Which tiles a splat touches: the exact span of its visible ellipse in each row of tiles.
#pragma once
#include "hd.h"

namespace lpm {

constexpr int TILE = 16;  // pixels along an edge; on the CPU one row of a tile is one or more whole vectors

// A splat as the rasterizer reads it, 8 values in one 32-byte record.
template <typename S>
struct Packed {
    S x, y, a, b, c, opacity;  // conic [[a, b], [b, c]]
    S half_height;             // of the visible ellipse, pixels; below 0: nothing is visible
    S max_sigma;               // alpha >= 1/255 <=> sigma <= log(255 opacity)
};

struct TileGrid {
    int width, height;    // pixels
    int columns, rows;    // tiles
};
LPM_HD inline TileGrid make_grid(int width, int height) {
    return {width, height, (width + TILE - 1) / TILE, (height + TILE - 1) / TILE};
}

template <typename S>
LPM_HD inline Packed<S> pack(const S* mean, const S* conic, S opacity) {
    Packed<S> p{mean[0], mean[1], conic[0], conic[1], conic[2], opacity, S(-1), S(0)};
    const S sigma = std::log(opacity * 255), det = p.a * p.c - p.b * p.b;
    if (!(sigma >= 0 && det > 0)) return p;
    // The slack covers rounding: a tile too many costs a little time, a tile too few would be a hole.
    p.max_sigma = sigma + S(1e-3);
    p.half_height = std::sqrt(2 * p.max_sigma * p.a / det) + S(0.02);
    return p;
}

struct Span {
    int begin, end;
};

// Rows of tiles that the ellipse touches.
template <typename S>
LPM_HD inline Span tile_rows(const Packed<S>& p, const TileGrid& grid) {
    const S lo = p.y - p.half_height, hi = p.y + p.half_height;
    if (!(p.half_height >= 0 && hi > 0 && lo < grid.height)) return {0, 0};
    return {int(max_of(lo, S(0))) / TILE, min_of(grid.rows, int(min_of(hi, S(grid.height - 1))) / TILE + 1)};
}

// Columns of tiles, in tile row `row`, with a pixel centre inside the ellipse sigma <= max_sigma.
template <typename S>
LPM_HD inline Span tile_columns(const Packed<S>& p, int row, const TileGrid& grid) {
    const S det = p.a * p.c - p.b * p.b, level = 2 * p.max_sigma;
    // The pixel rows of this tile row, relative to the centre, cut to the ellipse's own height.
    const S reach = std::sqrt(level * p.a / det);
    const S top = max_of(row * TILE + S(0.5) - p.y, -reach);
    const S bottom = min_of(min_of((row + 1) * TILE, grid.height) - S(0.5) - p.y, reach);
    if (top > bottom) return {0, 0};
    // The rightmost point of the ellipse lies at height `tilt`, the leftmost one at -tilt.
    const S tilt = -p.b / p.c * std::sqrt(level * p.c / det);
    const S at_right = min_of(max_of(tilt, top), bottom), at_left = min_of(max_of(-tilt, top), bottom);
    const S half_right = std::sqrt(max_of(S(0), level * p.a - at_right * at_right * det));
    const S half_left = std::sqrt(max_of(S(0), level * p.a - at_left * at_left * det));
    const S right = p.x + (half_right - p.b * at_right) / p.a + S(0.02);
    const S left = p.x - (half_left + p.b * at_left) / p.a - S(0.02);
    const S first = std::ceil(left - S(0.5)), last = std::floor(right - S(0.5));
    if (!(first <= last && last >= 0 && first < grid.width)) return {0, 0};
    return {int(max_of(first, S(0))) / TILE, int(min_of(last, S(grid.width - 1))) / TILE + 1};
}

// Pixel rows, counted from the tile's top at `y0`, whose centre is within the ellipse's height.
template <typename S>
LPM_HD inline Span pixel_rows(const Packed<S>& p, int y0) {
    const S lo = p.y - p.half_height - S(0.5) - y0, hi = p.y + p.half_height - S(0.5) - y0;
    return {lo <= 0 ? 0 : int(std::ceil(min_of(lo, S(TILE)))), hi >= TILE - 1 ? TILE : (hi < 0 ? 0 : int(hi) + 1)};
}

}  // namespace lpm
