"""Training that starts or goes on from Gaussians in a file of any program (`--pipeline.model.init-from`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Parameter, ParameterDict

from lpm.checks import fail
from lpm.formats.read import load
from lpm.formats.rows import sound_rows
from lpm.gaussians import parameters, spherical_harmonics
from lpm.gaussians.similarity import Similarity, move
from lpm.gaussians.spherical_harmonics import rotate_harmonics

Frame = Literal["auto", "world", "train"]


def start_from(
    path: Path,
    sh_degree: int,
    frame: Frame,
    world_to_train: Similarity | None,
    say: Callable[[str], Any] = lambda text: None,
) -> tuple[ParameterDict, Tensor | None]:
    """Parameters (lpm.gaussians) from a run, a checkpoint, or a file that lpm.formats.read reads, and its sky [K, 3]
    (lpm.render.sky) if it has one.

    Harmonics beyond `sh_degree` are dropped, missing ones are 0. Rows that are not finite, or have no rotation, too.

    Args:
        frame: of the file. world: that of the scene's files, train: that of a run on this scene. auto: what the file's
            sidecar or run says, else world.
        world_to_train: of this scene; None leaves the file as it is.
        say: takes what of the file a person should know.

    Raises:
        LpmError: the file cannot be used.
    """
    loaded = load(path)
    for note in loaded.notes:
        say(f"{path.name}: {note}.")
    params = {name: loaded.params[name].detach().float() for name in parameters.NAMES}
    sky = None if loaded.sky is None else loaded.sky.detach().float().cpu()
    by = _way(loaded.frame if frame == "auto" else frame, loaded.world_to_train, world_to_train)
    if by is not None:
        params = move(params, by.of_less(loaded.offset))
        sky = None if sky is None else torch.cat([sky[:1], rotate_harmonics(sky[None, 1:], by.rotation)[0]])
    rows = sound_rows(params)
    if not bool(rows.any()):
        fail(path, "no row with finite values and a rotation", "Gaussians to start from")
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


def _way(frame: str | None, made_in: Similarity | None, world_to_train: Similarity | None) -> Similarity | None:
    """The transform from the file's frame to this scene's; `made_in`: from the world's to that of the file's run."""
    # Another run of this scene may have been centred or scaled in another way.
    if frame != "train":
        return world_to_train
    if made_in is None or world_to_train is None:
        return None if made_in is None else made_in.inverse()
    return made_in.inverse().then(world_to_train)
