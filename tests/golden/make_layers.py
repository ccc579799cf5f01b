"""Golden numbers for `tests/test_layers.py`, from PyTorch in double precision.

    python tests/golden/make_layers.py

Every case is one layer of fluxax as text, with weights and input drawn here, the output, and the
derivatives of `Σ c y` with random `c`. Arrays are in fluxax's layout: features and channels last.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
CASES: list[dict[str, Any]] = []


def digits(array: Any) -> dict[str, Any]:
    """An array for JSON, with as many digits as single precision tells apart."""
    array = np.asarray(array)
    flat = array.ravel().tolist()
    values = [float(f"{v:.9g}") if isinstance(v, float) else v for v in flat]
    return {"shape": list(array.shape), "values": values}


def gradient(w: Tensor) -> Tensor:
    assert w.grad is not None
    return w.grad


def last(x: Tensor) -> Tensor:
    """PyTorch's `(N, C, …)` with the channels last."""
    return x.movedim(1, -1)


def kernel(w: Tensor) -> Tensor:
    """PyTorch's `(out, in, …)` as `(…, in, out)`."""
    return w.movedim((1, 0), (-2, -1))


def same(x: Tensor) -> Tensor:
    return x


def case(
    text: str,
    layer: Callable[..., Tensor],
    x: Tensor,
    weights: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]],
    layout: Callable[[Tensor], Tensor] = last,
    out: Callable[[Tensor], Tensor] | None = None,
    mode: str = "",
    state: Callable[[], dict[str, Tensor]] = dict,
) -> None:
    """Run one layer and note everything a test needs to repeat it."""
    x = x.detach().to(torch.float32).to(torch.float64)  # exactly what single precision can hold
    x.requires_grad_()
    for w, _ in weights.values():
        w.data = w.data.to(torch.float32).to(torch.float64)
        w.requires_grad_()
    y = layer(x)
    y_ours = (out or layout)(y)
    c = torch.randn_like(y_ours).to(torch.float32).to(torch.float64)
    (y_ours * c).sum().backward()
    CASES.append(
        {
            "layer": text,
            "mode": mode,
            "weights": {k: digits(f(w.detach())) for k, (w, f) in weights.items()},
            "x": digits(layout(x.detach())),
            "c": digits(c),
            "y": digits(y_ours.detach()),
            "dx": digits(layout(gradient(x))),
            "dweights": {k: digits(f(gradient(w))) for k, (w, f) in weights.items()},
            "state": {k: digits(v.detach()) for k, v in state().items()},
        }
    )


def dense() -> None:
    layer = nn.Linear(4, 3)
    weights = {"weight": (layer.weight, lambda w: w.T), "bias": (layer.bias, same)}
    case("Dense(4, 3, tanh)", lambda x: layer(x).tanh(), torch.randn(2, 5, 4), weights, same)


def convolutions() -> None:
    rows: list[tuple[str, Any, tuple[int, ...]]] = [
        ("Conv((3, 2), 2, 3, pad=1)", nn.Conv2d(2, 3, (3, 2), padding=1), (2, 2, 6, 5)),
        ("Conv((3,), 2, 3, stride=2)", nn.Conv1d(2, 3, 3, stride=2), (2, 2, 9)),
        ("Conv((2, 2, 2), 2, 3)", nn.Conv3d(2, 3, 2), (1, 2, 3, 4, 3)),
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
    ]
    for text, layer, shape in rows:
        weights = {"weight": (layer.weight, kernel), "bias": (layer.bias, same)}
        case(text, layer, torch.randn(*shape), weights)


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
    ]
    for text, layer, shape in rows:
        case(text, layer, torch.randn(*shape), {})
    # A window full of equal values: the first of them gets the derivative.
    case("MaxPool((2, 2))", nn.MaxPool2d(2), torch.ones(1, 1, 4, 4), {})
    case("MaxPool((2, 2))", nn.MaxPool2d(2), torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]]), {})
    case("MaxPool((3, 3), stride=1)", nn.MaxPool2d(3, 1), torch.ones(1, 1, 5, 5), {})
    case("GlobalMaxPool()", nn.AdaptiveMaxPool2d(1), torch.ones(1, 1, 2, 3), {})


def norms() -> None:
    for mode in ("train", "test"):
        layer = nn.BatchNorm2d(3)
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
        layer.train(mode == "train")
        weights = {"scale": (layer.weight, same), "bias": (layer.bias, same)}
        x = 2 + 3 * torch.randn(4, 3, 2, 5)
        stats = lambda layer=layer: {"mean": layer.running_mean, "var": layer.running_var}
        case("BatchNorm(3)", layer, x, weights, mode=mode, state=stats)
    layer = nn.LayerNorm((3, 4))
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    weights = {"scale": (layer.weight, same), "bias": (layer.bias, same)}
    case("LayerNorm(3, 4)", layer, torch.randn(2, 3, 4), weights, same)


