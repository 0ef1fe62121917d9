"""Engines in processes of their own, one order at a time."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent

# What a peer needs to be installed; `None` for ourselves.
ENGINES = {
    "sinter": None,
    "sinter-eager": None,
    "torch": "torch",
    "torch-compile": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}


def missing(engines):
    """The engines that are not installed here."""
    return [e for e in engines if ENGINES[e] and not find_spec(ENGINES[e])]


def environment(threads, scratch):
    env = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        env[name] = str(threads)
    # Compilers of peers start from nothing and leave nothing behind.
    env["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(dir=scratch)
    return env


class Failed(Exception):
    """A worker ended before it answered."""


class Worker:
    """A process that has prepared one thing.

    While it has no order it is stopped: no thread of it spins while others are measured.
    """

    def __init__(self, engine, rust, threads, what, scratch):
        self.log = tempfile.TemporaryFile(mode="w+", dir=scratch)
        if engine.startswith("sinter"):
            command = [rust, "--threads", threads]
        else:
            command = [sys.executable, "-B", HERE / "engines.py"]
            command += ["--engine", engine, "--threads", threads]
        self.process = subprocess.Popen(
            [str(part) for part in [*command, *what]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=environment(threads, scratch),
        )
        self.ready = self.answer()

    def order(self, text):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            said = self.log.read().strip().splitlines()
            raise Failed(said[-1] if said else f"exit status {self.process.returncode}")
        self.process.send_signal(signal.SIGSTOP)
        return json.loads(line)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.log.close()


class Neighbours:
    """How much of the processors' time others took while something was measured."""

    def __init__(self):
        self.taken = self.available = 0

    @contextmanager
    def beside(self, worker):
        before, own = self.processors(), self.process(worker)
        yield
        after = self.processors()
        self.available += after[0] - before[0]
        self.taken += after[1] - before[1] - (self.process(worker) - own)

    @staticmethod
    def processors():
        """Ticks so far, and those in which anybody worked, or a hypervisor."""
        line = Path("/proc/stat").read_text().splitlines()[0]
        user, nice, system, idle, wait, *more = (int(n) for n in line.split()[1:9])
        return user + nice + system + idle + wait + sum(more), user + nice + system + sum(more)

    @staticmethod
    def process(worker):
        # What follows the name in brackets: state, parent, and so on.
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def share(self):
        return max(0, self.taken) / max(1, self.available)
