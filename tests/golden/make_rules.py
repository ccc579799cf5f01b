"""Golden numbers from PyTorch's optimisers: ten steps in float64.

    python tests/golden/make_rules.py > tests/golden/rules.json

PyTorch is not needed to run the tests; they read the file.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

STEPS = 10
OPTIM = torch.optim

#: By fluxax's constructor, those of PyTorch that have the same formula. Where they differ:
#: NAdam (a schedule for its first decay), AMSGrad (corrects the bias, starts at 0), Adagrad (starts
#: at 0), RAdam (threshold 5, so its fifth step differs; ϵ before the bias correction), Adamax (ϵ
#: inside the maximum, which 1e-8 does not show), SGD (rescales its velocity when the rate changes).
SAME: dict[str, Any] = {
    "Descent(0.3)": lambda p: OPTIM.SGD(p, 0.3),
    "Momentum(0.3, 0.7)": lambda p: OPTIM.SGD(p, 0.3, momentum=0.7),
    "Nesterov(0.3, 0.7)": lambda p: OPTIM.SGD(p, 0.3, momentum=0.7, nesterov=True),
    "Rprop(0.1, (0.6, 1.5), (0.05, 0.3))": lambda p: OPTIM.Rprop(p, 0.1, (0.6, 1.5), (0.05, 0.3)),
    "RMSProp(0.3, 0.7, 0.1)": lambda p: OPTIM.RMSprop(p, 0.3, 0.7, 0.1),
    "RMSProp(0.3, 0.7, 0.1, centred=True)": lambda p: OPTIM.RMSprop(
        p, 0.3, 0.7, 0.1, centered=True
    ),
    "AdaDelta(0.7, 0.1)": lambda p: OPTIM.Adadelta(p, 1.0, 0.7, 0.1),
    "Adam(0.3, (0.7, 0.9), 0.1)": lambda p: OPTIM.Adam(p, 0.3, (0.7, 0.9), 0.1),
    "AdamW(0.3, (0.7, 0.9), 0.2, 0.1)": lambda p: OPTIM.AdamW(p, 0.3, (0.7, 0.9), 0.1, 0.2),
    "AdaMax(0.3, (0.7, 0.9), 1e-8)": lambda p: OPTIM.Adamax(p, 0.3, (0.7, 0.9), 1e-8),
    "OptimiserChain(WeightDecay(0.3), Momentum(0.3, 0.7))": lambda p: OPTIM.SGD(
        p, 0.3, momentum=0.7, weight_decay=0.3
    ),
}


def main() -> None:
    draw = np.random.default_rng(3)
    x, gs = draw.normal(size=(3, 4)), draw.normal(size=(STEPS, 3, 4)) + 0.3
    found = {}
    for name, make in SAME.items():
        p = torch.nn.Parameter(torch.from_numpy(x.copy()))
        optimiser = make([p])
        for g in gs:
            p.grad = torch.from_numpy(g.copy())
            optimiser.step()
        found[name] = p.detach().numpy().tolist()
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    print(json.dumps({"versions": versions, "after ten steps": found}, indent=1))


if __name__ == "__main__":
    main()
