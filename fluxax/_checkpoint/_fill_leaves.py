"""Filling state trees: leaves with their states, rules with their hyperparameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from fluxax import _tree
from fluxax._checkpoint._arrays import described
from fluxax._checkpoint._filling import NOTHING, Filling
from fluxax._checkpoint._values import decoded, is_plain, is_plain_note, same
from fluxax._errors import short
from fluxax.optimisers._keep import places_of
from fluxax.optimisers._rule import fields_of, is_rule
from fluxax.optimisers._state import Leaf

Fill = Callable[[Filling, Any, Any, _tree.Path], Any]


def fill_leaf(filling: Filling, note: Any, leaf: Any, path: _tree.Path, fill: Fill) -> Any:
    """Compare a leaf with one of the file; its state, step count and mark are filled later."""
    if not isinstance(leaf, Leaf) or not isinstance(note, dict) or "leaf" not in note:
        return filling.differs(path, filling.said(note), leaf)
    filling.resuming = True
    filling.places[path] = note["leaf"], leaf
    if id(leaf) in filling.leaves:
        return leaf
    filling.leaves[id(leaf)] = leaf
    saved = filling.contents.leaves[note["leaf"]]
    if tuple(saved["shape"]) != leaf.shape:
        text = f"the state of an array of shape {tuple(saved['shape'])} in the checkpoint"
        filling.note(path, f"{text}, of shape {leaf.shape} here")
    elif fill_rule(filling, saved["rule"], leaf.rule, (*path, ".rule"), fill):
        _fill_states(filling, saved, leaf, path)
        filling.actions.append(lambda: setattr(leaf, "frozen", saved["frozen"]))
    return leaf


def _fill_states(filling: Filling, saved: dict[str, Any], leaf: Leaf, path: _tree.Path) -> None:
    wanted = jax.tree.leaves(leaf.abstract_state())
    notes = saved["state"]
    theirs = [_said(filling, note) for note in notes]
    mine = [short(state) for state in wanted]
    if mine != theirs:
        here = ", ".join(mine) or "none"
        filling.note(
            (*path, ".state"), f"{', '.join(theirs) or 'none'} in the checkpoint, {here} here"
        )
        return
    states: list[Any] = []
    for note, like in zip(notes, places_of(leaf), strict=True):
        if isinstance(note, int):
            states.append(note)
        elif like is None:
            states.append(filling.contents.host(note["array"]))
        else:
            states.append(filling.contents.array(note["array"], like))
    filling.refill.add(leaf, states, saved["steps"])


def _said(filling: Filling, note: Any) -> str:
    return "i32[]" if isinstance(note, int) else described(filling.contents.infos[note["array"]])


def fill_rule(filling: Filling, note: Any, rule: Any, path: _tree.Path, fill: Fill) -> bool:
    """Give a rule its hyperparameters, once all was compared; false if it is another rule."""
    saved = note.get("rule") if isinstance(note, dict) else None
    if not is_rule(rule) or type(rule).__name__ != saved:
        filling.note(path, f"{saved or filling.said(note)} in the checkpoint, {_name(rule)} here")
        return False
    parts, names = note["parts"], fields_of(rule)
    for name in [*parts, *(n for n in names if n not in parts)]:
        where = (*path, f".{name}")
        if name not in names:
            filling.note(where, f"{filling.said(parts[name])} in the checkpoint, nothing here")
        elif name in parts:
            _fill_field(filling, parts[name], rule, name, where, fill)
        elif not _is_default(rule, name):  # else it may be newer than the file
            filling.differs(where, NOTHING, getattr(rule, name))
    return True


def _is_default(rule: Any, name: str) -> bool:
    """Whether a field has the value that its class gives it."""
    fields = dataclasses.fields(rule) if dataclasses.is_dataclass(rule) else ()
    default = next((f.default for f in fields if f.name == name), dataclasses.MISSING)
    value = getattr(rule, name)
    return value is default or same(value, default)


def _fill_field(
    filling: Filling, note: Any, rule: Any, name: str, path: _tree.Path, fill: Fill
) -> None:
    old = getattr(rule, name)
    if is_plain_note(note) and not is_rule(old):
        new = decoded(note)  # also where a schedule stands: `adjust` had put the number there
        if is_plain(old) and same(new, old):
            return
    else:
        new = _fill_value(filling, note, old, path, fill)
        if new is old:
            return
    try:
        new = rule.checked(name, new) if hasattr(rule, "checked") else new
    except (TypeError, ValueError) as error:
        filling.note(path, str(error).rstrip("."))
        return
    filling.actions.append(lambda: _assign(rule, name, new))


def _fill_value(filling: Filling, note: Any, old: Any, path: _tree.Path, fill: Fill) -> Any:
    """The new value of a field that is not plain: rules inside, a schedule, a tuple with one."""
    if is_rule(old) or (isinstance(note, dict) and "rule" in note):
        fill_rule(filling, note, old, path, fill)
        return old
    inside = note.get("tuple", note) if isinstance(note, dict) else note
    if isinstance(inside, list) and isinstance(old, tuple) and len(inside) == len(old):
        new = tuple(
            decoded(n) if is_plain_note(n) else _fill_value(filling, n, v, (*path, f"[{i}]"), fill)
            for i, (n, v) in enumerate(zip(inside, old, strict=True))
        )
        return old if all(a is b for a, b in zip(new, old, strict=True)) else new
    if is_plain_note(note):
        return decoded(note)
    return fill(filling, note, old, path)


def _assign(rule: Any, name: str, value: Any) -> None:
    if getattr(rule, name) is not value:
        setattr(rule, name, value)


def _name(rule: Any) -> str:
    return type(rule).__name__ if is_rule(rule) else short(rule)
