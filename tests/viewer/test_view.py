"""lpm-view without a browser: cameras, pace, the thread that draws, paths, films, photos, the server, bad input."""

import json
import math
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from balls import balls
from export.some import visible
from tiny_scene import make_transforms

from lpm.checks import LpmError
from lpm.formats.picture import draw
from lpm.formats.ply import write_ply
from lpm.formats.read import Loaded, load
from lpm.formats.splatv import write_splatv
from lpm.gaussians import motion as lpm_motion
from lpm.gaussians.similarity import from_dataparser
from lpm.viewer import compat
from lpm.viewer.page import camera_path, photos, video
from lpm.viewer.page.camera import Camera, camera_at, frame, matrices, middle, size_of
from lpm.viewer.page.cli import main
from lpm.viewer.page.film import film
from lpm.viewer.page.frame_budget import LEAST, FrameBudget
from lpm.viewer.page.render_thread import SETTLED, RenderRequest, RenderThread
from lpm.viewer.page.scene import Shown
from lpm.viewer.page.server import View, up_of
from lpm.viewer.page.video import ending

UP = torch.tensor([0.0, 0.0, 1.0])


def shown(params, **more):
    return Shown(Loaded(params, Path("a.ply"), "ply", **more))


def test_a_sky_is_drawn_behind_and_does_not_move_the_camera():
    sky = torch.tensor([[-0.5, 0.2, 0.8]])
    bare, under = shown(visible(50)), shown(visible(50), sky=sky)
    assert torch.equal(bare.params["means"], under.params["means"])
    camera, _ = frame(under.params, UP, 4 / 3)
    picture = under.draw(RenderRequest(camera, background=1.0), 64, 48)
    wanted = (sky[0] * 0.28209 + 0.5) * 255
    assert np.abs(picture[0, 0] - wanted.numpy()).max() < 3  # the corner; white without
    assert bare.draw(RenderRequest(camera, background=1.0), 64, 48)[0, 0].min() == 255


# Cameras


@pytest.mark.parametrize("aspect", [0.4, 1.0, 16 / 9])
@pytest.mark.parametrize("up", ["z", "-y", "slanted"])
def test_the_framing_camera_has_the_scene_in_view_whatever_floats_far_away(aspect, up):
    up = {"z": UP, "-y": torch.tensor([0.0, -1.0, 0.0]), "slanted": torch.tensor([0.3, -0.8, 0.2])}[up]
    params = visible(2000)
    params["means"] += torch.tensor([50.0, -20.0, 7.0])
    params["opacities"][:] = 3.0
    params["means"][:20] = 1e5  # floaters
    camera, centre = frame(params, up, aspect)
    assert torch.allclose(centre, torch.tensor([50.0, -20.0, 7.0]), atol=0.2)
    width, height = size_of(aspect, 400)
    viewmat, K = matrices(camera, width, height)
    place = params["means"] @ viewmat[0, :3, :3].T + viewmat[0, :3, 3]
    pixel = place @ K[0].T
    pixel = pixel[:, :2] / pixel[:, 2:]
    inside = (place[:, 2] > 0) & (pixel > 0).all(1) & (pixel < torch.tensor([width, height])).all(1)
    assert float(inside.float().mean()) > 0.85
    spread = pixel[20:].std(0) / torch.tensor([width, height])
    assert float(spread.max()) > 0.1  # and it is no speck
    assert float((torch.from_numpy(-camera.c2w[:3, 1]).float() * up).sum()) > 0  # upright


def test_transparent_points_do_not_count_and_one_point_can_be_framed():
    params = visible(1000)
    params["opacities"][:500], params["opacities"][500:] = -8.0, 3.0
    params["means"][:500] += 1000.0
    centre, radius = middle(params)
    assert float(centre.norm()) < 1
    assert radius < 3
    one = {name: value[:1] for name, value in visible(1).items()}
    camera, _ = frame(one, UP)
    assert camera.usable()
    assert frame({**one, "means": one["means"] * 1e6}, UP)[0].usable()


