"""What people have: a folder for each camera, HEIC, videos of a phone that was held upright."""

from __future__ import annotations

import re
import struct
import sys
import types
from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image

from lpm.checks import LpmError
from lpm.prepare import frames, hdr, photos, sfm


def texture(size=(96, 80), seed=0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def test_a_camera_for_each_folder(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    made = []
    for i, name in enumerate(("left/0.png", "left/1.png", "right/0.png", "right/1.png", "right/2.png")):
        size = (96, 80) if name != "right/2.png" else (80, 96)
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        texture(size, i).save(tmp_path / "images" / name)
        made.append({"name": name, "size": size, "lens": f"{size[0]}x{size[1]}"})
    told = {"camera_model": "auto", "feature_size": 1600, "max_features": 100, "masks": False, "seed": 0}
    for cameras, groups in (("folder", [2, 2, 1]), ("shared", [4, 1]), ("each", [1] * 5)):
        sfm.extract(tmp_path, made, told | {"cameras": cameras}, True, lambda count: None)
        with pycolmap.Database.open(tmp_path / "database.db") as db:
            found = [image.camera_id for image in sorted(db.read_all_images(), key=lambda image: image.name)]
        assert sorted((found.count(key) for key in set(found)), reverse=True) == groups
        if cameras == "folder":
            assert found[0] == found[1] != found[2] == found[3]


def test_heic_without_a_decoder_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    photos.reads_heic.cache_clear()
    (tmp_path / "images").mkdir()
    (tmp_path / "a.heic").write_bytes(b"x")
    with pytest.raises(LpmError, match=r"^a\.heic: \.heic needs a decoder; wanted JPEG.*; pip install pillow-heif$"):
        photos.ready(tmp_path / "a.heic", "a.heic", tmp_path / "images")
    called = []
    fake = types.ModuleType("pillow_heif")
    fake.register_heif_opener = lambda: called.append(1)
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    photos.reads_heic.cache_clear()
    assert photos.reads_heic()
    assert called == [1]
    photos.reads_heic.cache_clear()


def test_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    photos.reads_heic.cache_clear()
    assert photos.reads_heic()
    (tmp_path / "images").mkdir()
    picture = texture()
    try:
        heif.from_pillow(picture).save(tmp_path / "a.heic", quality=95)
    except RuntimeError:
        pytest.skip("this pillow-heif cannot write")
    photo, alpha, _ = photos.ready(tmp_path / "a.heic", "a.heic", tmp_path / "images")
    assert (photo.name, photo.size, alpha) == ("a.jpg", (96, 80), None)
    written = np.asarray(Image.open(tmp_path / "images/a.jpg"), float)
    assert np.abs(written - np.asarray(picture, float)).mean() < 10  # its colours are of half the size


def turned(path, quarter):
    """Has the MP4 at `path` say that it is to be turned by a quarter, as a phone held upright writes it."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") - 4
    assert data[at + 8] == 0  # version
    one = 1 << 16
    rows = {0: (one, 0, 0, one), 1: (0, one, -one, 0)}[quarter]
    struct.pack_into(">9i", data, at + 48, rows[0], rows[1], 0, rows[2], rows[3], 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))


def test_a_video_of_an_upright_phone(tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "a.mp4"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 64))
    if not video.isOpened():
        pytest.skip("this OpenCV writes no MP4")
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, 48:] = 255  # bright on the right
    for _ in range(3):
        video.write(image)
    video.release()
    assert frames.picture(next(frames.decoded(path))).shape == (64, 96, 3)
    turned(path, 1)
    upright = frames.picture(next(frames.decoded(path)))
    assert upright.shape == (96, 64, 3)
    assert upright[80].mean() > 200 > 50 > upright[15].mean()  # clockwise: the right side is below now
    assert len(frames.sharpest(path, 3, tmp_path)) == 3
    assert Image.open(tmp_path / "frame_000000.jpg").size == (64, 96)


def film(path, images, times, kind="rgb24", stored="bgr0", **told):
    """A lossless video of `images` shown at `times`, milliseconds; `told` is what the stream says of its colours."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = stored
        stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in told.items():
            setattr(stream.codec_context, name, value)
        for image, at in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format=kind).reformat(format=stored)
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            for name, value in told.items():
                setattr(frame, name, value)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_a_video_whose_rate_changes(tmp_path):
    """One second of 30 frames, then two in which the phone took five a second: each second gives its sharpest frame."""
    sharp = np.asarray(texture((96, 80), 3))
    blurred = cv2.GaussianBlur(sharp, (0, 0), 2.0)
    times = [*range(0, 990, 33), *range(1000, 3000, 200)]
    best = {7, 32, 38}
    film(tmp_path / "a.mkv", [sharp if i in best else blurred for i in range(len(times))], times)
    assert frames.times(tmp_path / "a.mkv") == times
    taken = frames.sharpest(tmp_path / "a.mkv", 3, tmp_path)
    assert [name for name, _ in taken] == ["frame_000007.jpg", "frame_000032.jpg", "frame_000038.jpg"]


def test_a_video_that_breaks_off_or_is_damaged(tmp_path):
    av = pytest.importorskip("av")
    path, cut, damaged = (tmp_path / name for name in ("a.mp4", "cut.mp4", "damaged.mp4"))
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 80, "yuv420p", 5
        for seed in range(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(texture((96, 80), seed)))))
        container.mux(stream.encode(None))
    data = path.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    assert frames.broken_off(path) is None
    there = len(frames.times(cut))
    assert 10 < there < 35
    assert frames.broken_off(cut) == f"what comes after {there} of 40 frames: the file breaks off there"
    assert there - 2 <= sum(1 for _ in frames.decoded(cut)) <= there
    # A Matroska file tells its length, not how many frames there are.
    whole, part = tmp_path / "a.mkv", tmp_path / "cut.mkv"
    film(whole, [np.asarray(texture((96, 80), seed)) for seed in range(40)], range(0, 4000, 100))
    part.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    assert frames.broken_off(whole) is None
    assert re.fullmatch(
        r"what comes after 2\.\d+ of (3\.9|4)\d* seconds: the file breaks off there", frames.broken_off(part)
    )
    middle, hole = len(data) // 2, len(data) // 40  # a frame or two
    damaged.write_bytes(data[:middle] + bytes(hole) + data[middle + hole :])
    assert frames.broken_off(damaged) is None
    assert sum(1 for _ in frames.decoded(damaged)) >= 35  # those behind the damage, too


