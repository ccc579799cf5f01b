"""Attention: MultiHeadAttention."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fluxax._activations import identity, softmax
from fluxax._errors import check_numbers, short
from fluxax._half import is_half, like
from fluxax._module import Module
from fluxax.init import glorot_uniform
from fluxax.layers._dense import Dense
from fluxax.layers._dropout import Dropout
from fluxax.layers._place import refuse, unfit
from fluxax.layers._shapes import as_input, function, one_rng, sequence_advice, whole


class MultiHeadAttention(Module):
    """Scaled dot-product attention with several heads.

        scores = softmax(q Wq (k Wk)ᵀ / √d + bias)          y = (scores (v Wv)) Wo

    for each head, with `d` features of it; the heads' outputs stand side by side before `Wo`.

    Args:
        dims: the number of features everywhere; `(in, qkv, out)`; or, where they differ,
            `((q, k, v), (qk, v), out)`. The inner ones are those of all heads together.
        nheads: number of heads; it divides the inner numbers of features.
        bias: whether the four projections have an offset.
        init: initialiser of their weights.
        dropout_prob: chance that a score is dropped while training.
        rng: an int, a NumPy generator or a JAX key for `init` and the dropout.

    Raises:
        ValueError: where `nheads` does not divide, or inputs do not fit.
        TypeError: where an argument is of the wrong kind.

    Called as `mha(q)`, `mha(q, k)` (then the values are `k`) or `mha(q, k, v)` with arrays
    `(N, T, features)`; `mask="causal"` lets no place see later ones, a boolean array `(Tq, Tk)`,
    `(N, Tq, Tk)` or `(N, nheads, Tq, Tk)`, or with ones among these sizes, is true for what may be
    seen: `make_padding_mask` makes one, and `&` combines it with `make_causal_mask`. `bias`, of a
    shape that broadcasts to the scores', is added to them before the softmax; what it makes -∞
    is not seen. Returns `y`, `(N, Tq, out)`, and with
    `return_scores=True` the scores too, `(N, nheads, Tq, Tk)`. Where nothing may be seen
    all scores are zero.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> mha = fx.MultiHeadAttention(64, nheads=8)
        >>> y, scores = mha(jnp.ones((2, 10, 64)), mask="causal", return_scores=True)
        >>> y.shape, scores.shape
        ((2, 10, 64), (2, 8, 10, 10))

    Reference: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.
    """

    def __init__(
        self,
        dims: Any,
        *,
        nheads: int = 8,
        bias: bool = False,
        init: Callable[..., Any] = glorot_uniform,
        dropout_prob: float = 0.0,
        rng: Any = None,
    ):
        (n_q, n_k, n_v), (qk, v), out = _dims(dims)
        self.nheads = whole("MultiHeadAttention", "nheads", nheads)
        for n in (qk, v):
            if n % nheads:
                raise ValueError(
                    f"MultiHeadAttention expects nheads to divide {n}, got nheads={nheads}."
                )
        rng = one_rng(rng)
        self.q_proj = Dense(n_q, qk, bias=bias, init=init, rng=rng)
        self.k_proj = Dense(n_k, qk, bias=bias, init=init, rng=rng)
        self.v_proj = Dense(n_v, v, bias=bias, init=init, rng=rng)
        self.out_proj = Dense(v, out, bias=bias, init=init, rng=rng)
        self.attn_drop = Dropout(dropout_prob, rng=rng)

    def __call__(
        self,
        q: Any,
        k: Any = None,
        v: Any = None,
        *,
        bias: Any = None,
        mask: Any = None,
        return_scores: bool = False,
    ) -> Any:
        k = q if k is None else k
        v = k if v is None else v
        q, k, v = (
            self._heads(proj, x)
            for proj, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        mixed, scores = attend(self, q, k, v, bias, mask, self.attn_drop)
        y = self.out_proj(mixed)
        return (y, scores) if return_scores else y

    def _heads(self, proj: Dense, x: Any) -> jax.Array:
        """Project and split the features: `(N, T, F)` to `(N, T, nheads, d)`."""
        x = as_input(self, x, proj.weight)
        n_in = proj.weight.shape[0]
        if x.ndim != 3 or x.shape[-1] != n_in:
            raise refuse(self, f"(N, T, {n_in})", x, sequence_advice(x, n_in))
        return in_heads(proj(x), self.nheads)

    def _arguments(self) -> list[tuple[str, Any]]:
        proj = (self.q_proj, self.k_proj, self.v_proj)
        ins = tuple(p.weight.shape[0] for p in proj)
        inner = (self.q_proj.weight.shape[1], self.v_proj.weight.shape[1])
        out = self.out_proj.weight.shape[1]
        dims: Any = (ins, inner, out)
        if len({*ins, *inner, out}) == 1:
            dims = out
        elif len({*ins}) == 1 == len({*inner}):
            dims = (ins[0], inner[0], out)
        shown = [("", dims), ("nheads", self.nheads)]
        if self.q_proj.bias is not None:
            shown.append(("bias", True))
        p, active = self.attn_drop.p, self.attn_drop.active
        shown += [("dropout_prob", p)] if p else []
        return shown if active is None or not p else [*shown, ("active", active)]


def in_heads(x: jax.Array, nheads: int) -> jax.Array:
    """Features in parts: `(…, T, F)` to `(…, T, nheads, d)`."""
    return x.reshape(*x.shape[:-1], nheads, x.shape[-1] // nheads)


def attend(
    layer: Any, q: Any, k: Any, v: Any, bias: Any, mask: Any, drop: Callable[..., Any]
) -> tuple[jax.Array, jax.Array]:
    """Output and scores for queries, keys and values in heads; of half precision in float32."""
    if k.shape[:-2] != v.shape[:-2] or q.shape[:-3] != k.shape[:-3]:
        raise unfit(
            layer,
            "expects queries, keys and values of one batch, keys as many "
            f"as values, got {q.shape[:-2]}, {k.shape[:-2]} and {v.shape[:-2]} (N, T)",
        )
    to = jnp.float32 if is_half(q) else None
    logits = jnp.einsum("...qhd,...khd->...hqk", q, k, preferred_element_type=to)
    logits, seen = logits / math.sqrt(q.shape[-1]), True
    if bias is not None:
        bias = _fitting(layer, "bias", as_input(layer, bias, logits), logits)
        logits, seen = logits + bias, bias != -jnp.inf
    if mask is not None:
        seen = _seen(layer, mask, logits) & seen
    if seen is True:
        scores = softmax(logits)
    else:  # a finite number in place of -∞, and zeros behind it: no NaN where nothing is seen
        hidden = jnp.finfo(logits.dtype).min
        scores = jnp.where(seen, softmax(jnp.where(seen, logits, hidden)), 0)
    scores = like(q, scores)
    mixed = jnp.einsum("...hqk,...khd->...qhd", drop(scores), v)
    return mixed.reshape(*mixed.shape[:-2], v.shape[-2] * v.shape[-1]), scores


def dot_product_attention(
    q: Any,
    k: Any = None,
    v: Any = None,
    bias: Any = None,
    *,
    mask: Any = None,
    nheads: int = 1,
    fdrop: Callable[..., Any] = identity,
) -> tuple[jax.Array, jax.Array]:
    """Scaled dot-product attention without weights: what MultiHeadAttention does between them.

        scores = softmax(q kᵀ / √d + bias)          y = scores v

    Args:
        q: queries, `(N, T, features)` or `(T, features)`; more batch axes may stand in front.
        k: keys, with as many features; the queries, if not given.
        v: values, as many as keys; the keys, if not given.
        bias: added to the scores before the softmax; what is -∞ is not seen.
        mask: what may be seen, as in MultiHeadAttention.
        nheads: in how many parts the features are split; it divides them.
        fdrop: a function of the scores after the softmax, such as a Dropout.

    Returns:
        `y`, `(N, Tq, features)`, and the scores, `(N, nheads, Tq, Tk)`.

    Raises:
        ValueError: where the inputs do not fit, or `nheads` does not divide.

    Example:
        >>> import fluxax as fx, jax.numpy as jnp
        >>> y, scores = fx.dot_product_attention(jnp.ones((2, 10, 6)), nheads=3, mask="causal")
        >>> y.shape, scores.shape
        ((2, 10, 6), (2, 3, 10, 10))

    Reference: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.1.
    """
    who = dot_product_attention
    k = q if k is None else k
    v = k if v is None else v
    nheads = whole("dot_product_attention", "nheads", nheads)
    q = as_input(who, q)
    k, v = as_input(who, k, q), as_input(who, v, q)
    given = f"{short(q)}, {short(k)} and {short(v)}"
    if not (q.ndim == k.ndim == v.ndim >= 2) or q.shape[-1] != k.shape[-1]:
        raise unfit(who, f"expects (N, T, features), as many in keys as in queries, got {given}")
    if q.shape[-1] % nheads or v.shape[-1] % nheads:
        raise unfit(who, f"expects nheads to divide the features, got nheads={nheads} and {given}")
    fdrop = function("dot_product_attention", fdrop, "fdrop")
    q, k, v = (in_heads(x, nheads) for x in (q, k, v))
    return attend(who, q, k, v, bias, mask, fdrop)


def _dims(dims: Any) -> tuple[tuple[int, int, int], tuple[int, int], int]:
    """`dims` in full: inputs of queries, keys, values; inner ones; output."""
    if not isinstance(dims, (tuple, list)):
        dims = (dims, dims, dims)
    if len(dims) != 3:
        raise ValueError(
            f"MultiHeadAttention expects dims as a number or (in, qkv, out), got {short(dims)}."
        )
    ins, inner, out = dims
    ins = tuple(ins) if isinstance(ins, (tuple, list)) else (ins,) * 3
    inner = tuple(inner) if isinstance(inner, (tuple, list)) else (inner,) * 2
    if len(ins) != 3 or len(inner) != 2:
        raise ValueError(
            "MultiHeadAttention expects dims as ((q, k, v), (qk, v), out), "
            f"got {len(ins)} and {len(inner)} numbers in the first two places."
        )
    a, b, c, d, e, f = (whole("MultiHeadAttention", "dims", n) for n in (*ins, *inner, out))
    return (a, b, c), (d, e), f


def _seen(layer: Any, mask: Any, logits: jax.Array) -> jax.Array:
    """The mask as booleans that broadcast against `(N, heads, Tq, Tk)`."""
    n_q, n_k = logits.shape[-2:]
    if isinstance(mask, str):
        if mask != "causal":
            raise unfit(layer, f'expects mask "causal" or an array of booleans, got {mask!r}')
        return make_causal_mask(n_q, n_k)
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise unfit(layer, f"expects a mask of booleans, got {short(mask)}")
    mask = mask[..., None, :, :] if 2 < mask.ndim == logits.ndim - 1 else mask
    return _fitting(layer, "mask", mask, logits)


def _fitting(layer: Any, what: str, array: jax.Array, logits: jax.Array) -> jax.Array:
    """Something that broadcasts against the scores, as large as they are."""
    try:
        return jnp.broadcast_to(array, logits.shape)
    except ValueError:
        raise unfit(
            layer, f"expects a {what} that fits the scores {logits.shape}, got {short(array)}"
        ) from None


def make_causal_mask(n_q: int, n_k: int | None = None) -> jax.Array:
    """A mask for attention in which no place sees later ones, `(n_q, n_k)`.

    Args:
        n_q: number of queries.
        n_k: number of keys, as many if not given.

    Example:
        >>> make_causal_mask(3).astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    n_q = whole("make_causal_mask", "n_q", n_q, 0)
    n_k = n_q if n_k is None else whole("make_causal_mask", "n_k", n_k, 0)
    return jnp.arange(n_k) <= jnp.arange(n_q)[:, None]


def make_padding_mask(lengths: Any, n_k: int) -> jax.Array:
    """A mask for attention to sequences of different lengths in one array, `(N, 1, n_k)`.

    Args:
        lengths: how many keys of each sequence count, integers `(N,)`; the rest is padding.
        n_k: number of keys in the array.

    Example:
        >>> make_padding_mask([1, 3], 3)[:, 0].astype(int).tolist()
        [[1, 0, 0], [1, 1, 1]]
        >>> (make_padding_mask([1, 3], 3) & make_causal_mask(3)).shape
        (2, 3, 3)
    """
    check_numbers("make_padding_mask", lengths=lengths)
    lengths = jnp.asarray(lengths)
    if lengths.ndim != 1:
        raise ValueError(
            f"make_padding_mask expects a list of lengths, (N,), got {short(lengths)}."
        )
    n_k = whole("make_padding_mask", "n_k", n_k, 0)
    return (jnp.arange(n_k) < lengths[:, None])[:, None]
