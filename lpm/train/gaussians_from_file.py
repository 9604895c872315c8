"""Training that starts or goes on from Gaussians in a file of any program (`--pipeline.model.init-from`)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Parameter, ParameterDict

from lpm.checks import fail
from lpm.formats.read import load
from lpm.gaussians import parameters, spherical_harmonics
from lpm.gaussians.similarity import Similarity, move
from lpm.gaussians.spherical_harmonics import rotate_harmonics

Frame = Literal["auto", "world", "train"]


def start_from(
    path: Path, sh_degree: int, frame: Frame, world_to_train: Similarity | None
) -> tuple[ParameterDict, Tensor | None]:
    """Parameters (lpm.gaussians) from a run, a checkpoint, or a file that lpm.formats.read reads, and its sky [K, 3]
    (lpm.render.sky) if it has one.

    Harmonics beyond `sh_degree` are dropped, missing ones are 0. Rows that are not finite are dropped.

    Args:
        frame: of the file. world: that of the scene's files, train: that of a run on this scene. auto: what the file's
            sidecar or run says, else world.
        world_to_train: of this scene; None leaves the file as it is.

    Raises:
        LpmError: the file cannot be used.
    """
    loaded = load(path)
    params = {name: loaded.params[name].detach().float() for name in parameters.NAMES}
    sky = None if loaded.sky is None else loaded.sky.detach().float().cpu()
    for by in _ways(loaded.frame if frame == "auto" else frame, loaded.world_to_train, world_to_train):
        params = move(params, by)
        sky = None if sky is None else torch.cat([sky[:1], rotate_harmonics(sky[None, 1:], by.rotation)[0]])
    rows = torch.stack([torch.isfinite(value).flatten(1).all(1) for value in params.values()]).all(0)
    if not bool(rows.any()):
        fail(path, "no row with finite values", "Gaussians to start from")
    params = {name: value[rows].clone() for name, value in params.items()}
    wanted = (sh_degree + 1) ** 2 - 1
    rest = params["features_rest"][:, :wanted]
    params["features_rest"] = torch.cat([rest, rest.new_zeros(len(rest), wanted - rest.shape[1], 3)], 1)
    if sh_degree == 0:
        rgb = params["features_dc"] * spherical_harmonics.SH_C0 + 0.5
        params["features_dc"] = parameters.start_colors(rgb, harmonics=False)
    # An opacity of exactly 0 or 1 in a file of bytes is an infinite logit; the optimizer could not move it.
    params["opacities"] = params["opacities"].reshape(-1, 1).clamp(-9.0, 9.0)
    return ParameterDict({name: Parameter(params[name].contiguous()) for name in parameters.NAMES}), sky


def _ways(frame: str | None, made_in: Similarity | None, world_to_train: Similarity | None) -> list[Similarity]:
    """The transforms from the file's frame to this scene's; `made_in`: from the world's to that of the file's run."""
    # Another run of this scene may have been centred or scaled in another way.
    back = [made_in.inverse()] if frame == "train" and made_in is not None else []
    in_world = frame != "train" or bool(back)
    return back + ([world_to_train] if in_world and world_to_train is not None else [])
