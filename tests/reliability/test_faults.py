"""What goes wrong while a run trains costs at most the step that it happens in, and is said in one line."""

import os
import resource
import socket
import subprocess
import sys
import time

import pytest
import torch
from faces import BOTH, CORE_FIRST
from plugin.test_resume import BUSY, everything

from lpm.checks import LpmError
from lpm.plugin.nerfstudio_patches import writer  # nerfstudio's cannot be imported first
from lpm.runs import checkpoint
from lpm.runs.folder import read_checkpoint
from lpm.train import bad_steps, model, out_of_memory, signals
from lpm.train.model import GaussianModel

STRATEGIES = ("lpm", "adc", "mcmc")


def said(capsys) -> str:
    return " ".join(capsys.readouterr().out.split())


def step(trainer, number):
    """A step as the loop of either face makes it."""
    if hasattr(trainer, "one_step"):
        trainer.one_step(number)
        return
    trainer.pipeline.train()
    for where in ("BEFORE_TRAIN_ITERATION", "AFTER_TRAIN_ITERATION"):
        for callback in trainer.callbacks:
            if where in str(callback.where_to_run):
                callback.func(*callback.args, **callback.kwargs, step=number)
        if where.startswith("BEFORE"):
            trainer.train_iteration(number)


def state(trainer):
    """All but what goes on with the number of the step: the order of views, random numbers, learning rates."""
    kept = ("params", "optimizers", "strategy", "extra")
    values = {k: v for k, v in everything(trainer).items() if k.split(".")[0] in kept and not k.endswith(".lr")}
    return {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in values.items()}


def changed(a, b):
    assert a.keys() == b.keys()
    return [k for k in a if not (torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k])]


# -- losses and gradients that are not finite --------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(make_trainer, monkeypatch, capsys, strategy, what):
    trainer = make_trainer("a", 60, strategy=strategy, **BUSY)
    for number in range(8):
        step(trainer, number)
    before = state(trainer)
    usual = GaussianModel.loss

    def broken(self, *args):
        losses = usual(self, *args)
        if what == "loss":  # of which no parameter's gradient tells
            losses["more"] = losses["main_loss"].detach() * torch.inf
            self.losses.append(losses["more"])
        else:
            self.gauss_params["quats"].register_hook(
                lambda g: torch.where(torch.arange(len(g))[:, None] == 3, torch.nan, g)
            )
        return losses

    monkeypatch.setattr(GaussianModel, "loss", broken)
    step(trainer, 8)
    monkeypatch.undo()
    after = state(trainer)
    assert changed(before, after) == []
    text = said(capsys)
    view = trainer.model.info["view"]
    assert f"Step 8 is left out: the loss or gradient of {trainer._image(view)} is not finite (1 so far)." in text
    trainer.model.gauss_params["quats"]._backward_hooks = None
    step(trainer, 9)
    assert any(name.startswith("params") for name in changed(after, state(trainer)))
    assert (trainer.left_out.total, trainer.left_out.in_a_row) == (1, 0)


@CORE_FIRST
def test_ten_in_a_row_end_the_run_with_a_checkpoint(make_trainer, monkeypatch):
    trainer = make_trainer("a", 60, **BUSY)
    usual = GaussianModel.loss

    def broken(self, *args):
        losses = usual(self, *args)
        return losses if self.step < 7 else {k: v * torch.nan for k, v in losses.items()}

    monkeypatch.setattr(GaussianModel, "loss", broken)
    with pytest.raises(LpmError, match=r"10 steps in a row could not be used.*images/\d+\.png is not finite"):
        trainer.train()
    path, saved = read_checkpoint(trainer.base_dir)
    assert saved["step"] == 16
    assert all(torch.isfinite(v).all() for v in saved["pipeline"].values())
    monkeypatch.undo()
    resumed = make_trainer("b", 60, load=path, **BUSY)
    resumed.train()
    assert all(torch.isfinite(v).all() for v in resumed.model.gauss_params.values())


def test_a_device_is_asked_only_when_the_host_logs():
    """Of flags on a device: none is read between two readings, and all are then."""
    told = []
    left_out = bad_steps.LeftOut(lambda view: f"{view}.png", told.append)

    class Flag(torch.Tensor):
        is_cuda = True

    for number in range(1, 11):
        left_out.note(number, number, torch.tensor(float(number in (3, 4))).as_subclass(Flag))
        assert bool(told) == (number == 10)
    assert [text[:7] for text in told] == ["Step 3 ", "Step 4 "]
    assert (left_out.total, left_out.in_a_row) == (2, 0)


