// One 3D Gaussian through one pinhole camera: screen mean, conic, depth, and their hand-written gradients.
// Source: Zwicker 2001 (EWA splatting), eq. 31 for the Jacobian; Kerbl 2023, eq. 5 and 6 for the covariance; Yu 2024
// (Mip-Splatting), eq. 9 for the opacity compensation of `antialiased`. Thresholds as in gsplat 1.5.
#pragma once
#include "hd.h"

namespace lpm {

template <typename S>
struct Camera {
    S R[9], t[3];          // world to camera
    S fx, fy, cx, cy;      // pixels
    S lo_x, hi_x, lo_y, hi_y;  // range of x/z, y/z inside which the perspective is linearised where the mean is
    S center[3], Rinv[9];  // camera centre in the world, -R^-1 t
};

// viewmat [4,4], K [3,3], row major. The last row of viewmat is taken as 0 0 0 1.
template <typename S>
LPM_HD inline Camera<S> make_camera(const S* viewmat, const S* K, int width, int height) {
    Camera<S> camera;
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) camera.R[3 * i + j] = viewmat[4 * i + j];
        camera.t[i] = viewmat[4 * i + 3];
    }
    camera.fx = K[0];
    camera.fy = K[4];
    camera.cx = K[2];
    camera.cy = K[5];
    // Far outside of the image the linearisation would explode: it is taken at most .15 image sizes beyond the border.
    const S margin_x = S(0.15) * width / camera.fx, margin_y = S(0.15) * height / camera.fy;
    camera.lo_x = -camera.cx / camera.fx - margin_x;
    camera.hi_x = (width - camera.cx) / camera.fx + margin_x;
    camera.lo_y = -camera.cy / camera.fy - margin_y;
    camera.hi_y = (height - camera.cy) / camera.fy + margin_y;
    // A true inverse, not the transpose: the gradient is then also right for matrices that are slightly off rigid.
    const S* R = camera.R;
    const S cofactor[9] = {R[4] * R[8] - R[5] * R[7], R[2] * R[7] - R[1] * R[8], R[1] * R[5] - R[2] * R[4],
                           R[5] * R[6] - R[3] * R[8], R[0] * R[8] - R[2] * R[6], R[2] * R[3] - R[0] * R[5],
                           R[3] * R[7] - R[4] * R[6], R[1] * R[6] - R[0] * R[7], R[0] * R[4] - R[1] * R[3]};
    const S det = R[0] * cofactor[0] + R[1] * cofactor[3] + R[2] * cofactor[6];
    for (int i = 0; i < 9; i++) camera.Rinv[i] = cofactor[i] / det;
    for (int i = 0; i < 3; i++) camera.center[i] = -dot3(camera.Rinv + 3 * i, camera.t);
    return camera;
}

// What the forward pass computes on the way and the backward pass needs again.
template <typename S>
struct Footprint {
    S x, y, z, inv_z;                    // mean in the camera's frame
    S tx, ty;                            // where the perspective is linearised
    bool clamped_x, clamped_y;
    S quat[4], inv_norm, rotation[9];    // normalised wxyz
    S jx, jxz, jy, jyz;                  // Jacobian [[jx, 0, -jxz], [0, jy, -jyz]]
    S row_u[3], row_v[3];                // Jacobian times R
    S axis_u[3], axis_v[3];              // ... times the Gaussian's rotation
    S u[3], v[3];                        // ... times its scales; the screen covariance is [u v]^T [u v]
    S var_x, cov, var_y;                 // before the low-pass filter, pixels^2
};

template <typename S>
LPM_HD inline void to_camera(const Camera<S>& camera, const S* mean, Footprint<S>& f) {
    f.x = dot3(camera.R, mean) + camera.t[0];
    f.y = dot3(camera.R + 3, mean) + camera.t[1];
    f.z = dot3(camera.R + 6, mean) + camera.t[2];
}

