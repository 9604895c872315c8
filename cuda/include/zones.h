// Where a point stands with respect to one view's zones: the tile it projects to and its depth in the camera.
#pragma once
#include "hd.h"

namespace lpm {

// A view whose unit on the screen is one tile.
template <typename S>
struct ZoneView {
    S R[9], t[3];        // world to camera
    S fx, fy, cx, cy;    // tiles
    S width, height;     // tiles, of the image: its last row and column may be cut
    int32_t rows, columns;
};

template <typename S>
struct Place {
    int32_t cell;  // row-major index of a tile; one beyond the last where the view does not see the point
    S depth;       // z-depth, world
};

// Safe for any point, NaN and infinity too: the casts see only values inside the image.
template <typename S>
LPM_HD inline Place<S> place_of(const ZoneView<S>& view, S px, S py, S pz) {
    const S *R = view.R, *t = view.t;
    const S x = R[0] * px + R[1] * py + R[2] * pz + t[0];
    const S y = R[3] * px + R[4] * py + R[5] * pz + t[1];
    const S z = R[6] * px + R[7] * py + R[8] * pz + t[2];
    const S inv_z = 1 / max_of(z, S(1e-6));
    const S column = x * inv_z * view.fx + view.cx, row = y * inv_z * view.fy + view.cy;
    // & and not &&: no branches in the loop over points.
    const bool seen = (z > 0) & (column >= 0) & (row >= 0) & (column < view.width) & (row < view.height);
    // In floats, which hold these integers exactly: with one select and one cast, compilers make vectors of the loop.
    const S cell = std::floor(row) * S(view.columns) + std::floor(column);
    return {int32_t(seen ? cell : S(view.rows * view.columns)), z};
}

// Between a tile's two depths. Tiles without a zone have near = inf and far = -inf.
template <typename S>
LPM_HD inline bool is_between(S depth, S near, S far) {
    return (depth >= near) & (depth <= far);
}

// camera: [18], rows of [R t], fx, fy, cx, cy, width, height, in tiles. grid: [2], rows and columns.
template <typename S>
LPM_HD inline ZoneView<S> make_view(const S* camera, const int64_t* grid) {
    ZoneView<S> view;
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) view.R[3 * i + j] = camera[4 * i + j];
        view.t[i] = camera[4 * i + 3];
    }
    view.fx = camera[12];
    view.fy = camera[13];
    view.cx = camera[14];
    view.cy = camera[15];
    view.rows = int32_t(grid[0]);
    view.columns = int32_t(grid[1]);
    view.width = min_of(camera[16], S(view.columns));  // nothing may be read beyond the tables
    view.height = min_of(camera[17], S(view.rows));
    return view;
}

}  // namespace lpm