def test_what_a_strategy_finds_of_a_step_left_out_on_a_device():
    means2d = torch.zeros(1, 1, 2)
    means2d.grad = torch.tensor([[[torch.nan, 1.0]]])
    info = {"means2d": means2d, "radii": torch.tensor([[[3, 3]]])}
    bad_steps.leave_out(info, torch.tensor(0.0))
    assert torch.isnan(means2d.grad).any()
    assert info["radii"].tolist() == [[[3, 3]]]
    bad_steps.leave_out(info, torch.tensor(1.0))
    assert means2d.grad.tolist() == [[[0.0, 0.0]]]
    assert info["radii"].tolist() == [[[0, 0]]]


# -- memory ------------------------------------------------------------------------------------------------------------

NO_MEMORY = (
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried ..."),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
)


def test_what_says_that_memory_ran_out():
    assert all(out_of_memory.out_of_memory(error) for error in NO_MEMORY)
    others = (RuntimeError("size mismatch"), ValueError("out of memory"), KeyboardInterrupt())
    assert not any(out_of_memory.out_of_memory(error) for error in others)


@BOTH
def test_no_memory_for_a_step(make_trainer, monkeypatch, capsys):
    trainer = make_trainer("a", 60, **BUSY)
    for number in range(8):
        step(trainer, number)
    before, points = state(trainer), trainer.model.num_points

    def fails(*args, **kwargs):
        raise NO_MEMORY[2]

    monkeypatch.setattr(model, "rasterize", fails)
    step(trainer, 8)
    monkeypatch.undo()
    assert changed(before, state(trainer)) == []
    cap = points * 9 // 10
    assert f"Memory ran out at step 8: max_points is {cap} from here on." in said(capsys)
    for number in range(9, 31):
        step(trainer, number)
    assert trainer.model.num_points <= cap
    trainer.save_checkpoint(30)
    resumed = make_trainer("b", 90, load=trainer.checkpoint_dir / "step-000000030.ckpt", **BUSY)
    assert resumed.model.strategy.max_points == cap


@BOTH
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_memory_in_the_middle_of_an_edit(make_trainer, monkeypatch, capsys, strategy):
    """Three parameters have their new rows, the others do not: all get their old ones back."""
    trainer = make_trainer("a", 60, strategy=strategy, **BUSY)
    for number in range(10):
        step(trainer, number)
    params, left, usual = trainer.model.gauss_params, [3], torch.nn.ParameterDict.__setitem__
    shapes, points = {name: value.shape for name, value in params.items()}, len(params["means"])
    state = trainer.model.strategy_state  # what only events change:
    known = [name for name in ("painted", "looks", "inside", "front", "touched") if state.get(name) is not None]
    before = {name: state[name].clone() for name in known}

    def running_out(self, key, value):
        if left[0] == 0:
            monkeypatch.setattr(torch.nn.ParameterDict, "__setitem__", usual)
            raise NO_MEMORY[1]
        left[0] -= 1
        usual(self, key, value)

    monkeypatch.setattr(torch.nn.ParameterDict, "__setitem__", running_out)
    step(trainer, 10)
    text = f"Memory ran out for the edit of points at step 10: max_points is {points} from here on."
    assert text in said(capsys)
    assert {name: value.shape for name, value in params.items()} == shapes
    assert all(torch.equal(state[name], value) for name, value in before.items())
    for name, optimizer in trainer.model._gaussian_optimizers().items():
        (group,) = optimizer.param_groups
        assert group["params"][0] is params[name]
        assert list(optimizer.state) == [params[name]]
        assert optimizer.state[params[name]]["exp_avg"].shape == shapes[name]
    for number in range(11, 30):
        step(trainer, number)
    assert len(params["means"]) <= points


