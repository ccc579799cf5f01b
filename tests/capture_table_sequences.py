"""Rows of the capture table: lists, tuples, sets, text and their relatives."""

from __future__ import annotations

from capture_table_reads import ELEMENT, ELEMENT_OTHERWISE, MATCH_SEQUENCE, SLICE, holder, ways

POKED = """
def poke(h, v):
    h[0] = v
"""
LENGTH = ways("""
    1.0 * len(H) ;; 1.0 * sum(1 for _ in H) ;; float(len(H))
    """)
LENGTH_OTHERWISE = ways("""
    H.__len__() * 1.0 ;; len([*H]) * 1.0 ;; len(list(H)) * 1.0 ;; 2.0 if len(H) > 2 else 1.0
    (lambda *all: 1.0 * len(all))(*H) ;; float(sum(map(bool, [1 for _ in H])))
    operator.length_hint(H) * 1.0
    """)

holder(
    "list",
    POKED + "def make(v): return [v, 0.5]",
    [*ELEMENT, *SLICE],
    [
        *ELEMENT_OTHERWISE,
        MATCH_SEQUENCE,
        *ways("""
    H.copy()[0] ;; (H + [])[0] ;; (H * 2)[2] ;; list.__getitem__(H, 0)
    1.0 + (H == [1.0, 0.5]) ;; 1.0 + (H > [2.5]) ;; json.loads(json.dumps(H))[0]
    jnp.array(H)[0] ;; np.mean(H) ;; jax.tree.leaves(H)[0]
    """),
    ],
)
holder(
    "list rebound",
    "def make(v): return [v, 0.5]\ndef poke(h, v): return [v, 0.5]",
    ELEMENT,
    ways("""
    max(H) ;; (lambda k, _: k)(*H) ;; [*H][0]
    """),
)
holder(
    "list that grows",
    """
def make(v): return [1.0] * int(v)
def poke(h, v): h[:] = [1.0] * int(v)
""",
    [*LENGTH, "sum(H)"],
    [
        *LENGTH_OTHERWISE,
        *ways("""
    H.count(1.0) * 1.0 ;; 1.0 + (H == [1.0]) ;; sum(i for i, _ in enumerate(H)) + 1.0
    math.fsum(H)
    """),
    ],
)
holder(
    "list reordered",
    """
def make(v): return [v, *(n for n in (1.0, 2.0, 3.0, 5.0) if n != v)]
def poke(h, v): h.insert(0, h.pop(h.index(v)))
""",
    ways("""
    H[0] ;; next(iter(H)) ;; sum(v for i, v in enumerate(H) if i == 0)
    """),
    ways("""
    1.0 + H.index(1.0) ;; H[:1][0] ;; [*H][0] ;; 1.0 + (H < [2.0]) ;; (lambda k, *_: k)(*H)
    """),
)
holder(
    "nested lists",
    """
def make(v): return [[v, [v]], {"k": [v]}]
def poke(h, v):
    h[0][0] = h[0][1][0] = h[1]["k"][0] = v
""",
    ways("""
    H[0][0] ;; H[0][1][0] ;; H[1]['k'][0]
    """),
    [
        *ways("""
    operator.itemgetter(0)(H[0]) ;; functools.reduce(operator.getitem, [0, 1, 0], H)
    copy.deepcopy(H)[0][0] ;; jax.tree.leaves(H)[0] ;; (a := H[0])[0]
    [k for k, _ in H[:1]][0]
    """),
        """
     match H:
         case [[k, _], _]:
             pass
     k
     """,
    ],
)
holder(
    "list that holds itself",
    """
def make(v):
    h = [v]
    h.append(h)
    return h
"""
    + POKED,
    ways("""
    H[0] ;; H[1][0] ;; H[1][1][1][0]
    """),
    ["next(iter(H))", "[*H[1]][0]"],
)
holder(
    "list subclass with attributes",
    """
class Values(list):
    def first(self): return self[0] + 0 * self.k
def make(v):
    h = Values([v, 0.5])
    h.k = v
    return h
def poke(h, v):
    h[0] = h.k = v
""",
    [
        *ELEMENT,
        *ways("""
    H.k ;; getattr(H, 'k') ;; H.first()
    """),
    ],
    [
        *ELEMENT_OTHERWISE,
        *ways("""
    vars(H)['k'] ;; getattr(H, NAMES[0]) ;; list.__getitem__(H, 0)
    """),
        MATCH_SEQUENCE,
    ],
)
holder(
    "list subclass with only its attribute changed",
    """
class Values(list): pass
def make(v):
    h = Values([1.0])
    h.k = v
    return h
def poke(h, v): h.k = v
""",
    ways("""
    H.k ;; H.k * H[0] ;; getattr(H, 'k')
    """),
    ways("""
    vars(H)['k'] ;; getattr(H, NAMES[0]) ;; H.k * len(H)
    """),
)
holder(
    "tuple",
    "def make(v): return (v, 0.5)\ndef poke(h, v): return (v, 0.5)",
    [*ELEMENT, *SLICE],
    [
        *ELEMENT_OTHERWISE,
        MATCH_SEQUENCE,
        *ways("""
    (H + ())[0] ;; 1.0 + (H == (1.0, 0.5)) ;; 1.0 + (hash(H) == hash((1.0, 0.5)))
    {H: H[0]}[H]
    """),
    ],
)
holder(
    "list in a tuple",
    "def make(v): return ([v], 0.5)\ndef poke(h, v): h[0][0] = v",
    ways("""
    H[0][0] ;; sum(H[0]) ;; sum(k for k in H[0])
    """),
    ways("""
    (lambda k, _: k[0])(*H) ;; [*H][0][0] ;; list(H)[0][0] ;; copy.deepcopy(H)[0][0]
    """),
)
holder(
    "tuple subclass with an attribute",
    """
class Values(tuple): pass
def make(v):
    h = Values((1.0,))
    h.k = v
    return h
def poke(h, v): h.k = v
""",
    ["H.k", "H.k * H[0]"],
    ways("""
    getattr(H, 'k') ;; getattr(H, NAMES[0]) ;; vars(H)['k'] ;; H.k * len(H)
    """),
)
holder(
    "named tuple",
    """
class Config(typing.NamedTuple):
    k: float
    other: float = 0.5
    def twice(self): return 2 * self.k
Old = collections.namedtuple("Old", "k old")
def make(v): return Config(v)
def poke(h, v): return h._replace(k=v)
""",
    ways("""
    H.k ;; H[0] ;; H.twice() ;; sum(H)
    """),
    [
        *ways("""
    getattr(H, NAMES[0]) ;; H._asdict()['k'] ;; H._replace(other=2.0).k
    (lambda k, other: k)(*H) ;; (lambda k, other: k)(**H._asdict())
    operator.attrgetter('k')(H) ;; dict(zip(H._fields, H))['k'] ;; max(H) ;; copy.copy(H).k
    jax.tree.leaves(H)[0]
    """),
        MATCH_SEQUENCE,
        """
     match H:
         case object(k=k):
             pass
     k
     """,
    ],
)
holder(
    "deque",
    POKED + "def make(v): return collections.deque([v, 0.5])",
    ELEMENT,
    [
        *ELEMENT_OTHERWISE,
        *ways("""
    H.copy()[0] ;; (H + H)[2] ;; H.__reduce__()[3].__next__()
    """),
    ],
)
holder(
    "deque of a length",
    "def make(v): return collections.deque([0.5, v], maxlen=2)\ndef poke(h, v): h.append(v)",
    ways("""
    H[-1] ;; sum(H) ;; sum(v for v in H)
    """),
    ways("""
    sum(H) / len(H) ;; list(H)[-1] ;; next(reversed(H)) ;; (lambda _, k: k)(*H)
    H[1] * H.maxlen ;; np.mean(H)
    """),
)
holder(
    "deque subclass with an attribute",
    """
class Window(collections.deque):
    def mean(self): return sum(self) / len(self) * self.k
def make(v):
    h = Window([v])
    h.k = 1.0
    return h
def poke(h, v):
    h.rotate()
    h[0] = v
    h.k = 1.0 + v
""",
    [],
    ways("""
    H.k ;; H[0] ;; sum(H) ;; H.mean() ;; getattr(H, NAMES[0]) ;; vars(H)['k'] ;; max(H)
    """),
)
holder(
    "user's list and strings",
    """
class Values(collections.UserList): pass
def make(v): return Values([v, 0.5])
"""
    + POKED,
    ways("""
    H[0] ;; sum(H) ;; H.data[0]
    """),
    [*ELEMENT_OTHERWISE],
)
holder(
    "user's sequence",
    """
class Values:
    def __init__(self, v): self.all = [v, 0.5]
    def __getitem__(self, i): return self.all[i]
    def __setitem__(self, i, v): self.all[i] = v
    def __len__(self): return len(self.all)
def make(v): return Values(v)
"""
    + POKED,
    ways("""
    H[0] ;; sum(H) ;; H.all[0]
    """),
    ways("""
    next(iter(H)) ;; (lambda k, _: k)(*H) ;; max(H) ;; list(H)[0] ;; 1.0 + (1.0 in H)
    operator.itemgetter(0)(H) ;; [*H][0] ;; H[0] * len(H)
    """),
)
