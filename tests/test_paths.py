"""Whatever takes a path names itself and the argument where it gets something else."""

import re

import numpy as np
import pytest

import pynn
from pynn import data, nn, optim, serialize, train
from pynn.train import Trainer


def resume(path):
    model = nn.Linear(1, 1)
    batches = [(np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32))]
    Trainer(model, nn.MSELoss(), optim.SGD(model.parameters()), verbose=False).fit(batches, 1, resume=path)


TAKES_A_PATH = {
    "load: path": serialize.load,
    "save: path": lambda path: serialize.save(path, {}),
    "fit: resume": resume,
    "checkpoint_weights: path": train.checkpoint_weights,
    "CSVLogger: path": train.CSVLogger,
    "JSONLinesLogger: path": train.JSONLinesLogger,
    "read_idx: path": data.read_idx,
    "write_idx: path": lambda path: data.write_idx(path, np.zeros(2, np.uint8)),
    "load_mnist: data_dir": data.load_mnist,
    "load_names: data_dir": data.load_names,
    "load_shakespeare: data_dir": data.load_shakespeare,
}


@pytest.mark.parametrize("what", TAKES_A_PATH)
def test_what_is_no_path_is_refused_by_name(what):
    with pytest.raises(TypeError, match=rf"^{re.escape(what)} is a bool, needs a str or an os\.PathLike$"):
        TAKES_A_PATH[what](True)


def test_a_model_in_memory_is_no_path_of_one():
    pytest.importorskip("onnx")
    model = pynn.onnx.export(nn.Linear(1, 1), np.zeros((1, 1), np.float32))
    with pytest.raises(TypeError, match=r"^load: path is a ModelProto, needs a str or an os\.PathLike$"):
        pynn.onnx.load(model)


def test_tensorboard_needs_a_path():
    pytest.importorskip("tensorboardX")
    with pytest.raises(TypeError, match=r"^TensorBoardLogger: folder is a bool, needs a str or an os\.PathLike$"):
        train.TensorBoardLogger(True)
