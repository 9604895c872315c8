"""Unpacking Zstandard (RFC 8878) with what the machine has: the package zstandard, or the system's libzstd."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Callable

from lpm.checks import fail

Unpack = Callable[[bytes, int], bytes]


def unpack(data: bytes, size: int) -> bytes:
    """The `size` bytes that `data` holds; never allocates more.

    Raises:
        LpmError: nothing on this machine unpacks Zstandard.
        ValueError: the data is broken or does not hold `size` bytes.
    """
    found = _unpacker()
    if found is None:
        fail("zstd", "neither the package zstandard nor libzstd", "one of them", "pip install zstandard")
    return found(data, size)


@functools.cache
def _unpacker() -> Unpack | None:
    try:
        import zstandard
    except ImportError:
        return _system_library()

    def with_package(data: bytes, size: int) -> bytes:
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            try:
                out: bytes = reader.read(size + 1)
            except zstandard.ZstdError as error:
                raise ValueError(str(error)) from error
        if len(out) != size:
            raise ValueError(f"{len(out)} bytes instead of {size}")
        return out

    return with_package


def _system_library() -> Unpack | None:
    name = ctypes.util.find_library("zstd")
    if name is None:
        return None
    try:
        library = ctypes.CDLL(name)
        library.ZSTD_decompress.restype = ctypes.c_size_t
        library.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    except (OSError, AttributeError):
        return None

    def with_library(data: bytes, size: int) -> bytes:
        out = ctypes.create_string_buffer(max(size, 1))
        written = library.ZSTD_decompress(out, size, data, len(data))
        if written != size:  # errors are huge numbers
            raise ValueError("broken Zstandard data")
        return out.raw[:size]

    return with_library
