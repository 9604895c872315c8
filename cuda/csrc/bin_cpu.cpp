// Which splats each tile draws, front to back: count, sort by depth once, and bucket.
// No atomics: each pass writes places that were computed before, so that the lists are the same for any number of threads.
#include <algorithm>
#include <cstring>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "tiles.h"

using namespace lpm;

namespace {

int thread_index() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}
int team_size() {
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}

// Unsigned keys in the order of the floats.
inline uint32_t depth_key(float depth) {
    uint32_t bits;
    memcpy(&bits, &depth, sizeof bits);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
inline uint64_t depth_key(double depth) {
    uint64_t bits;
    memcpy(&bits, &depth, sizeof bits);
    return bits >> 63 ? ~bits : bits | 0x8000000000000000u;
}

template <typename Key>
struct Entry {
    Key key;
    int32_t splat;
};

// Stable least-significant-digit radix sort; each thread moves its own stretch to places known beforehand.
template <typename Key>
void radix_sort(int threads, std::vector<Entry<Key>>& entries) {
    constexpr int BITS = 11, DIGITS = 1 << BITS;
    const int64_t n = int64_t(entries.size());
    std::vector<Entry<Key>> other(n);
    // 100,000 entries take a millisecond; six parallel regions take longer than that on a machine that is busy.
    threads = int(std::min<int64_t>(threads, n / 400000 + 1));
    std::vector<int64_t> place(size_t(threads) * DIGITS);
    for (int shift = 0; shift < int(sizeof(Key) * 8); shift += BITS) {
        std::fill(place.begin(), place.end(), 0);
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int t = 0; t < threads; t++) {
            int64_t* count = place.data() + size_t(t) * DIGITS;
            for (int64_t k = n * t / threads; k < n * (t + 1) / threads; k++) count[entries[k].key >> shift & (DIGITS - 1)]++;
        }
        int64_t total = 0;
        bool one_digit = false;
        for (int digit = 0; digit < DIGITS; digit++) {
            const int64_t before = total;
            for (int t = 0; t < threads; t++) {
                int64_t& cell = place[size_t(t) * DIGITS + digit];
                const int64_t here = cell;
                cell = total;
                total += here;
            }
            one_digit |= total - before == n;
        }
        if (one_digit) continue;
#pragma omp parallel for schedule(static) num_threads(threads)
        for (int t = 0; t < threads; t++) {
            int64_t* next = place.data() + size_t(t) * DIGITS;
            for (int64_t k = n * t / threads; k < n * (t + 1) / threads; k++)
                other[next[entries[k].key >> shift & (DIGITS - 1)]++] = entries[k];
        }
        entries.swap(other);
    }
}

// Fills `packed` [C*N], `splat_begin` [C*N+1] (a splat's first gradient slot) and `tile_begin` [C*tiles+1].
// Returns the number of (splat, tile) pairs; -1 if a drawn splat's colour is not finite.
template <typename S>
int64_t count(int threads, int64_t n, int cameras, const S* means2d, const S* conics, const S* opacities, const int32_t* radii,
              const S* colors, int64_t color_camera_stride, int channels, int width, int height, Packed<S>* packed,
              int64_t* splat_begin, int64_t* tile_begin) {
    const TileGrid grid = make_grid(width, height);
    const int64_t tiles = int64_t(grid.columns) * grid.rows;
    int64_t total = 0, bad = 0;
    splat_begin[0] = tile_begin[0] = 0;
    std::vector<int32_t> histogram(size_t(threads) * tiles);
    for (int camera = 0; camera < cameras; camera++) {
        std::fill(histogram.begin(), histogram.end(), 0);
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : bad)
        for (int64_t i = 0; i < n; i++) {
            const int64_t splat = camera * n + i;
            int64_t pairs = 0;
            if (radii[2 * splat] > 0 && radii[2 * splat + 1] > 0) {
                const Packed<S> p = packed[splat] = pack(means2d + 2 * splat, conics + 3 * splat, opacities[splat]);
                S zero = 0;
                for (int c = 0; c < channels; c++) zero += colors[camera * color_camera_stride + i * channels + c] * 0;
                bad += !(zero == 0);
                int32_t* mine = histogram.data() + size_t(thread_index()) * tiles;
                const Ellipse<S> ellipse = make_ellipse(p);
                const Span rows = p.max_sigma >= 0 ? tile_rows(ellipse, grid) : Span{0, 0};
                for (int row = rows.begin; row < rows.end; row++) {
                    const Span columns = tile_columns(ellipse, row, grid);
                    pairs += columns.end - columns.begin;
                    for (int column = columns.begin; column < columns.end; column++) mine[row * grid.columns + column]++;
                }
            }
            splat_begin[splat + 1] = pairs;
        }
        for (int64_t splat = camera * n; splat < (camera + 1) * n; splat++) splat_begin[splat + 1] += splat_begin[splat];
        for (int64_t tile = 0; tile < tiles; tile++) {
            for (int t = 0; t < threads; t++) total += histogram[size_t(t) * tiles + tile];
            tile_begin[camera * tiles + tile + 1] = total;
        }
    }
    return bad ? -1 : total;
}

