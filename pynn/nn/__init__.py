"""Layers, losses and models, with PyTorch's names, layouts and `state_dict` keys."""

from pynn.nn import init
from pynn.nn._summary import LayerSummary, Summary, summary
from pynn.nn.activations import ELU, GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
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
from pynn.nn.losses import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    HingeLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from pynn.nn.module import LoadResult, Module, Parameter
from pynn.nn.norm import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm
from pynn.nn.recurrent import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell
from pynn.nn.resize import ConvTranspose2d, Unflatten, Upsample

__all__ = [
    "ELU",
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
    "ConvTranspose2d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRUCell",
    "GlobalAvgPool2d",
    "GroupNorm",
    "HingeLoss",
    "Identity",
    "KLDivLoss",
    "KeyValueCache",
    "L1Loss",
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
    "NLLLoss",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Softplus",
    "Summary",
    "Tanh",
    "TransformerEncoderLayer",
    "Unflatten",
    "Upsample",
    "init",
    "summary",
]
