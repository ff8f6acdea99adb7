"""Modules that several tests need."""

from pynn import nn


def mlp():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)))


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self):
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


class Network(nn.Sequential):
    """A class, since the name of a test with a function would have its address."""

    def __init__(self, n_features, n_classes, width=32, p=0.0):
        super().__init__(nn.Linear(n_features, width), nn.ReLU(), nn.Dropout(p), nn.Linear(width, n_classes))
