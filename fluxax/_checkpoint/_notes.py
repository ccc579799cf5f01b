"""Writing down: any tree as JSON notes, with its arrays and leaves beside them."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np

from fluxax import _tree
from fluxax._checkpoint._arrays import Stored, stored
from fluxax._checkpoint._functions import description
from fluxax._checkpoint._values import encoded, is_plain
from fluxax._errors import short
from fluxax._implicit._params import Params
from fluxax._module import Module
from fluxax.data._loader import DataLoader
from fluxax.optimisers._keep import states_of
from fluxax.optimisers._remember import by_params, remembers
from fluxax.optimisers._rule import fields_of, is_rule
from fluxax.optimisers._state import Leaf


class Writer:
    """The notes of several things, which may share arrays and leaves."""

    def __init__(self) -> None:
        self.arrays: dict[str, Stored] = {}
        self.leaves: list[dict[str, Any]] = []
        self.rules: dict[str, int] = {}  # notes of rules as JSON, numbered: most leaves have one
        self._names: dict[int, tuple[Any, str]] = {}  # by id; holds the array, so that ids last
        self._numbers: dict[int, tuple[Leaf, int]] = {}

    def thing(self, name: str, value: Any) -> Any:
        """The note of one thing.

        Raises:
            TypeError: if it, or something in it, cannot be kept.
        """
        if is_plain(value):
            return encoded(value)
        value = explicit("save", value)
        if remembers(value):
            raise TypeError(
                f"save expects the pair (opt, ps) for a rule that remembers Params, got "
                f"{short(value)} alone at {name}. Write {name}=(opt, ps)."
            )
        if _is_opaque(value):
            raise _refused(value, name)
        trained = any(
            _tree.is_array(v) or isinstance(v, Module) for _, v in _tree.walk_nodes(value)
        )
        return self._note(value, (), name, trained)

    def _note(self, value: Any, path: _tree.Path, root: str, lenient: bool) -> Any:
        """The note of a value; where lenient, functions are noted and not refused."""
        if _tree.is_array(value):
            return {"array": self._array(value, _tree.path_string(path, root))}
        if isinstance(value, Leaf):
            return {"leaf": self._leaf(value, _tree.path_string(path, root))}
        if is_plain(value):
            return encoded(value)
        if is_rule(value):
            parts = {n: getattr(value, n) for n in fields_of(value)}
            notes = {n: self._note(v, (*path, f".{n}"), root, True) for n, v in parts.items()}
            return {"rule": type(value).__name__, "parts": notes}
        if _tree.kind_of(value) is not None:
            return self._container(value, path, root, lenient)
        position = position_of(value)
        if position is not None:
            return {"position": _sort(value), "state": encoded(position)}
        if not lenient:
            raise _refused(value, _tree.path_string(path, root))
        return {"other": description(value)}

    def _container(self, value: Any, path: _tree.Path, root: str, lenient: bool) -> Any:
        plain = isinstance(value, (list, tuple, dict)) and not hasattr(value, "_fields")
        lenient = lenient or not plain
        notes = {
            key: self._note(part, (*path, key), root, lenient) for key, part in _tree.parts(value)
        }
        if isinstance(value, dict):
            for key in value:
                if not is_plain(key):
                    where = _tree.path_string(path, root)
                    raise TypeError(
                        f"save expects plain keys in a dict, got {short(key)} at {where}."
                    )
            return {"dict": [[encoded(_tree.key_name(k)), note] for k, note in notes.items()]}
        if isinstance(value, list):
            inside, names = [*notes.values()], getattr(value, "names", None) or []
            return {"list": inside, "names": names} if any(names) else inside
        if plain:
            return {"tuple": [*notes.values()]}
        named = {str(_tree.key_name(k)): note for k, note in notes.items()}
        note: dict[str, Any] = {"object": type(value).__name__, "parts": named}
        if getattr(value, "frozen_mark", False) is True:
            note["frozen"] = True
        return note

    def _array(self, array: Any, where: str) -> str:
        """The name of an array in the file; a tied array has one name."""
        if id(array) not in self._names:
            name = where
            while name in self.arrays:  # a thing or a key may be called like a path
                name += "'"
            self.arrays[name] = stored(array, where)
            self._names[id(array)] = array, name
        return self._names[id(array)][1]

    def _leaf(self, leaf: Leaf, where: str) -> int:
        """The number of a leaf; a tied one has one number."""
        if id(leaf) not in self._numbers:
            self._numbers[id(leaf)] = leaf, len(self._numbers)
            states = [
                s if isinstance(s, int) else {"array": self._array(s, f"{where}.state[{i}]")}
                for i, s in enumerate(states_of(leaf))
            ]
            for state in states:
                if not isinstance(state, int):  # small ones come from rows, as NumPy arrays
                    self.arrays[state["array"]].info["of"] = "jax"
            rule = self._note(leaf.rule, (), f"{where}.rule", True)
            note = {
                "rule": self.rules.setdefault(json.dumps(rule), len(self.rules)),
                "state": states,
                "steps": int(leaf.steps),
                "frozen": leaf.frozen,
                "shape": list(leaf.shape),
            }
            self.leaves.append(note)
        return self._numbers[id(leaf)][1]


def explicit(who: str, value: Any) -> Any:
    """A pair `(opt, ps)` of the implicit style as its rule and leaves; others as they are."""
    if type(value) is tuple and len(value) == 2 and isinstance(value[1], Params):
        return [value[0], *by_params(who, *value)[1]]
    return value


def position_of(value: Any) -> Any:
    """Where something stands that gives one thing after the other, as plain values; or `None`.

    These are NumPy's and Python's random generators, and whatever has `state_dict` and
    `load_state_dict`: our DataLoader, and other people's.
    """
    if isinstance(value, np.random.Generator):
        return _plain_arrays(value.bit_generator.state)
    if type(value) is random.Random:
        return value.getstate()
    if callable(getattr(value, "state_dict", None)) and hasattr(value, "load_state_dict"):
        state = dict(value.state_dict())
        if not is_plain(state):
            raise TypeError(
                f"save expects the state_dict of {short(value)} to hold plain values, got others. "
                "Save its arrays as a dict of NumPy arrays."
            )
        follows = getattr(value, "follows", None)  # a DataLoader that has its seed from fx.seed
        return state if follows is None else {**state, FOLLOWS: follows}
    return None


FOLLOWS = "follows fx.seed as loader"


def _sort(value: Any) -> str:
    """What a position is of: the name of a class, with its module if it is called like one we know.

    `_sense` knows what a position of ours, of NumPy's or of Python's must be.
    """
    name, module = type(value).__name__, type(value).__module__
    known = {"DataLoader": DataLoader, "Generator": np.random.Generator, "Random": random.Random}
    return name if type(value) is known.get(name, type(value)) else f"{module}.{name}"


def _plain_arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {k: _plain_arrays(v) for k, v in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


def _is_opaque(value: Any) -> bool:
    return not (
        _tree.is_array(value)
        or _tree.kind_of(value) is not None
        or isinstance(value, Leaf)
        or is_rule(value)
        or position_of(value) is not None
    )


def _refused(value: Any, where: str) -> TypeError:
    return TypeError(
        "save expects models, state trees, loaders, random generators, arrays and plain values, "
        f"got {short(value)} at {where}. Save what you need of it, such as its name or vars(...)."
    )
