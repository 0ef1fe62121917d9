"""Writes the conformance tables: PyTorch's own operator tests, with PyTorch's values.

Needs PyTorch 2.15 and expecttest. Goes through `op_db`, the list of operators that
PyTorch tests itself by, and writes for each entry some of its own sample inputs, what
PyTorch computes from them and, in f64, the gradients of a fixed weighted sum of the
results. One file an area; without arguments all of them, else those named:

    python tests/conformance/make.py pointwise fft

A file is gzipped JSON of one line a case and the tensors they name, as a safetensors
file whose metadata holds the lines under `cases`.
"""

import gzip
import itertools
import json
import math
import pathlib
import random
import sys
import warnings

import numpy
import torch
from safetensors.torch import save
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo import core
from torch.utils._pytree import tree_leaves, tree_map

HERE = pathlib.Path(__file__).parent
NAMES = {
    torch.bool: "bool", torch.uint8: "u8", torch.uint16: "u16", torch.uint32: "u32",
    torch.uint64: "u64", torch.int8: "i8", torch.int16: "i16", torch.int32: "i32",
    torch.int64: "i64", torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32",
    torch.float64: "f64", torch.complex64: "c64", torch.complex128: "c128",
    torch.complex32: "c32",
}

# How many of an entry's samples are kept, by type.
KEEP = {
    torch.float32: 10, torch.float64: 5, torch.bfloat16: 2, torch.float16: 1, torch.int64: 3,
    torch.int32: 1, torch.uint8: 1, torch.int8: 1, torch.bool: 2, torch.complex64: 2,
    torch.complex128: 2,
}
# A sample of more elements is not taken, if there is a smaller one.
LARGEST = 300

# Results that are random, or unspecified: only their types and shapes are kept.
RANDOM = {
    "bernoulli", "cauchy", "exponential", "geometric", "log_normal", "normal",
    "normal.in_place", "normal.number_mean", "uniform", "multinomial", "randn", "randn_like",
    "rand_like", "randint", "randint_like", "empty", "empty_like", "empty_permuted",
    "empty_strided", "new_empty", "new_empty_strided", "resize_", "resize_as_",
    "nn.functional.dropout", "nn.functional.dropout2d", "nn.functional.dropout3d",
    "nn.functional.alpha_dropout", "nn.functional.feature_alpha_dropout.with_train",
    "nn.functional.rrelu", "nn.functional.fractional_max_pool2d",
    "nn.functional.fractional_max_pool3d",
}
# Not written: what no value can be given for, or what has no CPU form.
LEFT_OUT = ("jiterator", "torch.ops.aten", "torch._scaled_mm", "sparse.", "to_sparse",
            "bmm.triton", "hash_tensor")


def matrix(diagonal):
    return torch.diag_embed(diagonal)


def leading(u, s, vh):
    """The part of a decomposition that is unique: what its factors multiply to."""
    k = s.shape[-1]
    return (u[..., :, :k] * s.unsqueeze(-2).to(u.dtype)) @ vh[..., :k, :]


def picked(args, kwargs, at, place):
    """What the indices of a search mean."""
    x = args[0].detach()
    dim = args[place] if len(args) > place else kwargs.get("dim", -1)
    if x.ndim == 0:
        return x.clone()
    keep = at.ndim == x.ndim
    found = x.gather(dim, at if keep else at.unsqueeze(dim))
    return found if keep else found.squeeze(dim)


# Factors are unique only up to signs, phases or order: what is compared is made of them
# by these functions, which the entries of the registry repeat.
DERIVED = {
    "svd": lambda o, a, k: (o[1], (o[0][..., :, :o[1].shape[-1]] * o[1].unsqueeze(-2).to(o[0].dtype))
                            @ o[2][..., :, :o[1].shape[-1]].mH),
    "linalg.svd": lambda o, a, k: (o[1], leading(*o)),
    "linalg.eigh": lambda o, a, k: (o[0], (o[1] * o[0].unsqueeze(-2).to(o[1].dtype)) @ o[1].mH),
    "linalg.eig": lambda o, a, k: (((o[1] * o[0].unsqueeze(-2)) @ torch.linalg.inv(o[1])),),
    "linalg.eigvals": lambda o, a, k: (o.sum(-1), (o * o).sum(-1)),
    "linalg.qr": lambda o, a, k: (o[0].abs(), o[1].abs()) if o[0].numel() else (o[1].abs(),),
    # Of equal elements any may be named.
    "topk": lambda o, a, k: (o[0], picked(a, k, o[1], 2)),
    "kthvalue": lambda o, a, k: (o[0], picked(a, k, o[1], 2)),
    "mode": lambda o, a, k: (o[0], picked(a, k, o[1], 1)),
    "median": lambda o, a, k: (o[0], picked(a, k, o[1], 1)) if isinstance(o, tuple) else o,
    "nanmedian": lambda o, a, k: (o[0], picked(a, k, o[1], 1)) if isinstance(o, tuple) else o,
}


