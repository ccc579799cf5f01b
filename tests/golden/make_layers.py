"""Golden numbers for `tests/test_golden_layers.py`, from PyTorch in double precision.

    python tests/golden/make_layers.py

Every case is one layer of fluxax as text, the call as text, weights and inputs drawn here, all
outputs in one row, the derivatives of `Σ c y` by every weight and floating input, and what the
layer keeps. Arrays are in fluxax's layout: features and channels last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import multi_head_attention_forward
from torch.nn.utils.parametrizations import weight_norm

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
Layout = Callable[[Tensor], Tensor]
CASES: list[dict[str, Any]] = []
ROWS: dict[str, list[np.ndarray]] = {"f": [], "i": []}


def same(x: Tensor) -> Tensor:
    return x


def turn(w: Tensor) -> Tensor:
    return w.T


def last(x: Tensor) -> Tensor:
    """PyTorch's `(N, C, …)` with the channels last."""
    return x.movedim(1, -1)


def kernel(w: Tensor) -> Tensor:
    """PyTorch's `(out, in, …)` as `(…, in, out)`."""
    return w.movedim((1, 0), (-2, -1))


def flipped(w: Tensor) -> Tensor:
    return kernel(w).flip(tuple(range(w.ndim - 2)))


def into_kernel(w: Tensor) -> Tensor:
    """PyTorch's `(in, out, …)` as `(…, in, out)`."""
    return w.movedim((0, 1), (-2, -1))


def rounded(x: Tensor) -> Tensor:
    """Exactly what single precision can hold."""
    return x.detach().to(torch.float32).to(torch.float64)


def keep(array: Tensor) -> list[Any]:
    """Put an array aside: where in the row of its kind it begins, and its shape."""
    kind = "f" if array.is_floating_point() else "i"
    start = sum(part.size for part in ROWS[kind])
    ROWS[kind].append(array.detach().numpy().ravel())
    return [kind, start, *array.shape]


def case(
    text: str,
    layer: Callable[..., Any],
    inputs: Tensor | Sequence[Tensor],
    weights: dict[str, tuple[Tensor, Layout]] | None = None,
    layout: Layout = last,
    *,
    call: str = "layer(*x)",
    mode: str = "",
    out: Layout | None = None,
    state: Callable[[], dict[str, Tensor]] = dict,
) -> None:
    """Run one layer and note everything a test needs to repeat it."""
    weights = weights or {}
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    xs = [rounded(x).requires_grad_() if x.is_floating_point() else x for x in inputs]
    for w, _ in weights.values():
        w.data, w.grad = rounded(w), None
        w.requires_grad_()
    given = layer(*xs)
    given = given if isinstance(given, (tuple, list)) else [given]
    y = torch.cat([(out or layout)(part).reshape(-1) for part in given])
    c = rounded(torch.randn_like(y))
    (y * c).sum().backward()
    floats = {str(n): x for n, x in enumerate(xs) if x.is_floating_point()}
    CASES.append(
        {
            "layer": text,
            "call": call,
            "mode": mode,
            "x": [keep(layout(x)) for x in xs],
            "c": keep(c),
            "y": keep(y),
            "dx": {n: keep(layout(gradient(x))) for n, x in floats.items()},
            "weights": {k: keep(f(w)) for k, (w, f) in weights.items()},
            "dweights": {k: keep(f(gradient(w))) for k, (w, f) in weights.items()},
            "state": {k: keep(v) for k, v in state().items()},
        }
    )


def gradient(w: Tensor) -> Tensor:
    assert w.grad is not None
    return w.grad


def linear(prefix: str, layer: Any, turned: Layout = turn) -> dict[str, tuple[Tensor, Layout]]:
    """The weights of a layer with `weight` and `bias`."""
    found = {f"{prefix}weight": (layer.weight, turned)}
    return found if layer.bias is None else {**found, f"{prefix}bias": (layer.bias, same)}


def affine(layer: Any) -> dict[str, tuple[Tensor, Layout]]:
    """The weights of a normalisation, away from ones and zeros."""
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return {"scale": (layer.weight, same), "bias": (layer.bias, same)}


# --- the layers ---------------------------------------------------------------------------


