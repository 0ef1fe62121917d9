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


def x(*shape, low=-2.0, high=2.0):
    return random(shape, f64, low, high)


def ints(*shape, low=0, high=9):
    return torch.randint(low, high, shape)


def nans(*shape):
    v = x(*shape)
    v.flatten()[1::3] = NAN
    return v


EDGE = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1.0, -2.5, 3.75, 1e300], dtype=f64)
AX = torch.tensor([0, 2, 2, 1])
I3 = torch.tensor([[0, 2, 1], [1, 1, -1]])


def functions(t):
    """Tensor functions, in f64: name, function, operands. `tests/surface.rs` has them by the same names."""
    T = torch
    e = EDGE
    a, b, v = x(3, 4), x(3, 4), x(4)
    pos = x(3, 4, low=0.1, high=3.0)
    cases = [
        # Pointwise.
        ("addcmul", lambda a, b, c: T.addcmul(a, b, c, value=0.5), [a, b, v]),
        ("addcdiv", lambda a, b, c: T.addcdiv(a, b, c, value=0.5), [a, b, pos]),
        ("lerp", lambda a, b, w: T.lerp(a, b, w), [a, b, x(3, 4, low=0, high=1)]),
        ("clamp_tensor", lambda a, l, h: T.clamp(a, l, h), [a, x(4, low=-1, high=0), x(3, 1, low=0, high=1)]),
        ("fmax", T.fmax, [e[:, None], e]), ("fmin", T.fmin, [e[:, None], e]),
        ("fmod", T.fmod, [a * 5, pos]), ("copysign", T.copysign, [a, b]), ("hypot", T.hypot, [a, b]),
        ("div trunc", lambda a, b: T.div(a, b, rounding_mode="trunc"), [ints(3, 4, low=-9), ints(4, low=1)]),
        ("div floor", lambda a, b: T.div(a, b, rounding_mode="floor"), [ints(3, 4, low=-9), ints(4, low=1)]),
        ("frac", T.frac, [a * 3]), ("signbit", T.signbit, [e]), ("logit", T.logit, [x(3, 4, low=0.1, high=0.9)]),
        ("logit eps", lambda a: T.logit(a, 0.2), [x(3, 4, low=0.0, high=1.0)]),
        ("sinc", T.sinc, [T.cat([a.flatten(), e[3:6]])]),
        ("nan_to_num", lambda a: T.nan_to_num(a, 1.5, None, -7.0), [e]),
        ("deg2rad", T.deg2rad, [a]), ("rad2deg", T.rad2deg, [a]),
        ("frexp", lambda a: T.frexp(a), [T.cat([a.flatten() * 1e5, e, T.tensor([5e-324, 1e-310, 1.7e308], dtype=f64)])]),
        ("ldexp", T.ldexp, [a, ints(4, low=-5)]),
        ("round_decimals", lambda a: T.round(a, decimals=2), [a * 30]),
        ("round_decimals negative", lambda a: T.round(a, decimals=-1), [a * 300]),
        ("float_power", T.float_power, [pos, v]),
        ("logaddexp", T.logaddexp, [e[:, None], e]), ("logaddexp smooth", T.logaddexp, [a, b]),
        ("logaddexp2", T.logaddexp2, [a, b]),
        ("xlogy", T.xlogy, [e[:, None], e]), ("xlogy smooth", T.xlogy, [a, pos]),
        ("heaviside", T.heaviside, [e, T.tensor(0.5, dtype=f64)]),
        ("lcm", T.lcm, [ints(3, 4, low=-9), ints(4, low=-9)]), ("gcd", T.gcd, [ints(3, 4, low=-9), ints(4, low=-9)]),
        ("isclose", lambda a, b: T.isclose(a, b, 1e-5, 1e-8, True), [e[:, None], e * (1 + 1e-7)]),
        ("isin", T.isin, [ints(3, 4), ints(2, 2)]), ("isin none", T.isin, [ints(3, 4), ints(0)]),
        ("isposinf", T.isposinf, [e]), ("isneginf", T.isneginf, [e]),
        ("entr", S.entr, [e]), ("entr smooth", S.entr, [pos]), ("xlog1py", S.xlog1py, [a, pos]), ("ndtr", S.ndtr, [a]),
        ("polygamma 2", lambda a: T.polygamma(2, a), [pos]), ("multigammaln 3", lambda a: T.mvlgamma(a, 3), [pos + 1.5]),
        ("spherical_bessel_j0", S.spherical_bessel_j0, [pos]),
        ("igamma", T.igamma, [pos, x(4, low=0.1, high=5)]), ("zeta", S.zeta, [pos + 1.1, x(4, low=0.1, high=5)]),
    ]
    for name in ["chebyshev_polynomial_t", "chebyshev_polynomial_u", "chebyshev_polynomial_v", "chebyshev_polynomial_w",
                 "shifted_chebyshev_polynomial_t", "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v",
                 "shifted_chebyshev_polynomial_w", "hermite_polynomial_h", "hermite_polynomial_he",
                 "laguerre_polynomial_l", "legendre_polynomial_p"]:
        cases.append((name, lambda a, n, f=getattr(S, name): f(a, n), [x(3, 4, low=0.05, high=0.95), T.tensor([0, 1, 4, 5])]))
    gx = T.tensor([0.0, 0.5, 2.0, 3.0], dtype=f64)
    cases += [
        # Reductions and running results.
        ("nansum", lambda a: T.nansum(a, 1), [nans(3, 4)]), ("nanmean", lambda a: T.nanmean(a, 0), [nans(3, 4)]),
        ("nanmean all", T.nanmean, [nans(3, 4)]),
        ("count_nonzero", lambda a: T.count_nonzero(a, 1), [ints(3, 4, high=2)]),
        ("aminmax", lambda a: T.aminmax(a, dim=1), [a]), ("var_mean", lambda a: T.var_mean(a, 1, correction=2), [a]),
        ("std_mean", lambda a: T.std_mean(a), [a]),
        ("norm 3", lambda a: T.linalg.vector_norm(a, 3, 1), [a]), ("norm inf", lambda a: T.linalg.vector_norm(a, INF, 1), [a]),
        ("norm -inf", lambda a: T.linalg.vector_norm(a, -INF, (0, 1)), [a]),
        ("norm 0", lambda a: T.linalg.vector_norm(a, 0, 1), [ints(3, 4, high=2).to(f64)]),
        ("norm 1", lambda a: T.linalg.vector_norm(a, 1, 1, True), [a]), ("norm 0.5", lambda a: T.linalg.vector_norm(a, 0.5, 1), [a]),
        ("dist", lambda a, b: T.dist(a, b, 1.5), [a, b]), ("renorm", lambda a: T.renorm(a, 2, 0, 1.5), [a]),
        ("logsumexp", lambda a: T.logsumexp(a, (0, 2)), [x(2, 3, 4)]),
        ("cummax", lambda a: T.cummax(a, 1), [nans(3, 4)]), ("cummin", lambda a: T.cummin(a, 0), [ints(5, 3, high=3)]),
        ("logcumsumexp", lambda a: T.logcumsumexp(a, 1), [a]), ("diff", lambda a: T.diff(a, 2, 1), [a]),
        ("diff bool", lambda a: T.diff(a), [ints(9, high=2).bool()]),
        ("trapezoid", lambda a: T.trapezoid(a, dx=0.5, dim=0), [a]), ("trapezoid at", lambda a, p: T.trapezoid(a, p, dim=1), [a, gx]),
        ("cumulative_trapezoid", lambda a: T.cumulative_trapezoid(a, dx=0.5, dim=0), [a]),
        ("gradient", lambda a: T.gradient(a, spacing=0.5), [a]),
        ("gradient 2", lambda a: T.gradient(a, spacing=0.5, edge_order=2), [a]),
        ("gradient at", lambda a, p: T.gradient(a, spacing=(p,), dim=1), [a, gx]),
        ("gradient at 2", lambda a, p: T.gradient(a, spacing=(p,), dim=1, edge_order=2), [a, gx]),
        ("cov", T.cov, [a]), ("cov of a vector", T.cov, [v]), ("corrcoef", T.corrcoef, [a]),
        ("cov weighted", lambda a, f, w: T.cov(a, fweights=f, aweights=w), [a, T.tensor([1, 2, 1, 3]), x(4, low=0.1, high=1)]),
        # Order.
        ("msort", T.msort, [a]), ("kthvalue", lambda a: T.kthvalue(a, 2, 1), [a]), ("median", T.median, [a]),
        ("median dim", lambda a: T.median(a, 1), [x(3, 5)]), ("median nan", lambda a: T.median(a, 0).values, [nans(4, 5)]),
        ("nanmedian", lambda a: T.nanmedian(a, 1).values, [nans(3, 5)]), ("nanmedian all", T.nanmedian, [nans(3, 5)]),
        ("mode", lambda a: T.mode(a, 1).values, [ints(4, 7, high=3)]),
        ("searchsorted", lambda a, b: T.searchsorted(a, b), [x(3, 5).sort(1).values, a]),
        ("bucketize", lambda a, b: T.bucketize(a, b, right=True), [a, v.sort().values]),
        ("unique", lambda a: T.unique(a, return_inverse=True, return_counts=True), [ints(3, 4, high=5)]),
        ("unique dim", lambda a: T.unique(a, return_inverse=True, return_counts=True, dim=1), [ints(2, 7, high=2)]),
        ("unique_consecutive", lambda a: T.unique_consecutive(a, return_inverse=True, return_counts=True), [ints(3, 4, high=2)]),
        ("unique_consecutive dim", lambda a: T.unique_consecutive(a, return_inverse=True, return_counts=True, dim=0), [ints(7, 2, high=2)]),
        ("bincount", lambda a: T.bincount(a, minlength=12), [ints(9)]), ("bincount weights", lambda a, w: T.bincount(a, w), [ints(9), x(9)]),
        ("histc", lambda a: T.histc(a, 5, -1.5, 1.5), [x(40)]), ("histc own", lambda a: T.histc(a, 5), [x(40)]),
        ("histogram", lambda a, b: T.histogram(a, b)[0], [x(40), T.tensor([-2.0, -0.5, 0.0, 1.9], dtype=f64)]),
        ("histogramdd", lambda a, b, c, w: T.histogramdd(a, (b, c), weight=w, density=True)[0],
         [x(40, 2), T.tensor([-2.0, -0.5, 1.0], dtype=f64), T.tensor([-1.0, 0.0, 0.5, 1.5], dtype=f64), x(40, low=0, high=1)]),
        ("histogram density", lambda a, w: T.histogram(a, 4, range=(-1.5, 1.75), weight=w, density=True), [x(40), x(40, low=0, high=1)]),
    ]
    q = T.tensor([0.0, 0.3, 0.5, 0.77, 1.0], dtype=f64)
    for how in ["linear", "lower", "higher", "nearest", "midpoint"]:
        cases.append((f"quantile {how}", lambda a, q, how=how: T.quantile(a, q, 1, interpolation=how), [x(3, 6), q]))
    cases += [
        ("quantile keep", lambda a, q: T.quantile(a, q, 0, True), [a, q]), ("quantile one", lambda a, q: T.quantile(a, q), [a, q[1]]),
        ("nanquantile", lambda a, q: T.nanquantile(a, q, 1), [nans(3, 6), q]),
        # Layout.
        ("diagonal", lambda a: T.diagonal(a, 1, 0, 2), [x(3, 4, 5)]), ("diag_embed", lambda a: T.diag_embed(a, -1, 0, 2), [a]),
        ("diag", lambda a: T.diag(a, 1), [a]), ("diagflat", lambda a: T.diagflat(a, -2), [v]), ("trace", T.trace, [a]),
        ("unfold", lambda a: a.unfold(1, 3, 2), [x(2, 8, 2)]),
        ("as_strided", lambda a: a.as_strided((2, 3, 2), (1, 2, 3), 1), [a]),
        ("diagonal_scatter", lambda a, b: T.diagonal_scatter(a, b, 1), [a, x(3)]),
        ("select_scatter", lambda a, b: T.select_scatter(a, b, 1, -2), [a, x(3)]),
        ("slice_scatter", lambda a, b: T.slice_scatter(a, b, 1, 1, None, 2), [a, x(3, 2)]),
        ("as_strided_scatter", lambda a, b: T.as_strided_scatter(a, b, (2, 2), (5, 2), 1), [a, x(2, 2)]),
        ("roll", lambda a: T.roll(a, (1, -2), (0, 1)), [a]), ("roll all", lambda a: T.roll(a, 5), [a]),
        ("rot90", lambda a: T.stack([T.rot90(a, k, (1, 2)) for k in (1, -1, 5)]), [x(2, 3, 3)]),
        ("movedims", lambda a: T.movedim(a, (0, -1), (1, 0)), [x(2, 3, 4)]), ("unflatten", lambda a: T.unflatten(a, 1, (2, -1)), [a]),
        ("tensor_split", lambda a: T.tensor_split(a, 3, 1), [a]), ("tensor_split at", lambda a: T.tensor_split(a, (1, -1), 1), [a]),
        ("sum_to_size", lambda a: a.sum_to_size(3, 1), [x(2, 3, 4)]),
        ("hstack", lambda a, b: T.hstack((a, b)), [a, b]), ("vstack", lambda a, b: T.vstack((a, b)), [v, a]),
        ("dstack", lambda a, b: T.dstack((a, b)), [a, b]), ("column_stack", lambda a, b: T.column_stack((a, b)), [x(3), a]),
        ("block_diag", lambda a, b: T.block_diag(a, b), [a, v]), ("tile", lambda a: T.tile(a, (2,)), [a]),
        ("repeat_interleave", lambda a: T.repeat_interleave(a, 2, 1), [a]),
        ("repeat_interleave each", lambda a, n: T.repeat_interleave(a, n, 1), [a, T.tensor([0, 2, 1, 3])]),
        ("meshgrid", lambda a, b: T.meshgrid(a, b, indexing="xy"), [x(3), v]),
        ("cartesian_prod", lambda a, b: T.cartesian_prod(a, b), [x(3), v]),
        ("combinations", lambda a: T.combinations(a, 3), [x(5)]), ("combinations twice", lambda a: T.combinations(a, 2, True), [v]),
        ("cat promotes", lambda a, b: T.cat((a, b)), [a, ints(2, 4)]),
        # By index.
        ("index", lambda a, i: a[i], [x(3, 4), AX]), ("index two", lambda a, i, j: a[i, j], [x(3, 4), I3, T.tensor([[1], [-1]])]),
        ("index apart", lambda a, i, j: a[i, :, j], [x(3, 2, 4), I3, T.tensor([0, 3, 1])]),
        ("index middle", lambda a, i: a[:, i, 1:3], [x(2, 3, 4), I3]), ("index after", lambda a, i: a[..., 1, i], [x(2, 3, 4), I3]),
        ("index new", lambda a, i: a[None, i, None], [x(3, 4), AX]), ("mask", lambda a, m: a[m], [a, a > 0]),
        ("mask rows", lambda a, m: a[m, 1:], [a, T.tensor([True, False, True])]),
        ("mask last", lambda a, m: a[:, m], [x(2, 3, 4), x(3, 4) > 0]), ("steps", lambda a: a[1::2, ::3], [x(5, 7)]),
        ("index_put", lambda a, i, b: a.index_put((i,), b), [x(3, 4), T.tensor([2, 0]), x(2, 4)]),
        ("index_put accumulate", lambda a, i, b: a.index_put((i,), b, accumulate=True), [x(3, 4), AX, x(4)]),
        ("index_put slices", lambda a, i, b: a.index_put((T.arange(3)[:, None], i), b, accumulate=True), [x(3, 4), T.tensor([3, -4]), x(3, 2)]),
        ("index_copy", lambda a, i, b: a.index_copy(1, i, b), [x(3, 4), T.tensor([3, 0]), x(3, 2)]),
        ("index_fill", lambda a, i: a.index_fill(1, i, 2.5), [x(3, 4), T.tensor([3, 0])]),
        ("take", lambda a, i: a.take(i), [x(3, 4), T.tensor([[0, 11], [-1, 5]])]),
        ("take_along_dim", lambda a, i: T.take_along_dim(a, i, 1), [x(3, 4), T.tensor([[1, 0]])]),
        ("put", lambda a, i, b: a.put(i, b, accumulate=True), [x(3, 4), T.tensor([[0, 11], [0, 5]]), x(2, 2)]),
        ("masked_scatter", lambda a, m, b: a.masked_scatter(m, b), [a, a > 0, x(20)]),
        ("unravel_index", lambda i: T.unravel_index(i, (3, 4)), [T.tensor([0, 11, 7])]),
    ]
    i, w = T.tensor([[0, 2, 0, 1], [1, 1, 0, 0]]), x(2, 4)
    for how in ["sum", "prod", "mean", "amax", "amin"]:
        for include in [True, False]:
            cases.append((f"scatter_reduce {how} {include}",
                          lambda a, i, b, how=how, include=include: a.scatter_reduce(0, i, b, how, include_self=include), [a, i, w]))
    for how in ["prod", "mean", "amax", "amin"]:
        cases.append((f"index_reduce {how}", lambda a, i, b, how=how: a.index_reduce(1, i, b, how), [a, AX, x(3, 4)]))
    cases += [
        # Products.
        ("inner", T.inner, [a, x(2, 4)]), ("addmm", lambda m, a, b: T.addmm(m, a, b, beta=0.5, alpha=2), [x(5), a, x(4, 5)]),
        ("addmv", lambda m, a, b: T.addmv(m, a, b, beta=0, alpha=2), [T.tensor([NAN, 1, 2], dtype=f64), a, v]),
        ("addr", lambda m, a, b: T.addr(m, a, b), [a, x(3), v]),
        ("addbmm", lambda m, a, b: T.addbmm(m, a, b), [x(2, 4), x(5, 2, 3), x(5, 3, 4)]),
        ("baddbmm", lambda m, a, b: T.baddbmm(m, a, b), [x(4), x(5, 2, 3), x(5, 3, 4)]),
        ("tensordot", lambda a, b: T.tensordot(a, b, ((1, 0), (0, 2))), [x(2, 3, 4), x(3, 5, 2)]),
        ("kron", T.kron, [a, x(2, 2, 3)]), ("chain_matmul", lambda a, b, c: a @ b @ c, [a, x(4, 6), x(6, 2)]),
        ("cross", lambda a, b: T.cross(a, b, dim=0), [a, b]), ("vecdot", lambda a, b: T.linalg.vecdot(a, b), [a, b]),
        ("cdist 2", lambda a, b: T.cdist(a, b), [a, x(2, 5, 4)]), ("cdist 1", lambda a, b: T.cdist(a, b, 1.0), [a, x(5, 4)]),
        ("cdist 3", lambda a, b: T.cdist(a, b, 3.0), [a, x(5, 4)]), ("pdist", lambda a: T.pdist(a), [a]),
    ]
    M, m = T.masked, T.tensor([[True, False, True, True], [False, False, True, False], [True] * 4])
    for name in ["sum", "prod", "mean", "amax", "amin", "argmax", "argmin", "cumsum", "cumprod", "logsumexp", "softmax",
                 "log_softmax", "softmin", "median", "var", "std"]:
        f = lambda a, m, f=getattr(M, name): f(a, 1, mask=m)
        # Of what is hidden, PyTorch promises nothing.
        shown = (lambda a, m, f=f: T.where(m, f(a, m), 0)) if "soft" in name or "cum" in name else \
            (lambda a, m, f=f: f(a, m).long()) if "arg" in name else f
        cases.append((f"masked {name}", shown, [a, m]))
    cases += [("masked norm", lambda a, m: M.norm(a, 3, 1, mask=m), [a, m]),
              ("masked normalize", lambda a, m: T.where(m, M.normalize(a, 2, 1, mask=m), 0), [a, m]),
              ("masked logaddexp", lambda a, b, m: M.logaddexp(a, b, input_mask=m, other_mask=T.ones_like(m)), [a, b, m])]
    for spec, shapes in EINSUM:
        cases.append((f"einsum {spec}", lambda *v, spec=spec: T.einsum(spec, *v), [x(*s) for s in shapes]))
    for name, f, inputs in cases:
        y = f(*inputs)
        y = list(y) if isinstance(y, (tuple, list)) else [y]
        t.case(name, inputs, y)