def full_name(op):
    return op.name + ("." + op.variant_test_name if op.variant_test_name else "")


def area(op):
    name = full_name(op)
    if name in RANDOM:
        return "random"
    for prefix in ("linalg", "fft", "special", "masked"):
        if name.startswith(prefix + "."):
            return prefix
    if name.startswith("signal.") or name in ("stft", "istft"):
        return "fft"
    if name.startswith(("nn.", "grid_sampler", "_upsample", "native_", "_native", "max_pool2d")):
        return "nn"
    if isinstance(op, (core.UnaryUfuncInfo, core.BinaryUfuncInfo)):
        return "pointwise"
    if isinstance(op, core.ReductionOpInfo):
        return "reduce"
    return "tensor"


class Table:
    def __init__(self):
        self.cases, self.tensors, self.seen = [], {}, {}

    def put(self, t):
        t = t.detach().resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
        name = f"{NAMES[t.dtype]}[{','.join(map(str, t.shape))}]"
        if t.dtype.is_complex:
            t = torch.view_as_real(t).clone()
        data = t.flatten().view(torch.uint8).numpy().tobytes() if t.numel() else b""
        key = (name, data)
        if key not in self.seen:
            self.seen[key] = f"{len(self.seen)}:{name}"
            # As bytes: the name has type and shape, and the tables have to hold types
            # that the file format lacks.
            self.tensors[self.seen[key]] = torch.frombuffer(bytearray(data), dtype=torch.uint8) \
                if data else torch.empty(0, dtype=torch.uint8)
        return self.seen[key]

    def value(self, v):
        """An argument as JSON."""
        if isinstance(v, torch.Tensor):
            if v.layout != torch.strided or v.dtype not in NAMES:
                raise Skip("layout or type")
            return {"tensor": self.put(v)}
        if isinstance(v, torch.dtype):
            if v not in NAMES:
                raise Skip("type")
            return {"dtype": NAMES[v]}
        if v is None or isinstance(v, (bool, str)):
            return v
        if isinstance(v, (int, numpy.integer)):
            return int(v)
        if isinstance(v, (float, numpy.floating)):
            return float(v) if math.isfinite(v) else {"float": str(v)}
        if isinstance(v, complex):
            return {"complex": [str(v.real), str(v.imag)]}
        if isinstance(v, slice):
            return {"slice": [self.value(x) for x in (v.start, v.stop, v.step)]}
        if v is Ellipsis:
            return {"ellipsis": True}
        if isinstance(v, (list, tuple, torch.Size)):
            return [self.value(x) for x in v]
        if isinstance(v, dict):
            return {"dict": {k: self.value(x) for k, x in v.items()}}
        return {"other": getattr(v, "__name__", str(v))}

    def result(self, v, valued):
        if not isinstance(v, torch.Tensor):
            v = torch.tensor(v, dtype=torch.float64 if isinstance(v, float) else None)
        if v.layout != torch.strided or v.dtype not in NAMES:
            raise Skip("layout or type")
        if valued:
            return self.put(v)
        return f"{NAMES[v.dtype]}[{','.join(map(str, v.shape))}]"

    def save(self, name):
        lines = "\n".join(json.dumps(c, separators=(",", ":"), sort_keys=True) for c in self.cases)
        data = save(self.tensors, {"cases": lines})
        (HERE / f"{name}.safetensors.gz").write_bytes(gzip.compress(data, 9, mtime=0))


class Skip(Exception):
    pass


def outputs(out):
    if isinstance(out, torch.Size):
        return [torch.tensor(list(out), dtype=torch.int64)]
    return [o for o in tree_leaves(out) if o is not None]


def weights(t):
    """Small numbers without a pattern that reductions could cancel; exact in every type."""
    k = torch.arange(t.numel(), dtype=torch.int64)
    return (((k * 7 + 3) % 11 - 5).to(torch.float64) / 4).reshape(t.shape)


def weighted(outs):
    total = 0
    for o in outs:
        if o.is_complex():
            total = total + (weights(o) * o.real).sum() + (weights(o).flip(tuple(range(o.ndim))) * o.imag).sum()
        else:
            total = total + (weights(o) * o).sum()
    return total


