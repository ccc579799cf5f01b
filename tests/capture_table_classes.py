"""Rows of the capture table: classes, enums, modules, and classes of installed packages."""

from __future__ import annotations

from capture_table_reads import ATTRIBUTE, holder, ways

POKED = """
def poke(h, v):
    h.k = v
"""
COMPUTED = ways("""
    getattr(H, NAMES[0]) ;; sum(getattr(H, n) for n in NAMES) ;; operator.attrgetter('k')(H)
    functools.reduce(getattr, ['k'], H) ;; getattr(H, 'k', 0.5)
    H.k if hasattr(H, 'k') else 0.5 ;; float(f'''{H.k}''') ;; 2.0 if H.k > 2.5 else 1.0
    dict(map(lambda n: (n, getattr(H, n)), NAMES))['k']
    """)
STORED = ways("""
    vars(H)['k'] ;; H.__dict__['k'] ;; vars(H).get('k')
    sum(v for n, v in vars(H).items() if n == 'k') ;; dict(vars(H))['k']
    {n: v for n, v in vars(H).items() if not n.startswith('_')}['k']
    """)

holder(
    "class attribute",
    POKED
    + """
class Config:
    k = 1.0
    @classmethod
    def read(cls): return cls.k
    @staticmethod
    def still(): return Config.k
def make(v):
    Config.k = v
    return Config
""",
    [
        *ATTRIBUTE,
        *ways("""
    H.read() ;; H.still() ;; H().k
    """),
    ],
    [
        *COMPUTED,
        *STORED,
        *ways("""
    (H.read)() ;; inspect.getattr_static(H, 'k') ;; getattr(H(), NAMES[0])
    type.__getattribute__(H, 'k') ;; dict(inspect.getmembers(H))['k']
    """),
    ],
)
holder(
    "attribute of the class of an instance",
    """
class Config:
    k = 1.0
    def read(self): return self.k
def make(v):
    Config.k = v
    return Config()
def poke(h, v): Config.k = v
""",
    [
        *ATTRIBUTE,
        *ways("""
    H.read() ;; type(H).k ;; H.__class__.k
    """),
    ],
    [*COMPUTED, "vars(type(H))['k']", "copy.copy(H).k"],
)
holder(
    "inherited class attribute",
    """
class Base:
    k = 1.0
class Middle(Base): pass
class Config(Middle):
    def read(self): return super().k
def make(v):
    Base.k = v
    return Config
def poke(h, v):
    if v == 5.0: Middle.k = v
    else:
        Base.k = v
        if "k" in vars(Middle): del Middle.k
""",
    [*ATTRIBUTE, "H().k"],
    [
        *COMPUTED,
        *ways("""
    H().read() ;; next(vars(c)['k'] for c in H.__mro__ if 'k' in vars(c)) ;; H.__mro__[1].k
    super(H, H).k
    """),
    ],
)
holder(
    "class in a class",
    """
class Config:
    class model:
        k = 1.0
        sizes = [1.0]
def make(v):
    poke(Config, v)
    return Config
def poke(h, v):
    h.model.k = v
    h.model.sizes[0] = v
""",
    ways("""
    H.model.k ;; H.model.sizes[0] ;; getattr(H.model, 'k')
    """),
    ways("""
    operator.attrgetter('model.k')(H) ;; functools.reduce(getattr, ['model', 'k'], H)
    vars(H.model)['k'] ;; vars(H)['model'].k
    """),
)
holder(
    "metaclass",
    """
class Meta(type):
    k = 1.0
    @property
    def twice(cls): return 2 * cls.k
    def __getitem__(cls, n): return cls.k * n
    def __call__(cls): return cls.k
    def __len__(cls): return int(cls.k)
    def __iter__(cls): return iter([cls.k])
    def __contains__(cls, v): return v == cls.k
    def __getattr__(cls, n): return cls.k
class Config(metaclass=Meta): pass
def make(v):
    Meta.k = v
    return Config
def poke(h, v): Meta.k = v
""",
    [],
    ways("""
    H.k ;; H.twice ;; H[1.0] ;; H() ;; 1.0 * len(H) ;; sum(H) ;; 1.0 + (1.0 in H)
    H.computed ;; getattr(H, NAMES[0]) ;; type(H).k
    """),
)
holder(
    "registry kept by a base class",
    """
class Base:
    all = {}
    def __init_subclass__(cls, name): Base.all[name] = cls
class K(Base, name="k"):
    weight = 1.0
def make(v):
    K.weight = v
    return Base
def poke(h, v):
    class Other(Base, name="k"):
        weight = v
""",
    ["H.all['k'].weight", "H.all.get('k').weight"],
    ways("""
    H.all[NAMES[0]].weight ;; [c.weight for c in H.all.values()][0]
    sum(c.weight for c in H.all.values()) ;; H.all['k']().weight
    """),
)
holder(
    "borg",
    """
class Borg:
    _shared = {}
    def __init__(self): self.__dict__ = self._shared
def make(v):
    Borg().k = v
    return Borg()
def poke(h, v): Borg().k = v
""",
    ways("""
    H.k ;; getattr(H, 'k') ;; H._shared['k']
    """),
    ways("""
    type(H)().k ;; getattr(H, NAMES[0]) ;; vars(H)['k'] ;; type(H)._shared['k']
    copy.copy(H).k
    """),
)
holder(
    "singleton",
    """
class Config:
    _one = None
    def __new__(cls):
        if cls._one is None: cls._one = super().__new__(cls)
        return cls._one
def make(v):
    Config().k = v
    return Config()
def poke(h, v): Config._one.k = v
""",
    ways("""
    H.k ;; H._one.k ;; type(H)._one.k
    """),
    ways("""
    type(H)().k ;; getattr(H, NAMES[0]) ;; vars(H)['k']
    """),
)
holder(
    "generic and abstract classes",
    """
T = typing.TypeVar("T")
class Base(abc.ABC, typing.Generic[T]):
    @abc.abstractmethod
    def read(self): ...
class Config(Base[float]):
    def __init__(self, k): self.k = k
    def read(self): return self.k
def make(v): return Config(v)
"""
    + POKED,
    ways("""
    H.k ;; H.read() ;; getattr(H, 'k')
    """),
    ways("""
    getattr(H, NAMES[0]) ;; vars(H)['k'] ;; H.k if isinstance(H, typing.Hashable) else 0.5
    copy.copy(H).k
    """),
)
holder(
    "enum member rebound",
    """
class Kind(enum.Enum):
    ONE, TWO, THREE, FIVE = 1.0, 2.0, 3.0, 5.0
    def read(self): return self.value
    @property
    def twice(self): return 2 * self.value
def make(v): return Kind(v)
def poke(h, v): return Kind(v)
""",
    ways("""
    H.value ;; 2.0 if H is H.__class__.ONE else 1.0 ;; H.read() ;; H.twice
    {1.0: 1.0}.get(H.value, 2.0)
    """),
    [
        *ways("""
    H._value_ ;; float(len(H.name)) ;; getattr(H, 'value') ;; 1.0 + (H == type(H).ONE)
    1.0 + (H in (type(H).ONE,)) ;; 1.0 + list(type(H)).index(H)
    {m: m.value for m in type(H)}[H] ;; type(H)[H.name].value ;; type(H)(H.value).value
    1.0 * len(str(H)) ;; 1.0 * len(f'''{H}''')
    """),
        """
     match H:
         case object(name="ONE"):
             k = 1.0
         case _:
             k = 4.0
     k
     """,
    ],
)
holder(
    "enum with a list for a value, and attributes",
    """
class Kind(enum.Enum):
    A = [1.0]
    B = {"k": 1.0}
    def read(self): return self.value[0]
def make(v):
    poke(Kind, v)
    return Kind
def poke(h, v):
    h.A.value[0] = v
    h.B.value["k"] = v
    h.A.extra = v
""",
    ways("""
    H.A.value[0] ;; H.B.value['k'] ;; H.A.read() ;; H.A.extra
    """),
    ways("""
    H['A'].value[0] ;; getattr(H, 'A').value[0] ;; sum(m.value[0] for m in H if m.name == 'A')
    H.__members__['A'].value[0] ;; getattr(H.A, 'extra') ;; vars(H.A)['extra']
    list(H)[0].value[0] ;; H.A._value_[0]
    """),
)
holder(
    "enum of numbers, of text and of flags",
    """
class Number(enum.IntEnum): ONE, TWO, THREE, FIVE = 1, 2, 3, 5
class Text(enum.StrEnum): ONE, TWO, THREE, FIVE = "1", "2", "3", "5"
class Flags(enum.Flag): A, B, C = 1, 2, 4
def make(v): return types.SimpleNamespace(n=Number(int(v)), t=Text(str(int(v))), f=Flags(int(v)))
def poke(h, v): h.n, h.t, h.f = Number(int(v)), Text(str(int(v))), Flags(int(v))
""",
    ways("""
    1.0 * H.n ;; float(H.t) ;; 1.0 * H.f.value ;; 1.0 * H.n.value
    """),
    ways("""
    2.0 if H.n > 2 else 1.0 ;; 1.0 * [0, 1, 2, 3, 4, 5][H.n] ;; 1.0 + (type(H.f).C in H.f)
    1.0 * len(list(H.f)) ;; float(H.t + '0') ;; 1.0 + bool(H.f & type(H.f).C)
    """),
)
holder(
    "enum that reads a global",
    """
scale = 1.0
class Kind(enum.Enum):
    A = 2.0
    def read(self): return self.value * scale
    @property
    def scaled(self): return scale
    @classmethod
    def total(cls): return sum(m.read() for m in cls)
def make(v):
    global scale
    scale = v
    return Kind.A
def poke(h, v):
    global scale
    scale = v
""",
    ways("""
    H.read() ;; H.scaled ;; H.total()
    """),
    ways("""
    getattr(H, 'scaled') ;; operator.methodcaller('read')(H) ;; type(H).A.scaled
    type(H).total()
    """),
)