// Fills `pair_splat`, `pair_rows` (begin | end << 8 of its pixel rows) and `pair_slot` (may be null), all [pairs], tile
// after tile and within a tile front to back.
template <typename S>
void fill(int threads, int64_t n, int cameras, const S* depths, const Packed<S>* packed, const int64_t* splat_begin,
          const int64_t* tile_begin, int width, int height, int32_t* pair_splat, uint16_t* pair_rows, int32_t* pair_slot) {
    const TileGrid grid = make_grid(width, height);
    const int64_t tiles = int64_t(grid.columns) * grid.rows;
    typedef decltype(depth_key(S())) Key;
    std::vector<Entry<Key>> order;
    std::vector<int64_t> next(tiles);
    for (int camera = 0; camera < cameras; camera++) {
        const int64_t* begin = tile_begin + camera * tiles;
        order.clear();
        order.reserve(n);
        for (int64_t splat = camera * n; splat < (camera + 1) * n; splat++)
            if (splat_begin[splat + 1] > splat_begin[splat]) order.push_back({depth_key(depths[splat]), int32_t(splat)});
        radix_sort(threads, order);
        std::copy(begin, begin + tiles, next.begin());
        // Each thread owns a band of tile rows with its share of the pairs, and walks all splats in order.
#pragma omp parallel num_threads(threads)
        {
            const int team = team_size(), me = thread_index();
            auto band = [&](int part) {
                if (part == team) return grid.rows;
                const int64_t wanted = begin[0] + (begin[tiles] - begin[0]) * part / team;
                int row = 0;
                while (row < grid.rows && begin[int64_t(row) * grid.columns] < wanted) row++;
                return part == 0 ? 0 : row;
            };
            const int first = band(me), last = band(me + 1);
            const int64_t drawn = int64_t(order.size());
            for (int64_t k = 0; k < drawn; k++) {
                const Entry<Key> entry = order[k];
                // Splats lie in memory in another order than that of their depth.
                const int32_t soon = order[std::min(k + 8, drawn - 1)].splat;
                __builtin_prefetch(packed + soon);
                __builtin_prefetch(splat_begin + soon);
                const Ellipse<S> ellipse = make_ellipse(packed[entry.splat]);
                const Span rows = tile_rows(ellipse, grid);
                if (rows.end <= first || rows.begin >= last) continue;
                int64_t slot = splat_begin[entry.splat];
                for (int row = rows.begin; row < std::min(rows.end, last); row++) {
                    const Span columns = tile_columns(ellipse, row, grid);
                    if (row < first) {
                        slot += columns.end - columns.begin;
                        continue;
                    }
                    for (int column = columns.begin; column < columns.end; column++) {
                        const int64_t place = next[int64_t(row) * grid.columns + column]++;
                        pair_splat[place] = entry.splat;
                        const Span lines = pixel_rows(ellipse, column * TILE, row * TILE);
                        pair_rows[place] = uint16_t(lines.begin | lines.end << 8);
                        if (pair_slot) pair_slot[place] = int32_t(slot);
                        slot++;
                    }
                }
            }
        }
    }
}

}  // namespace

#define LPM_BIN_API(S, SUFFIX)                                                                                                   \
    extern "C" int64_t lpm_bin_count_##SUFFIX(int threads, int64_t n, int cameras, const S* means2d, const S* conics,            \
                                              const S* opacities, const int32_t* radii, const S* colors,                         \
                                              int64_t color_camera_stride, int channels, int width, int height, S* packed,       \
                                              int64_t* splat_begin, int64_t* tile_begin) {                                       \
        return count<S>(threads, n, cameras, means2d, conics, opacities, radii, colors, color_camera_stride, channels, width,    \
                        height, reinterpret_cast<Packed<S>*>(packed), splat_begin, tile_begin);                                  \
    }                                                                                                                            \
    extern "C" void lpm_bin_fill_##SUFFIX(int threads, int64_t n, int cameras, const S* depths, const S* packed,                 \
                                          const int64_t* splat_begin, const int64_t* tile_begin, int width, int height,          \
                                          int32_t* pair_splat, uint16_t* pair_rows, int32_t* pair_slot) {                        \
        fill<S>(threads, n, cameras, depths, reinterpret_cast<const Packed<S>*>(packed), splat_begin, tile_begin, width, height, \
                pair_splat, pair_rows, pair_slot);                                                                               \
    }
LPM_BIN_API(float, f32)
LPM_BIN_API(double, f64)
