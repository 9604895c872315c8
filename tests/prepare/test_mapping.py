"""Pairs that are compared, the two mappers, and whether a wrong model is noticed."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from rendered_photos import FOCAL, SIZE, VIEWS, alignment
from rich.console import Console
from scipy.spatial.transform import Rotation

from lpm.checks import LpmError
from lpm.prepare import live, mapping, pair_choice, refine, sfm, verdict
from lpm.prepare.agreement import agreement, explained_by, fitting, turning_share
from lpm.prepare.match_graph import largest_group, well_joined
from lpm.prepare.run import prepare
from lpm.prepare.settings import Settings
from lpm.scenes.read import read_scene
from lpm.scenes.samples.make import render
from lpm.scenes.samples.random_still import random_still
from lpm.scenes.samples.worlds import SAMPLES, look_at

# Pairs.


def test_pairs_by_name(tmp_path):
    def pairs(count, matching):
        return pair_choice.choose(tmp_path / "unread.db", ["a"] * count, matching, lambda n: None)

    assert len(pairs(60, "exhaustive")) == 60 * 59 / 2
    assert len(pairs(pair_choice.FEW, "auto")) == pair_choice.FEW * (pair_choice.FEW - 1) / 2
    some = pairs(150, "sequential")
    assert {(i, i + 1) for i in range(149)} <= set(some)
    assert all(i < j < 150 for i, j in some)
    assert any(j - i > 100 for i, j in some)  # notices a way that closes
    assert len(some) < 150 * 149 / 6


def test_images_that_look_alike():
    """A ring of 20 images, each with half of its features in common with each neighbour, and noise on all of them."""
    own = torch.randn(20, 40, 128)
    features = torch.cat([own, own.roll(-1, 0), torch.zeros(20, 8, 128)], 1) + 0.05 * torch.randn(20, 88, 128)
    features[:, 80:] = 0.0
    features = torch.nn.functional.normalize(features, dim=2)
    counts = pair_choice.alike(features, lambda n: None)
    assert torch.equal(counts, counts.T)
    ring = torch.tensor([[i, (i + 1) % 20] for i in range(20)])
    assert (counts[ring[:, 0], ring[:, 1]] == 40).all()
    assert counts.sum() == 2 * 20 * 40
    assert pair_choice.chosen(counts) == sorted(
        {(min(i, j), max(i, j)) for i, j in ring.tolist()}, key=lambda pair: (pair[1], pair[0])
    )


def test_pairs_that_hold_all_together():
    """Two groups that look alike within, and one weak likeness between them, which is compared all the same."""
    counts = torch.zeros(60, 60, dtype=torch.int64)
    counts[:30, :30] = counts[30:, 30:] = 50
    counts.fill_diagonal_(0)
    counts[3, 40] = counts[40, 3] = 2
    found = pair_choice.chosen(counts)
    assert (3, 40) in found
    assert len(found) == len(set(found)) < 60 * pair_choice.PARTNERS


def test_features_fit_the_photos():
    assert sfm.budget((800, 533), 1600, 60) == 2600
    assert sfm.budget((533, 800), 1600, 60) == 2600
    assert sfm.budget((800, 533), 1600, 40) == 3900
    assert sfm.budget((800, 533), 1600, 30) == sfm.budget((800, 533), 1600, 10) == 5200
    assert sfm.budget((288, 216), 1600, 100) == sfm.LEAST_FEATURES
    assert sfm.budget((288, 216), 1600, 12) == 2 * sfm.LEAST_FEATURES
    assert sfm.budget((800, 533), 1600, 126) == sfm.LEAST_FEATURES
    assert sfm.budget((4000, 3000), 1600, 60) == sfm.budget((1600, 1200), 1600, 60) == 5500
    assert sfm.budget((4000, 3000), 1600, 240) == sfm.budget((4000, 3000), 1600, 1000) == 2800
    assert sfm.budget((4000, 3000), 4000, 30) == sfm.MOST_FEATURES


def test_radial_parameters():
    def some(model, *params):
        return refine.radial_parameters(model, np.array(params)).tolist()

    assert some("SIMPLE_RADIAL", 500, 320, 240, 0.1) == [500, 320, 240, 0.1, 0]
    assert some("PINHOLE", 500, 510, 320, 240) == [505, 320, 240, 0, 0]
    assert some("OPENCV", 1, 3, 4, 5, 6, 7, 8, 9) == [2, 4, 5, 6, 7]


def test_the_last_adjustment_listens_to_the_fine_features():
    """A third of the features lie ten times as far from where they should be as the others, as coarse ones do."""
    pycolmap = sfm.load_pycolmap()
    told = pycolmap.SyntheticDatasetOptions()
    told.num_rigs, told.num_frames_per_rig, told.num_points3D = 1, 12, 400
    pycolmap.set_random_seed(0)
    model = pycolmap.synthesize_dataset(told)
    rng = np.random.default_rng(0)
    for image in model.images.values():
        for point in image.points2D:
            point.xy = point.xy + rng.normal(size=2) * (1.0 if rng.random() < 0.33 else 0.1)
    (camera,) = model.cameras.values()
    true = camera.params.copy()
    refine.refine(pycolmap, model, False)
    assert refine.middle_error(model) < 0.16  # .25 by soft L1 alone
    assert np.abs(model.cameras[camera.camera_id].params - true)[:3].max() < 0.25  # pixels; 1.06


# Judging.


def test_images_that_hang_together():
    assert largest_group([]) == 0
    assert largest_group([(1, 2), (3, 4), (5, 6), (4, 5), (2, 1)]) == 4
    chain = [(i, i + 1) for i in range(1, 9)] + [(5, 3), (20, 21)]
    assert well_joined(chain, 5)[0] in (3, 5)
    assert {3, 4, 5} < set(well_joined(chain, 5))
    assert sorted(well_joined(chain, 99)) == list(range(1, 10))


def directions(at):
    return at / np.linalg.norm(at, axis=1)[:, None]


@pytest.mark.parametrize("middle", [(0, 0, 4), (2, 0, -2)], ids=["ahead", "behind a fisheye"])
def test_matches_that_a_model_explains(middle):
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (200, 3)) + np.array(middle)
    turn, move = Rotation.from_rotvec([0.1, -0.2, 0.05]).as_matrix(), np.array([0.5, 0.3, -0.2])
    one, two = directions(points), directions(points @ turn.T + move)
    focal = (500.0, 500.0)
    assert fitting(one, two, turn, move, focal).all()
    assert fitting(one, directions(two + 2 / 500), turn, move, focal).all()  # within the four pixels
    other = Rotation.from_rotvec([0.3, 0.0, 0.3]).as_matrix() @ turn
    assert fitting(one, two, other, move, focal).mean() < 0.2
    assert fitting(one, two, turn, -move, focal).mean() < 0.1  # the lines are the same, but the points lie behind
    assert fitting(one, one @ turn.T, turn, move, focal).all()  # far away


def test_cameras_that_only_turn():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (200, 3)) + np.array([0, 0, 4])

    def seen(move, stretch):
        """Two images of one point cloud; rays as a focal length gives them that is `stretch` times too short."""
        turns = [Rotation.from_euler("y", 5 * i, degrees=True).as_matrix() for i in range(5)]
        there = [points @ turn.T + i * np.asarray(move) for i, turn in enumerate(turns)]
        rays = [directions(at * [stretch, stretch, 1]) for at in there]
        return [(rays[i], rays[j], 500.0 / stretch) for j in range(5) for i in range(j)]

    assert turning_share(seen([0, 0, 0], 1.0)) == 1
    assert turning_share(seen([0, 0, 0], 1.3)) == 1
    assert turning_share(seen([0.1, 0, 0], 1.0)) < 0.8
    assert turning_share([]) == 0


def a_judgement(**changes):
    return replace(verdict.Judgement(40, 40, 40, 500.0, None, 0.95, 0.95, 0.8, 0.3, [], 0.6), **changes)


def test_which_model_is_better():
    good, doubted = a_judgement(), a_judgement(faults={"focal": "x"}, error=0.1)
    assert good.beats(doubted)
    assert not doubted.beats(good)
    assert a_judgement(faults={"focal": "x"}).beats(a_judgement(explained=0.9))
    assert not good.beats(a_judgement(explained=0.94))
    assert good.beats(a_judgement(error=0.7))
    assert not good.beats(a_judgement(error=0.63))
    assert "nothing speaks against it" in good.line()
    assert "EXIF" not in good.line()
    assert doubted.line().endswith("doubtful: x")
    assert not a_judgement(faults={"images": "x", "error": "y", "misfits": "z"}, misfits=["a"]).wrong
    assert a_judgement(misfits=["a"] * 5).wrong
    assert doubted.wrong


# Mapping.


def posed_by(work, mapper, lines):
    settings = {"mapper": mapper, "camera_model": "auto", "feature_size": 1600, "seed": 0}
    return mapping.reconstruct(work, settings, lambda count: None, lines.append)


@pytest.mark.parametrize("mapper", mapping.MAPPERS)
def test_the_model_is_shown_as_it_grows(matched, mapper, monkeypatch):
    page = live.Live(matched, sorted(path.name for path in (matched / "images").iterdir()))
    page.matches(sfm.load_pycolmap())
    assert f"pairs of {VIEWS} images match" in page.page.read_text()
    monkeypatch.setattr(live, "SHARE", 1e9)  # draws as often as it is asked to
    told = []

    def show(model, doing, whole):
        before = (matched / "live.png").stat().st_mtime_ns
        page.show(model, doing, whole)
        assert (matched / "live.png").stat().st_mtime_ns > before
        told.append(page.page.read_text())

    settings = {"mapper": mapper, "camera_model": "auto", "feature_size": 1600, "seed": 0}
    mapping.reconstruct(matched, settings, lambda count: None, [].append, show)
    assert f"{VIEWS} of {VIEWS} images have a pose" in told[-1]
    if mapper == "incremental":
        assert [f": {count} of {VIEWS} images" in text for count, text in enumerate(told, 2)] == [True] * (VIEWS - 1)
    else:
        assert "a quick look" in told[0]
    assert not list(matched.glob("live.unfinished*"))


def true_error(work, truth):
    """Largest rotation and centre errors of work/model (see `alignment`), and its relative focal error."""
    import pycolmap

    model = pycolmap.Reconstruction(work / "model")
    images = sorted(model.images.values(), key=lambda image: image.name)
    found = np.stack([np.vstack([image.cam_from_world().inverse().matrix(), [0, 0, 0, 1]]) for image in images])
    found[:, :3, 1:3] *= -1  # OpenCV's axes to OpenGL's
    (camera,) = model.cameras.values()
    indices = [int(image.name[:2]) for image in images]
    return *alignment(truth[indices], found), camera.mean_focal_length() / FOCAL - 1


@pytest.mark.parametrize("mapper", mapping.MAPPERS)
def test_both_mappers(rendered, matched, mapper):
    posed = posed_by(matched, mapper, [])
    assert posed["mapper"] == mapper
    assert posed["registered"] == VIEWS
    assert posed["faults"] == []
    assert not posed["wrong"]
    assert f"{VIEWS} of {VIEWS} images that hang together" in posed["check"]
    degrees, away, focal = true_error(matched, rendered[1])
    assert degrees < 1
    assert away < 0.03
    assert abs(focal) < 0.02


def test_features_are_limited(matched):
    import pycolmap

    with pycolmap.Database.open(matched / "database.db") as db:
        counts = [len(db.read_keypoints(image.image_id)) for image in db.read_all_images()]
        focal = {camera.mean_focal_length() for camera in db.read_all_cameras()}
    assert 500 < max(counts) <= 1000
    # What a repeated command starts from is not what the global mapper has found.
    assert focal == {1.2 * max(SIZE)}


def test_global_mapper_begins_again_with_the_focal_length_it_found(matched, monkeypatch):
    real, began = mapping.mapped_globally, []

    def noted(pycolmap, work, database, seed, quick=False):
        with pycolmap.Database.open(database) as db:
            began.append([camera.mean_focal_length() for camera in db.read_all_cameras()])
        return real(pycolmap, work, database, seed, quick)

    monkeypatch.setattr(mapping, "mapped_globally", noted)
    assert posed_by(matched, "global", [])["mapper"] == "global"
    assert began[0] == [1.2 * max(SIZE)]
    assert len(began) in (2, 3)
    assert began[-1] == [pytest.approx(FOCAL, rel=0.05)]


def test_pycolmap_without_a_global_mapper(matched, monkeypatch):
    monkeypatch.delattr(sfm.load_pycolmap(), "global_mapping")
    lines = []
    posed = posed_by(matched, "global", lines)
    assert posed["mapper"] == "incremental"
    assert posed["registered"] == VIEWS
    assert len(lines) == 1
    assert "has no global_mapping; the incremental mapper is tried" in lines[0]
    assert "has no global_mapping" in mapping.words(posed)


def test_global_mapper_that_loses_images(matched, monkeypatch):
    real = mapping.mapped_globally

    def fewer(pycolmap, work, database, seed, quick=False):
        (model,) = real(pycolmap, work, database, seed, quick)
        for image in sorted(model.images.values(), key=lambda image: image.name)[9:]:
            model.deregister_frame(image.frame_id)
        return [model]

    monkeypatch.setattr(mapping, "mapped_globally", fewer)
    lines = []
    posed = posed_by(matched, "global", lines)
    assert posed["mapper"] == "incremental"
    assert posed["registered"] == VIEWS
    assert f"only 9 of {VIEWS} images that hang together have a pose" in lines[0]
    assert [tried["mapper"] for tried in posed["tried"]] == ["global", "incremental"]


def test_a_wrong_model_is_noticed(matched):
    """The model is right; what EXIF is made to say is not. Then it is made wrong, in one image and in half of them."""
    pycolmap = sfm.load_pycolmap()
    posed_by(matched, "global", [])
    model = pycolmap.Reconstruction(matched / "model")
    (key,) = model.cameras

    def judged(exif=None):
        found = agreement(pycolmap, matched / "database.db", model, mapping.LEAST_MATCHES)
        return verdict.judge(model, verdict.Expected(VIEWS, exif or {}, 1600), found)

    assert judged({key: FOCAL}).faults == {}
    assert judged().fit > 0.95
    assert judged().placed > 0.5
    assert list(judged({key: 1.3 * FOCAL}).faults) == ["focal"]

    def turn(image, degrees):
        pose = model.frames[image.frame_id].rig_from_world
        turned = pycolmap.Rotation3d(Rotation.from_euler("y", degrees, degrees=True).as_quat()) * pose.rotation
        model.frames[image.frame_id].rig_from_world = pycolmap.Rigid3d(turned, pose.translation)

    images = sorted(model.images.values(), key=lambda image: image.name)
    turn(images[4], 15)
    assert judged().misfits[0] == images[4].name
    assert "misfits" in judged().faults
    turn(images[4], -15)
    for image in images[::2]:
        turn(image, 10)
    assert judged().fit < 0.7
    assert judged().wrong
    assert "matches" in judged().faults


def test_walls_that_look_alike_are_no_fault_of_photos_whose_other_faces_agree():
    """Photos 1 to 3 have six faces each, 4 and 5 are single images."""
    images = {1: 6, 2: 6, 3: 6, 4: 1, 5: 1}
    fits = {(1, 2): [80, 100], (1, 3): [60, 100], (4, 5): [80, 100], (3, 5): [70, 100]}
    assert explained_by(fits, images) == 100 + 60 + 80 + 100
    assert explained_by({}, images) == 0


def test_a_model_that_looks_wrong_is_not_made_a_scene_unasked(rendered, tmp_path, monkeypatch):
    monkeypatch.setattr(verdict, "FIT", 1.01)
    out = tmp_path / "out"
    console = Console(file=io.StringIO(), width=500)
    with pytest.raises(LpmError, match=r"model: .*of the verified matches between them fit.*--accept takes the model"):
        prepare(Settings(rendered[0], out), console)
    assert not (out / "sparse").exists()
    assert (out / ".prepare/doubtful/report.html").is_file()
    assert "the incremental mapper is tried" in console.file.getvalue()
    assert prepare(Settings(rendered[0], out, accept=True), console)["registered"] == VIEWS
    assert len(read_scene(out).names) == VIEWS
    assert "This model may be wrong" in (out / "report.html").read_text()


@pytest.mark.slow
def test_photos_of_which_no_scene_can_be_made(rendered, tmp_path):
    """Turning on the spot, one photo many times, blur everywhere: a line and nothing else."""

    def refused(name, match):
        with pytest.raises(LpmError, match=match):
            prepare(Settings(tmp_path / name, tmp_path / f"{name}-out"), Console(file=io.StringIO()))
        assert [path.name for path in (tmp_path / f"{name}-out").iterdir()] == [".prepare"]

    for name in ("turning", "same", "blurred"):
        (tmp_path / name).mkdir()
    eye, turns = np.array([0.0, -3.0, 1.5]), np.linspace(-0.7, 0.6, 14)
    poses = [look_at(eye, eye + np.array([3 * np.sin(turn), 3 * np.cos(turn), -0.5])) for turn in turns]
    pinhole = np.array([FOCAL, FOCAL, SIZE[0] / 2, SIZE[1] / 2])
    garden = SAMPLES["garden"]
    for i, shot in enumerate(render(garden, garden.world(0), poses, pinhole, SIZE, lambda: None)):
        pixels = (np.clip(shot.rgb, 0, 1) * 255).astype("u1")
        Image.fromarray(pixels).save(tmp_path / "turning" / f"{i:02d}.png")
    for i, path in enumerate(sorted((rendered[0] / "images").iterdir())):
        Image.fromarray(pixels).save(tmp_path / "same" / f"{i:02d}.png")
        Image.open(path).filter(ImageFilter.GaussianBlur(12)).save(tmp_path / "blurred" / path.name)
    refused("turning", r"model: .*doubtful: .*the camera only turned on the spot")
    refused("same", r"reconstruction: 0 images with a pose")
    refused("blurred", r"reconstruction: 0 images with a pose")


# Real photos.


def photos_with_gaps(folder, sample, seed, poses, focal, size):
    """Renders photos of `sample` from `poses`, of whose first quarter every second one is left out; the rest's rows.

    `focal`: as a share of the width.
    """
    folder.mkdir()
    kept = [i for i in range(len(poses)) if i >= len(poses) // 4 or i % 2 == 0]
    width, height = size
    lens = np.array([focal * width, focal * width, width / 2, height / 2])
    shots = render(sample, sample.world(seed), poses[kept], lens, size, lambda: None)
    for i, shot in zip(kept, shots, strict=True):
        pixels = (np.clip(shot.rgb, 0, 1) * 255 + 0.5).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return kept


@pytest.mark.slow
def test_a_folded_ring_is_noticed(tmp_path):
    """35 photos around a table with crates whose sides are all alike: every photo gets a pose, and most are wrong."""
    sample = random_still(5)
    poses = sample.cameras(40, np.random.default_rng([5, 1]))
    kept = photos_with_gaps(tmp_path / "photos", sample, 5, poses, sample.focal, (256, 192))

    def settings(name, **changes):
        return Settings(tmp_path / "photos", tmp_path / name, max_features=600, matching="exhaustive", **changes)

    with pytest.raises(LpmError, match="verified matches between them fit"):
        prepare(settings("refused"), Console(file=io.StringIO()))
    assert not (tmp_path / "refused" / "images").exists()
    prepare(settings("accepted", accept=True), Console(file=io.StringIO()))
    found = read_scene(tmp_path / "accepted")
    assert len(found.names) == len(kept)
    assert alignment(poses[[int(Path(name).stem) for name in found.names]], found.c2w)[0] > 30
    tried = json.loads((tmp_path / "accepted" / "report.json").read_text())["poses"]["tried"]
    assert [one["judged"]["images"] for one in tried] == [len(kept), len(kept)]


@pytest.mark.slow
def test_a_ring_with_gaps(tmp_path, monkeypatch):
    """42 photos by a narrow lens around a table; of the first quarter of the ring every second one is missing.

    There the incremental mapper stops: its check says so. The whole command gets the ring.
    """
    sample = SAMPLES["garden"]
    poses = sample.cameras(126, np.random.default_rng([0, 1]))[::3]
    photos = tmp_path / "photos"
    kept = photos_with_gaps(photos, sample, 0, poses, sample.focal / 0.6, (256, 171))

    def prepared(name, **changes):
        settings = Settings(photos, tmp_path / name, max_features=600, matching="exhaustive", **changes)
        prepare(settings, Console(file=io.StringIO()))
        found = read_scene(tmp_path / name)
        truth = poses[[int(Path(name).stem) for name in found.names]]
        return json.loads((tmp_path / name / "report.json").read_text())["poses"], truth, found.c2w

    told, truth, found = prepared("ring")
    assert told["mapper"] == "global"
    assert len(found) == len(kept)
    turned, away = alignment(truth, found)
    assert turned < 2
    assert away < 0.05

    monkeypatch.setattr(mapping, "mapped_in_passes", lambda *_: [])
    told, truth, found = prepared("alone", mapper="incremental", accept=True)
    assert len(found) < 0.8 * len(kept) or alignment(truth, found)[0] > 10  # it lands wrong
    assert told["faults"]
    assert told["mapper"] == "incremental"


@pytest.mark.slow
def test_fox_photos_alone(real_data, tmp_path):
    pytest.importorskip("pycolmap")
    images = real_data / "fox" / "images"
    out = tmp_path / "out"
    numbers = prepare(Settings(images, out), Console())
    assert numbers["images"] == len(os.listdir(images)) == 50
    assert numbers["registered"] == 50
    assert numbers["reprojection_error_px"] < 1
    truth, found = read_scene(real_data / "fox"), read_scene(out)
    names = [Path(name).name for name in truth.names]
    rows = [names.index(Path(name).name) for name in found.names]
    degrees, away = alignment(truth.c2w[rows], found.c2w)
    assert degrees < 1
    assert away < 0.03
