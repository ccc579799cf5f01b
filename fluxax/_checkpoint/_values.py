"""Plain Python values as JSON and back, each with its exact type and bits.

What JSON has stands for itself. Everything else is a dict with one tag, so that no dict of the
user's can be mistaken for one: those are tagged too.
"""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

PLAIN = (type(None), bool, int, float, complex, str, bytes)


def is_plain(value: Any) -> bool:
    """Whether a value is made of numbers, text, bytes and plain containers of them alone."""
    if type(value) in PLAIN or isinstance(value, np.generic):
        return not isinstance(value, np.void | np.object_)
    if type(value) in (list, tuple, set, frozenset):
        return all(map(is_plain, value))
    return type(value) is dict and all(is_plain(k) and is_plain(v) for k, v in value.items())


_MOST_BITS = 13_000  # what Python reads as decimal digits again


def encoded(value: Any) -> Any:
    """A plain value as JSON."""
    kind = type(value)
    if kind is int and value.bit_length() > _MOST_BITS:
        raise ValueError(
            f"save expects whole numbers of at most {_MOST_BITS} bits, got one of "
            f"{value.bit_length()}. Save it as text or as bytes."
        )
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is complex:
        return {"complex": [encoded(value.real), encoded(value.imag)]}
    if kind is bytes:
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, np.generic):
        return {
            "scalar": [
                value.dtype.str if value.dtype.kind in "mMSU" else value.dtype.name,
                # of empty text NumPy gives one character
                base64.b64encode(value.tobytes()[: value.dtype.itemsize]).decode(),
            ]
        }
    if kind is list:
        return [encoded(v) for v in value]
    if kind is dict:
        return {"dict": [[encoded(k), encoded(v)] for k, v in value.items()]}
    return {kind.__name__: [encoded(v) for v in value]}


def decoded(note: Any) -> Any:
    """The plain value that a JSON note stands for."""
    if isinstance(note, list):
        return [decoded(v) for v in note]
    if not isinstance(note, dict):
        return note
    ((tag, inside),) = note.items()
    return _DECODERS[tag](inside)


def _scalar(inside: Any) -> Any:
    dtype, data = np.dtype(inside[0]), base64.b64decode(inside[1])
    if dtype.kind == "S":  # text as it is; an array would lose zeros at its end
        return np.bytes_(data)
    if dtype.kind == "U":
        order = "be" if dtype.str[0] == ">" else "le"
        return np.str_(data.decode(f"utf-32-{order}", "surrogatepass"))
    return np.frombuffer(data, dtype)[0]


_DECODERS: dict[str, Any] = {
    "float": float,
    "complex": lambda v: complex(decoded(v[0]), decoded(v[1])),
    "bytes": base64.b64decode,
    "scalar": _scalar,
    "tuple": lambda vs: tuple(map(decoded, vs)),
    "set": lambda vs: set(map(decoded, vs)),
    "frozenset": lambda vs: frozenset(map(decoded, vs)),
    "dict": lambda pairs: {decoded(k): decoded(v) for k, v in pairs},
}


def is_plain_note(note: Any) -> bool:
    """Whether a note is that of a plain value."""
    if isinstance(note, list):
        return all(map(is_plain_note, note))
    if not isinstance(note, dict):
        return True
    tag, inside = next(iter(note.items()))
    if tag == "dict":
        return all(is_plain_note(v) for _, v in inside)
    if tag == "tuple":
        return all(map(is_plain_note, inside))
    return tag in _DECODERS


def same(a: Any, b: Any) -> bool:
    """Whether two plain values have the same types and bits.

    >>> same(1, 1.0), same(float("nan"), float("nan")), same(0.0, -0.0), same([1, (2,)], [1, (2,)])
    (False, True, False, True)
    """
    return is_plain(a) and is_plain(b) and repr(encoded(a)) == repr(encoded(b))
