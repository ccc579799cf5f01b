"""Optimisation rules, and the state tree that can be adjusted, frozen and thawed anywhere."""

from fluxax.optimisers._accumulate import AccumGrad
from fluxax.optimisers._adam import (
    AdaBelief,
    Adam,
    AdaMax,
    AdamW,
    AMSGrad,
    Lion,
    NAdam,
    OAdam,
    RAdam,
)
from fluxax.optimisers._adaptive import AdaDelta, AdaGrad, RMSProp
from fluxax.optimisers._adjust import adjust, freeze, thaw
from fluxax.optimisers._average import EMA, ema
from fluxax.optimisers._combine import OptimiserChain
from fluxax.optimisers._descent import Descent, Momentum, Nesterov, Rprop
from fluxax.optimisers._modifiers import ClipGlobalNorm, ClipGrad, ClipNorm, SignDecay, WeightDecay
from fluxax.optimisers._muon import Muon
from fluxax.optimisers._precision import MixedPrecision
from fluxax.optimisers._rule import Rule
from fluxax.optimisers._setup import setup
from fluxax.optimisers._state import Leaf
from fluxax.optimisers._taken import Sometimes
from fluxax.optimisers._update import update

__all__ = [
    "AMSGrad",
    "AccumGrad",
    "AdaBelief",
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adam",
    "AdamW",
    "ClipGlobalNorm",
    "ClipGrad",
    "ClipNorm",
    "Descent",
    "EMA",
    "Leaf",
    "Lion",
    "MixedPrecision",
    "Momentum",
    "Muon",
    "NAdam",
    "Nesterov",
    "OAdam",
    "OptimiserChain",
    "RAdam",
    "RMSProp",
    "Rprop",
    "Rule",
    "SignDecay",
    "Sometimes",
    "WeightDecay",
    "adjust",
    "ema",
    "freeze",
    "setup",
    "thaw",
    "update",
]
