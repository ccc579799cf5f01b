"""Losses of segmentation: how much two masks overlap, one number for the whole batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fluxax.losses._arguments import Input, pair, within


def dice_coeff_loss(y_hat: Input, y: Input, *, smooth: Input = 1) -> jax.Array:
    """One minus the Dice coefficient of two masks.

        1 - (2 Σ y ŷ + s) / (Σ y² + Σ ŷ² + s)

    Args:
        y_hat: predicted mask, in [0, 1], of any shape.
        y: mask of the same shape, 0 or 1 (booleans too), or one number.
        smooth: s ≥ 0; above 0 it keeps empty masks from dividing by 0.

    There is nothing to aggregate: the sums are over everything.

    Raises:
        ValueError: where the shapes differ or a parameter is out of range.

    Example:
        >>> import fluxax as fx
        >>> round(float(fx.dice_coeff_loss(jnp.array([1.0, 1.0]), jnp.array([1, 0]))), 4)
        0.25

    Reference: Milletari et al. 2016, arXiv:1606.04797.
    """
    within("dice_coeff_loss", 0, smooth=smooth)
    y_hat, y, dtype = pair("dice_coeff_loss", y_hat, y)
    overlap, total = jnp.sum(y * y_hat), jnp.sum(y * y) + jnp.sum(y_hat * y_hat)
    return (1 - (2 * overlap + smooth) / (total + smooth)).astype(dtype)


def tversky_loss(y_hat: Input, y: Input, *, beta: Input = 0.7) -> jax.Array:
    """One minus the Tversky index of two masks, which weighs the two kinds of error.

        1 - (Σ y ŷ + 1) / (Σ (y ŷ + β (1 - y) ŷ + (1 - β) y (1 - ŷ)) + 1)

    β weighs false positives, as in Flux's code (its documentation has the two swapped). There is
    nothing to aggregate: the sums are over everything.

    Args:
        y_hat: predicted mask, in [0, 1], of any shape.
        y: mask of the same shape, 0 or 1 (booleans too), or one number.
        beta: β in [0, 1].

    Raises:
        ValueError: where the shapes differ or a parameter is out of range.

    Example:
        >>> import fluxax as fx
        >>> round(float(fx.tversky_loss(jnp.array([1.0, 1.0]), jnp.array([1, 0]))), 4)
        0.2593

    Reference: Salehi et al. 2017, arXiv:1706.05721, eq. 3.
    """
    within("tversky_loss", 0, 1, beta=beta)
    y_hat, y, dtype = pair("tversky_loss", y_hat, y)
    false_yes, false_no = (1 - y) * y_hat, y * (1 - y_hat)
    both = jnp.sum(y * y_hat) + 1
    errors = jnp.sum(beta * false_yes + (1 - beta) * false_no)
    return (1 - both / (both + errors)).astype(dtype)
