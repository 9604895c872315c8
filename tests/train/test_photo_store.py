"""Photos in bounded memory: never more than was allowed, and the run that comes of it is the same to the bit."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
import torch
from faces import core_trainer
from PIL import Image
from plugin.test_resume import BUSY
from tiny_scene import make_transforms

from lpm.checks import LpmError
from lpm.multiview import covisibility, visibility
from lpm.multiview.covisibility import covisible
from lpm.multiview.photo_graph import PhotoGraph
from lpm.multiview.views import Views
from lpm.scenes.read import read_scene
from lpm.scenes.samples.make import make
from lpm.train import photo_store
from lpm.train.load_photos import PhotoReader, load_photos
from lpm.train.photo_store import Budget, DeviceStore, PhotoStore, size_of, views_of
from lpm.train.photos import PhotoOrder
from lpm.train.placed import place
from lpm.train.scene_settings import SceneSettings

BYTES = 300


def photo(i):
    return {"image": torch.full((10, 10, 3), i % 251, dtype=torch.uint8)}


def drawn(store):
    """The photos of a few rounds in random order, asked for as training does; what came must be what was asked for."""
    order = PhotoOrder(len(store), 0)
    for _ in range(3 * len(store)):
        i = order.next()
        store.ahead([i, *order.coming(photo_store.AHEAD)])
        assert int(store[i]["image"][0, 0, 0]) == i % 251


@pytest.mark.parametrize("room", [0, 1, 30, 120])
def test_memory_is_bounded(room):
    seen = []
    store = PhotoStore(100, lambda i: seen.append(i) or photo(i), room * BYTES)
    drawn(store)
    most = max(room, 0.75 * room + 2 * photo_store.AHEAD + 1)
    assert (store.kept_bytes + store.passing_bytes) / BYTES <= most
    assert len(seen) - photo_store.AHEAD <= store.decoded <= len(seen)  # the last ones are still coming
    kept = min(100, -(-3 * room // 4))
    assert kept + 3 * (100 - kept) + photo_store.AHEAD >= len(seen) >= 100
    assert len(set(seen)) == 100


def test_the_next_ones_are_there_before_they_are_asked_for():
    def slow(i):
        time.sleep(0.01)
        return photo(i)

    store = PhotoStore(60, slow, 0)
    order = PhotoOrder(60, 0)
    for _ in range(60):
        i = order.next()
        store.ahead([i, *order.coming(photo_store.AHEAD)])
        store[i]
        time.sleep(0.015)  # a step; two threads or more decode meanwhile
    assert store.waited < 0.1


def test_an_error_reaches_who_asks_and_is_tried_again():
    broken = {3}

    def read(i):
        if i in broken:
            raise LpmError("c.jpg: cannot be decoded")
        return photo(i)

    store = PhotoStore(5, read, 0)
    store.ahead(range(5))
    for _ in range(2):
        with pytest.raises(LpmError, match=r"c\.jpg"):
            store[3]
    broken.clear()
    assert int(store[3]["image"][0, 0, 0]) == 3
    assert int(store[-1]["image"][0, 0, 0]) == 4
    with pytest.raises(IndexError):
        store[5]


@pytest.mark.parametrize("room", [0, 7, 40])
def test_copies_on_a_device_stay_there_once(room, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    calls = []
    store = DeviceStore(40, lambda i: calls.append(i) or photo(i), 20 * BYTES, torch.device("cpu"), room * BYTES)
    drawn(store)
    assert store.device_bytes == room * BYTES
    assert (store.kept_bytes + store.passing_bytes) / BYTES <= 20 * 0.75 + 2 * photo_store.AHEAD + 1
    assert len(calls) <= 40 + 2 * max(0, 40 - room - 15) + photo_store.AHEAD + room


def test_many_threads_ask_for_the_same():
    calls, store = [], None

    def read(i):
        calls.append(i)
        time.sleep(0.02)
        return photo(i)

    store = PhotoStore(4, read, 10 * BYTES)
    got = []
    threads = [threading.Thread(target=lambda i=i: got.append(size_of(store[i % 4]))) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [BYTES] * 16
    assert sorted(calls) == [0, 1, 2, 3]


@pytest.mark.parametrize("gb", [-1.0, float("nan"), float("inf")])
def test_a_budget_is_a_number(gb):
    with pytest.raises(LpmError, match=r"cache_gb: .*; wanted GiB, 0 or more"):
        Budget.of("cpu", gb)


def test_half_of_the_free_memory(monkeypatch):
    monkeypatch.setattr(photo_store, "free_bytes", lambda: 10 * 2**30)
    assert Budget.of("cpu") == Budget(5 * 2**30, 0)
    assert Budget.of("cpu", 0.5) == Budget(2**29, 0)


def test_free_memory_is_told():
    assert 2**20 < photo_store.free_bytes() < 2**50


# What is read does not depend on when


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    """A scene with lens distortion, some photos with masks, and surfaces that photos can be compared by."""
    folder = make("street", tmp_path_factory.mktemp("street") / "scene", 24, (96, 72))
    meta = json.loads((folder / "transforms.json").read_text())
    mask = np.full((72, 96), 255, np.uint8)
    mask[:20, :30] = 0
    Image.fromarray(mask).save(folder / "mask.png")
    meta["k1"] = 0.02
    for frame in meta["frames"]:
        frame["mask_path"] = "mask.png"
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


def test_a_store_reads_the_same_photos(yard):
    split = place(read_scene(yard), SceneSettings(), 8).train
    photos, cameras = load_photos(split, 0.5)
    reader = PhotoReader(split, 0.5)
    store = PhotoStore(len(split), reader, 0)
    assert torch.equal(cameras.intrinsics, reader.cameras.intrinsics)
    assert torch.equal(cameras.sizes, reader.cameras.sizes)
    assert reader.bytes == sum(size_of(photo) for photo in photos)
    for ours, theirs in zip(store, photos, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def views(folder, lazy):
    placed = place(read_scene(folder), SceneSettings(), 8)
    reader = PhotoReader(placed.train, 1.0)
    cameras = reader.cameras
    photos = PhotoStore(len(placed.train), reader, 0) if lazy else load_photos(placed.train, 1.0)[0]
    return views_of(photos, cameras.Ks(), cameras.each_viewmat(), None, reader), placed.xyz


def test_features_found_late_are_those_found_early(yard, tmp_path):
    graphs = [PhotoGraph(*views(yard, lazy), tmp_path) for lazy in (False, True)]
    neighbours = [graph.neighbours(lambda v: pytest.fail("points are enough")) for graph in graphs]
    assert torch.equal(*neighbours)
    count = 0
    for v in range(len(graphs[0].views)):
        early, late = (graph.features(v) for graph in graphs)
        assert torch.equal(early[0], late[0])
        assert torch.equal(early[1], late[1])
        count += len(early[0])
    assert count > 100


@pytest.mark.parametrize("places", [16, 30])
def test_an_event_has_its_photos_read_before_it_asks(yard, monkeypatch, places):
    """Those that it looks at and those that they are compared with; as many as fit beside the next steps' photos."""
    of, points = views(yard, True)
    graph, asked = PhotoGraph(of, points), []
    graph.ahead([5])  # no neighbours are known yet
    neighbours = graph.neighbours(lambda v: pytest.fail("points are enough"))
    store = of.images._photos
    monkeypatch.setattr(store, "ahead", asked.append)
    monkeypatch.setattr(store, "places", lambda sizes: places)
    graph.ahead([5, 2])
    assert len(asked) == 1
    assert asked[0][:2] == [5, 2]
    pairs = [(v, w) for v, row in enumerate(neighbours.tolist()) for w in row if w >= 0]
    partners = {w for pair in pairs for w in pair if set(pair) & {5, 2}} | {5, 2}
    assert len(set(asked[0])) == len(asked[0]) == min(places - photo_store.AHEAD, len(partners))
    assert set(asked[0]) <= partners
    views(yard, False)[0].ahead([5, 2])  # all in memory: nothing happens


