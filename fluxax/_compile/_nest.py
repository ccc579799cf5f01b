"""How a gradient is nested: the shape of its argument, with Nodes for objects."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from fluxax import _tree
from fluxax._compile import _boxes as boxes
from fluxax._compile._spec import Again, Arr, Box, Num, Part, Spec, Tied


class Tie(NamedTuple):
    """The place of an input whose gradient stands elsewhere, where it was found first."""

    number: int


def nests_of(specs: list[Spec], n_arrays: int) -> list[Any]:
    """How the gradient of each argument is nested."""
    seen: dict[int, Box] = {}
    return [nest_of(spec, n_arrays, seen) for spec in specs]


def nest_of(
    spec: Spec, n_arrays: int, seen: dict[int, Box], above: frozenset[int] = frozenset()
) -> Any:
    """How a gradient is nested: an input's number, a `Tie`, `None`, or (make, parts).

    Args:
        seen: boxes that were met, by number.
        above: the numbers of those that the spec is in; a part that leads back to one is `None`.
    """
    if isinstance(spec, Arr):
        return spec.index
    if isinstance(spec, Tied):
        return Tie(spec.index)
    if isinstance(spec, Num):
        return None if spec.index is None else n_arrays + spec.index
    if isinstance(spec, Again) and spec.number in seen and spec.number not in above:
        # tied: its gradient stands elsewhere
        return _emptied(nest_of(seen[spec.number], n_arrays, dict(seen), above))
    if not isinstance(spec, Box) or spec.how not in _NESTS:
        return None
    seen[spec.number], above = spec, above | {spec.number}
    parts = [(key, part) for _, key, part in spec.parts if not _structural(key)]
    nests = [nest_of(part, n_arrays, seen, above) for _, part in parts]
    return _NESTS[spec.how](spec, [key for key, _ in parts], nests)


def _emptied(nest: Any) -> Any:
    """A nest without gradients."""
    if isinstance(nest, int):
        return Tie(nest)
    if nest is None or isinstance(nest, Tie):
        return nest
    return nest[0], [_emptied(part) for part in nest[1]]


def _structural(key: Any) -> bool:
    return type(key) is Part


def _nest_list(box: Box, keys: list[Any], nests: list[Any]) -> Any:
    names = list(box.value.names) if isinstance(box.value, _tree.NamedList) else None
    return (lambda xs: list(xs) if names is None else _tree.NamedList(xs, names)), nests


def _nest_tuple(box: Box, keys: list[Any], nests: list[Any]) -> Any:
    cls = type(box.value)
    return (lambda xs: cls(*xs) if hasattr(cls, "_fields") else tuple(xs)), nests


def _nest_object(box: Box, keys: list[Any], nests: list[Any]) -> Any:
    return (lambda xs: _tree.Node(**dict(zip(keys, xs, strict=True)))), nests


def _nest_pytree(box: Box, keys: list[Any], nests: list[Any]) -> Any:
    structure = jax.tree.structure(box.value, is_leaf=lambda v: v is not box.value)
    return structure.unflatten, nests


_NESTS: dict[Any, Any] = {
    boxes.LIST: _nest_list,
    boxes.TUPLE: _nest_tuple,
    boxes.DICT: lambda box, keys, nests: ((lambda xs: dict(zip(keys, xs, strict=True))), nests),
    boxes.OBJECT: _nest_object,
    boxes.PYTREE: _nest_pytree,
}


def nested(nest: Any, grads: dict[int, Any]) -> Any:
    """A gradient in its nested form, from the gradients by input."""
    if nest is None or isinstance(nest, Tie):
        return None
    if isinstance(nest, int):
        return grads.get(nest)
    make, parts = nest
    return make([nested(p, grads) for p in parts])


def inputs_at(nest: Any) -> dict[tuple[Any, ...], int]:
    """By the names that lead to it: which input stands at each place of an argument."""
    numbers = _numbers(nest)
    found = ((tuple(map(_tree.key_name, path)), v) for path, v in _tree.walk(numbers))
    return {names: number for names, number in found if number is not None}


def _numbers(nest: Any) -> Any:
    """The numbers of inputs, nested like the argument."""
    if nest is None or isinstance(nest, int):
        return nest
    if isinstance(nest, Tie):
        return nest.number
    make, parts = nest
    return make(list(map(_numbers, parts)))
