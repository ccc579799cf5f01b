"""The rules' formulas in float64 NumPy, from the papers and from Optimisers.jl.

Each is a generator that is sent a parameter and its gradient and gives the step.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from fluxax.optimisers._accumulate import AccumGrad
from fluxax.optimisers._adam import (
    AdaBelief,
    Adam,
    AdaMax,
    AdamW,
    AMSGrad,
    Lion,
    NAdam,
    OAdam,
    RAdam,
)
from fluxax.optimisers._adaptive import AdaDelta, AdaGrad, RMSProp
from fluxax.optimisers._average import EMA
from fluxax.optimisers._combine import OptimiserChain
from fluxax.optimisers._descent import Descent, Momentum, Nesterov, Rprop
from fluxax.optimisers._modifiers import ClipGlobalNorm, ClipGrad, ClipNorm, SignDecay, WeightDecay
from fluxax.optimisers._muon import Muon
from fluxax.optimisers._precision import MixedPrecision


def descent(o, v=0.0):
    _, g = yield
    while True:
        _, g = yield o.eta * g


def momentum(o, v=0.0):
    _, g = yield
    while True:
        v = o.rho * v + o.eta * g
        _, g = yield v


def nesterov(o, v=0.0):
    _, g = yield
    while True:
        step = -(o.rho**2) * v + (1 + o.rho) * o.eta * g
        v = o.rho * v - o.eta * g
        _, g = yield step


def rprop(o, before=0.0):
    _, g = yield
    s = np.full(g.shape, o.eta)
    while True:
        up, down = before * g > 0, before * g < 0
        s = np.where(up, np.minimum(s * o.ell[1], o.gamma[1]), s)
        s = np.where(down, np.maximum(s * o.ell[0], o.gamma[0]), s)
        before = np.where(down, 0, g)
        _, g = yield s * np.sign(before)


def rmsprop(o, q=0.0, l=0.0):
    _, g = yield
    while True:
        q = o.rho * q + (1 - o.rho) * abs(g) ** 2
        l = o.rho * l + (1 - o.rho) * g if o.centred else 0.0
        _, g = yield o.eta * g / (np.sqrt(q - abs(l) ** 2) + o.epsilon)


def adagrad(o):
    _, g = yield
    s = o.epsilon
    while True:
        s = s + abs(g) ** 2
        _, g = yield o.eta * g / (np.sqrt(s) + o.epsilon)


def adadelta(o, a=0.0, d=0.0):
    _, g = yield
    while True:
        a = o.rho * a + (1 - o.rho) * abs(g) ** 2
        step = g * np.sqrt(d + o.epsilon) / np.sqrt(a + o.epsilon)
        d = o.rho * d + (1 - o.rho) * abs(step) ** 2
        _, g = yield step


def decays(o):
    """By step: the decays, and their running products, which start as the decays."""
    p1, p2 = now(o.beta, 0)
    for k in itertools.count():
        b1, b2 = now(o.beta, k)
        yield b1, b2, p1, p2
        p1, p2 = p1 * b1, p2 * b2


def now(beta, step):
    """Two decays in the precision that cancels least; schedules at a step."""
    return [np.longdouble(b(step) if callable(b) else b) for b in beta]


def adam(o, m=0.0, v=0.0):
    lam, couple, betas = getattr(o, "lam", 0), getattr(o, "couple", True), decays(o)
    x, g = yield
    while True:
        b1, b2, p1, p2 = next(betas)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * abs(g) ** 2
        step = o.eta * (m / (1 - p1)) / (np.sqrt(v / (1 - p2)) + o.epsilon)
        x, g = yield step + (o.eta if couple else 1) * lam * x


def radam(o, m=0.0, v=0.0, t=0):
    betas = decays(o)
    _, g = yield
    while True:
        b1, b2, p1, p2 = next(betas)
        t += 1
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * abs(g) ** 2
        limit = 2 / (1 - b2) - 1
        rho = limit - 2 * t * p2 / (1 - p2)
        step = o.eta * m / (1 - p1)
        if rho > 4:
            r = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
            step = step * np.sqrt(r) / (np.sqrt(v / (1 - p2)) + o.epsilon)
        _, g = yield step


def adamax(o, m=0.0, u=0.0):
    betas = decays(o)
    _, g = yield
    while True:
        b1, b2, p1, _ = next(betas)
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, abs(g))
        _, g = yield o.eta / (1 - p1) * m / (u + o.epsilon)


def oadam(o, m=0.0, v=0.0, before=0.0):
    betas = decays(o)
    _, g = yield
    while True:
        b1, b2, p1, p2 = next(betas)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * abs(g) ** 2
        a = o.eta * m / (1 - p1) / (np.sqrt(v / (1 - p2)) + o.epsilon)
        before, step = a, 2 * a - before
        _, g = yield step


def amsgrad(o):
    b1, b2 = o.beta
    _, g = yield
    m = v = u = o.epsilon
    while True:
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * abs(g) ** 2
        u = np.maximum(u, v)
        _, g = yield o.eta * m / (np.sqrt(u) + o.epsilon)


def nadam(o, m=0.0, v=0.0):
    betas = decays(o)
    _, g = yield
    while True:
        b1, b2, p1, p2 = next(betas)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * abs(g) ** 2
        n = b1 * m / (1 - b1 * p1) + (1 - b1) * g / (1 - p1)
        _, g = yield o.eta * n / (np.sqrt(v * b2 / (1 - p2)) + o.epsilon)


def adabelief(o, m=0.0, s=0.0):
    betas = decays(o)
    _, g = yield
    while True:
        b1, b2, p1, p2 = next(betas)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * abs(g - m) ** 2 + o.epsilon
        _, g = yield o.eta * m / (1 - p1) / (np.sqrt(s / (1 - p2)) + o.epsilon)


def lion(o, m=0.0):
    b1, b2 = o.beta
    _, g = yield
    while True:
        c = b1 * m + (1 - b1) * g
        m = b2 * m + (1 - b2) * g
        _, g = yield o.eta * np.sign(c)


def weightdecay(o):
    x, g = yield
    while True:
        x, g = yield g + o.lam * x


def signdecay(o):
    x, g = yield
    while True:
        x, g = yield g + o.lam * np.sign(x)


def clipgrad(o):
    _, g = yield
    while True:
        part = lambda g: np.minimum(np.maximum(g, -o.delta), o.delta)
        _, g = yield part(g.real) + 1j * part(g.imag) if np.iscomplexobj(g) else part(g)


def clipnorm(o):
    _, g = yield
    while True:
        size = np.linalg.norm(abs(g).ravel(), o.p)
        _, g = yield g * min(o.omega / size, 1)


def clipglobalnorm(o):
    _, g = yield
    while True:
        _, g = yield g * min(o.omega / np.sqrt(np.sum(abs(g) ** 2)), 1)


def passing(o):
    _, g = yield
    while True:
        _, g = yield g


def accumgrad(o):
    _, g = yield
    while True:
        collected = [g]
        while len(collected) < o.n:
            _, g = yield 0 * g
            collected.append(g)
        _, g = yield np.mean(collected, axis=0)


def muon(o, v=0.0):
    x, g = yield
    while True:
        v = o.rho * v + g
        left, s, right = np.linalg.svd(g + o.rho * v, full_matrices=False)
        s = s / (np.sqrt(np.sum(s**2)) + 1e-7)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        out = (left * s) @ right * np.sqrt(max(1, x.shape[1] / x.shape[0]))
        x, g = yield o.eta * (out + o.lam * x)


def wrapped(o):
    return ORACLES[type(o.rule)](o.rule)


def chain(o):
    x, g = yield
    members = [start(opt) for opt in o.opts]
    while True:
        for opt, member in zip(o.opts, members):
            g = member.send((x, g))
            if isinstance(opt, AccumGrad) and not np.any(g):
                break  # no step: those after it see nothing
        x, g = yield g


ORACLES: dict[type, Any] = {
    Descent: descent, Momentum: momentum, Nesterov: nesterov, Rprop: rprop, RMSProp: rmsprop,
    AdaGrad: adagrad, AdaDelta: adadelta, Adam: adam, AdamW: adam, RAdam: radam, AdaMax: adamax,
    OAdam: oadam, AMSGrad: amsgrad, NAdam: nadam, AdaBelief: adabelief, Lion: lion,
    WeightDecay: weightdecay, SignDecay: signdecay, ClipGrad: clipgrad, ClipNorm: clipnorm,
    OptimiserChain: chain, ClipGlobalNorm: clipglobalnorm, AccumGrad: accumgrad, EMA: passing,
    Muon: muon, MixedPrecision: wrapped,
}  # fmt: skip


def start(rule: Any, oracle: Any = None) -> Any:
    steps = (oracle or ORACLES[type(rule)])(rule)
    next(steps)
    return steps


def name(rule: Any) -> str:
    """What a case of a table is called."""
    return repr(rule).replace(" ", "")


NEEDY = {AccumGrad: lambda: AccumGrad(3), MixedPrecision: lambda: MixedPrecision(Adam())}
DEFAULTS = [NEEDY.get(cls, cls)() for cls in ORACLES]
#: Values at which every field and every term shows.
TELLING = [
    Descent(0.3), Momentum(0.3, 0.7), Nesterov(0.3, 0.7), Rprop(0.1, (0.6, 1.5), (0.05, 0.3)),
    RMSProp(0.3, 0.7, 0.1), RMSProp(0.3, 0.7, 0.1, centred=True), AdaGrad(0.3, 0.2),
    AdaDelta(0.7, 0.1), Adam(0.3, (0.7, 0.9), 0.1), AdamW(0.3, (0.7, 0.9), 0.2, 0.1),
    AdamW(0.3, (0.7, 0.9), 0.2, 0.1, couple=False), RAdam(0.3, (0.7, 0.95), 0.1),
    AdaMax(0.3, (0.7, 0.9), 0.1), OAdam(0.3, (0.7, 0.9), 0.1), AMSGrad(0.3, (0.7, 0.9), 0.1),
    NAdam(0.3, (0.7, 0.9), 0.1), AdaBelief(0.3, (0.7, 0.9), 0.1), Lion(0.3, (0.6, 0.95)),
    WeightDecay(0.3), SignDecay(0.3), ClipGrad(0.7), ClipNorm(0.7), ClipNorm(0.7, 1),
    ClipNorm(0.7, np.inf), ClipNorm(0.7, 3), ClipNorm(0.7, 0),
    ClipGlobalNorm(0.7), AccumGrad(3), AccumGrad(1), EMA(0.7), Muon(0.3, 0.7, 0.2),
    MixedPrecision(Momentum(0.3, 0.7)), OptimiserChain(WeightDecay(0.3), AccumGrad(3), Adam(0.3)),
    OptimiserChain(ClipNorm(0.7), WeightDecay(0.3), OptimiserChain(SignDecay(0.1), Adam(0.3))),
]  # fmt: skip
RULES = DEFAULTS + TELLING
