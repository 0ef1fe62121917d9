"""Reference cases of what is built from ops: functions and layers with their gradients,
models, optimizers, schedules, and type promotion.

A case of functions and layers has the operands and then the gradient of the result; its
results are the result and the gradients of the operands that are floating point.
"""

import math

import torch
import torch.nn.functional as F

from table import ALL, COMPLEX, HERE, NAMES, Table

f32 = torch.float32


def rand(*shape):
    return torch.rand(shape) * 2 - 1


def differentiated(t, name, f, inputs, frozen=0):
    """The last `frozen` operands get no gradient."""
    xs = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs[:len(inputs) - frozen]]
    y = f(*xs, *inputs[len(inputs) - frozen:])
    gy = rand(*y.shape)
    wanted = [x for x in xs if x.requires_grad]
    t.case(name, [*inputs, gy], [y, *torch.autograd.grad(y, wanted, gy)])


def functions():
    t = Table("functions")
    run = lambda *a, **k: differentiated(t, *a, **k)
    run("linear", F.linear, [rand(2, 3, 5), rand(4, 5), rand(4)])
    run("linear", F.linear, [rand(5), rand(4, 5), rand(4)])
    run("linear", F.linear, [rand(3, 5), rand(4, 5)])
    run("conv2d stride 2 padding 1 dilation 1 groups 2", lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, 2),
        [rand(2, 4, 5, 6), rand(6, 2, 3, 3), rand(6)])
    run("max_pool2d 2", lambda x: F.max_pool2d(x, 2), [rand(2, 3, 5, 6)])
    run("avg_pool2d 2", lambda x: F.avg_pool2d(x, 2), [rand(2, 3, 5, 6)])
    run("layer_norm 2", lambda x, w, b: F.layer_norm(x, (3, 4), w, b), [rand(2, 3, 4), rand(3, 4), rand(3, 4)])
    run("embedding", F.embedding, [torch.tensor([[3, 0, 3], [1, 1, 2]]), rand(5, 4)])
    q, k, v = rand(2, 3, 5, 4), rand(2, 3, 6, 4), rand(2, 3, 6, 7)
    sdpa = F.scaled_dot_product_attention
    run("attention", sdpa, [q, k, v])
    run("attention causal", lambda q, k, v: sdpa(q, k, v, is_causal=True), [q, k, v])
    run("attention mask", lambda q, k, v, m: sdpa(q, k, v, m), [q, k, v, rand(5, 6)])
    allowed = torch.rand(5, 6) < 0.7
    allowed[:, 0] = True
    run("attention mask", lambda q, k, v, m: sdpa(q, k, v, m), [q, k, v, allowed], frozen=1)
    for reduction in ["mean", "sum", "none"]:
        c = torch.tensor([4, 0, 2])
        run(f"cross_entropy {reduction}", lambda x, c: F.cross_entropy(x, c, reduction=reduction), [4 * rand(3, 5), c])
        run(f"nll_loss {reduction}", lambda x, c: F.nll_loss(x, c, reduction=reduction), [rand(3, 5), c])
        run(f"mse_loss {reduction}", lambda x, y: F.mse_loss(x, y, reduction=reduction), [rand(3, 5), rand(3, 5)])
        run(f"l1_loss {reduction}", lambda x, y: F.l1_loss(x, y, reduction=reduction), [rand(3, 5), rand(3, 5)])
        run(f"binary_cross_entropy_with_logits {reduction}",
            lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction=reduction), [30 * rand(3, 5), torch.rand(3, 5)],
            frozen=1)
    for name, f in [("gelu", F.gelu), ("silu", F.silu), ("leaky_relu", lambda x: F.leaky_relu(x, 0.1)),
                    ("softmax", lambda x: F.softmax(x, -1)), ("log_softmax", lambda x: F.log_softmax(x, -1)),
                    ("logsumexp", lambda x: torch.logsumexp(x, 1)), ("var", lambda x: x.var(1)),
                    ("std", lambda x: x.std(0, keepdim=True)), ("norm", lambda x: x.norm()),
                    ("cumsum", lambda x: x.cumsum(1)), ("cumprod", lambda x: x.cumprod(0)), ("prod", lambda x: x.prod(1)),
                    ("tril", lambda x: x.tril(-1)), ("triu", lambda x: x.triu(1)), ("clamp", lambda x: x.clamp(-0.5, 0.4)),
                    ("max_dim", lambda x: x.max(1).values), ("amax", lambda x: x.amax(0)), ("sort", lambda x: x.sort(1).values),
                    ("topk", lambda x: x.topk(2, 0).values), ("masked_select", lambda x: x.masked_select(x > 0)),
                    ("pow", lambda x: (x * x) ** 1.7), ("flip", lambda x: x.flip(0, 1)),
                    ("index_select", lambda x: x.index_select(1, torch.tensor([2, 0, 2])))]:
        run(name, f, [rand(4, 5)])

    x, w, b, m, v = rand(4, 3, 2, 5), rand(3), rand(3), rand(3), torch.rand(3) + 0.5
    run("batch_norm eval", lambda x, w, b, m, v: F.batch_norm(x, m, v, w, b), [x, w, b, m, v], frozen=2)
    mean, var = m.clone(), v.clone()
    xs = [a.clone().requires_grad_() for a in (x, w, b)]
    y = F.batch_norm(xs[0], mean, var, xs[1], xs[2], training=True)
    gy = rand(*y.shape)
    t.case("batch_norm train", [x, w, b, m, v, gy], [y, *torch.autograd.grad(y, xs, gy), mean, var])
    t.save()


