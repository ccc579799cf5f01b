"""Rows of the capture table: modules, and what installed packages hold."""

from __future__ import annotations

from capture_table_classes import COMPUTED, STORED
from capture_table_reads import ATTRIBUTE, holder, ways

MODULE = """
def make(v):
    inst.k = v
    inst.part.k = v
    return inst
def poke(h, v):
    h.k = v
    h.part.k = v
"""
holder(
    "module of the user",
    """
settings = types.ModuleType("table_settings")
settings.__file__ = "/home/user/table/table_settings.py"
exec(compile('''
import types
k = 1.0
part = types.SimpleNamespace(k=1.0)
def read(): return k
class Config:
    def read(self): return k
''', settings.__file__, "exec"), vars(settings))
"""
    + MODULE.replace("inst", "settings"),
    [
        *ATTRIBUTE,
        *ways("""
    H.read() ;; H.part.k ;; H.Config().read()
    """),
    ],
    [
        *COMPUTED,
        *STORED,
        *ways("""
    vars(H)['read']() ;; getattr(H, 'read')() ;; H.read.__globals__['k']
    """),
    ],
)
holder(
    "setting of an installed package",
    MODULE,
    ways("""
    H.k ;; H.part.k ;; getattr(H, 'k')
    """),
    [*COMPUTED, *STORED],
    installed="""
    k = 1.0
    part = types.SimpleNamespace(k=1.0)
    """,
)
holder(
    "installed configuration classes",
    """
def make(v): return inst.Config(v)
def poke(h, v):
    h.k = v
    h.part.k = v
    h.items["k"] = v
    h.slots.k = v
    h.fields.k = v
    h.model.k = v
""",
    ways("""
    H.k ;; H.part.k ;; H.items['k'] ;; H.items.k ;; H.slots.k ;; H.fields.k ;; H.read()
    H.model.k
    """),
    ways("""
    getattr(H, NAMES[0]) ;; vars(H)['k'] ;; H.items.get('k') ;; (lambda k: k)(**H.items)
    operator.attrgetter('part.k')(H) ;; copy.deepcopy(H).part.k
    dataclasses.asdict(H.fields)['k'] ;; H.model.dump()['k'] ;; H.model.copy(other=1).k
    sum(H.items.values()) ;; float(re.search('[0-9.]+', repr(H.fields)).group())
    """),
    installed="""
    class Munch(dict):
        def __getattr__(self, n):
            try: return object.__getattribute__(self, n)
            except AttributeError:
                try: return self[n]
                except KeyError: raise AttributeError(n)
        def __setattr__(self, n, v): self[n] = v
    class Slots:
        __slots__ = ("k", "__weakref__")
        def __init__(self, k): self.k = k
    class Model:
        def __init__(self, **fields): object.__setattr__(self, "__dict__", fields)
        def __setattr__(self, n, v): self.__dict__[n] = v
        def __getattr__(self, n): raise AttributeError(n)
        def dump(self): return dict(self.__dict__)
        def copy(self, **new): return type(self)(**{**self.__dict__, **new})
    @dataclasses.dataclass
    class Fields:
        k: float
    class Config:
        def __init__(self, k):
            self.k, self.items, self.slots, self.fields = k, Munch(k=k), Slots(k), Fields(k)
            self.part, self.model = types.SimpleNamespace(k=k), Model(k=k)
        def read(self): return self.k
    """,
)
