// Vectors of the CPU rasterizer: GCC and Clang vector extensions, as wide as the machine's registers and not wider.
// A wider type compiles too, but its compares and selects are then done lane by lane: 5 to 10 times slower.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace lpm {

#if defined(__AVX512F__)
#define LPM_VECTOR_BYTES 64
#elif defined(__AVX__)
#define LPM_VECTOR_BYTES 32
#else
#define LPM_VECTOR_BYTES 16
#endif

template <typename S>
struct Vector;
template <>
struct Vector<float> {
    typedef float F __attribute__((vector_size(LPM_VECTOR_BYTES)));
    typedef int32_t I __attribute__((vector_size(LPM_VECTOR_BYTES)));
    static constexpr int32_t magnitude = 0x7fffffff;
};
template <>
struct Vector<double> {
    typedef double F __attribute__((vector_size(LPM_VECTOR_BYTES)));
    typedef int64_t I __attribute__((vector_size(LPM_VECTOR_BYTES)));
    static constexpr int64_t magnitude = 0x7fffffffffffffff;
};
template <typename S>
using VecF = typename Vector<S>::F;
template <typename S>
constexpr int lanes = LPM_VECTOR_BYTES / sizeof(S);

template <typename S>
inline VecF<S> vabs(VecF<S> x) {
    typedef typename Vector<S>::I I;
    return (VecF<S>)((I)x & Vector<S>::magnitude);
}

// Gaussian falloff exp(-sigma) of a sigma that was multiplied by `falloff_scale`.
// float: 2^-s by splitting s into its nearest integer and a rest in [-.5, .5] (polynomial: Cephes exp2f, error 2e-7).
// Neither libm nor -ffast-math is needed; the latter would set flush-to-zero for the whole process when loaded.
template <typename S>
constexpr S falloff_scale = S(1);
template <>
constexpr float falloff_scale<float> = 1.44269504088896341f;

inline VecF<float> falloff(VecF<float> s) {
    typedef Vector<float>::F F;
    typedef Vector<float>::I I;
    const F x = s > 126.f ? (F{} - 126.f) : -s;
    const F shifted = x + 12582912.f;  // 1.5 * 2^23: the integer part now sits in the low bits
    const F r = x - (shifted - 12582912.f);
    F p = r * 1.535336188319500e-4f + 1.339887440266574e-3f;
    p = p * r + 9.618437357674640e-3f;
    p = p * r + 5.550332471162809e-2f;
    p = p * r + 2.402264791363012e-1f;
    p = p * r + 6.931472028550421e-1f;
    p = p * r + 1.f;
    return (F)((I)p + ((I)shifted << 23));
}
inline VecF<double> falloff(VecF<double> s) {
    VecF<double> result;
    for (int k = 0; k < lanes<double>; k++) result[k] = std::exp(-s[k]);
    return result;
}

// 1 / x to about 1e-7. A division takes as long as ten other operations.
inline VecF<float> reciprocal(VecF<float> x) {
#if defined(__AVX512F__)
    const VecF<float> guess = (VecF<float>)_mm512_maskz_rcp14_ps(0xffff, (__m512)x);
    return guess * (2.f - x * guess);
#elif defined(__AVX__)
    const VecF<float> guess = (VecF<float>)_mm256_rcp_ps((__m256)x);
    return guess * (2.f - x * guess);
#else
    return 1.f / x;
#endif
}
inline VecF<double> reciprocal(VecF<double> x) { return 1.0 / x; }

// Sum of the lanes by halving, which stays in registers.
template <typename S, int BYTES>
struct Halving {
    typedef S Whole __attribute__((vector_size(BYTES)));
    typedef S Half __attribute__((vector_size(BYTES / 2)));
    static S sum(const Whole& v) {
        if constexpr (BYTES == 2 * sizeof(S)) {
            return v[0] + v[1];
        } else {
            Half parts[2];
            memcpy(parts, &v, sizeof parts);
            return Halving<S, BYTES / 2>::sum(parts[0] + parts[1]);
        }
    }
};
template <typename S>
inline S lane_sum(const VecF<S>& v) {
    return Halving<S, LPM_VECTOR_BYTES>::sum(v);
}

// Whether any lane is not zero.
template <typename V>
inline bool any_lane(const V& v) {
    uint64_t words[sizeof(V) / 8], all = 0;
    memcpy(words, &v, sizeof v);
    for (uint64_t word : words) all |= word;
    return all != 0;
}

}  // namespace lpm
