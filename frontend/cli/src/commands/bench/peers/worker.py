"""One engine with one case: prepares it, then does what it is told.

The first line it prints says what preparing took and how far its results are from those
expected, or why it cannot. Then it obeys, a line each: `measure SECONDS`, answered by
milliseconds a call.
"""

import argparse
import contextlib
import gc
import importlib
import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

SAMPLE = 200e-6
PACKAGES = {
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "openvino-bf16": "openvino",
    "torch": "torch",
    "torch-compile": "torch",
    "jax": "jax",
}


class Unfit(Exception):
    """This engine does not run this case."""


def probe():
    """The version of each engine that is installed."""
    from importlib.metadata import version

    found = {e: version(p) for e, p in PACKAGES.items() if find_spec(p)}
    print(json.dumps({"python": sys.version.split()[0], "engines": found}))


def definitions(case, name):
    """The suite's own module of PyTorch models or trainings, beside its cases."""
    for folder in (case.parent, case.parent.parent):
        if (folder / f"{name}.py").exists():
            sys.path.insert(0, str(folder))
            return importlib.import_module(name)
    raise Unfit(f"the suite has no {name}.py")


def arrays(case, what):
    import numpy as np

    meta = json.loads((case / "meta.json").read_text())
    return [np.load(case / f"{what}_{port['name']}.npy") for port in meta[f"{what}s"]]


def onnx(case):
    file = case / "model.onnx"
    if not file.exists():
        raise Unfit("the case has no model.onnx")
    return str(file)


def onnxruntime(case, threads):
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    start = time.perf_counter()
    session = ort.InferenceSession(onnx(case), options, providers=["CPUExecutionProvider"])
    seconds = time.perf_counter() - start
    binding, names = session.io_binding(), [i.name for i in session.get_inputs()]
    given = [ort.OrtValue.ortvalue_from_numpy(x) for x in arrays(case, "input")]
    for name, value in zip(names, given):
        binding.bind_ortvalue_input(name, value)
    wanted = arrays(case, "output")
    results = [ort.OrtValue.ortvalue_from_shape_and_type(list(y.shape), np.float32, "cpu")
               for y in wanted]
    for port, value in zip(session.get_outputs(), results):
        binding.bind_ortvalue_output(port.name, value)

    def run(keep=given):
        session.run_with_iobinding(binding)

    return run, lambda: [r.numpy() for r in results], seconds


def openvino(case, threads, precision):
    import openvino as ov

    core = ov.Core()
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": precision,
    }
    start = time.perf_counter()
    model = core.compile_model(core.read_model(onnx(case)), "CPU", config)
    seconds = time.perf_counter() - start
    request = model.create_infer_request()
    for i, x in enumerate(arrays(case, "input")):
        request.set_input_tensor(i, ov.Tensor(x))
    outputs = range(len(model.outputs))
    return request.infer, lambda: [request.get_output_tensor(i).data for i in outputs], seconds


def flat(results):
    results = results if isinstance(results, (tuple, list)) else (results,)
    return [r.detach().numpy() for r in results]


def torch_with(threads):
    import torch

    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    return torch


def torch(case, threads, compiled):
    torch = torch_with(threads)
    model = definitions(case, "models_torch").build(case.name)
    inputs, seconds = [torch.from_numpy(x) for x in arrays(case, "input")], None
    if compiled:
        # The first compilation of a process starts the compiler: that is not counted.
        torch.compile(lambda x: (x * 2 + 1).sum(0))(torch.zeros(33, 17))
        model = torch.compile(model)
        start = time.perf_counter()
        model(*inputs)
        seconds = time.perf_counter() - start
    return lambda: model(*inputs), lambda: flat(model(*inputs)), seconds


def training(case, threads, compiled):
    torch = torch_with(threads)
    specs, task = definitions(case, "train_specs"), case.name.removeprefix("train_")
    net = specs.torch_net(task)
    x, y = (torch.from_numpy(v) for v in specs.data(task))
    fused = {} if specs.TASKS[task]["opt"] == "adadelta" else {"fused": True}
    optimizer, loss = specs.torch_opt(task, net.parameters(), **fused), specs.torch_loss(task, net)
    if compiled:
        loss = torch.compile(loss)

    def step():
        optimizer.zero_grad(set_to_none=True)
        value = loss(x, y)
        value.backward()
        optimizer.step()
        return value

    start = time.perf_counter()
    off = losses_off(case, lambda: step().item())
    seconds = time.perf_counter() - start if compiled else None
    return step, off, seconds


