"""A scene that a picture can be told by: a red ball on the left and a green one on the right, seen from -y."""

import torch

from lpm.gaussians.spherical_harmonics import rgb_to_sh0

PLACES = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
COLORS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def balls() -> dict[str, torch.Tensor]:
    """Two opaque Gaussians among 200 small ones inside them, so that quantiles of places are theirs."""
    generator = torch.Generator().manual_seed(0)
    which = torch.arange(202) % 2
    spread = 0.1 * torch.randn(202, 3, generator=generator)
    spread[:2] = 0
    scales = torch.full((202, 3), -4.0)
    scales[:2] = -1.5
    return {
        "means": PLACES[which] + spread,
        "scales": scales,
        "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(202, 1),
        "features_dc": rgb_to_sh0(COLORS[which]),
        "features_rest": torch.zeros(202, 15, 3),
        "opacities": torch.full((202, 1), 4.0),
    }
