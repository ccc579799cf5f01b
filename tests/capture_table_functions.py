"""Rows of the capture table: functions, partials, methods, references, and what holds state."""

from __future__ import annotations

from capture_table_reads import holder, ways

holder(
    "global of a function",
    """
k, table = 1.0, {"k": 1.0}
def read(): return k
def from_table(name="k"): return table[name]
def by_globals(): return globals()["k"]
def make(v):
    poke(None, v)
    return types.SimpleNamespace(read=read, table=from_table, globals=by_globals)
def poke(h, v):
    global k
    k = table["k"] = v
""",
    ways("""
    H.read() ;; H.table() ;; sum(f() for f in [H.read])
    """),
    ways("""
    H.globals() ;; H.read.__globals__['k'] ;; getattr(H, 'read')()
    next(map(lambda f: f(), [H.read])) ;; H.table(*NAMES) ;; (lambda f: f())(H.read)
    functools.reduce(lambda a, f: a * f(), [H.read], 1.0) ;; vars(H)['read']()
    """),
)
holder(
    "closure cell",
    """
def make(v):
    k = v
    def read(): return k
    def put(v):
        nonlocal k
        k = v
    read.put = put
    return read
def poke(h, v): h.put(v)
""",
    ways("""
    H() ;; sum([H()]) ;; (lambda: H())()
    """),
    ways("""
    H.__closure__[0].cell_contents ;; next(map(lambda f: f(), [H])) ;; functools.partial(H)()
    inspect.getclosurevars(H).nonlocals['k'] ;; H.__call__() ;; copy.copy(H)()
    """),
)
holder(
    "default",
    """
def make(v):
    def read(a=1.0, k=v): return a * k
    return read
def poke(h, v): h.__defaults__ = (1.0, v)
""",
    ways("""
    H() ;; H(1.0) ;; H(a=1.0)
    """),
    ways("""
    H.__defaults__[1] ;; H(*[1.0]) ;; functools.partial(H, 1.0)()
    inspect.signature(H).parameters['k'].default ;; list(map(H, [1.0]))[0]
    """),
)
holder(
    "keyword default",
    """
def make(v):
    def read(*, k=v): return k
    return read
def poke(h, v): h.__kwdefaults__["k"] = v
""",
    ["H()", "sum([H()])"],
    ways("""
    H.__kwdefaults__['k'] ;; H(**{}) ;; functools.partial(H)()
    inspect.signature(H).parameters['k'].default
    """),
)
holder(
    "attribute of a function",
    """
def make(v):
    def read(): return read.k
    read.k = v
    return read
def poke(h, v): h.k = v
""",
    ways("""
    H() ;; H.k ;; getattr(H, 'k')
    """),
    ways("""
    getattr(H, NAMES[0]) ;; vars(H)['k'] ;; H.__dict__['k'] ;; operator.attrgetter('k')(H)
    """),
)
holder(
    "function replaced in a table",
    """
def one(): return 1.0
def two(): return 2.0
def three(): return 3.0
def five(): return 5.0
ALL = {1.0: one, 2.0: two, 3.0: three, 5.0: five}
def make(v): return {"k": ALL[v], "lambda": lambda: v}
def poke(h, v):
    h["k"] = ALL[v]
    h["lambda"] = lambda: v
""",
    ways("""
    H['k']() ;; H['lambda']() ;; sum(f() for f in H.values())
    """),
    ways("""
    H[NAMES[0]]() ;; 1.0 * len(H['k'].__name__) ;; H.get('k')() ;; functools.partial(H['k'])()
    operator.itemgetter('k')(H)() ;; operator.methodcaller('__call__')(H['k'])
    """),
)
holder(
    "code replaced in a function",
    """
def one(): return 1.0
def two(): return 2.0
def three(): return 3.0
def five(): return 5.0
ALL = {1.0: one, 2.0: two, 3.0: three, 5.0: five}
def make(v):
    def read(): return 0.0
    read.__code__ = ALL[v].__code__
    return read
def poke(h, v): h.__code__ = ALL[v].__code__
""",
    [],
    ways("""
    H() ;; next(map(lambda f: f(), [H])) ;; functools.partial(H)()
    1.0 * len(H.__code__.co_name)
    """),
)
holder(
    "method replaced on a class and on an instance",
    """
class Config:
    def read(self): return 1.0
def make(v):
    h = Config()
    poke(h, v)
    return h
def poke(h, v):
    Config.read = lambda self: v
    h.own = lambda: v
""",
    ways("""
    H.read() ;; H.own() ;; type(H).read(H)
    """),
    ways("""
    getattr(H, 'read')() ;; (lambda f: f())(H.read) ;; operator.methodcaller('read')(H)
    vars(H)['own']() ;; vars(type(H))['read'](H)
    """),
)
holder(
    "partial",
    """
def scale(a, k, *more, c=1.0): return a * k * c
def make(v): return functools.partial(scale, 1.0, v, c=1.0)
def poke(h, v): return functools.partial(scale, 1.0, v, c=1.0)
""",
    ways("""
    H() ;; H(c=1.0) ;; sum([H()])
    """),
    ways("""
    H.args[1] ;; H.keywords['c'] * H.args[1] ;; H.func(*H.args, **H.keywords)
    functools.partial(H, 2.0)() ;; next(map(lambda f: f(), [H])) ;; copy.copy(H)()
    H.__reduce__()[2][1][1]
    """),
)
holder(
    "partial changed in place",
    """
def scale(k=1.0): return k
def make(v):
    h = functools.partial(scale, k=v)
    h.k = v
    return h
def poke(h, v): h.keywords["k"] = h.k = v
""",
    [],
    ways("""
    H() ;; H.keywords['k'] ;; H.k ;; vars(H)['k'] ;; getattr(H, NAMES[0])
    functools.partial(H)() ;; next(map(lambda f: f(), [H]))
    """),
)
holder(
    "bound method",
    """
class Config:
    def __init__(self, k): self.k = k
    def read(self, n=1.0): return n * self.k
    def __call__(self): return self.k
def make(v): return Config(v).read
def poke(h, v): h.__self__.k = v
""",
    ways("""
    H() ;; H(1.0) ;; sum([H()]) ;; H.__self__.k
    """),
    ways("""
    H.__func__(H.__self__) ;; functools.partial(H, 1.0)() ;; next(map(H, [1.0]))
    H.__self__() ;; getattr(H.__self__, NAMES[0]) ;; copy.copy(H)()
    """),
)
holder(
    "method of a builtin",
    """
store = [0.0]
def make(v):
    store[0] = v
    return types.SimpleNamespace(get=store.__getitem__, s=store)
def poke(h, v): store[0] = v
""",
    [],
    ways("""
    H.get(0) ;; next(map(H.get, [0])) ;; H.get.__self__[0] ;; H.s.copy()[0] ;; (H.get)(0)
    """),
)
holder(
    "operator's getters",
    """
class Config: pass
made = Config()
def make(v):
    made.k = v
    method = operator.methodcaller("__getattribute__", "k")
    return types.SimpleNamespace(a=operator.attrgetter("k"), o=made, m=method)
def poke(h, v): made.k = v
""",
    [],
    ways("""
    H.a(H.o) ;; H.m(H.o) ;; next(map(H.a, [H.o])) ;; max([H.o], key=H.a).k
    """),
)
holder(
    "cached helper",
    """
k = 1.0
@functools.lru_cache
def twice(n): return 2 * n
@functools.singledispatch
def read(n): return k
@read.register
def _(n: str): return 2 * k
def make(v):
    global k
    k = v
    return types.SimpleNamespace(twice=twice, read=read, k=k)
def poke(h, v):
    global k
    k = h.k = v
""",
    [],
    ways("""
    H.twice(H.k) ;; H.read(0) ;; H.read('text') ;; H.read.dispatch(str)('')
    H.twice.__wrapped__(H.k)
    """),
)
holder(
    "weak reference",
    """
class Config: pass
kept = []
def make(v):
    kept[:] = [Config()]
    kept[0].k = v
    return weakref.ref(kept[0])
def poke(h, v): h().k = v
""",
    [],
    ways("""
    H().k ;; getattr(H(), NAMES[0]) ;; vars(H())['k'] ;; (lambda o: o.k)(H())
    H().k if H() is not None else 0.5
    """),
)
holder(
    "weak dictionaries",
    """
class Config: pass
kept = Config()
def make(v):
    h = types.SimpleNamespace(keys=weakref.WeakKeyDictionary(), o=kept)
    h.values = weakref.WeakValueDictionary()
    poke(h, v)
    return h
def poke(h, v):
    h.keys[kept] = v
    kept.k = v
    h.values["k"] = kept
""",
    [],
    ways("""
    H.keys[H.o] ;; H.keys.get(H.o) ;; sum(H.keys.values()) ;; H.values['k'].k
    [o.k for o in H.values.values()][0] ;; next(iter(H.keys.items()))[1]
    """),
)
holder(
    "context variable",
    """
def make(v):
    h = contextvars.ContextVar("k", default=0.5)
    h.set(v)
    return h
def poke(h, v): h.set(v)
""",
    [],
    ways("""
    H.get() ;; H.get(0.5) ;; contextvars.copy_context()[H]
    contextvars.copy_context().run(H.get)
    """),
)
holder(
    "thread's own",
    """
def make(v):
    h = threading.local()
    h.k = v
    return h
def poke(h, v): h.k = v
""",
    [],
    ways("""
    H.k ;; getattr(H, NAMES[0]) ;; vars(H)['k'] ;; getattr(H, 'k', 0.5) ;; H.__dict__['k']
    """),
)
holder(
    "environment",
    """
def make(v):
    os.environ["FLUXAX_TABLE_K"] = str(v)
    return os.environ
def poke(h, v): os.environ["FLUXAX_TABLE_K"] = str(v)
""",
    [],
    ways("""
    float(H['FLUXAX_TABLE_K']) ;; float(H.get('FLUXAX_TABLE_K'))
    float(os.getenv('FLUXAX_TABLE_K')) ;; float(os.environ['FLUXAX_TABLE_K'])
    float(dict(H)['FLUXAX_TABLE_K'])
    sum(float(v) for n, v in H.items() if n == 'FLUXAX_TABLE_K')
    float(os.environb[b'FLUXAX_TABLE_K'])
    """),
)
holder(
    "iterator",
    "def make(v): return iter([1.0, 2.0, 5.0] * 5)\ndef poke(h, v): return None",
    [],
    ways("""
    next(H) ;; next(H, 0.5) ;; H.__next__() ;; [v for _, v in zip(NAMES, H)][0]
    list(itertools.islice(H, 1))[0] ;; 15.0 - H.__length_hint__() + 0 * next(H)
    """),
)
holder(
    "generator and counter",
    """
def generate():
    k = 0.0
    while True:
        k += 1.0
        yield k
def make(v):
    cycle = itertools.cycle([1.0, 4.0])
    return types.SimpleNamespace(g=generate(), c=itertools.count(1), y=cycle)
def poke(h, v): return None
""",
    [],
    ways("""
    next(H.g) ;; 1.0 * next(H.c) ;; next(H.y) ;; H.g.send(None)
    [v for v, _ in zip(H.g, NAMES)][0] ;; 1.0 * list(itertools.islice(H.c, 1))[0]
    """),
)
holder(
    "random numbers with a state of their own",
    """
class Mine(random.Random): pass
def make(v):
    h = types.SimpleNamespace(r=random.Random(3), m=Mine(3))
    h.n, h.o = np.random.default_rng(3), np.random.RandomState(3)
    return h
def poke(h, v): return None
""",
    [],
    ways("""
    H.r.random() ;; H.m.random() ;; H.n.random() ;; H.o.rand() ;; H.r.uniform(0.0, 1.0)
    H.n.normal() ;; 1.0 + H.r.randrange(1000) ;; float(H.n.integers(1000)) + 1.0
    H.r.choice([1.0, 2.0, 3.0, 4.0, 5.0]) ;; getattr(H.r, 'random')()
    (lambda f: f())(H.r.random)
    """),
)
