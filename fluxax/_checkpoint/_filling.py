"""What filling keeps track of: differences, assignments for later, and doing them all or none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

from fluxax import _tree
from fluxax._checkpoint._arrays import described
from fluxax._checkpoint._functions import named
from fluxax._checkpoint._restore import Contents
from fluxax._checkpoint._values import decoded, is_plain_note
from fluxax._errors import article, short
from fluxax.optimisers._keep import Refill
from fluxax.optimisers._rule import changed
from fluxax.optimisers._state import Leaf

LEFT = "left as it is"


class Difference(NamedTuple):
    """One place that does not fit: what is wrong there, and what `strict=False` does about it."""

    text: str
    done: str = LEFT


class Filling:
    """The comparison of things with what a file holds.

    Attributes:
        root: the name of the thing at hand.
        differences: the places that do not fit.
        risky: actions that may fail, each with what undoes it and the place it is about.
        actions: plain assignments, which may run twice.
        resuming: whether something was met that goes on with a run.
        refill: the states of leaves.
        leaves: the leaves that were met, by id.
        arrays: the new arrays, by name in the file and the id of the target.
        places: by path in the thing at hand: name in the file or number of a leaf, and the target.
    """

    def __init__(self, contents: Contents):
        self.contents = contents
        self.root = ""
        self.differences: list[Difference] = []
        self.risky: list[tuple[Callable[[], Any], Callable[[], Any], str]] = []
        self.actions: list[Callable[[], Any]] = []
        self.resuming = False
        self.refill = Refill()
        self.leaves: dict[int, Leaf] = {}
        self.arrays: dict[tuple[str, int], Any] = {}
        self.places: dict[_tree.Path, tuple[Any, Any]] = {}

    def where(self, path: _tree.Path) -> str:
        """A path as it is printed."""
        return _tree.path_string(path, self.root)

    def differs(self, path: _tree.Path, saved: str, target: Any, done: str = LEFT) -> Any:
        """Note that something else stands at a place; gives what stands there."""
        here = NOTHING if target is NOTHING else shown(target)
        self.note(path, f"{saved} in the checkpoint, {here} here", done)
        return target

    def note(self, path: _tree.Path, text: str, done: str = LEFT) -> None:
        """Note a difference in words of its own."""
        self.differences.append(Difference(f"{self.where(path)}: {text}", done))

    def said(self, note: Any) -> str:
        """A note of the file in a few characters."""
        if is_plain_note(note):
            return shown(decoded(note))
        if isinstance(note, list):
            return f"a list of {len(note)}"
        if "list" in note:
            return named_list(note["names"])
        if "array" in note:
            return described(self.contents.infos[note["array"]])
        if "leaf" in note:
            rule = self.contents.leaves[note["leaf"]]["rule"]["rule"]
            return f"a Leaf of {rule}"
        if "other" in note:
            return named(note["other"])
        name = next((note[tag] for tag in ("object", "rule", "position") if tag in note), None)
        tag = next(iter(note))
        return article(name) if name else f"a {tag} of {len(note[tag])}"

    def commit(self) -> None:
        """Do all that was kept: either all of it happens or nothing."""
        for store, arrays, counts in self.refill.ready():

            def put(store: Any = store, arrays: Any = arrays, counts: Any = counts) -> None:
                store.arrays, store.counts = arrays, counts

            self.actions.append(put)
        self.actions.append(changed)
        done: list[Callable[[], Any]] = []
        try:
            for act, undo, where in self.risky:
                done.append(undo)
                _positioned(act, where)
        except BaseException:
            for undo in reversed(done):
                with contextlib.suppress(Exception):  # the first error is the one to tell
                    undo()
            raise
        _all(self.actions)


def _positioned(act: Callable[[], Any], where: str) -> None:
    """Give something its position; what it refuses is about the file."""
    try:
        act()
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"load expects a position that fits, got one that was refused at {where}: {error}"
        ) from error


def _all(actions: list[Callable[[], Any]]) -> None:
    """Run assignments that may run twice; again from the start if a Ctrl-C falls between them."""
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            for act in actions:
                act()
            break
        except KeyboardInterrupt as signal:
            interrupted = signal
    if interrupted is not None:
        raise interrupted


NOTHING = "nothing"


def shown(value: Any) -> str:
    """What stands somewhere, in a few characters."""
    if isinstance(value, Leaf):
        return f"a Leaf of {type(value.rule).__name__}"
    if isinstance(value, _tree.NamedList):
        return named_list(value.names)
    return short(value)


def named_list(names: list[str | None]) -> str:
    """A list whose items have names, in a few characters."""
    if not any(names):
        return f"a list of {len(names)}"
    return f"a list of {', '.join(name or '...' for name in names)}"
