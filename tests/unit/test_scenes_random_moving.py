"""Clips drawn from a seed: what moves is where truth.json, depth, flow and masks say; faults stay in drawn bounds."""

from __future__ import annotations

import filecmp
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lpm.checks import LpmError
from lpm.scenes import cli
from lpm.scenes.read import read_scene
from lpm.scenes.samples import textures
from lpm.scenes.samples.drawn_clips import draw_clip
from lpm.scenes.samples.faults import noisy
from lpm.scenes.samples.movers import KINDS, Mover, Path
from lpm.scenes.samples.points import project, unproject
from lpm.scenes.samples.random_moving import STAGE, flow, make_random_clip, motion, world_at
from lpm.scenes.samples.stages import draw_stage
from lpm.scenes.samples.textures import Atlas, grain
from lpm.scenes.samples.trace import Solid, World, shoot
from lpm.scenes.samples.worlds import look_at
from lpm.scenes.split import hold_out

SIZE, FRAMES, SEED = (64, 48), 6, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny clip with coarse textures: its folder, scene, truth, and what it was drawn from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textures, "SIZE", 128)
        folder = make_random_clip(tmp_path_factory.mktemp("clip") / "out", 2, FRAMES, SIZE, SEED)
        clip = draw_clip(SEED, 2, FRAMES, SIZE)
        base = draw_stage(np.random.default_rng([SEED, STAGE]), SEED, clip.arc.distance, clip.faults.detail)
    intrinsics = np.array([clip.arc.focal * SIZE[0]] * 2 + [SIZE[0] / 2, SIZE[1] / 2])
    truth = json.loads((folder / "truth.json").read_text())
    return SimpleNamespace(folder=folder, clip=clip, base=base, k=intrinsics, truth=truth, scene=read_scene(folder))


def photos(made):
    """(camera, time step, name, world at the moment of the photo) of every photo."""
    for c, moments in enumerate(made.clip.moments):
        for i, t in enumerate(moments):
            yield c, i, f"cam{c:02d}/{i:04d}", world_at(made.base, made.clip.movers, float(t))


def test_cameras_and_times_are_held_out(made):
    scene, held = made.scene, made.truth["held_out"]
    train, test = hold_out(scene, 8)
    assert held == {"cams": ["cam01"], "times": [0.4]}
    assert {scene.cams[i] for i in train} == {"cam00", "cam02"}
    assert 0.4 not in scene.capture_times[train]
    assert [scene.cams[i] for i in test] == ["cam00", "cam01", "cam02"]
    assert (scene.capture_times[test] == 0.4).all()
    assert scene.lists["val"] == [f"images/cam01/{i:04d}.png" for i in range(FRAMES)]


def test_depth_lies_on_surfaces_and_masks_on_movers(made):
    seen = 0
    for c, _, name, world in photos(made):
        depth = np.load(made.folder / "depth" / f"{name}.npy")
        rows, columns = np.divmod(np.arange(0, depth.size, 7), SIZE[0])
        z = depth[rows, columns].astype(np.float64)
        points = unproject(np.stack([columns, rows], 1) + 0.5, z, made.clip.poses[c], made.k)
        assert (world.distance(points) < 1e-3 + 1e-5 * z).all()
        of_movers = np.min([s.distance(points) for s in world.solids[len(made.base.solids) :]], axis=0) < 2e-3
        movers = np.asarray(Image.open(made.folder / "movers" / f"{name}.png"))[rows, columns]
        assert ((movers > 0) == of_movers).mean() > 0.99  # a mover's foot touches the ground
        seen += (movers > 0).sum()
    assert seen > 20


