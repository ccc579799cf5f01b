"""How a model prints: nested constructors, and beside each what it holds.

A Module may say how its constructor reads by a method `_arguments`, a list of
`(name, value)` with an empty name for what stands by position; any other Module shows its
attributes. `_unlisted` names attributes that are left out and not counted.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.tree_util import GetAttrKey

from fluxax import _tree
from fluxax._between import read_between
from fluxax._errors import short
from fluxax._jax import is_key, is_tracer
from fluxax._module import Module, set_printer

#: Where comments begin if the text is shorter, and where the total does.
COLUMN, TOTAL = 40, 20


class Line(NamedTuple):
    """A line of a printed model, and the place it is about (None: no comment)."""

    indent: int
    text: str
    path: _tree.Path | None = None
    value: Any = None


class Held(NamedTuple):
    """An array of a model: where, whether it is trained, and where it stood before, if tied."""

    path: _tree.Path
    array: Any
    trained: bool
    first: _tree.Path | None


# --- constructors in one line -------------------------------------------------------------


def constructor(value: Any, _above: tuple[int, ...] = ()) -> str:
    """A value as one would write it, in one line.

    >>> constructor((1, "same", math.tanh))
    "(1, 'same', tanh)"
    """
    if id(value) in _above:
        return "..."
    _above = (*_above, id(value))
    if isinstance(value, Module):
        parts = (_assigned(name, constructor(v, _above)) for name, v in arguments(value))
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        inside = ", ".join(constructor(v, _above) for v in value)
        if isinstance(value, list):
            return f"[{inside}]"
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {constructor(v, _above)}" for k, v in value.items()) + "}"
    return _plain(value)


def _plain(value: Any) -> str:
    if _tree.is_array(value) or hasattr(value, "shape"):
        return short(value)
    if isinstance(value, functools.partial):
        given = [constructor(v) for v in value.args]
        given += [f"{k}={constructor(v)}" for k, v in value.keywords.items()]
        return f"partial({', '.join([constructor(value.func), *given])})"
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    if _tree.kind_of(value) in (_tree.DATACLASS, _tree.FROZEN_DATACLASS, _tree.PYTREE):
        parts = ", ".join(f"{_tree.key_name(k)}={constructor(v)}" for k, v in _tree.parts(value))
        return f"{type(value).__name__}({parts if len(parts) <= 60 else '...'})"
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text and " at 0x" not in text else short(value)


def _assigned(name: str, text: str) -> str:
    return f"{name}={text}" if name else text


def arguments(module: Module) -> list[tuple[str, Any]]:
    """What stands between the brackets of a Module's constructor."""
    own: Callable[[], list[tuple[str, Any]]] | None = getattr(module, "_arguments", None)
    if own is not None:
        try:
            return own()
        except (AttributeError, TypeError, ValueError, IndexError):
            pass  # jax.tree.map may have put anything in the place of its arrays
    hidden = getattr(module, "_unlisted", ())
    return [(name, value) for name, value in vars(module).items() if name not in hidden]


# --- what a model holds -------------------------------------------------------------------


def held(model: Any) -> list[Held]:
    """Every array of a model that is printed and counted, in order."""
    seen: dict[int, _tree.Path] = {}
    found = []
    for path, array, trained in _holdings(model, (), True):
        found.append(Held(path, array, trained, seen.get(id(array))))
        seen.setdefault(id(array), path)
    return found


def _holdings(
    value: Any, path: _tree.Path, trained: bool, _above: tuple[int, ...] = ()
) -> Iterator[tuple[_tree.Path, Any, bool]]:
    if _tree.is_array(value):
        yield path, value, trained and not is_key(value) and _tree.is_inexact(value)
    if id(value) in _above:
        return
    hidden = getattr(value, "_unlisted", ()) if isinstance(value, Module) else ()
    only = value.trainable if isinstance(value, Module) else None
    for key, part in _tree.parts(value):
        name = _tree.key_name(key)
        if name not in hidden:
            passes = trained and (only is None or name in only)
            yield from _holdings(part, (*path, key), passes, (*_above, id(value)))


def below(path: _tree.Path, arrays: list[Held]) -> list[Held]:
    """The arrays at a path and below."""
    return [h for h in arrays if h.path[: len(path)] == path]


def comment(arrays: list[Held]) -> str:
    """What a line says of the arrays of a layer; nothing if there are none."""
    new = [h for h in arrays if h.first is None]
    trained = sum(h.array.size for h in new if h.trained)
    rest = sum(h.array.size for h in new if not h.trained)
    said = []
    if trained or (new and not rest):
        said.append(_count(trained, "parameter") + _health(new))
        said += [f"plus {_number(rest)} non-trainable"] if rest else []
    elif rest:
        said.append(f"{_number(rest)} non-trainable")
    return ", ".join([*said, *_ties(arrays)])


def _ties(arrays: list[Held]) -> list[str]:
    tied = [h for h in arrays if h.first is not None]
    if not tied:
        return []
    if len(tied) == len(arrays):
        firsts = {h.first[:-1] for h in tied if h.first}
        same_names = all(h.first and str(h.first[-1]) == str(h.path[-1]) for h in tied)
        if len(tied) > 1 and len(firsts) == 1 and same_names:
            return [f"tied to {_tree.path_string(firsts.pop())}"]
    if len(arrays) == 1:
        return [f"tied to {_tree.path_string(tied[0].first or ())}"]
    return [
        f"{str(h.path[-1]).lstrip('.')} tied to {_tree.path_string(h.first or ())}" for h in tied
    ]


