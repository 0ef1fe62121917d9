"""The define-by-run race beside Sinter: small networks whose structure is that of the
data, trained on one instance after the other, by process CPU time on one thread.

`run` compares PyTorch with Sinter, in turns, each in a process of its own:

    python benches/ancestors/race.py run --sinter target/release/race
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import time

WORDS, EMBEDDED, HIDDEN = 1000, 64, 128
UNITS = {
    "mlp_us": "MLP 784-128-10, 64 examples, SGD step [µs]",
    "words_per_second": "LSTM language model [words/s]",
    "trees_per_second": "TreeLSTM [trees/s]",
    "autobatched_trees_per_second": "TreeLSTM, autobatched in each tree [trees/s]",
    "trees_at_once_per_second": "TreeLSTM, autobatched over all trees [trees/s]",
}


def instances():
    r = random.Random(1)
    sentences = [[r.randrange(WORDS) for _ in range(r.randint(5, 40))] for _ in range(60)]

    def tree(n):
        if n == 1:
            return r.randrange(WORDS)
        k = r.randint(1, n - 1)
        return [tree(k), tree(n - k)]

    return {"sentences": sentences, "trees": [tree(r.randint(5, 30)) for _ in range(60)]}


def least(calls, f, repetitions=5):
    f()
    best = float("inf")
    for _ in range(repetitions):
        start = time.process_time()
        for _ in range(calls):
            f()
        best = min(best, (time.process_time() - start) / calls)
    return best


def pytorch():
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(1)
    data = instances()
    sentences, trees = data["sentences"], data["trees"]
    mlp = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    sgd = torch.optim.SGD(mlp.parameters(), 0.01)
    x, y = torch.randn(64, 784), torch.arange(64) * 7 % 10

    def step():
        sgd.zero_grad()
        F.cross_entropy(mlp(x), y).backward()
        sgd.step()

    embedding, cell, out = nn.Embedding(WORDS, EMBEDDED), nn.LSTMCell(EMBEDDED, HIDDEN), nn.Linear(HIDDEN, WORDS)
    sgd2 = torch.optim.SGD([*embedding.parameters(), *cell.parameters(), *out.parameters()], 0.01)

    def language():
        for s in sentences:
            sgd2.zero_grad()
            h = c = torch.zeros(1, HIDDEN)
            states, words = [], torch.tensor(s)
            e = embedding(words)
            for t in range(len(s) - 1):
                h, c = cell(e[t:t + 1], (h, c))
                states.append(h)
            F.cross_entropy(out(torch.cat(states)), words[1:], reduction="sum").backward()
            sgd2.step()

    leaves, gates, classes = nn.Embedding(WORDS, HIDDEN), nn.Linear(2 * HIDDEN, 5 * HIDDEN), nn.Linear(HIDDEN, 5)
    sgd3 = torch.optim.SGD([*leaves.parameters(), *gates.parameters(), *classes.parameters()], 0.01)

    def encode(t):
        if isinstance(t, int):
            return leaves(torch.tensor([t])), torch.zeros(1, HIDDEN)
        (h1, c1), (h2, c2) = encode(t[0]), encode(t[1])
        i, f1, f2, o, u = gates(torch.cat([h1, h2], 1)).chunk(5, 1)
        c = torch.sigmoid(i) * torch.tanh(u) + torch.sigmoid(f1) * c1 + torch.sigmoid(f2) * c2
        return torch.sigmoid(o) * torch.tanh(c), c

    def forest():
        for k, t in enumerate(trees):
            sgd3.zero_grad()
            F.cross_entropy(classes(encode(t)[0]), torch.tensor([k % 5])).backward()
            sgd3.step()

    words = sum(len(s) - 1 for s in sentences)
    print(json.dumps({
        "name": f"pytorch {torch.__version__}",
        "mlp_us": least(50, step) * 1e6,
        "words_per_second": words / least(1, language),
        "trees_per_second": len(trees) / least(1, forest),
    }))


def run(sinter, rounds):
    here = pathlib.Path(__file__)
    data = here.parent / "instances.json"
    data.write_text(json.dumps(instances()))
    commands = [[sinter, "--instances", str(data)], [sys.executable, str(here), "pytorch"]]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    best = {}
    for _ in range(rounds):
        for command in commands:
            got = json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
            old = best.setdefault(got["name"], got)
            for key, value in got.items():
                if key != "name":
                    old[key] = (min if key == "mlp_us" else max)(old[key], value)
    data.unlink()
    names = list(best)
    print("| | " + " | ".join(names) + " |\n|---|" + "--:|" * len(names))
    for key, unit in UNITS.items():
        print(f"| {unit} | " + " | ".join(f"{best[n][key]:,.0f}" if key in best[n] else "" for n in names) + " |")


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("what", choices=["pytorch", "run", "instances"])
    p.add_argument("--sinter", default="target/release/race", help="the built `race`")
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    if a.what == "pytorch":
        pytorch()
    elif a.what == "instances":
        print(json.dumps(instances()))
    else:
        run(a.sinter, a.rounds)
