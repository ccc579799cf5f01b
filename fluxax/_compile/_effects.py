"""What a trace must leave as it was: random states, and what methods that ran as they are reach."""

from __future__ import annotations

import collections
import functools
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fluxax._compile import _boxes as boxes
from fluxax._compile._forms import form_of
from fluxax._compile._spec import NOTHING, Box, How, Part, same_state

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
    return [box.how.state(box.value) for box, _ in before]


def accept(before: Before, found: list[dict[Any, Any]]) -> None:
    """Let stand what was changed since it was `found` so: the function did not do it."""
    for i, (box, then) in enumerate(before):
        now = box.how.state(box.value)
        if not same_state(now, found[i]) and same_state(found[i], then):
            before[i] = (box, now)


def restore(before: Before) -> str | None:
    """Undo what methods, which ran as they are, did to what they reach; what, if anything."""
    found = None
    for box, then in before:
        if not same_state(box.how.state(box.value), then):
            found = f"it changes `{box.label}`"
            _put_back(box, then)
            if box.how is boxes.ARRAY:
                raise ArrayWrite(
                    f"The objective expects to leave NumPy arrays as they are, got a write to "
                    f"`{box.label}` in a method. Keep it as an attribute, and assign a new array."
                )
    return found


def _put_back(box: Box, then: dict[Any, Any]) -> None:
    """The inverse of `How.state`; no method of a class of the user's runs."""
    value: Any = box.value
    about = {k.name: v for k, v in then.items() if type(k) is Part and k.sort == "about"}
    then = {k: v for k, v in then.items() if type(k) is not Part or k.sort != "about"}
    items = {k: v for k, v in then.items() if type(k) is not Part}
    if box.how in _PUT_ABOUT:
        _PUT_ABOUT[box.how](value, about)
    elif "__class__" in about:
        _put_class(value, about)
    if box.how in (boxes.CELL, boxes.EMPTY_CELL):
        if items:
            value.cell_contents = items["content"]
        else:
            del value.cell_contents
    elif box.how is boxes.ARRAY:
        _put_content(value, next(iter(then)), about["writeable"])
    elif box.how is boxes.CLASS:
        for name in set(vars(value)) - set(then):
            type.__delattr__(value, name)
        for name, old in then.items():
            if vars(value).get(name) is not old:
                type.__setattr__(value, name, old)
    elif box.how is boxes.PYMODULE:
        own = {k: v for k, v in vars(value).items() if k in boxes.OF_PYTHON}
        _put_names(vars(value), own | then)
    elif box.how.name == "steady module":
        for name in set(box.how.state(value)) - set(then):
            del vars(value)[name]
        vars(value).update(then)
    elif box.how in (boxes.JITTED, boxes.CACHED):
        new = boxes.attributes_of_wrapper(value)
        own = {k: v for k, v in vars(value).items() if k not in new}
        _put_names(vars(value), own | then)
    elif box.how in (boxes.FUNCTION, boxes.PARTIAL, boxes.ENUM):
        _put_names(vars(value), then)
    elif box.how in _PUT_ITEMS:
        _PUT_ITEMS[box.how](value, items)
        _put_attributes(value, {k.name: v for k, v in then.items() if type(k) is Part})
    else:
        _put_attributes(value, {k.name if type(k) is Part else k: v for k, v in then.items()})


def _put_class(value: Any, about: dict[Any, Any]) -> None:
    if type(value) is not about["__class__"]:
        vars(object)["__class__"].__set__(value, about["__class__"])
    if "__dict__" in about and value.__dict__ is not about["__dict__"]:
        object.__setattr__(value, "__dict__", about["__dict__"])


def _put_about_function(f: Any, about: dict[Any, Any]) -> None:
    for name in boxes.FUNCTION_NAMES:
        if getattr(f, name) is not about[name]:
            setattr(f, name, about[name])
    _put_keywords(f.__kwdefaults__, about)


def _put_about_class(cls: Any, about: dict[Any, Any]) -> None:
    for name in boxes.CLASS_NAMES:
        descriptor = vars(type)[name]
        if descriptor.__get__(cls) is not about[name]:
            descriptor.__set__(cls, about[name])


def _put_about_partial(p: Any, about: dict[Any, Any]) -> None:
    parts = about["func"], about["args"], about["keywords"]
    if any(a is not b for a, b in zip((p.func, p.args, p.keywords), parts, strict=True)):
        vars(functools.partial)["__setstate__"](p, (*parts, p.__dict__))
    _put_keywords(p.keywords, about)


def _put_keywords(space: Any, about: dict[Any, Any]) -> None:
    if space is not None:
        _put_names(space, {k[1]: v for k, v in about.items() if type(k) is tuple})


def _put_about_array(array: Any, about: dict[Any, Any]) -> None:
    shape = tuple(v for k, v in about.items() if type(k) is tuple)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # for who wrote it so
        if array.dtype is not about["dtype"]:
            array.dtype = about["dtype"]
        if array.shape != shape:
            array.shape = shape


def _put_content(array: Any, content: bytes, writeable: bool) -> None:
    if array.tobytes() != content:
        array.flags.writeable = True
        np.copyto(array, np.frombuffer(content, array.dtype).reshape(array.shape))
    array.flags.writeable = writeable


_PUT_ABOUT: dict[How, Callable[[Any, dict[Any, Any]], None]] = {
    boxes.FUNCTION: _put_about_function,
    boxes.CLASS: _put_about_class,
    boxes.PARTIAL: _put_about_partial,
    boxes.ARRAY: _put_about_array,
}


def _put_deque(value: Any, items: dict[Any, Any]) -> None:
    collections.deque.clear(value)
    collections.deque.extend(value, items.values())


def _put_dict(value: Any, items: dict[Any, Any]) -> None:
    base: Any = boxes.base_of_dict(value)
    base.clear(value)
    for key, item in items.items():
        base.__setitem__(value, key, item)


def _put_set(value: Any, items: dict[Any, Any]) -> None:
    set.clear(value)
    set.update(value, items)


_PUT_ITEMS: dict[How, Callable[[Any, dict[Any, Any]], None]] = {
    boxes.LIST: lambda value, items: list.__setitem__(value, slice(None), list(items.values())),
    boxes.DEQUE: _put_deque,
    boxes.DICT: _put_dict,
    boxes.SET: _put_set,
}


def _put_attributes(value: Any, then: dict[Any, Any]) -> None:
    """What stood in an instance's slots and dict, and nothing else."""
    form = form_of(type(value))
    for slot in form.slots if form else ():
        if slot in then:
            slot.descriptor.__set__(value, then[slot])
        elif slot in boxes.attributes(value) or Part("attribute", slot) in boxes.attributes(value):
            slot.descriptor.__delete__(value)
    if form and form.base is collections.defaultdict:
        value.default_factory = then["default_factory"]
    if (form is None or form.has_dict) and value.__dict__ is not value:
        beside = {"default_factory"} if form and form.base is collections.defaultdict else ()
        slots = [*(form.slots if form else ()), *beside]
        _put_names(value.__dict__, {k: v for k, v in then.items() if k not in slots})


def _put_names(space: dict[str, Any], then: dict[Any, Any]) -> None:
    """Make a namespace what it was, its order too; what stands there already is not touched."""
    for name in set(space) - set(then):
        del space[name]
    for name, old in then.items():
        if space.get(name, NOTHING) is not old:
            space[name] = old
    if list(space) != list(then):
        for name in then:
            space[name] = space.pop(name)
