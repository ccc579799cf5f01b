"""RAdam's rectifier, in a form that float32 bears."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from fluxax.optimisers._arrays import module_of, on_host
from fluxax.optimisers._products import Power


def rectifier(beta: Any, power: Power) -> tuple[Any, Any]:
    """Whether ρ > 4, and r, for β₂ and its running product.

    ρ is a difference of two numbers near 2 / (1 - β), which float32 does not bear. With
    a = -log(β) / 2, y = -log(βᵗ) / 2 and W(y) = 1 - coth(y) + 1/y it is equal to
    1 - W(a) + t W(y) + (y - t a) / (a y); the last term is 0 as long as β stays.
    """
    t, a, y = power.t.astype(power.log.dtype), on_host(_half_log, beta), -power.log / 2
    rho = 1 - on_host(_w, a) + t * _w(y) - power.excess / (2 * a * y)
    safe = jnp.where(rho > 4, rho, 5)
    return rho > 4, jnp.sqrt((safe - 4) * (safe - 2) / safe * on_host(_limit_factor, beta))


def _half_log(beta: Any) -> Any:
    xp = module_of(beta)
    return -xp.log(xp.maximum(beta, 1e-37)) / 2


def _w(y: Any) -> Any:
    """1 - coth(y) + 1/y for y > 0, by its series where the terms would cancel."""
    xp = module_of(y)
    near = 0.5 if getattr(y, "dtype", None) == np.float32 else 0.1
    far = xp.maximum(y, near)
    z = y * y
    series = y * (1 / 3 - z * (1 / 45 - z * (2 / 945 - z * (1 / 4725 - z * (2 / 93555)))))
    return xp.where(y < near, 1 - series, 1 / far - 2 / xp.expm1(xp.minimum(2 * far, 80.0)))


def _limit_factor(beta: Any) -> Any:
    """ρ∞ / ((ρ∞ - 4) (ρ∞ - 2)); anything where ρ never exceeds 4."""
    xp = module_of(beta)
    limit = xp.maximum(2 / (1 - beta) - 1, 4.000001)
    return limit / ((limit - 4) * (limit - 2))