def jax_with(threads):
    # It has as many threads as the process may use processors.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return jax


def jax_array(jax, x):
    import numpy as np

    # Without its 64-bit mode, which would make everything wider.
    return jax.numpy.asarray(x.astype(np.int32) if x.dtype == np.int64 else x)


def jax(case, threads):
    jax = jax_with(threads)
    parameters, function = definitions(case, "jaxmodels").get(case.name)
    inputs = [jax_array(jax, x) for x in arrays(case, "input")]
    start = time.perf_counter()
    compiled = jax.jit(function).lower(parameters, *inputs).compile()
    seconds = time.perf_counter() - start

    def run():
        return jax.block_until_ready(compiled(parameters, *inputs))

    def results():
        found = run()
        return [jax.device_get(y) for y in (found if isinstance(found, tuple) else (found,))]

    return run, results, seconds


def jax_step(jax, loss, spec):
    """A step of training: (parameters, state, key, x, y) to the first three and the loss."""
    import jax.numpy as jnp

    rate, method, each = spec["lr"], spec["opt"], jax.tree_util.tree_map
    decay = 0.01 if method == "adamw" else 0.0

    def sgd(p, g, state):
        return each(lambda p, g: p - rate * g, p, g), state

    def adadelta(p, g, state):
        mean = each(lambda m, g: 0.9 * m + 0.1 * g * g, state["g"], g)
        move = each(lambda m, d, g: jnp.sqrt((d + 1e-6) / (m + 1e-6)) * g, mean, state["d"], g)
        moved = each(lambda d, u: 0.9 * d + 0.1 * u * u, state["d"], move)
        return each(lambda p, u: p - rate * u, p, move), {"g": mean, "d": moved}

    def adam(p, g, state):
        t = state["t"] + 1
        m = each(lambda m, g: 0.9 * m + 0.1 * g, state["m"], g)
        v = each(lambda v, g: 0.999 * v + 0.001 * g * g, state["v"], g)
        first, second = 1 - 0.9**t, 1 - 0.999**t

        def moved(p, m, v):
            return p * (1 - rate * decay) - rate * (m / first) / (jnp.sqrt(v / second) + 1e-8)

        return each(moved, p, m, v), {"m": m, "v": v, "t": t}

    update = {"sgd": sgd, "adadelta": adadelta, "adam": adam, "adamw": adam}[method]

    def step(p, state, key, x, y):
        key, now = jax.random.split(key)
        value, g = jax.value_and_grad(loss)(p, x, y, now)
        p, state = update(p, g, state)
        return p, state, key, value

    return step


def jax_training(case, threads):
    jax = jax_with(threads)
    import jax.numpy as jnp
    from safetensors.numpy import load_file

    models, specs = definitions(case, "jaxmodels"), definitions(case, "train_specs")
    task = case.name.removeprefix("train_")
    spec = specs.TASKS[task]
    x, y = (jax_array(jax, v) for v in specs.data(task))
    weights = models.prep(load_file(str(case / "weights.safetensors")))
    weights = {name: jnp.asarray(w) for name, w in weights.items()}
    scores = {
        "mnist": lambda p, x, key: models.mnist_cnn(p, x, key if spec["drop"] else None),
        "mlp": lambda p, x, key: models.mlp(p, x),
        "enc": lambda p, x, key: models.lin(p, "head", models.encoder(p, x, 4, 4, "enc.")),
        "lstm": lambda p, x, key: models.lin(p, "head", models.lstm(p, x)[0][:, -1]),
    }[spec["net"]]

    def loss(p, x, y, key):
        chances = jax.nn.log_softmax(scores(p, x, key), -1)
        return -jnp.take_along_axis(chances, y[..., None], -1).mean()

    zeros = jax.tree_util.tree_map(jnp.zeros_like, weights)
    names = {"adadelta": "gd", "adam": "mv", "adamw": "mv"}.get(spec["opt"], "")
    state = {name: jax.tree_util.tree_map(jnp.copy, zeros) for name in names}
    if "m" in state:
        state["t"] = jnp.zeros((), jnp.float32)
    held = [weights, state, jax.random.PRNGKey(0)]
    start = time.perf_counter()
    step = jax.jit(jax_step(jax, loss, spec), donate_argnums=(0, 1, 2))
    step = step.lower(*held, x, y).compile()
    seconds = time.perf_counter() - start

    def run():
        *held[:], value = step(*held, x, y)
        return jax.block_until_ready(value)

    return run, losses_off(case, lambda: float(run())), seconds


