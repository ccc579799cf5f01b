"""Rows of the capture table: dicts and their relatives."""

from __future__ import annotations

from capture_table_reads import ATTRIBUTE, ITEM, ITEM_OTHERWISE, holder, ways

POKED = """
def poke(h, v):
    h["k"] = v
"""
UNION = ways("""
    (H | {})["k"] ;; ({} | H)["k"] ;; H.copy()["k"] ;; H.setdefault("k", 0.5)
    """)
REVERSED = ["next(iter(reversed(H.values())))", "next(reversed(H.items()))[1]"]
BASE = ways("""
    dict.__getitem__(H, "k") ;; dict.get(H, "k") ;; dict.copy(H)['k']
    json.loads(json.dumps(H))['k']
    """)
BOTH = ways("""
    getattr(H, NAMES[0]) ;; H.k if hasattr(H, "k") else 0.5 ;; operator.attrgetter("k")(H)
    sum(getattr(H, n) for n in NAMES) ;; copy.copy(H).k ;; float(f'''{H.k}''')
    H.k * H['k'] / H['k']
    """)

holder(
    "dict",
    POKED + "def make(v): return {'k': v}",
    ITEM,
    [
        *ITEM_OTHERWISE,
        *UNION,
        *REVERSED,
        *BASE,
        *ways("""
    float('{k}'.format_map(H)) ;; float(string.Template('$k').substitute(H)) ;; H.get(*NAMES)
    H.items().__iter__().__next__()[1] ;; 1.0 + (('k', 1.0) in H.items())
    1.0 + (1.0 in H.values())
    """),
    ],
)
holder(
    "dict rebound",
    "def make(v): return {'k': v}\ndef poke(h, v): return {'k': v}",
    ITEM,
    ways("""
    H[NAMES[0]] ;; (lambda k: k)(**H) ;; max(H.values()) ;; copy.copy(H)['k']
    """),
)
holder(
    "dict of which the keys change",
    """
def make(v): return {"a": 0.25, v: v}
def poke(h, v):
    h.popitem()
    h[v] = v
""",
    ways("""
    sum(H.values()) ;; [v for v in H.values()][-1]
    """),
    ways("""
    max(H.values())
    list(H)[-1] ;; 1.0 + (1.0 in H) ;; H.get(1.0, 0.5) ;; next(reversed(H))
    1.0 + (H.keys() == {'a', 1.0}) ;; len(H) * [*H.values()][1]
    sum(v for k, v in H.items() if k == 1.0) + 1.0
    """),
)
holder(
    "dict that grows",
    """
def make(v): return {n: 1.0 for n in range(int(v))}
def poke(h, v):
    h.clear()
    h.update((n, 1.0) for n in range(int(v)))
""",
    ways("""
    1.0 * len(H) ;; sum(H.values()) ;; sum(1.0 for _ in H)
    """),
    ways("""
    float(len(H.keys())) ;; 2.0 if 2 in H else 1.0 ;; 1.0 + max(H) ;; H.__len__() * 1.0
    sum(map(lambda _: 1.0, H.items())) ;; 2.0 if H.get(1) else 1.0 ;; 1.0 + sum(H)
    """),
)
holder(
    "nested dicts",
    """
def make(v): return {"model": {"k": v, "sizes": [v, 2.0]}, "list": [{"k": v}]}
def poke(h, v):
    h["model"]["k"] = v
    h["model"]["sizes"][0] = v
    h["list"][0]["k"] = v
""",
    ways("""
    H["model"]["k"] ;; H["model"]["sizes"][0] ;; H["list"][0]["k"]
    sum(p["k"] for p in H["list"])
    """),
    [
        *ways("""
    H.get("model", {}).get("k") ;; (lambda k, sizes: k * sizes[0] / k)(**H["model"])
    functools.reduce(operator.getitem, ["model", "k"], H) ;; copy.deepcopy(H)["model"]["k"]
    jax.tree.leaves(H)[0]
    """),
        """
     match H:
         case {"model": {"k": k}}:
             pass
     k
     """,
    ],
)
holder(
    "dict subclass with attributes",
    """
class Config(dict):
    def get_k(self): return self["k"] + 0 * self.k
def make(v):
    h = Config(k=v)
    h.k = v
    return h
def poke(h, v):
    h["k"] = v
    h.k = v
""",
    [
        *ITEM,
        *ways("""
    H.k ;; H.get_k() ;; getattr(H, 'k')
    """),
    ],
    [*ITEM_OTHERWISE, *BASE, *BOTH, "vars(H)['k']", "H.__dict__['k']"],
)
holder(
    "dict subclass with only its attribute changed",
    """
class Config(dict):
    pass
def make(v):
    h = Config(a=1.0)
    h.k = v
    return h
def poke(h, v): h.k = v
""",
    [*ATTRIBUTE, "H.k * H['a']"],
    ways("""
    getattr(H, NAMES[0]) ;; vars(H)['k'] ;; H.k * len(H) ;; operator.attrgetter('k')(H)
    """),
)
holder(
    "AttrDict",
    """
class AttrDict(dict):
    def __init__(self, *a, **k):
        super().__init__(*a, **k)
        self.__dict__ = self
def make(v): return AttrDict(k=v)
def poke(h, v): h.k = v
""",
    [*ATTRIBUTE, *ITEM],
    [*ITEM_OTHERWISE, *UNION, *BASE, *BOTH, "vars(H)['k']", "H.__dict__['k']"],
)
holder(
    "dict with attributes by __getattr__",
    """
class DotDict(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__
def make(v): return DotDict(k=v)
def poke(h, v): h.k = v
""",
    [*ATTRIBUTE, *ITEM],
    ways("""
    getattr(H, NAMES[0]) ;; H[NAMES[0]] ;; operator.attrgetter('k')(H) ;; (lambda k: k)(**H)
    copy.copy(H)['k'] ;; max(H.values()) ;; H.get(NAMES[0])
    """),
)
holder(
    "EasyDict",
    """
class EasyDict(dict):
    def __init__(self, d=(), **more):
        for n, v in dict(d, **more).items(): setattr(self, n, v)
    def __setattr__(self, n, v):
        v = EasyDict(v) if type(v) is dict else v
        super().__setattr__(n, v)
        super().__setitem__(n, v)
    __setitem__ = __setattr__
def make(v): return EasyDict(k=v, part={"k": v})
def poke(h, v):
    h.k = v
    h["part"].k = v
""",
    [
        *ATTRIBUTE,
        *ways("""
    H['k'] ;; H.part.k ;; H['part']['k'] ;; H.part['k'] ;; H.get('k')
    """),
    ],
    [
        *BOTH,
        *ways("""
    H[NAMES[0]] ;; vars(H)['k'] ;; H.get('part').get('k') ;; copy.deepcopy(H).part.k
    {**H}['k'] ;; (lambda k, part: k)(**H) ;; operator.attrgetter('part.k')(H)
    """),
    ],
)
holder(
    "OrderedDict",
    POKED + "def make(v): return collections.OrderedDict(k=v)",
    ITEM,
    [*ITEM_OTHERWISE, *UNION, *REVERSED],
)
holder(
    "OrderedDict reordered",
    """
def make(v): return poke(collections.OrderedDict((n, float(n)) for n in range(6)), v)
def poke(h, v):
    h.move_to_end(int(v))
    return h
""",
    ["list(H)[-1] * 1.0", "list(H.values())[-1]"],
    ways("""
    next(reversed(H)) * 1.0 ;; [v for v in H.values()][-1] ;; list(H.items())[-1][1]
    dict(H).popitem()[1]
    """),
)
holder(
    "defaultdict",
    POKED + "def make(v): return collections.defaultdict(float, k=v)",
    ITEM,
    [*ITEM_OTHERWISE[:20], *UNION[2:], "H['no'] + H['k']", "H.default_factory() + H['k']"],
)
holder(
    "defaultdict's making",
    """
def make(v): return collections.defaultdict(lambda: v)
def poke(h, v): h.default_factory = lambda: v
""",
    [],
    ways("""
    H.default_factory() ;; dict(H).get('no', 1.0) * H.default_factory() ;; copy.copy(H)['no']
    float(len(H)) + H.default_factory()
    """),
)
holder(
    "Counter",
    """
def make(v): return collections.Counter(k=int(v), a=1)
def poke(h, v): h["k"] = int(v)
""",
    ways("""
    1.0 * H["k"] ;; H.get('k') ;; 1.0 * H['k'] + H['no']
    """),
    ways("""
    sum(H.values()) ;; 1.0 * H.total() ;; 1.0 * H.most_common(1)[0][1]
    sum(1.0 for _ in H.elements()) ;; 1.0 * (H + H)['k'] ;; 1.0 * max(H.values())
    H[NAMES[0]] * 1.0 ;; float(len(list(H.elements())))
    """),
)
holder(
    "dict with __missing__",
    """
class Config(dict):
    other = 1.0
    def __missing__(self, name): return Config.other
def make(v):
    h = Config()
    poke(h, v)
    return h
def poke(h, v): Config.other = v
""",
    [],
    ways("""
    H['no'] ;; H[NAMES[0]] ;; type(H).other ;; operator.itemgetter('no')(H)
    '%(no)r' % H and H['no']
    """),
)
holder(
    "UserDict",
    POKED
    + """
class Config(collections.UserDict):
    def read(self): return self["k"]
def make(v): return Config(k=v)
""",
    ways("""
    H['k'] ;; H.get('k') ;; H.data['k'] ;; H.read()
    """),
    [
        *ITEM_OTHERWISE,
        *ways("""
    sum(H.values()) ;; H.copy()['k'] ;; vars(H)['data']['k']
    """),
    ],
)
holder(
    "ChainMap",
    """
def make(v): return collections.ChainMap({"a": 0.25}, {"k": v})
def poke(h, v): h.maps[1]["k"] = v
""",
    ways("""
    H['k'] ;; H.get('k') ;; H.maps[1]['k']
    """),
    ways("""
    H[NAMES[0]] ;; sum(H.values()) ;; H.parents['k'] ;; H.new_child({})['k'] ;; dict(H)['k']
    {**H}['k'] ;; H['k'] if 'k' in H else 0.5 ;; (lambda a, k: k)(**H)
    operator.itemgetter('k')(H) ;; max(v for _, v in H.items())
    """),
)
holder(
    "read-only view of a dict",
    """
backing = {}
def make(v):
    backing["k"] = v
    return types.MappingProxyType(backing)
def poke(h, v): backing["k"] = v
""",
    ITEM,
    [
        *(r for r in ITEM_OTHERWISE if "copy.copy" not in r and "deepcopy" not in r),
        "H.copy()['k']",
        "(H | {})['k']",
    ],
)
holder(
    "view of an object's attributes",
    """
class Config: pass
made = Config()
def make(v):
    made.k = v
    return types.MappingProxyType(vars(made))
def poke(h, v): made.k = v
""",
    ["H['k']", "H.get('k')"],
    ways("""
    sum(H.values()) ;; H[NAMES[0]] ;; {**H}['k'] ;; (lambda k: k)(**H)
    """),
)
holder(
    "views of keys, values and items",
    """
backing = {}
def make(v):
    backing["k"] = v
    d = backing
    return types.SimpleNamespace(values=d.values(), items=d.items(), get=d.get, d=d)
def poke(h, v): backing["k"] = v
""",
    [],
    ways("""
    sum(H.values) ;; list(H.values)[0] ;; dict(H.items)['k'] ;; H.get('k') ;; H.get(NAMES[0])
    next(iter(H.items))[1] ;; 1.0 + (1.0 in H.values) ;; H.values.mapping['k']
    H.get.__self__['k']
    """),
)
holder(
    "user's mapping",
    """
class Config(collections.abc.MutableMapping):
    def __init__(self, **items): self._items = items
    def __getitem__(self, n): return self._items[n]
    def __setitem__(self, n, v): self._items[n] = v
    def __delitem__(self, n): del self._items[n]
    def __iter__(self): return iter(self._items)
    def __len__(self): return len(self._items)
def make(v): return Config(k=v)
"""
    + POKED,
    ways("""
    H['k'] ;; H.get('k') ;; H._items['k']
    """),
    [*ITEM_OTHERWISE, "sum(H.values())"],
)
