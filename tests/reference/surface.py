"""Reference cases of special functions, of running extremes, of scatters that join, and
of views along several axes."""

import mpmath
import torch

from ops import NAN, INF, few, random, wide, flag
from table import FLOATS, INTS, Table

f64 = torch.float64
S = torch.special



def exact(f):
    """PyTorch's own are correct to twelve digits only."""
    return lambda x: torch.tensor([float(f(mpmath.mpf(v))) for v in x.flatten().tolist()], dtype=f64).reshape(x.shape)


# What PyTorch computes in f64, and where: beyond, its own formulas are rough.
UNARY = {
    "erfc": (torch.erfc, -6, 20), "erfinv": (torch.erfinv, -1, 1), "erfcx": (S.erfcx, -20, 60),
    "ndtri": (S.ndtri, 0, 1), "log_ndtr": (S.log_ndtr, -30, 8), "lgamma": (torch.lgamma, 0, 40),
    "digamma": (torch.digamma, 1.6, 40), "i0": (torch.i0, -60, 60), "i0e": (S.i0e, -60, 60), "i1": (S.i1, -60, 60),
    "i1e": (S.i1e, -60, 60), "modified_bessel_k0": (S.modified_bessel_k0, 0, 40),
    "scaled_modified_bessel_k0": (S.scaled_modified_bessel_k0, 0, 40),
    "modified_bessel_k1": (S.modified_bessel_k1, 0, 40),
    "scaled_modified_bessel_k1": (S.scaled_modified_bessel_k1, 0, 40), 
    "bessel_j0": (exact(lambda x: mpmath.besselj(0, x)), -30, 30),
    "bessel_j1": (exact(lambda x: mpmath.besselj(1, x)), -30, 30),
    "bessel_y0": (exact(lambda x: mpmath.bessely(0, x)), 0, 30),
    "bessel_y1": (exact(lambda x: mpmath.bessely(1, x)), 0, 30),
    "exponent": (lambda x: torch.frexp(x)[1].to(f64), -50, 50),
}
# Values at the edges that PyTorch gives otherwise than the functions' limits, or not at all.
EDGES = {"exponent": [0.0, 1.0, -2.0, 0.75], "erfc": [NAN, INF, -INF, 0.0], "erfinv": [NAN, 1.0, -1.0, 0.0, 2.0],
         "erfcx": [INF, 0.0], "ndtri": [NAN, 0.0, 0.5, 1.0, 2.0], "lgamma": [NAN, INF, 0.0, 1.0, 2.0, -1.0],
         "digamma": [0.0, -0.0, -1.0], "i0": [0.0], "i0e": [0.0], "i1": [0.0], "i1e": [0.0]}


def numbers(shape, dtype, low, high):
    x = random(shape, f64, 0.0, 1.0) * (high - low) + low
    return x.to(dtype)


def pointwise(t):
    for name, (f, low, high) in UNARY.items():
        for d in FLOATS:
            x = numbers((37,), d, low + 1e-3 * (low >= 0), high - 1e-3 * (high == 1))
            if name in EDGES:
                x = torch.cat([torch.tensor(EDGES[name], dtype=f64).to(d), x])
            for v in (x, x[-1:], x[:0].reshape(0, 3)):
                t.case(name, [v], [f(wide(v)).to(d)])
    pairs = {
        "fmod": (torch.fmod, FLOATS + INTS), "copysign": (torch.copysign, FLOATS), "hypot": (torch.hypot, FLOATS),
        "nextafter": (torch.nextafter, FLOATS[:2]), "gcd": (torch.gcd, INTS),
    }
    for name, (f, dtypes) in pairs.items():
        for d in dtypes:
            a, b = few(d), few(d)
            if name == "fmod" and not d.is_floating_point:
                a, b = a[a != torch.iinfo(d).min], b[b != 0]
            if name == "gcd":
                a, b = [v[v != torch.iinfo(d).min] for v in (a, b)]
            if name == "hypot":
                a, b = a.nan_to_num(3.0, 4.0, 5.0), b.nan_to_num(3.0, 4.0, 5.0)
            g = f if name == "nextafter" else lambda x, y: f(wide(x), wide(y)).to(d)
            t.case(name, [a.reshape(-1, 1), b], [g(a.reshape(-1, 1), b)])
            t.case(name, [a[:0].reshape(0, 1), b], [torch.empty(0, len(b), dtype=d)])
    for d in FLOATS:
        a, x = numbers((5, 1), d, 0.2, 20), numbers((7,), d, 0.1, 30)
        edges = torch.tensor([0.0, 1.0, 2.0], dtype=d)
        for name, f in [("igamma", torch.igamma), ("igammac", torch.igammac)]:
            t.case(name, [a, x], [f(wide(a), wide(x)).to(d)])
            t.case(name, [edges, edges[1:2]], [f(wide(edges), wide(edges[1:2])).to(d)])
        s = numbers((5, 1), d, 1.5, 12)
        t.case("zeta", [s, x], [S.zeta(wide(s), wide(x)).to(d)])


