"""The file of a checkpoint: a safetensors file with a manifest, read with every byte checked.

    8 bytes          length of the header, little-endian
    header           JSON: `__metadata__`, and dtype, shape and place of every array
    arrays           one after the other, nothing between them

`__metadata__` holds two texts: `fluxax`, the manifest, and `sha256`, that of the manifest. The
manifest holds the SHA-256 of every array.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fluxax._checkpoint import _sense
from fluxax._checkpoint._arrays import Stored, byte_count, layout

#: Version of what the manifest says; raised when an older fluxax could misread it.
VERSION = 1
MOST_HEADER = 100_000_000  # bytes; what the safetensors package accepts too


class Damaged(ValueError):
    """A file is not the checkpoint that was written."""


def pack(manifest: dict[str, Any], arrays: dict[str, Stored]) -> Iterator[Any]:
    """The bytes of a file, piece by piece.

    Args:
        manifest: what to keep beside the arrays; `version` and `arrays` are added.
        arrays: by name.
    """
    order = sorted(arrays, key=lambda name: -_width(arrays[name].info))  # keeps all aligned
    infos = {name: {**arrays[name].info, "sha256": _hash(arrays[name].data)} for name in order}
    text = json.dumps({"version": VERSION, **manifest, "arrays": infos}, allow_nan=False)
    hashed = _hash(text.encode())
    header = {"__metadata__": {"fluxax": text, "sha256": hashed}, **table(infos)}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    yield len(encoded).to_bytes(8, "little")
    yield encoded
    for name in order:
        yield arrays[name].data


def table(infos: dict[str, Any]) -> dict[str, Any]:
    """The safetensors table of arrays that lie one after the other."""
    entries, at = {}, 0
    for name, info in infos.items():
        dtype, shape = layout(info["dtype"], info["shape"])
        end = at + byte_count(info)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    return entries


def read(file: BinaryIO, path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The manifest of an open file and its arrays as bytes, all checked.

    Raises:
        Damaged: if a byte is not what was written, or the file is no checkpoint.
    """
    manifest = read_manifest(file, path)
    arrays = {}
    for name, info in manifest["arrays"].items():
        data = np.empty(byte_count(info), np.uint8)
        if _read_into(file, data) != len(data):
            raise _damaged(path, "it ends too early")
        if _hash(data) != info["sha256"]:
            raise _damaged(path, f"the checksum of {name} is wrong")
        arrays[name] = data
    if file.read(1):
        raise _damaged(path, "there is more in it than was written")
    return manifest, arrays


def read_manifest(file: BinaryIO, path: Path) -> dict[str, Any]:
    """The manifest at the beginning of a file, checked against its checksum and the table."""
    length = int.from_bytes(file.read(8), "little")
    encoded = file.read(length) if length <= MOST_HEADER else b""
    if not length or len(encoded) != length:
        raise _damaged(path, "its beginning is wrong, or it ends too early")
    try:
        header = json.loads(encoded)
        metadata = header.pop("__metadata__", {})
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise _damaged(path, "its header is wrong") from None
    if not isinstance(metadata, dict) or "fluxax" not in metadata:
        raise Damaged(
            f"load expects a checkpoint of fluxax, got {str(path)!r}, a safetensors file without "
            "a manifest."
        )
    text = metadata["fluxax"]
    if not isinstance(text, str) or _hash(text.encode()) != metadata.get("sha256"):
        raise _damaged(path, "the checksum of its manifest is wrong")
    manifest = _sensible(text, path)
    size, room = sum(map(byte_count, manifest["arrays"].values())), _room(file)
    if size > room:  # before so much memory is asked for
        raise _damaged(path, f"it ends too early: {room} bytes of arrays, which should have {size}")
    if header != table(manifest["arrays"]):
        raise _damaged(path, "its table of arrays does not fit its manifest")
    return manifest


def _room(file: BinaryIO) -> float:
    """How many bytes stand behind the place where a file is, as far as that can be known."""
    if not file.seekable():
        return math.inf
    at = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(at)
    return end - at


def _sensible(text: str, path: Path) -> dict[str, Any]:
    """The manifest that a text holds, all of it looked at."""
    try:
        manifest = json.loads(text)
        _check_version(manifest, path)
        _sense.check(manifest)
    except _sense.Nonsense as error:
        raise Damaged(
            f"load {error} of the manifest of {str(path)!r}. "
            "The file is damaged, or fluxax did not write it; use an older one."
        ) from None
    except RecursionError:
        raise _damaged(path, "its manifest is nested too deeply") from None
    except _NotOurs:
        raise
    except ValueError:
        raise _damaged(path, "its manifest is no JSON") from None
    return manifest


def _read_into(file: Any, data: Any) -> int:
    return file.readinto(memoryview(data)) if len(data) else 0


class _NotOurs(ValueError):
    """A format that this version does not know."""


def _check_version(manifest: Any, path: Path) -> None:
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if type(version) is not int or version < 0:
        raise _sense.Nonsense("a whole number", version, "version")
    if version != VERSION:
        written = manifest.get("written")
        writer = written.get("fluxax") if isinstance(written, dict) else None
        raise _NotOurs(
            f"load expects a checkpoint of format {VERSION}, got format {version} in "
            f"{str(path)!r}, written by fluxax {writer}. Load it with that version or a newer one."
        )


def _damaged(path: Path, why: str) -> Damaged:
    return Damaged(
        f"load expects a whole checkpoint, got {str(path)!r}: {why}. "
        "The file is damaged or no checkpoint; use an older one."
    )


def _hash(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def _width(info: dict[str, Any]) -> int:
    return np.dtype(info["dtype"]).itemsize
