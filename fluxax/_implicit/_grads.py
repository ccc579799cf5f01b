"""Grads: the gradients that belong to Params."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp

from fluxax import _tree
from fluxax._errors import short
from fluxax._implicit._params import Live, Order, Params
from fluxax._implicit._places import Place


class Grads:
    """The gradients by the arrays of a Params, which `gradient(f, ps)` gives.

    `gs[array]` takes the array as it was at the gradient or as it is there now, `gs[owner, name]`
    its place. `None` stands for a parameter that the function does not touch. Sums, differences
    and multiples are Grads again, with `None` as zero; iteration is over the gradients.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> model = {"w": jnp.array([1.0, 2.0]), "b": jnp.array([0.5])}
        >>> gs = fx.gradient(lambda: jnp.sum(model["w"] ** 2), fx.params(model))
        >>> gs[model["w"]], gs[model["b"]]
        (Array([2., 4.], dtype=float32), None)
        >>> (gs + 2 * gs)[model, "w"]
        Array([ 6., 12.], dtype=float32)
    """

    __slots__ = ("_at", "alone", "arrays", "grads", "order")

    def __init__(self, live: Live, grads: list[Any], alone: frozenset[int] = frozenset()):
        self.order: Order = live.order
        self.arrays: list[Any] = list(live)  # as they were at the gradient
        self.grads = grads  # by place; of a tied array at its first place
        self.alone = alone  # numbers of arrays that the function names in variables only
        self._at: dict[int, int] | None = None

    # -- reading and writing

    def _index(self, key: Any) -> int:
        """Which place an array, a place, or an owner with a name stands for."""
        if self._at is None:
            self._at = _firsts(self.arrays)
        if isinstance(key, Place):
            key = key.get() if key in self.order else None
        elif isinstance(key, tuple) and len(key) == 2 and not _tree.is_array(key[0]):
            key = next((a for k, a in _tree.parts(key[0]) if _tree.key_name(k) == key[1]), None)
        found = self._at.get(id(key))
        if found is None and key is not None:  # an array that came after the gradient
            now = (i for i, p in enumerate(self.order) if p.get() is key)
            found = next((self._at[id(self.arrays[i])] for i in now), None)
        if found is None:
            raise KeyError(
                f"Grads expects an array of its Params, got {short(key)}. Name the array where it "
                "stands, as in gs[model.layers[0].weight]."
            )
        return found

    def __getitem__(self, key: Any) -> Any:
        return self.grads[self._index(key)]

    def __setitem__(self, key: Any, grad: Any) -> None:
        i = self._index(key)
        wanted = self.arrays[i].shape
        if grad is not None and getattr(grad, "shape", ()) != wanted:
            raise ValueError(
                f"Grads expects a gradient of the shape {wanted} at {self.order[i]}, got "
                f"{short(grad)}."
            )
        self.grads[i] = grad

    def __contains__(self, key: Any) -> bool:
        try:
            self._index(key)
        except KeyError:
            return False
        return True

    def at(self, order: Order) -> list[Any]:
        """The gradients at some places, for `update`.

        Raises:
            ValueError: if there is none for one of them.
        """
        if order is self.order or order == self.order:
            return self.grads
        position = {place: i for i, place in enumerate(self.order)}
        for place in order:
            if place not in position:
                raise ValueError(
                    f"update expects the gradients by these Params, got {self!r}, which has none "
                    f"for {place}. Write gs = fx.gradient(f, ps) with the same Params."
                )
        return [self.grads[position[place]] for place in order]

    # -- as a collection

    @property
    def params(self) -> Params:
        """The Params that these are the gradients by."""
        return Params.at(self.order)

    def _firsts(self) -> list[int]:
        return list(_firsts(self.arrays).values())

    def keys(self) -> list[Any]:
        """The arrays, as they were at the gradient; tied ones once."""
        return [self.arrays[i] for i in self._firsts()]

    def values(self) -> list[Any]:
        """The gradients in the order of `keys`."""
        return [self.grads[i] for i in self._firsts()]

    def items(self) -> list[tuple[Any, Any]]:
        """Pairs of an array and its gradient."""
        return list(zip(self.keys(), self.values(), strict=True))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values())

    def __len__(self) -> int:
        return len(self._firsts())

    def __repr__(self) -> str:
        pairs = (f"{self.order[i]}: {short(self.grads[i])}" for i in self._firsts())
        return f"Grads({{{', '.join(pairs)}}})"

    # -- arithmetic

    def copy(self) -> Grads:
        """Other Grads with the same gradients in them."""
        return self.map(lambda g: g)

    def map(self, f: Callable[..., Any], *others: Grads) -> Grads:
        """New Grads of `f(gradient, *others)`; `None` where it is `None` here.

        Raises:
            ValueError: if the others belong to other Params.
        """
        return self._combined("map", lambda g, *hs: None if g is None else f(g, *hs), others)

    def _combined(self, who: str, f: Callable[..., Any], others: tuple[Grads, ...]) -> Grads:
        for other in others:
            if not isinstance(other, Grads) or other.order != self.order:
                got = "Grads of other ones" if isinstance(other, Grads) else short(other)
                raise ValueError(f"{who} expects Grads of the same Params, got {got}.")
        new = Grads.__new__(Grads)
        new.order, new.arrays, new.alone = self.order, self.arrays, self.alone
        new._at = None
        new.grads = [f(*gs) for gs in zip(self.grads, *(o.grads for o in others), strict=True)]
        return new

    def __add__(self, other: Any) -> Grads:
        return self._combined("+", _plus, (other,))

    def __sub__(self, other: Any) -> Grads:
        return self._combined("-", lambda g, h: _plus(g, None if h is None else -h), (other,))

    def __mul__(self, factor: Any) -> Grads:
        return self.map(lambda g: g * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Grads:
        return self.map(lambda g: g / divisor)

    def __neg__(self) -> Grads:
        return self.map(jnp.negative)


def _plus(g: Any, h: Any) -> Any:
    return h if g is None else g if h is None else g + h


def _firsts(arrays: list[Any]) -> dict[int, int]:
    """By the identity of an array: its first position."""
    first: dict[int, int] = {}
    for i, array in enumerate(arrays):
        first.setdefault(id(array), i)
    return first
