"""Putting the numbers of one tree into another: `loadmodel`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import SequenceKey

from fluxax import _tree
from fluxax._errors import short
from fluxax._jax import beside, is_key, is_tracer
from fluxax._parameters import put
from fluxax._tensors import array_of, is_tensor


def loadmodel(model: Any, new: Any, *, filter: Callable[[Any], bool] | None = None) -> Any:
    """Put the numbers of another tree into a model, in place; ties of the model are kept.

    The model gets arrays of its own, of its dtypes and on its devices, so that two models that
    were given the same numbers go on apart. A bias that only the model has becomes zero, and one
    that only the other tree has is left out, as in Flux.

    Args:
        model: a tree that is changed in place, as deep as its containers allow.
        new: a tree nested alike: a model, the result of `fmap`, of `state`. Its arrays may be
            NumPy's or PyTorch's.
        filter: which parts (layers, arrays, anything in a container) take part; those for which it
            is false are left out on both sides, and those after them in a list move up.

    Returns:
        The model; another one only where it cannot be changed itself (a tuple, an array).

    Raises:
        ValueError: if the two differ in structure, in a shape or in the kind of numbers (complex
            ones do not fit a real model), or a whole number is too large; nothing is changed then.
        TypeError: if `filter` is no function.

    Example:
        >>> import fluxax as fx
        >>> first, second = fx.Dense(2, 3), fx.Dense(2, 3)
        >>> bool((fx.loadmodel(second, first).weight == first.weight).all())
        True
        >>> old = fx.Chain(fx.Dense(2, 3), fx.Dropout(0.5), fx.Dense(3, 1))
        >>> new = fx.Chain(fx.Dense(2, 3), fx.Dense(3, 1))
        >>> _ = fx.loadmodel(new, old, filter=lambda part: not isinstance(part, fx.Dropout))
        >>> bool((new[1].weight == old[2].weight).all())
        True
    """
    keep = filter or (lambda part: True)
    if not callable(keep):
        raise TypeError(f"loadmodel expects `filter` to be a function, got {short(filter)}.")
    mine, theirs = (dict(_places(tree, keep)) for tree in (model, new))
    _check_structure(mine, theirs)
    mine = {key: array for key, array in mine.items() if array is not None}
    given = {
        k: np.zeros(old.shape, bool) if theirs[k] is None else theirs[k] for k, old in mine.items()
    }
    for key, old in mine.items():
        if old.shape != given[key].shape or not _holds(old, given[key]):
            raise ValueError(
                f"loadmodel expects {short(old)} at {_name(key)}, got {short(given[key])}."
            )
        _check_range(key, old, given[key])
    _check_ties(mine, given)
    # all of them are made before the first is put into its place
    fresh = {id(old): _own(given[key], old) for key, old in mine.items()}
    return _put_all(model, fresh)


def _put_all(model: Any, fresh: dict[int, Any]) -> Any:
    """Put arrays in the places of others, by their ids; also if a Ctrl-C falls in between."""
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            model = put(model, lambda _, old: fresh.get(id(old), old))
            break
        except KeyboardInterrupt as signal:
            interrupted = signal
    if interrupted is not None:
        raise interrupted
    return model


#: The names on a path, one by one: `.a` and `.b` are not one `.a.b`. In a list from which parts
#: were left out, the others are counted anew.
_Key = tuple[str, ...]


def _places(tree: Any, keep: Callable[[Any], bool]) -> Iterator[tuple[_Key, Any]]:
    """The arrays of a tree, and `None` for a bias that is none."""
    for _ in _tree.walk_nodes(tree):  # a cycle is an error
        pass
    return _below((), tree, keep)


def _below(key: _Key, value: Any, keep: Callable[[Any], bool]) -> Iterator[tuple[_Key, Any]]:
    if is_tensor(value):
        value = array_of(value)
    if _tree.is_array(value):
        yield key, value
    elif _tree.kind_of(value) is not None:
        kept = [pair for pair in _tree.parts(value) if keep(pair[1])]
        for i, (name, part) in enumerate(kept):
            called = f"[{i}]" if isinstance(name, SequenceKey) else str(name)
            yield from _below((*key, called), part, keep)
    elif (value is None or value is False) and key[-1:] in ((".bias",), ("['bias']",)):
        yield key, None


def _name(key: _Key) -> str:
    return "model" + "".join(key)


_SHOWN = 6  # how many places of a sort an error lists


def _check_structure(mine: dict[_Key, Any], theirs: dict[_Key, Any]) -> None:
    """An error that lists the arrays which only one of two trees has."""
    lacking = [_name(k) for k, v in mine.items() if k not in theirs and v is not None]
    besides = [_name(k) for k, v in theirs.items() if k not in mine and v is not None]
    if lacking or besides:
        parts = [f"without {_listed(lacking)}"] * bool(lacking)
        parts += [f"with {_listed(besides)} besides"] * bool(besides)
        raise ValueError(
            f"loadmodel expects a tree with the arrays of the model, got one {', '.join(parts)}. "
            "Leave parts out on both sides with filter=."
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _holds(old: Any, new: Any) -> bool:
    """Whether an array can take the numbers of another one, rounded at most."""
    if is_key(old) or is_key(new):
        return old.dtype == new.dtype
    return 0 <= _kind(new) <= _kind(old)


def _check_range(key: _Key, old: Any, new: Any) -> None:
    """Whole numbers must fit: what is too large for them would not be rounded, but wrapped."""
    if is_key(old) or not _kind(old) == _kind(new) == _WHOLE or is_tracer(old) or is_tracer(new):
        return
    host = np.asarray(new)
    if not (host.astype(old.dtype) == host).all():
        raise ValueError(
            f"loadmodel expects numbers that {short(old)} can hold at {_name(key)}, got "
            f"{short(new)} from {host.min()} to {host.max()}."
        )


_KINDS = (np.bool_, np.integer, np.floating, np.complexfloating)
_WHOLE = 1


def _kind(array: Any) -> int:
    """Which kind of numbers an array has; -1 for what are none, such as text."""
    return next((i for i, k in enumerate(_KINDS) if jnp.issubdtype(array.dtype, k)), -1)


def _own(new: Any, old: Any) -> Any:
    """The numbers of `new` as an array like `old` that nobody else has.

    The same array object in two models would be one tied parameter of a tree that holds both.
    """
    if new is old or is_tracer(new) or is_tracer(old):
        return new if new.dtype == old.dtype else new.astype(old.dtype)
    if not isinstance(old, jax.Array):
        return np.array(new, old.dtype)
    alike = isinstance(new, jax.Array) and new.dtype == old.dtype
    if alike and (old.committed or not new.committed or is_key(old)):
        return jax.device_put(new, old.sharding if old.committed else None, may_alias=False)
    return beside(np.array(new, old.dtype), old)


def _check_ties(mine: dict[_Key, Any], given: dict[_Key, Any]) -> None:
    first: dict[int, _Key] = {}
    for key, array in mine.items():
        before = first.setdefault(id(array), key)
        a, b = given[before], given[key]
        if a is not b and not _same(a, b):
            raise ValueError(
                f"loadmodel expects one value for the tied {_name(before)} and {_name(key)}, "
                "got two. Untie them first."
            )


def _same(a: Any, b: Any) -> bool:
    """Whether two arrays of one shape hold the same numbers, NaN as well."""
    if is_key(a) or is_key(b):
        return bool((a == b).all())
    if is_tracer(a) or is_tracer(b):
        return bool(jnp.array_equal(a, b))
    return bool(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=_kind(a) > _WHOLE))
