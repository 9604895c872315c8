// Votes of all views' zones on all points, in one pass over the points.
//
// A block of points is turned into three arrays that stay in the nearest cache while every view looks at it. Votes are
// sums of ones and tiles are counted in integers: the same bits for any number of threads.
#include <vector>

#include "zones.h"

namespace lpm {

constexpr int BLOCK = 1024;  // points; eight arrays of so many floats fill most of a 48 kB cache

// What a view's zones say of each of its tiles. near, far: depths. limit: depth up to which a point is in front. zone:
// whether any of it can be true; one entry more than tiles, a 0 for the points that are not seen.
template <typename S>
struct Tiles {
    const S *near, *far, *limit;
    const uint8_t* zone;
};

// One view's votes on a block, added to `inside` and `front`, and to `counts` of the view's tiles. The view comes as a
// copy: its values are then kept in registers, and the first loop becomes vectors.
template <typename S>
static void vote(const ZoneView<S> view, const Tiles<S>& tiles, int count, const S* x, const S* y, const S* z, S* inside,
                 S* front, int64_t* counts) {
    int32_t cells[BLOCK], chosen[BLOCK];
    S depths[BLOCK];
#pragma omp simd
    for (int k = 0; k < count; k++) {
        const Place<S> place = place_of(view, x[k], y[k], z[k]);
        cells[k] = place.cell;
        depths[k] = place.depth;
    }
    // Few tiles have a zone. Points in them are listed without a branch, which would often be mispredicted; only they
    // are looked up in the tables of depths. That is faster than gathering for all points.
    int found = 0;
    for (int k = 0; k < count; k++) {
        chosen[found] = k;
        found += tiles.zone[cells[k]];
    }
    for (int j = 0; j < found; j++) {
        const int k = chosen[j], cell = cells[k];
        const bool in = is_between(depths[k], tiles.near[cell], tiles.far[cell]);
        inside[k] += S(in);
        front[k] += S(depths[k] < tiles.limit[cell]);
        counts[cell] += in;
    }
}

// means: [n, 3]. cameras: [views, 18] and grids: [views, 2] as make_view() has them. near, far, limit: the tiles of all views, one view after the other. inside, front: [n] votes. counts:
// points inside of each tile.
template <typename S>
static void zone_votes(int threads, int64_t n, int view_count, const S* means, const S* cameras, const int64_t* grids,
                       const S* near, const S* far, const S* limit, S* inside, S* front, int64_t* counts) {
    std::vector<ZoneView<S>> views;
    for (int v = 0; v < view_count; v++) views.push_back(make_view(cameras + 18 * v, grids + 2 * v));
    std::vector<int64_t> first(1, 0);  // tile of each view
    for (const ZoneView<S>& view : views) first.push_back(first.back() + int64_t(view.rows) * view.columns);
    const int64_t tiles = first.back();
    std::vector<uint8_t> zone(tiles + view_count);
    for (int v = 0; v < view_count; v++)
        for (int64_t i = first[v]; i < first[v + 1]; i++) zone[i + v] = near[i] <= far[i] || limit[i] > -S(INFINITY);
    for (int64_t i = 0; i < tiles; i++) counts[i] = 0;
#pragma omp parallel num_threads(threads)
    {
        std::vector<int64_t> own(tiles);
        S x[BLOCK], y[BLOCK], z[BLOCK];
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
            for (int v = 0; v < view_count; v++) {
                const int64_t at = first[v];
                vote(views[v], {near + at, far + at, limit + at, zone.data() + at + v}, count, x, y, z, inside + begin,
                     front + begin, own.data() + at);
            }
        }
#pragma omp critical
        for (int64_t i = 0; i < tiles; i++) counts[i] += own[i];
    }
}

}  // namespace lpm

#define LPM_ZONES_API(S, SUFFIX)                                                                                          \
    extern "C" void lpm_zone_votes_##SUFFIX(int threads, int64_t n, int views, const S* means, const S* cameras,          \
                                            const int64_t* grids, const S* near, const S* far, const S* limit, S* inside, \
                                            S* front, int64_t* counts) {                                                  \
        lpm::zone_votes<S>(threads, n, views, means, cameras, grids, near, far, limit, inside, front, counts);            \
    }
LPM_ZONES_API(float, f32)
LPM_ZONES_API(double, f64)
