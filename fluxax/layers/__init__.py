"""Layers: callable objects made of arrays. Batch first, features or channels last."""

from fluxax.layers._containers import (
    Chain,
    Maxout,
    PairwiseFusion,
    Parallel,
    SkipConnection,
    activations,
)
from fluxax.layers._conv import Conv
from fluxax.layers._dense import Dense, Embedding, Scale
from fluxax.layers._dropout import Dropout
from fluxax.layers._norm import BatchNorm, LayerNorm
from fluxax.layers._pool import GlobalMaxPool, GlobalMeanPool, MaxPool, MeanPool, flatten

__all__ = [
    "Chain",
    "Dense",
    "Scale",
    "Embedding",
    "Conv",
    "MaxPool",
    "MeanPool",
    "GlobalMaxPool",
    "GlobalMeanPool",
    "flatten",
    "BatchNorm",
    "LayerNorm",
    "Dropout",
    "SkipConnection",
    "Parallel",
    "PairwiseFusion",
    "Maxout",
    "activations",
]
