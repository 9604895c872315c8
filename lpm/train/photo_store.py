"""Photos in bounded memory: what fits is kept, the others are decoded anew, ahead of when they are needed.

Every photo is asked for once in an epoch, in an order that is known a little ahead. A cache of the most recent ones
would never hold the next one; so the first that come are kept for good, and the others pass through a few places.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import torch
from torch import Tensor

from lpm.checks import fail
from lpm.files import Progress, quiet
from lpm.multiview.views import LazyImages, Views
from lpm.train.load_photos import Photo, PhotoReader, read_all, usable

SHARE = 0.5
"""Of the free memory, what photos may take unless a budget is given."""
AHEAD = 8
"""Photos that are decoded before their step."""
PASSING = 48
"""Photos in memory for a while beside those kept for good; an event compares a photo with its neighbours."""
PASSING_SHARE = 0.25
"""Of the budget, at most, for those."""
FEW_DEPTHS = 64
"""Photos that tell whether the scene's depths are plausible, where not all are in memory."""
WORKERS = max(2, min(8, (os.cpu_count() or 2) - 1))


@dataclass(frozen=True)
class Budget:
    """Bytes that decoded photos may take; the device's are those of a GPU."""

    host: int
    device: int

    @classmethod
    def of(
        cls, device: torch.device | str, cache_gb: float | None = None, device_cache_gb: float | None = None
    ) -> Budget:
        """Of GiB as the options have them; None: half of what is free. Raises LpmError for a negative one."""
        for name, value in (("cache_gb", cache_gb), ("device_cache_gb", device_cache_gb)):
            if value is not None and not 0 <= value < 1e6:
                fail(name, str(value), "GiB, 0 or more", "leave it out for half of the free memory")
        host = int(SHARE * free_bytes()) if cache_gb is None else int(cache_gb * 2**30)
        if torch.device(device).type != "cuda":
            return cls(host, 0)
        if device_cache_gb is not None:
            return cls(host, int(device_cache_gb * 2**30))
        return cls(host, int(SHARE * torch.cuda.mem_get_info(device)[0]))


def free_bytes() -> int:
    """Memory that can be had without swapping, in this process's control group; Linux tells, else a guess."""
    try:
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    group = Path("/sys/fs/cgroup")
    try:
        left = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        return min(free, max(left, 0))
    except (OSError, ValueError):  # no limit
        return free


def size_of(photo: Photo) -> int:
    """Bytes of a decoded photo."""
    return sum(value.numel() * value.element_size() for value in photo.values())