def along(t):
    for d in FLOATS + INTS + [torch.bool]:
        x = random((2, 5, 7), d)
        if d.is_floating_point:
            x[0, 1, 2], x[1, 3, 3], x[1, 0, 0] = NAN, INF, -INF
        w = x.to(torch.int64) if d == torch.bool else x
        for kind, f in [("max", torch.cummax), ("min", torch.cummin)]:
            for axis in [0, 1, 2]:
                y, i = f(w, axis)
                t.case(f"scan[kind={kind}, axis={axis}, reverse=false]", [x], [y.to(d), i])
            t.case(f"scan[kind={kind}, axis=1, reverse=false]", [x[:, :0]], [x[:, :0], torch.zeros(2, 0, 7).long()])
        if d.is_floating_point:
            for axis, reverse in [(0, False), (1, True), (2, False)]:
                y = wide(x).flip(axis) if reverse else wide(x)
                y = torch.logcumsumexp(y, axis)
                y = y.flip(axis) if reverse else y
                t.case(f"scan[kind=logsumexp, axis={axis}, reverse={flag(reverse)}]", [x], [y.to(d)])
        lines = random((2, 3, 9), d).to(torch.int64 if d == torch.bool else d).sort(-1).values
        values = random((2, 3, 4), d)
        if d.is_floating_point:
            values[0, 0, 0] = NAN
        v = values.to(lines.dtype)
        for right in [False, True]:
            text = f"searchsorted[right={flag(right)}]"
            t.case(text, [lines.to(d), values], [torch.searchsorted(lines, v, right=right)])
            t.case(text, [lines[0, 0].to(d), values], [torch.searchsorted(lines[0, 0].contiguous(), v, right=right)])
            t.case(text, [lines[:, :, :0].to(d), values], [torch.zeros(2, 3, 4).long()])


def views(t):
    for d in FLOATS + INTS + [torch.bool]:
        x = random((3, 4, 5), d)
        for offset, a, b in [(0, 0, 1), (1, 0, 2), (-1, 2, 1), (2, 1, 2), (4, 0, 1)]:
            y = x.diagonal(offset, a, b)
            row, col = max(-offset, 0), max(offset, 0)
            t.case(f"diagonal[axis1={a}, axis2={b}, row={row}, col={col}, len={y.shape[-1]}]", [x], [y])
        for axis, size, step in [(0, 2, 1), (2, 3, 2), (1, 4, 3), (1, 0, 2), (2, 1, 7)]:
            y = x.unfold(axis, size, step)
            t.case(f"unfold[axis={axis}, size={size}, step={step}, count={y.shape[axis]}]", [x], [y])
        for shape, strides, offset in [((3, 4), (7, 5), 2), ((2, 2, 2), (0, 1, 1), 0), ((), (), 59), ((0, 2), (9, 9), 99)]:
            y = x.as_strided(shape, strides, offset) if 0 not in shape else x.flatten()[:0].reshape(shape)
            dims = lambda v: "(" + ", ".join(map(str, v)) + ")"
            t.case(f"as_strided[shape={dims(shape)}, strides={dims(strides)}, offset={offset}]", [x], [y])
        if d != torch.bool:
            i, v = torch.tensor([[[4, 0, 4]], [[2, 2, 0]]]), random((2, 1, 3), d)
            if d.is_floating_point:
                v[0, 0, 0] = NAN
            for kind, name in [("prod", "prod"), ("max", "amax"), ("min", "amin")]:
                y = wide(x).scatter_reduce(2, i, wide(v), name).to(d)
                t.case(f"scatter[axis=2, kind={kind}]", [x, i, v], [y])


def make():
    t = Table("surface")
    pointwise(t)
    along(t)
    views(t)
    t.save()
