"""lpm-bench: what the command line names, the store, the statistics, the page, and a small grid made for real."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import tiny_scene
import torch
from rich.console import Console

from lpm.bench import moving, report, store
from lpm.bench.jobs import Job, grid, key_of, parse_row, parse_scene
from lpm.bench.statistics import paired
from lpm.checks import LpmError
from lpm.train.perceptual import FLIP, have


def made_up(strategy, scene, seed, psnr, cap=30_000, start="sfm"):
    """A run whose three views have the PSNR `psnr` - 1, `psnr` and `psnr` + 1."""
    views = [{"view": f"{i}.png", "psnr": psnr + i - 1, "ssim": 0.9} for i in range(3)]
    return {
        "scene": scene, "strategy": strategy, "seed": seed, "cap": cap, "steps": 100, "start": start, "settings": {},
        "psnr": psnr, "ssim": 0.9, "views": views, "points": cap, "threads": 1, "clock": "processor",
        "peak_memory_mb": 500,
        "seconds": {"setup": 1.0, "training": 9.0, "events": 0.5, "total": 10.0},
        "curve": [{"step": 100, "seconds": 10.0, "points": cap, "psnr": psnr}], "edits": {},
    }  # fmt: skip


def test_scenes_are_named_by_folder_scale_or_sample(tmp_path):
    assert parse_scene("room").data == "sample:room"
    assert parse_scene("mover").data == "sample:mover"  # one that moves
    plain, scaled = parse_scene(f"a={tmp_path}"), parse_scene(f"a={tmp_path}@0.5")
    assert (plain.name, plain.data, plain.scale) == ("a", str(tmp_path), None)
    assert (scaled.data, scaled.scale) == (str(tmp_path), 0.5)


@pytest.mark.parametrize("text", ["nowhere", "a=/does/not/exist", "a=/tmp@half"])
def test_scenes_that_cannot_be_are_refused(text):
    with pytest.raises(LpmError, match=text.split("=")[-1].split("@")[-1]):
        parse_scene(text)


def test_rows_change_settings_under_a_name_of_their_own():
    assert parse_row("adc").settings == {}
    assert (parse_row("no-reset").base, parse_row("no-reset").settings) == ("lpm", {"reset": False})
    row = parse_row("mine=lpm:recycle=0.5,densify=false,rasterize_mode=antialiased")
    assert (row.name, row.base) == ("mine", "lpm")
    assert row.settings == {"recycle": 0.5, "densify": False, "rasterize_mode": "antialiased"}


def test_settings_are_there_before_anything_is_built(tmp_path):
    """What attach() uses of the strategy's options, too; of the model's as well."""
    from lpm.bench.run import configure

    row = parse_row("x=lpm-4d:change=0.1,sh_degree=1")
    job = Job("a", "x", 0, 100, 5, "sfm", str(tmp_path), None, row.base, row.settings, 1, False)
    model = configure(job).model
    assert (model.settings.lpm.change, model.sh_degree) == (0.1, 1)


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("4d", "lpm"),
        ("4d-no-zones", "lpm"),
        ("4dgs", "4dgs"),
        ("stg", "stg"),
        ("freetime", "freetime"),
        ("4d-mcmc", "mcmc"),
    ],
)
def test_rows_of_a_scene_that_moves_have_its_strategies(tmp_path, text, strategy):
    from lpm.bench.run import configure

    row = parse_row(text)
    settings = configure(Job("a", text, 0, 100, 5, "sfm", str(tmp_path), None, row.base, row.settings, 1, False))
    assert (settings.moving, settings.strategy) == (True, strategy)


@pytest.mark.parametrize(
    "text", ["best", "x=best", "lpm:recycle=0", "x=lpm:recycle", "x=lpm:no_such=1", "x=adc:recycle=0.1"]
)
def test_rows_that_cannot_be_are_refused(text):
    with pytest.raises(LpmError, match="--strategies"):
        parse_row(text)


def test_a_seed_of_everything_comes_first():
    scenes = [parse_scene("room"), parse_scene("garden")]
    jobs = grid(scenes, [parse_row("lpm"), parse_row("adc")], [0, 1], [10, 20], 5, ["sfm"], 1, False)
    assert len(jobs) == 16
    assert len({job.key for job in jobs}) == 16
    assert [job.seed for job in jobs[:4]] == [0] * 4
    assert {(job.scene, job.strategy) for job in jobs[:4]} == {
        (s, r) for s in ("room", "garden") for r in ("lpm", "adc")
    }
    with pytest.raises(LpmError, match="--starts"):
        grid(scenes, [], [0], [10], 5, ["nothing"], 1, False)  # type: ignore[list-item]


def sector_scene(folder):
    """A tiny scene whose sector.json holds out the photos 3, 4 and 7 of ten."""
    tiny_scene.make_transforms(folder)
    meta = json.loads((folder / "transforms.json").read_text())
    files = sorted(frame["file_path"] for frame in meta["frames"])
    held = [files[i] for i in (3, 4, 7)]
    lists = {"test_filenames": held, "train_filenames": [file for file in files if file not in held]}
    (folder / "sector.json").write_text(json.dumps(meta | lists))
    return folder


def test_a_sector_holds_out_exactly_the_photos_of_its_list(tmp_path):
    from lpm.bench.run import configure
    from lpm.scenes.read import read_scene
    from lpm.scenes.split import hold_out

    scenes = [parse_scene(f"a={sector_scene(tmp_path)}")]
    jobs = grid(scenes, [parse_row("adc")], [0], [10], 5, ["sfm"], 1, False, ["every-8th", "sector"])
    assert [job.title for job in jobs] == ["a-adc-0k-0", "a-adc-0k-sector-0"]
    held = []
    for job in jobs:
        settings = configure(job)
        scene = read_scene(settings.scene)
        _, test = hold_out(scene, settings.eval_every)
        held.append([scene.names[i] for i in test])
    assert held == [["images/000.png", "images/008.png"], [f"images/00{i}.png" for i in (3, 4, 7)]]


def test_a_sector_is_refused_where_a_scene_has_none():
    for_all = [parse_row("adc")], [0], [10], 5, ["sfm"], 1, False, ["sector"]
    with pytest.raises(LpmError, match=r"--hold-out: sector, and room has no sector.json"):
        grid([parse_scene("room")], *for_all)


def test_results_of_before_go_on_and_hold_outs_do_not_mix(tmp_path):
    old = made_up("lpm", "a", 0, 30.0)
    assert "hold_out" not in old
    sector = made_up("lpm", "a", 0, 25.0) | {"hold_out": "sector"}
    job = Job("a", "lpm", 0, 30_000, 100, "sfm", str(tmp_path), None, "lpm", {}, 1, False)
    assert job.key == key_of(old) != key_of(sector)
    for run in (old, sector, made_up("adc", "a", 0, 29.0)):
        store.add(tmp_path, run, "x")
    assert paired([sector], [old]) is None
    report.write(tmp_path)
    page = (tmp_path / "results.md").read_text()
    assert "| `lpm` | 30.00 (30.00 to 30.00), 0.9000 | 30.00 | 0 of 3 |" in page
    side = page[page.index("## At most 30,000 points, 100 steps, a side of the scene held out") :]
    assert "| `lpm` | 25.00 (25.00 to 25.00), 0.9000 | 25.00 | 0 of 3 |" in side
    assert "- 30,000 points, sfm, a side held out, `adc` (scene, seed): all" in side


def test_lost_views_are_counted_of_all_that_are_held_out(tmp_path):
    for seed, lowest in ((0, 23.9), (1, 24.1)):  # 6 dB below the median or not
        run = made_up("lpm", "a", seed, 30.0)
        run["views"] = [{"view": str(i), "psnr": psnr, "ssim": 0.9} for i, psnr in enumerate((lowest, 30, 30, 31))]
        store.add(tmp_path, run, "x")
        store.add(tmp_path, made_up("adc", "a", seed, 29.0) | {"lost": 2}, "x")
    report.write(tmp_path)
    page = (tmp_path / "results.md").read_text()
    assert "| 30.00 | 1 of 8 |" in page
    assert "| 29.00 | 4 of 6 |" in page


def test_flip_and_what_is_seen_over_time_are_shown_where_they_were_measured(tmp_path):
    old, new = made_up("adc", "a", 0, 29.0), made_up("lpm", "a", 0, 30.0) | {"flip": 0.1, "cvvdp": 8.5}
    for view in new["views"]:
        view["flip"] = 0.1
    assert report.perceptual([old]) == ""
    assert report.perceptual([old, new]).splitlines() == [
        "| strategy | a: FLIP (less is better), ColorVideoVDP (10 is best) |",
        "| --- | --- |",
        "| `lpm` | 0.1000, 8.50 JOD |",
    ]
    other = made_up("adc", "a", 0, 29.0) | {"flip": 0.12}
    for view in other["views"]:
        view["flip"] = 0.12
    assert report.against([new, other], "flip").splitlines()[0].startswith("| FLIP (less is better): `lpm` less | a |")
    assert "| `adc` | -0.0200 (-0.0200 to -0.0200) |" in report.against([new, other], "flip")


def test_paired_differences_have_the_mean_of_scenes():
    ours = [made_up("lpm", "a", s, 30.0 + s) for s in (0, 1)] + [made_up("lpm", "b", 0, 25.0)]
    theirs = [made_up("adc", "a", s, 29.0 + s) for s in (0, 1)] + [made_up("adc", "b", 0, 24.8)]
    found = paired(ours, theirs)
    assert found is not None
    assert found.mean == pytest.approx((1.0 + 0.2) / 2)  # scenes count alike, whatever their number of runs
    assert found.pairs == 3
    assert found.low == pytest.approx(0.6)  # every view and seed of a scene differs by the same
    assert found.high == pytest.approx(0.6)
    assert paired(ours, [made_up("adc", "c", 0, 1.0)]) is None


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(60):
        ours, theirs = [], []
        for seed in range(6):
            run, other = made_up("lpm", "a", seed, 30.0), made_up("adc", "a", seed, 29.5)
            shift = rng.normal(scale=0.3)
            run["views"] = [{"view": str(i), "psnr": 30 + shift + rng.normal(scale=0.3)} for i in range(8)]
            other["views"] = [{"view": str(i), "psnr": 29.5} for i in range(8)]
            ours.append(run)
            theirs.append(other)
        found = paired(ours, theirs)
        assert found is not None
        inside += found.low <= 0.5 <= found.high
    assert inside >= 48  # of 57 expected; bootstraps of few seeds are somewhat short


def test_the_page_says_who_is_ahead_and_what_is_missing(tmp_path):
    runs = [made_up("lpm", "a", s, 30.0 + s / 10) for s in (0, 1)] + [made_up("adc", "a", 0, 29.5)]
    for run in runs:
        store.add(tmp_path, run, "lpm-bench run --out x")
    report.write(tmp_path)
    page = (tmp_path / "results.md").read_text()
    assert "| `lpm` | 30.05 (30.00 to 30.10), 0.9000 | 30.05 |" in page
    assert "| `adc` | +0.50 (+0.50 to +0.50) | +0.50 (+0.50 to +0.50) |" in page
    assert "`adc` (scene, seed): a 1" in page
    assert "lpm-bench run --out x" in page
    assert (tmp_path / "bars.png").stat().st_size > 5_000
    assert (tmp_path / "time.png").stat().st_size > 5_000


@pytest.mark.parametrize(("scene", "drawn"), [("a", True), ("b", False)])
def test_quality_against_points_is_drawn_where_a_strategy_has_two_caps_in_all_scenes(tmp_path, scene, drawn):
    for run in (made_up("lpm", "a", 0, 30.0), made_up("lpm", scene, 0, 29.0, cap=15_000)):
        store.add(tmp_path, run, "x")
    report.write(tmp_path)
    assert (tmp_path / "points.png").is_file() == drawn
    assert ("points.png" in (tmp_path / "results.md").read_text()) == drawn


def test_scenes_that_move_are_compared_where_they_move_and_over_time(tmp_path):
    for seed in (0, 1):
        for strategy, better in (("4d", 2.0), ("4d-no-zones", 0.0)):
            run = made_up(strategy, "a", seed, 30.0)
            for i, view in enumerate(run["views"]):
                view.update(time=i / 10, psnr_static=35.0)
                if i > 0:  # in the first nothing moves
                    view.update(psnr_dynamic=20.0 + better)
            store.add(tmp_path, run | {"psnr_dynamic": 20.0 + better, "psnr_static": 35.0}, "x")
    report.write(tmp_path)
    page = (tmp_path / "results.md").read_text()
    assert "| `4d` | a | 22.00 (22.00 to 22.00) | 35.00 (35.00 to 35.00) |" in page
    title = "| PSNR where it moves (dB): `4d` less | a | all (95 % interval) |"
    assert (
        page[page.index(title) :].splitlines()[2]
        == "| `4d-no-zones` | +2.00 (+2.00 to +2.00) | +2.00 (+2.00 to +2.00) |"
    )
    assert (tmp_path / "moments.png").stat().st_size > 5_000


def test_quality_where_it_moves_knows_only_of_that():
    truth = torch.rand(40, 40, 3, generator=torch.Generator().manual_seed(0))
    render, mask = truth.clone(), torch.zeros(40, 40, dtype=torch.bool)
    render[:20] = 0.5 * render[:20] + 0.25
    mask[:20] = True
    expected = -10 * math.log10((render - truth)[:20].square().mean())
    assert moving.psnr(render, truth, mask) == pytest.approx(expected, abs=1e-4)
    assert moving.psnr(truth, truth, ~mask) == pytest.approx(100.0)
    far = torch.zeros_like(mask)
    far[30:] = True  # SSIM looks five pixels around
    assert moving.ssim(render, truth, far) == pytest.approx(1.0, abs=1e-4)
    assert moving.ssim(render, truth, mask) < 0.9
    assert moving.ssim(render, truth, mask & False) is None


def test_a_run_made_again_takes_the_place_of_the_first(tmp_path):
    store.add(tmp_path, made_up("lpm", "a", 0, 30.0), "one")
    store.add(tmp_path, made_up("lpm", "a", 0, 31.0), "two")
    result = store.read(tmp_path)
    assert [r["psnr"] for r in result["runs"]] == [31.0]
    assert result["commands"] == ["one", "two"]


def test_on_a_gpu_the_clock_waits_and_the_memory_is_the_devices(tmp_path, monkeypatch):
    from lpm.bench import run

    job = Job("room", "lpm", 0, 100, 10, "sfm", str(tmp_path), None, "lpm", {}, 1, False)
    assert run.clock_of(job)[0] == "processor"
    assert set(run.peak_memory()) == {"host"}
    waited = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append(True))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    clock, now = run.clock_of(job)
    assert clock == "wall"
    assert now() <= now()
    assert len(waited) == 2
    assert run.peak_memory()["device"] == 3
    there = [{**made_up("lpm", "room", 0, 20), "memory_of": "device"}]
    assert "most MB (device)" in report.costs(there)
    assert "most MB |" in report.costs([made_up("lpm", "room", 0, 20)])


def test_broken_results_and_a_second_writer_are_refused(tmp_path):
    (tmp_path / "results.json").write_text('{"runs": [{"scene": "a"}]}')
    with pytest.raises(LpmError, match=r"results.json: not a result of lpm-bench"):
        store.read(tmp_path)
    with store.alone(tmp_path), pytest.raises(LpmError, match="another lpm-bench"), store.alone(tmp_path):
        pass


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-c", "from lpm.bench.cli import main; main()", *map(str, arguments)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_a_small_grid_is_made_once_and_gone_on_with(tmp_path):
    scene = tiny_scene.make_transforms(tmp_path / "scene")
    grid_of = (
        "run",
        "--out",
        tmp_path / "out",
        "--scenes",
        f"tiny={scene}",
        "--seeds",
        0,
        "--steps",
        12,
        "--caps",
        200,
    )
    first = command(*grid_of, "--strategies", "adc", "wrong=lpm:rasterize_mode=nonsense")
    assert first.returncode == 2
    assert "1 of 2 runs failed: tiny-wrong-0k-0" in first.stderr, first.stdout + first.stderr
    assert "rasterize_mode: 'nonsense'" in (tmp_path / "out" / "logs" / "tiny-wrong-0k-0.log").read_text()
    second = command(*grid_of, "--strategies", "adc", "--starts", "sfm", "thinned", "random")
    assert second.returncode == 0, second.stderr
    assert "3 runs, 1 of them made before" in second.stdout
    runs = json.loads((tmp_path / "out" / "results.json").read_text())["runs"]
    assert len(runs) == 3
    assert all(len(run["views"]) == 2 and np.isfinite(run["psnr"]) for run in runs)
    assert {(run["hold_out"], run["lost"]) for run in runs} == {("every-8th", 0)}
    assert all(("flip" in run) == have(FLIP) for run in runs)
    starts = {run["start"]: run["points"] for run in runs}
    assert starts["thinned"] == 6  # of 60
    assert starts["random"] == 100  # half of the cap


def test_where_every_run_fails_the_runs_are_named(tmp_path):
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    result = command("run", "--out", out, "--scenes", f"a={empty}", "--seeds", 0, "--strategies", "adc")
    assert result.returncode == 2
    assert result.stderr == f"error: 1 of 1 runs failed: a-adc-30k-0; see {out / 'logs'}\n"
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == ["logs"]


def test_a_run_that_was_killed_says_so(tmp_path, monkeypatch):
    from lpm.bench import grid

    (tmp_path / "python").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(grid.sys, "executable", str(tmp_path / "python"))
    job = Job("a", "adc", 0, 100, 5, "sfm", str(tmp_path), None, "adc", {}, 1, False)
    assert grid._run(job, None) == (None, "ended by SIGKILL\n")


def test_progress_is_written_as_text_where_nobody_watches(tmp_path):
    from lpm.bench.grid import run_all

    out = io.StringIO()
    job = Job("a", "adc", 0, 100, 5, "sfm", str(tmp_path / "gone"), None, "adc", {}, 1, False)
    assert run_all([job], tmp_path / "out", 1, "x", Console(file=out, width=200)) == ["a-adc-0k-0"]
    assert "a-adc-0k-0 failed: error:" in out.getvalue()
