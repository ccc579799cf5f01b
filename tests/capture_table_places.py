"""Where an objective of the capture table stands, and how it comes by its holder.

A place is the source of a module. `<<H>>` on a line of its own stands for the read: the statements
of the read, then `return x * (its value)`; what is between the brackets is what the code
calls the holder there, and `|` is followed by another way to return the value `{}`. The module
has `put(h)`, which puts a holder in its place, and `objective()`, the function of the next call;
`arguments(x)`, if it is there, gives what the function is called with.
"""

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple

USER = "/home/user/table/{}.py"
INSTALLED = "/home/user/lib/python3/site-packages/{}/__init__.py"


class Place(NamedTuple):
    """One place; `way` is what the objective is given to."""

    name: str
    source: str
    way: str = "gradient"  # or "compiled", "trainstep"
    file: str = USER
    installed: str = ""  # the source of an installed module `inst` that the place imports
    differentiated: bool = False  # the numbers of the holder carry a derivative
    model: bool = False  # the holder is part of a model, or an argument
    inner: bool = False  # inside a transformation of JAX's, which has caches of its own

    def __repr__(self) -> str:
        return self.name


#: What a place has that says nothing else, and one with a class `Holds`.
_PUT = """
H = None
def put(h):
    global H
    H = h
"""
_OWNER = """
owner = Holds()
def put(h):
    owner.h = h
"""
_OBJECTIVE = """
def objective():
    return f
"""

PLACES: dict[str, Place] = {}


def _place(name: str, source: str, installed: str = "", **more: Any) -> None:
    source = textwrap.dedent(source)
    source += _OWNER * ("class Holds" in source)
    source = _PUT * ("def put" not in source) + source
    source += _OBJECTIVE * ("def objective" not in source)
    PLACES[name] = Place(name, source, installed=textwrap.dedent(installed), **more)


_GLOBAL = """
def f(x):
    <<H>>
"""

_place("global", _GLOBAL)
_place(
    "closure",
    """
    def build():
        H = None
        def put(h):
            nonlocal H
            H = h
        def f(x):
            <<H>>
        return put, f
    put, f = build()
    """,
)
_place(
    "fresh",
    """
    held = []
    def put(h):
        held[:] = [h]
    def objective():
        H, = held
        def f(x):
            <<H>>
        return f
    """,
)
_place(
    "default",
    """
    def f(x, H=None):
        <<H>>
    def put(h):
        f.__defaults__ = (h,)
    """,
)
_place(
    "keyword default",
    """
    def f(x, *, H=None):
        <<H>>
    def put(h):
        f.__kwdefaults__["H"] = h
    """,
)
_place(
    "attribute",
    """
    class Holds:
        pass
    def f(x):
        <<owner.h>>
    """,
)
_place(
    "nested",
    """
    nest = {"parts": [None, {}]}
    def put(h):
        nest["parts"][0] = h
    def f(x):
        <<nest["parts"][0]>>
    """,
)
_place(
    "method",
    """
    class Holds:
        def loss(self, x):
            <<self.h>>
    def objective():
        return lambda x: owner.loss(x)
    """,
)
_place(
    "bound method",
    """
    class Holds:
        def loss(self, x):
            <<self.h>>
    def objective():
        return owner.loss
    """,
)
_place(
    "callable",
    """
    class Holds:
        def __call__(self, x):
            <<self.h>>
    def objective():
        return owner
    """,
)
_place(
    "property",
    """
    class Holds:
        @property
        def scale(self):
            <<self.h|{}>>
    def f(x):
        return x * owner.scale
    """,
)
_place(
    "method's global",
    """
class Net(fx.Module):
    def __init__(self):
        self.w = jnp.float32(1.0)
    def __call__(self, x):
        <<H|self.w * x * ({})>>
net = Net()
def objective():
    return lambda x: net(x)
""",
)
_place(
    "model's global",
    """
class Net(fx.Module):
    def __init__(self):
        self.w = jnp.float32(2.0)
    def __call__(self, x):
        <<H|self.w * x * ({})>>
net, unit = Net(), jnp.float32(1.0)
def arguments(x):
    return (net,)
def objective():
    return lambda m: m(unit)
""",
)
_place(
    "model's attribute",
    """
    class Net(fx.Module):
        def __init__(self):
            self.w = jnp.float32(2.0)
        def __call__(self, x):
            <<self.h|self.w * x * ({})>>
    net, unit = Net(), jnp.float32(1.0)
    def put(h):
        net.h = h
    def arguments(x):
        return (net,)
    def objective():
        return lambda m: m(unit)
    """,
    model=True,
)
_place(
    "helper",
    """
def helper():
    <<H|{}>>
def f(x):
    return x * helper()
""",
)
_place(
    "helper of a helper",
    """
def read_it(h):
    <<h|{}>>
def helper(get):
    return get(H)
def f(x):
    def inner():
        return helper(read_it)
    return x * inner()
""",
)
_place(
    "wrapped",
    """
def wrap(f):
    @functools.wraps(f)
    def wrapped(*args, **keywords):
        return f(*args, **keywords)
    return wrapped
@wrap
def f(x):
    <<H>>
""",
)
_place(
    "argument",
    """
def f(x, h):
    <<h>>
def arguments(x):
    return x, H
""",
    differentiated=True,
    model=True,
)
_place(
    "nested argument",
    """
def f(parts):
    x = parts["x"]
    <<parts["cfg"][0]>>
def arguments(x):
    return ({"x": x, "cfg": [H]},)
""",
    differentiated=True,
    model=True,
)
_place(
    "partial",
    """
def f(h, x):
    <<h>>
def objective():
    return functools.partial(f, H)
""",
)
_place(
    "partial's keyword",
    """
def f(x, h):
    <<h>>
def objective():
    return functools.partial(f, h=H)
""",
)
_place(
    "trainstep",
    """
    held = []
    def put(h):
        held[:] = [h]
    def objective():
        H, = held
        def loss(m, x):
            <<H|m["w"] * x * ({})>>
        return loss
    """,
    way="trainstep",
)
_place(
    "trainstep's global",
    """
def loss(m, x):
    <<H|m["w"] * x * ({})>>
def objective():
    return loss
""",
    way="trainstep",
)
_place("compiled", _GLOBAL, way="compiled")
_place(
    "installed function",
    """
def f(x):
    return x * inst.read_it(H)
""",
    installed="""
    def read_it(h):
        <<h|{}>>
    """,
)
_place("installed project", _GLOBAL, file=INSTALLED)
_place("prompt", _GLOBAL, file="<stdin>")
_place(
    "class attribute",
    """
    class Settings:
        h = None
    def put(h):
        Settings.h = h
    def f(x):
        <<Settings.h>>
    """,
)
_place(
    "class method",
    """
    class Losses:
        h = None
        @classmethod
        def loss(cls, x):
            <<cls.h>>
        @staticmethod
        def run(x):
            return Losses.loss(x)
    def put(h):
        Losses.h = h
    def objective():
        return lambda x: Losses.run(x)
    """,
)
_place(
    "comprehension",
    """
def f(x):
    def read_it(_):
        <<H|{}>>
    return sum([x * k for k in map(read_it, range(1))])
""",
)
_place(
    "jit",
    """
@jax.jit
def jitted(x):
    <<H>>
def objective():
    return lambda x: jitted(x)
""",
    inner=True,
)
_place(
    "scan",
    """
def objective():
    def body(carry, x):
        <<H|carry + x * ({}), None>>
    return lambda x: jax.lax.scan(body, jnp.float32(0), x[None])[0]
""",
    inner=True,
)
