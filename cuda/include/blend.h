// What the passes over sorted splats share: one tile per task, a vector holds one row of the tile.
// Source: Kerbl 2023, eq. 3 for the blending.
#pragma once
#include <algorithm>
#include <type_traits>

#include "tiles.h"
#include "vectors.h"

namespace lpm {

template <typename S>
struct Scene {
    int64_t n;  // points; splat = camera * n + point
    int cameras, width, height;
    const Packed<S>* packed;
    const S* colors;  // [n, color_channels], or one such array per camera
    int64_t color_camera_stride;
    int color_channels;
    const S* depths;  // [cameras, n]
    int depth_mode;   // 0: not drawn, 1: summed up in a channel after the colours, 2: also divided by alpha
    const int64_t* tile_begin;
    const int32_t* pair_splat;
    const uint16_t* pair_rows;

    int channels() const { return color_channels + (depth_mode ? 1 : 0); }
};

// A splat as the inner loop wants it: conic scaled for `falloff`, colour beside it, rows of this tile.
// Gathered in batches, as a GPU would into shared memory: this hides the cache misses.
constexpr int BATCH = 64;
template <typename S, int CH>
struct Record {
    S x, y, half_a, b, half_c, opacity;
    S color[CH];
    Span rows;
};

template <typename S, int CH>
void gather(const Scene<S>& scene, int camera, int64_t begin, int64_t end, Record<S, CH>* records) {
    const int64_t base = int64_t(camera) * scene.n;
    const int count = int(std::min<int64_t>(BATCH, end - begin));
    for (int k = 0; k < count; k++) {
        const int64_t splat = scene.pair_splat[begin + k];
        const int rows = scene.pair_rows[begin + k];
        const Packed<S>& p = scene.packed[splat];
        Record<S, CH>& r = records[k];
        constexpr S scale = falloff_scale<S>;
        r.x = p.x;
        r.y = p.y;
        r.half_a = p.a * (scale / 2);
        r.b = p.b * scale;
        r.half_c = p.c * (scale / 2);
        r.opacity = p.opacity;
        r.rows = {rows & 255, rows >> 8};
        const S* color = scene.colors + camera * scene.color_camera_stride + (splat - base) * scene.color_channels;
        for (int c = 0; c < CH; c++) r.color[c] = c < scene.color_channels ? color[c] : S(0);
        if (scene.depth_mode) r.color[scene.color_channels] = scene.depths[splat];
    }
}

// The part of the image that one task draws. `column[h]` are the pixel centres of vector h of a row.
template <typename S>
struct Tile {
    static constexpr int PER_ROW = TILE / lanes<S>, VECTORS = TILE * PER_ROW;
    int camera, x0, y0, columns, rows;
    int64_t begin, end, first_pixel;
    VecF<S> column[PER_ROW];

    Tile(const Scene<S>& scene, const TileGrid& grid, int64_t index) {
        const int64_t tiles = int64_t(grid.columns) * grid.rows;
        camera = int(index / tiles);
        x0 = int(index % tiles % grid.columns) * TILE;
        y0 = int(index % tiles / grid.columns) * TILE;
        columns = std::min(TILE, grid.width - x0);
        rows = std::min(TILE, grid.height - y0);
        begin = scene.tile_begin[index];
        end = scene.tile_begin[index + 1];
        first_pixel = (int64_t(camera) * grid.height + y0) * grid.width + x0;
        for (int k = 0; k < TILE; k++) column[k / lanes<S>][k % lanes<S>] = x0 + k + S(0.5);
    }
    // Transmittance 1 inside of the image and 0 outside. A finished pixel is one whose transmittance is not above 0.
    void start(VecF<S>* transmittance) const {
        for (int k = 0; k < TILE * TILE; k++)
            transmittance[k / lanes<S>][k % lanes<S>] = k / TILE < rows && k % TILE < columns ? S(1) : S(0);
    }
    uint32_t unfinished_rows(const VecF<S>* transmittance, uint32_t rows_before) const {
        for (int row = 0; row < rows; row++) {
            if (!(rows_before >> row & 1)) continue;
            bool any = false;
            for (int h = 0; h < PER_ROW; h++) any |= any_lane(transmittance[row * PER_ROW + h] > S(0));
            if (!any) rows_before &= ~(1u << row);
        }
        return rows_before;
    }
    uint32_t all_rows() const { return (1u << rows) - 1; }
};
constexpr int CHECK_EVERY = 16;  // splats between two looks at which rows are finished; divides BATCH

// What depends on the row only, for all rows at once: read back as broadcasts, which cost nothing beside a load.
template <typename S>
struct RowTerms {
    alignas(64) S dy[TILE], square[TILE];
    RowTerms(S y, S half_c, int y0) {
        const S top = y - (y0 + S(0.5));
        for (int row = 0; row < TILE; row++) {
            dy[row] = top - row;
            square[row] = half_c * dy[row] * dy[row];
        }
    }
};

// One splat at one vector of pixels. Selects have a single compare each, which become masked moves.
template <typename S>
struct Blend {
    VecF<S> raw_alpha, alpha, after, weight;
};
template <typename S>
inline __attribute__((always_inline)) Blend<S> blend(VecF<S> square_x, VecF<S> b_x, S square_y, S opacity, S dy, VecF<S> before) {
    typedef VecF<S> F;
    const F sigma = square_x + dy * b_x + square_y;
    Blend<S> out;
    out.raw_alpha = falloff(sigma) * opacity;
    F alpha = out.raw_alpha > Limits<S>::max_alpha ? (F{} + Limits<S>::max_alpha) : out.raw_alpha;
    alpha = alpha < Limits<S>::min_alpha ? F{} : alpha;
    alpha = sigma < S(0) ? F{} : alpha;
    out.alpha = alpha;
    out.after = before * (S(1) - alpha);
    out.weight = out.after > Limits<S>::min_transmittance ? alpha * before : F{};
    return out;
}

// Calls `run` with the number of channels as a constant, rounded up to one of a few: each costs compile time.
template <typename S, typename Run>
void with_channels(int channels, Run run) {
    if constexpr (sizeof(S) == 4) {
        if (channels <= 1) return run(std::integral_constant<int, 1>());
        if (channels <= 3) return run(std::integral_constant<int, 3>());
        if (channels <= 8 && channels > 4) return run(std::integral_constant<int, 8>());
    }
    if (channels <= 4) return run(std::integral_constant<int, 4>());
    run(std::integral_constant<int, 16>());
}

}  // namespace lpm
