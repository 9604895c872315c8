// Whether any of a tensor's values is a NaN or an infinity: read once, nothing written, without a branch a value.
#include <cstdint>
#include <cstring>

namespace lpm {

// Of both all bits of the exponent are set.
template <typename S, typename Bits>
static int64_t not_finite(int threads, int64_t count, const S* values, Bits exponent) {
    int64_t found = 0;
#pragma omp parallel for schedule(static) num_threads(count < 32768 ? 1 : threads) reduction(| : found)
    for (int64_t begin = 0; begin < count; begin += 4096) {
        const int64_t end = begin + 4096 < count ? begin + 4096 : count;
        Bits any = 0;
        for (int64_t i = begin; i < end; i++) {
            Bits bits;
            std::memcpy(&bits, values + i, sizeof(Bits));
            any |= (bits & exponent) == exponent;
        }
        found |= int64_t(any);
    }
    return found;
}

}  // namespace lpm

extern "C" int64_t lpm_not_finite_f32(int threads, int64_t count, const float* values) {
    return lpm::not_finite<float, uint32_t>(threads, count, values, 0x7f800000u);
}
extern "C" int64_t lpm_not_finite_f64(int threads, int64_t count, const double* values) {
    return lpm::not_finite<double, uint64_t>(threads, count, values, 0x7ff0000000000000ull);
}
