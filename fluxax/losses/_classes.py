"""Losses over classes, which lie along one axis. Targets are distributions or labels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fluxax._errors import check_numbers, short
from fluxax._half import wide
from fluxax._integers import indices
from fluxax._jax import is_tracer
from fluxax.losses._arguments import (
    Aggregate,
    Input,
    aggregate,
    epsilon,
    floating,
    machine_epsilon,
    mean,
    mismatch,
    pair,
    within,
    xlogy,
)


def label_smoothing(y: Input, alpha: Input, *, axis: int | None = -1) -> jax.Array:
    """Targets that are less sure: they move by α towards the uniform distribution.

        y (1 - α) + α / K          K classes along `axis`
        y (1 - α) + α / 2          `axis=None`: every element is a binary label

    Args:
        y: one-hot (boolean, integer or float) targets, or binary ones.
        alpha: α, strictly between 0 and 1.
        axis: the class axis; `None` for binary targets (Flux: `dims=0`).

    Raises:
        ValueError: for an α outside (0, 1).

    Example:
        >>> import fluxax as fx
        >>> fx.label_smoothing(jnp.array([[1.0, 0.0], [0.0, 1.0]]), 0.5).tolist()
        [[0.75, 0.25], [0.25, 0.75]]

    Reference: Szegedy et al. 2015, arXiv:1512.00567, section 7.
    """
    check_numbers("label_smoothing", y=y, alpha=alpha)
    y = floating(y)
    if not is_tracer(alpha) and not np.all((np.asarray(alpha) > 0) & (np.asarray(alpha) < 1)):
        raise ValueError(f"label_smoothing expects `alpha` between 0 and 1, got {short(alpha)}.")
    if axis is not None:
        _check_axis("label_smoothing", "y", y, axis)
    classes = 2 if axis is None else y.shape[axis]
    return (wide(y) * (1 - alpha) + alpha / classes).astype(y.dtype)


def crossentropy(
    y_hat: Input, y: Input, *, agg: Aggregate = mean, axis: int = -1, eps: Input = None
) -> jax.Array:
    """Cross entropy of predicted probabilities.

        agg(-Σ y log(ŷ + ϵ))        the sum over the classes; 0 log 0 is 0

    `logitcrossentropy` of scores is the same as this of their `softmax`, and more exact.

    Args:
        y_hat: probabilities that add up to 1 along `axis`.
        y: as many, one-hot (boolean too) or any distribution; or integer labels, in an array
            without that axis. A label that is no class gives NaN.
        agg: what to do with the values, one per observation; `mean` if not given.
        axis: the class axis (Flux: `dims`).
        eps: ϵ ≥ 0, the machine epsilon of `y_hat` if not given. Added, not a limit.

    Raises:
        ValueError: where the shapes do not fit.

    Example:
        >>> import fluxax as fx
        >>> y_hat = jnp.array([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
        >>> [round(v, 4) for v in fx.crossentropy(y_hat, [0, 1], agg=fx.identity).tolist()]
        [0.6931, -0.0]
    """
    y_hat, y, dtype = _pair("crossentropy", y_hat, y, axis)
    p, y = _at_labels(y_hat + epsilon("crossentropy", eps, dtype), y, axis)
    return aggregate(agg, -jnp.sum(xlogy(y, p), axis), dtype)


def logitcrossentropy(
    y_hat: Input, y: Input, *, agg: Aggregate = mean, axis: int = -1
) -> jax.Array:
    """Cross entropy of raw scores; equal to `crossentropy(softmax(ŷ), y)`, without its rounding.

        agg(-Σ y logsoftmax(ŷ))        the sum over the classes; 0 · (-∞) is 0

    Args:
        y_hat: scores, any real numbers; -∞ for a class that is excluded.
        y: as many, one-hot (boolean too) or any distribution; or integer labels, in an array
            without the class axis. A label that is no class gives NaN.
        agg: what to do with the values, one per observation; `mean` if not given.
        axis: the class axis (Flux: `dims`).

    Raises:
        ValueError: where the shapes do not fit.

    Example:
        >>> import fluxax as fx
        >>> scores = jnp.array([[0.0, 0.0], [1e4, -1e4]])
        >>> [round(v, 4) for v in fx.logitcrossentropy(scores, [0, 1], agg=fx.identity).tolist()]
        [0.6931, 20000.0]
    """
    y_hat, y, dtype = _pair("logitcrossentropy", y_hat, y, axis)
    most = jnp.finfo(y_hat.dtype).max  # in place of ∞, from which nothing can be taken
    logp = jax.nn.log_softmax(jnp.where(y_hat == jnp.inf, most, y_hat), axis)
    logp, y = _at_labels(logp, y, axis)
    logp = jnp.where(logp < -most / 2, jnp.where(y == 0, 0, -jnp.inf), logp)
    return aggregate(agg, -jnp.sum(y * logp, axis), dtype)


def kldivergence(
    y_hat: Input, y: Input, *, agg: Aggregate = mean, axis: int = -1, eps: Input = None
) -> jax.Array:
    """Kullback-Leibler divergence of the prediction from the target; 0 where they agree.

        agg(Σ y log y - Σ y log(ŷ + ϵ))        the sums over the classes; 0 log 0 is 0

    Args:
        y_hat: probabilities that add up to 1 along `axis`.
        y: a distribution of the same shape; or integer labels, in an array without that axis
            (then this is `crossentropy`). A label that is no class gives NaN.
        agg: what to do with the values, one per observation; `mean` if not given.
        axis: the class axis (Flux: `dims`).
        eps: ϵ ≥ 0, the machine epsilon of `y_hat` if not given. With 0, a class predicted as
            impossible gives ∞.

    Raises:
        ValueError: where the shapes do not fit.

    Example:
        >>> import fluxax as fx
        >>> p = jnp.array([[0.5, 0.5]])
        >>> round(float(fx.kldivergence(p, jnp.array([[1.0, 0.0]]))), 4)
        0.6931
        >>> abs(round(float(fx.kldivergence(p, p)), 4))
        0.0
    """
    y_hat, y, dtype = _pair("kldivergence", y_hat, y, axis)
    p, y = _at_labels(y_hat + epsilon("kldivergence", eps, dtype), y, axis)
    return aggregate(agg, jnp.sum(xlogy(y, y) - xlogy(y, p), axis), dtype)


def focal_loss(
    y_hat: Input,
    y: Input,
    *,
    agg: Aggregate = mean,
    axis: int = -1,
    gamma: Input = 2,
    eps: Input = None,
) -> jax.Array:
    """Cross entropy that cares less for what is already predicted well.

        agg(-Σ y (1 - p)^γ log p)        p = ŷ + ϵ; the sum over the classes

    With γ = 0 it is `crossentropy`. `1 - p`, which ϵ can push below 0, is held at the machine
    epsilon, so that any γ has a power and a derivative there.

    Args:
        y_hat: probabilities that add up to 1 along `axis`.
        y: as many, one-hot (boolean too) or any distribution; or integer labels, in an array
            without that axis. A label that is no class gives NaN.
        agg: what to do with the values, one per observation; `mean` if not given.
        axis: the class axis (Flux: `dims`).
        gamma: γ ≥ 0, how much less.
        eps: ϵ ≥ 0, the machine epsilon of `y_hat` if not given.

    Raises:
        ValueError: where the shapes do not fit.

    Example:
        >>> import fluxax as fx
        >>> round(float(fx.focal_loss(jnp.array([[0.5, 0.5]]), [1])), 4)
        0.1733

    Reference: Lin et al. 2017, arXiv:1708.02002, eq. 4.
    """
    within("focal_loss", 0, gamma=gamma)
    y_hat, y, dtype = _pair("focal_loss", y_hat, y, axis)
    p, y = _at_labels(y_hat + epsilon("focal_loss", eps, dtype), y, axis)
    doubt = jnp.maximum(1 - p, machine_epsilon(dtype))
    return aggregate(agg, -jnp.sum(doubt**gamma * xlogy(y, p), axis), dtype)


def _pair(who: str, y_hat: Input, y: Input, axis: int) -> tuple[jax.Array, jax.Array, jnp.dtype]:
    """As `pair`, but integers without the class axis stay what they are: labels."""
    check_numbers(who, y_hat=y_hat, y=y)
    y_hat, y = floating(y_hat), indices(y)
    _check_axis(who, "y_hat", y_hat, axis)
    if y.ndim != y_hat.ndim - 1 or jnp.iscomplexobj(y_hat):
        return pair(who, y_hat, y)
    rest = list(y_hat.shape)
    del rest[axis]
    if jnp.issubdtype(y.dtype, jnp.integer) and y.shape == tuple(rest):
        return wide(y_hat), y, y_hat.dtype
    if y.ndim == 0:
        return pair(who, y_hat, y)
    raise ValueError(f"{mismatch(who, y_hat, y)} Class labels are integers of shape {rest}.")


def _check_axis(who: str, name: str, x: jax.Array, axis: int) -> None:
    if not isinstance(axis, (int, np.integer)) or not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{who} expects a class axis of `{name}`, got {short(axis)} for {short(x)}."
        )


def _at_labels(values: jax.Array, y: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """Values and weights to sum over the classes; for labels, the one class that counts.

    Comparing and selecting is one pass that XLA fuses with what made the values, forth and back;
    a gather's derivative would scatter. No one-hot array is made.
    """
    if y.ndim == values.ndim:
        return values, y
    label = jnp.expand_dims(y, axis)
    one_hot = lax.broadcasted_iota(jnp.int32, values.shape, axis % values.ndim) == label
    chosen = jnp.sum(jnp.where(one_hot, values, 0), axis, keepdims=True)
    known = (label >= 0) & (label < values.shape[axis])
    return jnp.where(known, chosen, jnp.nan), jnp.ones_like(chosen)
