// How alike patches of one photo look in another one, at many depths: see Warp in lpm/multiview/patch_warp.py, the torch twin.
//
// A pair of a patch and a neighbour belongs to one thread, so that the bits depend on no number of threads.
#include <cstring>
#include <vector>

#include "patches.h"

namespace lpm {

// A patch as a neighbour sees it, in arrays of its pixels: (x, y, z) = a + b w, w the inverse depth of each.
template <typename S>
struct Projected {
    int side, n;
    std::vector<S> store;
    S *ax, *ay, *az, *right, *down, b[3];

    explicit Projected(int side) : side(side), n(side * side), store(5 * n) {
        S** arrays[5] = {&ax, &ay, &az, &right, &down};
        for (int k = 0; k < 5; k++) *arrays[k] = store.data() + k * n;
        for (int i = 0; i < n; i++) {
            right[i] = S(i % side - side / 2);
            down[i] = S(i / side - side / 2);
        }
    }
    void set(const S* a, const S* b_of) {
        for (int i = 0; i < n; i++) {
            ax[i] = a[3 * i];
            ay[i] = a[3 * i + 1];
            az[i] = a[3 * i + 2];
        }
        for (int c = 0; c < 3; c++) b[c] = b_of[c];
    }
    inline void at(int i, S w, S slope_x, S slope_y, S* x, S* y, S* z) const {
        const S here = w * (1 + (slope_x * right[i] + slope_y * down[i]));
        *z = az[i] + b[2] * here;
        const S scale = 1 / max_of(*z, S(1e-6));
        *x = (ax[i] + b[0] * here) * scale;
        *y = (ay[i] + b[1] * here) * scale;
    }
    // Half a pixel inside, so that no sample is made up from beyond the border.
    bool corners_inside(S w, S slope_x, S slope_y, S limit_x, S limit_y) const {
        for (int i : {0, side - 1, n - side, n - 1}) {
            S x, y, z;
            at(i, w, slope_x, slope_y, &x, &y, &z);
            if (!(std::abs(x) <= limit_x && std::abs(y) <= limit_y && z > S(1e-6))) return false;
        }
        return true;
    }
};

// out [rows, k, depths]: zero-mean normalised cross-correlation, left as it is where a corner of the patch is not seen.
// pairs [count]: row * k + neighbour. rows: the patch of each row. a [patches, k, side^2, 3], b [patches, k, 3],
// ref [patches, side^2], w [rows, depths], slope [rows, depths, 2] or null.
template <typename S>
static void zncc(int threads, int64_t count, const int64_t* pairs, const int64_t* rows, int k, int64_t depths, int side,
                 Photo<S> photo, const S* a, const S* b, const S* ref, const S* w, const S* slope, S* out) {
    const int n = side * side;
    const S limit_x = 1 - 1 / S(photo.width), limit_y = 1 - 1 / S(photo.height);
#pragma omp parallel num_threads(threads)
    {
        Projected<S> patch(side);
        std::vector<int> corner(n);
        std::vector<S> u(n), v(n), high(2 * n), low(2 * n);
#pragma omp for schedule(dynamic)
        for (int64_t q = 0; q < count; q++) {
            const int64_t row = pairs[q] / k, seen_by = rows[row] * k + pairs[q] % k;
            const S* own = ref + rows[row] * n;
            patch.set(a + seen_by * n * 3, b + seen_by * 3);
            for (int64_t h = 0; h < depths; h++) {
                const int64_t at = row * depths + h;
                const S slope_x = slope ? slope[2 * at] : 0, slope_y = slope ? slope[2 * at + 1] : 0, depth = w[at];
                if (!patch.corners_inside(depth, slope_x, slope_y, limit_x, limit_y)) continue;
                for (int i = 0; i < n; i++) {
                    S x, y, z;
                    patch.at(i, depth, slope_x, slope_y, &x, &y, &z);
                    corner[i] = photo.corner(x, y, &u[i], &v[i]);
                }
                for (int i = 0; i < n; i++) {
                    const S* pixels = photo.gray + corner[i];
                    std::memcpy(&high[2 * i], pixels, 2 * sizeof(S));
                    std::memcpy(&low[2 * i], pixels + photo.width, 2 * sizeof(S));
                    // No vectors here: fetched by vectors of addresses, pixels take as long as all else together.
                    asm volatile("");
                }
                S sum = 0, square = 0, cross = 0;
#pragma omp simd reduction(+ : sum, square, cross)
                for (int i = 0; i < n; i++) {
                    const S value = photo.between(&high[2 * i], &low[2 * i], u[i], v[i]);
                    sum += value;
                    square += value * value;
                    cross += value * own[i];
                }
                const S mean = sum / n, variance = square / n - mean * mean;
                // The reference is centred and of length 1.
                const S score = cross / (std::sqrt(max_of(S(1e-7), variance)) * side);
                if (std::isfinite(score)) out[pairs[q] * depths + h] = score;
            }
        }
    }
}

}  // namespace lpm

#define LPM_PATCHES_API(S, SUFFIX)                                                                                             \
    extern "C" void lpm_zncc_##SUFFIX(int threads, int64_t count, const int64_t* pairs, const int64_t* rows, int k,            \
                                      int64_t depths, int side, const S* gray, int64_t height, int64_t width, const S* a,      \
                                      const S* b, const S* ref, const S* w, const S* slope, S* out) {                          \
        lpm::zncc<S>(threads, count, pairs, rows, k, depths, side, {gray, int(height), int(width)}, a, b, ref, w, slope, out); \
    }
LPM_PATCHES_API(float, f32)
LPM_PATCHES_API(double, f64)
