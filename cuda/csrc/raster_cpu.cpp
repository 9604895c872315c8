// Alpha blending of sorted splats, forward and backward, one tile per task; a vector holds one row of the tile.
// Source: Kerbl 2023, eq. 3 for the blending. The backward pass walks front to back too and recomputes the transmittance
// with the forward's own arithmetic, so that both passes agree on which splats a pixel saw.
#include <cstring>

#include "blend.h"
#include "memory.h"

using namespace lpm;

namespace {

template <typename S, int CH>
void forward_tile(const Scene<S>& scene, const Tile<S>& tile, const S* backgrounds, S* out, S* out_alpha, int32_t* visited) {
    typedef VecF<S> F;
    constexpr int PER_ROW = Tile<S>::PER_ROW, VECTORS = Tile<S>::VECTORS;
    F transmittance[VECTORS], sum[CH][VECTORS];  // transmittance: with a minus once the pixel is finished
    tile.start(transmittance);
    memset(sum, 0, sizeof sum);
    Record<S, CH> records[BATCH];
    uint32_t live = tile.all_rows();
    int64_t k = tile.begin;
    for (; k < tile.end; k++) {
        const int at = int((k - tile.begin) % BATCH);
        if (at == 0) gather(scene, tile.camera, k, tile.end, records);
        if (at % CHECK_EVERY == CHECK_EVERY - 1 && !(live = tile.unfinished_rows(transmittance, live))) break;
        const Record<S, CH>& r = records[at];
        F square_x[PER_ROW], b_x[PER_ROW];
        for (int h = 0; h < PER_ROW; h++) {
            const F dx = r.x - tile.column[h];
            square_x[h] = dx * dx * r.half_a;
            b_x[h] = dx * r.b;
        }
        const RowTerms<S> terms(r.y, r.half_c, tile.y0);
        for (int row = r.rows.begin; row < r.rows.end; row++) {
            if (!(live >> row & 1)) continue;
            const S dy = terms.dy[row];
            for (int h = 0; h < PER_ROW; h++) {
                const int v = row * PER_ROW + h;
                const Blend<S> drawn = blend<S>(square_x[h], b_x[h], terms.square[row], r.opacity, dy, transmittance[v]);
                for (int c = 0; c < CH; c++) sum[c][v] += drawn.weight * r.color[c];
                transmittance[v] = drawn.after > Limits<S>::min_transmittance ? drawn.after : -vabs<S>(transmittance[v]);
            }
        }
    }
    if (visited) *visited = int32_t(k - tile.begin);

    const int channels = scene.channels();
    const S* background = backgrounds ? backgrounds + tile.camera * scene.color_channels : nullptr;
    for (int row = 0; row < tile.rows; row++) {
        for (int column = 0; column < tile.columns; column++) {
            const int v = row * PER_ROW + column / lanes<S>, lane = column % lanes<S>;
            const int64_t pixel = tile.first_pixel + int64_t(row) * scene.width + column;
            const S rest = std::abs(transmittance[v][lane]), alpha = 1 - rest;
            S* color = out + pixel * channels;
            for (int c = 0; c < CH && c < channels; c++) color[c] = sum[c][v][lane];
            if (background)
                for (int c = 0; c < scene.color_channels; c++) color[c] += rest * background[c];
            if (scene.depth_mode == 2) color[channels - 1] /= max_of(alpha, S(1e-10));
            out_alpha[pixel] = alpha;
        }
    }
}

// Gradient slot of one (splat, tile) pair, in whole vectors. With s = d loss / d sigma per pixel, it holds the sums of
// s, s dx, s dy, s dx^2, s dx dy, s dy^2, then CH of the colour, then 2 of |s d sigma / d mean| where it is asked for.
template <typename S, int CH, bool ABS>
constexpr int slot_size = (6 + CH + (ABS ? 2 : 0) + lanes<S> - 1) / lanes<S> * lanes<S>;

template <typename S, int CH, bool ABS>
void backward_tile(const Scene<S>& scene, const Tile<S>& tile, const int32_t* pair_slot, const S* out, const S* out_alpha,
                   int32_t visited, const S* grad_out, const S* grad_alpha, S* slots) {
    typedef VecF<S> F;
    constexpr int PER_ROW = Tile<S>::PER_ROW, VECTORS = Tile<S>::VECTORS, SLOT = slot_size<S, CH, ABS>;
    // `behind` is the cotangent times all that lies behind the splats done so far, the background included.
    F transmittance[VECTORS], behind[VECTORS], grad_color[CH][VECTORS];
    tile.start(transmittance);
    memset(behind, 0, sizeof behind);
    memset(grad_color, 0, sizeof grad_color);
    const int channels = scene.channels();
    for (int row = 0; row < tile.rows; row++) {
        for (int column = 0; column < tile.columns; column++) {
            const int v = row * PER_ROW + column / lanes<S>, lane = column % lanes<S>;
            const int64_t pixel = tile.first_pixel + int64_t(row) * scene.width + column;
            const S alpha = out_alpha[pixel];
            S grad_of_alpha = grad_alpha ? grad_alpha[pixel] : S(0), total = 0;
            for (int c = 0; c < CH && c < channels; c++) {
                const S value = out[pixel * channels + c];
                S grad = grad_out[pixel * channels + c];
                total += grad * value;
                if (scene.depth_mode == 2 && c == channels - 1) {  // value = sum / max(alpha, 1e-10)
                    if (alpha > S(1e-10)) grad_of_alpha -= grad * value / alpha;
                    grad /= max_of(alpha, S(1e-10));
                }
                grad_color[c][v][lane] = grad;
            }
            behind[v][lane] = total - (1 - alpha) * grad_of_alpha;
        }
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
        const F b = F{} + r.b, c = F{} + 2 * r.half_c;
        F dx[PER_ROW], square_x[PER_ROW], a_x[PER_ROW], b_x[PER_ROW];
        for (int h = 0; h < PER_ROW; h++) {
            dx[h] = r.x - tile.column[h];
            square_x[h] = dx[h] * dx[h] * r.half_a;
            a_x[h] = dx[h] * (2 * r.half_a);
            b_x[h] = dx[h] * r.b;
        }
        // s = d loss / d sigma per pixel. dx is the same in all rows, so that its moments follow from these three sums.
        F s_sum[PER_ROW] = {}, sy_sum[PER_ROW] = {}, syy_sum[PER_ROW] = {}, abs_x{}, abs_y{}, color_sum[CH];
        for (int c = 0; c < CH; c++) color_sum[c] = F{};
        const RowTerms<S> terms(r.y, r.half_c, tile.y0);
        for (int row = r.rows.begin; row < r.rows.end; row++) {
            if (!(live >> row & 1)) continue;
            const S dy = terms.dy[row];
            for (int h = 0; h < PER_ROW; h++) {
                const int v = row * PER_ROW + h;
                const F before = transmittance[v];
                const Blend<S> drawn = blend<S>(square_x[h], b_x[h], terms.square[row], r.opacity, dy, before);
                F along = grad_color[0][v] * r.color[0];
                for (int c = 1; c < CH; c++) along += grad_color[c][v] * r.color[c];
                behind[v] -= drawn.weight * along;
                const F grad_of_alpha = before * along - behind[v] / (S(1) - drawn.alpha);
                const F slope = drawn.raw_alpha > Limits<S>::max_alpha ? F{} : drawn.alpha;  // no gradient through the clamp
                const F s = drawn.after > Limits<S>::min_transmittance ? -slope * grad_of_alpha : F{};
                s_sum[h] += s;
                sy_sum[h] += s * dy;
                syy_sum[h] += s * terms.square[row];
                if (ABS) {
                    const F size = vabs<S>(s);
                    abs_x += size * vabs<S>(a_x[h] + b * dy);
                    abs_y += size * vabs<S>(b_x[h] + c * dy);
                }
                for (int c = 0; c < CH; c++) color_sum[c] += drawn.weight * grad_color[c][v];
                transmittance[v] = drawn.after > Limits<S>::min_transmittance ? drawn.after : F{};
            }
        }
        F moments[SLOT];
        for (int q = 0; q < SLOT; q++) moments[q] = F{};
        for (int h = 0; h < PER_ROW; h++) {
            const F x = dx[h] * s_sum[h];
            moments[0] += s_sum[h];
            moments[1] += x;
            moments[2] += sy_sum[h];
            moments[3] += dx[h] * x;
            moments[4] += dx[h] * sy_sum[h];
            moments[5] += syy_sum[h] * (1 / r.half_c);
        }
        for (int c = 0; c < CH; c++) moments[6 + c] = color_sum[c];
        if (ABS) {
            moments[6 + CH] = abs_x;
            moments[7 + CH] = abs_y;
        }
        S* slot = slots + size_t(SLOT) * pair_slot[k];
        for (int q = 0; q < SLOT; q += lanes<S>) {
            const F sums = lane_sums<S>(moments + q);
            memcpy(slot + q, &sums, sizeof sums);
        }
    }
    for (int64_t k = stop; k < tile.end; k++) memset(slots + size_t(SLOT) * pair_slot[k], 0, sizeof(S) * SLOT);
}

template <typename S>
struct SplatGrads {
    S *means2d, *conics, *opacities, *depths, *abs_means2d, *colors;
};

// Adds up the slots of each splat, in order; colours that all cameras share are summed over cameras.
template <typename S, int CH, bool ABS>
void sum_slots(int threads, const Scene<S>& scene, const int64_t* splat_begin, const S* slots, const SplatGrads<S>& grads) {
    constexpr int SLOT = slot_size<S, CH, ABS>;
    const bool shared = scene.color_camera_stride == 0;
    const int channels = scene.color_channels;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < scene.n; i++) {
        for (int camera = 0; camera < scene.cameras; camera++) {
            const int64_t splat = camera * scene.n + i;
            S sum[SLOT] = {};
            const int64_t begin = splat_begin[splat], end = splat_begin[splat + 1];
            for (int64_t k = begin; k < end; k++)
                for (int q = 0; q < SLOT; q++) sum[q] += slots[size_t(SLOT) * k + q];
            // A splat that was never drawn has no record: its sums are 0, and so are its gradients.
            const Packed<S> p = begin < end ? scene.packed[splat] : Packed<S>{0, 0, 0, 0, 0, 1, 0, 0};
            grads.means2d[2 * splat] = p.a * sum[1] + p.b * sum[2];
            grads.means2d[2 * splat + 1] = p.b * sum[1] + p.c * sum[2];
            grads.conics[3 * splat] = sum[3] / 2;
            grads.conics[3 * splat + 1] = sum[4];
            grads.conics[3 * splat + 2] = sum[5] / 2;
            grads.opacities[splat] = -sum[0] / p.opacity;
            if (grads.depths) grads.depths[splat] = sum[6 + channels];
            if (ABS)
                for (int q = 0; q < 2; q++) grads.abs_means2d[2 * splat + q] = sum[6 + CH + q] / falloff_scale<S>;
            S* color = grads.colors + camera * scene.color_camera_stride + i * channels;
            for (int c = 0; c < CH && c < channels; c++) color[c] = (shared && camera > 0 ? color[c] : S(0)) + sum[6 + c];
        }
    }
}

