"""A strategy of your own: every hundred steps the points that moved the picture most are split, the faint ones go.

ns-train lpm-splat --data out/room --pipeline.model.strategy 02_own_strategy:MostMoved     # in this file's folder
"""

import torch

from lpm import apply_edit, edits


class MostMoved:
    """Speaks gsplat's Strategy protocol; `schedule` says from when to when, how often, and how many points."""

    def __init__(self, schedule):
        self.schedule = schedule

    def check_sanity(self, params, optimizers):
        """Nothing to check."""

    def initialize_state(self, scene_scale=1.0):
        """What is gathered; tensors with a row a point are kept in step with the points, and saved."""
        return {"moved": None}

    def step_pre_backward(self, params, optimizers, state, step, info):
        """info["means2d"] gets its gradient in the backward pass that follows."""
        info["means2d"].retain_grad()

    @torch.no_grad()
    def step_post_backward(self, params, optimizers, state, step, info, packed=False, lr=None):
        """Gathers the gradient of the points' places in the picture; now and then edits."""
        plan, gradient = self.schedule, info["means2d"].grad[0].norm(dim=-1)
        state["moved"] = gradient if state["moved"] is None else state["moved"] + gradient
        if not (plan.start < step < plan.stop and step % plan.every == 0):
            return
        points = {name: p.detach() for name, p in params.items()}
        faint = torch.sigmoid(points["opacities"]).flatten() < 0.005
        edit = edits.prune(points, faint)
        room = max(0, (plan.max_points or 10**9) - len(edit))
        score = state["moved"][edit.source]
        most = torch.zeros(len(edit), dtype=torch.bool)
        most[score.argsort(descending=True)[: min(room, len(edit) // 10)]] = True
        apply_edit(edits.then(edit, edits.long_axis_split(edit.params, most)), params, optimizers, state)
        state["moved"].zero_()