def dense() -> None:
    a, b, c = nn.Linear(4, 3), nn.Linear(4, 3, bias=False), nn.Bilinear(4, 5, 3)
    case("Dense(4, 3, tanh)", lambda x: a(x).tanh(), torch.randn(2, 5, 4), linear("", a), same)
    case("Dense(4, 3, bias=False)", b, torch.randn(5, 4), linear("", b), same)
    xs = (torch.randn(6, 4), torch.randn(6, 5))
    weights = linear("", c, lambda w: w.permute(1, 2, 0))
    case("Bilinear((4, 5), 3, tanh)", lambda x, y: c(x, y).tanh(), xs, weights, same)
    scale, bias = torch.randn(3, 4), torch.randn(3, 4)
    both = {"scale": (scale, same), "bias": (bias, same)}
    scaled = lambda x: (scale * x + bias).tanh()
    case("Scale(3, 4, tanh)", scaled, torch.randn(2, 3, 4), both, same)
    case("flatten", lambda x: x.movedim(1, -1).flatten(1), torch.randn(2, 3, 4, 5), out=same)


def tables() -> None:
    table = nn.Embedding(7, 3)
    weights = {"weight": (table.weight, same)}
    case("Embedding(7, 3)", table, torch.randint(7, (2, 5)), weights, same)
    for mode in ("mean", "sum", "max"):
        for offsets in ((), (torch.tensor([0, 2, 2, 5]),)):
            bag = nn.EmbeddingBag(7, 3, mode=mode)
            x = torch.randint(7, (6,) if offsets else (2, 5))
            weights = {"weight": (bag.weight, same)}
            case(f"EmbeddingBag(7, 3, jnp.{mode})", bag, (x, *offsets), weights, same)


def convolutions() -> None:
    rows: list[tuple[str, Any, tuple[int, ...]]] = [
        ("Conv((3, 2), 2, 3, pad=1)", nn.Conv2d(2, 3, (3, 2), padding=1), (2, 2, 6, 5)),
        ("Conv((3,), 2, 3, stride=2)", nn.Conv1d(2, 3, 3, stride=2), (2, 2, 9)),
        ("Conv((2, 2, 2), 2, 3, bias=False)", nn.Conv3d(2, 3, 2, bias=False), (1, 2, 3, 4, 3)),
        (
            "Conv((3, 3), 4, 6, stride=(1, 2), pad=(2, 1), dilation=2, groups=2)",
            nn.Conv2d(4, 6, 3, stride=(1, 2), padding=(2, 1), dilation=2, groups=2),
            (2, 4, 6, 7),
        ),
        (
            "Conv((2, 3), 1, 2, pad='same', dilation=(3, 1))",
            nn.Conv2d(1, 2, (2, 3), padding="same", dilation=(3, 1)),
            (2, 1, 6, 5),
        ),
        ("Conv((2, 3), 2, 3, flipkernel=True)", nn.Conv2d(2, 3, (2, 3)), (2, 2, 4, 5)),
        ("ConvTranspose((3, 2), 2, 3)", nn.ConvTranspose2d(2, 3, (3, 2)), (2, 2, 4, 3)),
        (
            "ConvTranspose((3, 3), 4, 6, stride=(2, 3), pad=1, outpad=1, dilation=2, groups=2)",
            nn.ConvTranspose2d(4, 6, 3, (2, 3), 1, 1, groups=2, dilation=2),
            (2, 4, 4, 3),
        ),
        ("ConvTranspose((4,), 2, 3, stride=2)", nn.ConvTranspose1d(2, 3, 4, 2), (2, 2, 5)),
        ("DepthwiseConv((3, 3), 2, 4)", nn.Conv2d(2, 4, 3, groups=2), (2, 2, 5, 4)),
        ("CrossCor((3, 3), 2, 4)", nn.Conv2d(2, 4, 3), (2, 2, 5, 4)),
    ]
    for text, layer, shape in rows:
        turned = into_kernel if "Transpose" in text else flipped if "flip" in text else kernel
        case(text, layer, torch.randn(*shape), linear("", layer, turned))