EINSUM = [
    ("i->", [(5,)]), ("ij->ji", [(2, 3)]), ("ij->i", [(2, 3)]), ("ii->i", [(3, 3)]), ("ii", [(3, 3)]), ("iij->j", [(3, 3, 2)]),
    ("i,i", [(4,), (4,)]), ("i,j", [(2,), (3,)]), ("i,i->i", [(4,), (4,)]), ("ij,jk", [(2, 3), (3, 4)]), ("ij,j->i", [(2, 3), (3,)]),
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]), ("...ij,...jk->...ik", [(5, 1, 3, 4), (2, 4, 2)]), ("...ij,...jk", [(2, 3, 4), (4, 2)]),
    ("b...,b...->...", [(3, 2, 4), (3, 2, 4)]), ("i...->...i", [(2, 3, 4)]), ("ij,ij,ij->", [(2, 3), (2, 3), (2, 3)]),
    ("ijk,jl,kl->il", [(2, 3, 4), (3, 5), (4, 5)]), ("ab,bc,cd,de->ae", [(2, 3), (3, 4), (4, 5), (5, 2)]), ("i,ij,j", [(3,), (3, 4), (4,)]),
    ("ba", [(2, 3)]), ("ij,kj->ik", [(1, 3), (4, 3)]), ("ij,ij->ij", [(1, 3), (4, 3)]), ("...", [(2, 3)]), ("ik,jk->", [(2, 3), (4, 3)]),
    ("iji->ij", [(3, 2, 3)]), ("abcd,ca->bd", [(2, 3, 4, 2), (4, 2)]), ("a,b,c,d,e,f,g,h,a->h", [(2,)] * 9), ("i,->i", [(3,), ()]),
    ("  i j , j k -> k i ", [(2, 3), (3, 4)]), ("ij,jk->ik", [(2, 0), (0, 3)]), ("Ab,bA->", [(2, 3), (3, 2)]), ("ij,j->ij", [(2, 3), (1,)]),
]


def make():
    t = Table("surface")
    pointwise(t)
    along(t)
    views(t)
    t.save()
    t = Table("tensors")
    functions(t)
    t.save()