def test_photos_are_the_scene_with_noise_within_its_bound(made):
    noise = made.truth["drawn"]["noise"]
    for c, i, name, world in list(photos(made))[::4]:
        shot, still = (shoot(w, made.clip.poses[c], made.k, *SIZE) for w in (world, made.base))
        photo = np.asarray(Image.open(made.folder / "images" / f"{name}.png")) / 255.0
        inner = (shot.rgb > 0.1) & (shot.rgb < 0.9)
        off = (photo - shot.rgb)[inner]
        if made.clip.trained_on(c, i):
            assert 0.4 * noise < off.std() < 1.05 * noise + 1 / 255
        else:
            assert np.abs(off).max() < 1 / 255
        pixels, same = ((np.clip(s.rgb, 0, 1) * 255 + 0.5).astype(np.uint8).astype(int) for s in (shot, still))
        mask = np.asarray(Image.open(made.folder / "dynamic" / f"{name}.png")) > 0
        assert np.array_equal(mask, np.abs(pixels - same).max(2) > 1)
        assert made.truth["moving_share"][f"images/{name}.png"] == pytest.approx(mask.mean(), abs=1e-5)


def test_noise_has_the_spread_that_is_asked_for():
    white = noisy(np.ones((200, 200, 3), np.float32), 0.02, np.random.default_rng(0)) - 1
    assert white.std() == pytest.approx(0.02, rel=0.02)


def test_told_poses_are_off_by_what_is_drawn(made):
    corners = np.array([[x, y] for x in (0, SIZE[0] / 2, SIZE[0]) for y in (0, SIZE[1] / 2, SIZE[1])], float)
    for c, pose in enumerate(made.clip.poses):
        told = made.scene.c2w[c * FRAMES]
        points = unproject(corners, np.full(len(corners), 3.0), pose, made.k)
        moved = np.linalg.norm(project(points, told, made.k)[0] - corners, axis=1)
        bound = made.truth["pose_error_px"][f"cam{c:02d}"]
        assert bound <= made.truth["drawn"]["calibration"] <= 2
        assert np.allclose(pose, made.truth["poses"][f"cam{c:02d}"])
        assert moved.max() <= bound + 1e-3
        assert moved.max() > 0.6 * bound
        if c in made.clip.arc.held_out:
            assert np.array_equal(told, pose)
        else:
            assert bound > 0


def test_flow_is_the_motion_seen(made):
    """Of a pixel of a mover: its point, moved as its part is, projects to where flow says; what stands still, stays."""
    for c, i, name, _ in photos(made):
        if i + 1 == FRAMES:
            assert not (made.folder / "flow" / f"{name}.npz").exists()
            continue
        by = np.load(made.folder / "flow" / f"{name}.npz")["flow"]
        movers = np.asarray(Image.open(made.folder / "movers" / f"{name}.png"))
        assert (by[movers == 0] == 0).all()
        depth = np.load(made.folder / "depth" / f"{name}.npy").astype(np.float64)
        later = float(made.clip.moments[c, i + 1])
        for row, column in np.argwhere(movers > 0)[::9]:
            mover = made.clip.movers[movers[row, column] - 1]
            if not mover.is_there(later):
                assert np.isnan(by[row, column]).all()
                continue
            at = np.array([[column + 0.5, row + 0.5]])
            point = unproject(at, depth[row, column][None], made.clip.poses[c], made.k)
            parts = mover.solids(float(made.clip.moments[c, i]))
            part = int(np.argmin([s.distance(point)[0] for s in parts]))
            moved = np.array(mover.solids(later)[part].low) - parts[part].low
            there = project(point + moved, made.clip.poses[c], made.k)[0] - at
            assert by[row, column] == pytest.approx(there[0], abs=0.02)


