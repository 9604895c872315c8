"""Torch with the pretended CUDA device: what makes or moves tensors is patched, for the rest of the process."""

from __future__ import annotations

import contextlib
import threading

import torch
from pretended_device import CUDA, WHOLE, FakeCuda, is_cuda_device, note, where
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten


def wrap_out(out):
    flat, spec = tree_flatten(out)
    return tree_unflatten(
        [FakeCuda(x) if isinstance(x, torch.Tensor) and not isinstance(x, FakeCuda) else x for x in flat], spec
    )


T = torch.Tensor


def to_device(tensor, device, dtype=None, copy=False, non_blocking=False):
    """tensor.to(device[, dtype])."""
    requires = tensor.requires_grad and torch.is_grad_enabled()
    if is_cuda_device(device) and not isinstance(tensor, FakeCuda):
        pinned = getattr(tensor, "_pretend_pinned", False)
        if not (pinned and non_blocking):
            note("H2D to")
        if requires:
            return _H2D.apply(tensor, dtype)
        x = tensor.detach()
        x = x.to(dtype) if dtype is not None else x
        return FakeCuda(x.clone())
    if not is_cuda_device(device) and isinstance(tensor, FakeCuda):
        note("D2H to")
        if requires:
            return _D2H.apply(tensor, dtype)
        x = tensor.inner.detach().clone()
        return x.to(dtype) if dtype is not None else x
    with off():
        return T.to(tensor, dtype) if dtype is not None else (tensor.clone() if copy else tensor)


class _H2D(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dtype):
        ctx.dtype = x.dtype
        return FakeCuda(x.detach().clone().to(dtype or x.dtype))

    @staticmethod
    def backward(ctx, g):
        return g.inner.to(ctx.dtype), None


class _D2H(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dtype):
        ctx.dtype = x.dtype
        return x.inner.detach().clone().to(dtype or x.dtype)

    @staticmethod
    def backward(ctx, g):
        return FakeCuda(g.to(ctx.dtype)), None


@contextlib.contextmanager
def off():
    with torch._C.DisableTorchFunction():
        yield


