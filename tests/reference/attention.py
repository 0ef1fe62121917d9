"""Derivatives of attention, by autograd."""

import torch

from ops import flag
from table import FLOATS, Table


def rand(*shape):
    return torch.rand(shape) * 2 - 1


def make():
    t = Table("attention")
    for d in FLOATS:
        c = torch.float64 if d == torch.float64 else torch.float32
        for causal, masked in [(False, False), (True, False), (False, True), (True, True)]:
            q, k, v = rand(2, 3, 5, 4), rand(2, 3, 7, 4), rand(2, 3, 7, 6)
            gy, mask = rand(2, 3, 5, 6), rand(5, 7)
            xs = [x.to(d) for x in ([q, k, v, gy, mask] if masked else [q, k, v, gy])]
            live = [x.to(c).requires_grad_() for x in xs[:3]]
            s = live[0] @ live[1].transpose(-1, -2) * 0.5
            if masked:
                s = s + xs[4].to(c)
            if causal:
                s = s.masked_fill(~torch.ones(5, 7, dtype=torch.bool).tril(), -float("inf"))
            y = s.softmax(-1) @ live[2]
            by = torch.autograd.grad(y, live, xs[3].to(c))
            what = f"attention_grad[scale=0.5, causal={flag(causal)}]"
            t.case(what, xs, [g.to(d) for g in by])
    t.save()