def transposed() -> None:
    rows: list[tuple[str, Any, tuple[int, ...]]] = [
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
        turn = into_kernel if "Transpose" in text else kernel
        weights = {"weight": (layer.weight, turn), "bias": (layer.bias, same)}
        case(text, layer, torch.randn(*shape), weights)


def into_kernel(w: Tensor) -> Tensor:
    """PyTorch's `(in, out, …)` as `(…, in, out)`."""
    return w.movedim((0, 1), (-2, -1))


def resized() -> None:
    case("AdaptiveMaxPool((2, 3))", nn.AdaptiveMaxPool2d((2, 3)), torch.randn(2, 2, 4, 9), {})
    case("AdaptiveMeanPool((2, 3))", nn.AdaptiveAvgPool2d((2, 3)), torch.randn(2, 2, 4, 9), {})
    case("PixelShuffle(2)", nn.PixelShuffle(2), torch.randn(2, 12, 3, 2), {})


def groups() -> None:
    layer = nn.GroupNorm(2, 6)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    weights = {"scale": (layer.weight, same), "bias": (layer.bias, same)}
    case("GroupNorm(6, 2)", layer, 1 + 2 * torch.randn(2, 6, 3, 2), weights)
    case("InstanceNorm(3)", nn.InstanceNorm2d(3), 1 + 2 * torch.randn(2, 3, 3, 2), {})
    for mode in ("train", "test"):
        layer = nn.InstanceNorm1d(3, affine=True, track_running_stats=True)
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
        layer.train(mode == "train")
        weights = {"scale": (layer.weight, same), "bias": (layer.bias, same)}
        stats = lambda layer=layer: {"mean": layer.running_mean, "var": layer.running_var}
        text = "InstanceNorm(3, affine=True, track_stats=True)"
        x = 1 + 2 * torch.randn(2, 3, 5)
        case(text, layer, x, weights, mode=mode, state=stats)


def recurrent() -> None:
    rows: list[tuple[str, Any]] = [
        ("RNN(3, 4)", nn.RNN(3, 4, batch_first=True)),
        ("LSTM(3, 4)", nn.LSTM(3, 4, batch_first=True)),
        ("GRU(3, 4)", nn.GRU(3, 4, batch_first=True)),
    ]
    for text, layer in rows:
        layer.bias_hh_l0.data.zero_()  # PyTorch has a second offset
        turn = lambda w: w.T
        weights = {
            "cell.Wi": (layer.weight_ih_l0, turn),
            "cell.Wh": (layer.weight_hh_l0, turn),
            "cell.bias": (layer.bias_ih_l0, same),
        }
        case(text, lambda x, layer=layer: layer(x)[0], torch.randn(2, 5, 3), weights, same)


def attention() -> None:
    for causal in (False, True):
        layer = nn.MultiheadAttention(4, 2, batch_first=True)
        parts = [nn.Linear(4, 4) for _ in range(3)]
        weights = {}
        for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
            weights[f"{name}.weight"] = (part.weight, lambda w: w.T)
            weights[f"{name}.bias"] = (part.bias, same)
        parts[1].bias.data.zero_()  # as in ours; its derivative is zero but for rounding
        del weights["k_proj.bias"]
        weights["out_proj.weight"] = (layer.out_proj.weight, lambda w: w.T)
        weights["out_proj.bias"] = (layer.out_proj.bias, same)
        later = torch.ones(5, 5).triu(1).bool() if causal else None

        def forward(
            x: Tensor, layer: Any = layer, parts: Any = parts, later: Any = later
        ) -> Tensor:
            return nn.functional.multi_head_attention_forward(
                *(x.transpose(0, 1),) * 3,
                4,
                2,
                torch.empty(0),
                torch.cat([part.bias for part in parts]),
                None,
                None,
                False,
                0.0,
                layer.out_proj.weight,
                layer.out_proj.bias,
                attn_mask=later,
                need_weights=False,
                use_separate_proj_weight=True,
                q_proj_weight=parts[0].weight,
                k_proj_weight=parts[1].weight,
                v_proj_weight=parts[2].weight,
            )[0].transpose(0, 1)

        made = "MultiHeadAttention(4, nheads=2, bias=True)"
        case(made, forward, torch.randn(2, 5, 4), weights, same, mode="causal" if causal else "")


def write() -> None:
    makers = (dense, convolutions, pools, norms, transposed, resized, groups, recurrent, attention)
    for make in makers:
        make()
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    path = Path(__file__).with_name("layers.json")
    rows = ",\n".join(json.dumps(c) for c in CASES)
    path.write_text(f'{{"versions": {json.dumps(versions)}, "cases": [\n{rows}\n]}}\n', "utf-8")
    print(f"{len(CASES)} cases, {versions}")


if __name__ == "__main__":
    write()
