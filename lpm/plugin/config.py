"""The method `lpm-splat` as nerfstudio's commands find it.

An error while this module is imported would end every `ns-*` command of the environment, so it only assembles.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.plugins.types import MethodSpecification

from lpm.checks import LpmError
from lpm.plugin.datamanager import LpmDatamanagerConfig
from lpm.plugin.datamanager4d import LpmDatamanager4dConfig
from lpm.plugin.model import LpmModelConfig
from lpm.plugin.model4d import LpmModel4dConfig
from lpm.plugin.optimizers import AdamConfig
from lpm.plugin.pipeline import LpmPipelineConfig
from lpm.plugin.trainer import LpmTrainerConfig


def _optimizer(lr: float, lr_final: float | None = None) -> dict[str, Any]:
    scheduler = ExponentialDecaySchedulerConfig(lr_final=lr_final) if lr_final is not None else None
    return {"optimizer": AdamConfig(lr=lr, eps=1e-15), "scheduler": scheduler}


def _method(
    name: str, description: str, pipeline: LpmPipelineConfig, more: dict[str, dict[str, Any]]
) -> MethodSpecification:
    return MethodSpecification(
        description=description,
        config=LpmTrainerConfig(
            method_name=name,
            steps_per_eval_image=500,
            steps_per_eval_batch=0,
            steps_per_eval_all_images=0,
            steps_per_save=500,
            mixed_precision=False,
            machine=MachineConfig(),  # `cuda`, and the trainer takes the CPU where there is none
            pipeline=pipeline,
            # Rates as in 3DGS (Kerbl 2023); the trainer multiplies those of lengths by the scene's extent.
            optimizers={
                "means": _optimizer(1.6e-4, lr_final=1.6e-6),
                "features_dc": _optimizer(2.5e-3),
                "features_rest": _optimizer(2.5e-3 / 20),
                "opacities": _optimizer(5e-2),
                "scales": _optimizer(5e-3),
                "quats": _optimizer(1e-3),
                **more,
                "sky": _optimizer(1e-2),
                "camera_opt": {
                    "optimizer": AdamConfig(lr=1e-4, eps=1e-15),
                    "scheduler": ExponentialDecaySchedulerConfig(lr_final=5e-7),
                },
                "bilateral_grid": {
                    "optimizer": AdamConfig(lr=2e-3, eps=1e-15),
                    "scheduler": ExponentialDecaySchedulerConfig(lr_final=1e-4),
                },
            },
            viewer=ViewerConfig(num_rays_per_chunk=1 << 15, websocket_host="127.0.0.1"),
            vis="viewer",
        ),
    )


lpm_splat = _method(
    "lpm-splat",
    "3D Gaussian Splatting that puts points where the error is; runs on a GPU and without one.",
    LpmPipelineConfig(datamanager=LpmDatamanagerConfig(), model=LpmModelConfig()),
    {},
)

# Rates as in Spacetime Gaussians (Li 2024), but for the times, which would stay where they are in a short run. When a
# point is there settles towards the end, and where it is stays free to the end: 2 dB where p2s_multi moves.
lpm_splat_4d = _method(
    "lpm-splat-4d",
    "4D Gaussian Splatting for scenes that move: points where and when the error is.",
    LpmPipelineConfig(datamanager=LpmDatamanager4dConfig(), model=LpmModel4dConfig()),
    {
        "means": _optimizer(1.6e-4, lr_final=0.5e-4),
        "times": _optimizer(2e-3, lr_final=2e-4),
        "durations": _optimizer(3e-2, lr_final=3e-3),
        "motion": _optimizer(1.75 * 1.6e-4),
        "gates": _optimizer(5e-2, lr_final=5e-3),
        "spins": _optimizer(1e-4),
    },
)


def _one_line_for_bad_input(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, LpmError):
        print(f"error: {error}", file=sys.stderr)
    elif isinstance(error, OSError) and error.filename and "lpm-splat" in sys.argv:  # a folder that cannot be written
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
    elif kind.__name__ == "ConstructorError" and "'lpm." in str(error):  # modules have moved since
        print(
            "error: config.yml: written by another version of lpm-splat; wanted one of this version; go on with "
            "ns-train lpm-splat --load-dir RUN, which writes one, or use lpm-export, lpm-view or lpm-inspect",
            file=sys.stderr,
        )
    else:
        _before(kind, error, trace)


# nerfstudio's commands show a traceback for whatever goes wrong; for bad input one line is all that helps.
_before = sys.excepthook
sys.excepthook = _one_line_for_bad_input
