"""Whether a manifest makes sense: all of it is looked at before anything is made of it.

Checksums say that a file is what was written, not that a checkpoint was written. What is looked at
here is what `_notes` and `_save` write, entry by entry; an entry that nobody knows is left alone at
the top, where a later version may add some, and refused in a note.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fluxax import _random
from fluxax._checkpoint._arrays import CODES, PAIRS
from fluxax._checkpoint._notes import FOLLOWS, position_of
from fluxax._checkpoint._restore import position
from fluxax._checkpoint._values import decoded, is_plain_note, same
from fluxax._errors import short
from fluxax.data._options import POSITION

_COUNTS = 2**31  # step counts are int32
_SHA = re.compile(r"[0-9a-f]{64}")


class Nonsense(Exception):
    """An entry that makes no sense: what is expected, what is there, and where."""

    def __init__(self, expected: str, got: Any, where: str):
        super().__init__(f"expects {expected}, got {short(got)} at {where}")


def check(manifest: Any) -> None:
    """Look at all of a manifest, whose version is known to be ours.

    Raises:
        Nonsense: at the first entry that makes no sense.
        RecursionError: if it is nested too deeply.
    """
    things, leaves, rules, arrays, position = (
        _entry(manifest, name, kind, "the manifest")
        for name, kind in _TOP.items()  # in this order
    )
    for name, info in arrays.items():
        _check_array(info, f"arrays[{name!r}]")
    notes = _Notes(arrays, len(leaves))
    for i, rule in enumerate(rules):
        if not isinstance(rule, dict) or "rule" not in rule:
            raise Nonsense("a rule", rule, f"rules[{i}]")
        notes.check(rule, f"rules[{i}]")
    for i, leaf in enumerate(leaves):
        _check_leaf(leaf, len(rules), arrays, f"leaves[{i}]")
    for name, note in things.items():
        notes.check(note, name)
    _check_random(position, notes)
    value = manifest.get("value")
    if value is not None and (not _is(value, (int, float)) and set(_dict(value)) != {"float"}):
        raise Nonsense("a number", value, "value")
    notes.check(value, "value")


_TOP = {"things": dict, "leaves": list, "rules": list, "arrays": dict, "random": dict}
_WORDS = {
    dict: "a dict",
    list: "a list",
    str: "text",
    int: "a whole number",
    bool: "true or false",
}


def _is(value: Any, kind: Any) -> bool:
    """As `isinstance`, but a bool is no number."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _entry(inside: Any, name: str, kind: type, where: str) -> Any:
    if not isinstance(inside, dict) or name not in inside:
        raise Nonsense(f"a dict with {name!r}", inside, where)
    if not _is(inside[name], kind):
        raise Nonsense(_WORDS[kind], inside[name], f"{where}[{name!r}]")
    return inside[name]


def _count(value: Any, most: int, where: str, least: int = 0) -> None:
    if not _is(value, int) or not least <= value < most:
        raise Nonsense(f"a whole number from {least} to {most - 1}", value, where)


# --- arrays ---------------------------------------------------------------------------------


def _check_array(info: Any, where: str) -> None:
    text, shape = _entry(info, "dtype", str, where), _entry(info, "shape", list, where)
    dtype = _dtype(text, f"{where}['dtype']")
    for n in shape:
        _count(n, 2**63, f"{where}['shape']")
    if len(shape) > 32 or math.prod(shape) * dtype.itemsize >= 2**63:
        raise Nonsense("a shape that an array can have", shape, f"{where}['shape']")
    if not _SHA.fullmatch(_entry(info, "sha256", str, where)):
        raise Nonsense("a SHA-256", info["sha256"], f"{where}['sha256']")
    of = _entry(info, "of", str, where)
    if of not in ("jax", "numpy"):
        raise Nonsense("'jax' or 'numpy'", of, f"{where}['of']")
    if of == "jax" and not _jax_has(text, dtype):
        raise Nonsense("a dtype of JAX's", text, f"{where}['dtype']")
    if "weak" in info:
        _entry(info, "weak", bool, where)
    if "key" in info:
        kind = _entry(info, "key", str, where)
        data = jax.ShapeDtypeStruct(tuple(shape), dtype)
        make = lambda data: jax.random.wrap_key_data(data, impl=kind)
        if of != "jax" or _fails(lambda: jax.eval_shape(make, data)):
            raise Nonsense("random keys of JAX's", info, where)


