// Projection and spherical harmonics over all points and cameras: C ABI of `lpm.cuda.native`, forward and backward.
#include <cstring>
#include <vector>

#include "memory.h"
#include "projection.h"
#include "spherical_harmonics.h"

using namespace lpm;

namespace {

// Sums over points are taken per block and the blocks are added in order: the same bits for any number of threads.
constexpr int64_t BLOCK = 1024;

// Colour coefficients [N, K, 3] in two arrays, degree 0 and the rest; `stride` is the distance between points.
template <typename S>
struct Harmonics {
    int degree;  // -1: none
    S *first, *rest;
    int64_t first_stride, rest_stride, rest_count;
};

template <typename S>
bool all_finite(const S* values, int count) {
    S sum = 0;  // 0 * x is NaN for an infinity or NaN, and 0 else: no overflow can spoil the sum
    for (int i = 0; i < count; i++) sum += values[i] * 0;
    return sum == 0;
}

// Unit direction from the camera to the point; returns 1 / distance.
template <typename S>
S view_direction(const Camera<S>& camera, const S* mean, S* direction) {
    for (int i = 0; i < 3; i++) direction[i] = mean[i] - camera.center[i];
    const S inv = 1 / std::sqrt(dot3(direction, direction));
    for (int i = 0; i < 3; i++) direction[i] *= inv;
    return inv;
}

// False if the sum is not finite: the cut at 0 would hide a minus infinity.
template <typename S>
bool sh_color(const Harmonics<const S>& sh, int64_t point, const S* direction, S* color) {
    S basis[MAX_SH_BASES];
    sh_basis<S>(sh.degree, direction[0], direction[1], direction[2], basis);
    const S* first = sh.first + sh.first_stride * point;
    const S* rest = sh.rest + sh.rest_stride * point;
    for (int c = 0; c < 3; c++) color[c] = S(0.5) + basis[0] * first[c];
    for (int k = 1; k < sh_bases(sh.degree); k++)
        for (int c = 0; c < 3; c++) color[c] += basis[k] * rest[3 * (k - 1) + c];
    const bool finite = all_finite(color, 3);
    for (int c = 0; c < 3; c++) color[c] = max_of(color[c], S(0));
    return finite;
}

// `add` is false for the first camera that sees the point: its row is then written, not added to.
template <typename S>
void sh_backward(const Harmonics<const S>& sh, const Harmonics<S>& grad, int64_t point, const S* direction, S inv_distance,
                 const S* color, const S* grad_color, bool add, S* grad_direction) {
    S basis[MAX_SH_BASES], weight[MAX_SH_BASES], g[3];
    const int bases = sh_bases(sh.degree);
    sh_basis<S>(sh.degree, direction[0], direction[1], direction[2], basis);
    for (int c = 0; c < 3; c++) g[c] = color[c] > 0 ? grad_color[c] : S(0);  // colours are cut at 0
    const S* rest = sh.rest + sh.rest_stride * point;
    S* out_first = grad.first + grad.first_stride * point;
    S* out_rest = grad.rest + grad.rest_stride * point;
    for (int c = 0; c < 3; c++) out_first[c] = (add ? out_first[c] : S(0)) + basis[0] * g[c];
    if (add) {
        for (int k = 1; k < bases; k++)
            for (int c = 0; c < 3; c++) out_rest[3 * (k - 1) + c] += basis[k] * g[c];
    } else {
        for (int k = 1; k < bases; k++)
            for (int c = 0; c < 3; c++) out_rest[3 * (k - 1) + c] = basis[k] * g[c];
        const int64_t unused = grad.rest_count - (bases - 1);
        if (unused > 0) memset(out_rest + 3 * (bases - 1), 0, sizeof(S) * 3 * unused);
    }
    for (int k = 1; k < bases; k++) weight[k] = dot3(g, rest + 3 * (k - 1));
    S free[3] = {0, 0, 0};
    sh_basis_backward<S>(sh.degree, direction[0], direction[1], direction[2], weight, free);
    const S radial = dot3(free, direction);  // the direction has unit length: no gradient along itself
    for (int i = 0; i < 3; i++) grad_direction[i] = (free[i] - direction[i] * radial) * inv_distance;
}

template <typename S>
std::vector<Camera<S>> make_cameras(int count, const S* viewmats, const S* Ks, int width, int height) {
    std::vector<Camera<S>> cameras(count);
    for (int c = 0; c < count; c++) cameras[c] = make_camera(viewmats + 16 * c, Ks + 9 * c, width, height);
    return cameras;
}

// Returns how many rows hold a NaN or infinity; they are not drawn.
template <typename S>
int64_t forward(int threads, int64_t n, int cameras, const S* means, const S* quats, const S* scales, const S* opacities,
                const S* viewmats, const S* Ks, int width, int height, CullRange range, bool antialiased, Harmonics<const S> sh,
                int32_t* radii, S* means2d, S* depths, S* conics, S* splat_opacities, S* colors) {
    const std::vector<Camera<S>> views = make_cameras(cameras, viewmats, Ks, width, height);
    int64_t bad = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : bad)
    for (int64_t i = 0; i < n; i++) {
        const S *mean = means + 3 * i, *quat = quats + 4 * i, *scale = scales + 3 * i;
        const bool finite = all_finite(mean, 3) && all_finite(quat, 4) && all_finite(scale, 3) && all_finite(opacities + i, 1);
        bool finite_color = true;
        for (int c = 0; c < cameras; c++) {
            const int64_t row = c * n + i;
            Footprint<S> f;
            Splat<S> splat{};
            S color[3] = {0, 0, 0};
            const bool drawn =
                finite && project(views[c], mean, quat, scale, opacities[i], width, height, range, antialiased, f, splat);
            if (!drawn) {
                splat = Splat<S>{};
                f.z = 0;
            } else if (colors) {
                S direction[3];
                view_direction(views[c], mean, direction);
                finite_color &= sh_color(sh, i, direction, color);
            }
            for (int k = 0; k < 2; k++) radii[2 * row + k] = splat.radius[k];
            for (int k = 0; k < 2; k++) means2d[2 * row + k] = splat.mean[k];
            for (int k = 0; k < 3; k++) conics[3 * row + k] = splat.conic[k];
            depths[row] = f.z;
            if (splat_opacities) splat_opacities[row] = splat.opacity;
            if (colors)
                for (int k = 0; k < 3; k++) colors[3 * row + k] = color[k];
        }
        bad += !(finite && finite_color);
    }
    return bad;
}

