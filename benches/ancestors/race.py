"""The define-by-run race beside Sinter: small networks whose structure is that of the
data, trained on one instance after the other, by process CPU time on one thread.

`run` compares Sinter with PyTorch, Chainer and DyNet, in turns, each in a process of
its own. Chainer and DyNet need a Python of their own (3.11 has wheels of DyNet):

    pip install torch==2.15.0
    other/bin/pip install numpy==1.23.5 "setuptools<70" wheel dyNET38==2.2
    other/bin/pip install --no-build-isolation chainer==7.8.1
    cargo build --release -p sinter-benches --bin race
    python benches/ancestors/race.py run --ancestors other/bin/python
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
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


def chainer():
    import warnings

    warnings.filterwarnings("ignore")
    import chainer
    import numpy as np
    from chainer import functions as F
    from chainer import links as L

    data = instances()
    sentences, trees = data["sentences"], data["trees"]

    def trained(**links):
        model = chainer.Chain()
        with model.init_scope():
            for name, link in links.items():
                setattr(model, name, link)
        optimizer = chainer.optimizers.SGD(0.01)
        optimizer.setup(model)
        return model, optimizer

    mlp, sgd = trained(a=L.Linear(784, 128), b=L.Linear(128, 10))
    x = np.random.RandomState(0).randn(64, 784).astype(np.float32)
    y = (np.arange(64) * 7 % 10).astype(np.int32)

    def step():
        mlp.cleargrads()
        F.softmax_cross_entropy(mlp.b(F.relu(mlp.a(x))), y).backward()
        sgd.update()

    lm, sgd2 = trained(e=L.EmbedID(WORDS, EMBEDDED), cell=L.StatelessLSTM(EMBEDDED, HIDDEN), out=L.Linear(HIDDEN, WORDS))

    def language():
        for s in sentences:
            lm.cleargrads()
            c = h = None
            states, words = [], np.array(s, np.int32)
            e = lm.e(words)
            for t in range(len(s) - 1):
                c, h = lm.cell(c, h, e[t:t + 1])
                states.append(h)
            F.softmax_cross_entropy(lm.out(F.concat(states, 0)), words[1:]).backward()
            sgd2.update()

    tree, sgd3 = trained(e=L.EmbedID(WORDS, HIDDEN), gates=L.Linear(2 * HIDDEN, 5 * HIDDEN), out=L.Linear(HIDDEN, 5))
    zeros = np.zeros((1, HIDDEN), np.float32)

    def encode(t):
        if isinstance(t, int):
            return tree.e(np.array([t], np.int32)), chainer.Variable(zeros)
        (h1, c1), (h2, c2) = encode(t[0]), encode(t[1])
        i, f1, f2, o, u = F.split_axis(tree.gates(F.concat([h1, h2], 1)), 5, 1)
        c = F.sigmoid(i) * F.tanh(u) + F.sigmoid(f1) * c1 + F.sigmoid(f2) * c2
        return F.sigmoid(o) * F.tanh(c), c

    def forest():
        for k, t in enumerate(trees):
            tree.cleargrads()
            F.softmax_cross_entropy(tree.out(encode(t)[0]), np.array([k % 5], np.int32)).backward()
            sgd3.update()

    words = sum(len(s) - 1 for s in sentences)
    print(json.dumps({
        "name": f"chainer {chainer.__version__}",
        "mlp_us": least(50, step) * 1e6,
        "words_per_second": words / least(1, language),
        "trees_per_second": len(trees) / least(1, forest),
    }))


def dynet(autobatch):
    import dynet_config

    dynet_config.set(mem=512, random_seed=1, autobatch=int(autobatch))
    import dynet as dy
    import numpy as np

    data = instances()
    sentences, trees = data["sentences"], data["trees"]
    figures = {"name": "dynet 2.2"}

    tp = dy.ParameterCollection()
    leaves = tp.add_lookup_parameters((WORDS, HIDDEN))
    w, b = tp.add_parameters((5 * HIDDEN, 2 * HIDDEN)), tp.add_parameters(5 * HIDDEN)
    wc, bc = tp.add_parameters((5, HIDDEN)), tp.add_parameters(5)
    sgd3 = dy.SimpleSGDTrainer(tp, 0.01)

    def encode(t):
        if isinstance(t, int):
            return leaves[t], dy.zeros(HIDDEN)
        (h1, c1), (h2, c2) = encode(t[0]), encode(t[1])
        g = dy.affine_transform([b, w, dy.concatenate([h1, h2])])
        i, f1, f2, o, u = (dy.pick_range(g, k * HIDDEN, (k + 1) * HIDDEN) for k in range(5))
        c = dy.cmult(dy.logistic(i), dy.tanh(u)) + dy.cmult(dy.logistic(f1), c1) + dy.cmult(dy.logistic(f2), c2)
        return dy.cmult(dy.logistic(o), dy.tanh(c)), c

    def loss(k, t):
        return dy.pickneglogsoftmax(dy.affine_transform([bc, wc, encode(t)[0]]), k % 5)

    def forest():
        for k, t in enumerate(trees):
            dy.renew_cg()
            l = loss(k, t)
            l.value()
            l.backward()
            sgd3.update()

    def at_once():
        dy.renew_cg()
        l = dy.esum([loss(k, t) for k, t in enumerate(trees)])
        l.value()
        l.backward()
        sgd3.update()

    if autobatch:
        figures["autobatched_trees_per_second"] = len(trees) / least(1, forest)
        figures["trees_at_once_per_second"] = len(trees) / least(1, at_once)
        print(json.dumps(figures))
        return

    mp = dy.ParameterCollection()
    w1, b1 = mp.add_parameters((128, 784)), mp.add_parameters(128)
    w2, b2 = mp.add_parameters((10, 128)), mp.add_parameters(10)
    sgd = dy.SimpleSGDTrainer(mp, 0.01)
    x = np.ascontiguousarray(np.random.RandomState(0).randn(784, 64).astype(np.float32))
    y = [k * 7 % 10 for k in range(64)]

    def step():
        dy.renew_cg()
        h = dy.rectify(dy.affine_transform([b1, w1, dy.inputTensor(x, batched=True)]))
        l = dy.sum_batches(dy.pickneglogsoftmax_batch(dy.affine_transform([b2, w2, h]), y))
        l.value()
        l.backward()
        sgd.update()

    lp = dy.ParameterCollection()
    embedded = lp.add_lookup_parameters((WORDS, EMBEDDED))
    cell = dy.VanillaLSTMBuilder(1, EMBEDDED, HIDDEN, lp)
    wo, bo = lp.add_parameters((WORDS, HIDDEN)), lp.add_parameters(WORDS)
    sgd2 = dy.SimpleSGDTrainer(lp, 0.01)

    def language():
        for s in sentences:
            dy.renew_cg()
            state, losses = cell.initial_state(), []
            for t in range(len(s) - 1):
                state = state.add_input(embedded[s[t]])
                losses.append(dy.pickneglogsoftmax(dy.affine_transform([bo, wo, state.output()]), s[t + 1]))
            l = dy.esum(losses)
            l.value()
            l.backward()
            sgd2.update()

    words = sum(len(s) - 1 for s in sentences)
    figures["mlp_us"] = least(50, step) * 1e6
    figures["words_per_second"] = words / least(1, language)
    figures["trees_per_second"] = len(trees) / least(1, forest)
    print(json.dumps(figures))


ENGINES = {
    "pytorch": pytorch,
    "chainer": chainer,
    "dynet": lambda: dynet(False),
    "dynet_autobatched": lambda: dynet(True),
}


def run(sinter, rounds, ancestors):
    here = pathlib.Path(__file__)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    best = {}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as data:
        json.dump(instances(), data)
        data.flush()
        commands = [[sinter, "--instances", data.name], [sys.executable, str(here), "pytorch"]]
        if ancestors:
            commands += [[ancestors, str(here), e] for e in ["chainer", "dynet", "dynet_autobatched"]]
        for turn in range(rounds):
            for command in commands:
                print(f"round {turn + 1} of {rounds}: {' '.join(command[-2:])}", file=sys.stderr)
                out = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
                got = json.loads(out.strip().splitlines()[-1])
                old = best.setdefault(got["name"], got)
                for key, value in got.items():
                    if key != "name":
                        old[key] = (min if key == "mlp_us" else max)(old.get(key, value), value)
    names = list(best)
    print("| | " + " | ".join(names) + " |\n|---|" + "--:|" * len(names))
    for key, unit in UNITS.items():
        print(f"| {unit} | " + " | ".join(f"{best[n][key]:,.0f}" if key in best[n] else "" for n in names) + " |")


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("what", choices=[*ENGINES, "run", "instances"])
    p.add_argument("--sinter", default="target/release/race", help="the built `race`")
    p.add_argument("--rounds", type=int, default=3, help="how often each takes its turn")
    p.add_argument("--ancestors", help="a Python with Chainer and DyNet; without, they are left out")
    a = p.parse_args()
    if a.what == "instances":
        print(json.dumps(instances()))
    elif a.what == "run":
        run(a.sinter, a.rounds, a.ancestors)
    else:
        ENGINES[a.what]()