def _dtype(text: str, where: str) -> np.dtype:
    """The dtype that is spelled as `stored` does."""
    try:
        dtype = np.dtype(text)
    except Exception:  # NumPy parses text in many ways, and raises as many errors
        raise Nonsense("a dtype", text, where) from None
    plain = dtype.isnative and dtype.kind not in "mMSU" and dtype.type is not np.void
    if (
        dtype.hasobject
        or dtype.names
        or dtype.subdtype
        or text != (dtype.name if plain else dtype.str)
    ):
        raise Nonsense("a dtype", text, where)
    return dtype


def _jax_has(text: str, dtype: np.dtype) -> bool:
    if text in CODES or text in PAIRS:
        return True
    scalar = jax.ShapeDtypeStruct((), dtype)
    return dtype.type.__module__ == "ml_dtypes" and not _fails(
        lambda: jax.eval_shape(lambda x: x, scalar)
    )


def _fails(make: Callable[[], Any]) -> bool:
    """Whether what a file holds cannot be made: whatever is raised then is about the file."""
    try:
        make()
    except RecursionError:
        raise
    except Exception:
        return True
    return False


# --- leaves, random numbers -----------------------------------------------------------------


def _check_leaf(leaf: Any, rules: int, arrays: dict[str, Any], where: str) -> None:
    _count(_entry(leaf, "rule", int, where), rules, f"{where}['rule']")
    _count(_entry(leaf, "steps", int, where), _COUNTS, f"{where}['steps']")
    _entry(leaf, "frozen", bool, where)
    for n in _entry(leaf, "shape", list, where):
        _count(n, 2**63, f"{where}['shape']")
    for i, state in enumerate(_entry(leaf, "state", list, where)):
        at = f"{where}['state'][{i}]"
        if not isinstance(state, dict):  # a count, or the bits of a number that stands among them
            _count(state, _COUNTS, at, least=-_COUNTS)
        elif set(state) != {"array"} or _name(state["array"], arrays, at)["of"] != "jax":
            raise Nonsense("a JAX array", state, at)