def test_camera_and_matrix_are_the_same_camera():
    camera, _ = frame(visible(100), UP)
    again = camera_at(camera.c2w, camera.fov, camera.aspect)
    assert np.allclose(again.c2w, camera.c2w, atol=1e-12)
    assert np.allclose(again.position, camera.position)
    for bad in (
        Camera((math.nan, 0, 0), (1, 0, 0, 0)), Camera((0, 0, 0), (0, 0, 0, 0)), Camera((0, 0, 0), (1, 0, 0, 0), 0.0),
        Camera((0, 0, 0), (1, 0, 0, 0), 1.0, 0.0), Camera((0, 0, 0), (1, 0, 0, 0), 4.0),
    ):  # fmt: skip
        assert not bad.usable()


@pytest.mark.parametrize(
    ("aspect", "longer", "pixels", "wanted"),
    [
        (2.0, 960, None, (960, 480)), (0.5, 960, None, (480, 960)), (1.0, 100, None, (100, 100)),
        (2.0, 960, 960 * 480 / 4, (480, 240)), (2.0, 960, 1e9, (960, 480)), (90.0, 960, None, (960, 16)),
    ],
)  # fmt: skip
def test_size_of_a_picture(aspect, longer, pixels, wanted):
    assert size_of(aspect, longer, pixels) == wanted


def test_up_of_a_file():
    turn = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0]])
    for frame_name, wanted in (("train", [0, 0, 1]), ("world", [0, 1, 0]), ("unknown", [0, -1, 0])):
        loaded = Loaded(visible(3), Path("nowhere.ply"), "ply", frame_name, from_dataparser(turn, 1.0))
        assert np.allclose(up_of(loaded).numpy(), wanted, atol=1e-6)


# FrameBudget


def test_pace_finds_the_size_that_takes_the_time_it_may():
    """Of a machine that takes 20 ms and a microsecond for a pixel."""
    pace, full = FrameBudget(0.07), 960 * 540
    assert pace.moving(full) <= full / 10  # it knows nothing yet
    for _ in range(30):
        pixels = pace.moving(full)
        pace.measured(int(pixels), 0.02 + 1e-6 * pixels)
    assert pixels == pytest.approx(50_000, rel=0.05)
    assert pace.strips(full, 540) == math.ceil((0.07 * full / pixels) / 0.07)


def test_pace_has_bounds():
    slow, fast = FrameBudget(), FrameBudget()
    for _ in range(20):
        slow.measured(int(slow.moving(100_000)), 5.0)
        fast.measured(int(fast.moving(100_000)), 1e-9)
    assert slow.moving(100_000) == LEAST * 100_000
    assert fast.moving(100_000) == 100_000
    assert fast.strips(100_000, 300) == 1
    assert slow.strips(100_000, 300) == math.ceil(300 / 16)
    before = fast.moving(100_000)
    fast.measured(100_000, 30.0)  # one slow picture on a busy machine
    assert fast.moving(100_000) >= before / 3.01


# The thread that draws


class Screen:
    """Records what a RenderThread does."""

    def __init__(self, seconds=0.0):
        self.seconds, self.shown, self.errors, self.given_up = seconds, [], [], 0
        self.render_thread = RenderThread(
            self.draw, lambda p, moving: self.shown.append((p, moving)), self.errors.append
        )
        self.render_thread.start()

    def draw(self, request, width, height, strips, stop):
        if request.time < 0:
            raise ValueError("below zero")
        for _ in range(10):
            if stop():
                self.given_up += 1
                return None
            time.sleep(self.seconds / 10 if width >= request.longer else 0)
        return np.full((height, width, 3), int(request.time), np.uint8)

    def until(self, done, seconds=10.0):
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end
            time.sleep(0.01)


def request(time=0.0, longer=64):
    return RenderRequest(Camera((0, 0, 0), (1, 0, 0, 0), 1.0, 1.0), longer, time)


@pytest.fixture
def screen():
    made = Screen()
    yield made
    made.render_thread.end()
    made.render_thread.join(5)
    assert not made.render_thread.is_alive()


def test_small_at_once_and_in_full_when_still(screen):
    start = time.monotonic()
    screen.render_thread.ask(request(1))
    screen.until(lambda: len(screen.shown) == 2)
    assert time.monotonic() - start >= SETTLED
    (small, moving), (full, at_rest) = screen.shown
    assert (moving, at_rest) == (True, False)
    assert small.shape[0] < full.shape[0] == 64
    screen.render_thread.ask(request(1))  # the same again is nothing to do
    time.sleep(2 * SETTLED)
    assert len(screen.shown) == 2
    screen.render_thread.change(background=0.0)
    screen.until(lambda: len(screen.shown) == 4)


