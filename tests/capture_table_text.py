"""Rows of the capture table: sets, ranges, text and bytes."""

from __future__ import annotations

from capture_table_reads import ELEMENT, ELEMENT_OTHERWISE, holder, ways
from capture_table_sequences import LENGTH, LENGTH_OTHERWISE

INTEGER = ways("""
    1.0 * H[0] ;; 1.0 * sum(H) ;; 1.0 * H[-1]
    """)
INTEGERS = ways("""
    1.0 * max(H) ;; 1.0 * list(H)[0] ;; 1.0 * next(iter(H)) ;; (lambda k, _: 1.0 * k)(*H)
    1.0 + (1 in H) ;; 1.0 * len(H) * H[0] ;; 1.0 * H[:1][0] ;; 1.0 + H.find(1)
    """)

holder(
    "set",
    "def make(v): return {v}\ndef poke(h, v):\n    h.clear()\n    h.add(v)",
    ways("""
    sum(H) ;; 1.0 + (1.0 in H) ;; max(H)
    """),
    ways("""
    next(iter(H)) ;; [*H][0] ;; (lambda k: k)(*H) ;; 1.0 + (H == {1.0})
    1.0 + H.issubset({1.0, 2.0, 3.0}) ;; list(H)[0] ;; sorted(H)[0] ;; 1.0 + len(H & {1.0})
    1.0 + bool(H - {1.0}) ;; copy.copy(H).pop() ;; (H | set()).pop()
    """),
)
holder(
    "set that grows",
    """
def make(v): return set(range(int(v)))
def poke(h, v):
    h.clear()
    h.update(range(int(v)))
""",
    LENGTH,
    LENGTH_OTHERWISE,
)
holder(
    "frozenset",
    "def make(v): return frozenset([v])\ndef poke(h, v): return frozenset([v])",
    ways("""
    sum(H) ;; 1.0 + (1.0 in H) ;; max(H)
    """),
    ways("""
    next(iter(H)) ;; [*H][0] ;; 1.0 + (hash(H) == hash(frozenset([1.0])))
    1.0 + (H <= {1.0, 2.0}) ;; list(H)[0]
    """),
)
holder(
    "range",
    "def make(v): return range(int(v))\ndef poke(h, v): return range(int(v))",
    [*LENGTH, "1.0 * H.stop"],
    [
        *LENGTH_OTHERWISE,
        *ways("""
    1.0 + sum(H) ;; 1.0 + H[-1] ;; 1.0 + (2 in H)
    """),
    ],
)
holder(
    "text",
    "def make(v): return f'{v}'\ndef poke(h, v): return f'{v}'",
    ways("""
    float(H) ;; 2.0 if H == '1.0' else 1.0 ;; float(H[0])
    """),
    [
        "float(H.split('.')[0])",
        "1.0 + ('1' in H)",
        "1.0 * ord(H[0])",
        "{'1.0': 1.0}.get(H, 0.5)",
        "1.0 + H.startswith('1')",
        "float(f'''{H}''')",
        "float('%s' % H)",
        "1.0 * int(H[:1])",
        "1.0 + (hash(H) == hash('1.0'))",
        "1.0 + (H > '2')",
        "sum(map(ord, H)) * 1.0",
        "1.0 * len(H * int(float(H)))",
        "float(re.match(r'\\d', H).group())",
        "json.loads(H)",
        """
        match H:
            case "1.0":
                k = 1.0
            case _:
                k = 4.0
        k
        """,
    ],
)
holder(
    "text subclass with an attribute",
    """
class Name(str): pass
def make(v):
    h = Name("a")
    h.k = v
    return h
def poke(h, v): h.k = v
""",
    ["H.k", "H.k * len(H)"],
    ways("""
    getattr(H, 'k') ;; getattr(H, NAMES[0]) ;; vars(H)['k'] ;; 1.0 * (H == 'a') * H.k
    """),
)
holder(
    "bytes",
    "def make(v): return bytes([int(v), 0])\ndef poke(h, v): return bytes([int(v), 0])",
    INTEGER[:2],
    INTEGERS,
)
holder(
    "bytearray",
    "def make(v): return bytearray([int(v), 0])\ndef poke(h, v): h[0] = int(v)",
    [],
    [*INTEGER[:2], *INTEGERS, "1.0 * bytes(H)[0]", "1.0 * int.from_bytes(H, 'little')"],
)
holder(
    "memoryview",
    """
store = bytearray(2)
def make(v):
    store[0] = int(v)
    return memoryview(store)
def poke(h, v): store[0] = int(v)
""",
    [],
    [
        *INTEGER[:2],
        *ways("""
    1.0 * H.tolist()[0] ;; 1.0 * bytes(H)[0] ;; 1.0 * H.obj[0] ;; 1.0 * H[:1][0]
    1.0 * next(iter(H))
    """),
    ],
)
holder(
    "array of the standard library",
    "def make(v): return array.array('d', [v, 0.5])\ndef poke(h, v): h[0] = v",
    [],
    [*ELEMENT, *ELEMENT_OTHERWISE[:12], "H.tolist()[0]", "np.frombuffer(H)[0]"],
)
