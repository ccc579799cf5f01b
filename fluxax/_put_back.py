"""Taking back what a step did to a model, where it ended halfway."""

from __future__ import annotations

from typing import Any

import numpy as np

from fluxax import _tree
from fluxax._parameters import trainable_arrays


class Before:
    """The arrays of a model before a step whose two halves, layers and rules, write one by one."""

    def __init__(self, model: Any):
        self._trained = {id(a) for _, a in trainable_arrays(model)}
        self._places: list[tuple[Any, Any, Any, Any]] = [
            (kind, owner, key, part)
            for kind, owner in _containers(model)
            for key, part in kind.parts(owner)
            if _tree.is_array(part) or isinstance(part, tuple)
        ]

    def put_back(self) -> None:
        """Undo what layers wrote to arrays; but where there are new parameters, it was a step."""
        while True:
            try:
                written = [place for place in self._places if _now(*place) is not place[-1]]
                if not any(map(self._moved, written)):
                    for kind, owner, key, part in written:
                        kind.assign(owner, key, part)
                return
            except KeyboardInterrupt:  # again; the first one comes out
                continue

    def _moved(self, place: tuple[Any, Any, Any, Any]) -> bool:
        """Whether a parameter is another; as a JAX array, NumPy's may be the same."""
        old, now = place[-1], _now(*place)
        if isinstance(old, tuple):
            return not _tree.is_array(now) and self._any_moved(old, now)
        return id(old) in self._trained and not (
            isinstance(old, np.ndarray) and np.array_equal(old, np.asarray(now))
        )

    def _any_moved(self, old: Any, now: Any) -> bool:
        """The same of a tuple, which is replaced as a whole."""
        there = dict(_tree.arrays(now))
        return any(
            id(a) in self._trained and there.get(path) is not a for path, a in _tree.arrays(old)
        )


def _containers(model: Any) -> list[tuple[Any, Any]]:
    """What of a model can be changed in place, each once, with how that is done."""
    found = {id(v): (_tree.kind_of(v), v) for _, v in _tree.walk_nodes(model)}
    return [(kind, v) for kind, v in found.values() if kind is not None and kind.assign is not None]


def _now(kind: Any, owner: Any, key: Any, _: Any) -> Any:
    """What stands in a place now; `None` if it is gone."""
    return dict(kind.parts(owner)).get(key)
