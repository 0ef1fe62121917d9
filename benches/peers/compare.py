"""Measures Sinter beside what people would use instead.

Each engine runs in a process of its own; in each round every engine has its turn.
Before anything is timed, outputs and losses are compared with PyTorch's in f64: a
mismatch is an error. README.md says more.
"""

import argparse
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import report
from workers import ENGINES, HERE, Failed, Neighbours, Worker, environment, missing

ROOT = HERE.parent.parent
SECTIONS = ["infer", "train", "eager", "start", "compile"]
TRAININGS = [("mnist_cnn", "sgd"), ("mnist_cnn", "adadelta"), ("mlp", "adam")]
TRAINING_BATCH = 64
# Largest difference from PyTorch in f64 over the largest value.
OUTPUT_TOLERANCE = 1e-5
LOSS_TOLERANCE = 1e-3


def arguments():
    def names(choices):
        def parse(text):
            for name in (given := text.split(",")):
                if name not in choices:
                    raise argparse.ArgumentTypeError(f"`{name}` is none of {', '.join(choices)}")
            return given

        return parse

    def numbers(text):
        return [int(n) for n in text.split(",")]

    p = argparse.ArgumentParser(prog="benches/peers/run", description=__doc__)
    p.add_argument("--only", type=names(SECTIONS), default=SECTIONS, metavar="SECTION,...",
                   help=f"what to measure, of {', '.join(SECTIONS)}")
    p.add_argument("--models", type=names(["mlp", "mnist_cnn"]), default=["mlp", "mnist_cnn"],
                   metavar="MODEL,...", help="of mlp, mnist_cnn")
    p.add_argument("--batches", type=numbers, default=[1, 64], metavar="N,...",
                   help="batch sizes of inference (1,64)")
    p.add_argument("--threads", type=numbers, default=[1, 2], metavar="N,...",
                   help="numbers of threads (1,2)")
    p.add_argument("--engines", type=names(list(ENGINES)), default=list(ENGINES),
                   metavar="ENGINE,...", help=f"of {', '.join(ENGINES)}")
    p.add_argument("--rounds", type=int, default=7, help="rounds (7; at least 5)")
    p.add_argument("--budget", type=float, default=1.5, metavar="SECONDS",
                   help="measuring time of an engine in a case, all rounds together (1.5)")
    p.add_argument("--json", type=Path, metavar="FILE", help="writes everything measured here")
    p.add_argument("--markdown", type=Path, metavar="FILE", help="writes the tables here")
    p.add_argument("--data", type=Path, default=ROOT / "out/peers", metavar="DIR",
                   help="weights, inputs and expected outputs, made when missing (out/peers)")
    p.add_argument("--bin", type=Path, metavar="DIR",
                   help="has `worker` and the shipped `sinter-run`; otherwise they are built")
    args = p.parse_args()
    if args.rounds < 5:
        p.error("fewer than 5 rounds cannot tell a difference from noise")
    return args