def _health(arrays: list[Held]) -> str:
    """`" (some NaN)"` and the like, where values can be seen."""
    values = [h.array for h in arrays if h.trained]
    if not values or any(is_tracer(v) or not _visible(v) for v in values):
        return ""
    seen = [np.asarray(v) for v in values]
    if any(np.isnan(v).any() for v in seen):
        return " (some NaN)"
    if any(np.isinf(v).any() for v in seen):
        return " (some Inf)"
    return " (all zero)" if all(v.size and not v.any() for v in seen) else ""


def _visible(array: Any) -> bool:
    """Whether an array's numbers are here: not deleted, not on another machine."""
    if isinstance(array, np.ndarray):
        return True
    return not array.is_deleted() and array.is_fully_addressable


def _number(n: int) -> str:
    return f"{n:_}"


def _count(n: int, what: str) -> str:
    return f"{_number(n)} {what}{'' if n == 1 else 's'}"


def size_text(n: float) -> str:
    """A number of bytes for people.

    >>> size_text(36), size_text(4 * 784 * 256)
    ('36 bytes', '784.0 KiB')
    """
    if n < 1024:
        return _count(int(n), "byte")
    power = min(4, int(math.log(n, 1024)))
    return f"{n / 1024**power:.1f} {' KMGT'[power]}iB"


def total(arrays: list[Held]) -> str:
    """The last line of a printed model."""
    new = [h for h in arrays if h.first is None]
    trained = [h.array for h in new if h.trained]
    rest = [h.array for h in new if not h.trained]
    bytes_ = size_text(sum(a.size * a.dtype.itemsize for a in trained + rest))
    parameters = _count(sum(a.size for a in trained), "parameter")
    if not rest:
        return f"Total: {_count(len(trained), 'array')}, {parameters}, {bytes_}."
    arrays_ = _count(len(trained), "trainable array")
    numbers = _count(sum(a.size for a in rest), "number")
    return f"Total: {arrays_}, {parameters}, plus {len(rest)} non-trainable, {numbers}, {bytes_}."


# --- the whole text -----------------------------------------------------------------------


def lines(
    value: Any, before: str, after: str, path: _tree.Path, indent: int, above: tuple[int, ...] = ()
) -> Iterator[Line]:
    """A model line by line: what contains Modules over several, anything else on one."""
    if id(value) in above or not nested(value):
        text = constructor(value, above)
        yield Line(indent, before + text + after, path, value)
        return
    above = (*above, id(value))
    start, end = _brackets(value)
    yield Line(indent, before + start)
    for name, part, where in _inside(value, path):
        yield from lines(part, name, ",", where, indent + 2, above)
    yield Line(indent, end + after)


def nested(value: Any) -> bool:
    """Whether something prints over several lines: it contains Modules, or layers by name."""
    if isinstance(value, Module):
        layers = vars(value).get("layers")
        if isinstance(layers, _tree.NamedList):
            return len(layers) > 0
        return any(_has_module(part) for _, part in arguments(value))
    return isinstance(value, (list, tuple, dict)) and _has_module(value)


def _has_module(value: Any) -> bool:
    if isinstance(value, (list, tuple, dict)):
        return any(_has_module(part) for _, part in _tree.parts(value))
    return isinstance(value, Module)


def _brackets(value: Any) -> tuple[str, str]:
    if isinstance(value, Module):
        return f"{type(value).__name__}(", ")"
    if isinstance(value, dict):
        return "{", "}"
    return ("[", "]") if isinstance(value, list) else ("(", ")")


def _inside(value: Any, path: _tree.Path) -> Iterator[tuple[str, Any, _tree.Path]]:
    """The parts of a container as they are written: prefix, part, where it stands."""
    if not isinstance(value, Module):
        for key, part in _tree.parts(value):
            prefix = f"{_tree.key_name(key)!r}: " if isinstance(value, dict) else ""
            yield prefix, part, (*path, key)
        return
    places: dict[int, list[_tree.Path]] = {}  # several for a layer that stands there twice
    for key, part in _tree.parts(value):
        places.setdefault(id(part), []).append((*path, key))
        for inner, item in _tree.parts(part) if isinstance(part, list) else ():
            places.setdefault(id(item), []).append((*path, key, inner))
    for name, part in arguments(value):
        if name and vars(value).get(name) is part:
            where = (*path, GetAttrKey(name))
        else:
            where = (places.get(id(part)) or [path]).pop(0)
        yield _assigned(name, ""), part, where


def text(model: Module, notes: Callable[[_tree.Path], str] = lambda path: "") -> str:
    """The full text of a model; `notes` may add to what is said of a place."""
    return read_between(_text, model, notes)


def _text(model: Module, notes: Callable[[_tree.Path], str]) -> str:
    arrays = held(model)
    rows = list(lines(model, "", "", (), 0))
    if len(rows) == 1:
        said = ", ".join(filter(None, [notes(()), comment(arrays)]))
        return rows[0].text + (f"  # {said}" if said else "")
    written = [" " * row.indent + row.text for row in rows]
    column = max(COLUMN, min(72, 2 + max(map(len, written))))
    for i, row in enumerate(rows):
        if row.path is not None:
            said = filter(None, [notes(row.path), comment(below(row.path, arrays))])
            written[i] = _beside(written[i], ", ".join(said), column)
    written[-1] = _beside(written[-1], total(arrays), TOTAL)
    return "\n".join(written)


def _beside(line: str, said: str, column: int) -> str:
    return line if not said else f"{line:<{column - 2}}  # {said}"


def _represent(module: Module) -> str:
    """What `repr` gives: one line for a layer, so that it reads well inside other things."""
    return text(module) if nested(module) else constructor(module)


def _print(self: Module) -> str:
    """What `print` shows: as `repr`, and for a single layer its counts too."""
    return text(self)


set_printer(_represent)
Module.__str__ = _print
