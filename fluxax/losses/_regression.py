"""Losses of real numbers against real numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fluxax.losses._arguments import Aggregate, Input, aggregate, epsilon, mean, pair, within, xlogy


def mae(y_hat: Input, y: Input, *, agg: Aggregate = mean) -> jax.Array:
    """Mean absolute error.

        agg(|ŷ - y|)

    Args:
        y_hat: predictions, of any shape; complex ones too.
        y: targets of the same shape, or one number.
        agg: what to do with the values, `mean` if not given.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> import fluxax as fx
        >>> float(fx.mae(jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0])))
        1.5
    """
    y_hat, y, dtype = pair("mae", y_hat, y, distance=True)
    return aggregate(agg, jnp.abs(y_hat - y), dtype)


def mse(y_hat: Input, y: Input, *, agg: Aggregate = mean) -> jax.Array:
    """Mean squared error.

        agg(|ŷ - y|²)

    Args:
        y_hat: predictions, of any shape; complex ones too.
        y: targets of the same shape, or one number.
        agg: what to do with the values, `mean` if not given.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> import fluxax as fx
        >>> float(fx.mse(jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0])))
        2.5
    """
    y_hat, y, dtype = pair("mse", y_hat, y, distance=True)
    d = y_hat - y
    return aggregate(agg, jnp.real(d * jnp.conj(d)), dtype)


def msle(y_hat: Input, y: Input, *, agg: Aggregate = mean, eps: Input = None) -> jax.Array:
    """Mean squared logarithmic error: it punishes a wrong ratio, not a wrong difference.

        agg(log((ŷ + ϵ) / (y + ϵ))²)

    Args:
        y_hat: predictions, > -ϵ (below: NaN).
        y: targets of the same shape, or one number, > -ϵ.
        agg: what to do with the values, `mean` if not given.
        eps: ϵ ≥ 0, the machine epsilon of `y_hat` if not given.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> import fluxax as fx
        >>> round(float(fx.msle(jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0]))), 4)
        0.4805
    """
    y_hat, y, dtype = pair("msle", y_hat, y)
    eps = epsilon("msle", eps, dtype)
    return aggregate(agg, jnp.square(jnp.log(y_hat + eps) - jnp.log(y + eps)), dtype)


def huber_loss(y_hat: Input, y: Input, *, agg: Aggregate = mean, delta: Input = 1.0) -> jax.Array:
    """Squared error close by, absolute error far away.

        agg(½ d²           where d = |ŷ - y| < δ
            δ (d - ½ δ)    elsewhere)

    Args:
        y_hat: predictions, of any shape.
        y: targets of the same shape, or one number.
        agg: what to do with the values, `mean` if not given.
        delta: δ ≥ 0, where the one becomes the other.

    Raises:
        ValueError: where the shapes differ or δ is out of range.

    Example:
        >>> import fluxax as fx
        >>> float(fx.huber_loss(jnp.array([0.0, 0.0]), jnp.array([1.0, 3.0])))
        1.5

    Reference: Huber 1964, Ann. Math. Statist. 35(1).
    """
    within("huber_loss", 0, delta=delta)
    y_hat, y, dtype = pair("huber_loss", y_hat, y, distance=True)
    d = jnp.abs(y_hat - y)
    return aggregate(agg, jnp.where(d < delta, d * d / 2, delta * (d - delta / 2)), dtype)


def poisson_loss(y_hat: Input, y: Input, *, agg: Aggregate = mean) -> jax.Array:
    """Negative log-likelihood of counts `y` that are Poisson of mean ŷ, up to a constant.

        agg(ŷ - y log ŷ)

    Args:
        y_hat: predicted means, ≥ 0 (0 where `y` is above 0: infinite).
        y: counts of the same shape, or one number, ≥ 0.
        agg: what to do with the values, `mean` if not given.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> import fluxax as fx
        >>> round(float(fx.poisson_loss(jnp.array([1.0, 2.0]), jnp.array([0.0, 2.0]))), 4)
        0.8069
    """
    y_hat, y, dtype = pair("poisson_loss", y_hat, y)
    return aggregate(agg, y_hat - xlogy(y, y_hat), dtype)