template <typename S, int CH>
void forward(int threads, const Scene<S>& scene, const S* backgrounds, S* out, S* out_alpha, int32_t* visited) {
    const TileGrid grid = make_grid(scene.width, scene.height);
    const int64_t tiles = int64_t(scene.cameras) * grid.columns * grid.rows;
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (int64_t t = 0; t < tiles; t++)
        forward_tile<S, CH>(scene, Tile<S>(scene, grid, t), backgrounds, out, out_alpha, visited ? visited + t : nullptr);
}

template <typename S, int CH, bool ABS>
void backward(int threads, const Scene<S>& scene, const int64_t* splat_begin, const int32_t* pair_slot, const S* out,
              const S* out_alpha, const int32_t* visited, const S* grad_out, const S* grad_alpha, S* slots,
              const SplatGrads<S>& grads) {
    const TileGrid grid = make_grid(scene.width, scene.height);
    const int64_t tiles = int64_t(scene.cameras) * grid.columns * grid.rows;
    advise_huge_pages(slots, sizeof(S) * slot_size<S, CH, ABS> * scene.tile_begin[tiles]);
#pragma omp parallel for schedule(dynamic, 4) num_threads(threads)
    for (int64_t t = 0; t < tiles; t++)
        backward_tile<S, CH, ABS>(scene, Tile<S>(scene, grid, t), pair_slot, out, out_alpha, visited[t], grad_out, grad_alpha,
                                  slots);
    sum_slots<S, CH, ABS>(threads, scene, splat_begin, slots, grads);
}

}  // namespace

