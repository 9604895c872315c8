"""lpm-edit clean: planted floaters go, kind by kind, and what is no floater stays."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import tiny_scene
import torch
from editing.walls import cameras, wall, with_row
from export.some import call

from lpm.editing import cleaning, outliers
from lpm.editing.cameras import in_four_photos
from lpm.editing.cli import Floaters, main
from lpm.editing.contradicted import contradicted
from lpm.editing.draw import drawn
from lpm.editing.free_space import before_surfaces, votes
from lpm.editing.kept import Kept
from lpm.editing.missed import _change, _loss_maps, missed
from lpm.editing.pulled import Photos
from lpm.editing.seen_light import drawn_by_fewer, stopped_light
from lpm.editing.settled import settled, why_not
from lpm.formats.ply import write_ply
from lpm.formats.read import load
from lpm.multiview.views import centres_of, project
from lpm.render.losses import l1_dssim
from lpm.scenes.read import read_scene
from lpm.train.model_settings import PoseRefinementSettings
from lpm.train.run_settings import FILE, RunSettings, write_settings


@pytest.mark.parametrize(
    ("rule", "value", "changed"),
    [
        (outliers.faint, 0.005, {"opacities": [-6.0]}),
        (outliers.needles, 30, {"scales": [-1.0, -5.0, -5.0]}),
        (outliers.giants, 0.5, {"scales": [0.0, -3.0, -3.0]}),
        (outliers.lonely, 10, {"means": [0.0, 0, 2.0]}),
    ],
)
def test_statistics(rule, value, changed):
    found = rule(with_row(wall(), **changed), value)
    assert found.nonzero().flatten().tolist() == [1500]


def test_what_is_sparse_by_right_is_not_lonely():
    """Behind the wall, a backdrop ten times as sparse, of Gaussians ten times as large."""
    near, far = wall(), wall(300)
    far["means"] = far["means"] * 10 + torch.tensor([0.0, 0, -10])
    far["scales"] += np.log(20)
    both = {name: torch.cat([near[name], far[name]]) for name in near}
    assert not outliers.lonely(both, 10).any()
    assert not outliers.giants(both, 0.5).any()


def test_before_surfaces():
    params = wall()
    views, points = cameras(params).views(), params["means"][::3]
    asked = torch.tensor([[0.0, 0, 1.0], [0.2, 0.1, 0.5], [0.0, 0, 0.0], [0.0, 0, -1.0], [9.0, 0, 0]])
    front, there = votes(asked, views, points)
    assert front.tolist() == [7, 7, 0, 0, 0]  # of 8 cameras, one only measures
    assert there.tolist() == [0, 0, 7, 0, 0]  # what is behind the wall, or in no picture, nobody can tell
    assert before_surfaces(asked, views, points, 7).tolist() == [True, True, False, False, False]
    assert not before_surfaces(asked, views, points, 8).any()
    assert not before_surfaces(asked, views, points[:0], 1).any()


def test_seen():
    """What is beside all pictures is drawn by none; what is hidden is drawn, and stops no light."""
    params = with_row(with_row(wall(), means=[0.0, 0, -0.5]), means=[9.0, 0, 0])
    views = cameras(params).views()
    fewer = drawn_by_fewer(params, views, 2, "classic")
    assert fewer.nonzero().flatten().tolist() == [1501]
    light = sum(stopped_light(params, views, "classic"))
    assert light[1501] == 0
    assert light[1500] < 0.4 * light[:1500].median()
    # Every pixel's light is shared among the Gaussians: sums of weights are sums of alpha.
    alpha = sum(
        float(drawn(params, cameras(params), v, torch.zeros(3), "classic")[1].sum()) for v in range(8) if v != 3
    )
    assert float(light.sum()) == pytest.approx(alpha, rel=1e-3)


def photos_of(own, seen):
    """photo(k): what the k-th of the cameras `seen` that do not only measure shows of `own`."""
    trained = [v for v in range(8) if v != 3]

    def photo(k):
        color = drawn(own, seen, trained[k], torch.full((3,), 0.5), "classic")[0]
        return {"image": (color.clamp(0, 1) * 255).round().byte()}

    return photo


def test_photos_contradict():
    """A black one before the bright half of the wall, and one that the photos show."""
    params = wall()
    own = with_row(params, means=[-0.5, 0.3, 0.4], scales=[-2.5, -2.5, -2.5], features_dc=[1.5, -1.5, 1.0])
    planted = with_row(own, means=[0.5, 0, 0.4], scales=[-2.5, -2.5, -2.5], features_dc=[-1.7, -1.7, -1.7])
    seen = cameras(params)
    photo = photos_of(own, seen)
    found = contradicted(planted, seen, photo, 2, 0.05, "classic")
    assert found.nonzero().flatten().tolist() == [1501]
    assert not contradicted(own, seen, photo, 2, 0.05, "classic").any()
    assert not contradicted(planted, seen, photo, 8, 0.05, "classic").any()  # seven see it


def test_one_photo_contradicts_what_others_hardly_see():
    """It stands close before one camera; the others see a few pixels of it, and would have more."""
    params = wall()
    seen = cameras(params)
    view = seen.viewmats[0]
    place = (centres_of(view) + 0.6 * view[2, :3]).tolist()
    planted = with_row(params, means=place, scales=[-3.5, -3.5, -3.5], features_dc=[-1.7, -1.7, -1.7])
    more = {**planted, "opacities": planted["opacities"].clone()}
    more["opacities"][1500] += 1
    without, with_more = photos_of(params, seen), photos_of(more, seen)
    light = [float(of_view[1500]) for of_view in stopped_light(planted, seen.views(), "classic")]
    assert light[0] > 20 * sum(light[1:]) > 20 * 0.1

    def photo(k):
        return (without if k == 0 else with_more)(k)

    assert contradicted(planted, seen, photo, 2, 0.05, "classic").nonzero().flatten().tolist() == [1500]
    assert not contradicted(planted, seen, with_more, 2, 0.05, "classic").any()
    assert not contradicted(planted, seen, photo, 8, 0.05, "classic").any()


def test_pictures_are_the_middles_of_four_photos():
    params = wall()
    seen = cameras(params)  # 64 x 64
    wide = replace(seen, sizes=seen.sizes * torch.tensor([2, 1]), Ks=seen.Ks.clone())
    wide.Ks[:, 0, 2] += 32
    viewmats, Ks = in_four_photos(wide, 320)
    assert torch.equal(viewmats, seen.viewmats[[0, 2, 5, 7]])
    for view, K, v in zip(viewmats, Ks, (0, 2, 5, 7), strict=True):
        there, _ = project(params["means"], view, wide.Ks[v])
        here, _ = project(params["means"], view, K)
        torch.testing.assert_close(here, (there - torch.tensor([64.0, 32.0])) * 5 + 160, rtol=1e-4, atol=1e-2)


@pytest.fixture
def hung():
    """The wall with what hangs before it (row 1500) and a floater (1501), and cameras whose photos lack the floater."""
    own = with_row(wall(), means=[-0.5, 0.3, 0.4], scales=[-2.5, -2.5, -2.5], features_dc=[1.5, -1.5, 1.0])
    planted = with_row(own, means=[0.5, 0, 0.4], scales=[-2.5, -2.5, -2.5], features_dc=[-1.7, -1.7, -1.7])
    seen = cameras(own)
    return planted, replace(seen, photo=photos_of(own, seen))


def loss_of(params, seen, of=lambda *both: l1_dssim(*both, 0.2) * both[0].shape[0] * both[0].shape[1]):
    """Training's, summed over the photos and their pixels."""
    loss = 0.0
    for k, v in enumerate(v for v in range(8) if v != 3):
        color, _ = drawn(params, seen, v, torch.full((3,), 0.5), "classic")
        truth = seen.photo(k)["image"] / 255
        loss += float(of(color, truth))
    return loss


