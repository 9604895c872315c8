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

// One tensor's rows after an edit: to[i] = from[source[i]], or 0 where there is no source or `zero` is set.
template <typename S>
struct FollowRows {
    int64_t width;  // values in a row
    const S* from;
    S* to;
    const int64_t* source;   // -1: made from nothing
    const uint8_t* zero;     // or null

    LPM_HD void operator()(int64_t i) const {
        const int64_t row = i / width, old = source[row];
        to[i] = old < 0 || (zero && zero[row]) ? S(0) : from[old * width + i % width];
    }
};

}  // namespace lpm
