"""What the tests of the tape share."""

import gc

import pynn
from pynn import tape


def leaf(*values):
    return pynn.tensor([float(v) for v in values], requires_grad=True)


def live_nodes():
    gc.collect()
    return sum(type(o) is tape.Node for o in gc.get_objects())
