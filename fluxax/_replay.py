"""A training step once more, uncompiled: what each layer was given, gave, and passed back.

Nothing of the caller's is touched. The model and the batch are copies; what the loss reaches
beside them, such as another model, is put back afterwards.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fluxax import _tree
from fluxax._compile._eager import values_shown
from fluxax._compile._objective import loss_array, objective
from fluxax._compile._reach import replace_reached
from fluxax._compile._reads import reads_of
from fluxax._compile._stand_in import stand_ins
from fluxax._draws import drawing_from
from fluxax._implicit._params import Live
from fluxax._jax import concrete, is_tracer
from fluxax._module import Module
from fluxax._remake import remake


def is_finite(x: Any) -> bool:
    """Whether all numbers of an array are finite."""
    return not _tree.is_inexact(x) or bool(jnp.isfinite(x).all())


def numbers_in(tree: Any) -> list[Any]:
    """The arrays of nested data; without those inside a JAX transformation, which have no value."""
    found = (concrete(a) for _, a in _tree.arrays(tree))
    return [a for a in found if not is_tracer(a)]


class Call:
    """One call of a layer.

    Attributes:
        owner: the layer, of the copy.
        given, gave: the arrays that went in and came out.
        reached, passed: of the backward pass: the gradients that came to what it gave, and those
            that it passed on to what it was given.
    """

    def __init__(self, owner: Any, given: Any):
        self.owner, self.given = owner, numbers_in(given)
        self.gave: list[Any] = []
        self.reached: list[Any] = []
        self.passed: list[Any] = []


class _Function:
    """A function that stands among layers, as a layer."""

    def __init__(self, function: Any):
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


class Replay:
    """Runs of one objective with the calls of its layers written down.

    Args:
        loss: the objective; it can be compiled, so it has no side effects but those of layers.
        model: its model, or the parameters that it reads.
        args: its other arguments.
        frozen: paths of the frozen Modules.
        root: what it drew random numbers of ours from.
    """

    def __init__(
        self, loss: Any, model: Any, args: tuple[Any, ...], frozen: frozenset[Any], root: Any
    ):
        self.loss, self.frozen, self.root = loss, frozen, root
        self.live = model if isinstance(model, Live) else None
        self.model = model if self.live is not None else _copy(model)
        self.args = remake(args, lambda v: jnp.asarray(v) if isinstance(v, np.ndarray) else v)
        self.around = [loss, [p.owner() for p in self.live.order] if self.live is not None else []]
        self.calls: list[Call] = []  # in the order in which they ended
        self.backward = False

    def forward(self) -> Any:
        """What the loss returns; random streams are further on at the next call."""
        self.calls = []
        with ExitStack() as stack:
            self._enter(stack)
            return self._run(self.model, self.args)

    def gradients(self, arrays: list[Any]) -> list[Any]:
        """The gradients of the loss by arrays of the model."""
        self.calls, self.backward = [], True
        leaves = [jnp.asarray(a) for a in arrays]
        with ExitStack() as stack:
            self._enter(stack)
            stack.enter_context(values_shown())
            return jax.grad(lambda new: loss_array(self._with(arrays, new)))(leaves)

    def names(self) -> dict[int, str]:
        """By id: what the layers of the last run are called."""
        roots = dict(_names_in(self.loss))
        roots |= {"model": self.model} if self.live is None else {}
        return {
            id(part): name + _tree.path_string(path, "")
            for name, root in reversed(roots.items())
            for path, part in reversed(list(_tree.walk_nodes(root)))
        }

    def _enter(self, stack: ExitStack) -> None:
        stack.enter_context(_put_back(self.around))
        layers = [m for _, m in _tree.walk_nodes([self.model, self.args]) if callable(m)]
        reached = replace_reached(self.around, lambda v: v)
        layers += [m for m in reached if isinstance(m, Module)]
        stack.enter_context(_written_down(layers, self._call))

    def _with(self, arrays: list[Any], new: list[Any]) -> Any:
        """The loss with other arrays in the model."""
        by = {id(old): x for old, x in zip(arrays, new, strict=True)}
        if self.live is None:
            self.model = remake(self.model, lambda v: by.get(id(v), v))
            return self._run(self.model, self.args)
        others = [by.get(id(a), a) for a in self.live]
        with stand_ins(self.live, others, self.loss):
            return self._run(None, self.args)

    def _run(self, model: Any, args: tuple[Any, ...]) -> Any:
        nodes = _tree.walk_nodes(model)
        frozen = frozenset(id(m) for path, m in nodes if path in self.frozen)
        with drawing_from(self.root), objective(True, frozen):
            return self.loss(*args) if self.live is not None else self.loss(model, *args)

    def _call(self, call: Any, owner: Any, args: Any, kwargs: Any) -> Any:
        note = Call(owner, (args, kwargs))
        if self.backward:
            args, kwargs = _listening((args, kwargs), note.passed.append)
        out = call(owner, *args, **kwargs)
        note.gave = numbers_in(out)
        self.calls.append(note)
        return _listening(out, note.reached.append) if self.backward else out


def _copy(model: Any) -> Any:
    """A copy of a model in which functions among layers are layers."""
    new = remake(model, lambda v: v)
    for _, part in list(_tree.walk_nodes(new)):
        for i, item in enumerate(part if isinstance(part, list) else ()):
            if callable(item) and _tree.kind_of(item) is None and not isinstance(item, type):
                list.__setitem__(part, i, _Function(item))
    return new


def _names_in(f: Any) -> Iterator[tuple[str, Any]]:
    """The containers that a function names."""
    code = getattr(f, "__code__", None)
    if code is None:
        return
    found = list(zip(code.co_freevars, f.__closure__ or (), strict=True))
    named = [(name, cell.cell_contents) for name, cell in found]
    named += [(n, f.__globals__[n]) for n in reads_of(code).globals if n in f.__globals__]
    yield from ((name, value) for name, value in named if _tree.kind_of(value) is not None)


def _listening(tree: Any, hear: Callable[[Any], None]) -> Any:
    """The same data; `hear` gets the gradient that comes back to each of its arrays."""

    def same(x: Any) -> Any:
        return x

    def back(_: Any, gradient: Any) -> Any:
        if not is_tracer(gradient):
            hear(gradient)
        return (gradient,)

    heard = jax.custom_vjp(same)
    heard.defvjp(lambda x: (x, None), back)
    plain = isinstance(tree, (tuple, list, dict)) or _tree.is_array(tree)
    if not plain:
        return tree
    return _tree.map_leaves(
        lambda v: heard(v) if _tree.is_array(v) and _tree.is_inexact(v) else v, tree
    )


@contextmanager
def _written_down(layers: list[Any], call: Any) -> Iterator[None]:
    """A context in which the calls of some layers in this thread go through `call`."""
    here = threading.get_ident()

    def through(method: Any) -> Any:
        @functools.wraps(method)
        def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != here:
                return method(self, *args, **kwargs)
            return call(method, self, args, kwargs)

        return __call__

    wrapped: dict[type, Any] = {}
    try:
        for cls in {type(layer) for layer in layers}:
            owner = next(c for c in cls.__mro__ if "__call__" in vars(c))
            method = vars(owner)["__call__"]
            if isinstance(method, FunctionType) and owner not in wrapped:
                wrapped[owner] = method
                owner.__call__ = through(method)
        yield
    finally:
        for owner, method in wrapped.items():
            owner.__call__ = method


@contextmanager
def _put_back(around: Any) -> Iterator[None]:
    """A context after which the Modules in reach hold what they held, their lists and dicts too."""
    reached = replace_reached(around, lambda v: v)
    found = [part for m in reached if isinstance(m, Module) for _, part in _tree.walk_nodes(m)]
    spaces = [m.__dict__ if isinstance(m, Module) else m for m in found]
    dicts = [(space, dict(space)) for space in spaces if isinstance(space, dict)]
    lists = [(items, list(items)) for items in spaces if isinstance(items, list)]
    try:
        yield
    finally:
        for space, old in dicts:
            for key in set(space) - set(old):
                dict.__delitem__(space, key)
            dict.update(space, old)
        for items, old in lists:
            list.__setitem__(items, slice(None), old)
