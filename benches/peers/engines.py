"""A peer's side of the comparison: prepares one thing, then does what it is told.

It takes the orders that benches/src/bin/worker.rs takes, and answers in its form.
"""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np

from timing import interleaved


class Watch:
    """The peak of resident memory since this was made."""

    def __init__(self):
        Path("/proc/self/clear_refs").write_text("5")
        self.before = status("VmRSS:")

    def read(self):
        peak = status("VmHWM:")
        return {"before": self.before, "peak": peak, "growth": max(0, peak - self.before)}


def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(l.split()[1]) for l in lines if l.startswith(key)) * 1024


def torch_with(threads):
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    return torch


def torch_mode(engine):
    if not engine.startswith("torch"):
        return contextlib.nullcontext()
    import torch

    return torch.inference_mode()


def infer_torch(args, compiled):
    """What every one of these gives: a function that runs the model, one that gives its
    output, the seconds that compiling took, and a function that compiles again."""
    torch = torch_with(args.threads)
    import nets

    net, x = nets.build(args.model, args.weights), torch.from_numpy(np.load(args.input))
    if compiled:
        # The first compilation of a process starts the compiler: that is not counted.
        torch.compile(lambda x: (x * 2 + 1).sum(0))(torch.zeros(33, 17))
        net = torch.compile(net)
    start = time.perf_counter()
    net(x)
    seconds = time.perf_counter() - start
    return (lambda: net(x)), (lambda: net(x).numpy()), seconds if compiled else None, None


def infer_onnxruntime(args):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3

    def compile():
        start = time.perf_counter()
        session = ort.InferenceSession(args.onnx, options, providers=["CPUExecutionProvider"])
        return session, time.perf_counter() - start

    session, seconds = compile()
    x = ort.OrtValue.ortvalue_from_numpy(np.load(args.input))
    bound = session.io_binding()
    bound.bind_ortvalue_input(session.get_inputs()[0].name, x)
    out = session.get_outputs()[0]
    y = ort.OrtValue.ortvalue_from_shape_and_type(out.shape, np.float32, "cpu")
    bound.bind_ortvalue_output(out.name, y)

    def run():
        session.run_with_iobinding(bound)

    def output():
        run()
        return y.numpy()

    # The session refers to the input's memory without holding it.
    run.holds = x
    return run, output, seconds, lambda: compile()[1]


def infer_openvino(args):
    import openvino as ov

    core = ov.Core()
    # Without the last of these it computes in bf16 where the processor can.
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": args.threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",
    }

    def compile():
        start = time.perf_counter()
        model = core.compile_model(core.read_model(args.onnx), "CPU", config)
        return model, time.perf_counter() - start

    model, seconds = compile()
    request = model.create_infer_request()
    request.set_input_tensor(ov.Tensor(np.load(args.input)))

    def output():
        request.infer()
        return request.get_output_tensor().data

    return request.infer, output, seconds, lambda: compile()[1]


def infer(args):
    watch = Watch()
    engines = {
        "torch": lambda a: infer_torch(a, compiled=False),
        "torch-compile": lambda a: infer_torch(a, compiled=True),
        "onnxruntime": infer_onnxruntime,
        "openvino": infer_openvino,
    }
    with torch_mode(args.engine):
        run, output, seconds, again = engines[args.engine](args)
        np.save(args.output, output())
        measure = lambda budget: interleaved(budget, [("run", run)])
        serve({"compile": seconds}, watch, measure, again)


def train(args):
    torch = torch_with(args.threads)
    import nets

    net = nets.build(args.model, args.weights).train()
    x, target = (torch.from_numpy(np.load(f)) for f in (args.input, args.target))
    opt = nets.optimizer(args.optimizer, net.parameters())
    step = nets.trainer(args.model, net, opt, x, target)
    watch = Watch()
    serve({}, watch, lambda budget: interleaved(budget, [("step", step)]))


def eager(args):
    torch = torch_with(args.threads)
    a, b, y, m = torch.randn(4), torch.randn(4), torch.ones(4), torch.randn(8, 8)
    ag, bg, zg = (torch.randn(4, requires_grad=True) for _ in range(3))

    def chain(z):
        for _ in range(100):
            z = z * y
        return z

    def forward():
        with torch.no_grad():
            chain(a)

    def backward():
        chain(zg).sum().backward()
        zg.grad = None

    cases = [
        ("add, 4 elements", lambda: a + b),
        ("add, 4 elements, on tape", lambda: ag + bg),
        ("view", lambda: m.view(64)),
        ("transpose", lambda: m.t()),
        ("100 multiplications, forward", forward),
        ("100 multiplications, forward and backward", backward),
    ]
    serve({}, Watch(), lambda budget: interleaved(budget, cases))


def serve(ready, watch, measure, compile=None):
    """Says that it is ready, then obeys until its input ends."""
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        order, _, value = line.strip().partition(" ")
        answer = {
            "measure": lambda: measure(float(value)),
            "compile": lambda: compile(),
            "memory": watch.read,
        }[order]()
        print(json.dumps(answer), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--threads", type=int, default=1)
    what = parser.add_subparsers(dest="what", required=True)
    for name in ("infer", "train"):
        sub = what.add_parser(name)
        for option in ("model", "weights", "onnx", "input"):
            sub.add_argument(f"--{option}", required=option != "onnx")
        for option in {"infer": ["output"], "train": ["target", "optimizer"]}[name]:
            sub.add_argument(f"--{option}", required=True)
    what.add_parser("eager")
    args = parser.parse_args()
    {"infer": infer, "train": train, "eager": eager}[args.what](args)


if __name__ == "__main__":
    main()
