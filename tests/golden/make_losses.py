"""Golden numbers for `tests/test_golden_losses.py`, from PyTorch in double precision.

    python tests/golden/make_losses.py

Only losses whose definitions agree. Every case is a loss of fluxax as text, its arguments, one
value for each observation, and the derivative of their mean by the prediction.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
CASES: list[dict[str, Any]] = []


def digits(x: Tensor) -> Any:
    """Nested lists, with more digits than single precision tells apart."""
    if x.ndim:
        return [digits(part) for part in x.detach()]
    return float(f"{x.item():.9g}") if x.is_floating_point() else x.item()


def case(text: str, loss: Callable[[Tensor, Tensor], Tensor], y_hat: Tensor, y: Tensor) -> None:
    """Run one loss, which gives a value for each observation."""
    y_hat = y_hat.detach().to(torch.float32).to(torch.float64).requires_grad_()
    if y.is_floating_point():
        y = y.to(torch.float32).to(torch.float64)
    values = loss(y_hat, y)
    values.mean().backward()
    assert y_hat.grad is not None
    numbers = {"y_hat": y_hat, "y": y, "values": values, "grad": y_hat.grad}
    CASES.append({"loss": text, **{k: digits(v) for k, v in numbers.items()}})


def each(loss: Callable[..., Tensor], **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda y_hat, y: loss(y_hat, y, reduction="none", **options)


def write() -> None:
    a, b = 2 * torch.randn(4, 3), torch.randn(4, 3)
    bits, labels = torch.randint(2, (4, 3)).double(), torch.tensor([0, 2, 1, 1])
    p, soft = torch.rand(4, 3) * 0.8 + 0.1, torch.softmax(torch.randn(4, 3), -1)
    likely = torch.softmax(a, -1)
    case("mae", each(F.l1_loss), a, b)
    case("mse", each(F.mse_loss), a, b)
    case("huber_loss", each(F.huber_loss), a, b)
    case("huber_loss delta=0.5", each(F.huber_loss, delta=0.5), a, b)
    poisson = each(F.poisson_nll_loss, log_input=False, full=False, eps=0.0)
    case("poisson_loss", poisson, p, torch.randint(5, (4, 3)).double())
    case("logitcrossentropy", each(F.cross_entropy), a, labels)
    case("logitcrossentropy", each(F.cross_entropy), a, soft)
    image = torch.randn(2, 3, 2, 2)
    case("logitcrossentropy axis=1", each(F.cross_entropy), image, torch.randint(3, (2, 2, 2)))
    smooth = each(F.cross_entropy, label_smoothing=0.2)
    case("smoothed", smooth, a, F.one_hot(labels).double())
    case(
        "crossentropy eps=0", lambda q, y: F.nll_loss(q.log(), y, reduction="none"), likely, labels
    )
    case("binarycrossentropy eps=0", each(F.binary_cross_entropy), p, bits)
    case("logitbinarycrossentropy", each(F.binary_cross_entropy_with_logits), a, bits)
    kl = lambda q, y: F.kl_div(q.log(), y, reduction="none").sum(-1)
    case("kldivergence eps=0", kl, likely, soft)
    # PyTorch's embedding hinge of label -1 is max(0, 1 - x); here x is the score times its sign.
    hinge = lambda q, y: F.hinge_embedding_loss(q * y, -torch.ones_like(y), reduction="none")
    case("hinge_loss", hinge, a, 2 * bits - 1)
    lengths = torch.tensor([3, 1, 0])
    words = torch.tensor([[0, 0, 2], [1, 3, 3], [3, 3, 3]])  # 3 is the blank
    ctc = lambda q, y: F.ctc_loss(
        q.log_softmax(-1).transpose(0, 1), y, torch.full((3,), 6), lengths, 3, reduction="none"
    )
    case("ctc_loss", ctc, torch.randn(3, 6, 4), words)
    versions = json.dumps({"torch": torch.__version__})
    rows = ",\n".join(json.dumps(c) for c in CASES)
    path = Path(__file__).with_name("losses.json")
    path.write_text(f'{{"versions": {versions}, "cases": [\n{rows}\n]}}\n', "utf-8")
    print(f"{len(CASES)} cases, {versions}")


if __name__ == "__main__":
    write()
