"""The arrays of a model: which are trained, and how to look at all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fluxax import _tree
from fluxax._errors import short
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


def trainables(model: Any, *, path: bool = False) -> list[Any]:
    """The trained arrays of a model in order, tied ones once.

    Args:
        model: any tree of arrays.
        path: whether to give pairs of path and array. The paths are those that `setup` takes.

    Example:
        >>> import fluxax as fx
        >>> [w.shape for w in fx.trainables(fx.Dense(2, 3))]
        [(2, 3), (3,)]
        >>> model = fx.Chain(enc=fx.Dense(2, 3), dec=fx.Dense(3, 1, bias=False))
        >>> [name for name, _ in fx.trainables(model, path=True)]
        ['layers.enc.weight', 'layers.enc.bias', 'layers.dec.weight']
    """
    first: dict[int, tuple[_tree.Path, Any]] = {}
    for where, array in trainable_arrays(model):
        first.setdefault(id(array), (where, array))
    return [(dotted(model, where), a) if path else a for where, a in first.values()]


def modules(model: Any) -> list[Any]:
    """The model and every layer in it, parents first, a layer that stands in two places once.

    A penalty can be of layers of some sort, inside a function that is differentiated too.

    Args:
        model: any tree. Its lists, tuples and dicts are gone through and not given.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> model = fx.Chain(fx.Dense(2, 3), fx.BatchNorm(3), fx.Dense(3, 1))
        >>> [type(layer).__name__ for layer in fx.modules(model)]
        ['Chain', 'Dense', 'BatchNorm', 'Dense']
        >>> def penalty(m):
        ...     return sum(jnp.sum(d.weight**2) for d in fx.modules(m) if isinstance(d, fx.Dense))
        >>> fx.gradient(penalty, model)[0].layers[0].weight.shape
        (2, 3)
    """
    plain = (list, tuple, dict, _tree.Node)
    found = (v for _, v in _tree.walk_nodes(model) if _tree.kind_of(v) is not None)
    return list({id(v): v for v in found if not isinstance(v, plain)}.values())


def dotted(model: Any, path: _tree.Path) -> str:
    """A path as prefixes are written: `layers.enc.weight`, `layers[0].weight`."""
    text = ""
    for key in path:
        index = _tree.key_name(key)
        name = model.names[index] if isinstance(model, _tree.NamedList) else None
        text += f"[{index}]" if isinstance(index, int) and not name else f".{name or index}"
        model = dict(_tree.parts(model))[key]
    return text.removeprefix(".")


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