def test_photos_pull(hung):
    """By what the loss does when an opacity is a little more, of what is drawn."""
    params, seen = hung
    pull = Photos(params, seen, seen.photo, "classic").pull(torch.arange(1502) != 1500)
    assert (int(pull.seeing[1501]), int(pull.down[1501])) == (7, 7)
    assert pull.gradient[1501] > 0 == pull.gradient[1500]
    changed = {name: value[torch.arange(1502) != 1500].clone() for name, value in params.items()}
    opacity, losses = float(torch.sigmoid(changed["opacities"][1500])), []
    for by in (-0.002, 0.002):
        changed["opacities"][1500] = torch.logit(torch.tensor(opacity + by))
        losses.append(loss_of(changed, seen))
    assert float(pull.gradient[1501]) == pytest.approx((losses[1] - losses[0]) / 0.004, rel=0.1)
    trace = {**params, "opacities": params["opacities"].clone()}
    trace["opacities"][1500] = torch.logit(torch.tensor(0.02))
    wanted = Photos(trace, seen, seen.photo, "classic").pull(torch.arange(1502) != 1501)
    assert (int(wanted.seeing[1500]), int(wanted.down[1500])) == (7, 0)
    assert wanted.gradient[1500] < 0


def test_photos_say_what_they_miss(hung):
    params, seen = hung
    gone = torch.arange(1502) >= 1499
    found = missed(Photos(params, seen, seen.photo, "classic"), gone, gone)
    assert found.nonzero().flatten().tolist() == [1499, 1500]


