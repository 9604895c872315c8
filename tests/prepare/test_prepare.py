"""Photos and videos become scenes: frames, masks, poses, going on, and what is said when it cannot be done."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image
from rendered_photos import FOCAL, SIZE, VIEWS, alignment
from rich.console import Console

from lpm.checks import LpmError
from lpm.prepare import figures, frames, photos, progress, refine, report, sfm
from lpm.prepare.cli import main
from lpm.prepare.run import prepare
from lpm.prepare.settings import Settings
from lpm.prepare.work import opened
from lpm.scenes.layout import detect
from lpm.scenes.read import read_scene


def quiet() -> Console:
    return Console(file=io.StringIO(), width=500)


def said(console: Console) -> str:
    return console.file.getvalue()


def texture(size=(96, 80), seed=0) -> Image.Image:
    """Noise that JPEG keeps."""
    small = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def collected(folder, work, masks=None, most=None):
    root, paths = photos.photo_paths(folder)
    work.mkdir(exist_ok=True)
    given = photos.masks_of(folder, root, masks)
    return photos.collect(root, photos.chosen(paths, most), given, work, lambda: None)


# Frames of a video.


def write_video(path, images):
    pytest.importorskip("av")
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, images[0].shape[1::-1])
    assert video.isOpened()
    for image in images:
        video.write(image)
    video.release()


def test_sharpest_frame_of_each_part(tmp_path):
    sharp = [np.asarray(texture((160, 120), seed)) for seed in range(4)]
    images, wanted = [], []
    for part, best in enumerate((3, 0, 4, 2)):
        for i in range(5):
            blur = 0 if i == best else 1.5 + abs(i - best)
            images.append(cv2.GaussianBlur(sharp[part], (0, 0), blur) if blur else sharp[part])
        wanted.append(f"frame_{5 * part + best:06d}.jpg")
    write_video(tmp_path / "a.avi", images)
    shares = []
    taken = frames.sharpest(tmp_path / "a.avi", 4, tmp_path, shares.append)
    assert [name for name, _ in taken] == wanted
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert all(Image.open(tmp_path / name).size == (160, 120) for name in wanted)


def test_short_video_gives_all_frames_and_a_broken_one_an_error(tmp_path):
    write_video(tmp_path / "a.avi", [np.asarray(texture((160, 120), i)) for i in range(4)])
    assert len(frames.sharpest(tmp_path / "a.avi", 150, tmp_path)) == 4
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with pytest.raises(LpmError, match=r"b\.mp4: cannot be decoded"):
        frames.sharpest(tmp_path / "b.mp4", 4, tmp_path)


def test_sharpness_does_not_follow_brightness():
    image = np.asarray(texture((160, 120)).convert("L"))
    blurred = cv2.GaussianBlur(image, (0, 0), 2.0)
    assert frames.sharpness((image * 0.4).astype(np.uint8)) > frames.sharpness(blurred)


# Photos and their masks.


def test_exif_orientation_is_applied(tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    picture = texture((96, 80))
    exif = Image.Exif()
    exif[photos.ORIENTATION] = 6  # shown turned by a quarter, clockwise
    exif[photos.MODEL] = "Box"
    exif.get_ifd(photos.EXIF)[photos.FOCAL_35] = 28
    for i in range(3):
        picture.save(source / f"{i}.jpg", exif=exif, quality=95)
    picture.save(source / "3.jpg", quality=95)
    made = collected(source, tmp_path / "work")
    assert [tuple(photo["size"]) for photo in made["photos"]] == [(80, 96)] * 3 + [(96, 80)]
    assert made["photos"][0]["lens"] == "80x96 Box 28"
    turned = Image.open(tmp_path / "work/images/0.jpg")
    assert turned.getexif().get(photos.ORIENTATION, 1) == 1
    assert turned.getexif().get_ifd(photos.EXIF)[photos.FOCAL_35] == 28
    error = np.abs(np.asarray(turned, float) - np.asarray(picture.rotate(-90, expand=True), float)).mean()
    assert error < 4
    assert (tmp_path / "work/images/3.jpg").is_symlink()  # nothing to do: not copied


def test_unreadable_and_tiny_photos_are_left_out_by_name(tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    for i in range(4):
        texture(seed=i).save(source / f"IMG {i}.jpg")
    (source / "cut.jpg").write_bytes((source / "IMG 0.jpg").read_bytes()[:700])
    (source / "no.png").write_text("no image")
    (source / "raw.heic").write_text("x")
    texture((32, 32)).save(source / "tiny.png")
    (source / "notes.txt").write_text("x")
    made = collected(source, tmp_path / "work")
    assert [photo["name"] for photo in made["photos"]] == [f"IMG_{i}.jpg" for i in range(4)]
    assert [name for name, _ in made["skipped"]] == ["cut.jpg", "no.png", "raw.heic", "tiny.png"]
    why = dict(made["skipped"])
    assert "truncated" in why["cut.jpg"]
    assert "32x32 is tiny" in why["tiny.png"]
    assert len(collected(source, tmp_path / "work", most=7)["photos"]) == 3
    for i in (1, 2):
        (source / f"IMG {i}.jpg").unlink()
    with pytest.raises(LpmError, match=r"2 photos that can be used; cut\.jpg.*at least 3"):
        collected(source, tmp_path / "work")


def test_masks_and_transparency(tmp_path):
    source, work = tmp_path / "scene", tmp_path / "work"
    (source / "images/sub").mkdir(parents=True)
    (source / "masks/sub").mkdir(parents=True)
    names = ("a.jpg", "sub/b.jpg", "c.png")
    for name in names:
        picture = texture()
        if name == "c.png":
            picture.putalpha(Image.fromarray(np.repeat(np.array([[0] * 48 + [255] * 48], "u1"), 80, 0)))
        picture.save(source / "images" / name)
    half = np.zeros((80, 96), "u1")
    half[:40] = 255
    Image.fromarray(half).save(source / "masks/a.jpg.png")
    Image.fromarray(half).save(source / "masks/sub/b.jpg", quality=60)
    made = collected(source, work)
    assert made["own_masks"] == 2
    assert made["masks"]
    for name, left, right in (("a.jpg", 255, 255), ("sub/b.jpg", 255, 255), ("c.png", 0, 255)):
        mask = np.asarray(Image.open(work / "masks" / f"{name}.png"))
        assert (mask[10, 10], mask[10, 90]) == (left, right)
        assert mask[70, 90] == (255 if name == "c.png" else 0)
    Image.fromarray(half[:40]).save(source / "masks/a.jpg.png")
    with pytest.raises(LpmError, match=r"a\.jpg\.png: mask of 96x40; wanted 96x80"):
        collected(source, work)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LpmError, match="no mask of any of the photos"):
        collected(source, work, tmp_path / "empty")
    Image.fromarray(half).save(tmp_path / "one.png")
    assert collected(source, work, tmp_path / "one.png")["own_masks"] == 3


def test_folders_without_photos(tmp_path):
    with pytest.raises(LpmError, match="no such file or folder"):
        photos.photo_paths(tmp_path / "nowhere")
    with pytest.raises(LpmError, match="no photos in it"):
        photos.photo_paths(tmp_path)
    (tmp_path / "walk.MP4").write_text("x")
    with pytest.raises(LpmError, match=r"lpm-prepare .*walk\.MP4 takes frames"):
        photos.photo_paths(tmp_path)


# What training says about folders that should be prepared first.


def test_layout_points_here(tmp_path):
    texture().save(tmp_path / "a.jpg")
    with pytest.raises(LpmError, match=rf"neither cameras nor poses.*lpm-prepare {tmp_path} OUT"):
        detect(tmp_path)
    (tmp_path / "film").mkdir()
    (tmp_path / "film/a.mov").write_text("x")
    for data in (tmp_path / "film", tmp_path / "film/a.mov"):
        with pytest.raises(LpmError, match=r"lpm-prepare .*film/a\.mov OUT"):
            detect(data)
    (tmp_path / ".prepare").mkdir()
    with pytest.raises(LpmError, match="was not finished here"):
        detect(tmp_path)


# Pairs, stages, errors.


def test_stages_go_on_and_start_over(tmp_path):
    calls, lines = [], []

    def once(one, two, broken=False):
        def run(name):
            def stage(anew):
                calls.append((name, anew))
                if broken:
                    raise KeyboardInterrupt
                return {"n": 1}

            return stage

        calls.clear()
        lines.clear()
        with opened(tmp_path / "out", False, lines.append) as work:
            work.stage("one", {"seed": one}, run("one"))
            work.stage("two", {"seed": two}, run("two"))
        return list(calls)

    assert once(0, 0) == [("one", True), ("two", True)]
    assert once(0, 0) == []
    assert once(0, 1) == [("two", True)]
    assert lines == ["one: done before", "two: seed changed since the last command; done again from here"]
    assert once(1, 1) == [("one", True), ("two", True)]  # what comes after is stale, too
    with pytest.raises(KeyboardInterrupt):
        once(2, 1, broken=True)
    assert once(2, 1) == [("one", False), ("two", True)]
    with (
        opened(tmp_path / "out", False, print),
        pytest.raises(LpmError, match="another lpm-prepare works here"),
        opened(tmp_path / "out", False, print),
    ):
        pass


def test_progress_where_there_is_no_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    console, log = quiet(), tmp_path / "log.txt"
    log.write_text("I1 x.cc:1] === Running what was before ===\n")
    with progress.bar(console, "matches", 4, log) as bar:
        bar.add()
        bar.add(2)
        with progress.phases(bar, log):
            time.sleep(0.2)
            with log.open("a") as file:
                file.write("I1 x.cc:2] === Running global positioning ===\n")
            time.sleep(1.5)
    first, second, third, last = said(console).splitlines()
    assert re.fullmatch(r"matches: 1 of 4, about \d+ s left", first)
    assert second.startswith("matches: 3 of 4")
    assert third == "matches: global positioning"
    assert re.fullmatch(r"matches: \d+ s", last)
    said_so = pytest.raises(LpmError, match=r"stage poses: it broke; wanted pycolmap to do it; see .*log\.txt")
    with said_so, progress.bar(console, "poses", 4, log):
        raise RuntimeError("it broke")


def test_out_of_others_is_not_touched(tmp_path):
    texture().save(tmp_path / "mine.jpg")
    with pytest.raises(LpmError, match=r"holds mine\.jpg"), opened(tmp_path, True, print):
        pass
    with pytest.raises(LpmError, match="is a file"), opened(tmp_path / "mine.jpg", True, print):
        pass
    with pytest.raises(LpmError, match="is the folder of the photos, or in it"):
        prepare(Settings(tmp_path, tmp_path), quiet())


def test_missing_pycolmap_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    monkeypatch.setattr(sys, "argv", ["lpm-prepare", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    line = capsys.readouterr().err.strip()
    assert line == "error: pycolmap: is not installed; wanted pycolmap 4; pip install 'lpm-splat[prepare]'"


def test_bad_numbers(tmp_path):
    for settings in ({"frames": 2}, {"max_images": 1}, {"seed": -1}, {"max_features": 9}):
        with pytest.raises(LpmError, match="wanted at least"):
            prepare(Settings(tmp_path, tmp_path / "out", **settings), quiet())


def test_photos_that_do_not_fit_together(tmp_path):
    pytest.importorskip("pycolmap")
    source = tmp_path / "photos"
    source.mkdir()
    for i in range(4):
        texture((160, 120), i).save(source / f"{i}.jpg")
    with pytest.raises(LpmError, match=r"reconstruction: 0 images with a pose.*overlap"):
        prepare(Settings(source, tmp_path / "out"), quiet())
    assert not (tmp_path / "out/sparse").exists()


def some_figures(missing=()):
    views = [figures.View(f"{i}.jpg", 100, 0.5, 0.6) for i in range(4)]
    rotations = np.stack([np.eye(3)] * 4)
    centres = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 1], [3, 0, 0.0]])
    xyz = np.random.default_rng(0).normal(size=(50, 3))
    rgb = np.full((50, 3), 90, np.uint8)
    return figures.Figures(
        views, list(missing), 50, 0.5, 4.0, [4], ["PINHOLE 9x9: 1, 1, 1, 1"], centres, rotations, xyz, rgb
    )


def test_report_and_advice(tmp_path):
    texture().save(tmp_path / "x<y.jpg")
    some = some_figures(["x<y.jpg"] * 3)
    told = {"camera_model": "auto", "matching": "auto", "masks": False}
    todo = figures.advice(some, told)
    words = " ".join(todo)
    for wanted in ("Only 4 of 7", "overlap", "blurred", "--matching exhaustive", "--camera-model OPENCV", "--masks"):
        assert wanted in words
    assert figures.advice(some_figures(), told) == []
    doubted = replace(some_figures(), doubts=["the focal length differs"])
    assert "may be wrong (the focal length differs)" in figures.advice(doubted, told)[0]
    assert "class='verdict poor'" in report.page("a", doubted, {}, [], [], b"", tmp_path, "b")
    assert "class='verdict good'" in report.page("a", some_figures(), {}, [], [], b"", tmp_path, "b")
    command = "lpm-train out"
    report.write(tmp_path, "out", some, {"masks": "none"}, todo, [["b.jpg", "broken"]], tmp_path, command, {"seed": 0})
    page = (tmp_path / "report.html").read_text()
    for wanted in ("<b>4 of 7 images got a pose</b>", "x&lt;y.jpg", "b.jpg: broken", "0.500 px", command):
        assert wanted in page
    assert "src='http" not in page
    assert page.count("data:image/jpeg") == 3
    assert Image.open(tmp_path / "report.png").size[0] > 1000
    assert json.loads((tmp_path / "report.json").read_text())["registered"] == 4


# The whole way.


@pytest.fixture
def one_thread(monkeypatch):
    """Mappers on one thread: on several their sums come in another order each time, and models with them."""
    pycolmap = pytest.importorskip("pycolmap")

    def on_one_thread(mapping):
        def mapped(database, images, folder, options, **callbacks):
            options.num_threads = 1
            options.mapper.num_threads = 1
            return mapping(database, images, folder, options, **callbacks)

        return mapped

    for name in ("incremental_mapping", "global_mapping"):
        monkeypatch.setattr(pycolmap, name, on_one_thread(getattr(pycolmap, name)))


def test_rendered_scene(rendered, tmp_path, monkeypatch, one_thread):
    folder, truth = rendered
    out, console = tmp_path / "out", quiet()
    numbers = prepare(Settings(folder, out), console)
    assert numbers["registered"] == VIEWS
    assert numbers["reprojection_error_px"] < 1
    assert numbers["cameras"][0].startswith(f"RADIAL {SIZE[0]}x{SIZE[1]}")
    assert f"next: lpm-train {out}" in said(console)
    (line,) = [line for line in said(console).splitlines() if line.startswith("check of the model")]
    page = (out / "report.html").read_text()
    assert "nothing speaks against it" in line
    assert line.removeprefix("check of the model").strip() in page
    assert "<td>mapper<td>global" in page
    scene = read_scene(out)
    assert scene.layout.kind == "colmap"
    assert scene.names == [f"{i:02d}.png" for i in range(VIEWS)]
    assert not scene.distortion.any()
    assert scene.masks is None
    assert len(scene.points.xyz) == numbers["points"] > 200
    degrees, away = alignment(truth, scene.c2w)
    assert degrees < 1
    assert away < 0.03
    assert scene.intrinsics[:, 0] == pytest.approx(FOCAL, rel=0.05)
    assert (out / "report.html").stat().st_size > 20_000
    with pytest.raises(LpmError, match=r"has a finished scene.*--overwrite"):
        prepare(Settings(folder, out), quiet())

    # Again, with what was made of it: the same poses; and from nothing: the same again.
    before = (out / "sparse/0/images.bin").read_bytes()
    console = quiet()
    prepare(Settings(folder, out, overwrite=True), console)
    assert said(console).count("done before") == 6
    assert (out / "sparse/0/images.bin").read_bytes() == before
    # A distance that names no photo costs neither the scene nor its poses.
    with pytest.raises(LpmError, match=r"no\.png has no pose"):
        prepare(Settings(folder, out, overwrite=True, distance=("no.png", "00.png", 2.5)), quiet())
    assert (out / "sparse/0/images.bin").read_bytes() == before
    console = quiet()
    prepare(Settings(folder, out, overwrite=True, distance=("00.png", "11.png", 2.5)), console)
    assert said(console).count("done before") == 5
    places = read_scene(out).c2w[:, :3, 3]
    assert np.linalg.norm(places[0] - places[11]) == pytest.approx(2.5)
    assert json.loads((out / "georeference.json").read_text())["unit"] == "metre"
    # With the principal point held: twelve small photos hardly tell it from a turn of all cameras.
    monkeypatch.setattr(refine, "ENOUGH", VIEWS + 1)
    for again in (out, tmp_path / "other"):
        prepare(Settings(folder, again, mapper="incremental", overwrite=True), quiet())
    degrees, away = alignment(read_scene(out).c2w, read_scene(tmp_path / "other").c2w)
    assert degrees < 0.02
    assert away < 1e-3


def test_masks_and_alpha_reach_the_scene(rendered, tmp_path):
    folder, _ = rendered
    source = tmp_path / "photos"
    (source / "masks").mkdir(parents=True)
    mask = np.full((SIZE[1], SIZE[0]), 255, "u1")
    mask[:, : SIZE[0] // 4] = 0
    for path in sorted((folder / "images").iterdir()):
        picture = Image.open(path)
        if path.name < "03":
            picture.putalpha(Image.fromarray(mask))
        picture.save(source / path.name)
        Image.fromarray(mask).save(source / "masks" / path.name)
    prepare(Settings(source, tmp_path / "out"), quiet())
    scene = read_scene(tmp_path / "out")
    assert len(scene.masks) == len(scene) > VIEWS // 2
    for path in scene.masks:
        values = np.asarray(Image.open(path))
        assert set(np.unique(values)) == {0, 255}
        assert (values == 0).mean() == pytest.approx(0.25, abs=0.02)
    if scene.names[0] == "00.png":
        alpha = np.asarray(Image.open(scene.images[0]))[..., 3]
        assert (alpha == 0).mean() == pytest.approx(0.25, abs=0.02)
    # No feature stands where the masks ignore.
    import pycolmap

    with pycolmap.Database.open(tmp_path / "out/.prepare/database.db") as db:
        for image in db.read_all_images():
            assert db.read_keypoints(image.image_id)[:, 0].min() >= SIZE[0] // 4 - 1


def test_interrupted_extraction_and_matching_go_on(rendered, tmp_path, monkeypatch):
    folder, _ = rendered
    monkeypatch.setattr(sfm, "BLOCK", 20)
    counts = {"extract": 0, "match": 0}
    pycolmap = sfm.load_pycolmap()
    real = {"extract": pycolmap.extract_features, "match": pycolmap.match_image_pairs}
    stop = {"extract": 2, "match": 2}

    def counting(name):
        def call(*arguments):
            counts[name] += 1
            if counts[name] == stop[name]:
                raise KeyboardInterrupt
            return real[name](*arguments)

        return call

    monkeypatch.setattr(pycolmap, "extract_features", counting("extract"))
    monkeypatch.setattr(pycolmap, "match_image_pairs", counting("match"))
    settings = Settings(folder, tmp_path / "out")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            prepare(settings, quiet())
        assert not (tmp_path / "out/sparse").exists()
    assert prepare(settings, quiet())["registered"] == VIEWS
    # Three blocks of four images, and four of up to twenty pairs; one of each was interrupted, none was done twice.
    assert counts == {"extract": 4, "match": 5}
    assert len(pycolmap.Reconstruction(tmp_path / "out/sparse/0").cameras) == 1


def test_video_becomes_a_scene(rendered, tmp_path):
    folder, _ = rendered
    images = []
    for path in sorted((folder / "images").iterdir()):
        sharp = cv2.imread(str(path))
        images += [cv2.GaussianBlur(sharp, (0, 0), 3), sharp]
    write_video(tmp_path / "walk.avi", images)
    console = quiet()
    numbers = prepare(Settings(tmp_path / "walk.avi", tmp_path / "out", frames=VIEWS), console)
    assert numbers["registered"] >= VIEWS - 2
    assert {view["name"] for view in numbers["views"]} <= {f"frame_{2 * i + 1:06d}.jpg" for i in range(VIEWS)}
    assert read_scene(tmp_path / "out").layout.kind == "colmap"