class PhotoStore(Sequence[Photo]):
    """See the module. Photos are shared: who changes one copies its dict first."""

    def __init__(self, count: int, read: Callable[[int], Photo], budget: int, workers: int = WORKERS) -> None:
        """`read` gives photo i, in any thread; `budget` is in bytes, and at least the photos of a step are held."""
        self._count, self._read, self._budget = count, read, budget
        self._kept: dict[int, Photo] = {}
        self._passing: OrderedDict[int, Photo] = OrderedDict()
        self._coming: dict[int, Future[Photo]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="photos")
        self.kept_bytes = 0
        self.passing_bytes = 0
        self.waited = 0.0
        """Seconds that somebody waited for a photo."""
        self.decoded = 0
        """How many times a photo was read."""

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, i: int) -> Photo: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Photo]: ...
    def __getitem__(self, i: int | slice) -> Photo | Sequence[Photo]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(self._count))]
        if not -self._count <= i < self._count:
            raise IndexError(i)
        return self._one(i % self._count)

    def _one(self, i: int) -> Photo:
        with self._lock:
            found = self._there(i)
            coming = None if found is not None else self._start(i)
        if coming is None:
            assert found is not None
            return found
        began = time.perf_counter()
        photo = coming.result()
        self.waited += time.perf_counter() - began
        return photo

    def __iter__(self) -> Iterator[Photo]:
        for i in range(self._count):
            self.ahead(range(i + 1, min(i + 1 + AHEAD, self._count)))
            yield self[i]

    def ahead(self, indices: Iterable[int]) -> None:
        """Begins to read those of the photos `indices` that are not here."""
        with self._lock:
            for i in indices:
                if self._there(i) is None:
                    self._start(i)

    def places(self, sizes: Tensor) -> int:
        """How many photos of `sizes` [V, 2] pass through at a time without one pushing out another."""
        largest = 4 * int(sizes.prod(1).max())  # bytes, with a mask
        return min(PASSING, max(2 * AHEAD, int(PASSING_SHARE * self._budget) // largest))

    def has_room(self) -> bool:
        """Whether the next photo that comes is kept for good."""
        return self.kept_bytes < (1 - PASSING_SHARE) * self._budget

    def _there(self, i: int) -> Photo | None:
        found = self._kept.get(i)
        if found is None and i in self._passing:
            self._passing.move_to_end(i)
            found = self._passing[i]
        return found

    def _start(self, i: int) -> Future[Photo]:
        if i not in self._coming:
            self._coming[i] = self._pool.submit(self._bring, i)
        return self._coming[i]

    def _bring(self, i: int) -> Photo:
        try:
            photo = self._read(i)
            with self._lock:
                self._store(i, photo)
            return photo
        finally:
            with self._lock:
                del self._coming[i]

    def _forget(self, i: int) -> None:
        kept = self._kept.pop(i, None)
        self.kept_bytes -= 0 if kept is None else size_of(kept)
        passing = self._passing.pop(i, None)
        self.passing_bytes -= 0 if passing is None else size_of(passing)

    def _store(self, i: int, photo: Photo) -> None:
        self.decoded += 1
        if self.has_room():
            self._kept[i] = photo
            self.kept_bytes += size_of(photo)
            return
        self._passing[i] = photo
        self.passing_bytes += size_of(photo)
        most = max(PASSING_SHARE * self._budget, 2 * AHEAD * size_of(photo))
        while len(self._passing) > PASSING or self.passing_bytes > most:
            self._forget(next(iter(self._passing)))


class DeviceStore(PhotoStore):
    """Photos of a store as copies on a GPU: what fits there stays there, and needs no second place on the host."""

    def __init__(
        self, count: int, read: Callable[[int], Photo], budget: int, device: torch.device, device_budget: int
    ) -> None:
        """Both budgets are in bytes; the device's does not count the photo of a step."""
        super().__init__(count, read, budget)
        self._device, self._device_budget = device, device_budget
        self._on_device: dict[int, Photo] = {}
        self.device_bytes = 0

    def _one(self, i: int) -> Photo:
        if i in self._on_device:
            return self._on_device[i]
        photo = super()._one(i)
        # From pinned memory the host does not wait; by this thread, since copies belong to its stream.
        sent = {name: value.pin_memory().to(self._device, non_blocking=True) for name, value in photo.items()}
        with self._lock:
            if self.device_bytes + size_of(photo) <= self._device_budget and i not in self._on_device:
                self._on_device[i] = sent
                self.device_bytes += size_of(photo)
                self._forget(i)
        return sent

    def ahead(self, indices: Iterable[int]) -> None:
        """Begins to read those of the photos `indices` that are neither here nor on the device."""
        super().ahead(i for i in indices if i not in self._on_device)


def load(
    reader: PhotoReader, device: torch.device, budget: Budget, share: float = 1.0, progress: Progress = quiet
) -> list[Photo] | PhotoStore:
    """The photos of `reader` on `device`: all of them, where `share` of the budget is enough; else a store of them."""
    host, there = int(share * budget.host), int(share * budget.device)
    if reader.bytes <= (host if device.type == "cpu" else there):
        photos = read_all(reader, progress)
        for photo in photos:
            photo.update({name: value.to(device) for name, value in photo.items()})
        return photos
    if device.type == "cpu":
        return PhotoStore(len(reader.split), reader, host)
    return DeviceStore(len(reader.split), reader, host, device, there)


def told(photos: list[Photo] | PhotoStore, reader: PhotoReader) -> str | None:
    """A line for whoever waits: that not all photos are kept; None where they are."""
    if isinstance(photos, list):
        return None
    size = reader.bytes / 2**30
    return (
        f"{len(photos):,} photos take {size:.1f} GiB, which is more than they may: they are decoded as they are needed."
    )


def sample(photos: Sequence[Photo]) -> dict[int, Photo]:
    """All of a list, by number; of a store a few, evenly spread."""
    step = 1 if isinstance(photos, list) else -(-len(photos) // FEW_DEPTHS)
    return {i: photos[i] for i in range(0, len(photos), step)}


class PhotoColumn(LazyImages):
    """One thing of each photo, such as its image, read when it is asked for."""

    def __init__(self, photos: Sequence[Photo], sizes: Tensor, of: Callable[[Photo], Tensor]) -> None:
        """`sizes` [V, 2] width, height of the images."""
        super().__init__(sizes)
        self._photos, self._of = photos, of

    def read(self, i: int) -> Tensor:
        """That of photo `i`."""
        return self._of(self._photos[i])

    def ahead(self, indices: Sequence[int]) -> None:
        """Begins to read as many of the photos `indices` as a store has places for beside those of the next steps."""
        if isinstance(self._photos, PhotoStore):
            self._photos.ahead(indices[: self._photos.places(self.sizes) - AHEAD])


def views_of(
    photos: Sequence[Photo], Ks: Tensor, viewmats: Tensor, capture_times: Tensor | None, reader: PhotoReader | None
) -> Views:
    """Photos with their cameras, on the device of `viewmats` [V, 4, 4], as a strategy works on them.

    `reader`: what a store of photos reads with; of a list it is not asked.
    """

    def mask(photo: Photo) -> Tensor:
        known = usable(photo)
        return torch.ones(photo["image"].shape[:2], dtype=torch.bool) if known is None else known

    if isinstance(photos, PhotoStore):
        assert reader is not None
        sizes = reader.cameras.sizes
        masks = PhotoColumn(photos, sizes, mask) if reader.masked else None
        return Views(PhotoColumn(photos, sizes, lambda p: p["image"]), Ks, viewmats, masks, capture_times)
    some = any(usable(photo) is not None for photo in photos)
    all_masks = [mask(photo) for photo in photos] if some else None
    return Views([photo["image"] for photo in photos], Ks, viewmats, all_masks, capture_times)
