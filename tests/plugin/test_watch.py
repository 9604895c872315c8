"""What a run records and shows of its events, with every strategy."""

import pytest

from lpm import records
from lpm.strategy.registry import STRATEGIES
from lpm.viewer.replay import recording

BUSY = dict(warmup_length=5, refine_every=5, stop_split_at=35, max_points=400)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains_with_the_viewer(make_trainer, strategy):
    """Panels and pictures are there for those that have error maps; the others have nerfstudio's page."""
    trainer = make_trainer("shown", 40, vis="viewer", strategy=strategy, **BUSY)
    ours = strategy in ("lpm", "random-zones")
    try:
        trainer.train()
        camera = trainer.data.train_dataset.cameras[0:1]
        outputs = trainer.model.eval().get_outputs_for_camera(camera)
        assert (set(outputs) >= {"error", "zones", "age"}) == ours
        assert (trainer.monitor is not None and trainer.monitor.panels is not None) == ours
        if ours:
            panels = trainer.monitor.panels
            assert [e.step for e in panels.replay.events] == [s.step for s in panels.replay.snapshots]
            assert all(s.means is None for s in panels.replay.snapshots)
    finally:
        trainer.shutdown()


def test_each_event_is_recorded_once(make_trainer):
    trainer = make_trainer("recorded", 40, strategy="lpm", **BUSY)
    trainer.train()
    events = records.read(trainer.base_dir / "edits.jsonl")
    snapshots = recording.read(trainer.base_dir / recording.FOLDER)
    assert len(events) == len(snapshots) == 5  # steps 10, 15, ... 30
    for event, snapshot in zip(events, snapshots, strict=True):
        assert event.step == snapshot.step
        assert len(snapshot.removed) == event.pruned
        assert len(snapshot.added) == event.inserted + 2 * event.split
        assert len(snapshot.reset) == event.reset
    assert any(snapshot.means is not None for snapshot in snapshots)
    assert any(snapshot.psnr is not None for snapshot in snapshots)
