"""Data for training: the loader, one-hot arrays, splits and folds.

Observations (samples) stand along the first axis, or along `axis`. Every
function here takes an array, a tuple, a named tuple or a dict of them (nested
as you like), or anything with `__len__` and `__getitem__`.
"""

from fluxax.data._balance import oversample, undersample
from fluxax.data._batch import batch, unbatch
from fluxax.data._choose import filterobs, groupobs, randobs
from fluxax.data._folds import kfolds, leavepout, timefolds
from fluxax.data._loader import DataLoader, eachobs
from fluxax.data._observations import getobs, numobs
from fluxax.data._onehot import onecold, onehot, onehotbatch
from fluxax.data._place import obsrng
from fluxax.data._split import shuffleobs, splitobs
from fluxax.data._views import BatchView, joinobs, mapobs, obsview, slidingwindow

__all__ = [
    "BatchView",
    "DataLoader",
    "batch",
    "eachobs",
    "filterobs",
    "getobs",
    "groupobs",
    "joinobs",
    "kfolds",
    "leavepout",
    "mapobs",
    "numobs",
    "obsrng",
    "obsview",
    "onecold",
    "onehot",
    "onehotbatch",
    "oversample",
    "randobs",
    "shuffleobs",
    "slidingwindow",
    "splitobs",
    "timefolds",
    "unbatch",
    "undersample",
]