template <typename S>
LPM_HD inline void screen_covariance(const Camera<S>& camera, const S* quat, const S* scale, Footprint<S>& f) {
    f.inv_z = 1 / f.z;
    const S slope_x = f.x * f.inv_z, slope_y = f.y * f.inv_z;
    f.clamped_x = slope_x < camera.lo_x || slope_x > camera.hi_x;
    f.clamped_y = slope_y < camera.lo_y || slope_y > camera.hi_y;
    f.tx = f.z * min_of(max_of(slope_x, camera.lo_x), camera.hi_x);
    f.ty = f.z * min_of(max_of(slope_y, camera.lo_y), camera.hi_y);
    f.jx = camera.fx * f.inv_z;
    f.jxz = f.jx * f.tx * f.inv_z;
    f.jy = camera.fy * f.inv_z;
    f.jyz = f.jy * f.ty * f.inv_z;

    const S norm2 = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
    f.inv_norm = 1 / max_of(std::sqrt(norm2), S(1e-12));
    for (int i = 0; i < 4; i++) f.quat[i] = quat[i] * f.inv_norm;
    const S w = f.quat[0], x = f.quat[1], y = f.quat[2], z = f.quat[3];
    S* R = f.rotation;
    R[0] = 1 - 2 * (y * y + z * z);
    R[1] = 2 * (x * y - w * z);
    R[2] = 2 * (x * z + w * y);
    R[3] = 2 * (x * y + w * z);
    R[4] = 1 - 2 * (x * x + z * z);
    R[5] = 2 * (y * z - w * x);
    R[6] = 2 * (x * z - w * y);
    R[7] = 2 * (y * z + w * x);
    R[8] = 1 - 2 * (x * x + y * y);

    for (int i = 0; i < 3; i++) {
        f.row_u[i] = f.jx * camera.R[i] - f.jxz * camera.R[6 + i];
        f.row_v[i] = f.jy * camera.R[3 + i] - f.jyz * camera.R[6 + i];
    }
    for (int k = 0; k < 3; k++) {
        f.axis_u[k] = f.row_u[0] * R[k] + f.row_u[1] * R[3 + k] + f.row_u[2] * R[6 + k];
        f.axis_v[k] = f.row_v[0] * R[k] + f.row_v[1] * R[3 + k] + f.row_v[2] * R[6 + k];
        f.u[k] = scale[k] * f.axis_u[k];
        f.v[k] = scale[k] * f.axis_v[k];
    }
    f.var_x = dot3(f.u, f.u);
    f.cov = dot3(f.u, f.v);
    f.var_y = dot3(f.v, f.v);
}

// Square root of the area that the low-pass filter added: Mip-Splatting's factor on the opacity.
template <typename S>
LPM_HD inline S compensation(const Footprint<S>& f, S inv_det) {
    return std::sqrt(max_of(S(0), (f.var_x * f.var_y - f.cov * f.cov) * inv_det));
}

// What is drawn of one Gaussian in one camera.
template <typename S>
struct Splat {
    S mean[2], conic[3], opacity;  // pixels, pixels^-2
    int32_t radius[2];             // half box in pixels
};

struct CullRange {
    double near_plane, far_plane, eps2d, radius_clip;
};

