// Vectors of the CPU rasterizer: GCC and Clang vector extensions, as wide as the machine's registers and not wider.
// A wider type compiles too, but its compares and selects are then done lane by lane: 5 to 10 times slower.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

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

// Lane k of the result is lane fold_source(k) of the two vectors side by side.
template <typename S, int WIDTH, bool HIGH>
constexpr int fold_source(int k) {
    const int group = k / WIDTH;
    return group / 2 * 2 * WIDTH + k % WIDTH + (group % 2 ? lanes<S> : 0) + (HIGH ? WIDTH : 0);
}
template <typename S, int WIDTH, bool HIGH, int... K>
inline VecF<S> fold_half(VecF<S> a, VecF<S> b, std::integer_sequence<int, K...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, fold_source<S, WIDTH, HIGH>(K)...);
#else
    return __builtin_shuffle(a, b, typename Vector<S>::I{fold_source<S, WIDTH, HIGH>(K)...});
#endif
}
// The sums of the lanes of `lanes<S>` vectors, as one vector in their order: half the work of one sum after the other.
// Each stage adds lanes WIDTH apart, after which groups of WIDTH lanes belong to one input. Overwrites `v`.
template <typename S, int WIDTH = lanes<S> / 2>
inline VecF<S> lane_sums(VecF<S>* v) {
    constexpr std::make_integer_sequence<int, lanes<S>> all{};
    for (int i = 0; i < WIDTH; i++)
        v[i] = fold_half<S, WIDTH, false>(v[i], v[i + WIDTH], all) + fold_half<S, WIDTH, true>(v[i], v[i + WIDTH], all);
    if constexpr (WIDTH == 1) return v[0];
    else return lane_sums<S, WIDTH / 2>(v);
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