def test_what_a_gaussian_changes_is_measured(hung):
    """Far from each other, each gets what the loss changes by with it alone."""
    params, seen = hung
    gone = torch.arange(1502) >= 1500
    asking = Photos(params, seen, seen.photo, "classic"), gone, gone, torch.zeros(1502, dtype=torch.int64), Kept()
    change = _change(*asking)
    assert torch.equal(_change(*asking), change)  # by what was kept

    def total(rows):
        return loss_of(
            {name: value[rows] for name, value in params.items()}, seen, lambda *both: sum(_loss_maps(*both)).sum()
        )

    for row in (1500, 1501):
        alone = total([*range(1500), row]) - total([*range(1500)])
        assert float(change[row]) == pytest.approx(alone, rel=0.01)
    assert not change[:1500].any()


def test_before_surfaces_goes_what_photos_do_not_show(hung):
    """Both stand before the wall by SfM's points; only one is in the photos."""
    params, seen = hung
    seen = replace(seen, points=params["means"][:1500:3])
    floaters = Floaters()
    found = cleaning.by_scene(params, seen, floaters, "classic", "cpu")
    assert found[cleaning.front_rule(floaters)].nonzero().flatten().tolist() == [1500, 1501]
    found = cleaning.by_photos(params, found, seen, floaters, "classic", "cpu")
    gone = torch.stack(list(found.values())).any(0)
    assert gone[1500:].tolist() == [False, True]
    assert gone[:1500].sum() < 15  # what the wall's others hide


def test_opacities_settle_to_the_photos(hung):
    """Those of a wall that is too faint, whose photos show it opaque."""
    planted, seen = hung
    own = {name: value[:1501] for name, value in planted.items()}
    faint = {**own, "opacities": own["opacities"] - 0.5}
    photos = Photos(faint, seen, seen.photo, "classic")
    after, first, last = settled(photos, 40)
    assert loss_of({**faint, "opacities": after}, seen) < 0.6 * loss_of(faint, seen)
    assert last < 0.6 * first
    assert (after > faint["opacities"]).float().mean() > 0.8
    assert torch.equal(after, settled(photos, 40)[0])
    assert torch.equal(settled(photos, 0)[0], faint["opacities"])


def test_opacities_that_photos_do_not_better_stay(hung):
    """A step of noise cannot better what made the photos."""
    planted, seen = hung
    own = {name: value[:1501] for name, value in planted.items()}
    after, first, last = settled(Photos(own, seen, seen.photo, "classic"), 3)
    assert first == last
    assert torch.equal(after, own["opacities"])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (dict(), None),
        (dict(background_color="white"), "over white"),
        (dict(use_bilateral_grid=True), "colours"),
        (dict(camera_optimizer=PoseRefinementSettings("SO3xR3")), "poses"),
    ],
)
def test_when_opacities_can_be_fitted(tmp_path, model, said):
    """Where the run is known, and its photos are what it trained on."""
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    write_ply(tmp_path / "a.ply", wall())
    loaded = load(tmp_path / "a.ply")
    assert "not known" in why_not(folder, loaded)
    settings = RunSettings(scene=folder)
    for name, value in model.items():
        setattr(settings.model, name, value)
    (tmp_path / "run").mkdir()
    write_settings(tmp_path / "run" / FILE, settings)
    reason = why_not(tmp_path / "run", loaded)
    assert reason is None if said is None else said in reason
    assert "sky" in why_not(tmp_path / "run", replace(loaded, sky={}))