def test_views_that_are_many_find_the_same_neighbours(yard, monkeypatch):
    """Each compared with those that seem to share most: all of them here, and then half."""
    of, points = views(yard, False)
    everyone = covisible(of, points)
    assert (everyone.neighbours >= 0).float().mean() > 0.5
    monkeypatch.setattr(covisibility, "MANY", 3)
    monkeypatch.setattr(visibility, "BLOCK", 5)
    monkeypatch.setattr(visibility, "PER_VIEW", 10**6)
    monkeypatch.setattr(visibility, "NEARBY", 10**6)
    for candidates in (100, 12):
        monkeypatch.setattr(visibility, "CANDIDATES", candidates)
        some = covisible(of, points)
        for name in ("neighbours", "overlap", "parallax"):
            assert torch.equal(getattr(some, name), getattr(everyone, name)), name
    monkeypatch.setattr(visibility, "PER_VIEW", 64)
    monkeypatch.setattr(visibility, "NEARBY", 1000)
    fewer = covisible(of, points).neighbours
    assert ((fewer[:, :, None] == everyone.neighbours[:, None]).any(2) | (fewer < 0)).float().mean() > 0.7
    assert (fewer >= 0).float().mean() > 0.5


@pytest.mark.parametrize("many", [10, 3])  # at a time: each is compared with all of its time, or with some of them
def test_in_a_long_clip_neighbours_are_those_of_the_same_time(yard, monkeypatch, many):
    """Those of all other times see as much, and would leave no room for them."""
    of, points = views(yard, False)
    count, times = 6, 40
    first = covisible(Views(of.images[:count], of.Ks[:count], of.viewmats[:count]), points).neighbours
    assert (first >= 0).any(1).all()
    Ks, viewmats = (t[:count].repeat(times, 1, 1) for t in (of.Ks, of.viewmats))
    clip = Views(of.images[:count] * times, Ks, viewmats, capture_times=torch.arange(times).repeat_interleave(count))
    monkeypatch.setattr(covisibility, "MANY", many)
    monkeypatch.setattr(visibility, "PER_VIEW", 10**6)
    monkeypatch.setattr(visibility, "NEARBY", 10**6)
    monkeypatch.setattr(visibility, "CANDIDATES", 10 if many == 10 else 10**6)
    found = covisible(clip, points).neighbours.reshape(times, count, -1)
    start = count * torch.arange(times)[:, None, None]
    assert torch.equal(found, torch.where(first >= 0, first + start, -1))


