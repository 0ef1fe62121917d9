"""Factorisations. Vectors whose sign is free are compared after it has been fixed, by
the tests."""

import torch

from ops import flag, random
from table import Table

f32, f64 = torch.float32, torch.float64


def apart(d, *shape):
    """Random matrices whose singular values are well apart."""
    x = random(shape, f64)
    n = min(shape[-2:])
    x[..., :n, :n] += torch.diag_embed(torch.arange(1, n + 1, dtype=f64) * 1.5)
    return x.to(d)


def linalg():
    t = Table("linalg")
    for d in [f32, f64]:
        for shape in [(1, 1), (4, 4), (2, 3, 5, 5), (0, 0), (0, 3, 3), (17, 17)]:
            x = apart(f64, *shape)
            s = (x @ x.mT / max(shape[-1], 1) + torch.eye(shape[-1], dtype=f64)).to(d)
            t.case("cholesky[]", [s], list(torch.linalg.cholesky_ex(s)))
            h = apart(d, *shape)
            h = (h + h.mT) / 2
            t.case("eigh[]", [h], list(torch.linalg.eigh(h)))
            for upper in [False, True]:
                for unit in [False, True]:
                    a = apart(d, *shape) * (0.1 if unit else 1)
                    for k in [1, 3, 0]:
                        b = random((*shape[:-1], k), d)
                        y = torch.linalg.solve_triangular(
                            a.to(f64), b.to(f64), upper=upper, unitriangular=unit)
                        t.case(f"triangular_solve[upper={flag(upper)}, unit={flag(unit)}]", [a, b], [y.to(d)])
        for shape in [(1, 1), (4, 4), (5, 3), (3, 5), (2, 2, 4, 3), (0, 3), (3, 0), (0, 2, 3), (40, 35)]:
            x = random(shape, d) if shape != (40, 35) else apart(d, *shape)
            t.case("lu[]", [x], list(torch.linalg.lu_factor_ex(x))[:2])
            for full in [False, True] if shape != (40, 35) else []:
                square = full and shape[-1] != shape[-2]
                if square:
                    # The rest of a basis is anybody's choice: of one vector, its sign.
                    if abs(shape[-1] - shape[-2]) > 1:
                        continue
                x = apart(d, *shape)
                if not square or shape[-1] > shape[-2]:
                    t.case(f"qr[full={flag(full)}]", [x],
                           list(torch.linalg.qr(x, "complete" if full else "reduced")))
                if not square:
                    t.case(f"svd[full={flag(full)}]", [x],
                           list(torch.linalg.svd(x, full_matrices=full)))
    t.case("lu[]", [torch.tensor([[1., 2.], [2., 4.]])],
           list(torch.linalg.lu_factor_ex(torch.tensor([[1., 2.], [2., 4.]])))[:2])
    t.save()


def make():
    torch.manual_seed(1)
    linalg()
