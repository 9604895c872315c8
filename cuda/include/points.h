// Work on points, one functor call each: votes of zones, and rows that follow an edit.
#pragma once
#include "launch.h"
#include "zones.h"

namespace lpm {

// cameras, grids: as make_view() has them, of all views. near, far, limit: their tiles, one view after the other; limit:
// depth up to which a point is in front.
// inside, front: [n] votes. counts: points inside of each tile, zero before.
template <typename S>
struct ZoneVotes {
    int views;
    const S *means, *cameras;
    const int64_t* grids;
    const S *near, *far, *limit;
    S *inside, *front;
    int64_t* counts;

    LPM_HD void operator()(int64_t i) const {
        const S x = means[3 * i], y = means[3 * i + 1], z = means[3 * i + 2];
        S in = 0, before = 0;
        int64_t first = 0;
        for (int v = 0; v < views; v++) {
            const ZoneView<S> view = make_view(cameras + 18 * v, grids + 2 * v);
            const int32_t tiles = view.rows * view.columns;
            const Place<S> place = place_of(view, x, y, z);
            if (place.cell < tiles) {
                const int64_t cell = first + place.cell;
                before += S(place.depth < limit[cell]);
                if (is_between(place.depth, near[cell], far[cell])) {
                    in += 1;
                    count_one(counts + cell);
                }
            }
            first += tiles;
        }
        inside[i] = in;
        front[i] = before;
    }
};

// Which points at most `few` of the images hold, whatever stands before them: lpm.strategy.few_photos.seen_by_few.
// cameras: [views, 12], rows of K [R t]. sizes: [views, 2], width and height. held_by_few: [n].
template <typename S>
struct SeenByFew {
    int views, few;
    S nearest;  // z-depth up to which a point is not in front of a camera
    const S *means, *cameras, *sizes;
    uint8_t* held_by_few;

    LPM_HD void operator()(int64_t i) const {
        const S x = means[3 * i], y = means[3 * i + 1], z = means[3 * i + 2];
        int held = 0;
        for (int v = 0; v < views && held <= few; v++) {
            const S *m = cameras + 12 * v, *size = sizes + 2 * v;
            const S depth = x * m[8] + y * m[9] + z * m[10] + m[11];
            const S column = (x * m[0] + y * m[1] + z * m[2] + m[3]) / depth;
            const S row = (x * m[4] + y * m[5] + z * m[6] + m[7]) / depth;
            held += depth > nearest && column >= 0 && row >= 0 && column < size[0] && row < size[1];
        }
        held_by_few[i] = held <= few;
    }
};

// Distance of each point to the nearest of the `centres` [views, 3]: lpm.multiview.views.nearest_centre.
template <typename S>
struct NearestCentre {
    int views;
    const S *means, *centres;
    S* distance;

    LPM_HD void operator()(int64_t i) const {
        const S x = means[3 * i], y = means[3 * i + 1], z = means[3 * i + 2];
        S least = S(INFINITY);
        for (int v = 0; v < views; v++) {
            const S dx = x - centres[3 * v], dy = y - centres[3 * v + 1], dz = z - centres[3 * v + 2];
            const S squared = dx * dx + dy * dy + dz * dz;
            if (!(squared >= least)) least = squared;  // NaN is kept: such a point is near nothing
        }
        distance[i] = sqrt(least);
    }
};

// One tensor's rows after an edit: to[i] = from[source[i]], or 0 where there is no source or `zero` is set.
template <typename S>
struct FollowRows {
    int64_t width;  // values in a row
    const S* from;
    S* to;
    const int64_t* source;   // -1: made from nothing
    const uint8_t* zero;     // or null

    LPM_HD void operator()(int64_t i) const {
        // Dividing 64 bits takes a GPU longer than the copy.
        const int64_t row = i >> 32 ? i / width : int64_t(uint32_t(i) / uint32_t(width)), old = source[row];
        to[i] = old < 0 || (zero && zero[row]) ? S(0) : from[old * width + (i - row * width)];
    }
};

}  // namespace lpm
