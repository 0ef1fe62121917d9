"""Recurrent sequences: the op by its definition, and its derivative by autograd; layers
and cells by PyTorch's own."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ops import flag
from table import FLOATS, Table

f32 = torch.float32


def rand(*shape):
    return torch.rand(shape) * 2 - 1


def sequence(kind, reverse, gates, w, h, extra=None):
    """States, and what is kept beside them."""
    hs, cs, kept = [], [], []
    for t in reversed(range(len(gates))) if reverse else range(len(gates)):
        s = h @ w.T
        if kind == "tanh":
            h = torch.tanh(gates[t] + s)
        elif kind == "relu":
            h = torch.relu(gates[t] + s)
        elif kind == "gru":
            a, b = gates[t].chunk(3, -1), s.chunk(3, -1)
            r, z = torch.sigmoid(a[0] + b[0]), torch.sigmoid(a[1] + b[1])
            q = b[2] if extra is None else b[2] + extra
            n = torch.tanh(a[2] + r * q)
            h = (1 - z) * n + z * h
            kept.append(torch.cat([r, z, n, q], -1))
        else:
            i, f, g, o = (gates[t] + s).chunk(4, -1)
            i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
            extra = f * extra + i * g
            h = o * torch.tanh(extra)
            cs.append(extra)
            kept.append(torch.cat([i, f, g, o], -1))
        hs.append(h)
    return [torch.stack(v[::-1] if reverse else v) for v in (hs, cs, kept) if v]


def the_op(t, kind, d, steps, n, units, reverse=False, keep=False, bias=True):
    wide = {"tanh": 1, "relu": 1, "gru": 3, "lstm": 4}[kind] * units
    xs = [rand(steps, n, wide), rand(wide, units), rand(n, units)]
    if kind == "lstm":
        xs.append(rand(n, units))
    elif kind == "gru" and bias:
        xs.append(rand(units))
    xs = [x.to(d) for x in xs]
    c = torch.float64 if d == torch.float64 else f32
    live = [x.to(c).requires_grad_() for x in xs]
    outs = sequence(kind, reverse, *live)
    gated = kind in ("gru", "lstm")
    results = outs if keep or not gated else outs[:-1]
    what = f"kind={kind}, reverse={flag(reverse)}"
    t.case(f"recurrent[{what}, keep={flag(keep)}]", xs, [y.to(d) for y in results])
    if d not in (f32, torch.float64):
        return
    grads = [rand(*y.shape).to(d) for y in outs]
    by = torch.autograd.grad(outs, live, grads)
    saved = [xs[1], outs[1 if kind == "lstm" else 0], grads[0]]
    if gated:
        saved += [xs[3 if kind == "lstm" else 2], outs[-1], *grads[1:]]
    wanted = [by[0], by[2]]
    if kind == "lstm":
        wanted.append(by[3])
    if kind == "gru":
        # By what the states contribute: the last gate's through the reset gate.
        r, z, nn_, q = outs[-1].detach().chunk(4, -1)
        hidden = by[0].clone()
        hidden[..., 2 * units:] = by[0][..., 2 * units:] * r + grads[-1][..., 3 * units:]
        wanted.insert(1, hidden)
    t.case(f"recurrent_grad[{what}]", [x.detach() for x in saved], wanted)


def ops():
    t = Table("recurrent")
    for kind in ["tanh", "relu", "gru", "lstm"]:
        for d in FLOATS:
            the_op(t, kind, d, 3, 2, 5, keep=True)
        the_op(t, kind, f32, 2, 3, 17, reverse=True)
        the_op(t, kind, f32, 1, 1, 7, keep=True, bias=False)
    t.save()


def layer(t, net, name, x, lengths=None, given=False):
    """Operands: the input, states if given, parameters in their order, gradients of all
    results. Results: all of them, gradients of the input and of the parameters."""
    params = list(net.parameters())
    batch = 1 if x.dim() == 2 else len(x) if net.batch_first else x.shape[1]
    lead = net.num_layers * (2 if net.bidirectional else 1)
    lstm = isinstance(net, nn.LSTM)
    size = net.proj_size or net.hidden_size
    states = []
    if given:
        states = [rand(lead, batch, s) for s in ([size, net.hidden_size] if lstm else [size])]
        states = [s[:, 0] if x.dim() == 2 else s for s in states]
    live = [v.clone().requires_grad_() for v in [x, *states]]
    state = tuple(live[1:]) if lstm else live[1] if given else None
    if lengths is None:
        y, last = net(live[0], *([state] if given else []))
    else:
        packed = pack_padded_sequence(live[0], lengths, net.batch_first, enforce_sorted=False)
        y, last = net(packed, *([state] if given else []))
        y, _ = pad_packed_sequence(y, net.batch_first)
    outs = [y, *(last if lstm else [last])]
    grads = [rand(*o.shape) for o in outs]
    by = torch.autograd.grad(outs, [*live, *params], grads)
    t.case(name, [x, *states, *params, *grads], [*outs, *by])


def cell(t, net, name, x, given=True):
    params = list(net.parameters())
    states = [rand(*x.shape[:-1], net.hidden_size) for _ in range(2 if isinstance(net, nn.LSTMCell) else 1)]
    live = [v.clone().requires_grad_() for v in [x, *states]]
    outs = net(live[0], tuple(live[1:]) if len(states) == 2 else live[1])
    outs = list(outs) if isinstance(outs, tuple) else [outs]
    grads = [rand(*o.shape) for o in outs]
    t.case(name, [x, *states, *params, *grads], [*outs, *torch.autograd.grad(outs, [*live, *params], grads)])


def layers():
    t = Table("recurrent_layers")
    for name, make in [("lstm", nn.LSTM), ("gru", nn.GRU), ("rnn", nn.RNN),
                       ("rnn_relu", lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k))]:
        layer(t, make(3, 5), f"{name}", rand(4, 2, 3))
        layer(t, make(3, 5), f"{name} state", rand(4, 3), given=True)
        layer(t, make(4, 3, 2, batch_first=True, bidirectional=True),
              f"{name} layers=2 first both state", rand(2, 3, 4), given=True)
        layer(t, make(2, 3, bias=False), f"{name} plain", rand(1, 1, 2))
        layer(t, make(3, 4, 2, bidirectional=True), f"{name} layers=2 both state lengths=2,4,1",
              rand(4, 3, 3), lengths=[2, 4, 1], given=True)
        layer(t, make(3, 4, batch_first=True), f"{name} first lengths=3,2", rand(2, 3, 3), lengths=[3, 2])
    layer(t, nn.LSTM(3, 5, 2, proj_size=2, bidirectional=True), "lstm layers=2 both proj=2 state",
          rand(3, 2, 3), given=True)
    cell(t, nn.LSTMCell(3, 5), "lstm_cell", rand(2, 3))
    cell(t, nn.GRUCell(3, 5), "gru_cell", rand(3))
    cell(t, nn.RNNCell(3, 5), "rnn_cell", rand(2, 3))
    t.save()


def make():
    ops()
    layers()
