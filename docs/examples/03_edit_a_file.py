#!/usr/bin/env python3
"""Read Gaussians of any program, keep a ball of them, paint it red, turn it, and write a PLY.

python docs/examples/03_edit_a_file.py scene.ply ball.ply
"""

import sys
from pathlib import Path

import numpy as np
import torch

import lpm

params = lpm.load(Path(sys.argv[1])).params
centre = params["means"].median(0).values
away = (params["means"] - centre).norm(dim=-1)
ball = {name: value[away <= away.median()] for name, value in params.items()}
ball["features_dc"] = ball["features_dc"] + torch.tensor([1.0, 0.0, 0.0])  # SH coefficient of the mean colour
quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
ball = lpm.move(ball, lpm.Similarity(quarter, np.zeros(3), 1.0))  # the colours seen from every side turn along
lpm.write_ply(Path(sys.argv[2]), ball)
print(f"{len(away):,} Gaussians read, {len(ball['means']):,} written")
