"""Losses of yes-or-no targets: probabilities, scores, margins and distances."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fluxax.losses._arguments import (
    Aggregate,
    Input,
    aggregate,
    epsilon,
    floored,
    machine_epsilon,
    mean,
    pair,
    within,
    xlogy,
)


def binarycrossentropy(
    y_hat: Input, y: Input, *, agg: Aggregate = mean, eps: Input = None
) -> jax.Array:
    """Cross entropy of the predicted probability of "yes", element by element.

        agg(-y log(ŷ + ϵ) - (1 - y) log(1 - ŷ + ϵ))        0 log 0 is 0

    `logitbinarycrossentropy` of scores is the same as this of their `sigmoid`, and more exact.

    Args:
        y_hat: probabilities, in [0, 1], of any shape.
        y: targets in [0, 1] of the same shape (booleans too), or one number.
        agg: what to do with the values, `mean` if not given.
        eps: ϵ ≥ 0, the machine epsilon of `y_hat` if not given. Added, not a limit.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> import fluxax as fx
        >>> round(float(fx.binarycrossentropy(jnp.array([0.5, 0.25]), jnp.array([1, 0]))), 4)
        0.4904
    """
    y_hat, y, dtype = pair("binarycrossentropy", y_hat, y)
    eps = epsilon("binarycrossentropy", eps, dtype)
    return aggregate(agg, -xlogy(y, y_hat + eps) - xlogy(1 - y, 1 - y_hat + eps), dtype)


def logitbinarycrossentropy(y_hat: Input, y: Input, *, agg: Aggregate = mean) -> jax.Array:
    """Cross entropy of raw scores; equal to `binarycrossentropy(sigmoid(ŷ), y)`.

        agg((1 - y) ŷ - log σ(ŷ))

    Computed as `-y log σ(ŷ) - (1 - y) log σ(-ŷ)`, which keeps its digits on both sides.

    Args:
        y_hat: scores, any real numbers.
        y: targets in [0, 1] of the same shape (booleans too), or one number.
        agg: what to do with the values, `mean` if not given.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> import fluxax as fx
        >>> fx.logitbinarycrossentropy(jnp.array([1e4, 1e4]), jnp.array([1, 0]), agg=fx.identity)
        Array([    0., 10000.], dtype=float32)
    """
    y_hat, y, dtype = pair("logitbinarycrossentropy", y_hat, y)
    return aggregate(agg, _xsoftplus(y, -y_hat) + _xsoftplus(1 - y, y_hat), dtype)


def _xsoftplus(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x softplus(y)`, exactly 0 where `x` is 0 and `y` is ∞; so are its derivatives there."""
    return x * jax.nn.softplus(jnp.where((x == 0) & (y == jnp.inf), 0, y))


def binary_focal_loss(
    y_hat: Input, y: Input, *, agg: Aggregate = mean, gamma: Input = 2, eps: Input = None
) -> jax.Array:
    """Binary cross entropy that cares less for what is already predicted well.

        p = y (ŷ + ϵ) + (1 - y) (1 - ŷ - ϵ)
        agg(-(1 - p)^γ log p)

    With γ = 0 it is `binarycrossentropy`. `p` and `1 - p`, which ϵ can push below 0, are held at
    the machine epsilon, so that probabilities of 0 and 1 have a loss and a derivative.

    Args:
        y_hat: probabilities, in [0, 1], of any shape.
        y: targets of the same shape, 0 or 1 (booleans too), or one number.
        agg: what to do with the values, `mean` if not given.
        gamma: γ ≥ 0, how much less.
        eps: ϵ ≥ 0, the machine epsilon of `y_hat` if not given.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> import fluxax as fx
        >>> round(float(fx.binary_focal_loss(jnp.array([0.5, 0.5]), jnp.array([1, 0]))), 4)
        0.1733

    Reference: Lin et al. 2017, arXiv:1708.02002, eq. 4.
    """
    within("binary_focal_loss", 0, gamma=gamma)
    y_hat, y, dtype = pair("binary_focal_loss", y_hat, y)
    p_yes, least = y_hat + epsilon("binary_focal_loss", eps, dtype), machine_epsilon(dtype)
    p = floored(y * p_yes + (1 - y) * (1 - p_yes), least)
    return aggregate(agg, -(jnp.maximum(1 - p, least) ** gamma) * jnp.log(p), dtype)


def hinge_loss(y_hat: Input, y: Input, *, agg: Aggregate = mean) -> jax.Array:
    """What is missing to a margin of one on the right side.

        agg(max(0, 1 - ŷ y))

    Args:
        y_hat: scores, any real numbers.
        y: targets of the same shape, -1 or 1, or one number.
        agg: what to do with the values, `mean` if not given.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> import fluxax as fx
        >>> float(fx.hinge_loss(jnp.array([0.5, 2.0]), jnp.array([-1, 1])))
        0.75
    """
    y_hat, y, dtype = pair("hinge_loss", y_hat, y)
    return aggregate(agg, jax.nn.relu(1 - y_hat * y), dtype)


def squared_hinge_loss(y_hat: Input, y: Input, *, agg: Aggregate = mean) -> jax.Array:
    """The square of `hinge_loss`, element by element.

        agg(max(0, 1 - ŷ y)²)

    Args:
        y_hat: scores, any real numbers.
        y: targets of the same shape, -1 or 1, or one number.
        agg: what to do with the values, `mean` if not given.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> import fluxax as fx
        >>> float(fx.squared_hinge_loss(jnp.array([0.5, 2.0]), jnp.array([-1, 1])))
        1.125
    """
    y_hat, y, dtype = pair("squared_hinge_loss", y_hat, y)
    return aggregate(agg, jnp.square(jax.nn.relu(1 - y_hat * y)), dtype)


def siamese_contrastive_loss(
    y_hat: Input, y: Input, *, agg: Aggregate = mean, margin: Input = 1
) -> jax.Array:
    """Pulls like pairs together and pushes unlike pairs apart, up to a margin.

        agg((1 - y) ŷ² + y max(0, margin - ŷ)²)

    Args:
        y_hat: distances of pairs, ≥ 0, of any shape.
        y: targets of the same shape: 0 for a like pair, 1 for an unlike one; or one number.
        agg: what to do with the values, `mean` if not given.
        margin: how far apart is enough, ≥ 0.

    Raises:
        ValueError: where the shapes differ or the margin is negative.

    Example:
        >>> import fluxax as fx
        >>> float(fx.siamese_contrastive_loss(jnp.array([0.5, 0.5]), jnp.array([0, 1])))
        0.25

    Reference: Hadsell et al. 2006, CVPR, eq. 4 (without its factor ½).
    """
    within("siamese_contrastive_loss", 0, margin=margin)
    y_hat, y, dtype = pair("siamese_contrastive_loss", y_hat, y)
    apart = jnp.square(jax.nn.relu(margin - y_hat))
    return aggregate(agg, (1 - y) * jnp.square(y_hat) + y * apart, dtype)
