"""Arrays as bytes and back: every dtype that JAX and NumPy have, and random keys."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from fluxax import _tree
from fluxax._errors import short
from fluxax._jax import beside, is_key, is_tracer, weak

#: What safetensors calls a dtype. Others are stored as the numbers or bytes they consist of.
CODES = {
    "bool": "BOOL",
    **{f"int{n}": f"I{n}" for n in (8, 16, 32, 64)},
    **{f"uint{n}": f"U{n}" for n in (8, 16, 32, 64)},
    **{f"float{n}": f"F{n}" for n in (16, 32, 64)},
    "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
PAIRS = {"complex64": "F32", "complex128": "F64"}


class Stored(NamedTuple):
    """One array on its way into a file."""

    info: dict[str, Any]
    data: np.ndarray  # its bytes


def layout(dtype: str, shape: list[int]) -> tuple[str, list[int]]:
    """The safetensors dtype and shape in which an array is stored.

    >>> layout("float32", [2, 3]), layout("complex64", [2]), layout("int4", [5])
    (('F32', [2, 3]), ('F32', [2, 2]), ('U8', [5]))
    """
    if dtype in CODES:
        return CODES[dtype], shape
    if dtype in PAIRS:
        return PAIRS[dtype], [*shape, 2]
    width = np.dtype(dtype).itemsize
    return "U8", shape if width == 1 else [*shape, width]


def byte_count(info: dict[str, Any]) -> int:
    """How many bytes an array takes."""
    return math.prod(info["shape"]) * np.dtype(info["dtype"]).itemsize


def stored(array: Any, where: str) -> Stored:
    """An array as bytes, with what else must be known of it.

    Raises:
        TypeError: for arrays of Python objects and traced ones.
        ValueError: for an array whose memory is gone.
    """
    if is_tracer(array):
        raise TypeError(
            f"save expects concrete arrays, got a traced one at {where}. "
            "Call it outside of jax.jit and of objectives."
        )
    info: dict[str, Any] = {"of": "jax" if isinstance(array, jax.Array) else "numpy"}
    if info["of"] == "jax":
        if array.is_deleted():
            raise ValueError(
                f"save expects arrays, got one at {where} whose memory a JAX program has taken "
                "over (donated). Keep the array that the program returned instead."
            )
        if is_key(array):
            info["key"] = str(jax.random.key_impl(array))
            array = jax.random.key_data(array)
        elif array.weak_type:
            info["weak"] = True
    host = np.asarray(array)
    if host.dtype.hasobject or host.dtype.names:
        raise TypeError(
            f"save expects arrays of numbers or text, got one of dtype {host.dtype} at {where}."
        )
    named = host.dtype.isnative and host.dtype.kind not in "mMSU" and host.dtype.type is not np.void
    info["dtype"] = host.dtype.name if named else host.dtype.str
    info["shape"] = list(host.shape)
    flat = np.ascontiguousarray(host).reshape(-1)
    return Stored(info, flat.view(np.uint8) if host.dtype.itemsize else np.empty(0, np.uint8))


def host_array(data: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """The NumPy array of the bytes that were read."""
    dtype = np.dtype(info["dtype"])
    if not dtype.itemsize:
        return np.empty(info["shape"], dtype)
    return data.view(dtype).reshape(info["shape"])


def placed(host: np.ndarray, info: dict[str, Any], like: Any = None) -> Any:
    """The array that was saved: JAX's or NumPy's; a JAX array lies where `like` does."""
    if info["of"] == "numpy":
        return host.copy()
    if "key" in info:
        return jax.random.wrap_key_data(beside(host, None), impl=info["key"])
    array = beside(host, like)
    return weak(array) if info.get("weak") else array


def fits_jax(info: dict[str, Any]) -> bool:
    """Whether JAX can hold the dtype as it is set up: 64 bits need the x64 mode."""
    if info["of"] == "numpy" or info["dtype"] not in CODES | PAIRS:
        return True
    return jax.dtypes.canonicalize_dtype(info["dtype"]) == np.dtype(info["dtype"])


def described(info: dict[str, Any]) -> str:
    """An array of a file in a few characters, as in every message."""
    if "key" in info:
        return f"random keys ({info['key']})"
    return short(jax.ShapeDtypeStruct(tuple(info["shape"]), np.dtype(info["dtype"])))


def is_number_array(value: Any) -> bool:
    """Whether a value is an array and no random key."""
    return _tree.is_array(value) and not is_key(value)