def test_depth_and_flow_of_a_known_pixel():
    """A ball 3 m before the camera goes .1 m to the right: its middle by f .1 / depth."""
    mover = Mover(
        "ball", "ball", ("grain", "grain"), 0.5, Path("line", (0, 0, 1), (1, 0, 0), 1.0, 1.0), 1, 0, (0, 0.55)
    )
    base = World([Solid("wall", "grain", (-9, 2, -9), (9, 2, 9))], Atlas({"grain": grain}, 0), (0, -5, 5))
    pose, k = look_at(np.array([0.0, -3.0, 1.0]), np.array([0.0, 0.0, 1.0])), np.array([60.0, 60.0, 32.5, 24.5])
    shot = shoot(world_at(base, [mover], 0.0), pose, k, *SIZE)
    assert shot.depth[24, 32] == pytest.approx(2.5)
    assert shot.depth[0, 0] == pytest.approx(5.0)
    moved, number = motion(base, [mover], 0.0, 0.1)
    assert number[shot.solid][24, 32] == 1
    assert flow(shot, pose, k, moved)[24, 32] == pytest.approx([60 * 0.1 / 2.5, 0], abs=1e-4)
    assert (flow(shot, pose, k, moved)[0, 0] == 0).all()
    gone, _ = motion(base, [mover], 0.5, 0.6)
    assert np.isnan(flow(shot, pose, k, gone)[24, 32]).all()
    assert len(world_at(base, [mover], 0.6).solids) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_some_movers_bend_and_others_do_not(kind):
    path = Path("line", (0, 0, 1), (1, 0, 0), 1.0, 1.0)
    mover = Mover("m", kind, ("rust", "rust"), 0.4, path, 1.3, 0.7, (0, 1))
    before, after = (np.array([s.low for s in mover.solids(t)]) for t in (0.0, 0.19))
    apart = np.ptp(after - before, axis=0).max()
    assert apart > 0.1 if kind in ("worm", "reed", "figure") else apart < 1e-9
    assert len(before) == {"ball": 1, "box": 1, "stack": 2, "worm": 7, "reed": 7, "figure": 20}[kind]


def test_seeds_draw_clips_of_every_sort():
    clips = [draw_clip(seed, None, 8, (320, 240)) for seed in range(40)]
    assert {clip.arc.trained for clip in clips} >= {3, 4, 6, 8, 10, 12}
    assert {mover.kind for clip in clips for mover in clip.movers} == set(KINDS)
    assert {len(clip.movers) for clip in clips} == {1, 2, 3, 4}
    assert min(c.arc.step for c in clips) < 6 < 18 < max(c.arc.step for c in clips)
    for clip in clips:
        held = clip.arc.held_out
        assert 0 not in held
        assert len(clip.poses) - 1 not in held
        assert (np.diff(held) > 1).all()
        assert np.abs(clip.moments - clip.times).max() <= 0.1 / 7
        for mover in clip.movers:
            for t in np.linspace(0, 1, 9):
                parts = [(np.array(s.low), s.radius, np.array(s.high or s.low)) for s in mover.solids(float(t))]
                assert min((low - r)[2] for low, r, _ in parts) > -0.03
                assert max(np.abs((low + high) / 2)[1] for low, _, high in parts) < 1.3


def test_the_same_seed_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(textures, "SIZE", 64)
    one, two, other = (
        make_random_clip(tmp_path / n, 2, 4, (32, 24), seed) for n, seed in (("a", 3), ("b", 3), ("c", 5))
    )
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 3 * (4 * 4 + 3) + 3
    assert filecmp.cmpfiles(one, two, files, shallow=False)[0] == files
    assert not filecmp.cmp(one / "images/cam00/0000.png", other / "images/cam00/0000.png", shallow=False)
    assert draw_clip(3, 2, 4, (32, 24)).movers != draw_clip(5, 2, 4, (32, 24)).movers
    with pytest.raises(LpmError, match="cams and frames: 1 and 6"):
        make_random_clip(tmp_path / "d", 1, 6)


def test_the_command_makes_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(textures, "SIZE", 64)
    cli.make("random-moving", tmp_path / "out", cams=2, frames=4, size="32x24", seed=2)
    assert "12 views of 32x24" in capsys.readouterr().out
    cli.info(tmp_path / "out")
    assert "moves     4 time steps, 3 cameras" in capsys.readouterr().out
    with pytest.raises(LpmError, match="--lens: 360"):
        cli.make("random-moving", tmp_path / "b", lens="360")


def test_a_pause_begins_and_ends_at_rest():
    path = Path("pause", (0, 0, 0), (1, 0, 0), 2.0, 1.0)
    assert path.at(1.0)[0] == pytest.approx(1.0)
    assert path.at(0.02)[0] < 0.002
    back = replace(path, kind="line", reach=0.4)
    assert [round(float(back.at(t)[0]), 6) for t in (0.2, 0.4, 0.6, 0.8, 1.0)] == [0.2, 0.4, 0.2, 0.0, 0.2]