// False where nothing of the Gaussian can show: outside the depth range or image, too faint, too small, or degenerate.
// Every comparison is written so that a NaN or an overflow answers false.
template <typename S>
LPM_HD inline bool project(const Camera<S>& camera, const S* mean, const S* quat, const S* scale, S opacity, int width,
                           int height, const CullRange& range, bool antialiased, Footprint<S>& f, Splat<S>& splat) {
    to_camera(camera, mean, f);
    if (!(f.z >= S(range.near_plane) && f.z <= S(range.far_plane))) return false;
    screen_covariance(camera, quat, scale, f);
    const S var_x = f.var_x + S(range.eps2d), var_y = f.var_y + S(range.eps2d);
    const S det = var_x * var_y - f.cov * f.cov;
    if (!(det > 0 && det * 0 == 0)) return false;
    const S inv_det = 1 / det;
    splat.opacity = antialiased ? opacity * compensation(f, inv_det) : opacity;
    if (!(splat.opacity >= Limits<S>::min_alpha)) return false;
    const S extent = min_of(Limits<S>::max_extent, std::sqrt(2 * std::log(splat.opacity * 255)));
    const S radius_x = min_of(std::ceil(extent * std::sqrt(var_x)), S(1 << 30));
    const S radius_y = min_of(std::ceil(extent * std::sqrt(var_y)), S(1 << 30));
    if (radius_x <= S(range.radius_clip) && radius_y <= S(range.radius_clip)) return false;
    splat.mean[0] = camera.fx * f.x * f.inv_z + camera.cx;
    splat.mean[1] = camera.fy * f.y * f.inv_z + camera.cy;
    if (!(splat.mean[0] + radius_x > 0 && splat.mean[0] - radius_x < width)) return false;
    if (!(splat.mean[1] + radius_y > 0 && splat.mean[1] - radius_y < height)) return false;
    splat.conic[0] = var_y * inv_det;
    splat.conic[1] = -f.cov * inv_det;
    splat.conic[2] = var_x * inv_det;
    splat.radius[0] = int32_t(radius_x);
    splat.radius[1] = int32_t(radius_y);
    return splat.conic[0] * 0 == 0 && splat.conic[1] * 0 == 0 && splat.conic[2] * 0 == 0;
}

// Cotangents of what `project` drew.
template <typename S>
struct SplatGrad {
    S mean[2], conic[3], depth, opacity;
};
// Gradients of one Gaussian's parameters; each camera adds to them.
template <typename S>
struct PointGrad {
    S mean[3], quat[4], scale[3], opacity;
};

// Adds the gradient of the rotation matrix `g` (row major) to that of the unnormalised quaternion.
template <typename S>
LPM_HD inline void rotation_backward(const Footprint<S>& f, const S* g, S* grad_quat) {
    const S w = f.quat[0], x = f.quat[1], y = f.quat[2], z = f.quat[3];
    const S unit[4] = {2 * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1])),
                       2 * (-2 * x * (g[4] + g[8]) + y * (g[1] + g[3]) + z * (g[2] + g[6]) + w * (g[7] - g[5])),
                       2 * (x * (g[1] + g[3]) - 2 * y * (g[0] + g[8]) + z * (g[5] + g[7]) + w * (g[2] - g[6])),
                       2 * (x * (g[2] + g[6]) + y * (g[5] + g[7]) - 2 * z * (g[0] + g[4]) + w * (g[3] - g[1]))};
    const S along = w * unit[0] + x * unit[1] + y * unit[2] + z * unit[3];
    for (int i = 0; i < 4; i++) grad_quat[i] += (unit[i] - f.quat[i] * along) * f.inv_norm;
}

