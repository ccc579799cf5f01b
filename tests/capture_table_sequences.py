"""Rows of the capture table: lists, tuples, sets, text and their relatives."""

from __future__ import annotations

from capture_table_reads import ELEMENT, ELEMENT_OTHERWISE, MATCH_SEQUENCE, SLICE, holder

POKED = """
def poke(h, v):
    h[0] = v
"""
LENGTH = ["1.0 * len(H)", "1.0 * sum(1 for _ in H)", "float(len(H))"]
LENGTH_OTHERWISE = ["H.__len__() * 1.0", "len([*H]) * 1.0", "len(list(H)) * 1.0", "2.0 if len(H) > 2 else 1.0", "(lambda *all: 1.0 * len(all))(*H)",
                    "float(sum(map(bool, [1 for _ in H])))", "operator.length_hint(H) * 1.0"]
INTEGER = ["1.0 * H[0]", "1.0 * sum(H)", "1.0 * H[-1]"]
INTEGERS = ["1.0 * max(H)", "1.0 * list(H)[0]", "1.0 * next(iter(H))", "(lambda k, _: 1.0 * k)(*H)", "1.0 + (1 in H)", "1.0 * len(H) * H[0]",
            "1.0 * H[:1][0]", "1.0 + H.find(1)"]

holder(
    "list",
    POKED + "def make(v): return [v, 0.5]",
    [*ELEMENT, *SLICE],
    [*ELEMENT_OTHERWISE, MATCH_SEQUENCE, "H.copy()[0]", "(H + [])[0]", "(H * 2)[2]", "list.__getitem__(H, 0)", "1.0 + (H == [1.0, 0.5])",
     "1.0 + (H > [2.5])", "json.loads(json.dumps(H))[0]", "jnp.array(H)[0]", "np.mean(H)", "jax.tree.leaves(H)[0]"],
)
holder("list rebound", "def make(v): return [v, 0.5]\ndef poke(h, v): return [v, 0.5]", ELEMENT, ["max(H)", "(lambda k, _: k)(*H)", "[*H][0]"])
holder(
    "list that grows",
    """
def make(v): return [1.0] * int(v)
def poke(h, v): h[:] = [1.0] * int(v)
""",
    [*LENGTH, "sum(H)"],
    [*LENGTH_OTHERWISE, "H.count(1.0) * 1.0", "1.0 + (H == [1.0])", "sum(i for i, _ in enumerate(H)) + 1.0", "math.fsum(H)"],
)
holder(
    "list reordered",
    """
def make(v): return [v, *(n for n in (1.0, 2.0, 3.0, 5.0) if n != v)]
def poke(h, v): h.insert(0, h.pop(h.index(v)))
""",
    ["H[0]", "next(iter(H))", "sum(v for i, v in enumerate(H) if i == 0)"],
    ["1.0 + H.index(1.0)", "H[:1][0]", "[*H][0]", "1.0 + (H < [2.0])", "(lambda k, *_: k)(*H)"],
)
holder(
    "nested lists",
    """
def make(v): return [[v, [v]], {"k": [v]}]
def poke(h, v):
    h[0][0] = h[0][1][0] = h[1]["k"][0] = v
""",
    ["H[0][0]", "H[0][1][0]", "H[1]['k'][0]"],
    ["operator.itemgetter(0)(H[0])", "functools.reduce(operator.getitem, [0, 1, 0], H)", "copy.deepcopy(H)[0][0]", "jax.tree.leaves(H)[0]",
     "(a := H[0])[0]", "[k for k, _ in H[:1]][0]", """
     match H:
         case [[k, _], _]:
             pass
     k
     """],
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
    ["H[0]", "H[1][0]", "H[1][1][1][0]"],
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
    [*ELEMENT, "H.k", "getattr(H, 'k')", "H.first()"],
    [*ELEMENT_OTHERWISE, "vars(H)['k']", "getattr(H, NAMES[0])", "list.__getitem__(H, 0)", MATCH_SEQUENCE],
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
    ["H.k", "H.k * H[0]", "getattr(H, 'k')"],
    ["vars(H)['k']", "getattr(H, NAMES[0])", "H.k * len(H)"],
)
holder("tuple", "def make(v): return (v, 0.5)\ndef poke(h, v): return (v, 0.5)", [*ELEMENT, *SLICE],
       [*ELEMENT_OTHERWISE, MATCH_SEQUENCE, "(H + ())[0]", "1.0 + (H == (1.0, 0.5))", "1.0 + (hash(H) == hash((1.0, 0.5)))", "{H: H[0]}[H]"])
holder(
    "list in a tuple",
    "def make(v): return ([v], 0.5)\ndef poke(h, v): h[0][0] = v",
    ["H[0][0]", "sum(H[0])", "sum(k for k in H[0])"],
    ["(lambda k, _: k[0])(*H)", "[*H][0][0]", "list(H)[0][0]", "copy.deepcopy(H)[0][0]"],
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
    ["getattr(H, 'k')", "getattr(H, NAMES[0])", "vars(H)['k']", "H.k * len(H)"],
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
    ["H.k", "H[0]", "H.twice()", "sum(H)"],
    ["getattr(H, NAMES[0])", "H._asdict()['k']", "H._replace(other=2.0).k", "(lambda k, other: k)(*H)", "(lambda k, other: k)(**H._asdict())",
     "operator.attrgetter('k')(H)", "dict(zip(H._fields, H))['k']", "max(H)", "copy.copy(H).k", "jax.tree.leaves(H)[0]", MATCH_SEQUENCE, """
     match H:
         case object(k=k):
             pass
     k
     """],
)
holder("deque", POKED + "def make(v): return collections.deque([v, 0.5])", ELEMENT,
       [*ELEMENT_OTHERWISE, "H.copy()[0]", "(H + H)[2]", "H.__reduce__()[3].__next__()"])