def numel(*values):
    return sum(t.numel() for t in tree_leaves(values) if isinstance(t, torch.Tensor))


def signature(s):
    def one(v):
        if isinstance(v, torch.Tensor):
            return (v.ndim, v.numel() == 0, str(v.dtype), min(v.shape, default=0) == 1)
        return repr(v)[:40]
    return repr([one(v) for v in tree_leaves((s.input, s.args))]) + repr(sorted(
        (k, str(tree_map(one, v))) for k, v in s.kwargs.items()))


def chosen(samples, n):
    """Varied ones: of each kind of shapes and arguments one, the small ones first."""
    kinds = {}
    for i, s in enumerate(samples):
        kinds.setdefault(signature(s), []).append((numel(s.input, s.args, s.kwargs), i, s))
    best = [min(group, key=lambda g: (abs(g[0] - 20), g[1])) for group in kinds.values()]
    small = [b for b in best if b[0] <= LARGEST] or [min(best, key=lambda b: b[0])]
    # Spread over the list: neighbours resemble each other.
    if len(small) > n:
        step = (len(small) - 1) / max(n - 1, 1)
        small = [small[round(i * step)] for i in range(n)]
    return [b[2] for b in sorted(small, key=lambda b: b[1])]


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.5, 3.75, -7.25, 1e-6, 0.9990234375, 12.0, -31.0,
           88.0, 1e-30, 1e30, math.inf, -math.inf, math.nan]
PAIRS = [0.0, -0.0, 1.0, -1.0, 2.5, -3.0, 0.3125, 1e20, math.inf, -math.inf, math.nan]
INTS = [0, 1, -1, 2, -3, 5, 7, -8, 100]


def extra(op, dtype):
    """Samples beside PyTorch's: no elements, one, infinities and NaN."""
    make = core.SampleInput
    if op.name in ("item", "broadcast_shapes") or full_name(op) in RANDOM:
        return
    signed = INTS if dtype not in (torch.uint8, torch.bool) else [abs(i) % 100 for i in INTS]
    if isinstance(op, core.UnaryUfuncInfo):
        kwargs = op.sample_kwargs("cpu", dtype, torch.zeros(1))[0]
        if op.name in ("byte", "char", "int", "long", "short"):
            # What does not fit the type is whatever the processor makes of it.
            values = torch.tensor([0, 1, 2, 3, 7, 100]).to(dtype)
        elif dtype.is_complex:
            values = torch.tensor([0j, 1 + 0j, -1 + 0j, 1j, -1j, 0.5 - 2j, -3 + 0.25j], dtype=dtype)
        elif dtype.is_floating_point:
            values = torch.tensor(SPECIAL, dtype=dtype)
        else:
            values = torch.tensor(signed).to(dtype)
        yield make(values, kwargs=kwargs)
        if dtype in (torch.float32, torch.int64):
            yield make(values[2:3].reshape(()), kwargs=kwargs)
            yield make(values[:0].reshape(0, 3), kwargs=kwargs)
    elif isinstance(op, core.BinaryUfuncInfo):
        if "polynomial" in op.name and dtype.is_floating_point:
            # The second operand is a degree.
            values = torch.tensor(PAIRS, dtype=dtype)
            yield make(values.reshape(-1, 1), args=(torch.arange(7).to(dtype),))
            return
        if dtype.is_complex:
            values = torch.tensor([1 + 0j, -1 + 0j, 1j, 0.5 - 2j, -3 + 0.25j], dtype=dtype)
        elif dtype.is_floating_point:
            values = torch.tensor(PAIRS, dtype=dtype)
        else:
            values = torch.tensor(signed[1:]).to(dtype)
        mode = {"rounding_mode": op.variant_test_name.split("_")[0]} \
            if op.variant_test_name in ("trunc_rounding", "floor_rounding") else {}
        yield make(values.reshape(-1, 1), args=(values,), kwargs=mode)
        if dtype in (torch.float32, torch.int64):
            yield make(values[:4], args=(values[1].clone(),), kwargs=mode)
            yield make(values[:0].reshape(0, 3), args=(values[:3].reshape(1, 3),), kwargs=mode)
            yield make(values[2].clone(), args=(values[3].clone(),), kwargs=mode)
    elif isinstance(op, core.ReductionOpInfo) and not op.name.startswith("masked"):
        if dtype == torch.float32:
            t = torch.tensor([[1.0, math.nan, 2.0], [math.inf, -1.0, 0.5], [-math.inf, math.inf, 3.0],
                              [-2.5, 0.0, -0.0]])
            yield make(t, kwargs={"dim": 1})
            yield make(t, kwargs={"dim": 0, "keepdim": True})
            yield make(t)
            yield make(torch.empty(0, 3), kwargs={"dim": 0})
            yield make(torch.empty(2, 0), kwargs={"dim": 0})
            yield make(torch.empty(0))
            yield make(torch.tensor(1.5))