def test_stale_views_are_left_out_and_the_newest_comes(screen):
    for i in range(200):
        screen.render_thread.ask(request(i))
    screen.until(lambda: screen.shown and not screen.shown[-1][1])
    assert screen.shown[-1][0][0, 0, 0] == 199
    assert len(screen.shown) < 100


def test_a_full_picture_is_given_up_when_the_camera_moves():
    screen = Screen(seconds=1.0)
    screen.render_thread.ask(request(1))
    screen.until(lambda: len(screen.shown) == 1)
    time.sleep(SETTLED + 0.2)  # the full one is on its way
    asked = time.monotonic()
    screen.render_thread.ask(request(2))
    screen.until(lambda: len(screen.shown) == 2)
    assert time.monotonic() - asked < 0.6
    assert screen.given_up == 1
    screen.render_thread.end()
    screen.render_thread.join(5)
    assert not screen.render_thread.is_alive()


def test_an_error_is_told_and_the_thread_lives_on(screen):
    screen.render_thread.ask(request(-1))
    screen.until(lambda: len(screen.errors) == 2)
    screen.render_thread.ask(RenderRequest(Camera((math.nan, 0, 0), (1, 0, 0, 0)), 64, 3))  # is not even tried
    screen.render_thread.ask(request(4))
    screen.until(lambda: len(screen.shown) == 2)
    assert [picture[0, 0, 0] for picture, _ in screen.shown] == [4, 4]


# Pictures


@pytest.mark.parametrize("antialiased", [False, True])
def test_a_picture_is_our_rasterizers_however_it_is_cut(antialiased):
    params = visible(500)
    camera, _ = frame(params, UP, 1.5)
    asked = RenderRequest(camera, 150, antialiased=antialiased, background=0.5)
    whole = shown(params).draw(asked, 150, 100)
    viewmat, K = matrices(camera, 150, 100)
    wanted = draw(params, viewmat, K, 150, 100, 0.5, "antialiased" if antialiased else "classic")[0]
    assert np.abs(whole / 255 - wanted.numpy()).max() < 0.6 / 255
    assert whole.std() > 10
    for strips in (2, 3, 100):
        assert np.array_equal(shown(params).draw(asked, 150, 100, strips), whole)
    count = iter(range(100))
    assert shown(params).draw(asked, 150, 100, 7, lambda: next(count) == 3) is None


def test_rows_that_are_not_finite_are_left_out():
    params = visible(100)
    params["means"][3, 0], params["features_rest"][5, 2, 1], params["quats"][7] = math.nan, math.inf, 0.0
    scene = shown(params)
    assert scene.left_out == 3
    assert scene.draw(RenderRequest(frame(scene.params, UP)[0]), 64, 48).std() > 5
    with pytest.raises(LpmError, match="finite"):
        shown({name: value * math.nan for name, value in params.items()})


def test_a_moving_scene_moves(tmp_path):
    params = visible(50, degree=0)
    params["features_rest"] = torch.zeros(50, 0, 3)
    motion = torch.zeros(50, 9)
    motion[:, 0] = 1.0
    more = {"motion": motion, "omega": torch.zeros(50, 4), "time_center": torch.full((50, 1), 0.5)}
    params.update(more, time_width=torch.full((50, 1), 0.4))
    write_splatv(tmp_path / "a.splatv", params)
    assert Shown(load(tmp_path / "a.splatv")).steps == 0
    scene = shown(params)
    assert scene.steps == 0
    at = scene.at(0.75)
    assert torch.allclose(at["means"], params["means"] + torch.tensor([0.25, 0, 0]), atol=1e-6)
    faded = torch.sigmoid(params["opacities"]).reshape(-1) * math.exp(-((0.25 / 0.4) ** 2))
    assert torch.allclose(at["opacities"], faded, atol=1e-6)


def test_points_with_a_time_move_and_are_filmed(tmp_path):
    params = {**visible(50), **{k: v.detach() for k, v in lpm_motion.start(50, 1, spins=False).items()}}
    params["motion"][:, 0, 0], params["times"][:] = 1.0, 0.5
    scene = shown(params)
    assert scene.steps == 0
    assert torch.allclose(scene.at(0.75)["means"], params["means"] + torch.tensor([0.25, 0, 0]), atol=1e-6)
    camera, _ = frame(scene.params, torch.tensor([0.0, -1.0, 0.0]))
    out = tmp_path / f"film{ending()}"
    assert film(scene, [camera], out, longer=96, seconds=0.5) == 15
    capture = cv2.VideoCapture(str(out))
    pictures = []
    while (read := capture.read())[0]:
        pictures.append(read[1].astype(int))
    assert len(pictures) == 15
    assert abs(pictures[0] - pictures[-1]).max() > 50
    with pytest.raises(LpmError, match=r"ends with \.gif"):
        film(scene, [camera], tmp_path / "film.gif")