def _name(name: Any, arrays: dict[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(name, str) or name not in arrays:
        raise Nonsense("the name of an array in the file", name, where)
    return arrays[name]


def _check_random(position: dict[str, Any], notes: _Notes) -> None:
    for name in ("entropy", "state"):
        if name not in position:
            raise Nonsense(f"a dict with {name!r}", position, "random")
        notes.plain(position[name], f"random[{name!r}]")
    _count(_entry(position, "loaders", int, "random"), _COUNTS, "random['loaders']")
    _count(position.get("calls", 0), 2**63, "random['calls']")
    if position["entropy"] is None:  # NumPy would take a new one, at every load
        raise Nonsense("what a random stream began with", None, "random['entropy']")
    plain = {name: decoded(position[name]) for name in ("entropy", "state")}
    made = lambda: _random.at_position(plain)[0].bit_generator.state
    if _fails(made) or not same(made(), plain["state"]):
        raise Nonsense("a state of NumPy's PCG64", plain, "random")


# --- notes ----------------------------------------------------------------------------------


class _Notes:
    """Looks at notes, for the arrays and leaves that they may name."""

    def __init__(self, arrays: dict[str, Any], leaves: int):
        self.arrays, self.leaves = arrays, leaves

    def check(self, note: Any, where: str) -> None:
        if isinstance(note, list):
            self._each(note, where)
        elif isinstance(note, dict):
            self._tagged(note, where)
        elif isinstance(note, float) and not math.isfinite(note):
            raise Nonsense("a finite number", note, where)

    def plain(self, note: Any, where: str) -> None:
        """A note that stands for a plain value."""
        self.check(note, where)
        if not is_plain_note(note):
            raise Nonsense("a plain value", note, where)

    def _each(self, notes: list[Any], where: str) -> None:
        for i, note in enumerate(notes):
            self.check(note, f"{where}[{i}]")

    def _tagged(self, note: dict[str, Any], where: str) -> None:
        tags = frozenset(note)
        found = _FORMS.get(tags)
        if found is None:
            raise Nonsense("a note of a value", note, where)
        found(self, note, where)

    def _tuple(self, note: Any, where: str) -> None:
        self._each(_entry(note, "tuple", list, where), where)

    def _dict(self, note: Any, where: str) -> None:
        keys = []
        for pair in _entry(note, "dict", list, where):
            if not isinstance(pair, list) or len(pair) != 2:
                raise Nonsense("a key and a value", pair, where)
            self.plain(pair[0], where)
            keys.append(decoded(pair[0]))
            self.check(pair[1], f"{where}[{keys[-1]!r}]")
        if _fails(lambda: set(keys)) or len({*keys}) < len(keys):
            raise Nonsense("keys of a dict", keys, where)

    def _list(self, note: Any, where: str) -> None:
        inside, names = _entry(note, "list", list, where), _entry(note, "names", list, where)
        named = all(name is None or isinstance(name, str) for name in names)
        if len(names) != len(inside) or not named or not any(names):
            raise Nonsense(f"{len(inside)} names", names, where)
        self._each(inside, where)

    def _array(self, note: Any, where: str) -> None:
        _name(note["array"], self.arrays, where)

    def _leaf(self, note: Any, where: str) -> None:
        _count(note["leaf"], self.leaves, f"{where}['leaf']")

    def _parts(self, note: Any, where: str) -> None:
        _entry(note, "object" if "object" in note else "rule", str, where)
        if "frozen" in note:
            _entry(note, "frozen", bool, where)
        for name, part in _entry(note, "parts", dict, where).items():
            if name.startswith("__"):
                raise Nonsense("names of attributes", name, where)
            self.check(part, f"{where}.{name}")

    def _position(self, note: Any, where: str) -> None:
        kind = _entry(note, "position", str, where)
        self.plain(note["state"], where)
        state = decoded(note["state"])
        follows = _dict(state).get(FOLLOWS, 0)
        if kind == "DataLoader" and {*_dict(state)} - {FOLLOWS} != {*POSITION}:
            raise Nonsense("a position of a DataLoader", state, where)
        made = None if _fails(lambda: position(kind, state)) else position(kind, state)
        good = isinstance(made, dict) or (made is not None and same(position_of(made), state))
        if not good or not _is(follows, int) or follows < 0:
            raise Nonsense(f"a state of {kind}", state, where)

    def _value(self, note: Any, where: str) -> None:
        ((tag, inside),) = note.items()
        if tag in ("set", "frozenset", "complex"):
            self._each(_entry(note, tag, list, where), where)
            if not is_plain_note(inside):
                raise Nonsense("plain values", inside, where)
        good = _VALUES[tag](inside) and not _fails(lambda: decoded(note))
        if not good or (tag in ("set", "frozenset") and len(decoded(note)) < len(inside)):
            raise Nonsense(f"a value ({tag})", inside, where)

    def _other(self, note: Any, where: str) -> None:
        if not self._describes(note["other"]):
            raise Nonsense("a description", note["other"], where)

    def _describes(self, found: Any) -> bool:
        """Whether something is what `description` gives: what stands in messages, and no value."""
        if not isinstance(found, dict) or _FORMS.get(frozenset(found)) is _Notes._value:
            return not isinstance(found, list) or all(map(self._describes, found))
        texts = all(isinstance(found.get(k, ""), str) for k in ("what", "array", "sha256", "code"))
        held = found.get("holds", {})
        inside = found.get("dict", found.get("tuple", []))
        return (
            bool(found)
            and set(found) <= {"what", "array", "sha256", "code", "holds", "dict", "tuple"}
            and texts
            and isinstance(held, dict)
            and all(map(self._describes, held.values()))
            and isinstance(inside, list)
        )


def _is_numbers(pair: Any) -> bool:
    return len(pair) == 2 and all(type(v) is float or set(_dict(v)) == {"float"} for v in pair)


def _is_scalar(pair: Any) -> bool:
    """A dtype and the bytes of one number of it."""
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(v, str) for v in pair):
        return False
    return _dtype(pair[0], "").itemsize == len(base64.b64decode(pair[1], validate=True))


#: By tag of a plain value: whether what stands there can be one; decoding says the rest.
_VALUES: dict[str, Callable[[Any], bool]] = {
    "float": lambda v: v in ("nan", "inf", "-inf"),
    "complex": _is_numbers,
    "bytes": lambda v: (
        isinstance(v, str) and not _fails(lambda: base64.b64decode(v, validate=True))
    ),
    "scalar": lambda v: not _fails(lambda: _is_scalar(v)) and _is_scalar(v),
    "set": lambda v: True,
    "frozenset": lambda v: True,
}

_FORMS: dict[frozenset[str], Callable[[_Notes, Any, str], None]] = {
    **{frozenset([tag]): _Notes._value for tag in _VALUES},
    frozenset(["tuple"]): _Notes._tuple,
    frozenset(["dict"]): _Notes._dict,
    frozenset(["list", "names"]): _Notes._list,
    frozenset(["array"]): _Notes._array,
    frozenset(["leaf"]): _Notes._leaf,
    frozenset(["rule", "parts"]): _Notes._parts,
    frozenset(["object", "parts"]): _Notes._parts,
    frozenset(["object", "parts", "frozen"]): _Notes._parts,
    frozenset(["position", "state"]): _Notes._position,
    frozenset(["other"]): _Notes._other,
}