template <typename S>
void backward(int threads, int64_t n, int cameras, const S* means, const S* quats, const S* scales, const S* opacities,
              const S* viewmats, const S* Ks, int width, int height, double eps2d, bool antialiased, Harmonics<const S> sh,
              const int32_t* radii, const S* colors, const S* grad_means2d, const S* grad_depths, const S* grad_conics,
              const S* grad_splat_opacities, const S* grad_colors, bool log_scales, bool logit_opacities, S* grad_means,
              S* grad_quats, S* grad_scales, S* grad_opacities, Harmonics<S> grad_sh, S* grad_viewmats) {
    const std::vector<Camera<S>> views = make_cameras(cameras, viewmats, Ks, width, height);
    if (colors && n > 0) {
        advise_huge_pages(grad_sh.first, sizeof(S) * grad_sh.first_stride * n);
        if (grad_sh.rest_count > 0)
            advise_huge_pages(grad_sh.rest, sizeof(S) * (grad_sh.rest_stride * (n - 1) + 3 * grad_sh.rest_count));
    }
    const int64_t blocks = (n + BLOCK - 1) / BLOCK;
    std::vector<S> block_sums(grad_viewmats ? size_t(blocks) * cameras * 12 : 0, S(0));
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t end = min_of(n, (block + 1) * BLOCK);
        std::vector<S> center_sums(grad_viewmats && colors ? 3 * cameras : 0, S(0));
        for (int64_t i = block * BLOCK; i < end; i++) {
            const S* mean = means + 3 * i;
            PointGrad<S> point{};
            bool seen = false;
            for (int c = 0; c < cameras; c++) {
                const int64_t row = c * n + i;
                if (radii[2 * row] <= 0) continue;
                SplatGrad<S> g;
                for (int k = 0; k < 2; k++) g.mean[k] = grad_means2d[2 * row + k];
                for (int k = 0; k < 3; k++) g.conic[k] = grad_conics[3 * row + k];
                g.depth = grad_depths ? grad_depths[row] : S(0);
                g.opacity = grad_splat_opacities ? grad_splat_opacities[row] : S(0);
                S* grad_view = grad_viewmats ? block_sums.data() + 12 * (size_t(block) * cameras + c) : nullptr;
                project_backward(views[c], mean, quats + 4 * i, scales + 3 * i, opacities[i], S(eps2d), antialiased, g, point,
                                 grad_view);
                if (colors) {
                    S direction[3], grad_direction[3];
                    const S inv_distance = view_direction(views[c], mean, direction);
                    sh_backward(sh, grad_sh, i, direction, inv_distance, colors + 3 * row, grad_colors + 3 * row, seen,
                                grad_direction);
                    for (int k = 0; k < 3; k++) point.mean[k] += grad_direction[k];
                    if (grad_view)
                        for (int k = 0; k < 3; k++) center_sums[3 * c + k] -= grad_direction[k];
                }
                seen = true;
            }
            if (colors && !seen) {
                for (int k = 0; k < 3; k++) grad_sh.first[grad_sh.first_stride * i + k] = 0;
                if (grad_sh.rest_count > 0) memset(grad_sh.rest + grad_sh.rest_stride * i, 0, sizeof(S) * 3 * grad_sh.rest_count);
            }
            for (int k = 0; k < 3; k++) grad_means[3 * i + k] = point.mean[k];
            for (int k = 0; k < 4; k++) grad_quats[4 * i + k] = point.quat[k];
            for (int k = 0; k < 3; k++) grad_scales[3 * i + k] = point.scale[k] * (log_scales ? scales[3 * i + k] : S(1));
            if (grad_opacities) grad_opacities[i] = point.opacity * (logit_opacities ? opacities[i] * (1 - opacities[i]) : S(1));
        }
        if (grad_viewmats && colors)
            for (int c = 0; c < cameras; c++)
                center_backward(views[c], center_sums.data() + 3 * c, block_sums.data() + 12 * (size_t(block) * cameras + c));
    }
    if (!grad_viewmats) return;
    for (int c = 0; c < cameras; c++) {
        double total[12] = {0};
        for (int64_t block = 0; block < blocks; block++)
            for (int k = 0; k < 12; k++) total[k] += block_sums[12 * (size_t(block) * cameras + c) + k];
        for (int k = 0; k < 16; k++) grad_viewmats[16 * c + k] = k < 12 ? S(total[k]) : S(0);
    }
}

}  // namespace