def test_a_sequence_of_files_is_shown_step_by_step(tmp_path):
    (tmp_path / "s").mkdir()
    for i in range(12):
        write_ply(tmp_path / "s" / f"s_{i:04d}.ply", {**visible(20), "means": torch.full((20, 3), float(i))})
    scene = Shown(load(tmp_path / "s"))
    assert scene.steps == 12
    assert [float(scene.at(i / 11)["means"][0, 0]) for i in (0, 5, 11)] == [0.0, 5.0, 11.0]


# Camera paths


def keyframes():
    params = visible(10)
    out = []
    for i, up in enumerate(([0.0, 0, 1], [0.0, 0.3, 1], [0.2, 0, 1], [0.0, -0.5, 1])):
        camera, _ = frame(params, torch.tensor(up))
        out.append(Camera((float(i), float(i**2), 1.0), camera.wxyz, 0.7 + 0.1 * i, 1.5))
    return out


def test_a_path_goes_smoothly_through_its_keyframes():
    keys = keyframes()
    for camera, key in zip(camera_path.sample(keys, np.arange(4)), keys, strict=True):
        assert np.allclose(camera.c2w, key.c2w, atol=1e-9)
        assert camera.fov == pytest.approx(key.fov)
    times = np.linspace(0, 3, 301)
    film = camera_path.sample(keys, times)
    places = np.array([camera.position for camera in film])
    steps = np.diff(places, axis=0)
    assert np.abs(np.diff(steps, axis=0)).max() < 1e-3  # no jump in speed at a keyframe
    turns = np.array([camera.c2w[:3, :3] for camera in film])
    assert np.allclose(turns @ turns.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    angle = np.arccos(np.clip((np.einsum("nij,nij->n", turns[1:], turns[:-1]) - 1) / 2, -1, 1))
    assert np.abs(np.diff(angle)).max() < 1e-3
    assert camera_path.sample([], times) == []
    assert camera_path.sample(keys[:1], np.array([0.0, 5.0])) == [keys[0]] * 2
    assert np.allclose(camera_path.sample(keys, np.array([-1.0]))[0].c2w, keys[0].c2w)
    two = camera_path.sample(keys[:2], np.array([0.5]))[0]
    assert np.allclose(two.position, [0.5, 0.5, 1.0])


def test_a_path_is_saved_as_nerfstudios_and_comes_back():
    keys = keyframes()
    saved = json.loads(camera_path.to_json(keys, 1.5, (300, 200)))
    assert (saved["render_width"], saved["render_height"], saved["fps"]) == (300, 200, 30)
    assert len(saved["camera_path"]) == 136
    assert saved["seconds"] == pytest.approx(136 / 30)
    first = np.array(saved["camera_path"][0]["camera_to_world"]).reshape(4, 4)
    assert np.allclose(first[:3, 2], -keys[0].c2w[:3, 2])  # OpenGL looks along -z
    assert np.allclose(first[:3, 3], keys[0].position)
    assert saved["camera_path"][0]["fov"] == pytest.approx(math.degrees(0.7))
    back, seconds = camera_path.from_json(camera_path.to_json(keys, 1.5, (300, 200)))
    assert seconds == 1.5
    for camera, key in zip(back, keys, strict=True):
        assert np.allclose(camera.c2w, key.c2w, atol=1e-9)
        assert camera.fov == pytest.approx(key.fov)


def test_nerfstudio_reads_our_path():
    cameras = pytest.importorskip("nerfstudio.cameras.camera_paths")
    keys = keyframes()
    read = cameras.get_path_from_json(json.loads(camera_path.to_json(keys, 1.0, (300, 200))))
    assert len(read) == 91
    assert np.allclose(read.camera_to_worlds[0, :, 3], keys[0].position, atol=1e-6)
    assert float(read.fy[0]) == pytest.approx(100 / math.tan(0.35), rel=1e-4)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\x00", b"[1, 2]", b"{}", b'{"keyframes": []}', b'{"keyframes": 3}', b'{"keyframes": [{}]}',
        b'{"keyframes": [{"matrix": [1, 2], "fov": 50}]}', b'{"keyframes": [{"matrix": "x", "fov": 50}]}',
        json.dumps({"keyframes": [{"matrix": [0] * 16, "fov": 50}]}).encode(),
        json.dumps({"keyframes": [{"matrix": np.eye(4).flatten().tolist(), "fov": 300}]}).encode(),
        json.dumps({"keyframes": [{"matrix": np.eye(4).flatten().tolist(), "fov": math.nan}]}).encode(),
        json.dumps({"keyframes": [{"matrix": np.eye(4).flatten().tolist(), "fov": 50}],
                    "default_transition_sec": -1}).encode(),
        b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_broken_path_is_one_clear_line(content):
    with pytest.raises(LpmError) as error:
        camera_path.from_json(content, "x.json")
    assert str(error.value).startswith("x.json")
    assert "\n" not in str(error.value)


# Films


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_a_film_comes_back(tmp_path, ending):
    if ending == ".mp4" and video.ending() != ".mp4":
        pytest.skip("no ffmpeg on this machine")
    pictures = [np.full((48, 64, 3), (10 * i, 120, 255 - 10 * i), np.uint8) for i in range(20)]
    out = tmp_path / f"film{ending}"
    assert video.write_video(out, iter(pictures), (64, 48), 30) == 20
    film = cv2.VideoCapture(str(out))
    read = []
    while (got := film.read())[0]:
        read.append(got[1][..., ::-1])
    assert len(read) == 20
    assert np.abs(read[10].astype(int) - pictures[10]).mean() < 8
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_a_film_that_is_stopped_leaves_nothing(tmp_path, ending):
    if ending == ".mp4" and video.ending() != ".mp4":
        pytest.skip("no ffmpeg on this machine")

    def pictures():
        yield np.zeros((48, 64, 3), np.uint8)
        raise LpmError("stopped")

    with pytest.raises(LpmError, match="stopped"):
        video.write_video(tmp_path / f"film{ending}", pictures(), (64, 48), 30)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(LpmError, match="even"):
        video.write_video(tmp_path / f"film{ending}", pictures(), (63, 48), 30)


# Photos


def config(data: Path, indent="") -> str:
    parts = "".join(f"{indent}- {part}\n" for part in data.parts)
    return f"max: 3\n{indent}data: &id001 !!python/object/apply:pathlib.PosixPath\n{parts}{indent}next: 1\n"


def test_photos_of_a_run_stand_where_they_were_taken(tmp_path):
    data = make_transforms(tmp_path / "scene")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yml").write_text(config(data))
    assert photos.data_folder(run) == data
    turn = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]])
    found, note = photos.read_photos(run, from_dataparser(turn, 0.5))
    assert (len(found), note) == (10, "")
    meta = json.loads((data / "transforms.json").read_text())
    pose = {Path(each["file_path"]).name: np.array(each["transform_matrix"]) for each in meta["frames"]}
    for photo in found:
        world = pose[Path(photo.name).name]
        assert np.allclose(photo.camera.position, 0.5 * (turn[:, :3] @ world[:3, 3] + turn[:, 3]))
        ahead = turn[:, :3] @ -world[:3, 2]  # OpenGL looks along -z
        assert np.allclose(photo.camera.c2w[:3, 2], ahead, atol=1e-6)
        assert photo.camera.fov == pytest.approx(2 * math.atan(12 / 30))
        assert photo.thumbnail.shape == (24, 32, 3)


