"""Layers: callable objects made of arrays. Batch first, features or channels last."""

from fluxax.layers._attention import (
    MultiHeadAttention,
    dot_product_attention,
    make_causal_mask,
    make_padding_mask,
)
from fluxax.layers._containers import (
    Chain,
    Maxout,
    PairwiseFusion,
    Parallel,
    SkipConnection,
    activations,
)
from fluxax.layers._conv import Conv
from fluxax.layers._dense import Bilinear, Dense, Scale
from fluxax.layers._dropout import AlphaDropout, Dropout, dropout
from fluxax.layers._embedding import Embedding, EmbeddingBag
from fluxax.layers._groups import GroupNorm, InstanceNorm
from fluxax.layers._norm import BatchNorm, LayerNorm, normalise
from fluxax.layers._pool import GlobalMaxPool, GlobalMeanPool, MaxPool, MeanPool, flatten
from fluxax.layers._recurrence import Recurrence, initialstates
from fluxax.layers._recurrent import (
    GRU,
    LSTM,
    RNN,
    GRUCell,
    GRUv3,
    GRUv3Cell,
    LSTMCell,
    RNNCell,
)
from fluxax.layers._resize import AdaptiveMaxPool, AdaptiveMeanPool, PixelShuffle
from fluxax.layers._summary import outputsize, summary
from fluxax.layers._transposed import ConvTranspose, CrossCor, DepthwiseConv
from fluxax.layers._upsample import Upsample
from fluxax.layers._weight_norm import WeightNorm

__all__ = [
    "Chain",
    "Dense",
    "Bilinear",
    "Scale",
    "Embedding",
    "EmbeddingBag",
    "Conv",
    "ConvTranspose",
    "DepthwiseConv",
    "CrossCor",
    "MaxPool",
    "MeanPool",
    "AdaptiveMaxPool",
    "AdaptiveMeanPool",
    "GlobalMaxPool",
    "GlobalMeanPool",
    "Upsample",
    "PixelShuffle",
    "flatten",
    "BatchNorm",
    "LayerNorm",
    "InstanceNorm",
    "GroupNorm",
    "normalise",
    "WeightNorm",
    "Dropout",
    "AlphaDropout",
    "dropout",
    "RNN",
    "LSTM",
    "GRU",
    "GRUv3",
    "Recurrence",
    "initialstates",
    "RNNCell",
    "LSTMCell",
    "GRUCell",
    "GRUv3Cell",
    "MultiHeadAttention",
    "dot_product_attention",
    "make_causal_mask",
    "make_padding_mask",
    "SkipConnection",
    "Parallel",
    "PairwiseFusion",
    "Maxout",
    "activations",
    "outputsize",
    "summary",
]