LIMITED = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
import copy, torch
torch.set_num_threads(1)
from lpm.plugin.config import lpm_splat
config = copy.deepcopy(lpm_splat.config)
config.experiment_name, config.timestamp, config.output_dir = "tiny", "a", Path(sys.argv[1]) / "out"
config.data = config.pipeline.datamanager.data = Path(sys.argv[1]) / "scene"
config.max_num_iterations, config.vis, config.machine.device_type = 120, "tensorboard", "cpu"
model = config.pipeline.model
model.strategy, model.max_points, model.warmup_length, model.refine_every = "mcmc", 50_000_000, 5, 5
model.random_init, model.num_random, model.stop_split_at = True, 200_000, 110
trainer = config.setup()
trainer.setup()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 600_000_000,) * 2)
trainer.train()
print("POINTS", trainer.model.num_points, trainer.left_out.total)
"""


@pytest.mark.slow
def test_memory_that_really_runs_out(tmp_path):
    """A process that may have 600 MB more and would grow beyond any limit: it trains to its end with fewer points."""
    from tiny_scene import make_transforms

    make_transforms(tmp_path / "scene")
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, timeout=800)
    text = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Memory ran out" in text
    print(text[text.index("Memory ran out") :][:200], text[text.rindex("POINTS") :])
    assert int(text.rsplit("POINTS ", 1)[1].split()[0]) > 200_000


# -- disk --------------------------------------------------------------------------------------------------------------


@CORE_FIRST
def test_a_full_disk_for_a_while(make_trainer, monkeypatch, capsys):
    """A limit on the size of files makes every write of a checkpoint fail, as a full disk does, in torch's writer."""
    trainer = make_trainer("a", 40, **BUSY)
    trainer.config.steps_per_save, trainer.config.save_only_latest_checkpoint = 5, True
    usual, (soft, hard) = trainer.save_checkpoint, resource.getrlimit(resource.RLIMIT_FSIZE)
    names = []

    def save(number):
        if 10 <= number <= 20:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            usual(number)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        names.append(sorted(p.name[11:14] for p in trainer.checkpoint_dir.iterdir()))

    monkeypatch.setattr(trainer, "save_checkpoint", save)
    trainer.train()
    assert names[:6] == [["005"], ["005"], ["005"], ["005"], ["005", "025"], ["025", "030"]]
    assert names[-1] == ["035", "039"]
    text = said(capsys).replace(" ", "")
    assert "step-000000010.ckpt:thecheckpointcouldnotbewritten(Filetoolarge);whatwastherestays,andthe" in text
    assert not list(trainer.base_dir.glob(".*unfinished"))


@BOTH
def test_no_room_for_the_last_checkpoint_is_an_error(make_trainer, monkeypatch):
    trainer = make_trainer("a", 12, **BUSY)
    trainer.config.steps_per_save = 5
    usual = checkpoint.atomic_save

    def full(values, path, scratch):
        if "011" in path.name:
            raise OSError(28, "No space left on device")
        usual(values, path, scratch)

    monkeypatch.setattr(checkpoint, "atomic_save", full)
    with pytest.raises(
        LpmError, match=r"011\.ckpt: the checkpoint could not be written \(No space left on device\); wanted"
    ):
        trainer.train()
    assert read_checkpoint(trainer.base_dir)[1]["step"] == 10


def test_events_and_tensorboard_without_room(make_trainer, monkeypatch, capsys):
    trainer = make_trainer("a", 30, **BUSY)
    full = OSError(28, "No space left on device")

    def fails(*_args, **_more):
        raise full

    monkeypatch.setattr("lpm.records.append", fails)
    for each in writer.EVENT_WRITERS:
        if isinstance(each, writer.TensorboardWriter):
            monkeypatch.setattr(each, "write_scalar", fails)
    trainer.train()
    text = said(capsys)
    assert text.count("lpm: events are not recorded") == 1
    assert text.count("Tensorboard's files are not written from here on: No space left on device.") == 1
    assert (trainer.checkpoint_dir / "step-000000029.ckpt").exists()


@BOTH
@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * len(data)]
)
def test_a_damaged_checkpoint(make_trainer, capfd, damage):
    trainer = make_trainer("a", 12, **BUSY)
    trainer.config.steps_per_save, trainer.config.save_only_latest_checkpoint = 5, True
    trainer.train()
    newest, older = (trainer.checkpoint_dir / f"step-0000000{n}.ckpt" for n in (11, 10))
    newest.write_bytes(damage(newest.read_bytes()))
    path, saved = read_checkpoint(trainer.base_dir)
    assert (path, saved["step"]) == (older, 10)
    text = capfd.readouterr().err
    assert text.count("\n") == 1
    assert text.startswith(f"{newest}: cannot be read")
    assert text.endswith(f"taken is the one before it, {older.name}\n")
    with pytest.raises(LpmError, match="cannot be read"):  # asked for by name: nothing else will do
        read_checkpoint(newest)
    older.write_bytes(b"")
    with pytest.raises(LpmError, match=r"011\.ckpt: cannot be read"):
        read_checkpoint(trainer.base_dir)


