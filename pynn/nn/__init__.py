"""Layers, losses and models, with PyTorch's names, layouts and `state_dict` keys."""

from pynn.nn import init
from pynn.nn._summary import LayerSummary, Summary, summary
from pynn.nn.activations import GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, Softmax, Tanh
from pynn.nn.attention import KeyValueCache, MultiheadAttention, TransformerEncoderLayer
from pynn.nn.containers import ModuleList, Sequential
from pynn.nn.layers import (
    AvgPool2d,
    Conv1d,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    GlobalAvgPool2d,
    Identity,
    Linear,
    MaxPool2d,
)
from pynn.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, HingeLoss, MSELoss
from pynn.nn.module import LoadResult, Module, Parameter
from pynn.nn.norm import BatchNorm1d, BatchNorm2d, LayerNorm
from pynn.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell

__all__ = [
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRUCell",
    "GlobalAvgPool2d",
    "HingeLoss",
    "Identity",
    "KeyValueCache",
    "LSTMCell",
    "LayerNorm",
    "LayerSummary",
    "LeakyReLU",
    "Linear",
    "LoadResult",
    "LogSoftmax",
    "MSELoss",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "MultiheadAttention",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Summary",
    "Tanh",
    "TransformerEncoderLayer",
    "init",
    "summary",
]