// Backward of `project` for a Gaussian that was drawn. Adds to `out`; grad_viewmat (12 values: rows of [R t]) may be null.
template <typename S>
LPM_HD inline void project_backward(const Camera<S>& camera, const S* mean, const S* quat, const S* scale, S opacity, S eps2d,
                                    bool antialiased, const SplatGrad<S>& g, PointGrad<S>& out, S* grad_viewmat) {
    Footprint<S> f;
    to_camera(camera, mean, f);
    screen_covariance(camera, quat, scale, f);
    const S var_x = f.var_x + eps2d, var_y = f.var_y + eps2d;
    const S inv_det = 1 / (var_x * var_y - f.cov * f.cov);

    // conic = covariance^-1, so d covariance = -conic (d conic) conic, with d conic symmetric.
    const S k0 = var_y * inv_det, k1 = -f.cov * inv_det, k2 = var_x * inv_det;
    const S g0 = g.conic[0], g1 = g.conic[1] / 2, g2 = g.conic[2];
    const S e00 = g0 * k0 + g1 * k1, e01 = g0 * k1 + g1 * k2, e10 = g1 * k0 + g2 * k1, e11 = g1 * k1 + g2 * k2;
    S grad_var_x = -(k0 * e00 + k1 * e10), grad_cov = -2 * (k0 * e01 + k1 * e11), grad_var_y = -(k1 * e01 + k2 * e11);
    if (antialiased) {
        const S factor = compensation(f, inv_det);
        out.opacity += g.opacity * factor;
        if (factor > S(1e-6)) {  // below, the square root's slope is without bound and the splat is not visible
            const S h = g.opacity * opacity * inv_det / (2 * factor), factor2 = factor * factor;
            grad_var_x += h * (f.var_y - factor2 * var_y);
            grad_var_y += h * (f.var_x - factor2 * var_x);
            grad_cov += h * 2 * f.cov * (factor2 - 1);
        }
    } else {
        out.opacity += g.opacity;
    }

    S grad_u[3], grad_v[3];
    for (int k = 0; k < 3; k++) {
        grad_u[k] = 2 * grad_var_x * f.u[k] + grad_cov * f.v[k];
        grad_v[k] = 2 * grad_var_y * f.v[k] + grad_cov * f.u[k];
        out.scale[k] += grad_u[k] * f.axis_u[k] + grad_v[k] * f.axis_v[k];
        grad_u[k] *= scale[k];
        grad_v[k] *= scale[k];
    }
    S grad_rotation[9], grad_row_u[3], grad_row_v[3];
    for (int i = 0; i < 3; i++) {
        grad_row_u[i] = dot3(grad_u, f.rotation + 3 * i);
        grad_row_v[i] = dot3(grad_v, f.rotation + 3 * i);
        for (int k = 0; k < 3; k++) grad_rotation[3 * i + k] = grad_u[k] * f.row_u[i] + grad_v[k] * f.row_v[i];
    }
    rotation_backward(f, grad_rotation, out.quat);

    const S *Rx = camera.R, *Ry = camera.R + 3, *Rz = camera.R + 6;
    const S grad_jx = dot3(grad_row_u, Rx), grad_jxz = -dot3(grad_row_u, Rz);
    const S grad_jy = dot3(grad_row_v, Ry), grad_jyz = -dot3(grad_row_v, Rz);
    const S inv_z2 = f.inv_z * f.inv_z;
    S gx = g.mean[0] * f.jx, gy = g.mean[1] * f.jy;
    S gz = g.depth - (g.mean[0] * camera.fx * f.x + g.mean[1] * camera.fy * f.y) * inv_z2;
    gz -= (grad_jx * camera.fx + grad_jy * camera.fy) * inv_z2 + 2 * f.inv_z * (grad_jxz * f.jxz + grad_jyz * f.jyz);
    const S grad_tx = grad_jxz * camera.fx * inv_z2, grad_ty = grad_jyz * camera.fy * inv_z2;
    // Where it is clamped, tx is a constant times z.
    if (f.clamped_x) gz += grad_tx * f.tx * f.inv_z;
    else gx += grad_tx;
    if (f.clamped_y) gz += grad_ty * f.ty * f.inv_z;
    else gy += grad_ty;
    for (int j = 0; j < 3; j++) out.mean[j] += Rx[j] * gx + Ry[j] * gy + Rz[j] * gz;

    if (grad_viewmat) {
        const S along[3] = {gx, gy, gz};
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 3; j++) grad_viewmat[4 * i + j] += along[i] * mean[j];
            grad_viewmat[4 * i + 3] += along[i];
        }
        for (int j = 0; j < 3; j++) {
            grad_viewmat[j] += f.jx * grad_row_u[j];
            grad_viewmat[4 + j] += f.jy * grad_row_v[j];
            grad_viewmat[8 + j] -= f.jxz * grad_row_u[j] + f.jyz * grad_row_v[j];
        }
    }
}

// The camera centre is -R^-1 t: adds what its gradient brings to rows [R t].
template <typename S, typename A>
LPM_HD inline void center_backward(const Camera<S>& camera, const A* grad_center, A* grad_viewmat) {
    for (int i = 0; i < 3; i++) {
        A h = 0;  // row i of -R^-T grad_center
        for (int k = 0; k < 3; k++) h -= A(camera.Rinv[3 * k + i]) * grad_center[k];
        for (int j = 0; j < 3; j++) grad_viewmat[4 * i + j] += h * A(camera.center[j]);
        grad_viewmat[4 * i + 3] += h;
    }
}

}  // namespace lpm
