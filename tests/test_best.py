"""The best weights: which they are, and that they come back whatever ends the training."""

import sys

from pynn import nn
from pynn.train.best import BestWeights


def test_ctrl_c_anywhere_keeps_weights_and_epoch_together():
    def offer(best, epoch, line):
        """Return whether Ctrl-C came, before this line."""

        def trace(frame, event, _):
            if frame.f_code is not BestWeights.offer.__code__:
                return None
            if event == "line" and frame.f_lineno == line:
                raise KeyboardInterrupt
            return trace

        best._model.load_state_dict({"weight": [[float(epoch)]], "bias": [0.0]})
        sys.settrace(trace)
        try:
            best.offer({"epoch": epoch, "val_loss": 1 / epoch})
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    first = BestWeights.offer.__code__.co_firstlineno
    came = 0
    for line in range(first, first + 12):
        best = BestWeights(nn.Linear(1, 1))
        offer(best, 1, None)
        came += offer(best, 2, line)
        assert best._model.weight.item() == 2
        assert best.restore() == best._model.weight.item()
    assert came >= 2