# Of BT.2100's HLG and of PQ, 10 bits, limited range: white at 203 cd/m2, and a grey of 26.
HLG, PQ = {"white": 0.75, "grey": 0.38}, {"white": 0.5807, "grey": 0.3796}


@pytest.mark.parametrize(("number", "signal"), [(18, HLG), (16, PQ)], ids=["HLG", "PQ"])
def test_hdr_becomes_srgb(tmp_path, number, signal):
    """Four bars: black, grey, white and what is brighter than white, by its luma alone; then BT.2020's red."""
    colours = np.array([[0, 0, 0], [signal["grey"]] * 3, [signal["white"]] * 3, [1, 1, 1], [signal["grey"], 0, 0]])
    luma = colours @ hdr.LUMA
    blue, red = (colours[:, 2] - luma) / (2 * (1 - hdr.LUMA[2])), (colours[:, 0] - luma) / (2 * (1 - hdr.LUMA[0]))
    planes = np.round(np.stack([64 + 876 * luma, 512 + 896 * blue, 512 + 896 * red], -1)) * 64
    image = np.repeat(planes, 16, 0)[None].repeat(64, 0).astype(np.uint16)
    told = {"color_trc": number, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    film(tmp_path / "a.mkv", [image] * 3, [0, 40, 80], "yuv444p16le", "yuv444p10le", **told)
    frame = next(frames.decoded(tmp_path / "a.mkv"))
    assert hdr.transfer(frame) == {18: "HLG", 16: "PQ"}[number]
    black, grey, white, brightest, red = frames.picture(frame)[32, 8::16].astype(int)
    assert black.tolist() == [0, 0, 0]
    assert grey.tolist() == pytest.approx([102] * 3, abs=2)  # .128 of white, linear: below the knee nothing is changed
    assert np.ptp(white) <= 1
    assert 200 < white[0] < 230  # room for what is brighter
    assert brightest.tolist() == pytest.approx([255] * 3, abs=1)
    assert red[0] > 110
    assert red[1:].tolist() == [0, 0]  # outside of sRGB
    assert len(frames.sharpest(tmp_path / "a.mkv", 3, tmp_path)) == 3
