"""train and trainstep: a pass over data, one fused step at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fluxax import _tree
from fluxax._bar import Bar
from fluxax._errors import hinted, short, warn
from fluxax._implicit._params import Params
from fluxax._jax import ArrayImpl
from fluxax._pass import NonFiniteLoss as NonFiniteLoss
from fluxax._pass import Pass
from fluxax._pieces import Pieces
from fluxax._step import step
from fluxax._tensors import as_arrays
from fluxax.optimisers._remember import by_params
from fluxax.optimisers._rule import is_rule
from fluxax.optimisers._state import Leaf


def trainstep(loss: Any, model: Any, batch: Any, opt_state: Any) -> Any:
    """One training step as one compiled program: loss, gradient, update.

    If the loss or any gradient is not finite, the step is held back: parameters, state, step
    counts and layer statistics stay (random streams advance), and the value is returned.

    Args:
        loss: called as `loss(model, *batch)` for a plain tuple or list, else `loss(model, batch)`.
        model: changed in place; or `Params`, and then the loss is called without the model.
        batch: arrays in any nesting.
        opt_state: the state tree from `setup`, changed in place; with `Params` a rule.

    Returns:
        What the loss returned, from before the update; `(loss, aux…)` too.

    Raises:
        ValueError: if the loss is no real scalar, or the state tree is another model's.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> model = fx.Dense(2, 1, init=fx.ones32)
        >>> opt_state = fx.setup(fx.Descent(0.1), model)
        >>> batch = (jnp.ones((4, 2)), jnp.zeros((4, 1)))
        >>> float(fx.trainstep(lambda m, x, y: fx.mse(m(x), y), model, batch, opt_state))
        4.0
    """
    if type(model) is Params:
        model, opt_state = by_params("trainstep", opt_state, model)
    _check("trainstep", loss, model, opt_state)
    return step("trainstep", loss, model, (model, *_items(batch)), opt_state)[0]


_CALLBACK = (
    "no callback. Write the loop: for d in data: "
    "val, grads = fx.withgradient(loss, model, *d); "
    "fx.update(opt_state, model, grads[0]); cb()."
)


@hinted("train", "loss, model, data, opt_state and progress", cb=_CALLBACK)
def train(
    loss: Any,
    model: Any,
    data: Any,
    opt_state: Any,
    *,
    progress: bool | None = None,
    has_aux: bool = False,
) -> Any:
    """One pass over data: a training step for every item.

    Args:
        loss: called as `loss(model, *d)` for a plain tuple or list `d`, else `loss(model, d)`.
        model: changed in place; or `Params`, and then the loss is called without the model.
        data: any iterable: a list of tuples, `zip`, a generator, a `DataLoader`.
        opt_state: the state tree from `setup`, changed in place; with `Params` a rule.
        progress: whether to show a bar; by default when the pass takes longer than a second and
            stderr is a terminal.
        has_aux: return `(losses, aux)`, with `aux` what the loss returned beside its first
            element, each array stacked over the items: for a loss that returns
            `(loss, {"acc": acc})` it is `{"acc": array}`, one number per item. (Where shapes
            differ, a list.) Nothing waits for it before the end of the pass.

    Returns:
        The losses as a NumPy array, one per item (the first element where the loss returns more).

    Raises:
        NonFiniteLoss: at the first item whose loss or gradient is not finite; model and state
            are as before that item.
        TypeError: for a rule instead of a state tree, or a callback.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> model = fx.Dense(2, 1, init=fx.ones32)
        >>> opt_state = fx.setup(fx.Descent(0.1), model)
        >>> data = [(jnp.ones((4, 2)), jnp.zeros((4, 1)))] * 3
        >>> fx.train(lambda m, x, y: fx.mse(m(x), y), model, data, opt_state).round(3)
        array([4.   , 0.64 , 0.102], dtype=float32)
    """
    implicit = (opt_state, model) if type(model) is Params else None
    if implicit:
        model, opt_state = by_params("train", *implicit)
    _check("train", loss, model, opt_state)
    owned = getattr(data, "owns_batches", False) is True
    run = Pass("train", loss, model, opt_state, has_aux=has_aux, owned=owned)
    bar = Bar(data, progress)
    try:
        source = None if implicit else _in_pieces(data)
        if source is not None:
            run.take_pieces(Pieces("train", loss, model, source, opt_state, _items), bar)
            data = source.rest()
        for item in bar.over(_iterate(data)):
            if implicit:  # the code of the data may have put other arrays there, or set opt.eta
                run.model, run.opt_state = by_params("train", *implicit)
            run.take(_items(item))
    finally:
        bar.close()
    if not run.taken:
        warn("train found no data: nothing was trained.")
    losses = run.losses()
    return (losses, run.aux()) if has_aux else losses


def _in_pieces(data: Any) -> Any:
    """Where the batches of a pass lie in arrays, if it is a loader over arrays that says so."""
    source = getattr(data, "pieces_source", None)
    return None if source is None or isinstance(data, type) else source()


def _items(batch: Any) -> tuple[Any, ...]:
    """What the loss gets beside the model; tensors and numbers of a NumPy array as arrays."""
    items = batch if type(batch) in (tuple, list) else (batch,)
    for x in items:
        if type(x) not in _ARRAYS:
            return tuple([_item(x) for x in items])
    return tuple(items)


_ARRAYS = frozenset((ArrayImpl, np.ndarray))


def _item(x: Any) -> Any:
    if isinstance(x, np.generic):
        return np.asarray(x)
    return as_arrays(x)


def _iterate(data: Any) -> Iterator[Any]:
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise TypeError(
            f"train expects an iterable of batches, got {short(data)}. "
            "Write [(x, y)] for a single batch."
        )
    return iter(data)


# --- bad input ----------------------------------------------------------------------------


def _check(who: str, loss: Any, model: Any, opt_state: Any) -> None:
    if type(opt_state) is _tree.Node:
        if not callable(loss):
            raise TypeError(
                f"{who} expects a loss function first, got {short(loss)}. {_order(who)}"
            )
        return
    if is_rule(opt_state):
        name = type(opt_state).__name__
        raise TypeError(
            f"{who} expects a state tree, got a rule. "
            f"Write `opt_state = fx.setup(fx.{name}(...), model)` once, before the loop, "
            "and pass opt_state."
        )
    if not callable(loss):
        raise TypeError(f"{who} expects a loss function first, got {short(loss)}. {_order(who)}")
    if isinstance(model, (Leaf, _tree.Node)) or opt_state is None:
        raise TypeError(
            f"{who} expects a model and its state tree, got {short(model)} and "
            f"{short(opt_state)}. {_order(who)}"
        )


def _order(who: str) -> str:
    third = "data" if who == "train" else "batch"
    return f"The order is {who}(loss, model, {third}, opt_state)."