def pools() -> None:
    rows: list[tuple[str, Any, tuple[int, ...]]] = [
        ("MaxPool((2, 2))", nn.MaxPool2d(2), (2, 2, 5, 6)),
        ("MaxPool((3, 2), stride=(2, 1), pad=1)", nn.MaxPool2d((3, 2), (2, 1), 1), (2, 2, 6, 5)),
        ("MaxPool((10,), stride=3, pad=4)", nn.MaxPool1d(10, 3, 4), (2, 2, 17)),
        ("MeanPool((2, 2))", nn.AvgPool2d(2), (2, 2, 5, 6)),
        ("MeanPool((3, 2), stride=2, pad=1)", nn.AvgPool2d((3, 2), 2, 1), (2, 2, 6, 5)),
        ("MeanPool((9,), stride=2, pad=3)", nn.AvgPool1d(9, 2, 3), (2, 2, 13)),
        ("GlobalMaxPool()", nn.AdaptiveMaxPool2d(1), (2, 3, 4, 5)),
        ("GlobalMeanPool()", nn.AdaptiveAvgPool2d(1), (2, 3, 4, 5)),
        ("AdaptiveMaxPool((2, 3))", nn.AdaptiveMaxPool2d((2, 3)), (2, 2, 4, 9)),
        ("AdaptiveMeanPool((2, 3))", nn.AdaptiveAvgPool2d((2, 3)), (2, 2, 4, 9)),
        ("PixelShuffle(2)", nn.PixelShuffle(2), (2, 12, 3, 2)),
        ("Upsample(scale=(2, 3))", nn.Upsample(scale_factor=(2, 3)), (2, 2, 3, 2)),
        ("Upsample(size=(7,))", nn.Upsample(size=(7,)), (2, 2, 3)),
        ("Upsample('linear', scale=2)", lines("linear", scale_factor=2), (2, 2, 4)),
        ("Upsample('bilinear', size=(5, 2))", lines("bilinear", size=(5, 2)), (2, 2, 3, 4)),
        ("Upsample('trilinear', scale=2)", lines("trilinear", scale_factor=2), (1, 2, 2, 3, 2)),
        ("Upsample(1.5, 'bilinear')", lines("bilinear", scale_factor=1.5), (1, 2, 3, 4)),
    ]
    for text, layer, shape in rows:
        case(text, layer, torch.randn(*shape))
    # A window full of equal values: the first of them gets the derivative.
    case("MaxPool((2, 2))", nn.MaxPool2d(2), torch.ones(1, 1, 4, 4))
    case("MaxPool((2, 2))", nn.MaxPool2d(2), torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]]))
    case("MaxPool((3, 3), stride=1)", nn.MaxPool2d(3, 1), torch.ones(1, 1, 5, 5))
    case("GlobalMaxPool()", nn.AdaptiveMaxPool2d(1), torch.ones(1, 1, 2, 3))


def lines(mode: str, **options: Any) -> nn.Upsample:
    return nn.Upsample(mode=mode, align_corners=True, **options)


def norms() -> None:
    stats = lambda layer: lambda: {"mean": layer.running_mean, "var": layer.running_var}
    for mode in ("train", "test"):
        rows = [
            ("BatchNorm(3)", nn.BatchNorm2d(3), (4, 3, 2, 5)),
            ("BatchNorm(3, momentum=0.3, eps=0.01)", nn.BatchNorm1d(3, 0.01, 0.3), (6, 3)),
            (
                "InstanceNorm(3, affine=True, track_stats=True)",
                nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
                (2, 3, 5),
            ),
        ]
        for text, layer, shape in rows:
            layer.train(mode == "train")
            x = 2 + 3 * torch.randn(*shape)
            case(text, layer, x, affine(layer), mode=mode, state=stats(layer))
    bare = nn.BatchNorm1d(3, affine=False, track_running_stats=False)
    text = "BatchNorm(3, relu, affine=False, track_stats=False)"
    case(text, lambda x: bare(x).relu(), torch.randn(6, 3))
    layer = nn.LayerNorm((3, 4))
    case("LayerNorm(3, 4)", layer, torch.randn(2, 3, 4), affine(layer), same)
    layer = nn.LayerNorm(4, eps=0.1, elementwise_affine=False)
    case("LayerNorm(4, affine=False, eps=0.1)", layer, torch.randn(2, 3, 4), layout=same)
    layer = nn.GroupNorm(2, 6)
    case("GroupNorm(6, 2)", layer, 1 + 2 * torch.randn(2, 6, 3, 2), affine(layer))
    case("InstanceNorm(3)", nn.InstanceNorm2d(3), 1 + 2 * torch.randn(2, 3, 3, 2))
    for text, inner, shape in (
        ("WeightNorm(Dense(4, 3))", nn.Linear(4, 3), (5, 4)),
        ("WeightNorm(Conv((3, 2), 2, 3))", nn.Conv2d(2, 3, (3, 2)), (2, 2, 4, 3)),
    ):
        split: Any = weight_norm(inner, dim=0)
        g, v = split.parametrizations.weight.original0, split.parametrizations.weight.original1
        nn.init.normal_(g)
        turned = kernel if v.ndim > 2 else turn
        weights = {"g": (g, turned), "layer.weight": (v, turned), "layer.bias": (split.bias, same)}
        case(text, split, torch.randn(*shape), weights, last if v.ndim > 2 else same)
    for text in ("Dropout(0.5)", "AlphaDropout(0.5)"):
        case(text, lambda x: x * 1, torch.randn(3, 4), layout=same, mode="test")


