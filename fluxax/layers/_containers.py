"""Layers made of layers: Chain, SkipConnection, Parallel, PairwiseFusion, Maxout."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from fluxax._errors import short
from fluxax._module import Module
from fluxax._tree import NamedList
from fluxax.layers._place import unfit
from fluxax.layers._shapes import function, whole


def named_layers(who: str, layers: tuple[Any, ...], named: dict[str, Any]) -> NamedList:
    """The layers of a container, given one after the other or by name, checked."""
    if layers and named:
        raise ValueError(
            f"{who} expects its layers by position or by name, got {len(layers)} by position "
            f"and {len(named)} by name. Name all of them or none."
        )
    for word in named:
        if word == "names" or hasattr(NamedList, word):
            raise ValueError(f"{who} expects names that a list does not have, got `{word}`.")
    for where, layer in named.items() if named else enumerate(layers):
        _check(who, where, layer)
    return NamedList(named.values(), named) if named else NamedList(layers)


def some_layers(who: str, layers: tuple[Any, ...], named: dict[str, Any]) -> NamedList:
    """As `named_layers`, for containers that are nothing without one."""
    if not layers and not named:
        raise ValueError(f"{who} expects at least one layer, got none.")
    return named_layers(who, layers, named)


def _check(who: str, where: Any, layer: Any) -> None:
    hint = " Call it to make a layer." if isinstance(layer, type) else ""
    if hint or not callable(layer):
        raise TypeError(f"{who} expects layers or functions, got {short(layer)} at {where}.{hint}")


def listed(layers: NamedList) -> list[tuple[str, Any]]:
    """Layers as they stand in the constructor, for printing."""
    return [(word or "", layer) for word, layer in zip(layers.names, layers, strict=True)]


class Layers(Module):
    """What containers of layers share: one by its place or name, several as another container."""

    layers: NamedList

    def __getitem__(self, index: Any) -> Any:
        part = self.layers[index]
        return self._of(part) if isinstance(index, slice) else part

    def __setitem__(self, index: Any, layer: Any) -> None:
        self.layers[index] = layer

    def __len__(self) -> int:
        return len(self.layers)

    def __bool__(self) -> bool:
        return True  # an empty Chain is a model like any other

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    def _of(self, layers: NamedList) -> Any:
        """A container like this one with other layers."""
        if not layers:
            raise ValueError(f"{type(self).__name__} expects at least one layer, got none.")
        new = copy.copy(self)
        new.layers = layers
        return new

    def _arguments(self) -> list[tuple[str, Any]]:
        return listed(self.layers)


class Chain(Layers):
    """Layers called one after the other; without any, the input comes out.

    Args:
        layers: layers or functions of one argument; a single list of them will do.
        named: the same by name, `Chain(enc=…, dec=…)`. `layers` and what a list has as
            an attribute (`index`, `count`, …) are no names.

    Raises:
        ValueError: for such a name, or names for some layers only.
        TypeError: for a layer that cannot be called.

    Called with several inputs, the first layer gets them as a tuple, which `Parallel`, `Bilinear`
    and their kin take apart.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> model = fx.Chain(enc=fx.Dense(5, 3, fx.relu), dec=fx.Dense(3, 5))
        >>> model(jnp.ones((2, 5))).shape, len(model)
        ((2, 5), 2)
        >>> model[0] is model["enc"] is model.layers.enc
        True
        >>> fx.Chain(fx.Parallel(jnp.add, jnp.negative, jnp.abs))(1.0, -5.0).item()
        4.0
        >>> model[:1]
        Chain(
          enc=Dense(5, 3, relu),                # 18 parameters
        )                   # Total: 2 arrays, 18 parameters, 72 bytes.
    """

    def __init__(self, *layers: Any, **named: Any):
        if "layers" in named:
            raise ValueError("Chain expects another name for a layer, got `layers`, its attribute.")
        if len(layers) == 1 and isinstance(layers[0], NamedList):
            self.layers = layers[0]
            return
        if len(layers) == 1 and isinstance(layers[0], (list, tuple)):
            layers = tuple(layers[0])
        self.layers = named_layers("Chain", layers, named)

    def __call__(self, x: Any, *more: Any) -> Any:
        x = (x, *more) if more else x
        for _part, layer in enumerate(self.layers):  # `_part`: see `_place.RUNNING`
            x = layer(x)
        return x

    def _of(self, layers: NamedList) -> Any:
        return Chain(layers)


class SkipConnection(Module):
    """A layer and a way around it: `y = connection(layers(x), x)`.

    Args:
        layers: a layer or function, usually a Chain.
        connection: a function of two arguments, the layer's output first.

    Raises:
        TypeError: where one of them cannot be called.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> block = fx.SkipConnection(fx.Dense(3, 3, fx.relu), jnp.add)
        >>> block(jnp.ones((2, 3))).shape
        (2, 3)
    """

    def __init__(self, layers: Any, connection: Callable[..., Any]):
        _check("SkipConnection", "its first argument", layers)
        self.layers = layers
        self.connection = function("SkipConnection", connection, "connection")

    def __call__(self, x: Any) -> Any:
        return self.connection(self.layers(x), x)

    def _arguments(self) -> list[tuple[str, Any]]:
        return [("", self.layers), ("", self.connection)]


class Parallel(Layers):
    """Layers side by side: `y = connection(layer1(x1), layer2(x2), …)`.

    Args:
        connection: a function called once with all outputs.
        layers: layers or functions; or by name.

    Raises:
        ValueError: where there is no layer, or neither one input nor as many as layers.

    Called with one input, which every layer gets, with one for each, or with a tuple of them. A
    single layer gets all inputs, one after the other.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> both = fx.Parallel(lambda *ys: jnp.concatenate(ys, -1), fx.Dense(3, 2), fx.Dense(5, 4))
        >>> both(jnp.ones((7, 3)), jnp.ones((7, 5))).shape
        (7, 6)
        >>> fx.Parallel(jnp.add, a=fx.Dense(3, 2), b=fx.Dense(3, 2))["b"]
        Dense(3, 2)
    """

    def __init__(self, connection: Callable[..., Any], *layers: Any, **named: Any):
        if "layers" in named:
            raise ValueError("Parallel expects another name for a layer, got `layers`.")
        self.connection = function("Parallel", connection, "connection")
        self.layers = some_layers("Parallel", layers, named)

    def __call__(self, *inputs: Any) -> Any:
        return self.connection(*outputs_of(self, paired(self, inputs)))

    def _arguments(self) -> list[tuple[str, Any]]:
        return [("", self.connection), *listed(self.layers)]


def outputs_of(layer: Any, pairs: Iterable[tuple[Any, Any]]) -> list[Any]:
    """What the layers of a container give, each for its input."""
    outputs, several = [], len(layer.layers) > 1
    for i, (inner, x) in enumerate(pairs):
        _part = i if several else 0  # see `_place.RUNNING`
        outputs.append(inner(x))
    return outputs


def paired(layer: Any, inputs: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    """The layers of Parallel and its relative, each with its input."""
    if len(inputs) == 1 and isinstance(inputs[0], tuple):
        inputs = inputs[0]
    n = len(layer.layers)
    if not inputs:
        raise unfit(layer, "expects at least one input, got none", who=type(layer).__name__)
    if n == 1 and isinstance(layer, Parallel):
        return zip([*layer.layers] * len(inputs), inputs, strict=True)
    if len(inputs) not in (1, n):
        raise unfit(
            layer,
            f"with {n} layers expects one input or {n} inputs, got {len(inputs)}",
            who=type(layer).__name__,
        )
    return zip(layer.layers, inputs * n if len(inputs) == 1 else inputs, strict=True)


class PairwiseFusion(Layers):
    """Layers fed from the side: `y1 = layer1(x1)`, `yi = layeri(connection(y(i-1), xi))`.

    Args:
        connection: a function of two arguments, the output of the layer before first.
        layers: layers or functions; or by name.

    Raises:
        ValueError: where there is no layer, or neither one input nor as many as layers.

    Called as Parallel is; returns the tuple `(y1, …, yn)`. Flux's page shows the arguments of
    `connection` the other way round; its code has this order.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fusion = fx.PairwiseFusion(jnp.add, jnp.negative, jnp.negative)
        >>> [float(y) for y in fusion(1.0, 5.0)]
        [-1.0, -4.0]
    """

    def __init__(self, connection: Callable[..., Any], *layers: Any, **named: Any):
        if "layers" in named:
            raise ValueError("PairwiseFusion expects another name for a layer, got `layers`.")
        self.connection = function("PairwiseFusion", connection, "connection")
        self.layers = some_layers("PairwiseFusion", layers, named)

    def __call__(self, *inputs: Any) -> tuple[Any, ...]:
        outputs: list[Any] = []
        for _part, (layer, x) in enumerate(paired(self, inputs)):
            outputs.append(layer(self.connection(outputs[-1], x) if outputs else x))
        return tuple(outputs)

    def _arguments(self) -> list[tuple[str, Any]]:
        return [("", self.connection), *listed(self.layers)]


class Maxout(Layers):
    """The largest of what several layers say: `y = max(layer1(x), layer2(x), …)`.

    Args:
        layers: layers or functions; or `Maxout(f, n)`, where `f()` makes each of `n` layers.

    Raises:
        ValueError: where there is no layer, or outputs differ in shape.

    Where several are largest, the derivative goes to the first.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> fx.Maxout(lambda: fx.Dense(5, 7), 4)(jnp.ones((2, 5))).shape
        (2, 7)

    Reference: Goodfellow et al. 2013, arXiv:1302.4389.
    """

    def __init__(self, *layers: Any):
        if len(layers) == 2 and isinstance(layers[1], int):
            make: Any = layers[0]
            n = whole("Maxout", "the number of layers", layers[1])
            layers = tuple(make() for _ in range(n))
        self.layers = some_layers("Maxout", layers, {})

    def __call__(self, x: Any) -> Any:
        outputs = outputs_of(self, ((layer, x) for layer in self.layers))
        odd = [y for y in outputs if jnp.shape(y) != jnp.shape(outputs[0])]
        if odd:
            raise unfit(
                self,
                f"expects outputs of one shape, got {short(outputs[0])} and {short(odd[0])} "
                "from its layers",
                who="Maxout",
            )
        wrong = [y for y in outputs if jnp.iscomplexobj(y)]
        if wrong:
            said = f"expects real outputs of its layers, got {short(wrong[0])}"
            raise unfit(self, said, who="Maxout")
        return functools.reduce(first_max, outputs)


def first_max(a: Any, b: Any) -> jax.Array:
    """The larger of two; of equals the first, also for the derivative. NaN wins."""
    return jnp.where((a >= b) | (a != a), a, b)


def activations(chain: Chain | Iterable[Any], x: Any) -> tuple[Any, ...]:
    """What comes out of every layer of a Chain.

    Args:
        chain: a Chain, or layers in order.
        x: the input of the first.

    Example:
        >>> import fluxax as fx
        >>> fx.activations(fx.Chain(lambda x: x + 1, lambda x: x * 2), 3)
        (4, 8)
    """
    beside = isinstance(chain, Layers) and not isinstance(chain, Chain)
    if beside or not isinstance(chain, Iterable):
        raise TypeError(f"activations expects a Chain or several layers, got {short(chain)}.")
    outputs = []
    for _part, layer in enumerate(chain):
        x = layer(x)
        outputs.append(x)
    return tuple(outputs)
