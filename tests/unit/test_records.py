"""Records of events: what is written is read, also after a kill."""

from dataclasses import replace

from lpm.records import EditRecord, ZoneRecord, append, read

ZONE = ZoneRecord("false-front", 3, (0, 16, 32, 48), (1.5, 2.5), 0.25, 7, [[0.0, 1.0, 2.0]] * 8)
EVENT = EditRecord(100, 0.5, [3, 4], [ZONE], cloned=1, split=2, inserted=3, pruned=4, reset=5, relocated=6, points=70,
                   budget=80)  # fmt: skip


def test_round_trip(tmp_path):
    path = tmp_path / "edits.jsonl"
    append(path, EVENT)
    append(path, replace(EVENT, step=200, zones=[], budget=None))
    assert read(path) == [EVENT, replace(EVENT, step=200, zones=[], budget=None)]


def test_a_line_cut_short_by_a_kill_costs_only_itself(tmp_path):
    path = tmp_path / "edits.jsonl"
    append(path, EVENT)
    append(path, replace(EVENT, step=200))
    path.write_bytes(path.read_bytes()[:-40])
    assert [event.step for event in read(path)] == [100]
    append(path, replace(EVENT, step=200, points=71))  # the resumed run comes to it again
    append(path, replace(EVENT, step=300))
    assert [(event.step, event.points) for event in read(path)] == [(100, 70), (200, 71), (300, 70)]


def test_an_event_written_twice_counts_once(tmp_path):
    path = tmp_path / "edits.jsonl"
    for points in (70, 71):
        append(path, replace(EVENT, points=points))
    assert read(path) == [replace(EVENT, points=71)]


def test_the_line_for_the_log():
    line = EVENT.line()
    assert line.startswith("step 100: zones: 1 false-front; +1 cloned, +2 split, +3 inserted, -4 pruned")
    assert "none" in replace(EVENT, zones=[]).line()