@BOTH
def test_a_folder_that_cannot_be_written(make_trainer, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(LpmError, match=r"out/tiny/lpm-splat/a: cannot be written \(Not a directory\); wanted a folder"):
        make_trainer("a", 5)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@BOTH
def test_a_full_disk_before_the_start(make_trainer, tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(LpmError, match="cannot be written"):
        make_trainer("a", 5)
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import sys
from pathlib import Path
from lpm.runs.claim import claim
claim(Path(sys.argv[1]))
print(1, flush=True)
input()
"""


def test_two_runs_in_one_folder(make_trainer, tmp_path):
    first = make_trainer("a", 5)
    first.train()
    folder, config = first.base_dir, (first.base_dir / "config.yml").read_bytes()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "1\n"
        with pytest.raises(LpmError, match=r"a: another run is writing there; wanted a folder for each run; wait"):
            make_trainer("a", 9, load=folder / "nerfstudio_models" / "step-000000004.ckpt")
        assert (folder / "config.yml").read_bytes() == config
        assert (folder / "nerfstudio_models" / "step-000000004.ckpt").exists()
    finally:
        other.kill()
        other.wait()
    make_trainer("a", 9, load=folder / "nerfstudio_models" / "step-000000004.ckpt").train()  # who was killed left none


# -- clocks, ports -----------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps(make_trainer, monkeypatch, capsys):
    """Hours forward and back at every look; a page is open, so that nerfstudio's viewer looks at the clock, too."""
    jumps = iter(range(10**9))

    def jumping():
        n = next(jumps)
        return 1.7e9 + (n % 7 - 3) * 3600.0 + n

    trainer = make_trainer("a", 25, vis="viewer+tensorboard", **BUSY)
    trainer.config.steps_per_save, trainer.config.viewer.quit_on_train_completion = 10, True
    viewer = trainer.viewer_state
    viewer.render_statemachines = {0: None}
    viewer.last_move_time = sys.modules["nerfstudio.viewer.viewer"].time.time()
    monkeypatch.setattr(time, "time", jumping)
    start = time.monotonic()
    trainer.train()
    assert time.monotonic() - start < 60
    assert [p.name[5:14] for p in sorted(trainer.checkpoint_dir.iterdir())] == ["000000010", "000000020", "000000024"]
    averages = [e["avg"] for e in writer.GLOBAL_BUFFER["events"].values() if isinstance(e, dict)]
    assert averages
    assert min(averages) > 0
    assert viewer.step == 24
    trainer.shutdown()


def test_a_taken_port(make_trainer, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        trainer = make_trainer("a", 5, vis="viewer", port=port)
        found = trainer.viewer_state.viser_server.get_port()
        assert port < found < port + 100
        text = said(capsys)
        assert f"Port {port} is taken: the viewer is at {found}." in text
        assert f"http://127.0.0.1:{found}" in " ".join(trainer.viewer_state.viewer_info)
        assert trainer.config.viewer.websocket_port == port
        trainer.shutdown()


def test_the_command_to_go_on():
    from pathlib import Path

    run = Path("out/my run")
    given = [
        "/bin/ns-train",
        "lpm-splat",
        "--data",
        "a",
        "--load-dir",
        "x",
        "--load_step=5",
        "lpm-data",
        "--eval-interval",
        "4",
    ]
    wanted = "ns-train lpm-splat --load-dir 'out/my run' --data a lpm-data --eval-interval 4"
    assert signals.resume_command(run, given) == wanted
    assert signals.resume_command(run, ["pytest"]) == "ns-train lpm-splat --load-dir 'out/my run' ..."


def test_a_second_signal_ends_at_once():
    code = """
import os, signal, time
from lpm.train.signals import Signals
with Signals() as signals:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.05)
    print(signals.number, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(9)
print("not reached")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-15, "15\n")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_value_is_looked_at_for_nan_and_infinity(dtype, monkeypatch):
    """By the kernel and by torch alike: in the first, the last, and a middle value of a tensor of several blocks."""
    for kernels in ("auto", "off"):
        monkeypatch.setenv("LPM_NATIVE", kernels)
        largest = torch.finfo(dtype).max
        tensors = [
            torch.full((70_001,), largest, dtype=dtype),
            torch.zeros((), dtype=dtype),
            torch.ones(5, 3).to(dtype),
        ]
        assert bad_steps.not_finite(tensors).item() == 0
        for value in (torch.nan, torch.inf, -torch.inf):
            for place in (0, 40_000, 70_000):
                spoilt = tensors[0].clone()
                spoilt[place] = value
                assert bad_steps.not_finite([tensors[1], spoilt, tensors[2]]).item() == 1
