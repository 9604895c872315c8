"""A USD file of Gaussians as the PLY that web viewers open, read by NVIDIA's Newton and written by plyfile.

    python usd_to_ply.py IN.usdz OUT.ply

Nothing of lpm is used. What the arrays mean is what Newton's importer says of its own (rotations x y z w, linear sizes
and opacities) and, of the harmonics, the schema (a Gaussian's coefficients one after the other, three colours each).
The PLY is in the frame of the prim.
"""

import sys

import newton
import numpy as np
from plyfile import PlyData, PlyElement
from pxr import Usd

source, out = sys.argv[1:]
stage = Usd.Stage.Open(source)
(prim,) = (each for each in stage.Traverse() if each.GetTypeName() == "ParticleField3DGaussianSplat")
found = newton.Gaussian.create_from_usd(prim)
harmonics = found.sh_coeffs.reshape(found.count, (found.sh_degree + 1) ** 2, 3)
rest = harmonics[:, 1:].transpose(0, 2, 1).reshape(found.count, -1)  # a PLY has them colour by colour
values = {
    "x y z": found.positions,
    "f_dc_0 f_dc_1 f_dc_2": harmonics[:, 0],
    " ".join(f"f_rest_{i}" for i in range(rest.shape[1])): rest,
    "opacity": np.log(found.opacities / (1 - found.opacities))[:, None],
    "scale_0 scale_1 scale_2": np.log(found.scales),
    "rot_0 rot_1 rot_2 rot_3": found.rotations[:, [3, 0, 1, 2]],
}
columns = {name: column for names, block in values.items() for name, column in zip(names.split(), block.T, strict=True)}
rows = np.zeros(found.count, [(name, "f4") for name in columns])
for name, column in columns.items():
    rows[name] = column
PlyData([PlyElement.describe(rows, "vertex")]).write(out)
