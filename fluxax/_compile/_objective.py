"""What an objective is: it runs with layers in train mode and returns a loss."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from fluxax import _random, _tree
from fluxax._draws import Draws
from fluxax._errors import short
from fluxax._jax import current_trace
from fluxax._module import run


class objective:
    """A context in which layers are in train or test mode and may write their state.

    What of ours is drawn there has the number of this call; inside another objective, of that one.
    """

    def __init__(self, training: bool, frozen: frozenset[int] = frozenset()):
        self.now = (training, frozen)

    def __enter__(self) -> None:
        self.draws = Draws() if _random.now.draws is None else None
        self.before = (run.training, run.frozen, run.trace)
        run.training, run.frozen = self.now
        run.trace = current_trace()
        if self.draws is not None:
            _random.now.draws = self.draws

    def __exit__(self, kind: Any, *_: Any) -> None:
        run.training, run.frozen, run.trace = self.before
        if self.draws is not None:
            _random.now.draws = None
            if kind is not None and self.draws.tickets is not None:
                self.draws.tickets.give_back()


def first_of(out: Any) -> Any:
    """The loss in what an objective returned: itself, or the first of several."""
    if isinstance(out, tuple) and out:
        return out[0]
    return next(iter(out.values())) if isinstance(out, dict) and out else out


def loss_array(out: Any) -> Any:
    """The loss in what an objective returned, as an array."""
    loss = first_of(out)
    if isinstance(loss, float) and not isinstance(loss, np.generic):
        return jnp.asarray(loss)
    if not _tree.is_array(loss) and not isinstance(loss, np.generic):
        raise BadLoss(
            f"The objective expects to return a real number, got {short(loss)}. Return the loss."
        )
    return jnp.asarray(loss)


class BadLoss(ValueError):
    """What an objective returned is no real scalar."""


def check_loss(aval: Any, where: str) -> None:
    """An error unless a loss is a real floating scalar."""
    if aval.shape != () or not jnp.issubdtype(aval.dtype, np.floating):
        raise ValueError(
            f"The objective at {where} expects to return a real scalar, got {short(aval)}. "
            "Reduce it, with jnp.mean or jnp.sum; for all derivatives of an array there is "
            "fx.jacobian."
        )