def test_command(tmp_path, capsys):
    params = with_row(with_row(wall(), opacities=[-8.0]), means=[0.0, 0, 3.0])
    write_ply(tmp_path / "a.ply", params)
    assert call(main, "clean", tmp_path / "a.ply", tmp_path / "b.ply") == 0
    said = capsys.readouterr().out
    assert "clean: 2 of 1,502 Gaussians" in said
    counts = {line[:45].strip(): int(line[45:]) for line in said.splitlines() if line.startswith("  ")}
    assert counts == {
        "nearly transparent (below 0.005)": 1, "needles (over 30 to 1)": 0, "giants (over 0.5 of the way)": 0,
        "far from all others": 1,
    }  # fmt: skip
    back = load(tmp_path / "b.ply").params
    assert all(torch.equal(back[name], value[:1500]) for name, value in params.items())
    assert cv2.imread(str(tmp_path / "b.ply.edit.jpg")).shape == (640, 1280, 3)
    off = ["--faint", 0, "--no-picture", "--overwrite"]
    assert call(main, "clean", tmp_path / "a.ply", tmp_path / "b.ply", *off) == 0
    assert len(load(tmp_path / "b.ply").params["means"]) == 1501


def test_command_with_a_scene(tmp_path, capsys, monkeypatch):
    """In the world's frame of a scene: what is around a camera goes, and every rule says its number."""
    folder = tiny_scene.make_transforms(tmp_path / "scene")
    params = wall()
    place = read_scene(folder).c2w[3, :3, 3].tolist()
    write_ply(tmp_path / "a.ply", with_row(params, means=place, scales=[-1.5, -1.5, -1.5]))
    off = ["--lonely", 0, "--few", 0, "--front", 0, "--against", 0, "--no-picture"]
    assert call(main, "clean", tmp_path / "a.ply", tmp_path / "b.ply", "--scene", folder, *off) == 0
    said = capsys.readouterr().out
    assert [int(line.split()[-1]) for line in said.splitlines() if "around cameras" in line] == [1]
    assert "opacities stay as they are: how it was trained is not known" in said
    (tmp_path / "run").mkdir()
    write_settings(tmp_path / "run" / FILE, RunSettings(scene=folder))
    for more, changes in (([], {"opacities"}), (["--refit-steps", 0], set())):
        arguments = ["--scene", tmp_path / "run", "--overwrite", *off, *more]
        assert call(main, "clean", tmp_path / "a.ply", tmp_path / "d.ply", *arguments) == 0
        left = load(tmp_path / "d.ply").params
        assert {name for name, value in params.items() if not torch.equal(left[name], value)} == changes
    write_ply(tmp_path / "e.ply", with_row(params, opacities=[-5.29]))  # just above .005, in the midst of the others
    monkeypatch.setattr(cleaning, "settled", lambda photos, steps: (photos.params["opacities"] - 0.01, 1.0, 0.9))
    assert call(main, "clean", tmp_path / "e.ply", tmp_path / "f.ply", "--scene", tmp_path / "run", *off) == 0
    assert "\n1 that this left nearly transparent go, too\n" in capsys.readouterr().out
    assert torch.equal(load(tmp_path / "f.ply").params["means"], params["means"])
    assert call(main, "clean", tmp_path / "a.ply", tmp_path / "c.ply", "--scene", folder, "--no-picture") in (0, 2)
    said = capsys.readouterr().out
    for rule in ("in fewer than 2 photos", "before surfaces", "around cameras", "against 2 photos"):
        assert rule in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--faint", "-1"], "--faint"),
        (["--needle", "nan"], "--needle"),
        (["--faint", "0", "--needle", "0", "--giant", "0", "--lonely", "0"], "all rules are off"),
        (["--faint", "2"], "none of 1,500 Gaussians left"),
        (["--scene", "gone"], "gone"),
        (["--refit-steps", "-1"], "--refit-steps"),
    ],
)
def test_errors(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    write_ply(tmp_path / "a.ply", wall())
    assert call(main, "clean", "a.ply", "b.ply", *arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error
    assert error.startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]
