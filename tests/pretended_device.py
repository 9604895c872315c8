"""A pretended CUDA device on a machine without one: real values on the CPU, CUDA's rules about devices.

A FakeCuda tensor says that it is on cuda:0. An operator that mixes it with tensors of the CPU raises, as on CUDA, and
what makes the host wait for the device (values copied to the host, pageable copies to it, item(), nonzero, masks as
indices) is counted by the line that asks for it. `pretended_torch.install()` makes torch hand out such tensors.

What it cannot show: speed, rounding, races, memory. What it can: that every line of the CUDA path runs, and waits.
"""

from __future__ import annotations

import traceback
from collections import Counter

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

CUDA = torch.device("cuda", 0)
waits: Counter[str] = Counter()
"""What the host waited for: kind and calling lines -> how often."""
launches: Counter[str] = Counter()
"""Operators that were issued."""
SKIP = ("/torch/", "/tests/pretended_", "_pytest", "pluggy", "importlib", "runpy.py", "<string>")


def where(depth: int = 1) -> str:
    """The innermost lines, `depth` of them, that are neither torch's nor ours here."""
    lines = [f for f in traceback.extract_stack()[:-1] if not any(s in f.filename for s in SKIP)]

    def short(f):
        name = f.filename
        for cut in ("site-packages/", "/lpm/"):
            if cut in name:
                name = name.rsplit(cut, 1)[1]
        return f"{name}:{f.lineno} {f.line}"

    return " <- ".join(short(f) for f in reversed(lines[-depth:])) if lines else "?"


def note(kind: str) -> None:
    """Counts one wait of `kind`."""
    waits[f"{kind} {where(2)}"] += 1


def is_cuda_device(d) -> bool:
    if d is None:
        return False
    if isinstance(d, torch.device):
        return d.type == "cuda"
    if isinstance(d, str):
        return d.startswith("cuda")
    return isinstance(d, int) and not isinstance(d, bool)


NO_NUMPY = "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy it first."


class FakeCuda(torch.Tensor):
    """Says it is on cuda:0; `inner` holds the values."""

    @staticmethod
    def __new__(cls, inner):
        assert type(inner) is torch.Tensor or isinstance(inner, torch.nn.Parameter), type(inner)
        r = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device="cpu",
            requires_grad=False,
        )
        r.inner = inner.detach() if inner.requires_grad else inner
        return r

    @property
    def device(self):
        return CUDA

    @property
    def is_cuda(self):
        return True

    @property
    def is_cpu(self):
        return False

    @property
    def data(self):
        with torch.no_grad():
            return self.detach()

    @data.setter
    def data(self, value):
        assert isinstance(value, FakeCuda), "data of another device"
        self.inner = value.inner
        torch.Tensor.data.__set__(self, value)

    def get_device(self):
        return 0

    def data_ptr(self):
        return self.inner.data_ptr()

    def untyped_storage(self):
        return self.inner.untyped_storage()

    def numpy(self, *a, **k):
        raise TypeError(NO_NUMPY)

    def __array__(self, *a, **k):
        raise TypeError(NO_NUMPY)

    def tolist(self):
        note("D2H tolist")
        return self.inner.tolist()

    def __repr__(self):
        return f"FakeCuda({self.inner!r})"

    def __reduce_ex__(self, protocol):
        note("D2H pickle")
        return self.inner.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo):
        new = FakeCuda(self.inner.detach().clone())
        new.requires_grad_(self.requires_grad)
        memo[id(self)] = new
        return new

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return dispatch(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


WAITS = {
    "_local_scalar_dense": "item",
    "nonzero": "nonzero",
    "masked_select": "masked_select",
    "equal": "equal",
    "is_nonzero": "is_nonzero",
    "_unique2": "unique",
    "unique_dim": "unique",
    "unique_consecutive": "unique",
    "_linalg_check_errors": "linalg check",
    "bincount": "bincount",
    "repeat_interleave": "repeat_intl",
}
MAY_MIX = (
    "copy_",
    "_to_copy",
    "index",
    "index_put",
    "index_put_",
    "_index_put_impl_",
    "_unsafe_index",
    "set_",
    "fill_",
    "fill",
    "masked_fill",
    "masked_fill_",
    "index_fill",
    "index_fill_",
    "where",
)


def dispatch(func, args, kwargs):
    """One operator on tensors of which some are pretended: checked, counted, and done on their values."""
    name = func.overloadpacket.__name__
    flat, spec = tree_flatten((args, kwargs))
    fakes = [x for x in flat if isinstance(x, FakeCuda)]
    plains = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, FakeCuda)]
    launches[name] += 1
    # devices
    if name == "_to_copy" or name == "to":
        target = kwargs.get("device")
        if target is not None and not is_cuda_device(target) and fakes:
            note("D2H copy")
            k = {key: value for key, value in kwargs.items() if key not in ("device", "non_blocking")}
            return func(fakes[0].inner, **k).clone() if name == "_to_copy" else fakes[0].inner.clone()
        kwargs = {k: v for k, v in kwargs.items() if k != "device"}
        flat, spec = tree_flatten((args, kwargs))
    elif is_cuda_device(kwargs.get("device")):
        kwargs = {k: v for k, v in kwargs.items() if k != "device"}
        flat, spec = tree_flatten((args, kwargs))
    if plains and fakes:
        pointwise = torch.Tag.pointwise in func.tags
        bad = [p for p in plains if p.dim() > 0]
        if name == "copy_":
            kind = "H2D copy_" if isinstance(args[0], FakeCuda) else "D2H copy_"
            src = args[1]
            if not (kind == "H2D copy_" and getattr(src, "_pretend_pinned", False)):
                note(kind)
        elif name in ("index", "_unsafe_index") or name.startswith(("index_put", "_index_put")):
            if not isinstance(args[0], FakeCuda):
                fail(func, args, "a CPU tensor is indexed by a CUDA tensor")
            values = args[2] if len(args) > 2 else None
            if isinstance(values, torch.Tensor) and not isinstance(values, FakeCuda) and values.dim() > 0:
                fail(func, args, "CPU values into a CUDA tensor")
            if any(isinstance(i, torch.Tensor) and not isinstance(i, FakeCuda) for i in args[1]):
                note("H2D index")
        elif name in MAY_MIX and not bad:
            pass
        elif bad or not pointwise:
            fail(func, args, "CPU and CUDA tensors in one operator")
    if name in WAITS and fakes:
        if name == "repeat_interleave" and kwargs.get("output_size") is not None:
            pass
        else:
            note(WAITS[name])
    if name in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"):
        idx = args[1]
        if any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in idx):
            note("mask index")
    inner = [x.inner if isinstance(x, FakeCuda) else x for x in flat]
    a, k = tree_unflatten(inner, spec)
    out = func(*a, **k)
    back = {id(x.inner): x for x in fakes}
    any_cuda = bool(fakes) and not (name == "copy_" and not isinstance(args[0], FakeCuda))

    def wrap(x):
        if isinstance(x, torch.Tensor) and not isinstance(x, FakeCuda):
            if id(x) in back:
                return back[id(x)]
            return FakeCuda(x) if any_cuda else x
        return x

    oflat, ospec = tree_flatten(out)
    return tree_unflatten([wrap(x) for x in oflat], ospec)


# Composite operators that make helper tensors on the C++ device, which under the pretence is the CPU.
WHOLE = {"quantile", "nanquantile", "cartesian_prod", "cond"}


class DeviceMix(RuntimeError):
    """What CUDA says of tensors on two devices."""


def fail(func, args, why):
    raise DeviceMix(f"{why}: {func} at {where(3)}")
