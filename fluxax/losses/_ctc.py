"""The loss of a sequence of labels whose places in time are not known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from fluxax._errors import check_numbers, short
from fluxax._half import wide
from fluxax._integers import indices
from fluxax.losses._arguments import Aggregate, Input, aggregate, floating, mean

#: The logarithm of "impossible". Not -∞, whose differences are NaN in the derivative.
_NEVER = -1e30


def ctc_loss(
    y_hat: Input,
    y: Input,
    *,
    agg: Aggregate = mean,
    input_lengths: Input = None,
    target_lengths: Input = None,
) -> jax.Array:
    """Connectionist temporal classification: minus the log-probability of a label sequence.

        -log Σ Π softmax(ŷ[t])[path[t]]        over all paths that read `y`

    A path names one class per time step; it reads `y` once repeated classes are merged and then
    blanks, the last class, are dropped. The sum is Graves' forward recursion in logarithms.

    Args:
        y_hat: raw scores `(T, K)`, or `(N, T, K)` for a batch. Class `K - 1` is the blank.
        y: integer labels `(L,)`, or `(N, L)`. A shorter sequence of a batch is filled up with
            blanks at its end. Any other label outside [0, K - 1) gives NaN.
        agg: what to do with the values, one per sequence; `mean` if not given.
        input_lengths: how many time steps of each sequence count, `(N,)`; all, if not given.
        target_lengths: how many labels of each sequence count, `(N,)`. What stands behind those
            that count may be anything, NaN too. Lengths below 0 or above T and L give NaN.

    A sequence too long for its T steps gives ∞, and no gradient.

    Raises:
        ValueError: for shapes that do not fit, or labels or lengths that are not integers.

    Example:
        >>> import fluxax as fx
        >>> round(float(fx.ctc_loss(jnp.zeros((2, 3)), [0])), 4)  # 3 of 9 paths: 0 0, 0 _, _ 0
        1.0986

    Reference: Graves et al. 2006, ICML, section 4.1.
    """
    check_numbers("ctc_loss", y_hat=y_hat, y=y)
    if jnp.iscomplexobj(y_hat):
        raise TypeError(f"ctc_loss expects real numbers as `y_hat`, got {short(y_hat)}.")
    y_hat, y = floating(y_hat), indices(y)
    fits = y_hat.ndim in (2, 3) and y.ndim == y_hat.ndim - 1 and y.shape[:-1] == y_hat.shape[:-2]
    if not fits or not (jnp.issubdtype(y.dtype, jnp.integer) or y.size == 0):
        raise ValueError(
            "ctc_loss expects scores (T, K) and integer labels (L,), or (N, T, K) and (N, L), "
            f"got {short(y_hat)} and {short(y)}."
        )
    dtype, y_hat, there, blank = y_hat.dtype, wide(y_hat), True, y_hat.shape[-1] - 1
    y = jnp.where((y >= 0) & (y <= blank), y, blank + 1).astype(jnp.int32)
    if target_lengths is not None:
        counts, there = _within("target_lengths", target_lengths, y.shape)
        y = jnp.where(counts, y, blank)
    if input_lengths is not None:  # behind its end a sequence goes on with blanks, for certain
        counts, inside = _within("input_lengths", input_lengths, y_hat.shape[:-1])
        blanks = jnp.where(jnp.arange(blank + 1) == blank, 0, -jnp.inf)
        y_hat, there = jnp.where(counts[..., None], y_hat, blanks), there & inside
    logp = jnp.maximum(jax.nn.log_softmax(y_hat, -1), _NEVER)
    one = _sequence if y_hat.ndim == 2 else jax.vmap(_sequence)
    return aggregate(agg, jnp.where(there, one(logp, y), jnp.nan), dtype)


def _within(name: str, lengths: Input, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Which places of each sequence count, and whether it has as many as that."""
    check_numbers("ctc_loss", **{name: lengths})
    lengths = indices(lengths)
    if lengths.shape != shape[:-1] or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise ValueError(
            f"ctc_loss expects {name} as integers of shape {shape[:-1]}, got {short(lengths)}."
        )
    counts = jnp.arange(shape[-1]) < lengths[..., None]
    return counts, (lengths >= 0) & (lengths <= shape[-1])


def _sequence(logp: jax.Array, y: jax.Array) -> jax.Array:
    """The loss of one sequence: `logp` is (T, K), `y` is (L,)."""
    blank = logp.shape[1] - 1
    states = jnp.full(2 * y.size + 1, blank).at[1::2].set(y)  # _ a _ b _ : (S,)
    twice = jnp.concatenate([jnp.full(2, blank), states[:-2]])[: states.size]
    skips = (states != blank) & (states != twice)  # from `a` straight to `b`

    def step(log_alpha, log_emit):
        before = jnp.pad(log_alpha, (2, 0), constant_values=_NEVER)
        skipped = jnp.where(skips, before[:-2], _NEVER)
        ways = jnp.stack([log_alpha, before[1:-1], skipped])
        return jnp.maximum(jax.nn.logsumexp(ways, axis=0) + log_emit, _NEVER), None

    start = jnp.full(states.size, _NEVER, logp.dtype).at[0].set(0)
    log_alpha, _ = lax.scan(step, start, jnp.take(logp, states, 1, mode="clip"))

    length = jnp.sum(y != blank)
    last = jnp.stack([log_alpha[2 * length], log_alpha[jnp.maximum(2 * length - 1, 0)]])
    loss = -jnp.where(length > 0, jax.nn.logsumexp(last), last[0])
    known = jnp.all((y >= 0) & (y <= blank)) & jnp.all((y[:-1] != blank) | (y[1:] == blank))
    return jnp.where(known, jnp.where(loss < -_NEVER / 2, loss, jnp.inf), jnp.nan)
