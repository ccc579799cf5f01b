"""Filling what is given: note and target side by side, first compared, then assigned."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from fluxax import _tree
from fluxax._checkpoint._fill_arrays import check_ties, fill_array
from fluxax._checkpoint._fill_leaves import fill_leaf, fill_rule
from fluxax._checkpoint._filling import NOTHING, Filling
from fluxax._checkpoint._functions import description, difference
from fluxax._checkpoint._notes import FOLLOWS, explicit, position_of
from fluxax._checkpoint._values import decoded, is_plain, is_plain_note, same
from fluxax.optimisers._rule import is_rule
from fluxax.optimisers._state import Leaf


def fill_thing(filling: Filling, name: str, target: Any) -> Any:
    """What stands for a thing afterwards: the target, or a new value where it is immutable."""
    filling.root, filling.places = name, {}
    note = filling.contents.things[name]
    if is_plain_note(note) and is_plain(target):
        return _fill_plain(filling, decoded(note), target)
    seen = explicit("load", target)
    new = fill(filling, note, seen, ())
    check_ties(filling, seen)
    return new if seen is target else target


def _fill_plain(filling: Filling, value: Any, target: Any) -> Any:
    """A plain value; a list, dict or set of the same sort takes its contents."""
    into: Any = target
    if type(value) is list and type(target) is list:
        filling.actions.append(lambda: into.__setitem__(slice(None), value))
    elif type(value) is type(target) and isinstance(value, (dict, set)):
        filling.actions.append(into.clear)
        filling.actions.append(lambda: into.update(value))
    else:
        return value
    return target


def fill(filling: Filling, note: Any, target: Any, path: _tree.Path) -> Any:
    """The value for a place: the target itself, filled later, or a new one."""
    tags = note if isinstance(note, dict) else {}
    if is_plain_note(note) and is_plain(target):
        return target if same(decoded(note), target) else decoded(note)
    if isinstance(target, Leaf) or "leaf" in tags:
        return fill_leaf(filling, note, target, path, fill)
    if is_rule(target) or "rule" in tags:
        fill_rule(filling, note, target, path, fill)
        return target
    if "array" in tags:
        return fill_array(filling, note["array"], target, path)
    if "position" in tags:
        return _fill_position(filling, note, target, path)
    if "other" in tags:
        found = difference(note["other"], description(target))
        if found:
            filling.note(path, found)
        return target
    return _fill_container(filling, note, target, path)


# --- containers ---------------------------------------------------------------------------


def _named_notes(note: Any) -> dict[Any, Any] | None:
    """The notes inside a container's, by what its keys stand for; `None` if it is none."""
    if isinstance(note, list):
        return dict(enumerate(note))
    if not isinstance(note, dict):
        return None
    if "dict" in note:
        return {decoded(k): v for k, v in note["dict"]}
    inside = note.get("list", note.get("tuple"))
    return note.get("parts") if inside is None else dict(enumerate(inside))


def _fill_container(filling: Filling, note: Any, target: Any, path: _tree.Path) -> Any:
    kind, notes = _tree.kind_of(target), _named_notes(note)
    if kind is None or notes is None or not _alike(note, target):
        return filling.differs(path, filling.said(note), target)
    pairs = kind.parts(target)
    by_name = {_name(target, key): (key, part) for key, part in pairs}
    for name in notes:
        if name not in by_name:
            _only_there(filling, notes[name], target, name, path)
    new = []
    for name, (key, part) in by_name.items():
        if name in notes:
            new.append(fill(filling, notes[name], part, (*path, key)))
            continue
        new.append(part)
        if not _is_setting(part, target):
            filling.differs((*path, key), NOTHING, part)
    if isinstance(target, _tree.Node):
        mark = note.get("frozen", False)
        filling.actions.append(lambda: setattr(target, "frozen_mark", mark))
    return _assign(filling, kind, target, pairs, new)


def _alike(note: Any, target: Any) -> bool:
    """Whether a container is of the sort that was noted."""
    if isinstance(note, dict) and "object" in note:
        return note["object"] == type(target).__name__
    names = note.get("names") if isinstance(note, dict) else None
    if isinstance(target, list):
        return (isinstance(note, list) or "list" in note) and names == _names(target)
    if isinstance(target, dict):
        return isinstance(note, dict) and "dict" in note
    return type(target) is tuple and isinstance(note, dict) and "tuple" in note


def _names(target: Any) -> Any:
    names = getattr(target, "names", None)
    return names if names and any(names) else None


def _name(target: Any, key: Any) -> Any:
    name = _tree.key_name(key)
    return (
        name
        if isinstance(target, (list, tuple, dict)) and not hasattr(target, "_fields")
        else str(name)
    )


def _assign(filling: Filling, kind: Any, target: Any, pairs: Any, new: list[Any]) -> Any:
    moved = [(key, now) for (key, old), now in zip(pairs, new, strict=True) if now is not old]
    if not moved:
        return target
    if kind.assign is None:
        return kind.rebuild(target, new)
    for key, now in moved:
        filling.actions.append(lambda key=key, now=now: kind.assign(target, key, now))
    return target


def _is_setting(part: Any, target: Any) -> bool:
    """Whether a part that the file lacks is of no weight: a newer version's setting of a layer."""
    objects = not isinstance(target, (list, tuple, dict))
    return objects and not any(
        _tree.is_array(v) or isinstance(v, Leaf) for _, v in _tree.walk(part)
    )


def _only_there(filling: Filling, note: Any, target: Any, name: Any, path: _tree.Path) -> None:
    """A part that only the file has: a Module gets a plain one, which it made while running."""
    if is_plain_note(note) and _tree.kind_of(target) is _tree.OBJECT:
        filling.actions.append(lambda: vars(target).__setitem__(name, decoded(note)))
        return
    text = f"[{name!r}]" if isinstance(target, (list, tuple, dict)) else f".{name}"
    filling.differs((*path, text), filling.said(note), NOTHING)


# --- positions ----------------------------------------------------------------------------


def _fill_position(filling: Filling, note: Any, target: Any, path: _tree.Path) -> Any:
    """A loader or a random generator goes on where the saved one stood."""
    filling.resuming = True
    old, state, where = position_of(target), decoded(note["state"]), filling.where(path)
    if old is None:
        return filling.differs(path, filling.said(note), target)
    if isinstance(target, np.random.Generator):
        mine, theirs = old["bit_generator"], state.get("bit_generator")
        if mine != theirs:
            return filling.differs(path, f"a Generator of {theirs}", target)
        put = lambda s: setattr(target.bit_generator, "state", s)
    elif type(target) is random.Random:
        put = target.setstate
    else:
        follows = state.pop(FOLLOWS, None)
        put = lambda s: target.load_state_dict({k: v for k, v in s.items() if k != FOLLOWS})
        if follows is not None and hasattr(target, "follow"):
            filling.actions.append(lambda: target.follow(follows))
    filling.risky.append((lambda: put(state), lambda: _put_back(put, old, target), where))
    return target


def _put_back(put: Any, old: Any, target: Any) -> None:
    put(old)
    if isinstance(old, dict) and old.get(FOLLOWS) is not None:  # it was given a seed of its own
        target.follow(old[FOLLOWS])
