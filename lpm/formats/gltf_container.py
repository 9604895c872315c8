"""glTF 2.0's container: a JSON that says where numbers lie, and buffers of bytes; a .glb has both in one file.

Source: Khronos, glTF 2.0 specification, sections 3.6 (buffers, views, accessors) and 4 (GLB). No library does this
here: the bytes stay in the file until they are asked for, and every length is compared with what is there before.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from lpm.checks import fail
from lpm.formats.bounds import check_file, check_rows

MAGIC, JSON_CHUNK, BIN_CHUNK = 0x46546C67, 0x4E4F534A, 0x004E4942
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
LARGEST_JSON = 1 << 29  # bytes; a .gltf may hold its buffers in base64
Bytes = NDArray[np.uint8]


class Gltf:
    """A file that was opened: `json`, and what its accessors point to.

    Raises:
        LpmError: no such file, not glTF 2.0, or a chunk longer than the file. So do the methods, for whatever is asked
            for and is not there or not what it has to be.
    """

    def __init__(self, path: Path) -> None:
        size = check_file(path, "a .glb or .gltf file")
        self.path, self._chunk, self._buffers = path, np.zeros(0, np.uint8), dict[int, Bytes]()
        data: Bytes = np.memmap(path, np.uint8, "r")
        if data[:4].tobytes() == struct.pack("<I", MAGIC):
            if size < 20:
                fail(path, f"{size} bytes", "a .glb file, 20 or more")
            version, _, length, kind = struct.unpack("<IIII", data[4:20].tobytes())
            if version != 2 or kind != JSON_CHUNK:
                fail(path, f"glTF container {version}, first chunk {kind:#x}", "version 2, a JSON first")
            check_rows(path, length, 1, size - 20)
            start = 20 + length
            if size >= start + 8:
                length, kind = struct.unpack("<II", data[start : start + 8].tobytes())
                check_rows(path, length, 1, size - start - 8)
                if kind == BIN_CHUNK:
                    self._chunk = data[start + 8 : start + 8 + length]
            data = data[20:start]
        if len(data) > LARGEST_JSON:
            fail(path, f"{len(data):,} bytes of JSON", f"at most {LARGEST_JSON:,}", "export it as .glb")
        try:
            self.json = json.loads(data.tobytes())
        except (ValueError, RecursionError):
            fail(path, "a broken JSON in it", "a .glb or .gltf file", "copy or export it again")
        version = self.json.get("asset", {}) if isinstance(self.json, dict) else None
        if not isinstance(version, dict) or not str(version.get("version", "")).startswith("2."):
            fail(path, "a JSON without asset.version 2.x", "glTF 2.0")

    def wrong(self, got: str, wanted: str, remedy: str = "export the file again") -> NoReturn:
        """Raises LpmError about this file."""
        fail(self.path, got, wanted, remedy)

    def items(self, owner: Any, key: str) -> list[Any]:
        """The list `key` of an object; an empty one where it has none."""
        found = owner.get(key, []) if isinstance(owner, dict) else None
        if not isinstance(found, list):
            self.wrong(f"{key} that is no list", "a list")
        return found

    def object(self, owner: dict[str, Any], key: str) -> dict[str, Any]:
        """The object `key` of another; an empty one where it has none."""
        found = owner.get(key, {})
        if not isinstance(found, dict):
            self.wrong(f"{key} that is no object", "an object")
        return found

    def entry(self, kind: str, index: Any) -> dict[str, Any]:
        """Element `index` of the list `kind` at the top: accessors, nodes, ..."""
        found = self.items(self.json, kind)
        if type(index) is not int or not 0 <= index < len(found) or not isinstance(found[index], dict):
            self.wrong(f"no {kind}[{str(index)[:20]}] that is an object", f"one of the {len(found)} {kind}")
        entry: dict[str, Any] = found[index]
        return entry

    def whole(self, owner: dict[str, Any], key: str, default: int | None = None) -> int:
        """The number `key` of an object, 0 or more."""
        value = owner.get(key, default)
        if type(value) is not int or not 0 <= value < 1 << 48:
            self.wrong(f"{key} {str(value)[:20]!r}", "a whole number, 0 or more")
        return int(value)

    def numbers(self, owner: dict[str, Any], key: str, default: list[float]) -> NDArray[np.float64]:
        """As many finite numbers as `default` has."""
        try:
            values = np.array([float(v) for v in owner.get(key, default)], np.float64)
        except (TypeError, ValueError, OverflowError):
            values = np.zeros(0)
        if len(values) != len(default) or not np.isfinite(values).all():
            self.wrong(f"a {key} that is not {len(default)} finite numbers", "numbers")
        return values

    def view(self, index: Any) -> tuple[Bytes, int]:
        """The bytes of bufferViews[index], and its byteStride (0: none)."""
        view = self.entry("bufferViews", index)
        if any(name.endswith("meshopt_compression") for name in self.object(view, "extensions")):
            self.wrong("numbers in meshopt's compression", "plain ones", "gltfpack or gltf-transform unpacks it")
        data, start = self._buffer(view.get("buffer")), self.whole(view, "byteOffset", 0)
        length = self.whole(view, "byteLength")
        check_rows(self.path, length, 1, len(data) - start)
        return data[start : start + length], self.whole(view, "byteStride", 0)

    def accessor(self, index: Any, width: int) -> NDArray[np.float32]:
        """[N, width] of accessors[index]; whole numbers that stand for -1..1 or 0..1 are undone."""
        accessor = self.entry("accessors", index)
        kind = COMPONENTS.get(self.whole(accessor, "componentType"))
        if kind is None or WIDTHS.get(str(accessor.get("type"))) != width:
            self.wrong(f"accessor {index} of {str(accessor.get('type'))[:20]}", f"{width} numbers each")
        if "sparse" in accessor or "bufferView" not in accessor:
            self.wrong(f"accessor {index} that is sparse or has no data", "plain numbers")
        data, stride = self.view(accessor["bufferView"])
        n, start = self.whole(accessor, "count"), self.whole(accessor, "byteOffset", 0)
        size = np.dtype(kind).itemsize
        stride = stride or size * width
        if stride < size * width:
            self.wrong(f"accessor {index} with {stride} bytes from one to the next", f"{size * width} or more")
        check_rows(self.path, n, stride, len(data) - start + stride - size * width)
        rows: NDArray[Any] = np.ndarray((n, width), kind, data[start:].data, 0, (stride, size))  # copies nothing
        values = rows.astype(np.float32)
        if accessor.get("normalized") is True and kind[1] != "f":
            values = np.maximum(values / np.iinfo(kind).max, -1.0).astype(np.float32)
        return values

    def _buffer(self, index: Any) -> Bytes:
        """The bytes of buffers[index]: in the file itself, in its JSON, or in a file beside it."""
        buffer = self.entry("buffers", index)
        if index not in self._buffers:
            uri = buffer.get("uri")
            self._buffers[index] = self._chunk if uri is None and index == 0 else self._fetched(uri)
        return self._buffers[index]

    def _fetched(self, uri: Any) -> Bytes:
        head, _, text = uri.partition(",") if isinstance(uri, str) else ("", "", "")
        if head.startswith("data:") and head.endswith(";base64"):
            try:
                return np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
            except (binascii.Error, ValueError):
                self.wrong("a buffer in broken base64", "a whole one")
        name = Path(unquote(uri)) if isinstance(uri, str) and "\0" not in unquote(uri) else Path("..")
        # A file from elsewhere may name any path; only what lies with it is its own.
        if not name.name or name.is_absolute() or ".." in name.parts or ":" in str(name):
            self.wrong(f"a buffer at {str(uri)[:60]!r}", "a file beside it")
        beside = self.path.parent / name
        check_file(beside, f"the buffer of {self.path.name}")
        return np.memmap(beside, np.uint8, "r")


def glb_head(document: dict[str, Any], length: int) -> bytes:
    """What stands in a .glb before the `length` bytes of its buffer, which end at a multiple of four."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + length
    return b"".join((
        struct.pack("<III", MAGIC, 2, total), struct.pack("<II", len(text), JSON_CHUNK), text,
        struct.pack("<II", length, BIN_CHUNK),
    ))  # fmt: skip