def gates(layer: Any, prefix: str = "", suffix: str = "_l0") -> dict[str, tuple[Tensor, Layout]]:
    """The weights of a recurrent layer or cell; PyTorch has a second offset, here zero."""
    getattr(layer, f"bias_hh{suffix}").data.zero_()
    names = {"Wi": ("weight_ih", turn), "Wh": ("weight_hh", turn), "bias": ("bias_ih", same)}
    return {prefix + ours: (getattr(layer, k + suffix), f) for ours, (k, f) in names.items()}


def recurrent() -> None:
    h0, c0, x = torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 5, 3)
    for text, layer in (
        ("RNN(3, 4)", nn.RNN(3, 4, batch_first=True)),
        ("RNN(3, 4, relu)", nn.RNN(3, 4, nonlinearity="relu", batch_first=True)),
        ("LSTM(3, 4)", nn.LSTM(3, 4, batch_first=True)),
        ("GRU(3, 4)", nn.GRU(3, 4, batch_first=True)),
    ):
        run = lambda x, layer=layer: layer(x)[0]
        case(text, run, x, gates(layer, "cell."), same)
    for text, layer in (("RNN", nn.RNN), ("GRU", nn.GRU)):
        made = layer(3, 4, batch_first=True)
        run = lambda x, h, made=made: made(x, h[None])
        text += "(3, 4, return_state=True)"
        case(text, run, (x, h0), gates(made, "cell."), same)
    lstm = nn.LSTM(3, 4, batch_first=True)

    def with_state(x: Tensor, h: Tensor, c: Tensor) -> list[Tensor]:
        y, (h, c) = lstm(x, (h[None], c[None]))
        return [y, h, c]

    call = "layer(x[0], (x[1], x[2]))"
    text = "LSTM(3, 4, return_state=True)"
    case(text, with_state, (x, h0, c0), gates(lstm, "cell."), same, call=call)
    for text, cell in (("RNNCell(3, 4)", nn.RNNCell(3, 4)), ("GRUCell(3, 4)", nn.GRUCell(3, 4))):
        case(text, cell, (x[:, 0], h0), gates(cell, suffix=""), same, call="layer(*x)[0]")
    cell = nn.LSTMCell(3, 4)
    run = lambda x, h, c: cell(x, (h, c))
    call = "layer(x[0], (x[1], x[2]))[1]"
    case("LSTMCell(3, 4)", run, (x[:, 0], h0, c0), gates(cell, suffix=""), same, call=call)
    gru_v3(x, h0)


def gru_v3(x: Tensor, h0: Tensor) -> None:
    """PyTorch has no such layer; its derivatives of the paper's formula, version 3."""
    wi, wh, b = torch.randn(3, 12), torch.randn(4, 12), torch.randn(12)

    def run(x: Tensor, h: Tensor) -> Tensor:
        ys = []
        for t in range(x.shape[1]):
            xr, xz, xn = (x[:, t] @ wi + b).chunk(3, -1)
            r, z = (xr + h @ wh[:, :4]).sigmoid(), (xz + h @ wh[:, 4:8]).sigmoid()
            h = (1 - z) * (xn + (r * h) @ wh[:, 8:]).tanh() + z * h
            ys.append(h)
        return torch.stack(ys, 1)

    weights = {"cell.Wi": (wi, same), "cell.Wh": (wh, same), "cell.bias": (b, same)}
    case("GRUv3(3, 4)", run, (x, h0), weights, same)


