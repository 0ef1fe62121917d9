"""Reference cases of the op vocabulary, one table a group. The name of a case is the
op as graphs print it, so that a test needs no list of its own.

Results of f32 and half-precision ops are computed in f64 from the same operands and
rounded once.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F

from table import ALL, COMPLEX, DTYPES, FLOATS, INTS, NAMES, Table

f64 = torch.float64
INF, NAN = math.inf, math.nan


def wide(t):
    return t.to(f64) if t.is_floating_point() else t


def thin(dtype, rows):
    """All rows for f32; fewer for f64, whose kernels are plain; f16 and bf16 run in f32."""
    return rows if dtype == torch.float32 else rows[:4] if dtype == f64 else rows[:2]


def values(dtype):
    """Awkward numbers of a type."""
    if dtype == torch.bool:
        return torch.tensor([False, True])
    if dtype.is_floating_point:
        big = {torch.float16: 6e4, torch.bfloat16: 1e30}.get(dtype, 1e30)
        tiny = torch.finfo(dtype).smallest_normal
        return torch.tensor(
            [NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 1.5, 2.5, -2.5, 3.75, big, -big,
             tiny, -tiny, tiny / 8, 1e-4, -1e-4, 0.999, -0.999, math.pi / 2, 10.3, -10.7, 20.5, 88.0, -88.5,
             -103.0, 3.3, -4.4, 0.1, -0.3, 7.0, 0.0625], dtype=f64).to(dtype)
    i = torch.iinfo(dtype)
    v = [0, 1, 2, 3, 7, 100, i.max, i.max - 1, i.min, i.min + 1]
    return torch.tensor(v + ([-1, -2, -7, -100] if i.min < 0 else [128, 200]), dtype=dtype)


def few(dtype):
    """Fewer of them, for pairs."""
    if dtype == torch.bool:
        return values(dtype)
    if dtype.is_floating_point:
        return torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 7.25, -0.1, 1e-3], dtype=f64).to(dtype)
    i = torch.iinfo(dtype)
    return torch.tensor([0, 1, 2, 5, i.max, i.min] + ([-1, -2, -7] if i.min < 0 else [8, 200]), dtype=dtype)


def random(shape, dtype, low=-2.0, high=2.0):
    if dtype == torch.bool:
        return torch.rand(shape) < 0.5
    if dtype.is_floating_point:
        return (torch.rand(shape, dtype=f64) * (high - low) + low).to(dtype)
    return torch.randint(0 if dtype == torch.uint8 else -9, 10, shape, dtype=dtype)


def gelu_tanh(x):
    return F.gelu(x, approximate="tanh")


FLOAT_UNARY = {
    "reciprocal": torch.reciprocal, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "exp": torch.exp, "exp2": torch.exp2,
    "expm1": torch.expm1, "log": torch.log, "log2": torch.log2, "log10": torch.log10, "log1p": torch.log1p,
    "sin": torch.sin, "cos": torch.cos, "tan": torch.tan, "asin": torch.asin, "acos": torch.acos, "atan": torch.atan,
    "sinh": torch.sinh, "cosh": torch.cosh, "tanh": torch.tanh, "asinh": torch.asinh, "acosh": torch.acosh,
    "atanh": torch.atanh, "sigmoid": torch.sigmoid, "erf": torch.erf, "floor": torch.floor, "ceil": torch.ceil,
    "round": torch.round, "trunc": torch.trunc, "silu": F.silu, "gelu": F.gelu, "gelu_tanh": gelu_tanh,
    # `F.softplus` is the identity above 20.
    "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
}
NUMBER_UNARY = {"neg": torch.neg, "abs": torch.abs, "square": torch.square, "relu": torch.relu}
# PyTorch gives 0 for NaN.
NUMBER_UNARY["sign"] = lambda x: torch.where(x != x, x, torch.sign(x))
TO_BOOL = {"isnan": torch.isnan, "isinf": torch.isinf, "isfinite": torch.isfinite, "logical_not": torch.logical_not}


def unary():
    t = Table("unary")
    rows = [(n, f, FLOATS) for n, f in FLOAT_UNARY.items()]
    rows += [(n, f, FLOATS + INTS) for n, f in NUMBER_UNARY.items()]
    rows += [(n, f, ALL) for n, f in TO_BOOL.items()]
    rows += [("bitwise_not", torch.bitwise_not, INTS + [torch.bool])]
    for name, f, dtypes in rows:
        for d in dtypes:
            result = lambda x: f(wide(x)).to(torch.bool if name in TO_BOOL else d)
            # The vectorised loop, its tail, one element, and none.
            for x in (values(d), values(d)[5 % len(values(d))], values(d)[:0].reshape(0, 3)):
                t.case(name, [x], [result(x)])
    t.save()


BINARY = {
    "add": (torch.add, ALL), "sub": (torch.sub, FLOATS + INTS), "mul": (torch.mul, ALL), "div": (torch.div, FLOATS),
    "maximum": (torch.maximum, ALL), "minimum": (torch.minimum, ALL), "pow": (torch.pow, FLOATS + INTS),
    "remainder": (torch.remainder, FLOATS + INTS), "floor_divide": (torch.floor_divide, FLOATS + INTS),
    "atan2": (torch.atan2, FLOATS), "bitwise_and": (torch.bitwise_and, INTS + [torch.bool]),
    "bitwise_or": (torch.bitwise_or, INTS + [torch.bool]), "bitwise_xor": (torch.bitwise_xor, INTS + [torch.bool]),
    "bitwise_left_shift": (torch.bitwise_left_shift, INTS), "bitwise_right_shift": (torch.bitwise_right_shift, INTS),
    "gate": (lambda a, b: torch.where(b > 0, a, torch.zeros_like(a)), FLOATS + INTS),
}
COMPARE = {"eq": torch.eq, "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge}


def pairs(name, d):
    """Every pair by broadcasting, then equal shapes, a row, and no elements."""
    n = 7 if d in (torch.float16, torch.bfloat16) else None
    a, b = few(d)[:n], few(d)[:n]
    if name in ("remainder", "floor_divide") and not d.is_floating_point:
        b = b[b != 0]  # an error
        if d != torch.uint8:
            a = a[a != torch.iinfo(d).min]  # by -1: traps in PyTorch
    if name.endswith("_shift"):
        b = torch.tensor([0, 1, 3, 7], dtype=d)
    yield a.reshape(-1, 1), b
    x, y = random((2, 1, 17), d), random((2, 1), d)
    if name in ("remainder", "floor_divide") and not d.is_floating_point:
        y = y + (y == 0).to(d)
    if name.endswith("_shift"):
        y = y.abs() % 4
    yield x, y
    yield x[:0], y[:, 0].reshape(2, 1)


def binary():
    t = Table("binary")
    for name, (f, dtypes) in BINARY.items():
        for d in dtypes:
            for a, b in pairs(name, d):
                t.case(name, [a, b], [f(wide(a), wide(b)).to(d)])
    for name, f in COMPARE.items():
        for d in ALL:
            for a, b in pairs(name, d):
                t.case(name, [a, b], [f(a, b)])
    t.save()


def cast_one(x, dtype):
    """Float to integer truncates and saturates, NaN is 0; integers wrap."""
    if dtype == torch.bool or dtype.is_floating_point or not x.is_floating_point():
        return x.to(dtype)
    i = torch.iinfo(dtype)
    out = [0 if math.isnan(v) else i.max if v >= i.max else i.min if v <= i.min else int(v)
           for v in x.to(f64).flatten().tolist()]
    return torch.tensor(out, dtype=dtype).reshape(x.shape)


def words(seed, first, n):
    """Philox 4x32-10 (Salmon et al., 2011): the four words of counters first, first + 1, …"""
    c = (np.arange(n, dtype=np.uint64) + np.uint64(first))
    low = np.uint64(0xFFFFFFFF)
    c = [c & low, c >> np.uint64(32), np.zeros(n, np.uint64), np.zeros(n, np.uint64)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(key[0]), b & low,
             (a >> np.uint64(32)) ^ c[3] ^ np.uint64(key[1]), a & low]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return np.stack(c, 1).flatten()


def uniform32(seed, offset, shape):
    n = math.prod(shape)
    w = words(seed, offset, (n + 3) // 4)[:n]
    return torch.from_numpy((w >> np.uint64(8)).astype(np.float64) / 2**24).reshape(shape)


def sources():
    t = Table("sources")
    for d in ALL:
        n = NAMES[d]
        for value, v in [("2.5", 2.5), ("-3", -3), ("true", True), ("0.0", 0.0)]:
            if d == torch.uint8 and v == -3:
                continue
            x = cast_one(torch.tensor(v, dtype=f64 if isinstance(v, float) else None), d)
            for shape in [(), (3, 2), (0, 4)]:
                dims = "(" + ", ".join(map(str, shape)) + ")"
                t.case(f"full[value={value}, dtype={n}, shape={dims}]", [], [x.expand(shape).clone()])
        i = torch.arange(5).to(d)
        t.case(f"iota[dtype={n}, axis=0, shape=(5, 3)]", [], [i[:, None].expand(5, 3)])
        t.case(f"iota[dtype={n}, axis=1, shape=(2, 5)]", [], [i.expand(2, 5)])
        t.case(f"iota[dtype={n}, axis=0, shape=(0)]", [], [i[:0]])
    for d in ALL:
        for e in ALL:
            t.case(f"cast[dtype={NAMES[e]}]", [values(d)], [cast_one(values(d), e)])
        t.case("cast[dtype=f32]", [values(d)[:0].reshape(2, 0)], [torch.zeros(2, 0)])

    for seed, offset, shape in [(7, 0, (11,)), (2**63 + 5, 2**32 - 1, (3, 5)), (7, 9, (0,))]:
        dims = "(" + ", ".join(map(str, shape)) + ")"
        u = uniform32(seed, offset, shape)
        n = math.prod(shape)
        for d in [torch.float32, torch.float16, torch.bfloat16]:
            text = f"dtype={NAMES[d]}, seed={seed}, offset={offset}, shape={dims}]"
            t.case(f"random[kind=uniform, {text}", [], [u.to(d)])
        w = words(seed, offset, (n + 1) // 2).reshape(-1, 2)
        u64 = (w[:, 0] | (w[:, 1] << np.uint64(32)))[:n] >> np.uint64(11)
        u64 = torch.from_numpy(u64.astype(np.float64) / 2**53).reshape(shape)
        text = f"dtype=f64, seed={seed}, offset={offset}, shape={dims}]"
        t.case(f"random[kind=uniform, {text}", [], [u64])
        # Box and Muller: the radius from one word, the angle from the next.
        w = words(seed, offset, (n + 3) // 4).astype(np.float64).reshape(-1, 2)
        r = np.sqrt(-2 * np.log((w[:, 0] + 0.5) / 2**32))
        a = 2 * np.pi * np.floor(w[:, 1] / 256) / 2**24
        z = torch.from_numpy(np.stack([r * np.cos(a), r * np.sin(a)], 1).flatten()[:n]).reshape(shape)
        text = f"dtype=f32, seed={seed}, offset={offset}, shape={dims}]"
        t.case(f"random[kind=normal, {text}", [], [z.to(torch.float32)])
        for p in [0.0, 0.25, 0.5, 0.9, 1.0]:
            for d in FLOATS:
                x = random(shape, d)
                scale = 1 / (1 - p) if p < 1 else 0.0
                y = torch.where(u >= p, wide(x) * scale, torch.zeros(shape, dtype=f64))
                t.case(f"dropout[p={p!r}, seed={seed}, offset={offset}]", [x], [y.to(d)])
    t.save()


def axes(a):
    return "(" + ", ".join(map(str, a)) + ")"


def flag(b):
    return "true" if b else "false"


def reduction(kind, x, a, keep):
    if kind in ("any", "all"):
        y = x.to(torch.bool)
        for i in sorted(a, reverse=True):
            y = getattr(torch, kind)(y, dim=i, keepdim=keep)
        return y
    if kind in ("max", "min"):
        return (torch.amax if kind == "max" else torch.amin)(x, dim=a, keepdim=keep) if a else x
    y = wide(x) if x.is_floating_point() else x.to(torch.int64)
    for i in sorted(a, reverse=True):
        y = getattr(torch, kind)(y, dim=i, keepdim=keep)
    return y.to(x.dtype) if x.is_floating_point() else y


def reductions():
    t = Table("reductions")
    for d in ALL:
        x = random((2, 5, 7), d, -1.2, 1.2)
        for kind in ["sum", "prod", "max", "min", "any", "all"]:
            for a, keep in thin(d, [((1,), False), ((0, 2), True), ((2,), False), ((0, 1, 2), False), ((), False)]):
                t.case(f"reduce[kind={kind}, axes={axes(a)}, keep={flag(keep)}]", [x], [reduction(kind, x, a, keep)])
            if kind not in ("max", "min"):
                e = x[:, :0]
                for a in [(1,), (0,)]:
                    t.case(f"reduce[kind={kind}, axes={axes(a)}, keep=false]", [e], [reduction(kind, e, a, False)])
            if d.is_floating_point:
                n = torch.tensor([[1, NAN, 2], [INF, -INF, 1], [INF, 1, 2], [-INF, -INF, -INF], [0.0, -0.0, 0.0]], dtype=d)
                t.case(f"reduce[kind={kind}, axes=(1), keep=false]", [n], [reduction(kind, n, (1,), False)])
        if d in (torch.float32, torch.float64):
            long = random((1031,), d)
            t.case("reduce[kind=sum, axes=(0), keep=false]", [long], [reduction("sum", long, (0,), False)])
            t.case("reduce[kind=max, axes=(0), keep=true]", [long], [reduction("max", long, (0,), True)])

        for kind in ["max", "min"]:
            for axis, keep in [(0, False), (1, True), (2, False)]:
                # The first of equals: not promised by PyTorch.
                y = x.to(torch.int64) if not d.is_floating_point else x
                best = (y.amax if kind == "max" else y.amin)(axis, keepdim=True)
                first = (y == best).to(torch.int64).argmax(axis, keepdim=keep)
                t.case(f"arg_reduce[kind={kind}, axis={axis}, keep={flag(keep)}]", [x], [first])
            if d.is_floating_point:
                n = torch.tensor([[1, NAN, 2, NAN], [INF, 3, INF, 1], [-INF, -INF, -INF, -INF]], dtype=d)
                t.case(f"arg_reduce[kind={kind}, axis=1, keep=false]", [n],
                       [torch.tensor([1, 0 if kind == "max" else 3, 0])])

        for kind, f in [("sum", torch.cumsum), ("prod", torch.cumprod)]:
            for axis, reverse in [(0, False), (1, True), (2, False), (2, True)]:
                y = wide(x) if d.is_floating_point else x.to(torch.int64)
                y = f(y.flip(axis), axis).flip(axis) if reverse else f(y, axis)
                y = y.to(d) if d.is_floating_point else y
                t.case(f"scan[kind={kind}, axis={axis}, reverse={flag(reverse)}]", [x], [y])
            e = x[:, :0]
            y = e if d.is_floating_point else e.to(torch.int64)
            t.case(f"scan[kind={kind}, axis=1, reverse=false]", [e], [y])

        s = random((4, 13), d)
        if d.is_floating_point:
            s[1, 3], s[1, 7], s[2, 0], s[2, 5] = NAN, INF, -INF, NAN
            s[0, 2], s[0, 9] = s[0, 4], s[0, 4]
        for axis in [0, 1]:
            for descending in [False, True]:
                y, i = torch.sort(s, dim=axis, descending=descending, stable=True)
                t.case(f"sort[axis={axis}, descending={flag(descending)}]", [s], [y, i])
        t.case("sort[axis=1, descending=false]", [s[:, :0]], [s[:, :0], torch.zeros(4, 0, dtype=torch.int64)])
        if d != torch.bool:
            p = torch.stack([torch.randperm(13) for _ in range(4)]).to(d)
            for k, axis, largest in [(3, 1, True), (4, 0, False), (0, 1, True), (13, 1, False)]:
                base = p if axis == 1 else torch.randperm(4 * 13).reshape(4, 13).to(d)
                y, i = torch.sort(base, dim=axis, descending=largest, stable=True)
                y, i = y.narrow(axis, 0, k), i.narrow(axis, 0, k)
                t.case(f"topk[k={k}, axis={axis}, largest={flag(largest)}]", [base], [y, i])
        else:
            b = torch.tensor([[True, False]])
            t.case("topk[k=2, axis=1, largest=false]", [b], [b.flip(1), torch.tensor([[1, 0]])])
    t.save()


def layout():
    t = Table("layout")
    for d in ALL:
        x = random((2, 3, 5), d)
        c = random((2, 1, 5), torch.bool)
        a, b = random((3, 1), d), random((2, 3, 5), d)
        t.case("select", [c, a, b], [torch.where(c, a, b)])
        t.case("select", [c[:, :, :1], a, b[0]], [torch.where(c[:, :, :1], a, b[0])])
        t.case("select", [c[:0], a, b[:0]], [b[:0]])
        for shape in [(30,), (5, 6), (1, 2, 1, 15)]:
            t.case(f"reshape[shape={axes(shape)}]", [x], [x.reshape(shape)])
        t.case("reshape[shape=()]", [x[:1, :1, :1]], [x[0, 0, 0]])
        t.case("reshape[shape=(0, 7)]", [x[:0]], [x[:0].reshape(0, 7)])
        t.case("permute[perm=(2, 0, 1)]", [x], [x.permute(2, 0, 1)])
        t.case("permute[perm=()]", [x[0, 0, 0]], [x[0, 0, 0]])
        t.case("broadcast[shape=(4, 2, 3, 5)]", [x[:, :1]], [x[:, :1].expand(4, 2, 3, 5)])
        t.case("broadcast[shape=(0, 5)]", [x[0, 0]], [x[0, :0]])
        t.case("slice[axis=2, step=2, start=1, len=2]", [x], [x[:, :, 1:5:2]])
        t.case("slice[axis=1, step=1, start=3, len=0]", [x], [x[:, :0]])
        y = x.clone()
        y[:, :, 0:5:2] = b[:, :, :3]
        t.case("slice_assign[axis=2, step=2, start=0]", [x, b[:, :, :3]], [y])
        t.case("slice_assign[axis=0, step=1, start=1]", [x, x[:0]], [x])
        t.case("flip[axes=(0, 2)]", [x], [x.flip(0, 2)])
        t.case("flip[axes=()]", [x], [x])
        value, v = {"bool": ("true", 1)}.get(NAMES[d], ("7", 7))
        pad = F.pad(x.to(torch.int64) if not d.is_floating_point else x, (2, 1, 0, 0, 0, 3), value=v).to(d)
        t.case(f"pad[low=(0, 0, 2), high=(3, 0, 1), value={value}]", [x], [pad])
        t.case("concat[axis=1]", [x, b[:, :1], x[:, :0]], [torch.cat([x, b[:, :1]], 1)])
        t.case("concat[axis=0]", [x], [x])

        i = torch.tensor([[[4, 0, 1]], [[2, 2, 0]]])
        t.case("gather[axis=2]", [x, i], [x.gather(2, i)])
        t.case("gather[axis=0]", [x, i[:, :, :0]], [x[:, :1, :0]])
        u = torch.tensor([[[4, 0, 1]], [[2, 3, 0]]])
        v = random((2, 1, 3), d)
        t.case("scatter[axis=2, kind=set]", [x, u, v], [x.scatter(2, u, v)])
        s = torch.tensor([4, 0, 4, 1])
        t.case("index_select[axis=2]", [x, s], [x.index_select(2, s)])
        t.case("index_select[axis=0]", [x, s[:0]], [x[:0]])
        if d != torch.bool:
            w = wide(x)
            t.case("scatter[axis=2, kind=add]", [x, i, v], [w.scatter_add(2, i, wide(v)).to(d)])
            v = random((2, 3, 4), d)
            t.case("index_add[axis=2]", [x, s, v], [w.index_add(2, s, wide(v)).to(d)])
            t.case("index_add[axis=2]", [x, s[:0], v[:, :, :0]], [x])
    for d in COMPLEX[:1]:  # the format has no complex128
        z = torch.randn(2, 3, dtype=d)
        t.case("view_as_real", [z], [torch.view_as_real(z)])
        t.case("view_as_complex", [torch.view_as_real(z)], [z])
        t.case("view_as_real", [z[:0]], [torch.view_as_real(z[:0])])
        t.case("flip[axes=(1)]", [z], [z.flip(1)])
        t.case("concat[axis=1]", [z, z], [torch.cat([z, z], 1)])
        t.case("permute[perm=(1, 0)]", [z], [z.t()])
        for name, f in [("add", torch.add), ("mul", torch.mul), ("div", torch.div), ("pow", torch.pow)]:
            t.case(name, [z, z[:1].flip(1)], [f(z, z[:1].flip(1))])
    t.save()


ACTS = {"none": lambda x: x, "relu": torch.relu, "gelu": F.gelu, "gelu_tanh": gelu_tanh, "silu": F.silu,
        "sigmoid": torch.sigmoid, "tanh": torch.tanh}


def matmul():
    t = Table("matmul")
    shapes = [((5, 1, 2, 3), (4, 3, 6)), ((2, 0), (0, 3)), ((2, 3, 4), (4, 5)), ((13, 17), (17, 11)), ((2, 3), (3, 4)),
              ((1, 7), (7, 1)), ((0, 3), (3, 2)), ((2, 1, 3, 2), (1, 3, 2, 2)), ((9, 40), (40, 33))]
    for d in FLOATS + INTS:
        for sa, sb in thin(d, shapes):
            a, b = random(sa, d), random(sb, d)
            t.case("matmul[act=none]", [a, b], [(wide(a) @ wide(b)).to(d)])
    for d in FLOATS:
        for act, f in thin(d, list(ACTS.items())):
            for sa, sb in [((3, 5), (5, 7)), ((2, 3, 5), (5, 19))]:
                a, b, bias = random(sa, d), random(sb, d), random(sb[1:], d)
                y = wide(a) @ wide(b)
                t.case(f"matmul[act={act}]", [a, b, bias], [f(y + wide(bias)).to(d)])
                t.case(f"matmul[act={act}]", [a, b], [f(y).to(d)])
        for causal in [False, True]:
            q, k, v = random((2, 3, 5, 4), d), random((2, 3, 7, 4), d), random((2, 3, 7, 6), d)
            mask = random((5, 7), d)
            hidden = torch.ones(5, 7, dtype=torch.bool).tril() if causal else torch.ones(5, 7, dtype=torch.bool)
            text = f"attention[scale=0.5, causal={flag(causal)}]"
            for m in [None, mask]:
                s = wide(q) @ wide(k).transpose(-1, -2) * 0.5
                s = s if m is None else s + wide(m)
                y = s.masked_fill(~hidden, -INF).softmax(-1) @ wide(v)
                t.case(text, [q, k, v] + ([] if m is None else [m]), [y.to(d)])
    t.save()


def pair(p):
    return f"({p[0]}, {p[1]})"


def convolution():
    t = Table("convolution")
    # N, C, H, W, O, kernel, stride, padding, dilation, groups
    rows = [
        (2, 3, 6, 7, 4, (3, 3), (1, 1), (0, 0), (1, 1), 1), (1, 4, 7, 5, 6, (3, 2), (2, 1), (1, 1), (1, 1), 2),
        (2, 2, 9, 8, 3, (3, 3), (2, 3), (2, 1), (2, 2), 1), (1, 3, 5, 5, 3, (2, 2), (1, 1), (1, 0), (1, 1), 3),
        (2, 5, 4, 4, 7, (1, 1), (1, 1), (0, 0), (1, 1), 1), (1, 1, 4, 4, 1, (4, 4), (1, 1), (0, 0), (1, 1), 1),
        (0, 2, 4, 4, 2, (3, 3), (1, 1), (1, 1), (1, 1), 1), (1, 2, 5, 9, 2, (5, 1), (3, 2), (3, 0), (1, 1), 1),
        (1, 5, 6, 6, 17, (3, 3), (1, 1), (1, 1), (1, 1), 1),
    ]
    for d in FLOATS:
        for n, c, h, w, o, k, stride, padding, dilation, g in thin(d, rows):
            x, wt, b = random((n, c, h, w), d), random((o, c // g, *k), d, -0.5, 0.5), random((o,), d)
            attrs = f"stride={pair(stride)}, padding={pair(padding)}, dilation={pair(dilation)}, groups={g}"
            run = lambda x, wt, b=None: F.conv2d(x, wt, b, stride, padding, dilation, g)
            xs = [wide(v).requires_grad_() for v in (x, wt)]
            y = run(*xs)
            t.case(f"conv2d[{attrs}, act=none]", [x, wt], [y.to(d)])
            t.case(f"conv2d[{attrs}, act=relu]", [x, wt, b], [run(*xs, wide(b)).relu().to(d)])
            gy = random(tuple(y.shape), d)
            gx, gw = torch.autograd.grad(y, xs, wide(gy))
            t.case(f"conv2d_input_grad[{attrs}, height={h}, width={w}]", [gy, wt], [gx.to(d)])
            t.case(f"conv2d_weight_grad[{attrs}, kernel={pair(k)}]", [x, gy], [gw.to(d)])
        x, wt, b = random((2, 3, 5, 5), d), random((4, 3, 3, 3), d, -0.5, 0.5), random((4,), d)
        attrs = "stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1"
        for act, f in thin(d, list(ACTS.items())):
            y = f(F.conv2d(wide(x), wide(wt), wide(b), 1, 1)).to(d)
            t.case(f"conv2d[{attrs}, act={act}]", [x, wt, b], [y])
    t.save()


def pooling():
    t = Table("pooling")
    # H, W, window, stride, padding, dilation, ceil
    rows = [
        (6, 7, (2, 2), (2, 2), (0, 0), (1, 1), False), (7, 7, (3, 3), (2, 2), (1, 1), (1, 1), False),
        (7, 6, (3, 3), (2, 2), (1, 1), (1, 1), True), (5, 8, (2, 3), (1, 2), (0, 1), (1, 1), True),
        (9, 9, (3, 2), (2, 2), (1, 1), (2, 2), False), (8, 4, (2, 2), (3, 3), (1, 0), (1, 1), False),
        (4, 4, (4, 4), (4, 4), (0, 0), (1, 1), False), (5, 5, (2, 2), (2, 2), (0, 0), (1, 1), True),
    ]
    for d in FLOATS:
        for kind in ["max", "avg", "avg_inside"]:
            for h, w, k, stride, padding, dilation, ceil in thin(d, rows):
                if kind != "max" and dilation != (1, 1):
                    continue
                # Ties, and halves that are exact in every type.
                x = torch.randint(-8, 9, (2, 2, h, w)).to(f64).div(2).to(d)
                if kind == "max" and h == 6:
                    x[0, 0, 1, 1], x[0, 1, 0, 0], x[1, 1] = NAN, INF, -INF
                attrs = (f"kind={kind}, window={pair(k)}, stride={pair(stride)}, padding={pair(padding)}, "
                         f"dilation={pair(dilation)}, ceil={flag(ceil)}")
                v = wide(x).requires_grad_()
                if kind == "max":
                    y = F.max_pool2d(v, k, stride, padding, dilation, ceil)
                else:
                    y = F.avg_pool2d(v, k, stride, padding, ceil, kind == "avg")
                t.case(f"pool2d[{attrs}]", [x], [y.to(d)])
                gy = random(tuple(y.shape), d)
                (gx,) = torch.autograd.grad(y, v, wide(gy))
                t.case(f"pool2d_grad[{attrs}]", [x, gy], [gx.to(d)])
    t.save()


def normalisation():
    t = Table("normalisation")
    for d in FLOATS:
        for log in [False, True]:
            f = F.log_softmax if log else F.softmax
            for shape, axis in thin(d, [((3, 17), 1), ((5, 3), 0), ((2, 3, 4), 1), ((2, 0), 1), ((0, 3), 1), ((1,), 0),
                                        ((2, 70), 1)]):
                x = random(shape, d, -6, 6)
                v = wide(x).requires_grad_()
                y = f(v, axis)
                t.case(f"softmax[axis={axis}, log={flag(log)}]", [x], [y.to(d)])
                gy = random(shape, d)
                result = y.to(d)
                g = wide(gy)
                r = wide(result)
                gx = g - r.exp() * g.sum(axis, True) if log else r * (g - (g * r).sum(axis, True))
                t.case(f"softmax_grad[axis={axis}, log={flag(log)}]", [result, gy], [gx.to(d)])
            n = torch.tensor([[1, INF, 2], [-INF, 0, 1], [NAN, 0, 1], [-INF, -INF, -INF], [300, 299, -300]], dtype=d)
            t.case(f"softmax[axis=1, log={flag(log)}]", [n], [f(wide(n), 1).to(d)])
        for shape, dims, eps in thin(d, [((3, 17), 1, 1e-5), ((2, 3, 4), 2, 1e-5), ((4, 2), 1, 0.5),
                                          ((0, 5), 1, 1e-5), ((2, 100), 1, 1e-12)]):
            x, tail = random(shape, d), shape[len(shape) - dims:]
            w, b = random(tail, d), random(tail, d)
            text = f"[dims={dims}, eps={eps!r}]"
            for affine in [[], [w], [w, b]]:
                v = wide(x).requires_grad_()
                y = F.layer_norm(v, tail, *[wide(a) for a in affine], eps=eps)
                t.case("layer_norm" + text, [x, *affine], [y.to(d)])
                if len(affine) < 2:
                    gy = random(shape, d)
                    (gx,) = torch.autograd.grad(y, v, wide(gy))
                    t.case("layer_norm_grad" + text, [x, gy, *affine], [gx.to(d)])
    t.save()


def make():
    for group in [unary, binary, sources, reductions, layout, matmul, convolution, pooling, normalisation]:
        torch.manual_seed(1)
        group()