def run(op, s):
    return op(s.input, *s.args, **s.kwargs)


def write(table, op, dtype, s, report):
    name = full_name(op)
    grad = dtype in (torch.float64, torch.complex128) and op.supports_autograd and name not in RANDOM
    # Leaves of their own: samples may share or be views.
    def own(v):
        if isinstance(v, torch.Tensor) and v.layout == torch.strided:
            return v.detach().clone().requires_grad_(grad and v.requires_grad)
        return v
    first = s.input
    if name == "as_strided.partial_views":
        # The input is a view; what is written is the memory it is a view of.
        first = torch.empty(0, dtype=dtype).set_(s.input.untyped_storage())
    whole = tree_map(own, (first, list(s.args), dict(sorted(s.kwargs.items()))))
    inputs = [whole[0], *whole[1]], whole[2]
    before = tree_map(lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else v, inputs)
    if name == "__getitem__" and isinstance(before[0][1], list):
        # A list is one index, a tuple is several.
        before = ([before[0][0], (before[0][1],)], before[1])
    case = {"op": name, "dtype": NAMES[dtype],
            "args": [table.value(v) for v in before[0]],
            "kwargs": {k: table.value(v) for k, v in before[1].items()}}
    given = tree_map(lambda v: v * 1 if isinstance(v, torch.Tensor) and v.requires_grad else v, inputs)
    torch.manual_seed(7)
    out = op(*given[0], **given[1])
    if name in DERIVED:
        out = DERIVED[name](out, given[0], given[1])
    outs = outputs(out)
    case["out"] = [table.result(o, name not in RANDOM) for o in outs]
    if name in RANDOM:
        case["random"] = True
    if grad:
        diff = [i for i, o in enumerate(outs) if isinstance(o, torch.Tensor) and o.requires_grad]
        leaves = [t for t in tree_leaves(inputs) if isinstance(t, torch.Tensor)]
        wanted = [i for i, t in enumerate(leaves) if t.requires_grad]
        if diff and wanted:
            try:
                gs = torch.autograd.grad(weighted([outs[i] for i in diff]),
                                         [leaves[i] for i in wanted], allow_unused=True)
                case["diff"] = diff
                # By place among the tensors of the arguments.
                case["grad"] = [[i, table.put(g)] for i, g in zip(wanted, gs) if g is not None]
            except RuntimeError as e:
                report.append(f"{name}: no gradient: {str(e)[:100]}")
    table.cases.append(case)


def entries():
    return [op for op in op_db if not full_name(op).startswith(LEFT_OUT)]


def main():
    assert torch.__version__.startswith("2.15."), torch.__version__
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    tables, report = {}, []
    for op in entries():
        where = area(op)
        if wanted and where not in wanted:
            continue
        table = tables.setdefault(where, Table())
        for dtype, keep in KEEP.items():
            if dtype not in op.supported_dtypes("cpu"):
                continue
            seed = sum(map(ord, full_name(op)))
            torch.manual_seed(seed)
            numpy.random.seed(seed)
            random.seed(seed)
            grad = dtype in (torch.float64, torch.complex128) and op.supports_autograd
            try:
                samples = list(itertools.islice(op.sample_inputs("cpu", dtype, requires_grad=grad), 400))
            except Exception as e:
                report.append(f"{full_name(op)} {dtype}: no samples: {str(e)[:100]}")
                continue
            kept = chosen(samples, keep) if samples else []
            try:
                kept += list(extra(op, dtype))
            except Exception as e:
                report.append(f"{full_name(op)} {dtype}: no extra samples: {e!r}")
            for s in kept:
                try:
                    write(table, op, dtype, s, report)
                except Skip as e:
                    report.append(f"{full_name(op)} {dtype}: {e}")
                except Exception as e:
                    report.append(f"{full_name(op)} {dtype}: {type(e).__name__} {str(e)[:80]}")
    for name, table in tables.items():
        table.save(name)
        size = (HERE / f"{name}.safetensors.gz").stat().st_size
        print(f"{name}: {len(table.cases)} cases, {size // 1024} KiB")
    print("\n".join(report), file=sys.stderr)


if __name__ == "__main__":
    main()
