"""Networks, optimisers and training steps that the tests of `pynn.capture` share."""

import numpy as np

import pynn
from pynn import functional as F
from pynn import nn, optim


def mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(),
        nn.Flatten(), nn.Dropout(0.4), nn.Linear(16, 3),
    )  # fmt: skip


class Residual(nn.Module):
    """Uses a value twice, and a chain of elementwise operations."""

    def __init__(self):
        self.first = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        h = x + F.gelu(self.first(self.norm(x)))
        return self.last(h * F.sigmoid(h) + h.mean(axis=1, keepdims=True))


class Transformer(nn.Module):
    """Attention of both kinds, with dropout."""

    def __init__(self):
        self.block = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.2, batch_first=True, norm_first=True)
        self.attention = nn.MultiheadAttention(6, 3, dropout=0.2, batch_first=True)
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        h = self.block(x, is_causal=True)
        return self.last(self.attention(h, x)[0].mean(axis=1))


class Recurrent(nn.Module):
    """Two layers with dropout between them, and attention over the steps."""

    def __init__(self):
        self.lstm = nn.LSTM(2, 4, num_layers=2, batch_first=True, dropout=0.3)
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        h, _ = self.lstm(x)
        h, _ = self.gru(h)
        h, _ = self.attention(h, h, h, need_weights=False)
        return self.last(h[:, -1])


MODELS = {
    "recurrent": (Recurrent, (5, 2)),
    "mlp": (mlp, (6,)),
    "cnn": (cnn, (1, 8, 8)),
    "residual": (Residual, (6,)),
    "transformer": (Transformer, (4, 6)),
    "double": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).astype(np.float64), (6,)),
}
OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.1, weight_decay=1e-3),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, betas=(0.8, 0.9)),
    "rmsprop": lambda p: optim.RMSprop(p, lr=1e-3, momentum=0.5, centered=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05, lr_decay=0.1),
    "muon": lambda p: optim.Muon([q for q in p if q.ndim == 2], lr=0.02),
    "adadelta": lambda p: optim.Adadelta(p),
}


def step_of(model, optimizer):
    """Return the plain training step."""

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def prepare(model_name, optimizer_name, wrap, clip=False, seed=0):
    """Build model and optimiser; return a function that trains them and returns every loss and the state at the end."""
    build, shape = MODELS[model_name]
    pynn.seed(seed)
    model = build()
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    schedule = optim.ExponentialLR(optimizer, 0.99)
    dtype = next(iter(model.parameters())).dtype
    rng = np.random.default_rng(seed)

    @wrap
    def step(x, y):
        model.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        norm = optim.clip_grad_norm_(model.parameters(), 0.5) if clip else 0.0
        optimizer.step()
        return loss, norm

    def run(steps):
        losses = []
        for i in range(steps):
            rows = 5 if i % 7 else 4  # two signatures in turn
            loss, norm = step(rng.standard_normal((rows, *shape)).astype(dtype), rng.integers(0, 3, rows))
            losses.append((loss.item(), float(norm)))
            schedule.step()
        return losses, model.state_dict(), optimizer.state_dict()

    return run


def train(model_name, optimizer_name, steps, wrap, clip=False, seed=0):
    return prepare(model_name, optimizer_name, wrap, clip, seed)(steps)


def assert_same_training(a, b):
    assert a[0] == b[0]
    assert a[1].keys() == b[1].keys()
    for name, value in a[1].items():
        np.testing.assert_array_equal(value, b[1][name], err_msg=name)
    for number, state in a[2]["state"].items():
        for name, value in state.items():
            np.testing.assert_array_equal(value, b[2]["state"][number][name], err_msg=name)


def make(lr=0.1, **options):
    pynn.seed(1)
    model = mlp()
    optimizer = optim.SGD(model.parameters(), lr=lr, **options)
    calls = []

    @pynn.capture
    def step(x, y):
        calls.append(1)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step, calls


X, Y = np.linspace(-1, 1, 30, dtype=np.float32).reshape(5, 6), np.array([0, 1, 2, 0, 1])
