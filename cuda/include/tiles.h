// Which tiles a splat touches: the exact span of its visible ellipse in each row of tiles.
#pragma once
#include "hd.h"

namespace lpm {

constexpr int TILE = 16;  // pixels along an edge; on the CPU one row of a tile is one or more whole vectors

// A splat as the rasterizer reads it, 8 values in one 32-byte record.
template <typename S>
struct Packed {
    S x, y, a, b, c, opacity;  // conic [[a, b], [b, c]]
    S max_sigma;               // alpha >= 1/255 <=> sigma <= log(255 opacity); below 0: nothing is visible
    S det;                     // of the conic
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
    // Kahan's a c - b^2: for a needle both products agree in almost all digits, and what is left decides its length.
    const S square = p.b * p.b, rounding = std::fma(-p.b, p.b, square);
    p.det = std::fma(p.a, p.c, -square) + rounding;
    const S sigma = std::log(opacity * 255);
    // The slack covers rounding: a tile too many costs a little time, a tile too few would be a hole.
    if (sigma >= 0 && p.det > 0) p.max_sigma = sigma + S(1e-3);
    return p;
}

struct Span {
    int begin, end;
};

// The visible ellipse sigma <= max_sigma, and the places of its extreme points.
template <typename S>
struct Ellipse {
    S x, y, a, b, c, det, level, inv_a, inv_c;
    S reach_x, reach_y;  // half of its width and height
    S turn_x, turn_y;    // offset in x of the lowest point, in y of the rightmost one; mirrored for their opposites
};
constexpr double SLACK = 0.02;  // pixels

template <typename S>
LPM_HD inline Ellipse<S> make_ellipse(const Packed<S>& p) {
    Ellipse<S> e{p.x, p.y, p.a, p.b, p.c, p.det, 2 * p.max_sigma, 1 / p.a, 1 / p.c, S(0), S(0), S(0), S(0)};
    const S stretch = e.level / e.det;
    e.reach_x = std::sqrt(stretch * e.c);
    e.reach_y = std::sqrt(stretch * e.a);
    e.turn_x = -e.b * e.inv_a * e.reach_y;
    e.turn_y = -e.b * e.inv_c * e.reach_x;
    return e;
}

// Rows of tiles that the ellipse touches.
template <typename S>
LPM_HD inline Span tile_rows(const Ellipse<S>& e, const TileGrid& grid) {
    const S lo = e.y - e.reach_y - S(SLACK), hi = e.y + e.reach_y + S(SLACK);
    if (!(hi > 0 && lo < grid.height)) return {0, 0};
    return {int(max_of(lo, S(0))) / TILE, min_of(grid.rows, int(min_of(hi, S(grid.height - 1))) / TILE + 1)};
}

// Columns of tiles, in tile row `row`, with a pixel centre inside the ellipse.
template <typename S>
LPM_HD inline Span tile_columns(const Ellipse<S>& e, int row, const TileGrid& grid) {
    // The pixel rows of this tile row, relative to the centre, cut to the ellipse's own height.
    const S top = max_of(row * TILE + S(0.5) - e.y, -e.reach_y);
    const S bottom = min_of(min_of((row + 1) * TILE, grid.height) - S(0.5) - e.y, e.reach_y);
    if (top > bottom) return {0, 0};
    const S at_right = min_of(max_of(e.turn_y, top), bottom), at_left = min_of(max_of(-e.turn_y, top), bottom);
    const S half_right = std::sqrt(max_of(S(0), e.level * e.a - at_right * at_right * e.det));
    const S half_left = std::sqrt(max_of(S(0), e.level * e.a - at_left * at_left * e.det));
    const S right = e.x + (half_right - e.b * at_right) * e.inv_a + S(SLACK);
    const S left = e.x - (half_left + e.b * at_left) * e.inv_a - S(SLACK);
    const S first = std::ceil(left - S(0.5)), last = std::floor(right - S(0.5));
    if (!(first <= last && last >= 0 && first < grid.width)) return {0, 0};
    return {int(max_of(first, S(0))) / TILE, int(min_of(last, S(grid.width - 1))) / TILE + 1};
}

// Pixel rows of the tile with its corner at (x0, y0), counted from y0, with a pixel centre inside the ellipse.
template <typename S>
LPM_HD inline Span pixel_rows(const Ellipse<S>& e, int x0, int y0) {
    const S left = min_of(max_of(x0 + S(0.5) - e.x, -e.reach_x), e.reach_x);
    const S right = max_of(min_of(x0 + TILE - S(0.5) - e.x, e.reach_x), left);
    const S at_bottom = min_of(max_of(e.turn_x, left), right), at_top = min_of(max_of(-e.turn_x, left), right);
    const S half_bottom = std::sqrt(max_of(S(0), e.level * e.c - at_bottom * at_bottom * e.det));
    const S half_top = std::sqrt(max_of(S(0), e.level * e.c - at_top * at_top * e.det));
    const S bottom = e.y + (half_bottom - e.b * at_bottom) * e.inv_c + S(SLACK - 0.5) - y0;
    const S top = e.y - (half_top + e.b * at_top) * e.inv_c - S(SLACK + 0.5) - y0;
    const int begin = top > 0 ? int(std::ceil(min_of(top, S(TILE)))) : 0;
    const int end = bottom < TILE - 1 ? (bottom >= 0 ? int(bottom) + 1 : 0) : TILE;
    return {begin, max_of(begin, end)};
}

}  // namespace lpm
