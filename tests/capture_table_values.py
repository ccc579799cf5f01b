"""Rows of the capture table: numbers, times, arrays and Modules."""

from __future__ import annotations

from capture_table_reads import ATTRIBUTE, holder, ways


def _rebound(name: str, value: str, direct: list[str], reads: list[str], before: str = "") -> None:
    """A holder that cannot change: another one takes its place."""
    source = f"{before}\ndef make(v): return {value}\ndef poke(h, v): return {value}\n"
    holder(name, source, direct, reads, number=True)


NUMBER = [
    *ways("""
    2.0 if H > 2 else 1.0 ;; float(f'''{H}''') ;; 1.0 * max(H, 0) ;; math.sqrt(H)
    float('%r' % H) ;; {1: 1.0}.get(H, 2.0) ;; 1.0 + (H == 1)
    1.0 * [0, 1, 2, 3, 4, 5][int(H)] ;; 1.0 * sum([H]) ;; 1.0 * round(H)
    1.0 + (H in (1.0, 7.0)) ;; H * jnp.float32(1) ;; np.sqrt(H)
    jnp.zeros(int(H)).shape[0] * 1.0 ;; 1.0 * len(range(int(H))) ;; H**2 ;; 2.0**H
    1.0 + (hash(H) == hash(1.0)) ;; (lambda k: k)(*[H]) ;; H.real ;; 1.0 * H.__mul__(1)
    1.0 + H // 2 ;; -(-H) ;; divmod(H, 3)[1] + 1.0 ;; H if type(H) in (int, float) else 0.5
    jnp.asarray(H) ;; jnp.where(H > 2, 2.0, 1.0) ;; 1.0 * abs(H) ;; 1.0 - 0.5**H
    """),
    """
          match H:
              case 1:
                  k = 1.0
              case _:
                  k = 4.0
          k
          """,
]
_rebound(
    "float",
    "v",
    ways("""
    H ;; 1.0 * H ;; H + 1
    """),
    [*NUMBER, "1.0 * H.is_integer() + H", "float(H.hex()[:3] == '0x1') + H"],
)
_rebound(
    "int",
    "int(v)",
    ways("""
    1.0 * H ;; H + 1.0 ;; 1.0 / H
    """),
    [
        *NUMBER,
        *ways("""
    1.0 * H.bit_length() ;; 1.0 * (1 << H) ;; 1.0 * (H & 5) ;; 1.0 + H % 3
    """),
    ],
)
_rebound(
    "bool",
    "v > 2.5",
    ["1.0 + H", "2.0 if H else 1.0"],
    ways("""
    1.0 + (not H) ;; 1.0 + (H is True) ;; 1.0 + int(H) ;; [1.0, 2.0][H]
    jnp.where(H, 2.0, 1.0) ;; 1.0 + any([H])
    """),
)
_rebound(
    "None or a number",
    "None if v == 1.0 else v",
    ["1.0 if H is None else H"],
    ways("""
    H or 0.5 ;; 2.0 if H == 5.0 else 1.0 ;; 1.0 + (type(H) is float)
    1.0 + isinstance(H, float)
    """),
)
_rebound(
    "number whose type changes",
    "[np.float32, int, float, np.int64][int(v) % 5](v)",
    ["1.0 * H"],
    ways("""
    1.0 * len(type(H).__name__) ;; 1.0 + isinstance(H, int) ;; 1.0 + hasattr(H, 'dtype')
    1.0 * len(H.__class__.__name__)
    """),
)
_rebound(
    "signed zero",
    "math.copysign(0.0, v - 2.5)",
    [],
    ways("""
    math.copysign(1.0, H) ;; 1.0 * len(str(H)) ;; math.atan2(H, -1.0)
    1.0 + (f'''{H}''' == '0.0')
    """),
)
_rebound(
    "float subclass with an attribute",
    "made(v)",
    [],
    ways("""
    H.k ;; 1.0 * H ;; getattr(H, NAMES[0]) ;; vars(H)['k'] ;; H.unit * H
    """),
    """
class Length(float):
    unit = 2.0
def made(v):
    h = Length(v)
    h.k = v
    return h
""",
)
holder(
    "int subclass with its attribute changed",
    """
class Count(int): pass
def make(v):
    h = Count(1)
    h.k = v
    return h
def poke(h, v): h.k = v
""",
    ["H.k", "H.k * H"],
    ways("""
    getattr(H, 'k') ;; getattr(H, NAMES[0]) ;; vars(H)['k']
    """),
)
_rebound(
    "complex",
    "complex(v, 1)",
    ["H.real", "abs(H)"],
    ways("""
    (H * H).real + 2.0 ;; (H.conjugate()).real ;; 1.0 + (H == 1 + 1j)
    1.0 * len(str(H * 10)) + H.real
    """),
)
_rebound(
    "fraction",
    "fractions.Fraction(int(v), 2)",
    ["float(H)", "H.numerator / H.denominator"],
    ways("""
    float(H * 2) ;; float(H + 1) ;; 1.0 * math.ceil(H) ;; 1.0 + (H == 0.5) ;; float(str(H)[0])
    """),
)
_rebound(
    "decimal",
    "decimal.Decimal(str(v))",
    ["float(H)"],
    ways("""
    float(H * 2) ;; 1.0 * int(H) ;; float(str(H)) ;; 1.0 + (H == 1)
    1.0 * H.as_tuple().digits[0]
    """),
)
_rebound(
    "times",
    "times(v)",
    ways("""
    1.0 * H.d.day ;; 1.0 * H.t.hour ;; H.s.total_seconds()
    """),
    ways("""
    1.0 * H.d.toordinal() % 10 + 1.0 ;; H.t.utcoffset().total_seconds() / 3600
    1.0 * len(str(H.n)) ;; 1.0 * H.t.tzinfo.utcoffset(None).seconds / 60
    (H.d - datetime.date(2019, 12, 31)).days * 1.0 ;; 1.0 * int(f'''{H.d:%d}''')
    """),
    """
def times(v):
    n = int(v)
    zone = datetime.timezone(datetime.timedelta(hours=n))
    return types.SimpleNamespace(
        d=datetime.date(2020, 1, n),
        t=datetime.datetime(2020, 1, 1, n, tzinfo=zone),
        s=datetime.timedelta(seconds=v),
        n=np.timedelta64(1, ["s", "m", "h", "D", "W", "Y"][n]),
    )
""",
)
_rebound(
    "what is compared by identity",
    "KEYS[v]",
    ["2.0 if H is H.MISSING else 1.0", "H.k"],
    ways("""
    1.0 + (H == H.MISSING) ;; H.VALUES[H] ;; 1.0 + (H in [H.MISSING])
    1.0 + (H is not H.MISSING)
    """),
    """
class Key:
    def __init__(self, k): self.k = k
KEYS = {v: Key(v) for v in (1.0, 2.0, 3.0, 5.0)}
Key.MISSING = KEYS[1.0]
Key.VALUES = {k: v for v, k in KEYS.items()}
""",
)
ARRAY = ways("""
    H[0] ;; H.sum() ;; jnp.sum(H) ;; H[0] * H.shape[0]
    """)
