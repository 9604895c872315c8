"""Refinement of the training cameras' poses, learnt with the Gaussians."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lpm.train.model_settings import PoseRefinementSettings


def skew(vector: Tensor) -> Tensor:
    """[..., 3, 3] the matrix of the cross product with `vector` [..., 3]."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vector.shape[:-1], 3, 3)


class PoseRefinement(nn.Module):
    """For each of V training cameras a small turn and shift, in world axes.

    `pose_adjustment` [V, 6]: shift (world), then turn (axis times angle, radians). There is none where mode is "off".
    """

    def __init__(self, config: PoseRefinementSettings, count: int) -> None:
        super().__init__()
        self.config = config
        if config.mode != "off":
            self.pose_adjustment = nn.Parameter(torch.zeros(count, 6))

    @property
    def on(self) -> bool:
        """Whether poses are refined."""
        return self.config.mode != "off"

    def correction(self, index: int) -> tuple[Tensor, Tensor]:
        """Rotation [3, 3] and shift [3] of camera `index`.

        SO3xR3: the shift as it is. SE3: the exponential of both together.
        """
        shift, turn = self.pose_adjustment[index].split(3)
        if self.config.mode == "SO3xR3":
            return torch.matrix_exp(skew(turn)), shift
        twist = torch.cat([torch.cat([skew(turn), shift[:, None]], 1), torch.zeros_like(self.pose_adjustment[:1, :4])])
        moved = torch.matrix_exp(twist)
        return moved[:3, :3], moved[:3, 3]

    def refined(self, c2w: Tensor, index: int | None) -> Tensor:
        """[1, 3, 4] `c2w` [1, 3, 4] (OpenGL) of training camera `index`, corrected; None: as it is.

        The turn is about the camera's own place.
        """
        if not self.on or index is None:
            return c2w
        rotation, shift = self.correction(index)
        return torch.cat([rotation[None] @ c2w[..., :3, :3], c2w[..., :3, 3:] + shift[None, :, None]], -1)

    def penalty(self) -> Tensor:
        """[] what the corrections add to the loss, so that they stay small."""
        shift, turn = self.pose_adjustment.split(3, 1)
        shifted: Tensor = shift.norm(dim=-1).mean() * self.config.trans_l2_penalty
        turned: Tensor = turn.norm(dim=-1).mean() * self.config.rot_l2_penalty
        return shifted + turned

    def sizes(self) -> dict[str, Tensor]:
        """Mean and largest shift (world) and turn (degrees) of all cameras; none where nothing is refined."""
        if not self.on:
            return {}
        shift, turn = (part.norm(dim=-1) for part in self.pose_adjustment.detach().split(3, 1))
        turn = turn.rad2deg()
        return {
            "camera_opt_translation_max": shift.max(), "camera_opt_translation_mean": shift.mean(),
            "camera_opt_rotation_mean": turn.mean(), "camera_opt_rotation_max": turn.max(),
        }  # fmt: skip

    # What SplatfactoModel calls a camera optimizer by.

    def get_param_groups(self, param_groups: dict[str, list[nn.Parameter]]) -> None:
        """Adds the group "camera_opt" where poses are refined."""
        if self.on:
            param_groups["camera_opt"] = list(self.parameters())