class Mode(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func is T.to:
            tensor, rest = args[0], list(args[1:])
            device = kwargs.pop("device", None)
            dtype = kwargs.pop("dtype", None)
            other = kwargs.pop("other", None)
            for r in rest:
                if isinstance(r, torch.Tensor):
                    other = r
                elif isinstance(r, torch.dtype):
                    dtype = r
                elif isinstance(r, (torch.device, str)):
                    device = r
            if other is not None:
                device, dtype = other.device, other.dtype
            bools = [r for r in rest if isinstance(r, bool)]
            if device is None:
                device = tensor.device
            return to_device(
                tensor,
                device,
                dtype,
                copy=kwargs.get("copy", False),
                non_blocking=kwargs.get("non_blocking", bools[0] if bools else False),
            )
        if func is T.cuda:
            return to_device(args[0], CUDA)
        if func is T.cpu:
            return to_device(args[0], "cpu")
        if func is T.pin_memory:
            out = args[0].clone()
            out._pretend_pinned = True
            return out
        if func in (T.new_tensor, T.new_zeros, T.new_ones, T.new_empty, T.new_full):
            device = kwargs.pop("device", None)
            here = isinstance(args[0], FakeCuda) if device is None else is_cuda_device(device)
            base = args[0].inner if isinstance(args[0], FakeCuda) else args[0]
            requires = kwargs.pop("requires_grad", False)
            if func is T.new_tensor:
                data = args[1]
                if isinstance(data, torch.Tensor):
                    data = data.inner if isinstance(data, FakeCuda) else data
                elif isinstance(data, (list, tuple)) and any(isinstance(x, FakeCuda) for x in tree_flatten(data)[0]):
                    data = tree_unflatten(
                        [x.item() if isinstance(x, torch.Tensor) else x for x in tree_flatten(data)[0]],
                        tree_flatten(data)[1],
                    )
                if here:
                    note("H2D new_tens")
                out = base.new_tensor(data, **kwargs)
            else:
                rest = [x.item() if isinstance(x, FakeCuda) else x for x in args[1:]]
                out = func(base, *rest, **kwargs)
            out = FakeCuda(out) if here else out
            return out.requires_grad_() if requires else out
        if name in WHOLE and any(isinstance(x, FakeCuda) for x in tree_flatten((args, kwargs))[0]):
            flat, spec = tree_flatten((args, kwargs))
            a, k = tree_unflatten([x.inner if isinstance(x, FakeCuda) else x for x in flat], spec)
            return wrap_out(func(*a, **k))
        device = kwargs.get("device")
        if func is torch.tensor and device is None and args and isinstance(args[0], FakeCuda):
            return args[0].detach().clone()  # a tensor of a tensor stays where that is
        if is_cuda_device(device):
            generator = kwargs.get("generator")
            if generator is not None and generator.device.type != "cuda":
                raise RuntimeError(
                    f"Expected a 'cuda' device type for generator but found '{generator.device.type}' at {where(2)}"
                )
            kwargs.pop("device")
            if func in (torch.tensor, torch.as_tensor, torch.asarray):
                data = args[0] if args else kwargs.get("data")
                if isinstance(data, FakeCuda):
                    return data.to(kwargs["dtype"]) if kwargs.get("dtype") else data
                note("H2D tensor")

                def bare(x):
                    return x.item() if isinstance(x, FakeCuda) else x

                flat, spec = tree_flatten((args, kwargs))
                args, kwargs = tree_unflatten([bare(x) if isinstance(x, FakeCuda) else x for x in flat], spec)
            requires = kwargs.pop("requires_grad", False)
            flat, spec = tree_flatten((args, kwargs))
            if any(isinstance(x, torch.Tensor) for x in flat):
                kwargs.setdefault("device", "cpu")
                out = func(*args, **{k: v for k, v in kwargs.items() if k != "device"})
            else:
                out = func(*args, **kwargs)
            out = wrap_out(out)
            return out.requires_grad_() if requires else out
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu":
            flat, _ = tree_flatten((args, {k: v for k, v in kwargs.items() if k != "generator"}))
            if any(isinstance(x, FakeCuda) for x in flat):
                raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' at {where(2)}")
        return func(*args, **kwargs)


class Generator(torch.Generator):
    """One that says it is the device's, and draws on the host."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        made.pretended = torch.device(device)
        return made

    @property
    def device(self):
        return self.pretended


_mode = None


def install():
    """Patches torch for the rest of the process."""
    global _mode
    torch.cuda.is_available = lambda: True
    torch.cuda.mem_get_info = lambda device=None: (60 * 2**30, 80 * 2**30)
    torch.cuda.device_count = lambda: 1
    torch.cuda.current_device = lambda: 0
    torch.cuda.synchronize = lambda *a: note("synchronize")
    torch.cuda.empty_cache = lambda: None
    torch.cuda.get_device_capability = lambda *a: (9, 0)
    torch.cuda.get_device_name = lambda *a: "pretended"
    torch.cuda.max_memory_allocated = lambda *a: 0
    torch.cuda.reset_peak_memory_stats = lambda *a: None
    torch.cuda.get_rng_state_all = lambda: [torch.zeros(16, dtype=torch.uint8)]
    torch.cuda.set_rng_state_all = lambda states: None
    torch.cuda.manual_seed_all = lambda seed: None
    torch.cuda.manual_seed = lambda seed: None
    torch.Generator = Generator
    torch.cuda.set_device = lambda d: None
    torch.cuda.device = lambda d: contextlib.nullcontext()
    torch.cuda._lazy_init = lambda: None
    _mode = Mode()
    _mode.__enter__()

    def to(self, *args, **kwargs):
        named = [a for a in args if isinstance(a, (str, torch.device))]
        device = kwargs.get("device", named[0] if named else None)
        for module in self.modules():
            for key, p in list(module._parameters.items()):
                if p is not None and is_cuda_device(device) and not isinstance(p, FakeCuda):
                    new = torch.nn.Parameter(FakeCuda(p.detach().clone()), requires_grad=p.requires_grad)
                    module._parameters[key] = new
            for key, b in list(module._buffers.items()):
                if b is not None:
                    module._buffers[key] = b.to(device)
            if isinstance(module, torch.nn.ParameterDict):
                for key, p in list(module.items()):
                    if not isinstance(p, FakeCuda) and is_cuda_device(device):
                        module[key] = torch.nn.Parameter(FakeCuda(p.detach().clone()), requires_grad=p.requires_grad)
        return self

    torch.nn.Module.to = to

    run = threading.Thread.run

    def run_in_mode(self):
        with Mode():
            run(self)

    threading.Thread.run = run_in_mode
