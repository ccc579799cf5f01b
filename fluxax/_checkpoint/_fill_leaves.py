"""Filling state trees: leaves with their states, rules with their hyperparameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any

import jax
import numpy as np

from fluxax import _tree
from fluxax._checkpoint._arrays import described
from fluxax._checkpoint._filling import NOTHING, Filling
from fluxax._checkpoint._values import decoded, is_plain, is_plain_note, same
from fluxax._errors import short
from fluxax._jax import beside
from fluxax.optimisers._keep import completed, places_of
from fluxax.optimisers._rule import fields_of, is_rule, rules_in
from fluxax.optimisers._state import Leaf
from fluxax.optimisers._widen import is_narrow

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
    here, there = list(rules_in(leaf.rule)), list(_rules_in(saved["rule"]))
    if [type(rule).__name__ for rule in here] != [note["rule"] for note in there]:
        if saved["state"]:  # all of it stays, not that of the rules alone that `fill_rule` noted
            filling.note((*path, ".state"), "that of other rules in the checkpoint than here")
        return
    rules = {id(rule): note for rule, note in zip(here, there, strict=True)}
    notes = completed(leaf, saved["state"], lambda rule: _beta(rule, rules[id(rule)]))
    theirs = [_said(filling, note) for note in notes]
    mine = [short(state) for state in wanted]
    if len(mine) != len(theirs) or not all(map(_fits, theirs, wanted, repeat(leaf))):
        mine = [", ".join(mine) or "none"]
        theirs = [_said(filling, note) for note in saved["state"]]
        filling.note(
            (*path, ".state"), f"{', '.join(theirs) or 'none'} in the checkpoint, {mine[0]} here"
        )
        return
    states: list[Any] = []
    for note, like in zip(notes, places_of(leaf), strict=True):
        if isinstance(note, int):
            states.append(note)
        elif like is None or filling.contents.infos[note["array"]]["dtype"] != like.dtype.name:
            host = filling.contents.host(note["array"])
            states.append(host if like is None else beside(host.astype(like.dtype), like))
        else:
            states.append(filling.contents.array(note["array"], like))
    filling.refill.add(leaf, states, saved["steps"])


def _rules_in(note: Any) -> Iterator[Any]:
    """The notes of a rule and of every rule in its fields, outermost first."""
    inside = note
    if isinstance(note, dict):
        if "rule" in note:
            yield note
        inside = note.get("parts", note.get("tuple", note.get("list", ())))
    for value in inside.values() if isinstance(inside, dict) else inside:
        if isinstance(value, (dict, list)):
            yield from _rules_in(value)


def _beta(rule: Any, note: Any) -> Any:
    """The decays of a rule as they were noted; a schedule as it is."""
    noted = note["parts"].get("beta")
    if noted is None or not is_plain_note(noted):
        return rule.beta
    try:
        return rule.checked("beta", decoded(noted))
    except (TypeError, ValueError):  # `fill_rule` noted it
        return rule.beta


def _fits(said: str, state: Any, leaf: Leaf) -> bool:
    """Whether a state is as it was noted; of a narrow parameter it was narrow in older versions."""
    narrow = short(jax.ShapeDtypeStruct(state.shape, leaf.dtype))
    older = is_narrow(leaf) and state.dtype == np.float32 and said == narrow
    return older or said == short(state)


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
