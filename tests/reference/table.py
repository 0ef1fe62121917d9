"""Writing tables of reference cases.

A table is a safetensors file, gzipped. Its metadata holds, under `cases`, one line a case:
what is computed, the names of the operands and those of the results, separated by
tabs. Equal tensors are stored once.
"""

import gzip
import pathlib

import torch
from safetensors.torch import save

HERE = pathlib.Path(__file__).parent
NAMES = {
    torch.bool: "bool", torch.uint8: "u8", torch.int32: "i32", torch.int64: "i64",
    torch.int8: "i8", torch.int16: "i16", torch.uint16: "u16", torch.uint32: "u32", torch.uint64: "u64",
    torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32", torch.float64: "f64",
    torch.complex64: "c64", torch.complex128: "c128",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INTS = [torch.int64, torch.int32, torch.uint8, torch.int8, torch.int16]
COMPLEX = [torch.complex64, torch.complex128]
ALL = FLOATS + INTS + [torch.bool]


class Table:
    def __init__(self, name):
        self.name, self.cases, self.tensors, self.seen = name, [], {}, {}

    def put(self, t):
        t = t.detach().clone(memory_format=torch.contiguous_format)
        data = t.flatten().view(torch.uint8).numpy().tobytes() if t.numel() else b""
        key = (t.dtype, tuple(t.shape), data)
        if key not in self.seen:
            dims = ",".join(map(str, t.shape))
            self.seen[key] = f"{len(self.seen)}:{NAMES[t.dtype]}[{dims}]"
            self.tensors[self.seen[key]] = t
        return self.seen[key]

    def case(self, what, inputs, outputs):
        names = [" ".join(self.put(t) for t in ts) for ts in (inputs, outputs)]
        self.cases.append("\t".join([what, *names]))

    def save(self):
        data = save(self.tensors, {"cases": "\n".join(self.cases)})
        (HERE / f"{self.name}.safetensors.gz").write_bytes(gzip.compress(data, mtime=0))