def build():
    """Builds the programs that are measured; gives their paths."""
    for options in (["--release", "--workspace"], ["--profile", "ship", "-p", "sinter-run"]):
        subprocess.run(["cargo", "build", *options], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release/worker", target / "ship/sinter-run"


class Progress:
    """One line on a terminal, a line for each case elsewhere."""

    def __init__(self, total):
        self.total, self.done, self.start, self.last = total, 0, time.monotonic(), None

    def step(self, case, doing):
        self.done += 1
        minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
        head = f"[{min(99, 100 * self.done // self.total):2d} %] {minutes}:{seconds:02d} {case}"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{head}: {doing}", end="", file=sys.stderr, flush=True)
        elif case != self.last:
            print(head, file=sys.stderr, flush=True)
        self.last = case

    def end(self):
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Comparison:
    def __init__(self, args, engines, worker, runner, scratch):
        self.args, self.engines, self.worker, self.runner = args, engines, worker, runner
        self.scratch, self.cases, self.neighbours = scratch, [], Neighbours()

    def of(self, *engines):
        return [e for e in engines if e in self.engines]

    def path(self, model, batch, what):
        return self.args.data / f"{model}_b{batch}{what}"

    def model(self, model, batch):
        """The options of workers that name a model, its weights and its input."""
        return ["--model", model, "--weights", self.args.data / f"{model}.safetensors",
                "--input", self.path(model, batch, "_input.npy")]

    def run(self):
        """Does all that was asked for, job by job: what to call, and how many turns it takes."""
        args, jobs = self.args, []
        asked = set(args.only)
        few = self.of("sinter", "torch")
        for threads in args.threads if asked & {"infer", "compile"} else []:
            for model in args.models:
                for batch in args.batches:
                    jobs.append((self.infer, (model, batch, threads), self.engines))
        for threads in args.threads if "train" in asked else []:
            for model, method in TRAININGS:
                if model in args.models:
                    jobs.append((self.train, (model, method, threads), few))
        if "eager" in asked:
            jobs.append((self.measure, ("eager", {}, {e: ["eager"] for e in few}, 1), few))
        if "start" in asked and "mlp" in args.models:
            engines = self.of("sinter", "onnxruntime", "torch")
            jobs.append((self.start, (engines,), engines))
        turns = sum(len(engines) for _, _, engines in jobs) * (1 + args.rounds)
        self.progress = Progress(max(1, turns))
        for job, parameters, _ in jobs:
            job(*parameters)
        self.progress.end()

    def infer(self, model, batch, threads):
        what, outputs = {}, {}
        for engine in self.engines:
            outputs[engine] = self.scratch / f"{engine}.npy"
            what[engine] = ["infer", *self.model(model, batch), "--output", outputs[engine]]
            if engine == "sinter-eager":
                what[engine] += ["--eager"]
            elif engine != "sinter":
                what[engine] += ["--onnx", self.path(model, batch, ".onnx")]

        def check(engine):
            self.same(f"{engine}, {model}, batch {batch}", outputs[engine],
                      self.path(model, batch, "_output.npy"))

        key = {"model": model, "batch": batch, "threads": threads}
        self.measure("infer", key, what, threads, check)

    def same(self, who, got, want):
        got, want = np.load(got), np.load(want)
        if got.shape != want.shape:
            sys.exit(f"error: {who}: shape {got.shape}, PyTorch's is {want.shape}")
        error = np.abs(got - want).max() / np.abs(want).max()
        if not error <= OUTPUT_TOLERANCE:
            sys.exit(f"error: {who}: outputs differ from PyTorch's by {error:.1e} of the largest")

    def train(self, model, method, threads):
        batch = TRAINING_BATCH
        what = ["train", *self.model(model, batch), "--optimizer", method,
                "--target", self.path(model, batch, "_target.npy")]
        want = json.loads(self.path(model, batch, f"_{method}_losses.json").read_text())
        if "sinter" in self.engines:
            worker = Worker("sinter", self.worker, threads, [*what, "--losses", len(want)],
                            self.scratch)
            got = worker.ready["losses"]
            worker.end()
            error = max(abs(g - w) / abs(w) for g, w in zip(got, want))
            if not error <= LOSS_TOLERANCE:
                sys.exit(f"error: {model} with {method}: losses {got}, PyTorch's {want}")
        key = {"model": model, "method": method, "batch": batch, "threads": threads}
        self.measure("train", key, {e: what for e in self.of("sinter", "torch")}, threads)

    def measure(self, section, key, what, threads, check=None):
        """Prepares every engine, then gives each its turn in every round."""
        label = " ".join([section, *(str(v) for v in key.values())])
        workers, results = {}, {}
        try:
            for engine, options in what.items():
                self.progress.step(label, f"{engine} prepares")
                try:
                    workers[engine] = Worker(engine, self.worker, threads, options, self.scratch)
                except Failed as why:
                    print(f"\n{engine} fails on {label}: {why}", file=sys.stderr)
                    continue
                if check:
                    check(engine)
                first = workers[engine].ready.get("compile")
                results[engine] = {"rounds": [], "compile": [] if first is None else [first]}
            for _ in range(self.args.rounds):
                for engine, worker in workers.items():
                    self.progress.step(label, engine)
                    turn = self.args.budget / self.args.rounds
                    with self.neighbours.beside(worker):
                        results[engine]["rounds"].append(worker.order(f"measure {turn}"))
            for engine, worker in workers.items():
                results[engine]["memory"] = worker.order("memory")
            if "compile" in self.args.only and threads == self.args.threads[0]:
                self.compile_again(workers, results)
        finally:
            for worker in workers.values():
                worker.end()
        self.cases.append({"section": section, **key, "engines": results})

    def compile_again(self, workers, results):
        # A compilation by torch.compile takes seconds: its first has to do.
        again = [e for e in workers if results[e]["compile"] and e != "torch-compile"]
        for _ in range(self.args.rounds - 1):
            for engine in again:
                results[engine]["compile"].append(workers[engine].order("compile"))

    def start(self, engines):
        """Fresh processes from their start to the first output of the MLP."""
        model, batch = "mlp", 1
        artifact, output = self.scratch / "mlp.sinter", self.scratch / "start.npy"
        source, want = (self.path(model, batch, f"_{f}.npy") for f in ("input", "output"))
        Worker("sinter", self.worker, 1, ["infer", *self.model(model, batch), "--output", output,
               "--artifact", artifact], self.scratch).end()
        files = [self.args.data / "mlp.safetensors", self.path(model, batch, ".onnx")]
        commands = {
            "sinter": [self.runner, artifact, source, "-o", output, "-t", 1, "--time"],
            **{e: [sys.executable, "-B", HERE / "startup.py", e, model, *files, source, output]
               for e in ("onnxruntime", "torch")},
        }
        results = {e: {"rounds": []} for e in engines}
        # The first round brings the files into memory.
        for i in range(self.args.rounds + 1):
            for engine in engines:
                self.progress.step("start mlp", engine)
                output.unlink(missing_ok=True)
                began = time.monotonic()
                done = subprocess.run(
                    [str(part) for part in commands[engine]],
                    capture_output=True, text=True, env=environment(1, self.scratch))
                ended = time.monotonic()
                if done.returncode:
                    sys.exit(f"error: {engine} does not start: {done.stderr.strip()}")
                if engine == "sinter":
                    # Until it has ended: later than the output, so never in our favour.
                    line = next(l for l in done.stdout.splitlines() if l.startswith("peak"))
                    said = {"done": ended, "peak": int(line.split()[1])}
                else:
                    said = json.loads(done.stdout.splitlines()[-1])
                self.same(f"{engine}, fresh", output, want)
                if i > 0:
                    seconds = said["done"] - began
                    results[engine]["rounds"].append({"seconds": seconds, "peak": said["peak"]})
        self.cases.append({"section": "start", "engines": results, "model": model, "sizes": {
            "sinter-run": self.runner.stat().st_size, "artifact": artifact.stat().st_size}})


def system():
    """What was measured, on what."""
    from importlib.metadata import version

    cpu = next((l.split(":")[1].strip() for l in Path("/proc/cpuinfo").read_text().splitlines()
                if l.startswith("model name")), "unknown")
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT,
                         capture_output=True, text=True)
    names = ["torch", "onnxruntime", "openvino"]
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": f"{cpu}, {len(os.sched_getaffinity(0))} processors",
        "versions": {"sinter": git.stdout.strip() or "unknown",
                     **{n: version(n) for n in names if not missing([n])}},
    }


def main():
    args = arguments()
    # Workers and scratch files are cleared away then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: terminated"))
    absent = missing(args.engines)
    for engine in absent:
        print(f"{engine} is not installed: left out", file=sys.stderr)
    engines = [e for e in args.engines if e not in absent]
    about = system()
    worker, runner = (args.bin / "worker", args.bin / "sinter-run") if args.bin else build()
    args.data.mkdir(parents=True, exist_ok=True)
    batches = sorted({*args.batches, TRAINING_BATCH, 1})
    methods = [(m, o, TRAINING_BATCH) for m, o in TRAININGS if m in args.models]
    import nets

    nets.prepare(args.data, args.models, batches, methods)
    scratch = Path(tempfile.mkdtemp(dir=args.data))
    try:
        comparison = Comparison(args, engines, worker, runner, scratch)
        comparison.run()
    finally:
        shutil.rmtree(scratch)
    about["others"] = comparison.neighbours.share()
    results = {"system": about, "rounds": args.rounds, "cases": comparison.cases}
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    if args.markdown:
        args.markdown.write_text(report.markdown(results, args.only))
    print(report.text(results, args.only))


if __name__ == "__main__":
    main()
