"""Zstandard (RFC 8878) with what the machine has: the package zstandard, or the system's libzstd."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
from collections.abc import Callable
from typing import NoReturn

from lpm.checks import fail

Unpack = Callable[[bytes, int], bytes]
Pack = Callable[[bytes], bytes]
LEVEL = 9
"""Of packing: a million Gaussians with SH 3 take two seconds."""


def unpack(data: bytes, size: int) -> bytes:
    """The `size` bytes that `data` holds; never allocates more.

    Raises:
        LpmError: nothing on this machine unpacks Zstandard.
        ValueError: the data is broken or does not hold `size` bytes.
    """
    found = _unpacker()
    if found is None:
        _missing()
    return found(data, size)


def pack(data: bytes) -> bytes:
    """`data` as one frame that says its size.

    Raises:
        LpmError: nothing on this machine packs Zstandard.
    """
    found = _packer()
    if found is None:
        _missing()
    return found(data)


def _missing() -> NoReturn:
    fail("zstd", "neither the package zstandard nor libzstd", "one of them", "pip install zstandard")


@functools.cache
def _packer() -> Pack | None:
    try:
        import zstandard
    except ImportError:
        library = _library()
        if library is None:
            return None

        def with_library(data: bytes) -> bytes:
            out = ctypes.create_string_buffer(library.ZSTD_compressBound(len(data)))
            written = library.ZSTD_compress(out, len(out), data, len(data), LEVEL)
            if library.ZSTD_isError(written):
                raise ValueError("Zstandard cannot pack it")
            return out.raw[:written]

        return with_library
    compress: Pack = zstandard.ZstdCompressor(level=LEVEL).compress
    return compress


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


def _library() -> ctypes.CDLL | None:
    name = ctypes.util.find_library("zstd")
    if name is None:
        return None
    try:
        library = ctypes.CDLL(name)
        for function in ("ZSTD_decompress", "ZSTD_compress", "ZSTD_compressBound"):
            getattr(library, function).restype = ctypes.c_size_t
        library.ZSTD_decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
        library.ZSTD_compress.argtypes = [*library.ZSTD_decompress.argtypes, ctypes.c_int]
        library.ZSTD_compressBound.argtypes = library.ZSTD_isError.argtypes = [ctypes.c_size_t]
    except (OSError, AttributeError):
        return None
    return library


def _system_library() -> Unpack | None:
    library = _library()
    if library is None:
        return None

    def with_library(data: bytes, size: int) -> bytes:
        out = ctypes.create_string_buffer(max(size, 1))
        written = library.ZSTD_decompress(out, size, data, len(data))
        if written != size:  # errors are huge numbers
            raise ValueError("broken Zstandard data")
        return out.raw[:size]

    return with_library
