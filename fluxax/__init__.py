"""fluxax: Flux.jl's training system for Python, compiled by XLA through JAX.

model = fx.Chain(fx.Dense(784, 256, fx.relu), fx.Dense(256, 10))
opt_state = fx.setup(fx.Adam(1e-3), model)
for x, y in train_set:
    val, grads = fx.withgradient(lambda m: fx.logitcrossentropy(m(x), y), model)
    fx.update(opt_state, model, grads[0])
"""

from jax.lax import stop_gradient as stop_gradient

from fluxax import _activations as _activations
from fluxax import data, init, layers, losses, optimisers
from fluxax._activations import *  # noqa: F403  # the lists are in each room's __all__
from fluxax._compile._explain import eager, explain, strict
from fluxax._compile._program import clear_cache
from fluxax._compiled import compiled
from fluxax._gradient import gradient, withgradient
from fluxax._module import Module, testmode, trainmode
from fluxax._parameters import fmap, loadmodel, params, trainables
from fluxax._random import seed
from fluxax._train import NonFiniteLoss, train, trainstep
from fluxax._tree import Node
from fluxax.data import *  # noqa: F403
from fluxax.init import *  # noqa: F403
from fluxax.layers import *  # noqa: F403
from fluxax.losses import *  # noqa: F403
from fluxax.optimisers import *  # noqa: F403

__version__ = "0.1.0"
