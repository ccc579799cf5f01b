"""Where in the running model a layer stands, found when it refuses its input.

A layer does not know its place. When it raises, the models around it are running: their calls
stand on Python's stack. So the path is looked up there, from the inside out, in containers of ours
and in classes of the user's alike; until something goes wrong this costs nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from fluxax import _tree
from fluxax._compile._reads import is_user_file
from fluxax._errors import InputError, short
from fluxax._module import Module, run

#: A container that calls its parts in a loop keeps in a local variable of this name which one is
#: running, since the same layer may stand there twice.
RUNNING = "_part"

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


def unfit(layer: Any, sentence: str, advice: str = "", who: str = "") -> InputError:
    """The error of a layer, or of a function such as `flatten`: who, what, and at which path.

    A layer is called by its constructor, if that is one line, unless `who` has another name for it.
    """
    if not who:
        who = repr(layer) if isinstance(layer, Module) else layer.__name__
        who = type(layer).__name__ if "\n" in who else who
    return InputError(f"{who} {sentence}", place_of(layer), advice)


def refuse(layer: Any, expected: str, x: Any, advice: str = "") -> InputError:
    """The error for input of another shape."""
    return unfit(layer, f"expects input of shape {expected}, got {short(x)}", advice)


def place_of(layer: Any) -> str:
    """The path of a layer in the outermost model whose call is running: `.layers[2]`.

    Empty for a layer that was called alone.
    """
    place, target = "", layer
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        for owner in _owners(frame, plain=run.trace is not None or not place):
            part = None if owner is target else _part(frame, owner, target)
            if part is not None:
                place, target = part + place, owner
        frame = frame.f_back
    return place


def _owners(frame: FrameType, plain: bool) -> Iterator[Any]:
    """What may contain a layer that runs inside this frame: the Module whose method it is.

    In the user's code it may be any argument, and what is no Module if it is being called; else,
    plain containers count where nothing tells the place, or in an objective, where those that an
    outer function was given have other arrays and layers in them.
    """
    code = frame.f_code
    user = is_user_file(code.co_filename)
    for variable in code.co_varnames[: code.co_argcount if user else min(1, code.co_argcount)]:
        owner = frame.f_locals.get(variable)
        counts = user and (plain or code.co_name == "__call__")
        if isinstance(owner, Module) or (counts and _tree.kind_of(owner) is not None):
            yield owner


def _part(frame: FrameType, owner: Any, target: Any) -> str | None:
    """The path from an owner to a layer; `None` if it is not in there."""
    running = frame.f_locals.get(RUNNING)
    if running is not None and frame.f_code.co_filename.startswith(_OURS):
        return running if isinstance(running, str) else f".layers[{running}]"
    try:
        found = (path for path, part in _tree.walk_nodes(owner) if part is target)
        path = next(found, None)
    except ValueError:  # a cycle: said elsewhere
        return None
    return None if path is None else _tree.path_string(path, "")
