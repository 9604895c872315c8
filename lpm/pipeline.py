"""nerfstudio's pipeline; held-out figures are printed where the host only writes them to a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nerfstudio.pipelines.base_pipeline import VanillaPipeline, VanillaPipelineConfig
from nerfstudio.utils.rich_utils import CONSOLE


@dataclass
class LpmPipelineConfig(VanillaPipelineConfig):
    """nerfstudio's options."""

    _target: type = field(default_factory=lambda: LpmPipeline)


class LpmPipeline(VanillaPipeline):
    """Data and model together."""

    def get_average_eval_image_metrics(
        self, step: int | None = None, output_path: Path | None = None, get_std: bool = False
    ) -> dict[str, Any]:
        """Mean metrics over the held-out images, also printed."""
        metrics = super().get_average_eval_image_metrics(step, output_path, get_std)
        names = {"psnr": "PSNR {:.2f} dB", "ssim": "SSIM {:.4f}", "lpips": "LPIPS {:.4f}"}
        text = ", ".join(form.format(metrics[name]) for name, form in names.items() if name in metrics)
        images, points = len(self.datamanager.eval_dataset or []), self.model.num_points
        CONSOLE.print(f"Held-out: {text} ({images} images, {points:,} points)")
        return metrics