def model(t, name, net, rename, x):
    """The names of the parameters follow the name of the model."""
    params = dict(net.named_parameters())
    y = net(x)
    loss = (y * y).mean()
    grads = torch.autograd.grad(loss, list(params.values()))
    t.case(" ".join([name, *map(rename, params)]), [x, *params.values()], [y, loss, *grads])


class Block(torch.nn.Module):
    """The layer of PyTorch, with one projection a part."""

    def __init__(self, size, heads, hidden):
        super().__init__()
        linear = torch.nn.Linear
        self.norm1, self.norm2 = torch.nn.LayerNorm(size), torch.nn.LayerNorm(size)
        self.attention = torch.nn.ModuleDict({n: linear(size, size) for n in ["q", "k", "v", "out"]})
        self.fc1, self.fc2, self.heads = linear(size, hidden), linear(hidden, size), heads
        for norm in [self.norm1, self.norm2]:
            torch.nn.init.normal_(norm.weight, 1.0, 0.1)
            torch.nn.init.normal_(norm.bias, 0.0, 0.1)

    def forward(self, x):
        whole = torch.nn.TransformerEncoderLayer(
            x.shape[-1], self.heads, self.fc1.out_features, 0.0, "gelu", batch_first=True, norm_first=True)
        a = self.attention
        state = {"self_attn.in_proj_weight": torch.cat([a[n].weight for n in "qkv"]),
                 "self_attn.in_proj_bias": torch.cat([a[n].bias for n in "qkv"])}
        for ours, theirs in [(a["out"], "self_attn.out_proj"), (self.fc1, "linear1"), (self.fc2, "linear2"),
                             (self.norm1, "norm1"), (self.norm2, "norm2")]:
            state |= {f"{theirs}.weight": ours.weight, f"{theirs}.bias": ours.bias}
        return torch.func.functional_call(whole, state, x)


def models():
    t = Table("models")
    same = lambda n: n
    nn = torch.nn
    model(t, "mlp", nn.Sequential(nn.Linear(7, 11), nn.ReLU(), nn.Linear(11, 5), nn.Tanh(), nn.Linear(5, 3)), same, rand(4, 7))
    cnn = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                        nn.Linear(45, 6), nn.ReLU(), nn.Linear(6, 4), nn.LogSoftmax(-1))
    model(t, "cnn", cnn, same, rand(2, 1, 10, 10))
    model(t, "transformer", Block(8, 2, 12), same, rand(2, 5, 8))
    t.save()


