"""Reading back: notes into new values, for what nobody gave an object to fill."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from fluxax import _tree
from fluxax._checkpoint._arrays import fits_jax, host_array, placed
from fluxax._checkpoint._notes import FOLLOWS
from fluxax._checkpoint._values import decoded, is_plain_note

_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


class Contents:
    """What a file holds: notes, leaves, arrays."""

    def __init__(self, manifest: dict[str, Any], data: dict[str, np.ndarray]):
        self.things: dict[str, Any] = manifest["things"]
        rules = manifest["rules"]
        self.leaves: list[dict[str, Any]] = [
            {**leaf, "rule": rules[leaf["rule"]]} for leaf in manifest["leaves"]
        ]
        self.infos: dict[str, Any] = manifest["arrays"]
        self.random: dict[str, Any] = manifest["random"]
        self._data = data
        self._made: dict[str, Any] = {}

    def host(self, name: str) -> np.ndarray:
        """An array on the host; not to be written to."""
        return host_array(self._data[name], self.infos[name])

    def array(self, name: str, like: Any = None) -> Any:
        """An array as it was saved; where JAX cannot hold it now, as a NumPy array."""
        info = self.infos[name]
        return placed(self.host(name), info if fits_jax(info) else {**info, "of": "numpy"}, like)

    def value(self, note: Any) -> Any:
        """What a note stands for: Nodes for objects, `None` for functions; ties are kept."""
        if is_plain_note(note):
            return decoded(note)
        if isinstance(note, list):
            return [self.value(v) for v in note]
        if "array" in note:
            name = note["array"]
            if name not in self._made:
                self._made[name] = self.array(name)
            return self._made[name]
        if "list" in note:
            return _tree.NamedList(map(self.value, note["list"]), note["names"])
        if "tuple" in note:
            return tuple(map(self.value, note["tuple"]))
        if "dict" in note:
            return {decoded(k): self.value(v) for k, v in note["dict"]}
        if "leaf" in note:
            return self._leaf(note["leaf"])
        if "position" in note:
            return position(note["position"], decoded(note["state"]))
        if "parts" in note:
            return _tree.Node(**{k: self.value(v) for k, v in note["parts"].items()})
        return None

    def _leaf(self, number: int) -> Any:
        """A leaf of a state tree, as a Node of its settings and states."""
        leaf = self.leaves[number]
        rule = _tree.Node(name=leaf["rule"]["rule"], **vars(self.value(leaf["rule"])))
        states = [self.value(s) for s in leaf["state"]]
        return _tree.Node(rule=rule, state=states, steps=leaf["steps"], frozen=leaf["frozen"])


def position(kind: str, state: Any) -> Any:
    """A random generator in its state; of anything else the state alone."""
    if kind == "Generator" and state.get("bit_generator") in _GENERATORS:
        new = np.random.Generator(getattr(np.random, state["bit_generator"])())
        new.bit_generator.state = state
        return new
    if kind == "Random":
        new = random.Random()
        new.setstate(state)
        return new
    return {k: v for k, v in state.items() if k != FOLLOWS}
