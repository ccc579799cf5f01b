"""fluxax: Flux.jl's training system for Python, compiled by XLA through JAX.

model = fx.Chain(fx.Dense(784, 256, fx.relu), fx.Dense(256, 10))
opt_state = fx.setup(fx.Adam(1e-3), model)
for x, y in train_set:
    val, grads = fx.withgradient(lambda m: fx.logitcrossentropy(m(x), y), model)
    fx.update(opt_state, model, grads[0])
"""

from jax.lax import stop_gradient as stop_gradient

from fluxax import _activations as _activations
from fluxax import data as data
from fluxax import init as init
from fluxax import kernels as kernels
from fluxax import layers as layers
from fluxax import losses as losses
from fluxax import optimisers as optimisers
from fluxax._activations import *
from fluxax._checkpoint._rotation import Checkpoints as Checkpoints
from fluxax._checkpoint._save import load as load
from fluxax._checkpoint._save import save as save
from fluxax._compilation_cache import compilation_cache as compilation_cache
from fluxax._compile._check import StaleProgram as StaleProgram
from fluxax._compile._explain import eager as eager
from fluxax._compile._explain import explain as explain
from fluxax._compile._explain import strict as strict
from fluxax._compile._program import clear_cache as clear_cache
from fluxax._compiled import compiled as compiled
from fluxax._derivatives import hessian as hessian
from fluxax._derivatives import jacobian as jacobian
from fluxax._derivatives import pullback as pullback
from fluxax._destructure import destructure as destructure
from fluxax._destructure import state as state
from fluxax._devices import bf16 as bf16
from fluxax._devices import cpu as cpu
from fluxax._devices import device as device
from fluxax._devices import f16 as f16
from fluxax._devices import f32 as f32
from fluxax._devices import f64 as f64
from fluxax._devices import gpu as gpu
from fluxax._evaluate import evaluate as evaluate
from fluxax._gradient import gradient as gradient
from fluxax._gradient import withgradient as withgradient
from fluxax._implicit._grads import Grads as Grads
from fluxax._implicit._params import Params as Params
from fluxax._implicit._params import params as params
from fluxax._loading import loadmodel as loadmodel
from fluxax._module import Module as Module
from fluxax._module import is_training as is_training
from fluxax._module import testmode as testmode
from fluxax._module import trainmode as trainmode
from fluxax._parameters import fmap as fmap
from fluxax._parameters import modules as modules
from fluxax._parameters import trainables as trainables
from fluxax._random import seed as seed
from fluxax._softmax import logsumexp as logsumexp
from fluxax._stopping import early_stopping as early_stopping
from fluxax._stopping import patience as patience
from fluxax._stopping import plateau as plateau
from fluxax._stopping import throttle as throttle
from fluxax._train import NonFiniteLoss as NonFiniteLoss
from fluxax._train import train as train
from fluxax._train import trainstep as trainstep
from fluxax._tree import Node as Node
from fluxax.data import *
from fluxax.init import *
from fluxax.layers import *
from fluxax.losses import *
from fluxax.optimisers import *

__version__ = "0.1.0"
