"""Several processes (gloo, CPU) train what one process would with all their views in a step."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

STEPS, DIES = 45, 27
# A random background is drawn alike by all processes, and one after the other by one.
OPTIONS = {
    "background_color": "black",
    "max_points": 900,
    "refine_every": 20,
    "warmup_length": 10,
    "stop_split_at": 55,
    "num_downscales": 0,
}


def make(data: Path, out: Path, rank: int, world: int):
    from nerfstudio.scripts.train import _set_random_seed

    from lpm.plugin.config import lpm_splat, lpm_splat_4d

    torch.set_num_threads(1)
    moves = (data / "dynamic").is_dir()
    config = copy.deepcopy((lpm_splat_4d if moves else lpm_splat).config)
    config.experiment_name, config.timestamp, config.output_dir = "tiny", "run", out
    config.pipeline.datamanager.data = data
    config.max_num_iterations, config.vis, config.steps_per_save = STEPS, "tensorboard", 10_000
    config.machine.device_type, config.steps_per_eval_image = "cpu", 10_000
    for key, value in OPTIONS.items():
        setattr(config.pipeline.model, key, value)
    _set_random_seed(config.machine.seed + rank)  # as ns-train does
    trainer = config.setup(local_rank=rank, world_size=world)
    trainer.setup()
    return trainer


def no_memory(*_):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def process(rank: int, world: int, data: Path, out: Path, port: int, dies: int | None, in_edit: bool) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", world_size=world, rank=rank)
    trainer = make(data, out, rank, world)
    iteration = trainer.train_iteration
    if dies == rank and in_edit:
        trainer.model.strategy.parts.edit.make = no_memory
    elif dies == rank:
        trainer.train_iteration = lambda step: os._exit(9) if step == DIES else iteration(step)
    trainer.train()
    torch.save({k: v.detach() for k, v in trainer.model.gauss_params.items()}, out / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def spawn(world: int, data: Path, out: Path, port: int, dies: int | None = None, in_edit: bool = False) -> None:
    out.mkdir()
    mp.spawn(process, args=(world, data, out, port, dies, in_edit), nprocs=world)


def one_process(data: Path, out: Path, world: int) -> tuple[dict, list]:
    """The same batch in one process: gradients of `world` views averaged, what strategies gather summed."""
    from lpm.train.optimizers import checked_step

    trainer = make(data, out, 0, 1)
    model, strategy = trainer.model, trainer.model.strategy
    model.optimizers = trainer.optimizers.optimizers  # nerfstudio's callback does this
    optimizers = model._gaussian_optimizers()
    for step in range(STEPS):
        model.step, infos = step, []
        trainer.pipeline.train()
        for _ in range(world):
            camera, batch = trainer.data.next_train(step)
            outputs = model(camera)
            losses = model.get_loss_dict(outputs, batch, model.get_metrics_dict(outputs, batch))
            (sum(losses.values()) / world).backward()
            means2d = model.info["means2d"]
            if hasattr(means2d, "absgrad"):  # asked for while points are edited
                means2d.absgrad = means2d.absgrad * world
            infos.append(model.info)
        checked_step(model, list(trainer.optimizers.optimizers.values()))  # it says, too, how long steps are
        trainer.optimizers.optimizer_step_all()
        trainer.optimizers.scheduler_step_all(step)
        for info in infos[:-1] if step < OPTIONS["stop_split_at"] else []:
            strategy.gather(model.gauss_params, model.strategy_state, step, info)
        strategy.step_post_backward(model.gauss_params, optimizers, model.strategy_state, step, infos[-1])
        trainer.optimizers.zero_grad_all()
    return {k: v.detach() for k, v in model.gauss_params.items()}, events_of(trainer.base_dir)


def events_of(run: Path) -> list[dict]:
    path = run / "edits.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_same_as_one_process_with_the_same_batch(tiny, tmp_path, world):
    spawn(world, tiny, tmp_path / "many", 29610 + world)
    ranks = [torch.load(tmp_path / "many" / f"{rank}.pt") for rank in range(world)]
    for other in ranks[1:]:
        assert all(torch.equal(other[name], value) for name, value in ranks[0].items())  # to the bit
    (tmp_path / "one").mkdir()
    wanted, events = one_process(tiny, tmp_path / "one", world)
    run = tmp_path / "many" / "tiny" / "lpm-splat" / "run"
    edits = events_of(run)
    assert len(edits) == len(events) == 2  # written once, by the first process
    kinds = ("step", "split", "inserted", "pruned", "reset", "points", "views")
    assert [[e[k] for k in kinds] for e in edits] == [[e[k] for k in kinds] for e in events]
    assert sum(e["split"] + e["inserted"] for e in events) > 20
    for name, value in wanted.items():
        apart = (ranks[0][name] - value).abs().flatten()
        # Adam makes whole steps of gradients that are nothing but rounding: a few points may be apart.
        assert apart.median() < 2e-3, name
        assert apart.quantile(0.9) < 2e-2, (name, float(apart.quantile(0.9)))


def test_points_that_move_stay_the_same_on_all(tmp_path):
    """Each process trains on another time; what holds points still is the same for all of them, to the end."""
    from lpm.scenes.samples.moving import make_clip

    clip = make_clip("appearing", tmp_path / "appearing", cams=3, frames=6, size=(64, 48))
    spawn(2, clip, tmp_path / "out", 29622)
    first, second = (torch.load(tmp_path / "out" / f"{rank}.pt") for rank in range(2))
    assert set(first) >= {"motion", "gates"}
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_dead_process_ends_the_run_with_a_saved_state(tiny, tmp_path):
    from lpm.runs import checkpoint

    with pytest.raises(ProcessExitedException):
        spawn(2, tiny, tmp_path / "out", 29620, dies=1)
    run = tmp_path / "out" / "tiny" / "lpm-splat" / "run"
    saved = list((run / "nerfstudio_models").glob("*.ckpt"))
    assert [path.name for path in saved] == [f"step-{DIES - 1:09d}.ckpt"]
    assert checkpoint.load(saved[0])["step"] == DIES - 1


def test_no_memory_for_an_edit_on_one_of_them_ends_the_run_with_a_saved_state(tiny, tmp_path):
    """One process alone goes on with fewer points (tests/reliability); here the others would wait for it for good."""
    from lpm.runs import checkpoint

    with pytest.raises((ProcessRaisedException, ProcessExitedException)):
        spawn(2, tiny, tmp_path / "out", 29621, dies=1, in_edit=True)
    run = tmp_path / "out" / "tiny" / "lpm-splat" / "run"
    [saved] = (run / "nerfstudio_models").glob("*.ckpt")
    state = checkpoint.load(saved)
    assert state["step"] in (19, 20)  # the first event is after step 20
    assert all(bool(torch.isfinite(v).all()) for k, v in state["pipeline"].items() if "gauss_params" in k)


def test_strategies_of_others_are_refused(tiny, tmp_path, monkeypatch):
    from lpm import distributed
    from lpm.checks import LpmError

    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setitem(OPTIONS, "strategy", "mcmc")
    with pytest.raises(LpmError, match="strategy: mcmc on 2 devices; wanted lpm"):
        make(tiny, tmp_path, 0, 2)
