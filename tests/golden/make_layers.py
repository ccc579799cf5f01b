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
    assert x.grad is not None
    CASES.append(
        {
            "layer": text,
            "mode": mode,
            "weights": {k: digits(f(w.detach())) for k, (w, f) in weights.items()},
            "x": digits(layout(x.detach())),
            "c": digits(c),
            "y": digits(y_ours.detach()),
            "dx": digits(layout(x.grad)),
            "dweights": {k: digits(f(w.grad)) for k, (w, f) in weights.items() if w.grad is not None},
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


def write() -> None:
    for make in (dense, convolutions, pools, norms):
        make()
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    path = Path(__file__).with_name("layers.json")
    rows = ",\n".join(json.dumps(c) for c in CASES)
    path.write_text(f'{{"versions": {json.dumps(versions)}, "cases": [\n{rows}\n]}}\n', "utf-8")
    print(f"{len(CASES)} cases, {versions}")


if __name__ == "__main__":
    write()
