"""gsplat's compiled kernels on pretended CUDA tensors: gsplat's own Python runs, these stand for `_C`.

Projection and harmonics by gsplat.cuda._torch_impl (autograd for the backward kernels), tiles by a vectorised sort,
blending by lpm's CPU kernel. Every tensor must be FakeCuda, float32 or int, contiguous: as the real kernels demand.
"""

from __future__ import annotations

import itertools
import types

import torch
from pretended_device import FakeCuda
from pretended_torch import off

handles = itertools.count(1)
graphs = {}
order = {}


def check(name, args):
    for i, a in enumerate(args):
        if isinstance(a, torch.Tensor):
            assert isinstance(a, FakeCuda), f"gsplat {name}: argument {i} is not on cuda"
            assert a.inner.is_contiguous(), f"gsplat {name}: argument {i} is not contiguous"
            assert a.dtype in (torch.float32, torch.int32, torch.int64, torch.bool), (
                f"gsplat {name}: argument {i} {a.dtype}"
            )


def un(x):
    return x.inner.detach() if isinstance(x, FakeCuda) else x


class C:
    """Stands for gsplat.cuda._backend._C."""

    def __init__(self, version):
        self.v4 = version.startswith("1.4")
        self.calls = {}
        self.CameraModelType = types.SimpleNamespace(PINHOLE="pinhole")
        self.PINHOLE = "pinhole"

    def __getattr__(self, name):
        found = {
            "fully_fused_projection_fwd": self._project,
            "projection_ewa_3dgs_fused_fwd": self._project,
            "fully_fused_projection_bwd": self._project_bwd,
            "projection_ewa_3dgs_fused_bwd": self._project_bwd,
            "compute_sh_fwd": self._sh,
            "spherical_harmonics_fwd": self._sh,
            "compute_sh_bwd": self._sh_bwd,
            "spherical_harmonics_bwd": self._sh_bwd,
            "isect_tiles": self._isect,
            "intersect_tile": self._isect,
            "isect_offset_encode": self._offsets,
            "intersect_offset": self._offsets,
            "rasterize_to_pixels_fwd": self._raster,
            "rasterize_to_pixels_3dgs_fwd": self._raster,
            "rasterize_to_pixels_bwd": self._raster_bwd,
            "rasterize_to_pixels_3dgs_bwd": self._raster_bwd,
            "quat_scale_to_covar_preci_fwd": self._covar,
            "compute_relocation": self._relocation,
            "relocation": self._relocation,
        }[name]

        def call(*args):
            # autograd makes the zeros of unused outputs on the C++ device, which is the CPU under the pretence
            args = tuple(
                FakeCuda(a) if name.endswith("bwd") and type(a) is torch.Tensor and not a.any() else a for a in args
            )
            check(name, args)
            self.calls[name] = self.calls.get(name, 0) + 1
            with off(), torch.enable_grad():
                return found(*args)

        return call

    def _split(self, args):
        """(means, covars, quats, scales[, opacities], viewmats, Ks, width, height, ...)."""
        if self.v4:
            return (*args[:4], None, *args[4:])
        return args

    def _math(self, means, quats, scales, viewmats, Ks, w, h, eps2d, near, far, comp):
        from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci

        covars, _ = _quat_scale_to_covar_preci(quats, scales, True, False, triu=False)
        return _fully_fused_projection(means, covars, viewmats, Ks, w, h, eps2d, near, far, comp, "pinhole")

    def _project(self, *args):
        means, covars, quats, scales, _, viewmats, Ks, w, h, eps2d, near, far, _, comp, _ = self._split(args)
        assert covars is None
        with torch.no_grad():
            radii, m2, d, con, c = self._math(
                un(means), un(quats), un(scales), un(viewmats), un(Ks), w, h, eps2d, near, far, comp
            )
        if self.v4:
            assert radii.dim() == 2
        else:
            assert radii.dim() == 3
        return tuple(
            FakeCuda(x.contiguous()) if x is not None else FakeCuda(torch.empty(0)) for x in (radii, m2, d, con, c)
        )

    def _project_bwd(
        self,
        means,
        covars,
        quats,
        scales,
        viewmats,
        Ks,
        w,
        h,
        eps2d,
        model,
        radii,
        conics,
        comp,
        v_m2,
        v_d,
        v_con,
        v_comp,
        need_view,
    ):
        leaves = [un(t).clone().requires_grad_() for t in (means, quats, scales, viewmats)]
        out = self._math(leaves[0], leaves[1], leaves[2], leaves[3], un(Ks), w, h, eps2d, 0.01, 1e10, comp is not None)
        seen = un(radii) > 0
        seen = seen if seen.dim() == 2 else seen.all(-1)
        total = (
            torch.where(seen[..., None], out[1] * un(v_m2), 0.0).sum()
            + torch.where(seen, out[2] * un(v_d), 0.0).sum()
            + torch.where(seen[..., None], out[3] * un(v_con), 0.0).sum()
        )
        if comp is not None and v_comp is not None:
            total = total + torch.where(seen, out[4] * un(v_comp), 0.0).sum()
        grads = torch.autograd.grad(total, leaves)
        g = [FakeCuda(x.nan_to_num(0.0).contiguous()) for x in grads]
        return g[0], FakeCuda(torch.empty(0)), g[1], g[2], g[3]

    def _sh(self, degree, dirs, coeffs, masks):
        from gsplat.cuda._torch_impl import _spherical_harmonics

        with torch.no_grad():
            out = _spherical_harmonics(degree, un(dirs), un(coeffs))
        return FakeCuda(out.contiguous())

    def _sh_bwd(self, bases, degree, dirs, coeffs, masks, v, need_dirs):
        from gsplat.cuda._torch_impl import _spherical_harmonics

        d, c = un(dirs).clone().requires_grad_(), un(coeffs).clone().requires_grad_()
        out = _spherical_harmonics(degree, d, c)
        gd, gc = torch.autograd.grad((out * un(v)).sum(), (d, c), allow_unused=True)
        gd = torch.zeros_like(d) if gd is None else gd
        return FakeCuda(gc.contiguous()), FakeCuda(gd.nan_to_num(0.0).contiguous())

    def _isect(self, *args):
        means2d, radii, depths = map(un, args[:3])
        tile, tw, th = args[6:9]
        if self.v4:
            radii = radii[..., None].expand(*radii.shape, 2)
        key = args[0].inner.data_ptr()
        order.clear()
        order[key] = (radii.contiguous(), depths)
        lo = ((means2d - radii) / tile).floor().int()
        hi = ((means2d + radii) / tile).ceil().int()
        limit = torch.tensor([tw, th], dtype=torch.int32)
        lo, hi = torch.minimum(lo.clamp_min(0), limit), torch.minimum(hi.clamp_min(0), limit)
        span = (hi - lo) * (radii > 0).all(-1, keepdim=True)
        per = span.prod(-1).int()
        flat = per.flatten().long()
        ids = torch.repeat_interleave(torch.arange(len(flat)), flat)
        within = torch.arange(len(ids)) - torch.repeat_interleave(flat.cumsum(0) - flat, flat)
        sx = span.reshape(-1, 2)[ids, 0].long().clamp_min(1)
        x = lo.reshape(-1, 2)[ids, 0].long() + within % sx
        y = lo.reshape(-1, 2)[ids, 1].long() + within // sx
        image = ids // means2d.shape[-2]
        bits = (tw * th).bit_length()
        high = (image << bits) | (y * tw + x)
        depth = depths.flatten()[ids].view(torch.int32).long() & 0xFFFFFFFF
        key = (high << 32) | depth
        key, by = key.sort()
        return FakeCuda(per), FakeCuda(key), FakeCuda(ids[by].int())

    def _offsets(self, isect_ids, images, tw, th):
        ids = un(isect_ids) >> 32
        bits = (tw * th).bit_length()
        cell = (ids >> bits) * (tw * th) + (ids & ((1 << bits) - 1))
        counts = torch.bincount(cell, minlength=images * tw * th)
        return FakeCuda((counts.cumsum(0) - counts).int().reshape(images, th, tw))

    def _raster(self, means2d, conics, colors, opac, backgrounds, masks, w, h, tile, offsets, flat):
        from lpm.cuda.native import native
        from lpm.render.native_backend import _Raster

        radii, depths = order[means2d.inner.data_ptr()]
        assert colors.shape[:2] == means2d.shape[:2]
        leaves = [un(t).clone().requires_grad_() for t in (means2d, conics, colors, opac)]
        out, alphas = _Raster.apply(
            leaves[0],
            leaves[1],
            leaves[2],
            leaves[3],
            depths,
            radii,
            un(backgrounds),
            (w, h),
            "RGB",
            True,
            True,
            native(),
        )
        handle = next(handles)
        graphs[handle] = (leaves, out, alphas)
        while len(graphs) > 12:
            graphs.pop(next(iter(graphs)))
        last = torch.zeros(means2d.shape[0], h, w, dtype=torch.int32)
        last.view(-1)[0] = handle
        return FakeCuda(out.detach()), FakeCuda(alphas.detach()), FakeCuda(last)

    def _raster_bwd(
        self,
        means2d,
        conics,
        colors,
        opac,
        backgrounds,
        masks,
        w,
        h,
        tile,
        offsets,
        flat,
        alphas,
        last,
        v_out,
        v_alpha,
        absgrad,
    ):
        leaves, out, a = graphs.pop(int(last.inner.view(-1)[0]))
        grads = torch.autograd.grad([out, a], leaves, [un(v_out), un(v_alpha)], allow_unused=True)
        g = [
            FakeCuda((torch.zeros_like(l) if x is None else x).contiguous()) for x, l in zip(grads, leaves, strict=True)
        ]
        absolute = FakeCuda(leaves[0].absgrad) if absgrad else FakeCuda(torch.empty(0))
        return absolute, *g

    def _covar(self, quats, scales, want_covar, want_preci, triu):
        from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci

        with torch.no_grad():
            c, p = _quat_scale_to_covar_preci(un(quats), un(scales), want_covar, want_preci, triu)
        return tuple(FakeCuda(x.contiguous() if x is not None else torch.empty(0)) for x in (c, p))

    def _relocation(self, opacities, scales, ratios, binoms, n_max, *rest):
        from lpm.gaussians.edits import relocated

        assert ratios.dtype == torch.int32
        o, s = relocated(un(opacities).flatten(), un(scales), un(ratios))
        return FakeCuda(o.reshape(opacities.shape)), FakeCuda(s)


def install(version):
    import gsplat
    import gsplat.cuda._wrapper

    assert gsplat.__version__ == version, (gsplat.__version__, version)
    backend = types.ModuleType("gsplat.cuda._backend")
    backend._C = C(version)
    import sys

    sys.modules["gsplat.cuda._backend"] = backend
    return backend._C