def attention() -> None:
    later = torch.ones(5, 5).triu(1).bool()
    lengths = torch.tensor([2, 5])
    padding = torch.arange(5) >= lengths[:, None]
    rows = [
        ("layer(*x)", {}),
        ("layer(*x, mask='causal')", {"attn_mask": later}),
        ("layer(*x, mask=fx.make_padding_mask([2, 5], 5))", {"key_padding_mask": padding}),
        (
            "layer(*x, mask=fx.make_padding_mask([2, 5], 5) & fx.make_causal_mask(5))",
            {"key_padding_mask": padding, "attn_mask": later},
        ),
        ("layer(*x, return_scores=True)", {"need_weights": True, "average_attn_weights": False}),
    ]
    for call, options in rows:
        heads("MultiHeadAttention(4, nheads=2, bias=True)", call, 4, 4, [(2, 5, 4)], options)
    shapes = [(2, 3, 4), (2, 5, 3), (2, 5, 6)]
    heads("MultiHeadAttention(((4, 3, 6), 4, 4), nheads=2)", "layer(*x)", 3, 6, shapes, {})


def heads(text: str, call: str, n_k: int, n_v: int, shapes: Any, options: dict[str, Any]) -> None:
    bias = "bias" in text
    names = ("q_proj", "k_proj", "v_proj", "out_proj")
    parts = [nn.Linear(n, 4, bias=bias) for n in (4, n_k, n_v, 4)]
    weights: dict[str, tuple[Tensor, Layout]] = {}
    for name, part in zip(names, parts, strict=True):
        weights |= linear(f"{name}.", part)
    if bias:
        parts[1].bias.data.zero_()  # as in ours; its derivative is zero but for rounding
        del weights["k_proj.bias"]
    options = {"need_weights": False, **options}

    def forward(*xs: Tensor) -> list[Tensor]:
        q, k, v = (x.transpose(0, 1) for x in (xs * 3 if len(xs) == 1 else xs))
        offsets = torch.cat([part.bias for part in parts[:3]]) if bias else None
        ws = {f"{n}_weight": p.weight for n, p in zip(names[:3], parts, strict=False)}
        y, scores = multi_head_attention_forward(
            *(q, k, v, 4, 2, torch.empty(0), offsets, None, None, False, 0.0),
            *(parts[3].weight, parts[3].bias),
            use_separate_proj_weight=True,
            **ws,
            **options,
        )
        return [y.transpose(0, 1)] + ([] if scores is None else [scores])

    case(text, forward, [torch.randn(*s) for s in shapes], weights, same, call=call)


def containers() -> None:
    a, b, c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
    first = linear("layers[0].", a)
    two = {**first, **linear("layers[1].", b)}
    x, x2 = torch.randn(5, 4), torch.randn(5, 4)
    text = "Chain(Dense(4, 4, tanh), Dense(4, 3))"
    chain = {**first, **linear("layers[1].", c)}
    case(text, lambda x: c(a(x).tanh()), x, chain, same)
    skip = linear("layers.", a)
    case("SkipConnection(Dense(4, 4), jnp.multiply)", lambda x: a(x) * x, x, skip, same)
    both = "(jnp.multiply, Dense(4, 4), Dense(4, 4))"
    case("Parallel" + both, lambda x, y: a(x) * b(y), (x, x2), two, same)
    fusion = lambda x, y: [a(x), b(a(x) * y)]
    case("PairwiseFusion" + both, fusion, (x, x2), two, same)
    case("Maxout(Dense(4, 4), Dense(4, 4))", lambda x: torch.maximum(a(x), b(x)), x, two, same)
    tied = "(lambda d: Chain(d, tanh, d))(Dense(4, 4))"
    case(tied, lambda x: a(a(x).tanh()), x, first, same)


def write() -> None:
    rooms = (dense, tables, convolutions, pools, norms, recurrent, attention, containers)
    for make in rooms:
        make()
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    cases = json.dumps({"versions": versions, "cases": CASES})
    path = Path(__file__).with_name("layers.npz")
    numbers = np.concatenate(ROWS["f"]).astype(np.float32)  # they are compared to 1e-5
    np.savez_compressed(path, cases=np.array(cases), f=numbers, i=np.concatenate(ROWS["i"]))
    print(f"{len(CASES)} cases, {path.stat().st_size} bytes, {versions}")


if __name__ == "__main__":
    write()
