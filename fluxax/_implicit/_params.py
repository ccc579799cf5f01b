"""Params: the trained arrays of models, held by place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.tree_util import register_pytree_node

from fluxax import _tree
from fluxax._errors import short
from fluxax._implicit._places import Itself, Place, find_places, is_numbers
from fluxax._jax import ArrayImpl

Order = tuple[Place, ...]


class Live(list[Any]):
    """The arrays at some places as they stand now; assigning an item puts it into its place.

    It is the model that the explicit machinery sees in the implicit style. As the first argument
    of an objective it is differentiated but not passed: the function reads those arrays itself.
    """

    __slots__ = ("order",)
    order: Order

    def __setitem__(self, index: Any, new: Any) -> None:
        list.__setitem__(self, index, new)
        self.order[index].put(new)


def _plain_list(_: None, arrays: Iterable[Any]) -> Any:
    return list(arrays)  # what JAX makes of it has no places


register_pytree_node(Live, lambda live: (tuple(live), None), _plain_list)


class Params:
    """The trained arrays of models, by place: reading gives what stands there now.

    It holds owners and names, not arrays, so that it stays right when `update` puts new ones
    there, and keeps no dead model alive. Iteration, `len` and `[i]` see tied arrays once.

    Example:
        >>> import fluxax as fx
        >>> model = fx.Chain(fx.Dense(2, 3), fx.Dense(3, 1))
        >>> ps = fx.params(model)
        >>> ps.delete(model.layers[0].bias)
        Params([f32[2,3], f32[3,1], f32[1]])
        >>> model.layers[1].weight in ps, len(ps - fx.params(model.layers[1]))
        (True, 1)
    """

    __slots__ = ("__weakref__", "order")

    def __init__(self, *models: Any):
        self.order: Order = ()
        self.push(*models)

    @classmethod
    def at(cls, places: Iterable[Place]) -> Params:
        """The Params of some places, each once."""
        new = cls()
        new.order = tuple(dict.fromkeys(places))
        return new

    # -- reading

    def live(self) -> Live:
        """The arrays as they stand now, one for each place that has one."""
        live = Live([p.get() for p in self.order])
        live.order = self.order
        if not _PLAIN.issuperset(map(type, live)):
            there = [(p, a) for p, a in zip(self.order, live, strict=True) if _tree.is_array(a)]
            live = Live([a for _, a in there])
            live.order = tuple(p for p, _ in there)
        return live

    def _arrays(self) -> list[Any]:
        return list({id(a): a for a in self.live()}.values())

    def __iter__(self) -> Iterator[Any]:
        return iter(self._arrays())

    def __len__(self) -> int:
        return len(self._arrays())

    def __getitem__(self, index: Any) -> Any:
        return self._arrays()[index]

    def __contains__(self, array: Any) -> bool:
        return any(a is array for a in self.live())

    def __eq__(self, other: object) -> bool:
        """Whether the two have the same places, in the same order."""
        return self.order == other.order if isinstance(other, Params) else NotImplemented

    def __repr__(self) -> str:
        return f"Params([{', '.join(map(short, self._arrays()))}])"

    # -- Flux's set operations

    def push(self, *models: Any) -> Params:
        """Add the trained arrays of models, in place; those that are there stay where they are."""
        self.order = tuple(dict.fromkeys((*self.order, *_places(models))))
        return self

    def delete(self, *models: Any) -> Params:
        """Leave arrays out, in place: the arrays themselves, or all of a model.

        Raises:
            ValueError: if an array is not there; nothing is changed then.
        """
        gone = _arrays_in(models)
        for array in gone.values():
            if array not in self:
                raise ValueError(
                    f"delete expects arrays of these Params, got {short(array)}, which is not "
                    "there now. `update` puts new arrays into a model: name the one that stands "
                    "there, as in ps.delete(model.layers[0].weight)."
                )
        self.order = tuple(p for p in self.order if id(p.get()) not in gone)
        return self

    def union(self, *others: Any) -> Params:
        """All that is in this or in another; also `ps | other`."""
        return self.copy().push(*others)

    def intersect(self, *others: Any) -> Params:
        """All that is in this and in every other; also `ps & other`."""
        kept = [_arrays_in((other,)) for other in others]
        return Params.at(p for p in self.order if all(id(p.get()) in ids for ids in kept))

    def difference(self, *others: Any) -> Params:
        """All that is in this and in no other; also `ps - other`."""
        gone = _arrays_in(others)
        return Params.at(p for p in self.order if id(p.get()) not in gone)

    def __or__(self, other: Any) -> Params:
        return self.union(other)

    def __and__(self, other: Any) -> Params:
        return self.intersect(other)

    def __sub__(self, other: Any) -> Params:
        return self.difference(other)

    # -- flat vectors

    def copy(self, vector: Any = None) -> Params:
        """Another Params of the same places; with a vector, this one filled from it, in order.

        Raises:
            ValueError: if the vector has not as many numbers as the parameters.
        """
        if vector is None:
            return Params.at(self.order)
        flat, arrays = np.asarray(vector), self._arrays()
        size = sum(a.size for a in arrays)
        if flat.shape != (size,):
            raise ValueError(
                f"copy expects a vector of {size} numbers, got {short(flat)}. "
                "It is as long as `ps.flat()`."
            )
        ends = np.cumsum([a.size for a in arrays])[:-1]
        new = {id(a): _like(part, a) for a, part in zip(arrays, np.split(flat, ends), strict=True)}
        live = self.live()
        for i, array in enumerate(list(live)):
            live[i] = new[id(array)]
        return self

    def flat(self) -> np.ndarray:
        """All numbers in order, as one vector: what `copy` takes."""
        arrays = [np.asarray(a).ravel() for a in self._arrays()]
        return np.concatenate(arrays) if arrays else np.zeros(0, np.float32)


_PLAIN = frozenset((ArrayImpl, np.ndarray))


def _arrays_in(things: tuple[Any, ...]) -> dict[int, Any]:
    """Arrays by identity: themselves, or all that models have."""
    arrays = [x for x in things if _tree.is_array(x)]
    return {id(a): a for a in (*arrays, *Params(*(x for x in things if not _tree.is_array(x))))}


def _like(part: np.ndarray, array: Any) -> Any:
    return jnp.asarray(part.reshape(array.shape).astype(array.dtype))


def _places(models: tuple[Any, ...]) -> Iterator[Place]:
    for model in models:
        if isinstance(model, Params):
            yield from model.order
            continue
        if is_numbers(model):
            raise TypeError(
                f"params expects a model, or NumPy arrays of floating numbers, got {short(model)}. "
                "The implicit style changes arrays in place: write np.array([1.0, 2.0]). Numbers "
                "are for the explicit style: fx.gradient(lambda a, b: a * b, 1, 2)."
            )
        yield from find_places(model)


def _of_arrays(_: None, arrays: Iterable[Any]) -> Params:
    new = Params()
    new.order = tuple(Itself(a, ()) for a in arrays)
    return new


# an objective may read Params, as in sum(jnp.sum(p**2) for p in ps): it sees the traced arrays
register_pytree_node(Params, lambda ps: (tuple(ps._arrays()), None), _of_arrays)


def params(*models: Any) -> Params:
    """The trained arrays of models by place, tied ones once; inside an objective the traced ones.

    With `gradient(lambda: loss(model(x), y), ps)` they are the implicit style of Flux up to 0.13.

    Args:
        models: Modules, NumPy arrays of floating numbers, or anything nested of these.

    Raises:
        TypeError: for numbers, and for a JAX array alone, which nobody can change in place.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> model = fx.Dense(2, 1, init=fx.ones32)
        >>> penalty = lambda m: sum(jnp.sum(p**2) / 2 for p in fx.params(m))
        >>> fx.gradient(penalty, model)[0].weight
        Array([[1.],
               [1.]], dtype=float32)
        >>> fx.gradient(lambda: penalty(model), fx.params(model))[model.weight]
        Array([[1.],
               [1.]], dtype=float32)
    """
    return Params(*models)
