// The kernels for CUDA, with a plain C ABI: device pointers and a stream in, no torch headers. device_cpu.cpp compiles the
// same file for the host, where the tests run it.
#include "../include/loss_steps.h"
#include "../include/patches.h"
#include "../include/points.h"

namespace lpm {

// What the tile map is made with; out null: there is none.
template <typename S>
struct TileOptions {
    int stride, tile;
    const uint8_t* mask;
    const S* old;
    S dssim, keep;
    S* out;
};

// scratch: loss_scratch() bytes. gradient: [height, width, channels], or null. loss [2]: mean L1, mean SSIM.
template <typename S>
static void loss(Queue queue, LossImages<S> images, S lambda, const TileOptions<S>& tiles, void* scratch, S* gradient, S* loss) {
    gaussian(images.taps);
    const int64_t row = images.row(), valid = images.valid(), rows = images.rows(), height = images.height;
    RowSums* sums = static_cast<RowSums*>(scratch);
    S* gain = reinterpret_cast<S*>(sums + height);
    S *value = gain + 4, *maps = value + rows * valid, *columns = maps + 3 * rows * valid;  // used twice: 5, then 3 planes
    const TilePixels<S> pixels{tiles.out ? height : 0, images.width, tiles.stride, tiles.tile, images.x, images.y, tiles.mask};
    for_each(queue, rows * row, BlurColumns<S>{images, columns});
    for_each(queue, rows * valid, SsimRows<S>{images, columns, value, gradient ? maps : nullptr});
    for_each_sum(queue, height, SumRows<S>{images, pixels, value, sums});
    for_each_sum(queue, 1, SumImage<S>{images, sums, loss, gain});
    if (gradient) {
        for_each(queue, height * valid, GradientColumns<S>{images, maps, columns});
        for_each(queue, height * row,
                 GradientRows<S>{images, columns, (1 - lambda) / S(height * row), lambda / S(rows * valid), gradient});
    }
    if (tiles.out) {
        const int64_t down = (pixels.rows() + tiles.tile - 1) / tiles.tile;
        for_each_sum(queue, down * pixels.across(), TileErrors<S>{pixels, gain, tiles.old, tiles.dssim, tiles.keep, tiles.out});
    }
}

static int status() {
#if defined(__CUDACC__)
    return int(cudaGetLastError());
#else
    return 0;
#endif
}

}  // namespace lpm

extern "C" int64_t lpm_device_loss_scratch(int64_t height, int64_t width, int channels, int is_double) {
    const int64_t values = 4 + height * width * channels * 9;
    return height * int64_t(sizeof(lpm::RowSums)) + values * (is_double ? 8 : 4);
}

extern "C" const char* lpm_device_error(int status) {
#if defined(__CUDACC__)
    return cudaGetErrorString(cudaError_t(status));
#else
    return status ? "unknown" : "none";
#endif
}

// All return 0, or a number for lpm_device_error().
#define LPM_DEVICE_API(S, SUFFIX)                                                                                                \
    extern "C" int lpm_device_loss_##SUFFIX(void* queue, int64_t height, int64_t width, int channels, const S* x, const S* y,    \
                                            double lambda, int stride, int tile, const uint8_t* mask, const S* old,              \
                                            double dssim, double keep, S* tiles, void* scratch, S* gradient, S* loss) {          \
        lpm::loss<S>(queue, {height, width, channels, x, y, {}}, S(lambda), {stride, tile, mask, old, S(dssim), S(keep), tiles}, \
                     scratch, gradient, loss);                                                                                   \
        return lpm::status();                                                                                                    \
    }                                                                                                                            \
    extern "C" int lpm_device_zone_votes_##SUFFIX(void* queue, int64_t n, int views, const S* means, const S* cameras,           \
                                                  const int64_t* grids, const S* near, const S* far, const S* limit, S* inside,  \
                                                  S* front, int64_t* counts) {                                                   \
        lpm::for_each(queue, n, lpm::ZoneVotes<S>{views, means, cameras, grids, near, far, limit, inside, front, counts});       \
        return lpm::status();                                                                                                    \
    }                                                                                                                            \
    extern "C" int lpm_device_seen_by_few_##SUFFIX(void* queue, int64_t n, int views, int few, double nearest, const S* means,   \
                                                   const S* cameras, const S* sizes, uint8_t* held_by_few) {                     \
        lpm::for_each(queue, n, lpm::SeenByFew<S>{views, few, S(nearest), means, cameras, sizes, held_by_few});                  \
        return lpm::status();                                                                                                    \
    }                                                                                                                            \
    extern "C" int lpm_device_nearest_centre_##SUFFIX(void* queue, int64_t n, int views, const S* means, const S* centres,       \
                                                      S* distance) {                                                             \
        lpm::for_each(queue, n, lpm::NearestCentre<S>{views, means, centres, distance});                                         \
        return lpm::status();                                                                                                    \
    }                                                                                                                            \
    extern "C" int lpm_device_zncc_##SUFFIX(void* queue, int64_t count, const int64_t* pairs, const int64_t* rows, int k,        \
                                            int64_t depths, int side, const S* gray, int64_t height, int64_t width, const S* a,  \
                                            const S* b, const S* ref, const S* w, const S* slope, S* out) {                      \
        const lpm::Photo<S> photo{gray, int(height), int(width)};                                                                \
        lpm::for_each(queue, count* depths, lpm::Zncc<S>{pairs, rows, k, depths, side, photo, a, b, ref, w, slope, out});        \
        return lpm::status();                                                                                                    \
    }                                                                                                                            \
    extern "C" int lpm_device_follow_rows_##SUFFIX(void* queue, int64_t rows, int64_t width, const S* from, S* to,               \
                                                   const int64_t* source, const uint8_t* zero) {                                 \
        lpm::for_each(queue, rows* width, lpm::FollowRows<S>{width, from, to, source, zero});                                    \
        return lpm::status();                                                                                                    \
    }
LPM_DEVICE_API(float, f32)
LPM_DEVICE_API(double, f64)
