"""How near files that were made of a run come to the photos that it held out: PSNR (dB), SSIM, and what is lost.

    python benchmarks/edited.py RUN FILE...

Files must be in the run's frame of training, as lpm-edit writes them.
"""

import sys
from pathlib import Path

import torch

from lpm.formats.read import load
from lpm.train.opened_run import measured, open_run


def main(run: Path, files: list[Path]) -> None:
    """Prints a line for the run, and one for each file."""
    opened = open_run(run, say=lambda line: None)
    whole = measured(opened)
    print(f"{'the run':40} {whole['points']:>9,} points  {whole['psnr']:.3f} dB  SSIM {whole['ssim']:.4f}")
    for file in files:
        loaded = load(file)
        assert loaded.frame == "train", f"{file} is in the frame {loaded.frame!r}"
        for name in opened.model.gauss_params:
            value = loaded.params[name].to(opened.model.device)
            opened.model.gauss_params[name] = torch.nn.Parameter(value)
        got = measured(opened)
        print(f"{file.name:40} {got['points']:>9,} points  {got['psnr']:.3f} dB ({got['psnr'] - whole['psnr']:+.3f})  "
              f"SSIM {got['ssim']:.4f} ({got['ssim'] - whole['ssim']:+.4f})")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