def losses_off(case, step):
    """How far the losses of the first steps are from those expected."""
    wanted = json.loads((case / "meta.json").read_text()).get("losses_f64", [])
    got = [step() for _ in range(max(1, len(wanted)))]
    errors = [abs(g - w) / max(1.0, abs(w)) for g, w in zip(got, wanted)]
    return max(errors, default=None)


def error(got, wanted):
    """The largest difference, of the largest number of its output."""
    import numpy as np

    worst = 0.0
    for g, w in zip(got, wanted, strict=True):
        if g.shape != w.shape or not np.isfinite(g).all():
            return float("inf")
        if w.size:
            scale = float(np.abs(w).max()) or 1.0
            worst = max(worst, float(np.abs(g.astype(np.float64) - w).max()) / scale)
    return worst


def prepare(engine, case, threads):
    """A function to measure, how far its results are from those expected, and the seconds
    that compiling took."""
    compiled = engine == "torch-compile"
    if case.name.startswith("train_"):
        if engine == "jax":
            return jax_training(case, threads)
        if not engine.startswith("torch"):
            raise Unfit("it does not train")
        return training(case, threads, compiled)
    if engine.startswith("torch"):
        run, results, seconds = torch(case, threads, compiled)
    elif engine == "jax":
        run, results, seconds = jax(case, threads)
    elif engine == "onnxruntime":
        run, results, seconds = onnxruntime(case, threads)
    else:
        precision = "bf16" if engine == "openvino-bf16" else "f32"
        run, results, seconds = openvino(case, threads, precision)
    run()
    return run, error(results(), arrays(case, "output")), seconds


def calls_in_a_sample(run):
    calls = 1
    while calls < 1 << 24:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        took = time.perf_counter() - start
        if took >= SAMPLE / 2:
            return max(1, -int(-SAMPLE * calls // took))
        calls *= 2
    return calls


def measure(run, calls, budget):
    """As sinter-benches measures: a sample is as many calls as take 200 microseconds."""
    wall, cpu, end = [], [], time.perf_counter() + budget
    gc.disable()
    while len(wall) < 5 or time.perf_counter() < end:
        before, start = time.process_time_ns(), time.perf_counter()
        for _ in range(calls):
            run()
        wall.append((time.perf_counter() - start) * 1e3 / calls)
        cpu.append((time.process_time_ns() - before) / 1e6 / calls)
    gc.enable()
    wall.sort()
    return {"min": wall[0], "median": wall[(len(wall) - 1) // 2], "cpu": sum(cpu) / len(cpu)}


def without_gradients(engine, case):
    if not engine.startswith("torch") or case.name.startswith("train_"):
        return contextlib.nullcontext()
    import torch

    return torch.inference_mode()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--engine", choices=PACKAGES)
    parser.add_argument("--case", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if args.probe:
        return probe()
    # What libraries print is no answer.
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(value):
        print(json.dumps(value), file=answers, flush=True)

    with without_gradients(args.engine, args.case):
        try:
            run, off, seconds = prepare(args.engine, args.case.resolve(), args.threads)
        except Unfit as e:
            return answer({"unfit": str(e)})
        except Exception as e:  # Whatever a library raises: the engine fails, not the comparison.
            return answer({"failed": f"{type(e).__name__}: {e}".splitlines()[0]})
        run()
        calls = calls_in_a_sample(run)
        answer({"compile_ms": None if seconds is None else seconds * 1e3, "max_error": off})
        for line in sys.stdin:
            answer(measure(run, calls, float(line.split()[1])))


if __name__ == "__main__":
    main()
