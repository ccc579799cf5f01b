"""Data for training: the loader, one-hot arrays, splits and folds.

Observations (samples) stand along the first axis, or along `axis`. Every
function here takes an array, a tuple, a named tuple or a dict of them (nested
as you like), or anything with `__len__` and `__getitem__`.
"""

from fluxax.data._balance import oversample, undersample
from fluxax.data._batch import batch, unbatch
from fluxax.data._loader import DataLoader, eachobs
from fluxax.data._observations import getobs, numobs
from fluxax.data._onehot import onecold, onehot, onehotbatch
from fluxax.data._place import obsrng
from fluxax.data._split import kfolds, shuffleobs, splitobs

__all__ = [
    "DataLoader",
    "batch",
    "eachobs",
    "getobs",
    "kfolds",
    "numobs",
    "obsrng",
    "onecold",
    "onehot",
    "onehotbatch",
    "oversample",
    "shuffleobs",
    "splitobs",
    "unbatch",
    "undersample",
]
