// Real spherical harmonics up to degree 3 in the basis of 3DGS scenes, as polynomials of a unit direction.
// Source: Sloan, "Efficient Spherical Harmonic Evaluation", JCGT 2013, with the Condon-Shortley sign.
#pragma once
#include "hd.h"

namespace lpm {

constexpr int MAX_SH_BASES = 16;

LPM_HD inline int sh_bases(int degree) { return (degree + 1) * (degree + 1); }

namespace sh {
constexpr double L0 = 0.28209479177387814;
constexpr double L1 = 0.48860251190291992;
constexpr double L2_XY = 1.0925484305920792;
constexpr double L2_Z2 = 0.94617469575756008;
constexpr double L2_Z0 = 0.31539156525252005;
constexpr double L2_X2 = 0.54627421529603959;
constexpr double L3_Z2 = 2.2852289973223288;
constexpr double L3_Z0 = 0.4570457994644658;
constexpr double L3_XYZ = 1.4453057213202769;
constexpr double L3_X3 = 0.59004358992664352;
constexpr double L3_Z3 = 1.8658816629505769;
constexpr double L3_Z1 = 1.1195289977703462;
}  // namespace sh

// basis[k] for k < sh_bases(degree); (x, y, z) has unit length.
template <typename S>
LPM_HD inline void sh_basis(int degree, S x, S y, S z, S* basis) {
    basis[0] = S(sh::L0);
    if (degree < 1) return;
    basis[1] = S(-sh::L1) * y;
    basis[2] = S(sh::L1) * z;
    basis[3] = S(-sh::L1) * x;
    if (degree < 2) return;
    const S zz = z * z;
    const S cos2 = x * x - y * y, sin2 = 2 * x * y;  // real and imaginary part of (x + iy)^2
    basis[4] = S(sh::L2_X2) * sin2;
    basis[5] = S(-sh::L2_XY) * y * z;
    basis[6] = S(sh::L2_Z2) * zz - S(sh::L2_Z0);
    basis[7] = S(-sh::L2_XY) * x * z;
    basis[8] = S(sh::L2_X2) * cos2;
    if (degree < 3) return;
    const S cos3 = x * cos2 - y * sin2, sin3 = x * sin2 + y * cos2;
    const S ring = S(sh::L3_Z0) - S(sh::L3_Z2) * zz;
    basis[9] = S(-sh::L3_X3) * sin3;
    basis[10] = S(sh::L3_XYZ) * z * sin2;
    basis[11] = ring * y;
    basis[12] = z * (S(sh::L3_Z3) * zz - S(sh::L3_Z1));
    basis[13] = ring * x;
    basis[14] = S(sh::L3_XYZ) * z * cos2;
    basis[15] = S(-sh::L3_X3) * cos3;
}

// grad += sum_k weight[k] * d basis[k] / d (x, y, z), the polynomials taken as functions of three free variables.
template <typename S>
LPM_HD inline void sh_basis_backward(int degree, S x, S y, S z, const S* weight, S* grad) {
    if (degree < 1) return;
    S gx = S(-sh::L1) * weight[3], gy = S(-sh::L1) * weight[1], gz = S(sh::L1) * weight[2];
    if (degree >= 2) {
        const S xy = S(-sh::L2_XY), x2 = S(2 * sh::L2_X2);
        gx += x2 * (y * weight[4] + x * weight[8]) + xy * z * weight[7];
        gy += x2 * (x * weight[4] - y * weight[8]) + xy * z * weight[5];
        gz += xy * (y * weight[5] + x * weight[7]) + S(2 * sh::L2_Z2) * z * weight[6];
    }
    if (degree >= 3) {
        const S zz = z * z, cos2 = x * x - y * y, sin2 = 2 * x * y;
        const S ring = S(sh::L3_Z0) - S(sh::L3_Z2) * zz, x3 = S(-3 * sh::L3_X3), xyz = S(sh::L3_XYZ);
        gx += x3 * (sin2 * weight[9] + cos2 * weight[15]) + 2 * xyz * z * (y * weight[10] + x * weight[14]) + ring * weight[13];
        gy += x3 * (cos2 * weight[9] - sin2 * weight[15]) + 2 * xyz * z * (x * weight[10] - y * weight[14]) + ring * weight[11];
        gz += xyz * (sin2 * weight[10] + cos2 * weight[14]) - S(2 * sh::L3_Z2) * z * (y * weight[11] + x * weight[13]) +
              (S(3 * sh::L3_Z3) * zz - S(sh::L3_Z1)) * weight[12];
    }
    grad[0] += gx;
    grad[1] += gy;
    grad[2] += gz;
}

}  // namespace lpm
