"""Rows of the capture table: instances."""

from __future__ import annotations

from capture_table_reads import ATTRIBUTE, ATTRIBUTE_OTHERWISE, STORAGE, holder, ways

POKED = """
def poke(h, v):
    h.k = v
"""
ATTRIBUTES = [*ATTRIBUTE_OTHERWISE, *STORAGE]
DATACLASS = ways("""
    dataclasses.asdict(H)['k'] ;; dataclasses.astuple(H)[0]
    dataclasses.replace(H, other=2.0).k
    sum(getattr(H, f.name) for f in dataclasses.fields(H) if f.name == 'k')
    float(H == type(H)(1.0)) + 1 ;; float(re.search(r'k=([0-9.]+)', repr(H)).group(1))
    (lambda **names: names['k'])(**dataclasses.asdict(H))
    """)

holder(
    "namespace",
    POKED + "def make(v): return types.SimpleNamespace(k=v, other='x')",
    ATTRIBUTE,
    [*ATTRIBUTES, "float(H == types.SimpleNamespace(k=1.0, other='x')) + 1"],
)
holder(
    "plain object",
    POKED
    + """
class Config:
    def __init__(self, k):
        self.k, self.other = k, 1.0
    def get(self): return self.k
    @property
    def twice(self): return 2 * self.k
    def __call__(self, n): return n * self.k
def make(v): return Config(v)
""",
    [
        *ATTRIBUTE,
        *ways("""
    H.get() ;; H.twice ;; H(1.0)
    """),
    ],
    [
        *ATTRIBUTES,
        *ways("""
    getattr(H, 'get')() ;; operator.methodcaller('get')(H) ;; (H.get)()
    """),
    ],
)
holder(
    "slots",
    POKED
    + """
class Config:
    __slots__ = ["k", "other"]
    def __init__(self, k):
        self.k = k
    def get(self): return self.k
def make(v): return Config(v)
""",
    [*ATTRIBUTE, "H.get()"],
    [*ATTRIBUTE_OTHERWISE, "type(H).k.__get__(H)", "sum(getattr(H, n, 0) for n in H.__slots__)"],
)
holder(
    "string slot",
    POKED
    + """
class Config:
    __slots__ = "k"
def make(v):
    h = Config()
    h.k = v
    return h
""",
    ATTRIBUTE,
    ways("""
    getattr(H, NAMES[0]) ;; getattr(H, H.__slots__) ;; operator.attrgetter('k')(H)
    """),
)
holder(
    "inherited slots, and a dict",
    POKED
    + """
class Base:
    __slots__ = ("k", "__weakref__")
class Config(Base):
    def __init__(self, k):
        self.k, self.other = k, 1.0
def make(v): return Config(v)
""",
    [*ATTRIBUTE, "H.k * H.other"],
    ways("""
    getattr(H, NAMES[0]) ;; copy.copy(H).k ;; H.k * vars(H)['other']
    """),
)
holder(
    "mangled names",
    """
class Slot:
    __slots__ = ("__k",)
    def __init__(self, k): self.__k = k
    def get(self): return self.__k
    def put(self, k): self.__k = k
class Config:
    def __init__(self, k): self.__k, self.__slot = k, Slot(k)
    def get(self): return self.__k
    def slot(self): return self.__slot.get()
    def put(self, k):
        self.__k = k
        self.__slot.put(k)
def make(v): return Config(v)
def poke(h, v): h.put(v)
""",
    ways("""
    H.get() ;; H.slot() ;; H._Config__k ;; H._Config__slot._Slot__k
    """),
    ["vars(H)['_Config__k']", "getattr(H, '_Config__' + NAMES[0])"],
)
holder(
    "dataclass",
    POKED
    + """
@dataclasses.dataclass
class Config:
    k: float
    other: float = 1.0
    def get(self): return self.k
def make(v): return Config(v)
""",
    [*ATTRIBUTE, "H.get()"],
    [*ATTRIBUTES, *DATACLASS],
)
holder(
    "frozen dataclass",
    """
@dataclasses.dataclass(frozen=True)
class Config:
    k: float
    other: float = 1.0
    def get(self): return self.k
def make(v): return Config(v)
def poke(h, v): return dataclasses.replace(h, k=v)
""",
    [*ATTRIBUTE, "H.get()"],
    [*ATTRIBUTES, *DATACLASS, "1.0 + (hash(H) == hash(type(H)(1.0)))"],
)
holder(
    "dataclass with slots",
    POKED
    + """
@dataclasses.dataclass(slots=True)
class Config:
    k: float
    other: float = 1.0
def make(v): return Config(v)
""",
    ATTRIBUTE,
    [*ATTRIBUTE_OTHERWISE, *DATACLASS],
)
holder(
    "objects in objects",
    """
class Part:
    pass
def make(v):
    h = Part()
    h.part, h.parts, h.me = Part(), [Part(), {"k": v}], h
    h.part.k = h.parts[0].k = v
    h.part.up = h
    return h
def poke(h, v):
    h.part.k = h.parts[0].k = h.parts[1]["k"] = v
""",
    ways("""
    H.part.k ;; H.parts[0].k ;; H.parts[1]['k'] ;; H.me.me.part.up.part.k
    """),
    ways("""
    operator.attrgetter('part.k')(H) ;; functools.reduce(getattr, ['part', 'k'], H)
    """),
)
holder(
    "property",
    """
class Config:
    def __init__(self, k): self._k = k
    @property
    def k(self): return self._k
    other = property(lambda self: self._k + 1)
def make(v): return Config(v)
def poke(h, v): h._k = v
""",
    [*ATTRIBUTE, "H.other - 1"],
    [*ATTRIBUTE_OTHERWISE, "type(H).k.fget(H)", "type(H).k.__get__(H)"],
)
holder(
    "cached property",
    """
class Config:
    def __init__(self, k): self._k = k
    @functools.cached_property
    def k(self): return self._k
def make(v): return Config(v)
def poke(h, v):
    h._k = v
    vars(h).pop("k", None)
""",
    [],
    ways("""
    H.k ;; getattr(H, NAMES[0]) ;; (H.k, vars(H)['k'])[1]
    H.k if 'k' in vars(H) else H.k + 1
    """),
)
holder(
    "computed attribute",
    """
class Config:
    def __init__(self, k): self.__dict__["store"] = {"k": k}
    def __getattr__(self, name):
        try: return self.__dict__["store"][name]
        except KeyError: raise AttributeError(name)
    def __setattr__(self, name, v): self.store[name] = v
def make(v): return Config(v)
"""
    + POKED,
    ["H.k"],
    ways("""
    getattr(H, 'k') ;; getattr(H, NAMES[0]) ;; getattr(H, 'k', 0.5) ;; H.store['k']
    H.k if hasattr(H, 'k') else 0.5 ;; operator.attrgetter('k')(H) ;; float(f'''{H.k}''')
    getattr(H, 'no', 0.0) + H.k ;; copy.deepcopy(H.store)['k']
    """),
)
holder(
    "all attributes computed",
    """
class Config:
    def __init__(self, k): object.__setattr__(self, "_k", k)
    def __getattribute__(self, name):
        if name == "k": return object.__getattribute__(self, "_k")
        return object.__getattribute__(self, name)
    def __setattr__(self, name, v): object.__setattr__(self, "_" + name, v)
def make(v): return Config(v)
"""
    + POKED,
    [],
    ways("""
    H.k ;; getattr(H, NAMES[0]) ;; H._k ;; operator.attrgetter('k')(H) ;; vars(H)['_k']
    """),
)
holder(
    "descriptor",
    POKED
    + """
class Field:
    def __set_name__(self, owner, name): self.name = "_" + name
    def __get__(self, o, owner=None): return self if o is None else o.__dict__[self.name]
    def __set__(self, o, v): o.__dict__[self.name] = v
class Config:
    k = Field()
    def __init__(self, k): self.k = k
def make(v): return Config(v)
""",
    ["H.k"],
    ways("""
    getattr(H, 'k') ;; getattr(H, NAMES[0]) ;; vars(H)['_k'] ;; operator.attrgetter('k')(H)
    H.k if hasattr(H, 'k') else 0.5 ;; type(H).k.__get__(H) ;; copy.copy(H).k
    """),
)
holder(
    "descriptor that holds the number",
    """
class Field:
    def __init__(self, v): self.v = v
    def __get__(self, o, owner=None): return self.v
class Weak:
    def __init__(self): self.d = weakref.WeakKeyDictionary()
    def __get__(self, o, owner=None): return self.d.get(o, 0.5)
class Config:
    k = Field(1.0)
    weak = Weak()
def make(v):
    h = Config()
    poke(h, v)
    return h
def poke(h, v):
    vars(Config)["k"].v = v
    vars(Config)["weak"].d[h] = v
""",
    [],
    ways("""
    H.k ;; getattr(H, NAMES[0]) ;; type(H).k ;; vars(type(H))['k'].v ;; H.weak
    vars(type(H))['k'].v
    """),
)
holder(
    "attribute that comes and goes",
    """
class Config:
    k = 1.0
def make(v):
    h = Config()
    h.other = 1.0
    poke(h, v)
    return h
def poke(h, v):
    if v == 1.0:
        vars(h).pop("k", None)
        h.other = 1.0
    else:
        vars(h).pop("other", None)
        h.k = v
""",
    ways("""
    H.k ;; getattr(H, 'k') ;; H.k + 0.0 * getattr(H, 'other', 1.0)
    """),
    ways("""
    getattr(H, NAMES[0]) ;; vars(H).get('k', 1.0) ;; 1.0 + hasattr(H, 'other')
    1.0 + ('k' in vars(H)) ;; float(len(NAMES)) + ('other' in dir(H))
    sum(n == 'k' for n in vars(H)) + 1.0 ;; copy.copy(H).k ;; next(iter(vars(H).values()))
    """),
)
holder(
    "operators of its own",
    POKED
    + """
class Number:
    def __init__(self, k): self.k = k
    def __mul__(self, o): return o * self.k
    __rmul__ = __mul__
    def __add__(self, o): return Number(self.k + o)
    def __neg__(self): return Number(-self.k)
    def __float__(self): return self.k
    def __int__(self): return int(self.k)
    def __index__(self): return int(self.k)
    def __bool__(self): return self.k > 2.5
    def __len__(self): return int(self.k)
    def __eq__(self, o): return self.k == o
    def __lt__(self, o): return self.k < o
    def __hash__(self): return int(self.k)
    def __getitem__(self, i): return self.k + i
    def __contains__(self, v): return v == self.k
    def __iter__(self): yield self.k
    def __call__(self): return self.k
    def __str__(self): return str(self.k)
    def __format__(self, spec): return format(self.k, spec)
    def __enter__(self): return self.k
    def __exit__(self, *error): return None
    def __abs__(self): return self.k
    def __divmod__(self, o): return self.k, o
def make(v): return Number(v)
""",
    ways("""
    1.0 * H ;; H() ;; H[0]
    """),
    [
        *ways("""
    (H + 1).k - 1 ;; float(H) ;; float(int(H)) ;; float(range(9)[H]) ;; 2.0 if H else 1.0
    -(-H).k * -1.0 * -1.0 ;; 1.0 * len(H) ;; 1.0 + (H == 1.0) ;; 1.0 + (H < 2.5)
    1.0 * hash(H) ;; 1.0 + (1.0 in H) ;; next(iter(H)) ;; sum(H) ;; float(str(H))
    float(f'''{H:.1f}''') ;; abs(H) ;; divmod(H, 1)[0] ;; 1.0 + (not H)
    2.0 if H and True else 1.0 ;; [*H][0] ;; (lambda k: k)(*H) ;; operator.mul(1.0, H)
    math.floor(H)
    """),
        """
     with H as k:
         pass
     k
     """,
    ],
)
