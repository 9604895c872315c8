"""nerfstudio's pipeline; held-out figures are printed where nerfstudio only writes them to a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE

from lpm import distributed
from lpm.viewer.compat import mend


@dataclass
class LpmPipelineConfig(VanillaPipelineConfig):
    """nerfstudio's options."""

    _target: type = field(default_factory=lambda: LpmPipeline)


class LpmPipeline(VanillaPipeline):
    """Data and model together."""

    held_out: Callable[[float], None] | None = None
    """Called with the PSNR (dB) of a held-out image, or of all of them, whenever it is measured."""

    def __init__(self, config: Any, device: str, test_mode: Any = "val", world_size: int = 1, **kwargs: Any) -> None:
        mend()  # before ns-train, ns-viewer or any other of nerfstudio's commands opens a page
        # To nerfstudio one process is all there is: its wrapper would not survive that points come and go.
        super().__init__(config, device, test_mode, world_size=1, **kwargs)
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            tensor.data = distributed.tensor_from_first(tensor.data)

    def get_eval_image_metrics_and_images(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Metrics and pictures of one held-out image."""
        metrics, images = super().get_eval_image_metrics_and_images(step)
        if self.held_out is not None:
            self.held_out(metrics["psnr"])
        return metrics, images

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ) -> dict[str, Any]:
        """Mean metrics over the held-out images, also printed."""
        metrics: dict[str, Any] = super().get_average_eval_image_metrics(step, output_path, get_std)
        if self.held_out is not None:
            self.held_out(metrics["psnr"])
        names = {"psnr": "PSNR {:.2f} dB", "ssim": "SSIM {:.4f}", "lpips": "LPIPS {:.4f}"}
        text = ", ".join(form.format(metrics[name]) for name, form in names.items() if name in metrics)
        images, points = len(self.datamanager.eval_dataset or []), self.model.num_points
        CONSOLE.print(f"Held-out: {text} ({images} images, {points:,} points)")
        return metrics