#define LPM_PROJECT_API(S, SUFFIX)                                                                                              \
    extern "C" int64_t lpm_project_forward_##SUFFIX(                                                                            \
        int threads, int64_t n, int cameras, const S* means, const S* quats, const S* scales, const S* opacities,               \
        const S* viewmats, const S* Ks, int width, int height, double near_plane, double far_plane, double eps2d,               \
        double radius_clip, int antialiased, int sh_degree, const S* sh0, int64_t sh0_stride, const S* shN, int64_t shN_stride, \
        int64_t shN_count, int32_t* radii, S* means2d, S* depths, S* conics, S* splat_opacities, S* colors) {                   \
        return forward<S>(threads, n, cameras, means, quats, scales, opacities, viewmats, Ks, width, height,                    \
                          {near_plane, far_plane, eps2d, radius_clip}, antialiased,                                             \
                          {sh_degree, sh0, shN, sh0_stride, shN_stride, shN_count}, radii, means2d, depths, conics,             \
                          splat_opacities, colors);                                                                             \
    }                                                                                                                           \
    extern "C" void lpm_project_backward_##SUFFIX(                                                                              \
        int threads, int64_t n, int cameras, const S* means, const S* quats, const S* scales, const S* opacities,               \
        const S* viewmats, const S* Ks, int width, int height, double eps2d, int antialiased, int sh_degree, const S* sh0,      \
        int64_t sh0_stride, const S* shN, int64_t shN_stride, int64_t shN_count, const int32_t* radii, const S* colors,         \
        const S* grad_means2d, const S* grad_depths, const S* grad_conics, const S* grad_splat_opacities, const S* grad_colors, \
        int log_scales, int logit_opacities, S* grad_means, S* grad_quats, S* grad_scales, S* grad_opacities, S* grad_sh0,      \
        S* grad_shN, S* grad_viewmats) {                                                                                        \
        backward<S>(threads, n, cameras, means, quats, scales, opacities, viewmats, Ks, width, height, eps2d, antialiased,      \
                    {sh_degree, sh0, shN, sh0_stride, shN_stride, shN_count}, radii, colors, grad_means2d, grad_depths,         \
                    grad_conics, grad_splat_opacities, grad_colors, log_scales, logit_opacities, grad_means, grad_quats,        \
                    grad_scales, grad_opacities, {sh_degree, grad_sh0, grad_shN, sh0_stride, shN_stride, shN_count},            \
                    grad_viewmats);                                                                                             \
    }
LPM_PROJECT_API(float, f32)
LPM_PROJECT_API(double, f64)