ARRAY_OTHERWISE = ways("""
    jnp.asarray(H)[0] ;; H.max() ;; jnp.max(H) ;; H.reshape(-1)[0] ;; H[:1][0] ;; (H * 2)[0]
    H.T[0] ;; jnp.dot(H, H) ;; sum(v for v in H) ;; H.mean() ;; H[jnp.array(0)]
    (lambda k, _: k)(*H) ;; float(H[0]) ;; H.tolist()[0] ;; H[0].item() ;; np.asarray(H)[0]
    float(np.sum(H)) ;; 2.0 if H[0] > 2.5 else 1.0 ;; next(iter(H)) ;; copy.copy(H)[0]
    jax.tree.leaves({'a': H})[0][0] ;; math.sqrt(H[0]) ;; jnp.stack([H, H])[1, 0]
    H.astype('int32')[0] * 1.0 ;; H @ H ;; float(f'''{H[0]:.1f}''')
    """)
holder(
    "NumPy array written in place",
    "def make(v): return np.array([v, 0.5], 'f4')\ndef poke(h, v): h[0] = v",
    ARRAY,
    ARRAY_OTHERWISE,
)
holder(
    "NumPy array of a changing shape",
    "def make(v): return np.ones(int(v), 'f4')\ndef poke(h, v): return np.ones(int(v), 'f4')",
    ways("""
    H.sum() ;; 1.0 * H.shape[0] ;; 1.0 * len(H) ;; 1.0 * H.size
    """),
    ways("""
    jnp.sum(H) ;; sum(H) ;; 2.0 if H.shape[0] > 2 else 1.0 ;; jnp.sum(jnp.ones(len(H)))
    """),
)
holder(
    "NumPy array of no dimensions",
    "def make(v): return np.array(v, 'f4')\ndef poke(h, v): h[...] = v",
    ways("""
    H ;; 1.0 * H ;; jnp.sqrt(H)
    """),
    ways("""
    float(H) ;; H.item() ;; H[()] ;; 2.0 if H > 2.5 else 1.0 ;; 1.0 * int(H) ;; math.sqrt(H)
    float(f'''{H:.1f}''')
    """),
)
holder(
    "view of a NumPy array",
    """
store = np.zeros((2, 2), "f4")
def make(v):
    store[0, 0] = v
    return store[0]
def poke(h, v): store[0, 0] = v
""",
    ARRAY,
    ways("""
    H.max() ;; H.T[0] ;; float(H[0])
    """),
)
holder(
    "NumPy number",
    "def make(v): return np.float32(v)\ndef poke(h, v): return np.float32(v)",
    ["H", "1.0 * H"],
    ways("""
    float(H) ;; H.item() ;; 2.0 if H > 2.5 else 1.0 ;; 1.0 * int(H) ;; 1.0 + (H == 1)
    H.real
    """),
)
holder(
    "NumPy array of integers or names",
    """
def make(v):
    h = types.SimpleNamespace(i=np.array([int(v)]), s=np.array([str(v)]))
    h.o = np.array([v, None], object)
    return h
def poke(h, v): h.i[0], h.s[0], h.o[0] = int(v), str(v), v
""",
    [],
    ways("""
    H.i[0] * 1.0 ;; jnp.arange(9.0)[H.i[0]] ;; float(H.s[0]) ;; H.o[0] ;; float(H.i[0])
    1.0 + (H.s[0] == '1.0')
    """),
)
holder(
    "record of NumPy's",
    """
def make(v): return np.array([(v, 2)], [("k", "f4"), ("n", "i4")])
def poke(h, v): h["k"][0] = v
""",
    [],
    ways("""
    H['k'][0] ;; H[0]['k'] ;; H[NAMES[0]][0] ;; float(H['k'].sum())
    """),
)
holder(
    "JAX array",
    "def make(v): return jnp.array([v, 0.5])\ndef poke(h, v): return jnp.array([v, 0.5])",
    ARRAY,
    [*ARRAY_OTHERWISE, "H.at[0].get()", "H.at[1].set(0.0).sum()"],
)
holder(
    "arrays in containers",
    """
def make(v):
    return {"a": [jnp.float32(v), np.full(2, v, "f4")], "b": (np.full(1, v, "f4"),)}
def poke(h, v):
    h["a"][0] = jnp.float32(v)
    h["a"][1][:] = h["b"][0][:] = v
""",
    ways("""
    H['a'][0] ;; H['a'][1][0] ;; H['b'][0][0] ;; sum(jnp.sum(a) for a in H['a'])
    """),
    ways("""
    jax.tree.leaves(H)[0] ;; sum(map(jnp.sum, jax.tree.leaves(H)))
    jnp.sum(jnp.concatenate([H['a'][1], H['b'][0]])) ;; (lambda a, b: a[0])(**H)
    """),
)
holder(
    "attributes of a Module",
    """
class Part(fx.Module):
    def __init__(self, k):
        self.w, self.k, self.cfg, self.n = jnp.float32(k), k, {"k": k}, np.full(1, k, "f4")
    def read(self): return self.k
def make(v): return Part(v)
def poke(h, v):
    h.w, h.k = jnp.float32(v), v
    h.cfg["k"] = v
    h.n[0] = v
""",
    [
        *ATTRIBUTE,
        *ways("""
    H.w ;; H.cfg['k'] ;; H.n[0] ;; H.read()
    """),
    ],
    ways("""
    getattr(H, NAMES[0]) ;; vars(H)['k'] ;; jax.tree.leaves(H)[0].sum()
    operator.attrgetter('k')(H) ;; copy.copy(H).k ;; copy.deepcopy(H).w
    fx.fmap(lambda a: a * 2, H).w ;; 1.0 * len(repr(H)) * 0 + H.k
    """),
)
holder(
    "layers",
    """
def make(v):
    h = fx.Chain(fx.Dense(1, 1, bias=False))
    poke(h, v)
    return h
def poke(h, v):
    h.layers[0].weight = jnp.full((1, 1), v)
    h.layers[0].k = v
""",
    ways("""
    H(jnp.ones((1, 1)))[0, 0] ;; H.layers[0].weight[0, 0] ;; H[0].k ;; sum(l.k for l in H)
    """),
    ways("""
    jax.tree.leaves(H)[0][0, 0]
    [l for l in H][0].k ;; getattr(H[0], NAMES[0]) ;; copy.copy(H)[0].k
    """),
)
