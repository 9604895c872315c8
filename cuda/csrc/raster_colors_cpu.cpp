// The backward pass of blending where nothing but the colours is differentiated: the sum of weight times cotangent.
// Splatting a residual onto the points that made it is this and no more, and costs a third of the whole backward pass.
#include <cstring>

#include "blend.h"
#include "memory.h"

using namespace lpm;

namespace {

template <typename S, int CH>
constexpr int color_slot = (CH + lanes<S> - 1) / lanes<S> * lanes<S>;

// grad_out: [cameras, height, width, stride] with the colours first. A slot holds the sums of one splat in one tile.
template <typename S, int CH>
void colors_tile(const Scene<S>& scene, const Tile<S>& tile, const int32_t* pair_slot, int32_t visited, const S* grad_out,
                 int stride, S* slots) {
    typedef VecF<S> F;
    constexpr int PER_ROW = Tile<S>::PER_ROW, VECTORS = Tile<S>::VECTORS, SLOT = color_slot<S, CH>;
    F transmittance[VECTORS], grad_color[CH][VECTORS];
    tile.start(transmittance);
    memset(grad_color, 0, sizeof grad_color);
    for (int row = 0; row < tile.rows; row++)
        for (int column = 0; column < tile.columns; column++) {
            const S* grad = grad_out + stride * (tile.first_pixel + int64_t(row) * scene.width + column);
            for (int c = 0; c < CH && c < scene.color_channels; c++)
                grad_color[c][row * PER_ROW + column / lanes<S>][column % lanes<S>] = grad[c];
        }
    Record<S, CH> records[BATCH];
    uint32_t live = tile.all_rows();
    const int64_t stop = tile.begin + visited;
    for (int64_t k = tile.begin; k < stop; k++) {
        const int at = int((k - tile.begin) % BATCH);
        if (at == 0) gather(scene, tile.camera, k, stop, records);
        if (k + 6 < stop) __builtin_prefetch(slots + size_t(SLOT) * pair_slot[k + 6], 1);
        if (at % CHECK_EVERY == CHECK_EVERY - 1) live = tile.unfinished_rows(transmittance, live);
        const Record<S, CH>& r = records[at];
        F square_x[PER_ROW], b_x[PER_ROW], sums[SLOT];
        for (int h = 0; h < PER_ROW; h++) {
            const F dx = r.x - tile.column[h];
            square_x[h] = dx * dx * r.half_a;
            b_x[h] = dx * r.b;
        }
        for (int q = 0; q < SLOT; q++) sums[q] = F{};
        const RowTerms<S> terms(r.y, r.half_c, tile.y0);
        for (int row = r.rows.begin; row < r.rows.end; row++) {
            if (!(live >> row & 1)) continue;
            const S dy = terms.dy[row];
            for (int h = 0; h < PER_ROW; h++) {
                const int v = row * PER_ROW + h;
                const Blend<S> drawn = blend<S>(square_x[h], b_x[h], terms.square[row], r.opacity, dy, transmittance[v]);
                for (int c = 0; c < CH; c++) sums[c] += drawn.weight * grad_color[c][v];
                transmittance[v] = drawn.after > Limits<S>::min_transmittance ? drawn.after : F{};
            }
        }
        S* slot = slots + size_t(SLOT) * pair_slot[k];
        for (int q = 0; q < SLOT; q += lanes<S>) {
            const F total = lane_sums<S>(sums + q);
            memcpy(slot + q, &total, sizeof total);
        }
    }
    for (int64_t k = stop; k < tile.end; k++) memset(slots + size_t(SLOT) * pair_slot[k], 0, sizeof(S) * SLOT);
}

// Adds up the slots of each splat, in order; colours that all cameras share are summed over cameras.
template <typename S, int CH>
void colors_backward(int threads, const Scene<S>& scene, const int64_t* splat_begin, const int32_t* pair_slot,
                     const int32_t* visited, const S* grad_out, int stride, S* slots, S* grad_colors) {
    constexpr int SLOT = color_slot<S, CH>;
    const TileGrid grid = make_grid(scene.width, scene.height);
    const int64_t tiles = int64_t(scene.cameras) * grid.columns * grid.rows;
    advise_huge_pages(slots, sizeof(S) * SLOT * scene.tile_begin[tiles]);
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (int64_t t = 0; t < tiles; t++)
        colors_tile<S, CH>(scene, Tile<S>(scene, grid, t), pair_slot, visited[t], grad_out, stride, slots);
    const bool shared = scene.color_camera_stride == 0;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < scene.n; i++)
        for (int camera = 0; camera < scene.cameras; camera++) {
            const int64_t splat = camera * scene.n + i;
            S sum[SLOT] = {};
            for (int64_t k = splat_begin[splat]; k < splat_begin[splat + 1]; k++)
                for (int q = 0; q < SLOT; q++) sum[q] += slots[size_t(SLOT) * k + q];
            S* color = grad_colors + camera * scene.color_camera_stride + i * scene.color_channels;
            for (int c = 0; c < CH && c < scene.color_channels; c++) color[c] = (shared && camera > 0 ? color[c] : S(0)) + sum[c];
        }
}

template <typename S>
int colors_slot_size(int channels) {
    int size = 0;
    with_channels<S>(channels, [&](auto ch) { size = color_slot<S, ch>; });
    return size;
}

}  // namespace

// Values in a slot, for the caller to allocate `slots` [pairs, slot size].
extern "C" int lpm_raster_colors_slot_size(int channels, int double_precision) {
    return double_precision ? colors_slot_size<double>(channels) : colors_slot_size<float>(channels);
}

#define LPM_RASTER_COLORS_API(S, SUFFIX)                                                                                   \
    extern "C" void lpm_raster_colors_backward_##SUFFIX(                                                                   \
        int threads, int64_t n, int cameras, int width, int height, const S* packed, const S* colors,                      \
        int64_t color_camera_stride, int color_channels, const int64_t* tile_begin, const int32_t* pair_splat,             \
        const uint16_t* pair_rows, const int64_t* splat_begin, const int32_t* pair_slot, const int32_t* visited,           \
        const S* grad_out, int stride, S* slots, S* grad_colors) {                                                         \
        const Scene<S> scene{n,                                                                                            \
                             cameras,                                                                                      \
                             width,                                                                                        \
                             height,                                                                                       \
                             reinterpret_cast<const Packed<S>*>(packed),                                                   \
                             colors,                                                                                       \
                             color_camera_stride,                                                                          \
                             color_channels,                                                                               \
                             nullptr,                                                                                      \
                             0,                                                                                            \
                             tile_begin,                                                                                   \
                             pair_splat,                                                                                   \
                             pair_rows};                                                                                   \
        with_channels<S>(color_channels, [&](auto ch) {                                                                    \
            colors_backward<S, ch>(threads, scene, splat_begin, pair_slot, visited, grad_out, stride, slots, grad_colors); \
        });                                                                                                                \
    }
LPM_RASTER_COLORS_API(float, f32)
LPM_RASTER_COLORS_API(double, f64)
