"""What a run leaves for its replay, and the replay: what is read, what is shown, what is said of bad input."""

import json
import re
import threading
import time

import numpy as np
import pytest
import torch
from plotly.offline import get_plotlyjs
from runs import box, event, make_run, zone

from lpm import records
from lpm.viewer.replay import recording
from lpm.viewer.replay.cli import main
from lpm.viewer.replay.curves import plots
from lpm.viewer.replay.data import load
from lpm.viewer.replay.html import page, write_html
from lpm.viewer.replay.page import Page
from lpm.viewer.replay.recording import CLOUD_LIMIT, LIMIT, Snapshot

NONE = np.zeros((0, 3), np.float32)


def some(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)


# Recording


def test_round_trip(tmp_path):
    colors = np.random.default_rng(1).integers(0, 256, (50, 3)).astype(np.uint8)
    recording.write(tmp_path, Snapshot(300, some(4), some(5, 1), NONE, some(50, 2), colors, 21.5))
    recording.write(tmp_path, Snapshot(200, torch.from_numpy(some(3)), NONE, NONE))
    second, first = recording.read(tmp_path)[::-1]
    assert (first.step, second.step) == (200, 300)
    assert first.means is None
    assert first.colors is None
    assert first.psnr is None
    assert np.array_equal(first.added, some(3))
    assert second.psnr == 21.5
    for got, wanted in ((second.added, some(4)), (second.removed, some(5, 1)), (second.means, some(50, 2))):
        assert got.dtype == np.float32
        assert np.array_equal(got, wanted)
    assert second.reset.shape == (0, 3)
    assert second.colors.dtype == np.uint8
    assert np.array_equal(second.colors, colors)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_long_lists_are_thinned_to_the_same_rows_each_time(tmp_path, kind):
    many = np.arange(3 * 50_000, dtype=np.float32).reshape(-1, 3)
    colors = (np.arange(3 * 50_000) % 251).astype(np.uint8).reshape(-1, 3)
    for folder in ("a", "b"):
        recording.write(tmp_path / folder, Snapshot(1, kind(many), kind(many[: LIMIT + 1]), kind(many[:LIMIT]),
                                                    kind(many), kind(colors)))  # fmt: skip
    [saved], [again] = recording.read(tmp_path / "a"), recording.read(tmp_path / "b")
    assert (len(saved.added), len(saved.removed), len(saved.reset)) == (LIMIT, LIMIT, LIMIT)
    assert (len(saved.means), len(saved.colors)) == (CLOUD_LIMIT, CLOUD_LIMIT)
    assert np.array_equal(saved.reset, many[:LIMIT])  # just as many as fit: all of them
    rows = (saved.means[:, 0] / 3).astype(int)
    assert (np.diff(rows) > 0).all()
    assert rows[-1] > 49_990
    assert np.array_equal(saved.colors, colors[rows])
    assert np.array_equal(saved.added, again.added)


def test_rows_that_are_not_finite_are_left_out_with_their_colours(tmp_path):
    means = some(4)
    means[1, 2], means[3, 0] = np.nan, np.inf
    colors = np.arange(12, dtype=np.uint8).reshape(4, 3)
    recording.write(tmp_path, Snapshot(1, means, NONE, NONE, means, colors))
    [saved] = recording.read(tmp_path)
    assert np.array_equal(saved.means, means[[0, 2]])
    assert np.array_equal(saved.colors, colors[[0, 2]])
    assert np.array_equal(saved.added, means[[0, 2]])


def test_a_resume_writes_an_event_again(tmp_path):
    for n in (3, 4):
        recording.write(tmp_path, Snapshot(300, some(n), NONE, NONE))
    [saved] = recording.read(tmp_path)
    assert len(saved.added) == 4


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    recording.write(tmp_path, Snapshot(300, some(3), NONE, NONE))

    def full(file, **arrays):
        file.write(b"PK half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        recording.write(tmp_path, Snapshot(300, some(9), NONE, NONE))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000300.npz"]
    assert len(recording.read(tmp_path)[0].added) == 3


def test_what_a_killed_write_leaves_is_passed_over_and_replaced(tmp_path, capsys):
    (tmp_path / ".step-000000300.npz.unfinished").write_bytes(b"PK half")
    assert recording.read(tmp_path) == []
    assert capsys.readouterr().err == ""
    recording.write(tmp_path, Snapshot(300, some(3), NONE, NONE))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000300.npz"]


