"""A run's model with floaters planted in it, each kind known, and how many of them `lpm-edit clean` took.

    python benchmarks/planted_floaters.py plant RUN planted.ply        # also planted.kinds.json
    lpm-edit clean planted.ply cleaned.ply --scene RUN
    python benchmarks/planted_floaters.py count planted.ply cleaned.ply

Shares of the model's Gaussians: 4 % in free space (on a ray from a camera to a point of SfM, .2 to .8 of the way), 1 %
needles, .5 % where no camera looks, .5 % far from all others, .5 % around cameras, .25 % giants, 1 % nearly
transparent. Sizes are the median's, times .5 to 3, where the kind does not tell them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lpm.editing.cameras import Cameras, scene_cameras
from lpm.formats.ply import write_ply
from lpm.formats.read import load
from lpm.formats.sidecar import Sidecar, write_sidecar
from lpm.multiview.views import centres_of, in_image, project
from lpm.runs.folder import run_folder, run_frame

SHARES = {"free": 0.04, "needle": 0.01, "unseen": 0.005, "far": 0.005, "camera": 0.005, "giant": 0.0025, "faint": 0.01}


def places(kind: str, n: int, means: Tensor, cameras: Cameras, r: np.random.Generator) -> Tensor:
    """[n, 3] where floaters of a kind are."""
    views = cameras.views()
    centres = centres_of(views.viewmats)
    middle = means.median(0).values
    away = (means - middle).norm(dim=1)
    way = torch.nn.functional.normalize(torch.from_numpy(r.normal(0, 1, (n, 3))).float(), dim=1)
    if kind == "free":
        found = []
        while len(found) < n:
            v, p = r.integers(len(views)), cameras.points[r.integers(len(cameras.points))]
            pixels, z = project(p[None], views.viewmats[v], views.Ks[v])
            if bool(in_image(pixels, z, views.sizes[v])):
                found.append(centres[v] + float(r.uniform(0.2, 0.8)) * (p - centres[v]))
        return torch.stack(found)
    if kind == "camera":
        return centres[torch.from_numpy(r.integers(0, len(centres), n))] + 0.02 * cameras.extent * way
    if kind == "far":
        return middle + way * float(away.max()) * torch.from_numpy(r.uniform(1.5, 4, (n, 1))).float()
    if kind == "unseen":
        found = []
        while len(found) < n:  # within the scene, in no picture or in one
            p = middle + torch.from_numpy(r.normal(0, 1, 3)).float() * away.quantile(0.9)
            pixels, z = project(p[None], views.viewmats, views.Ks)
            if int(in_image(pixels, z, views.sizes).sum()) <= 1:
                found.append(p)
        return torch.stack(found)
    return means[torch.from_numpy(r.integers(0, len(means), n))] + 0.02 * cameras.extent * way


def plant(run: Path, out: Path) -> None:
    """Writes the run's model with floaters behind its own rows, and which are of which kind."""
    loaded = load(run)
    params = {name: value.detach() for name, value in loaded.params.items()}
    cameras = scene_cameras(run, loaded, "cpu")
    r = np.random.default_rng(0)
    parts, kinds = [params], ["" for _ in params["means"]]
    usual, radius = params["scales"].median(), (params["means"] - params["means"].median(0).values).norm(dim=1)
    for kind, share in SHARES.items():
        n = int(share * len(params["means"]))
        scales = usual + torch.from_numpy(r.uniform(np.log(0.5), np.log(3), (n, 1)) + r.normal(0, 0.3, (n, 3))).float()
        if kind == "needle":
            scales[:, 0] = (radius.quantile(0.5) * torch.from_numpy(r.uniform(0.1, 0.5, n)).float()).log()
            scales[:, 1:] = scales[:, :1] - torch.from_numpy(np.log(r.uniform(40, 200, (n, 1)))).float()
        if kind == "giant":
            scales = (radius.quantile(0.9) * torch.from_numpy(r.uniform(0.6, 1.5, (n, 3))).float()).log()
        if kind == "camera":
            scales = torch.full((n, 3), float(np.log(0.03 * cameras.extent)))
        opacity = torch.from_numpy(r.uniform(*((1e-4, 0.0035) if kind == "faint" else (0.2, 0.95)), (n, 1))).float()
        if kind == "giant":
            opacity = opacity * 0.3
        parts.append({
            "means": places(kind, n, params["means"], cameras, r), "scales": scales, "opacities": opacity.logit(),
            "quats": torch.nn.functional.normalize(torch.from_numpy(r.normal(0, 1, (n, 4))).float(), dim=1),
            "features_dc": torch.from_numpy(r.uniform(-1.7, 1.7, (n, 3))).float(),
            "features_rest": torch.zeros(n, *params["features_rest"].shape[1:]),
        })  # fmt: skip
        kinds += [kind] * n
    whole = {name: torch.cat([part[name] for part in parts]) for name in params}
    write_ply(out, whole)
    frame = run_frame(run_folder(loaded.path))
    assert frame is not None
    write_sidecar(out, Sidecar(len(kinds), "train", frame[0].tolist(), frame[1], loaded.rasterize_mode or "classic",
                               [0, 0, 1], "", str(run)))  # fmt: skip
    out.with_suffix(".kinds.json").write_text(json.dumps(kinds))


def count(planted: Path, cleaned: Path) -> None:
    """Prints how many of each kind are gone, and how many of the model's own."""
    left = {tuple(row) for row in load(cleaned).params["means"].tolist()}
    kinds = json.loads(planted.with_suffix(".kinds.json").read_text())
    gone = np.array([tuple(row) not in left for row in load(planted).params["means"].tolist()])
    for kind in [*SHARES, ""]:
        of = np.array([k == kind for k in kinds])
        print(f"{kind or 'its own':10} {gone[of].sum():6,} of {of.sum():6,} gone ({gone[of].mean():.1%})")
    of = np.array([bool(k) for k in kinds])
    print(f"{'planted':10} {gone[of].sum():6,} of {of.sum():6,} gone ({gone[of].mean():.1%})")


if __name__ == "__main__":
    {"plant": plant, "count": count}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