def optimizers():
    t = Table("optimizers")
    o = torch.optim
    rows = {
        "sgd": lambda p: o.SGD(p, 0.1),
        "sgd momentum": lambda p: o.SGD(p, 0.1, momentum=0.9),
        "sgd momentum dampening weight_decay": lambda p: o.SGD(p, 0.1, momentum=0.9, dampening=0.3, weight_decay=0.05),
        "sgd nesterov": lambda p: o.SGD(p, 0.1, momentum=0.9, nesterov=True),
        "sgd maximize": lambda p: o.SGD(p, 0.1, maximize=True),
        "adam": lambda p: o.Adam(p, 0.05),
        "adam weight_decay betas eps": lambda p: o.Adam(p, 0.05, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.05),
        "adamw": lambda p: o.AdamW(p, 0.05),
        "adamw weight_decay": lambda p: o.AdamW(p, 0.05, weight_decay=0.2),
        "adadelta": lambda p: o.Adadelta(p, 1.0),
        "adadelta rho weight_decay": lambda p: o.Adadelta(p, 0.7, rho=0.8, eps=1e-4, weight_decay=0.05),
        "rms_prop": lambda p: o.RMSprop(p, 0.05),
        "rms_prop momentum weight_decay": lambda p: o.RMSprop(p, 0.05, momentum=0.6, weight_decay=0.05),
        "adagrad": lambda p: o.Adagrad(p, 0.1),
        "adagrad lr_decay": lambda p: o.Adagrad(p, 0.1, lr_decay=0.2, weight_decay=0.05),
    }
    for dtype in [torch.float32, torch.float64]:
        start, grads = rand(3, 7).to(dtype), [rand(3, 7).to(dtype) for _ in range(5)]
        for name, make in rows.items():
            p = start.clone().requires_grad_()
            opt = make([p])
            seen = []
            for g in grads:
                p.grad = g.clone()
                opt.step()
                seen.append(p.detach().clone())
            t.case(name, [start, *grads], seen)
    t.save()


def schedules():
    t = Table("schedules")
    s = torch.optim.lr_scheduler
    rows = {
        "step": lambda o: s.StepLR(o, 3, 0.5), "multi_step": lambda o: s.MultiStepLR(o, [2, 5, 7], 0.1),
        "exponential": lambda o: s.ExponentialLR(o, 0.9), "cosine": lambda o: s.CosineAnnealingLR(o, 10, eta_min=0.02),
        "lambda": lambda o: s.LambdaLR(o, lambda n: 1 / (1 + n)),
    }
    for name, make in rows.items():
        opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.2)
        schedule = make(opt)
        seen = []
        for _ in range(10):
            seen.append(opt.param_groups[0]["lr"])
            opt.step()
            schedule.step()
        t.case(name, [], [torch.tensor(seen, dtype=torch.float64)])
    t.save()


def promotion():
    """One line a pair: the types of `a + b` and of `a / b`, for tensors with
    dimensions, tensors without, and plain numbers."""
    lines = []
    shaped = [(f"{NAMES[d]}[2]", torch.ones(2, dtype=d)) for d in ALL + COMPLEX]
    single = [(f"{NAMES[d]}[]", torch.ones((), dtype=d)) for d in ALL + COMPLEX]
    plain = [("bool", True), ("int", 2), ("float", 2.5)]
    for a, x in shaped + single:
        for b, y in shaped + single + plain:
            # There is no complex32 here: complex64 takes its place.
            total = torch.result_type(x, y)
            quotient = total if total.is_floating_point or total.is_complex else torch.float32
            lines.append(f"{a} {b} {NAMES.get(total, 'c64')} {NAMES.get(quotient, 'c64')}")
    (HERE / "promotion.txt").write_text("\n".join(lines) + "\n")


def make():
    for group in [functions, models, optimizers, schedules, promotion]:
        torch.manual_seed(2)
        group()
