"""save and load: the front of the room."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import jax
import jaxlib.version
import numpy as np

from fluxax import _random
from fluxax._between import read_between
from fluxax._checkpoint._arrays import Stored
from fluxax._checkpoint._file import Damaged, pack, read
from fluxax._checkpoint._fill import fill_thing
from fluxax._checkpoint._filling import Difference, Filling
from fluxax._checkpoint._notes import Writer
from fluxax._checkpoint._restore import Contents
from fluxax._checkpoint._values import decoded, encoded
from fluxax._checkpoint._write import replace, target
from fluxax._errors import short, warn
from fluxax.data import _order

_MOST_LINES = 12  # of differences in an error


def save(path: Any, **things: Any) -> None:
    """Keep things in one file, which is replaced as a whole: never half a checkpoint.

    The file is in the safetensors format, with a JSON manifest and checksums inside. The state of
    the random numbers behind `fx.seed` is kept with it.

    Args:
        path: of the file; its folder must exist.
        things: by name: models and other trees of arrays, state trees, loaders (their position),
            NumPy's random generators, and plain values (numbers, text, bytes, `None`, lists,
            tuples, dicts, sets).

    Raises:
        TypeError: for what cannot be kept, such as a function or an object of another class.
        OSError: if the file cannot be written; what stood there is as it was.

    Example:
        >>> import fluxax as fx, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "run.safetensors")
        >>> model = fx.Dense(2, 3)
        >>> opt_state = fx.setup(fx.Adam(), model)
        >>> fx.save(path, model=model, opt_state=opt_state, epoch=3)
        >>> fx.load(path, model=model, opt_state=opt_state)["epoch"]
        3
    """
    if not things:
        raise ValueError("save expects something to keep, got only a path. Write model=model.")
    write(_path("save", path), things)


def write(path: Path, things: dict[str, Any], **more: Any) -> None:
    """Write a checkpoint, with further plain entries in its manifest."""
    path = target(path)
    manifest, arrays = read_between(_noted, things)
    replace(path, pack({**manifest, **more}, arrays))


def _noted(things: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Stored]]:
    """The manifest of things, and their arrays: on the host, where no step takes them over."""
    writer = Writer()
    notes = {}
    for name, value in things.items():
        if name == "__metadata__":  # the format's own word
            raise ValueError(f"save expects names of things, got {name!r}. Choose another.")
        try:
            notes[name] = writer.thing(name, value)
        except RecursionError:
            raise ValueError(
                f"save expects a tree, got one that contains itself at {name}."
            ) from None
    manifest = {
        "written": versions(),
        "things": notes,
        "leaves": writer.leaves,
        "rules": [json.loads(rule) for rule in writer.rules],
        "random": {
            **{k: encoded(v) for k, v in _random.position().items()},
            "loaders": _order.made(),
        },
    }
    return manifest, writer.arrays


def versions() -> dict[str, str]:
    """The versions that a checkpoint is written with."""
    return {
        "fluxax": sys.modules["fluxax"].__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.version.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def load(path: Any, *, strict: bool = True, **things: Any) -> dict[str, Any]:
    """Read what `save` wrote, and fill what is given in place: all of it or nothing.

    Every checksum is checked first. No code of the file's choosing is run.

    Args:
        path: of the file.
        strict: refuse things that are not nested like those in the file. With `False`, fill what
            fits and say in a warning what did not.
        things: by name, as in `save`: the objects to fill. Plain lists, dicts and sets are filled
            too; numbers, text and JAX arrays cannot be changed: take them from the result.

    Returns:
        Everything in the file by name: the filled objects, and what was not given as plain data
        (a model as a tree of Nodes, which `loadmodel` takes; of a loader its `state_dict`).

    Where a state tree, a loader or a random generator is given, which go on with a run, the random
    numbers behind `fx.seed` go on too, from where they stood.

    Raises:
        ValueError: if the file is damaged, of a newer format, or does not fit; nothing is changed.
        OSError: if the file cannot be read.

    Example:
        >>> import fluxax as fx, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "run.safetensors")
        >>> fx.save(path, model=fx.Dense(2, 3))
        >>> fx.load(path, model=fx.Dense(2, 4))
        Traceback (most recent call last):
        ...
        ValueError: load expects things nested like those in the checkpoint, got 2 differences:
          model.weight: f32[2,3] in the checkpoint, f32[2,4] here
          model.bias: f32[3] in the checkpoint, f32[4] here
        Build them as they were, or pass strict=False to fill what fits.
    """
    path = _path("load", path)
    try:
        filling, filled, others = _compared(Contents(*_read(path)), things)
    except RecursionError:
        raise Damaged(
            f"load expects a checkpoint that Python can follow, got {str(path)!r}, which is nested "
            "too deeply."
        ) from None
    if filling.differences and strict:
        raise ValueError(_refusal(filling.differences))
    filling.commit()
    if filling.differences:
        warn(_report(filling.differences))
    known = filling.contents.things
    return {k: filled[k] if k in filled else others[k] for k in known}


def _compared(contents: Contents, things: dict[str, Any]) -> tuple[Filling, Any, Any]:
    """What is to be done, what the things will be then, and the others; nothing is changed."""
    filling = Filling(contents)
    for name in things:
        if name not in contents.things:
            known = ", ".join(contents.things)
            filling.differences.append(
                Difference(f"{name}: not in the checkpoint, which has {known}")
            )
    given = [name for name in contents.things if name in things]
    filled = {name: fill_thing(filling, name, things[name]) for name in given}
    others = {k: contents.value(v) for k, v in contents.things.items() if k not in filled}
    if filling.resuming:
        stands = _random.at_position({k: decoded(v) for k, v in contents.random.items()})
        filling.actions.insert(0, lambda: _go_on(stands, contents.random["loaders"]))
    return filling, filled, others


def _go_on(stands: tuple[np.random.Generator, int], loaders: int) -> None:
    _random.install(*stands)
    _order.go_on(loaders)


def _refusal(differences: list[Difference]) -> str:
    lines = [f"  {d.text}" for d in differences[:_MOST_LINES]]
    if len(differences) > _MOST_LINES:
        lines.append(f"  and {len(differences) - _MOST_LINES} more")
    count = f"{len(differences)} difference{'s' if len(differences) > 1 else ''}"
    return "\n".join(
        [
            f"load expects things nested like those in the checkpoint, got {count}:",
            *lines,
            "Build them as they were, or pass strict=False to fill what fits.",
        ]
    )


def _report(differences: list[Difference]) -> str:
    lines = [f"  {d.text}: {d.done}" for d in differences]
    return "\n".join(["load filled what fits. What did not:", *lines])


def _path(who: str, path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"{who} expects a path first, got {short(path)}. Write {who}(path, model=model)."
        )
    if "\0" in os.fsdecode(path):
        raise ValueError(
            f"{who} expects a path, got {os.fsdecode(path)!r}, which no file can have."
        )
    return Path(os.fsdecode(path))


def _read(path: Path) -> Any:
    opened: list[Any] = []
    try:
        try:
            opened.append(path.open("rb"))
            return read(opened[0], path)
        finally:
            _close(opened)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"load expects a checkpoint, got {str(path)!r}, which is not there."
        ) from None
    except IsADirectoryError:
        raise IsADirectoryError(
            f"load expects the path of a file, got the folder {str(path)!r}."
        ) from None
    except OSError as error:
        raise OSError(
            error.errno, f"load could not read the checkpoint: {error.strerror}", str(path)
        ) from None
    finally:  # once more, if a Ctrl-C came just there
        _close(opened)


def _close(opened: list[Any]) -> None:
    while opened:
        opened[-1].close()
        opened.pop()
