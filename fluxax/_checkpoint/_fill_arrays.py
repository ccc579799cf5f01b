"""Filling arrays: which new array stands for a target, and whether ties are the same."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._checkpoint._arrays import described, fits_jax, is_number_array
from fluxax._checkpoint._filling import Filling
from fluxax._errors import short
from fluxax._jax import beside, is_key
from fluxax._parameters import trainable_arrays
from fluxax.optimisers._state import Leaf


def fill_array(filling: Filling, name: str, target: Any, path: _tree.Path) -> Any:
    """The array for a place; tied places get one."""
    info = filling.contents.infos[name]
    if not _tree.is_array(target) or ("key" in info) != is_key(target):
        return filling.differs(path, described(info), target)
    filling.places[path] = name, target
    key = name, id(target)
    if key not in filling.arrays:
        filling.arrays[key] = _new(filling, name, target, path)
    return filling.arrays[key]


def _new(filling: Filling, name: str, target: Any, path: _tree.Path) -> Any:
    info = filling.contents.infos[name]
    host = filling.contents.host(name)
    same = not is_number_array(target) or described(info) == short(target)
    if not same and not (host.shape == target.shape and _convertible(host, target)):
        return filling.differs(path, described(info), target)
    if not same:
        filling.differs(path, described(info), target, "converted")
    if isinstance(target, np.ndarray):
        return _into_numpy(filling, host, target)
    if not same:
        return beside(host.astype(target.dtype), target)
    if not fits_jax({**info, "of": "jax"}):
        filling.note(path, f"{described(info)}, for which JAX needs jax_enable_x64")
        return target
    return filling.contents.array(name, target) if info["of"] == "jax" else beside(host, target)


def _convertible(host: np.ndarray, target: Any) -> bool:
    """Whether one dtype is a wider or narrower form of the other."""
    kinds = (jnp.floating, jnp.complexfloating, np.integer)
    return any(jnp.issubdtype(host.dtype, k) and jnp.issubdtype(target.dtype, k) for k in kinds)


def _into_numpy(filling: Filling, host: np.ndarray, target: np.ndarray) -> Any:
    """A NumPy array keeps its memory, since functions of the user's may name it."""
    if not target.flags.writeable:
        return host.astype(target.dtype)
    filling.actions.append(lambda: np.copyto(target, host, casting="unsafe"))
    return target


def check_ties(filling: Filling, target: Any) -> None:
    """Compare which trained arrays, and which leaves, are one in the file and in the thing.

    Arrays that are not trained are left out: a layer assigns them anew when it runs, and whether
    two were one object is of no consequence.
    """
    trained = {path for path, _ in trainable_arrays(target)} if _is_tree(target) else set()
    mine: dict[Any, _tree.Path] = {}
    theirs: dict[int, _tree.Path] = {}
    for path, (name, here) in filling.places.items():
        if path not in trained and not isinstance(here, Leaf):
            continue
        first, other = mine.setdefault(name, path), theirs.setdefault(id(here), path)
        if first != other:
            tied = first if first != path else other
            both = "in the checkpoint" if first != path else "here"
            filling.note(path, f"tied to {filling.where(tied)} only {both}")


def _is_tree(value: Any) -> bool:
    return _tree.is_array(value) or _tree.kind_of(value) is not None