def test_many_views_and_no_evidence(yard, monkeypatch):
    of, points = views(yard, False)
    monkeypatch.setattr(covisibility, "MANY", 3)
    for nothing in (None, points[:0], torch.full_like(points, torch.nan), points + 1e5):
        assert (covisible(of, nothing).neighbours == -1).all()


def state(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items() if value.numel()}


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, different


@pytest.mark.parametrize("strategy", ["lpm", "paper", "adc"])
def test_runs_are_the_same_to_the_bit(make_trainer, tmp_path, yard, strategy):
    """By both faces, with everything kept and with nothing."""
    options = dict(strategy=strategy, data=yard, scale=1.0)
    runs, metrics = [], []
    for face in ("core", "nerfstudio"):
        for gb in (None, 0.0):
            name = f"{face}{gb}"
            if face == "core":
                more = {name: value for name, value in options.items() if name not in ("data", "scale")}
                trainer = core_trainer(tmp_path / name, 60, None, yard, 1.0, False, cache_gb=gb, **more, **BUSY)
                trainer.train()
                rows = trainer.summary()["views"]
                metrics.append([row["psnr"] for row in rows])
                assert isinstance(trainer.data.train, PhotoStore) == (gb == 0)
            else:
                trainer = make_trainer(name, 60, cache_gb=gb, **options, **BUSY)
                trainer.train()
                found = trainer.pipeline.get_average_eval_image_metrics()
                metrics.append(found["psnr"])
            runs.append(state(trainer.pipeline.model))
    for other in runs[1:]:
        assert_same_bits(runs[0], other)
    assert metrics[0] == metrics[1]
    assert metrics[2] == metrics[3]


def test_depths_are_the_same(tmp_path):
    folder = make_transforms(tmp_path / "scene")
    meta = json.loads((folder / "transforms.json").read_text())
    for i, frame in enumerate(meta["frames"]):
        np.save(folder / f"{i}.npy", np.full((12, 16), 2.5 + 0.1 * i, np.float32))
        frame["depth_file_path"] = f"{i}.npy"
    (folder / "transforms.json").write_text(json.dumps(meta))
    states = []
    for gb in (None, 0.0):
        options = dict(cache_gb=gb, depth_unit_scale_factor=1.0)
        trainer = core_trainer(tmp_path / str(gb), 20, None, folder, None, False, **options, **BUSY)
        assert trainer.data.train[0]["depth"].max() > 0
        trainer.train()
        states.append(state(trainer.model))
    assert_same_bits(*states)


def test_a_photo_that_breaks_on_the_way_is_named(tmp_path):
    folder = make_transforms(tmp_path / "scene", 40)
    trainer = core_trainer(tmp_path / "out", 60, None, folder, None, False, cache_gb=0.0, strategy="adc")
    for path in (folder / "images").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(LpmError, match=r"\.png: cannot be decoded"):
        trainer.train()