// Values in a gradient slot, for the caller to allocate `slots` [pairs, slot size].
extern "C" int lpm_raster_slot_size(int channels, int absgrad, int double_precision) {
    int size = 0;
    if (double_precision)
        with_channels<double>(channels,
                              [&](auto ch) { size = absgrad ? slot_size<double, ch, true> : slot_size<double, ch, false>; });
    else
        with_channels<float>(channels,
                             [&](auto ch) { size = absgrad ? slot_size<float, ch, true> : slot_size<float, ch, false>; });
    return size;
}

#define LPM_RASTER_API(S, SUFFIX)                                                                                             \
    extern "C" void lpm_raster_forward_##SUFFIX(                                                                              \
        int threads, int64_t n, int cameras, int width, int height, const S* packed, const S* colors,                         \
        int64_t color_camera_stride, int color_channels, const S* depths, int depth_mode, const int64_t* tile_begin,          \
        const int32_t* pair_splat, const uint16_t* pair_rows, const S* backgrounds, S* out, S* out_alpha, int32_t* visited) { \
        const Scene<S> scene{n,                                                                                               \
                             cameras,                                                                                         \
                             width,                                                                                           \
                             height,                                                                                          \
                             reinterpret_cast<const Packed<S>*>(packed),                                                      \
                             colors,                                                                                          \
                             color_camera_stride,                                                                             \
                             color_channels,                                                                                  \
                             depths,                                                                                          \
                             depth_mode,                                                                                      \
                             tile_begin,                                                                                      \
                             pair_splat,                                                                                      \
                             pair_rows};                                                                                      \
        with_channels<S>(scene.channels(),                                                                                    \
                         [&](auto ch) { forward<S, ch>(threads, scene, backgrounds, out, out_alpha, visited); });             \
    }                                                                                                                         \
    extern "C" void lpm_raster_backward_##SUFFIX(                                                                             \
        int threads, int64_t n, int cameras, int width, int height, const S* packed, const S* colors,                         \
        int64_t color_camera_stride, int color_channels, const S* depths, int depth_mode, const int64_t* tile_begin,          \
        const int32_t* pair_splat, const uint16_t* pair_rows, const int64_t* splat_begin, const int32_t* pair_slot,           \
        const S* out, const S* out_alpha, const int32_t* visited, const S* grad_out, const S* grad_alpha, S* slots,           \
        S* grad_means2d, S* grad_conics, S* grad_opacities, S* grad_depths, S* abs_means2d, S* grad_colors) {                 \
        const Scene<S> scene{n,                                                                                               \
                             cameras,                                                                                         \
                             width,                                                                                           \
                             height,                                                                                          \
                             reinterpret_cast<const Packed<S>*>(packed),                                                      \
                             colors,                                                                                          \
                             color_camera_stride,                                                                             \
                             color_channels,                                                                                  \
                             depths,                                                                                          \
                             depth_mode,                                                                                      \
                             tile_begin,                                                                                      \
                             pair_splat,                                                                                      \
                             pair_rows};                                                                                      \
        const SplatGrads<S> grads{grad_means2d, grad_conics, grad_opacities, grad_depths, abs_means2d, grad_colors};          \
        with_channels<S>(scene.channels(), [&](auto ch) {                                                                     \
            if (abs_means2d)                                                                                                  \
                backward<S, ch, true>(threads, scene, splat_begin, pair_slot, out, out_alpha, visited, grad_out, grad_alpha,  \
                                      slots, grads);                                                                          \
            else                                                                                                              \
                backward<S, ch, false>(threads, scene, splat_begin, pair_slot, out, out_alpha, visited, grad_out, grad_alpha, \
                                       slots, grads);                                                                         \
        });                                                                                                                   \
    }
LPM_RASTER_API(float, f32)
LPM_RASTER_API(double, f64)
