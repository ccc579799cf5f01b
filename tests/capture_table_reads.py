"""The holders of the capture table: what one is, and the ways to read that many of them share.

In a read, `H` is the holder. `NAMES` is the list `["k"]` of the cell's module. A read of several
lines ends in its value.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple


class Holder(NamedTuple):
    """Something that holds a number.

    `source` has `make(v)`, a new holder of `v`, and `poke(h, v)`, which makes it hold another
    number or gives a new holder of it. `installed` is the source of an installed module `inst`.
    """

    name: str
    source: str
    reads: tuple[str, ...]
    ordinary: frozenset[str]  # the reads that compile in every place
    installed: str
    number: bool  # it is a number itself


HOLDERS: dict[str, Holder] = {}


def ways(text: str) -> list[str]:
    """The reads of a text, several to a line."""
    return [read for line in text.strip().splitlines() for read in line.strip().split(" ;; ")]


def holder(
    name: str,
    source: str,
    direct: list[str] | None = None,
    reads: list[str] | None = None,
    installed: str = "",
    number: bool = False,
) -> None:
    """A row of the table; its `direct` reads are ordinary code and must compile."""
    assert name not in HOLDERS
    every = [textwrap.dedent(read).strip("\n") for read in [*(direct or []), *(reads or [])]]
    HOLDERS[name] = Holder(
        name,
        textwrap.dedent(source),
        tuple(dict.fromkeys(every)),
        frozenset(every[: len(direct or [])]),
        textwrap.dedent(installed),
        number,
    )


#: An attribute `k`, by its name in the code.
ATTRIBUTE = ways("""
    H.k ;; getattr(H, "k") ;; (lambda: H.k)() ;; sum([H.k for _ in range(1)])
    """)

#: The same in other ways.
ATTRIBUTE_OTHERWISE = [
    *ways("""
    getattr(H, NAMES[0]) ;; getattr(H, "".join(["", "k"])) ;; getattr(H, "k", 0.5)
    sum(getattr(H, n) for n in NAMES) ;; functools.reduce(getattr, ["k"], H)
    operator.attrgetter("k")(H) ;; operator.attrgetter(NAMES[0])(H) ;; H.__getattribute__("k")
    H.k if hasattr(H, "k") else 0.5 ;; dict(map(lambda n: (n, getattr(H, n)), NAMES))['k']
    copy.copy(H).k ;; copy.deepcopy(H).k ;; float(f'''{H.k}''') ;; float("{0.k}".format(H))
    float("%r" % H.k) ;; 2.0 if H.k > 2.5 else 1.0 ;; math.sqrt(H.k)
    dict(inspect.getmembers(H))['k']
    """),
    """
    try:
        k = H.k
    except AttributeError:
        k = 0.5
    k
    """,
    """
    match H:
        case object(k=k):
            pass
    k
    """,
]

#: What is in an object's `__dict__`, with `k` and possibly others.
STORAGE = ways("""
    vars(H)["k"] ;; H.__dict__["k"] ;; vars(H).get("k")
    sum(v for n, v in vars(H).items() if n == "k") ;; (lambda **names: names['k'])(**vars(H))
    dict(vars(H))['k'] ;; {**vars(H)}[NAMES[0]]
    max(v for v in vars(H).values() if type(v) is float) ;; inspect.getattr_static(H, "k")
    H.__getstate__()["k"] ;; float(json.dumps(vars(H)["k"]))
    """)

#: A mapping's item `"k"`, by its key in the code.
ITEM = ways("""
    H["k"] ;; H.get("k") ;; sum(H.values()) ;; (lambda: H["k"])()
    """)

#: The same in other ways; the mapping holds `k` alone.
ITEM_OTHERWISE = [
    *ways("""
    H[NAMES[0]] ;; H.get(NAMES[0], 0.5) ;; H.get("no", 0.0) + H["k"]
    sum(H[n] for n in NAMES) ;; sum(v for n, v in H.items() if n == "k") ;; max(H.values())
    list(H.values())[0] ;; next(iter(H.values())) ;; [v for _, v in sorted(H.items())][0]
    operator.itemgetter("k")(H) ;; H.__getitem__("k") ;; (lambda k: k)(**H)
    (lambda **names: names['k'])(**H) ;; {**H}["k"] ;; dict(H)["k"] ;; copy.copy(H)["k"]
    copy.deepcopy(H)["k"] ;; H["k"] if "k" in H else 0.5 ;; float("{k}".format(**H))
    float("%(k)r" % H) ;; sum(H[n] for n in H) ;; functools.reduce(operator.getitem, NAMES, H)
    H['k'] * len(H) ;; 2.0 if H['k'] > 2.5 else 1.0 ;; float(H == {'k': 1.0}) + 1
    jax.tree.leaves(dict(H))[0]
    """),
    """
    try:
        k = H["k"]
    except KeyError:
        k = 0.5
    k
    """,
    """
    match H:
        case {"k": k}:
            pass
    k
    """,
]

#: The first of a sequence's elements, by its index in the code.
ELEMENT = ways("""
    H[0] ;; sum(H) ;; (lambda: H[0])() ;; sum(v for v in H)
    """)

#: The same in other ways; the sequence is `[k, 0.5]`.
ELEMENT_OTHERWISE = [
    *ways("""
    H[-2] ;; H[len(NAMES) - 1] ;; max(H) ;; next(iter(H)) ;; [*H][0]
    (lambda *all: all[0])(*H) ;; (lambda k, _: k)(*H) ;; operator.itemgetter(0)(H)
    functools.reduce(operator.add, H) ;; list(H)[0] ;; tuple(H)[0] ;; sorted(H)[-1]
    list(reversed(H))[-1] ;; [v for i, v in enumerate(H) if i == 0][0]
    [a for a, _ in zip(H, NAMES)][0] ;; list(map(float, H))[0] ;; math.fsum(H) ;; math.prod(H)
    np.asarray(H)[0] ;; jnp.asarray(list(H))[0]
    jnp.sum(jnp.stack([jnp.float32(v) for v in H])) ;; H.__getitem__(0) ;; copy.copy(H)[0]
    copy.deepcopy(H)[0] ;; 1.0 + (1.0 in H) ;; 1.0 + H.count(1.0)
    2.0 if H[0] > 2.5 else 1.0 ;; float(f'''{H[0]}''') ;; H[0] * len(H)
    """),
    """
    k, *_ = H
    k
    """,
    """
    k, _ = H
    k
    """,
    """
    t = 0.0
    for v in H:
        t += v
    t
    """,
]

SLICE = ways("""
    H[:1][0] ;; sum(H[::2]) ;; H[slice(1)][0]
    """)

MATCH_SEQUENCE = """
    match H:
        case [k, *_]:
            pass
    k
    """
