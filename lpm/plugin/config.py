"""The method `lpm-splat` as nerfstudio's commands find it.

An error while this module is imported would end every `ns-*` command of the environment, so it only assembles.
"""

from __future__ import annotations

import sys
from types import TracebackType

from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.plugins.types import MethodSpecification

from lpm.checks import LpmError
from lpm.plugin.datamanager import LpmDatamanagerConfig
from lpm.plugin.datamanager4d import LpmDatamanager4dConfig
from lpm.plugin.model import LpmModelConfig
from lpm.plugin.model4d import LpmModel4dConfig
from lpm.plugin.optimizers import optimizer_configs
from lpm.plugin.pipeline import LpmPipelineConfig
from lpm.plugin.trainer import LpmTrainerConfig
from lpm.train.optimizers import MOVING, STILL, Rates


def _method(name: str, description: str, pipeline: LpmPipelineConfig, rates: Rates) -> MethodSpecification:
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
            optimizers=optimizer_configs(rates),  # the trainer multiplies those of lengths by the scene's extent
            viewer=ViewerConfig(num_rays_per_chunk=1 << 15, websocket_host="127.0.0.1"),
            vis="viewer",
        ),
    )


lpm_splat = _method(
    "lpm-splat",
    "3D Gaussian Splatting that puts points where the error is; runs on a GPU and without one.",
    LpmPipelineConfig(datamanager=LpmDatamanagerConfig(), model=LpmModelConfig()),
    STILL,
)
lpm_splat_4d = _method(
    "lpm-splat-4d",
    "4D Gaussian Splatting for scenes that move: points where and when the error is.",
    LpmPipelineConfig(datamanager=LpmDatamanager4dConfig(), model=LpmModel4dConfig()),
    MOVING,
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