def test_broken_files_are_passed_over_with_one_line(tmp_path, capsys):
    for step in (100, 200, 300, 400, 500):
        recording.write(tmp_path, Snapshot(step, some(30), NONE, NONE))
    whole = (tmp_path / "step-000000100.npz").read_bytes()
    (tmp_path / "step-000000100.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "step-000000200.npz").write_bytes(b"")
    with (tmp_path / "step-000000300.npz").open("wb") as file:
        np.savez(file, step=300, psnr=np.nan, added=np.zeros(7), removed=NONE, reset=NONE)
    with (tmp_path / "step-000000400.npz").open("wb") as file:  # a pickle is not run
        np.savez(file, step=400, psnr=np.nan, added=np.array([{}], object), removed=NONE, reset=NONE)
    assert [saved.step for saved in recording.read(tmp_path)] == [500]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "step-000000100.npz and 3 more" in said


def test_no_folder_is_no_snapshots(tmp_path):
    assert recording.read(tmp_path / "replay") == []


# What is shown


def test_edits_of_the_last_events(tmp_path):
    for i in range(4):
        records.append(tmp_path / "edits.jsonl", event(100 * (i + 1), []))
        if i != 1:
            places = np.full((i + 1, 3), i, np.float32)
            recording.write(tmp_path / "replay", Snapshot(100 * (i + 1), places, places[:1], NONE))
    replay = load(tmp_path)

    def added(index, last):
        return replay.recent(index, last)["added"][:, 0].tolist()

    assert added(0, 1) == [0]
    assert added(1, 1) == []
    assert added(2, 1) == [2, 2, 2]
    assert added(2, 2) == [2, 2, 2]
    assert added(2, 3) == [0, 2, 2, 2]
    assert added(3, 2) == [2, 2, 2, 3, 3, 3, 3]
    assert added(3, 20) == [0, 2, 2, 2, 3, 3, 3, 3]
    assert replay.recent(3, 2)["removed"][:, 0].tolist() == [2, 3]
    assert replay.recent(3, 9)["reset"].shape == (0, 3)


def test_the_cloud_is_the_newest_that_is_not_newer(tmp_path):
    replay = load(make_run(tmp_path, 4))  # clouds at 100 and 300
    assert [replay.cloud(i).step for i in range(4)] == [100, 100, 300, 300]
    replay.snapshots = [s for s in replay.snapshots if s.step != 100]
    assert replay.cloud(0) is None


def test_zones_by_kind_and_those_without_a_place(tmp_path):
    zones = [zone("missing", box()), zone("missing", box(2)), zone("of-tomorrow", box(3)), zone("no-evidence", None)]
    records.append(tmp_path / "edits.jsonl", event(100, zones))
    boxes = load(tmp_path).boxes(0)
    assert {kind: len(corners) for kind, corners in boxes.items()} == {
        "false-front": 0, "missing": 2, "under-resolved": 0, "no-evidence": 1,
    }  # fmt: skip
    assert np.allclose(boxes["missing"], [box(), box(2)])


def test_curves(tmp_path):
    records.append(tmp_path / "edits.jsonl", event(100, [zone("missing", box(), 0.1), zone("missing", None, 0.3)]))
    records.append(tmp_path / "edits.jsonl", event(200, []))
    recording.write(tmp_path / "replay", Snapshot(200, NONE, NONE, NONE, psnr=25.0))
    curves = load(tmp_path).curves()
    assert curves["points"] == ([100, 200], [1100, 1200])
    assert curves["budget"] == ([100, 200], [1300, 1400])
    assert curves["error"][1] == [pytest.approx(0.2), None]
    assert curves["psnr"] == ([200], [25.0])
    assert curves["added"][1] == [7, 7]
    assert curves["removed"][1] == [3, 3]
    assert curves["reset"][1] == [1, 1]


def test_plots_are_only_of_what_is_known(tmp_path):
    titles = [note.text for note in plots(load(make_run(tmp_path / "a"))).layout.annotations]
    assert titles == ["points", "error of zones", "edits", "held-out PSNR, dB"]
    titles = [note.text for note in plots(load(make_run(tmp_path / "b", recorded=False))).layout.annotations]
    assert titles == ["points", "error of zones", "edits"]


# The file


def test_the_html_asks_for_nothing(tmp_path):
    run = make_run(tmp_path / "</script><script src=http://x>".replace("/", "_"))
    out = tmp_path / "new" / "replay.html"
    write_html(out, load(run))
    text = out.read_text()
    bundle = get_plotlyjs()
    assert text.count(bundle) == 1
    ours = text.replace(bundle, "")
    for sign in ("http://", "https://", "<script src", "<link", "@import", "url(", "fetch(", "import("):
        assert sign not in ours, sign
    assert ours.count("<script>") == 2
    assert [path.name for path in out.parent.iterdir()] == ["replay.html"]


def test_the_html_holds_all_events(tmp_path):
    text = page(load(make_run(tmp_path, 5))).decode().replace(get_plotlyjs(), "")
    data, _ = json.JSONDecoder().raw_decode(text[text.index("const DATA = ") + len("const DATA = ") :])
    assert [e["step"] for e in data["events"]] == [100, 200, 300, 400, 500]
    assert [e["cloud"] for e in data["events"]] == [0, 0, 1, 1, 2]
    assert len(data["clouds"]) == 3


def test_of_many_clouds_the_html_holds_some_and_the_last(tmp_path):
    text = page(load(make_run(tmp_path, 90, points=3))).decode().replace(get_plotlyjs(), "")  # 45 clouds
    data, _ = json.JSONDecoder().raw_decode(text[text.index("const DATA = ") + len("const DATA = ") :])
    assert len(data["clouds"]) == 16
    assert data["events"][0]["cloud"] == 0
    assert data["events"][-1]["cloud"] == 15


def test_a_long_run_makes_a_file_no_larger_than_asked_for(tmp_path, capsys):
    replay = load(make_run(tmp_path / "run", 40, points=1500))
    out, most = tmp_path / "replay.html", len(get_plotlyjs().encode()) + 600_000
    write_html(out, replay, most)
    assert out.stat().st_size <= most
    assert re.search(r"40 events, 5\.\d MB; at most \d+ points of each edit are shown", capsys.readouterr().out)
    write_html(out, replay, most - 550_000)
    assert out.stat().st_size <= most - 550_000
    assert re.search(r"every \d+th event is shown", capsys.readouterr().out)


# The command


@pytest.fixture
def command(monkeypatch, capsys):
    """command(*arguments): exit code, and what it wrote to stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["lpm-replay", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            code = end.code
        else:
            code = 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_run_recorded_before_replays_from_its_edits_and_says_so_once(tmp_path, command):
    run = make_run(tmp_path / "run", recorded=False)
    code, out, err = command(run, "--html", tmp_path / "replay.html")
    assert code == 0
    assert "4 events" in out
    assert err.count("no replay/ in it") == 1
    code, out, _ = command(run / "config.yml", "--html", tmp_path / "again.html")
    assert code == 0
    assert "again.html: 4 events" in out


def test_bad_input_is_one_line(tmp_path, command):
    empty, broken, strange = tmp_path / "empty", tmp_path / "broken", tmp_path / "strange"
    for folder in (empty, broken, strange):
        folder.mkdir()
    (broken / "edits.jsonl").write_text('{"step": 1')
    (strange / "edits.jsonl").write_text('{"zones": 7, "step": 1}\n')
    good = make_run(tmp_path / "good")
    for arguments, wanted in (
        ([tmp_path / "nowhere"], "no such folder"),
        ([empty], "no edits.jsonl in it"),
        ([broken], "no event in it"),
        ([strange], "a line in it is no event"),
        ([good, "--html", tmp_path / "replay.txt"], "ends in .html"),
        ([good, "--html", empty / "sub" / ".." / ".." / "broken" / "edits.jsonl" / "x.html"], "cannot be written"),
    ):
        code, _, err = command(*arguments)
        assert code == 2, arguments
        assert err.startswith("error: "), err
        assert wanted in err
        assert err.count("\n") == 1, err


def test_numbers_that_are_none_are_found_before_drawing(tmp_path, command):
    run = make_run(tmp_path / "run")
    path = run / "edits.jsonl"
    for change in ({"points": "many"}, {"points": float("nan")}, {"zones": [{"kind": 3}]}, {"split": None}):
        lines = [{**json.loads(line), **change} for line in path.read_text().splitlines()]
        other = tmp_path / f"other{len(list(tmp_path.iterdir()))}"
        other.mkdir()
        (other / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        code, _, err = command(other, "--html", tmp_path / "x.html")
        assert code == 2, change
        assert "a line in it is no event" in err


# The page in viser, without a browser


@pytest.fixture
def served(tmp_path):
    """A Page of a run with four events, being served and played."""
    from lpm.viewer.compat import serve, stop

    server = serve("127.0.0.1", 0, "lpm-replay")
    page, done = Page(server, load(make_run(tmp_path / "run"))), threading.Event()
    thread = threading.Thread(target=page.run, args=(done,), daemon=True)
    thread.start()
    yield page
    done.set()
    thread.join(5)
    stop(server)


def until(what, seconds=10.0):
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    assert what()


def test_the_slider_draws_an_event(served):
    assert "event 1 of 4, step 100" in served.text.content
    assert {"false-front", "added", "removed", "reset", "points"} == set(served.drawn)
    served.event.value = 2
    until(lambda: "event 2 of 4, step 200" in served.text.content)
    until(lambda: "missing" in served.drawn)
    assert "false-front" not in served.drawn
    served.shown["missing"].value = False
    until(lambda: not served.drawn["missing"].visible)
    served.event.value = 3
    served.event.value = 2
    until(lambda: "step 200" in served.text.content)
    assert not served.drawn["missing"].visible


def test_playing_ends_at_the_last_event_and_starts_over(served):
    served.speed.value = 10.0
    served._play(True)
    assert served.playing
    until(lambda: "event 4 of 4" in served.text.content)
    until(lambda: not served.playing)
    served._play(True)
    assert served.event.value == 1
    until(lambda: "event 4 of 4" in served.text.content)
