// Marks per-element math that both targets compile: nvcc builds it for host and device, a C++ compiler for the host.
#pragma once
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define LPM_HD __host__ __device__
#else
#define LPM_HD
#endif

namespace lpm {

// std::min and std::max are not callable from device code without extra compiler flags.
template <typename T>
LPM_HD inline T min_of(T a, T b) {
    return b < a ? b : a;
}
template <typename T>
LPM_HD inline T max_of(T a, T b) {
    return a < b ? b : a;
}
template <typename S>
LPM_HD inline S dot3(const S* a, const S* b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

// Thresholds of the image formation, as in gsplat 1.5. Kerbl 2023, section 6 and its appendix C, gives their reasons.
template <typename S>
struct Limits {
    static constexpr S min_alpha = S(1) / S(255);  // fainter contributions are not drawn
    static constexpr S max_alpha = S(0.999);       // keeps 1 - alpha away from 0 in the backward pass
    static constexpr S min_transmittance = S(1e-4);  // a pixel is finished before it would fall to this
    static constexpr S max_extent = S(3.33);       // standard deviations
};

}  // namespace lpm