def test_nerfstudios_own_frame_is_ours(tmp_path):
    """Where nerfstudio's dataparser puts the cameras, and what it writes about it, agree with where photos stand."""
    parsers = pytest.importorskip("lpm.plugin.dataparser")
    data = make_transforms(tmp_path / "scene")
    out = parsers.LpmDataParserConfig(data=data, eval_interval=0).setup().get_dataparser_outputs("train")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yml").write_text(config(data))
    world_to_train = from_dataparser(out.dataparser_transform.numpy(), out.dataparser_scale)
    found, _ = photos.read_photos(run, world_to_train)
    assert np.allclose([photo.camera.position for photo in found], out.cameras.camera_to_worlds[:, :, 3], atol=1e-5)


def test_photos_that_are_gone_are_said_to_be(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    still = from_dataparser(np.eye(4)[:3], 1.0)
    assert photos.read_photos(run, still)[0] == []
    (run / "config.yml").write_text(config(tmp_path / "gone"))
    assert "not found" in photos.read_photos(run, still)[1]
    (tmp_path / "gone").mkdir()
    found, note = photos.read_photos(run, still)
    assert found == []
    assert "not shown" in note
    data = make_transforms(tmp_path / "scene")
    (run / "config.yml").write_text(config(data))
    assert "dataparser_transforms" in photos.read_photos(run, None)[1]
    (data / "images" / "003.png").write_bytes((data / "images" / "003.png").read_bytes()[:60])
    found, note = photos.read_photos(run, still)
    assert len(found) == 9
    assert "cannot be read" in note


# The server


def answer(port: int, path: str) -> bytes:
    """The whole answer to one GET; urllib would tidy the path up."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def test_only_the_page_can_be_read(capsys):
    with View(balls(), port=0) as page:
        front = answer(page.port, "/")
        assert front.startswith(b"HTTP/1.1 200")
        assert b'id="root"' in front
        assert b"googletagmanager" not in front  # viser's own page reports visits
        assert answer(page.port, "/?a=1").startswith(b"HTTP/1.1 200")
        up = "/.." * 20
        tries = [f"{up}/etc/passwd", f"/assets{up}/etc/passwd", "/assets/../../../__init__.py", "//etc/passwd",
                 "/%2e%2e/%2e%2e/etc/passwd", "/..", "/assets", f"/{'a' * 5000}", "/a%00b"]  # fmt: skip
        for path in tries:
            got = answer(page.port, path)
            assert not got.startswith(b"HTTP/1.1 200"), path
            assert b"root:" not in got
            assert b"import" not in got
    assert "http://127.0.0.1" not in capsys.readouterr().err


def test_a_taken_port_is_one_line_and_a_stopped_page_frees_it(capsys):
    with View(balls(), port=0) as page:
        port = page.port
        assert f"http://127.0.0.1:{port}" in capsys.readouterr().out
        with pytest.raises(LpmError, match=rf"--port: {port} on 127.0.0.1.*--port"):
            View(balls(), port=port).start()
        assert answer(port, "/").startswith(b"HTTP/1.1 200")
    for _ in range(3):
        with View(balls(), port=port) as again:  # at once
            assert again.port == port
            assert answer(port, "/").startswith(b"HTTP/1.1 200")
    assert compat.LOCAL[0] == "127.0.0.1"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 2)
    page.stop()  # twice is no error


def test_a_stopped_page_leaves_no_thread():
    before = threading.active_count()
    for _ in range(3):
        with View(balls(), port=0) as page:
            answer(page.port, "/")
    deadline = time.monotonic() + 5
    while threading.active_count() > before + 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before + 1


def test_what_the_page_says():
    loaded = Loaded(visible(1234), Path("a[b](x)<img>.ply"), "ply", rasterize_mode="antialiased")
    about = View(loaded).about
    assert "1,234 Gaussians, SH degree 3" in about
    assert "antialiased" in about
    assert "<img" not in about
    assert "a\\[b]" in about


# The command


def run(*arguments: str) -> subprocess.CompletedProcess:
    code = "from lpm.viewer.page.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


def test_help_explains():
    done = run("--help")
    assert done.returncode == 0
    for word in ("FILE|RUN", "--host", "--port", "--size", "--up", "7009", "127.0.0.1"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.ply"], "no such file"),
        (["empty.ply"], "empty"),
        (["text.ply"], "text.ply"),
        (["good.ply", "--size", "5"], "--size: 5"),
        (["good.ply", "--port", "99999"], "--port: 99999"),
        (["good.ply", "--host", "203.0.113.7"], "203.0.113.7"),
        (["nan.ply"], "finite"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    (tmp_path / "empty.ply").write_bytes(b"")
    (tmp_path / "text.ply").write_text("hello there, this is no such file")
    write_ply(tmp_path / "good.ply", visible(20))
    content = bytearray((tmp_path / "good.ply").read_bytes())
    start = content.index(b"end_header\n") + 11
    content[start:] = np.full((len(content) - start) // 4, np.nan, "<f4").tobytes()
    (tmp_path / "nan.ply").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["lpm-view", *arguments])
    with pytest.raises(SystemExit) as error:
        main()
    assert error.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