holder(
    "deque of a length",
    "def make(v): return collections.deque([0.5, v], maxlen=2)\ndef poke(h, v): h.append(v)",
    ["H[-1]", "sum(H)", "max(H)"],
    ["sum(H) / len(H)", "list(H)[-1]", "next(reversed(H))", "(lambda _, k: k)(*H)", "H[1] * H.maxlen", "np.mean(H)"],
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
    ["H.k", "H[0]", "sum(H)", "H.mean()", "getattr(H, NAMES[0])", "vars(H)['k']", "max(H)"],
)
holder(
    "user's list and strings",
    """
class Values(collections.UserList): pass
def make(v): return Values([v, 0.5])
"""
    + POKED,
    ["H[0]", "sum(H)", "H.data[0]"],
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
    ["H[0]", "sum(H)", "H.all[0]"],
    ["next(iter(H))", "(lambda k, _: k)(*H)", "max(H)", "list(H)[0]", "1.0 + (1.0 in H)", "operator.itemgetter(0)(H)", "[*H][0]", "H[0] * len(H)"],
)
holder("set", "def make(v): return {v}\ndef poke(h, v):\n    h.clear()\n    h.add(v)", ["sum(H)", "1.0 + (1.0 in H)", "max(H)"],
       ["next(iter(H))", "[*H][0]", "(lambda k: k)(*H)", "1.0 + (H == {1.0})", "1.0 + H.issubset({1.0, 2.0, 3.0})", "list(H)[0]", "sorted(H)[0]", "1.0 + len(H & {1.0})",
        "1.0 + bool(H - {1.0})", "copy.copy(H).pop()", "(H | set()).pop()"])
holder("set that grows", "def make(v): return set(range(int(v)))\ndef poke(h, v):\n    h.clear()\n    h.update(range(int(v)))", LENGTH, LENGTH_OTHERWISE)
holder("frozenset", "def make(v): return frozenset([v])\ndef poke(h, v): return frozenset([v])", ["sum(H)", "1.0 + (1.0 in H)", "max(H)"],
       ["next(iter(H))", "[*H][0]", "1.0 + (hash(H) == hash(frozenset([1.0])))", "1.0 + (H <= {1.0, 2.0})", "list(H)[0]"])
holder("range", "def make(v): return range(int(v))\ndef poke(h, v): return range(int(v))", [*LENGTH, "1.0 * H.stop"],
       [*LENGTH_OTHERWISE, "1.0 + sum(H)", "1.0 + H[-1]", "1.0 + (2 in H)"])
holder("text", "def make(v): return f'{v}'\ndef poke(h, v): return f'{v}'", ["float(H)", "2.0 if H == '1.0' else 1.0", "float(H[0])"],
       ["float(H.split('.')[0])", "1.0 + ('1' in H)", "1.0 * ord(H[0])", "{'1.0': 1.0}.get(H, 0.5)", "1.0 + H.startswith('1')", "float(f'''{H}''')", "float('%s' % H)",
        "1.0 * int(H[:1])", "1.0 + (hash(H) == hash('1.0'))", "1.0 + (H > '2')", "sum(map(ord, H)) * 1.0", "1.0 * len(H * int(float(H)))", "float(re.match(r'\\d', H).group())",
        "json.loads(H)", """
        match H:
            case "1.0":
                k = 1.0
            case _:
                k = 4.0
        k
        """])
holder("text subclass with an attribute", """
class Name(str): pass
def make(v):
    h = Name("a")
    h.k = v
    return h
def poke(h, v): h.k = v
""", ["H.k", "H.k * len(H)"], ["getattr(H, 'k')", "getattr(H, NAMES[0])", "vars(H)['k']", "1.0 * (H == 'a') * H.k"])
holder("bytes", "def make(v): return bytes([int(v), 0])\ndef poke(h, v): return bytes([int(v), 0])", INTEGER[:2], INTEGERS)
holder("bytearray", "def make(v): return bytearray([int(v), 0])\ndef poke(h, v): h[0] = int(v)", [], [*INTEGER[:2], *INTEGERS, "1.0 * bytes(H)[0]", "1.0 * int.from_bytes(H, 'little')"])
holder("memoryview", """
store = bytearray(2)
def make(v):
    store[0] = int(v)
    return memoryview(store)
def poke(h, v): store[0] = int(v)
""", [], [*INTEGER[:2], "1.0 * H.tolist()[0]", "1.0 * bytes(H)[0]", "1.0 * H.obj[0]", "1.0 * H[:1][0]", "1.0 * next(iter(H))"])
holder("array of the standard library", "def make(v): return array.array('d', [v, 0.5])\ndef poke(h, v): h[0] = v", [], [*ELEMENT, *ELEMENT_OTHERWISE[:12], "H.tolist()[0]", "np.frombuffer(H)[0]"])
