"""What a trace must leave as it was: random states, and what methods that ran as they are reach."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from fluxax._compile import _boxes as boxes
from fluxax._compile._spec import Box

_NOTHING: Any = object()

#: Boxes that methods could write to, each with what stood in it.
Before = list[tuple[Box, dict[Any, Any]]]


class ArrayWrite(TypeError):
    """An objective wrote to a NumPy array that it reads from outside."""


def random_state() -> tuple[Any, Any]:
    """Where NumPy's and Python's global random numbers stand."""
    return np.random.get_state(legacy=False), random.getstate()


def restore_random(state: tuple[Any, Any]) -> str | None:
    """Put Python's and NumPy's random state back; what was used, if anything."""
    numpy, python = state
    used = None
    if random.getstate() != python:
        random.setstate(python)
        used = "it draws Python random numbers"
    if not _alike(np.random.get_state(legacy=False), numpy):
        np.random.set_state(numpy)
        used = "it draws NumPy random numbers"
    return used


def _alike(a: Any, b: Any) -> bool:
    """Whether two states of a generator are one, a number kept for the next draw included."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_alike(a[k], b[k]) for k in a)
    return bool(np.array_equal(a, b))


def contents(before: Before) -> list[dict[Any, Any]]:
    """What stands now in everything that methods, which ran as they are, could have changed."""
    return [box.how.now(box.value) for box, _ in before if box.how.now]


def accept(before: Before, found: list[dict[Any, Any]]) -> None:
    """Let stand what was changed since it was `found` so: the function did not do it."""
    for i, (box, then) in enumerate(before):
        now = contents([before[i]])[0]
        if not _same(now, found[i]) and _same(found[i], then):
            before[i] = (box, now)


def _same(now: dict[Any, Any], then: dict[Any, Any]) -> bool:
    return len(now) == len(then) and all(now.get(k, _NOTHING) is v for k, v in then.items())


def restore(before: Before) -> str | None:
    """Undo what methods, which ran as they are, did to what they reach; what, if anything."""
    found = None
    for box, then in before:
        assert box.how.now is not None
        now = box.how.now(box.value)
        if not _same(now, then):
            found = f"it changes `{box.label}`"
            _put_back(box, then)
            if box.how is boxes.ARRAY:
                raise ArrayWrite(
                    f"The objective expects to leave NumPy arrays as they are, got a write to "
                    f"`{box.label}` in a method. Keep it as an attribute, and assign a new array."
                )
    return found


def _put_back(box: Box, then: dict[Any, Any]) -> None:
    if box.how in (boxes.LIST, boxes.DEQUE):
        box.value.clear()
        box.value.extend(then.values())
    elif box.how in (boxes.DICT, boxes.SET):
        box.value.clear()
        box.value.update(then)
    elif box.how is boxes.CELL:
        box.value.cell_contents = then["content"]
    elif box.how is boxes.ARRAY:
        content = np.frombuffer(next(iter(then)), box.value.dtype)
        np.copyto(box.value, content.reshape(box.value.shape))
    elif box.how is boxes.CLASS:
        for name in set(vars(box.value)) - set(then):
            delattr(box.value, name)
        for name, value in then.items():
            if vars(box.value).get(name) is not value:
                setattr(box.value, name, value)
    else:
        box.value.__dict__.update(then)
        for name in set(vars(box.value)) - set(then):
            del box.value.__dict__[name]
