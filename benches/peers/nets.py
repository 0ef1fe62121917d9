"""The models in PyTorch, and what is made of them once: weights, ONNX files, inputs,
and the outputs and losses that every engine has to reproduce.

Nothing but this file knows what is measured on; benches/models is its twin.
"""

import json

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

INPUTS = {"mlp": [784], "mnist_cnn": [1, 28, 28]}
# Steps of training whose losses are compared, without dropout.
LOSSES = 5


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(784, 512)
        self.fc2 = nn.Linear(512, 512)
        self.fc3 = nn.Linear(512, 10)

    def forward(self, x):
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class MnistCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = F.dropout(F.max_pool2d(x, 2), 0.25, self.training)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        x = F.dropout(x, 0.5, self.training)
        return F.log_softmax(self.fc2(x), dim=1)


NETS = {"mlp": Mlp, "mnist_cnn": MnistCnn}


def build(model, weights):
    from safetensors.torch import load_file

    net = NETS[model]()
    net.load_state_dict(load_file(weights))
    return net.eval()


def optimizer(name, params):
    """The rates are those of benches/models/src/training.rs."""
    return {
        "sgd": lambda: torch.optim.SGD(params, lr=0.01),
        "adadelta": lambda: torch.optim.Adadelta(params, lr=1.0),
        "adam": lambda: torch.optim.Adam(params, lr=1e-3),
    }[name]()


def trainer(model, net, opt, x, target):
    """A step of training as a function that gives the loss."""
    loss_of = F.cross_entropy if model == "mlp" else F.nll_loss

    def step():
        opt.zero_grad()
        loss = loss_of(net(x), target)
        loss.backward()
        opt.step()
        return loss.detach()

    return step


def prepare(data, models, batches, methods):
    """Writes what is not there yet: weights, batches, expected outputs and losses."""
    for model in models:
        weights = data / f"{model}.safetensors"
        if not weights.exists():
            from safetensors.torch import save_file

            torch.manual_seed(0)
            save_file(NETS[model]().state_dict(), weights)
        for batch in batches:
            prepare_batch(data, model, weights, batch)
    for model, method, batch in methods:
        prepare_losses(data, model, method, batch)


def prepare_batch(data, model, weights, batch):
    stem = data / f"{model}_b{batch}"
    onnx = stem.with_suffix(".onnx")
    if onnx.exists():
        return
    r = np.random.default_rng(batch)
    x = r.standard_normal([batch, *INPUTS[model]], dtype=np.float32)
    np.save(f"{stem}_input.npy", x)
    np.save(f"{stem}_target.npy", r.integers(0, 10, batch))
    net, x = build(model, weights), torch.from_numpy(x)
    with torch.no_grad():
        np.save(f"{stem}_output.npy", build(model, weights).double()(x.double()).numpy())
    torch.onnx.export(net, (x,), onnx, dynamo=True, external_data=False, verbose=False)


def prepare_losses(data, model, method, batch):
    path = data / f"{model}_b{batch}_{method}_losses.json"
    if path.exists():
        return
    stem = data / f"{model}_b{batch}"
    net = build(model, data / f"{model}.safetensors").double()
    x = torch.from_numpy(np.load(f"{stem}_input.npy")).double()
    target = torch.from_numpy(np.load(f"{stem}_target.npy"))
    step = trainer(model, net, optimizer(method, net.parameters()), x, target)
    path.write_text(json.dumps([step().item() for _ in range(LOSSES)]))
