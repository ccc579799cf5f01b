"""The arrays of a model: which are trained, and how to look at all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._errors import short
from fluxax._jax import beside, is_key, is_tracer
from fluxax._module import Module


def trainable_arrays(
    tree: Any, path: _tree.Path = (), _above: tuple[int, ...] = ()
) -> Iterator[tuple[_tree.Path, Any]]:
    """Every array that is trained, with its path; tied ones as often as they stand there.

    These are the floating and complex arrays, except those that a Module's `trainable` leaves out.
    """
    if _tree.is_array(tree):
        if _tree.is_inexact(tree):
            yield path, tree
        return
    if id(tree) in _above:
        raise _tree.cycle(path)
    chosen = tree.trainable if isinstance(tree, Module) else None
    for key, part in _tree.parts(tree):
        if chosen is None or _tree.key_name(key) in chosen:
            yield from trainable_arrays(part, (*path, key), (*_above, id(tree)))


def trainables(model: Any) -> list[Any]:
    """The trained arrays of a model in order, tied ones once.

    Example:
        >>> import fluxax as fx
        >>> [w.shape for w in fx.trainables(fx.Dense(2, 3))]
        [(2, 3), (3,)]
    """
    return list({id(a): a for _, a in trainable_arrays(model)}.values())


def fmap(f: Callable[..., Any], tree: Any, *trees: Any) -> Any:
    """A new tree with `f(array, *partners)` in place of every array of the first.

    Tied arrays are given to `f` once and stay tied. An array whose partner is `None` stays as it
    is. The partners stand at the same places of `trees`, which may be gradients of `tree`.

    Args:
        f: takes an array and its partners, gives an array.
        tree: any tree of arrays, such as a model.
        trees: trees nested alike.

    Raises:
        ValueError: if a tree is nested differently.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.fmap(lambda p, g: p - 0.1 * g, {"w": jnp.ones(2)}, {"w": jnp.ones(2)})
        {'w': Array([0.9, 0.9], dtype=float32)}
    """
    if not callable(f):
        raise TypeError(f"fmap expects a function first, got {short(f)}. Write fmap(f, tree).")
    for _ in _tree.walk_nodes(tree):  # a cycle is an error
        pass
    done: dict[int, tuple[Any, Any]] = {}

    def at(leaf: Any, *partners: Any) -> Any:
        if not _tree.is_array(leaf):
            return leaf
        if id(leaf) not in done:
            new = leaf if any(p is None for p in partners) else f(leaf, *partners)
            if new is leaf and partners:
                return leaf  # a later place of a tied array may have the partner
            done[id(leaf)] = (leaf, new)
        return done[id(leaf)][1]

    new = _tree.map_leaves(at, tree, *trees)
    if not trees or not done:
        return new
    replaced = {i: n for i, (_, n) in done.items()}
    return _tree.map_leaves(lambda v: replaced.get(id(v), v) if _tree.is_array(v) else v, new)


def loadmodel(model: Any, new: Any) -> Any:
    """Put the numbers of another tree into a model, in place; ties of the model are kept.

    The model gets arrays of its own, of its dtypes and on its devices, so that two models that
    were given the same numbers go on apart.

    Args:
        model: a tree that is changed in place, as deep as its containers allow.
        new: a tree nested alike: a model, the result of `fmap`, of `state`.

    Returns:
        The model; another one only where it cannot be changed itself (a tuple, an array).

    Raises:
        ValueError: if the two differ in structure, in a shape or in the kind of numbers (complex
            ones do not fit a real model); nothing is changed then.

    Example:
        >>> import fluxax as fx
        >>> first, second = fx.Dense(2, 3), fx.Dense(2, 3)
        >>> bool((fx.loadmodel(second, first).weight == first.weight).all())
        True
    """
    theirs = dict(_named_arrays(new))
    mine = dict(_named_arrays(model))
    for key in [*mine, *theirs]:
        name = "model" + "".join(key)
        if key not in mine or key not in theirs:
            lacking = "the model" if key not in mine else "the tree that was given"
            raise ValueError(
                f"loadmodel expects trees of one structure, got an array at {name} that "
                f"{lacking} lacks."
            )
        if mine[key].shape != theirs[key].shape or not _holds(mine[key], theirs[key]):
            raise ValueError(
                f"loadmodel expects {short(mine[key])} at {name}, got {short(theirs[key])}."
            )
    _check_ties(mine, theirs)
    fresh: dict[int, Any] = {}

    def own(path: _tree.Path, old: Any) -> Any:
        if id(old) in fresh:  # of a layer that stands in two places
            return old
        given = theirs[_key(path)]
        now = _own(given, old)
        if now is not given:
            fresh[id(now)] = now
        return now

    return put(model, own)


def _holds(old: Any, new: Any) -> bool:
    """Whether an array can take the numbers of another one, rounded at most."""
    if is_key(old) or is_key(new):
        return old.dtype == new.dtype
    kinds = (np.bool_, np.integer, np.floating, np.complexfloating)
    a, b = (next(i for i, k in enumerate(kinds) if jnp.issubdtype(x.dtype, k)) for x in (old, new))
    return b <= a


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


_Key = tuple[str, ...]


def _key(path: _tree.Path) -> _Key:
    """A path by the names in it, one by one: `.a` and `.b` are not one `.a.b`."""
    return tuple(map(str, path))


def _named_arrays(tree: Any) -> Iterator[tuple[_Key, Any]]:
    return ((_key(path), a) for path, a in _tree.arrays(tree))


def _check_ties(mine: dict[_Key, Any], theirs: dict[_Key, Any]) -> None:
    first: dict[int, _Key] = {}
    for key, array in mine.items():
        before = first.setdefault(id(array), key)
        a, b = theirs[before], theirs[key]
        at, name = ("model" + "".join(k) for k in (before, key))
        if a is not b and not bool((jax.numpy.asarray(a) == jax.numpy.asarray(b)).all()):
            raise ValueError(
                f"loadmodel expects one value for the tied {at} and {name}, got two. "
                "Untie them first."
            )


def put(tree: Any, new: Callable[[_tree.Path, Any], Any]) -> Any:
    """Replace every array by `new(path, array)`, in place as deep as containers allow.

    Returns:
        The tree; another one only where the root itself cannot be changed.
    """
    made: dict[int, Any] = {}

    def at(value: Any, path: _tree.Path) -> Any:
        if _tree.is_array(value):
            if id(value) not in made:
                made[id(value)] = new(path, value)
            return made[id(value)]
        kind = _tree.kind_of(value)
        if kind is None:
            return value
        pairs = kind.parts(value)
        changed = [(key, part, at(part, (*path, key))) for key, part in pairs]
        if kind.assign is None:
            if all(old is now for _, old, now in changed):
                return value
            return kind.rebuild(value, [now for _, _, now in changed])
        for key, old, now in changed:
            if old is not now:
                kind.assign(value, key, now)
        return value

    return at(tree, ())
