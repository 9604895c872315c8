// SSIM at one place and what it passes back (Wang 2004, eq. 13, with the constants that 3DGS uses).
#pragma once
#include "hd.h"

namespace lpm {

constexpr int ssim_taps = 11;  // width of the Gaussian window; sigma is 1.5

// The window's weights in one direction, [ssim_taps]; on the host.
template <typename S>
inline void gaussian(S* taps) {
    double sum = 0, weight[ssim_taps];
    for (int k = 0; k < ssim_taps; k++) {
        const double d = (k - ssim_taps / 2) / 1.5;
        sum += weight[k] = std::exp(-d * d / 2);
    }
    for (int k = 0; k < ssim_taps; k++) taps[k] = S(weight[k] / sum);
}

// Blurred moments of one channel -> SSIM, and its derivative by those of the first image:
// a, b: means of x and y; aa, bb, ab: means of x^2, y^2 and x y.
template <typename S>
struct Ssim {
    S value, by_a, by_aa, by_ab;
};

template <typename S>
LPM_HD inline Ssim<S> ssim_of(S a, S b, S aa, S bb, S ab) {
    const S c1 = S(0.01 * 0.01), c2 = S(0.03 * 0.03);
    const S luminance_scale = S(1) / (a * a + b * b + c1);
    const S contrast_scale = S(1) / (aa - a * a + bb - b * b + c2);
    const S luminance = (2 * a * b + c1) * luminance_scale;
    const S contrast = (2 * (ab - a * b) + c2) * contrast_scale;
    Ssim<S> out;
    out.value = luminance * contrast;
    out.by_a = 2 * contrast * (b - luminance * a) * luminance_scale + 2 * luminance * (contrast * a - b) * contrast_scale;
    out.by_aa = -luminance * contrast * contrast_scale;
    out.by_ab = 2 * luminance * contrast_scale;
    return out;
}

}  // namespace lpm
