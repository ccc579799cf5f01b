"""Writes checkpoint_1.safetensors, the file by which later versions show that they read format 1.

python tests/golden/make_checkpoint.py
"""

from pathlib import Path

import jax.numpy as jnp

import fluxax as fx

model = fx.Dense(2, 3, fx.tanh)
model.weight = jnp.arange(6.0).reshape(2, 3)
opt_state = fx.setup(fx.Adam(0.25), model)
fx.freeze(opt_state.bias)
path = Path(__file__).parent / "checkpoint_1.safetensors"
fx.save(path, model=model, opt_state=opt_state, notes=("one", 2, 3.5))
