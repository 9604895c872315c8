// Votes of all views' zones on all points, in one pass over the points.
//
// A block of points is turned into three arrays that stay in the nearest cache while every view looks at it. Votes are
// sums of ones and tiles are counted in integers: the same bits for any number of threads.
#include <vector>

#include "zones.h"

namespace lpm {

constexpr int BLOCK = 1024;  // points; seven arrays of so many floats fill a good half of a 48 kB cache

// cameras: [views, 18], rows of [R t], fx, fy, cx, cy, width, height, in tiles. grids: [views, 2], rows and columns.
template <typename S>
static std::vector<ZoneView<S>> make_views(int count, const S* cameras, const int64_t* grids) {
    std::vector<ZoneView<S>> views(count);
    for (int v = 0; v < count; v++) {
        const S* c = cameras + 18 * v;
        ZoneView<S>& view = views[v];
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 3; j++) view.R[3 * i + j] = c[4 * i + j];
            view.t[i] = c[4 * i + 3];
        }
        view.fx = c[12];
        view.fy = c[13];
        view.cx = c[14];
        view.cy = c[15];
        view.width = c[16];
        view.height = c[17];
        view.rows = int32_t(grids[2 * v]);
        view.columns = int32_t(grids[2 * v + 1]);
    }
    return views;
}

// One view's votes on a block, added to `inside` and `front`. cells: of the points inside; returns how many those are.
template <typename S>
static int vote(const ZoneView<S>& view, int count, const S* x, const S* y, const S* z, const S* near, const S* far,
                const S* limit, S* inside, S* front, int32_t* cells) {
    S depth[BLOCK];
    // Two loops: in one, compilers turn the selects into masked look-ups and then give up on vectors.
#pragma omp simd
    for (int k = 0; k < count; k++) {
        const Place<S> place = place_of(view, x[k], y[k], z[k]);
        cells[k] = place.cell;
        depth[k] = place.depth;
    }
#pragma omp simd
    for (int k = 0; k < count; k++) {
        const int32_t cell = cells[k];
        const bool in = is_between(depth[k], near[cell], far[cell]);
        inside[k] += S(in);
        front[k] += S(depth[k] < limit[cell]);
        cells[k] = in ? cell : -1;
    }
    int found = 0;  // moved to the front without a branch, which would be mispredicted at every other point
    for (int k = 0; k < count; k++) {
        const int32_t cell = cells[k];
        cells[found] = cell;
        found += cell >= 0;
    }
    return found;
}

// means: [n, 3]. near, far, limit: the tiles of all views, one view after the other; `limit` is the depth up to which
// a point is in front. inside, front: [n] votes. counts: points inside of each tile.
template <typename S>
static void zone_votes(int threads, int64_t n, int view_count, const S* means, const S* cameras, const int64_t* grids,
                       const S* near, const S* far, const S* limit, S* inside, S* front, int64_t* counts) {
    const std::vector<ZoneView<S>> views = make_views(view_count, cameras, grids);
    int64_t tiles = 0;
    for (const ZoneView<S>& view : views) tiles += int64_t(view.rows) * view.columns;
    for (int64_t i = 0; i < tiles; i++) counts[i] = 0;
#pragma omp parallel num_threads(threads)
    {
        std::vector<int64_t> own(tiles);
        S x[BLOCK], y[BLOCK], z[BLOCK];
        int32_t cells[BLOCK];
#pragma omp for schedule(static)
        for (int64_t begin = 0; begin < n; begin += BLOCK) {
            const int count = int(min_of(n - begin, int64_t(BLOCK)));
            const S* mean = means + 3 * begin;
            for (int k = 0; k < count; k++) {
                x[k] = mean[3 * k];
                y[k] = mean[3 * k + 1];
                z[k] = mean[3 * k + 2];
                inside[begin + k] = front[begin + k] = 0;
            }
            int64_t first = 0;
            for (const ZoneView<S>& view : views) {
                const int found = vote(view, count, x, y, z, near + first, far + first, limit + first, inside + begin,
                                       front + begin, cells);
                for (int k = 0; k < found; k++) own[first + cells[k]]++;
                first += int64_t(view.rows) * view.columns;
            }
        }
#pragma omp critical
        for (int64_t i = 0; i < tiles; i++) counts[i] += own[i];
    }
}

}  // namespace lpm

#define LPM_ZONES_API(S, SUFFIX)                                                                                     \
    extern "C" void lpm_zone_votes_##SUFFIX(int threads, int64_t n, int views, const S* means, const S* cameras,     \
                                            const int64_t* grids, const S* near, const S* far, const S* limit,       \
                                            S* inside, S* front, int64_t* counts) {                                  \
        lpm::zone_votes<S>(threads, n, views, means, cameras, grids, near, far, limit, inside, front, counts);       \
    }
LPM_ZONES_API(float, f32)
LPM_ZONES_API(double, f64)
