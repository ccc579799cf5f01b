"""Optimisation rules, and the state tree that can be adjusted, frozen and thawed anywhere."""

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
from fluxax.optimisers._combine import OptimiserChain
from fluxax.optimisers._descent import Descent, Momentum, Nesterov, Rprop
from fluxax.optimisers._modifiers import ClipGrad, ClipNorm, SignDecay, WeightDecay
from fluxax.optimisers._rule import Rule
from fluxax.optimisers._state import Leaf, setup
from fluxax.optimisers._update import update

__all__ = [
    "AMSGrad",
    "AdaBelief",
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adam",
    "AdamW",
    "ClipGrad",
    "ClipNorm",
    "Descent",
    "Leaf",
    "Lion",
    "Momentum",
    "NAdam",
    "Nesterov",
    "OAdam",
    "OptimiserChain",
    "RAdam",
    "RMSProp",
    "Rprop",
    "Rule",
    "SignDecay",
    "WeightDecay",
    "adjust",
    "freeze",
    "setup",
    "thaw",
    "update",
]
