"""What `rasterize` must compute, written as dense autograd: every Gaussian at every pixel, with 3x3 matrices."""

import math

import torch
from torch import Tensor

MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")


def make_scene(n=60, cameras=1, width=45, height=35, degree=3, seed=0, dtype=torch.float64) -> dict[str, Tensor]:
    """Splats of all sizes before `cameras` cameras that look from different sides; some lie outside of the views."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    viewmats, Ks = [], []
    for c in range(cameras):
        angle = 0.3 * c - 0.1
        rotation = torch.tensor(
            [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]],
            dtype=torch.float64,
        )
        viewmat = torch.eye(4, dtype=torch.float64)
        viewmat[:3, :3] = rotation
        viewmat[:3, 3] = torch.tensor([0.1 * c, -0.05, 4.0 - 0.3 * c])
        viewmats.append(viewmat)
        f = 0.9 * width + c
        Ks.append(
            torch.tensor([[f, 0, width / 2 + 0.3], [0, 1.1 * f, height / 2 - 0.2], [0, 0, 1]], dtype=torch.float64)
        )
    means = normal(n, 3) * torch.tensor([1.5, 1.2, 1.2], dtype=torch.float64)
    scene = dict(
        means=means,
        quats=normal(n, 4),
        scales=torch.exp(normal(n, 3) * 0.7 - 2.0),
        opacities=torch.sigmoid(normal(n) * 1.5 + 0.5),
        colors=torch.cat([normal(n, 1, 3) * 0.8, normal(n, (degree + 1) ** 2 - 1, 3) * 0.2], 1),
        viewmats=torch.stack(viewmats),
        Ks=torch.stack(Ks),
    )
    return {name: tensor.to(dtype) for name, tensor in scene.items()}


def rotation_matrix(quats: Tensor) -> Tensor:
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def sh_colors(degree: int, direction: Tensor, sh: Tensor) -> Tensor:
    """From the definition: associated Legendre functions with the Condon-Shortley sign, real part m >= 0 as cosines."""
    x, y, z = torch.nn.functional.normalize(direction, dim=-1).unbind(-1)
    basis = []
    for l in range(degree + 1):
        for m in range(-l, l + 1):
            k = abs(m)
            # P_l^k(z) / (1 - z^2)^(k/2), by differentiating (z^2 - 1)^l a number of l + k times
            poly = torch.zeros_like(z)
            for j in range(l + 1):
                power = 2 * j - l - k
                if power < 0:
                    continue
                factor = math.comb(l, j) * (-1) ** (l - j) * math.factorial(2 * j) / math.factorial(power)
                poly = poly + factor * z**power
            poly = poly * (-1) ** k / (2**l * math.factorial(l))
            norm = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - k) / math.factorial(l + k))
            turned = torch.complex(x, y) ** k if k else torch.complex(torch.ones_like(x), torch.zeros_like(x))
            if m > 0:
                basis.append(math.sqrt(2) * norm * poly * turned.real)
            elif m < 0:
                basis.append(math.sqrt(2) * norm * poly * turned.imag)
            else:
                basis.append(norm * poly)
    values = torch.einsum("nk,nkc->nc", torch.stack(basis, -1), sh[:, : len(basis)])
    return (values + 0.5).clamp_min(0)


def dense_rasterize(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, *, sh_degree=None, near_plane=0.01,
    far_plane=1e10, eps2d=0.3, radius_clip=0.0, backgrounds=None, render_mode="RGB", rasterize_mode="classic",
    absgrad=False,
):  # fmt: skip
    """Colours and alphas as `rasterize`; the third value is a list of what each camera drew."""
    if isinstance(colors, tuple):
        colors = torch.cat(colors, 1)
    outs, alphas, drawn = [], [], []
    for c in range(len(viewmats)):
        R, t, K = viewmats[c, :3, :3], viewmats[c, :3, 3], Ks[c]
        fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
        x, y, z = (means @ R.T + t).unbind(-1)
        safe_z = torch.where(z >= near_plane, z, torch.ones_like(z))
        margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
        tx = safe_z * (x / safe_z).clamp(-cx / fx - margin_x, (width - cx) / fx + margin_x)
        ty = safe_z * (y / safe_z).clamp(-cy / fy - margin_y, (height - cy) / fy + margin_y)
        zero = torch.zeros_like(z)
        J = torch.stack(
            [
                torch.stack([fx / safe_z, zero, -fx * tx / safe_z**2], -1),
                torch.stack([zero, fy / safe_z, -fy * ty / safe_z**2], -1),
            ],
            -2,
        )
        M = rotation_matrix(quats) * scales[:, None, :]
        before = J @ R @ (M @ M.mT) @ R.T @ J.mT
        covariance = before + eps2d * torch.eye(2, dtype=means.dtype)
        opacity = opacities
        if rasterize_mode == "antialiased":
            opacity = opacities * (torch.det(before).clamp_min(0) / torch.det(covariance)).sqrt()
        mean2d = torch.stack([fx * x / safe_z + cx, fy * y / safe_z + cy], -1)
        if mean2d.requires_grad:
            mean2d.retain_grad()
        with torch.no_grad():
            extent = (2 * torch.log((opacity * 255).clamp_min(1))).sqrt().clamp_max(3.33)
            radii = (extent[:, None] * covariance.diagonal(dim1=-2, dim2=-1).sqrt()).ceil()
            size = torch.tensor([width, height])
            visible = (z >= near_plane) & (z <= far_plane) & (opacity >= 1 / 255) & (radii > radius_clip).any(-1)
            visible &= (mean2d + radii > 0).all(-1) & (mean2d - radii < size).all(-1)
            order = torch.argsort(z, stable=True)
            order = order[visible[order]]
        values = []
        if render_mode.startswith("RGB"):
            if sh_degree is not None:
                center = -torch.linalg.inv(R) @ t
                values.append(sh_colors(sh_degree, means - center, colors))
            else:
                values.append(colors if colors.dim() == 2 else colors[c])
        if "D" in render_mode:
            values.append(z[:, None])
        value = torch.cat(values, -1)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixels = torch.stack([columns, rows], -1).reshape(-1, 1, 2).to(means) + 0.5
        d = mean2d[order] - pixels
        conic = torch.linalg.inv(covariance[order])
        sigma = 0.5 * torch.einsum("pni,nij,pnj->pn", d, conic, d)
        alpha = (opacity[order] * torch.exp(-sigma)).clamp_max(0.999)
        alpha = torch.where(alpha >= 1 / 255, alpha, torch.zeros_like(alpha))
        reached = torch.cumprod(1 - alpha, 1) > 1e-4
        alpha = alpha * reached
        before_each = torch.cat([torch.ones_like(alpha[:, :1]), torch.cumprod(1 - alpha, 1)[:, :-1]], 1)
        weight = alpha * before_each
        out, total = weight @ value[order], weight.sum(1, keepdim=True)
        if backgrounds is not None and render_mode.startswith("RGB"):
            behind = backgrounds[c]
            if "D" in render_mode:
                behind = torch.cat([behind, behind.new_zeros(1)])
            out = out + (1 - total) * behind
        if render_mode.endswith("ED"):
            out = torch.cat([out[:, :-1], out[:, -1:] / total.clamp_min(1e-10)], -1)
        outs.append(out.view(height, width, -1))
        alphas.append(total.view(height, width, 1))
        drawn.append(
            dict(means2d=mean2d, visible=visible, radii=radii, depths=z, opacities=opacity, order=order, sigma=sigma)
        )
    return torch.stack(outs), torch.stack(alphas), drawn
