"""Losses: `loss(y_hat, y, *, agg=mean, …)`, prediction first, target second.

The shapes of the two are equal, or the target is one number; losses over classes also take
integer labels in an array without the class axis, which is the last one (`axis=-1`). `agg` makes
one number of the values: `mean`, `jnp.sum`, any function, or `identity` to keep them. The result
has the dtype of the prediction.
"""

from fluxax.losses._arguments import mean
from fluxax.losses._binary import (
    binary_focal_loss,
    binarycrossentropy,
    hinge_loss,
    logitbinarycrossentropy,
    siamese_contrastive_loss,
    squared_hinge_loss,
)
from fluxax.losses._classes import (
    crossentropy,
    focal_loss,
    kldivergence,
    label_smoothing,
    logitcrossentropy,
)
from fluxax.losses._ctc import ctc_loss
from fluxax.losses._overlap import dice_coeff_loss, tversky_loss
from fluxax.losses._regression import huber_loss, mae, mse, msle, poisson_loss

__all__ = [
    "mae",
    "mse",
    "msle",
    "huber_loss",
    "label_smoothing",
    "crossentropy",
    "logitcrossentropy",
    "binarycrossentropy",
    "logitbinarycrossentropy",
    "kldivergence",
    "poisson_loss",
    "hinge_loss",
    "squared_hinge_loss",
    "dice_coeff_loss",
    "tversky_loss",
    "binary_focal_loss",
    "focal_loss",
    "siamese_contrastive_loss",
    "ctc_loss",
    "mean",
]
