"""Operations on each element."""

import numpy as np
import oracle

from ops.row import SHAPES, Op, apart, chosen, normal, positive

UNARY = {
    # The budgets of the transcendental ones are those of their kernels: see core_cases/elementwise.py.
    "neg": Op("neg", oracle.neg),
    "abs": Op("abs", oracle.abs),
    "relu": Op("relu", oracle.relu),
    "leaky_relu": Op("leaky_relu", lambda x, negative_slope=0.01: oracle.leaky_relu(x, negative_slope), ulps=1),
    "exp": Op("exp", oracle.exp, ulps=2),
    "log": Op("log", oracle.log, ulps=2),
    "sqrt": Op("sqrt", oracle.sqrt, ulps=1),
    "sigmoid": Op("sigmoid", oracle.sigmoid, ulps=4),
    "tanh": Op("tanh", oracle.tanh, ulps=4),
    "gelu": Op("gelu", lambda x, approximate="none": oracle.gelu(x, approximate == "tanh"), ulps=4, cancels=True),
    # The slope of silu is 0 at -1.28, where its terms cancel.
    "silu": Op("silu", oracle.silu, ulps=5),
    "elu": Op("elu", lambda x, alpha=1.0: oracle.elu(x, alpha), ulps=6),
    "softplus": Op("softplus", lambda x, beta=1.0, threshold=20.0: oracle.softplus(x, beta, threshold), ulps=8),
    "clip": Op(
        "clip",
        lambda x, low=None, high=None: oracle.clip(
            x, -np.inf if low is None else low, np.inf if high is None else high
        ),
    ),
}
for name, op in UNARY.items():
    for shape in SHAPES:
        op.sample(positive(*shape) if name in ("log", "sqrt") else apart(*shape))
UNARY["leaky_relu"].sample(apart(3, 5), 0.5)
UNARY["leaky_relu"].sample(apart(3, 5), negative_slope=-1.0)
UNARY["leaky_relu"].refuses(TypeError, r"^leaky_relu: negative_slope is .*, needs a number", normal(3), "x")
UNARY["elu"].sample(apart(5, 7), 0.25)
UNARY["elu"].sample(apart(5, 7), alpha=-2)
UNARY["elu"].refuses(TypeError, r"^elu: alpha is .*, needs a number", normal(3), None)
UNARY["softplus"].sample(apart(5, 7), 3.0)
UNARY["softplus"].sample(apart(5, 7), beta=-0.5)
# apart has no 1.5: the gradient jumps at the threshold
UNARY["softplus"].sample(apart(5, 7), 1, threshold=1.5)
UNARY["softplus"].refuses(ValueError, r"^softplus: beta is 0", normal(3), 0)
UNARY["softplus"].refuses(TypeError, r"^softplus: threshold is .*, needs a number", normal(3), threshold="x")
UNARY["gelu"].sample(apart(3, 5), "tanh")
UNARY["gelu"].sample(apart(5, 7, 33), approximate="tanh")
UNARY["gelu"].refuses(ValueError, r"^gelu: approximate must be .*got 'exact'", normal(3), "exact")
UNARY["clip"].sample(apart(3, 5), -0.5, 0.5)
UNARY["clip"].sample(apart(5, 7, 33), low=0)
UNARY["clip"].sample(apart(5, 7, 33), high=1.0)
UNARY["clip"].refuses(TypeError, "^clip: .*'low'", normal(3), "low")


def _operands(function):
    """Numbers are operands, too."""
    return lambda a, b: function(np.asarray(a, np.float64), np.asarray(b, np.float64))


add = Op("add", _operands(oracle.add), ulps=0.5)
sub = Op("sub", _operands(oracle.sub), ulps=0.5)
mul = Op("mul", _operands(oracle.mul), ulps=0.5)
div = Op("div", _operands(oracle.div), ulps=0.5)
pow = Op("pow", _operands(oracle.pow), ulps=16)  # |b log a| < 4 in these samples multiplies the 4 ulps of the kernel
maximum = Op("maximum", _operands(oracle.maximum))
minimum = Op("minimum", _operands(oracle.minimum))
where = Op("where", lambda condition, a, b: np.where(condition, a, b).astype(np.float64))
BROADCAST = [
    *((shape, shape) for shape in SHAPES),
    ((), (7,)),
    ((7,), ()),
    ((1,), (5, 3)),
    ((65, 7), (7,)),
    ((65, 7), (65, 1)),
    ((5, 1), (1, 70)),
    ((2, 3, 4, 5), (3, 1, 5)),
    ((2, 1, 4, 1), (3, 1, 5)),
    ((0, 3), (1, 3)),
    ((4, 1, 3, 1, 5), (1, 2, 1, 6, 5)),
]
for op in (add, sub, mul, div, pow, maximum, minimum):
    for a, b in BROADCAST:
        if op is pow:
            op.sample(positive(*a), apart(*b) / (1 + np.prod(b) / 16))
        elif op is div:
            op.sample(normal(*a), positive(*b))
        else:
            op.sample(apart(*a), apart(*b, phase=0.625))
    op.sample(positive(3, 5), 2.5)  # a number takes the tensor's dtype
    op.sample(2, positive(3, 5))
    op.refuses(ValueError, rf"^{op.name}: .*\[3, 4\].*\[3, 5\]", normal(3, 4), normal(3, 5))
    op.refuses(ValueError, rf"^{op.name}: .*\[2\].*\[0, 3\]", normal(2), normal(0, 3))
    op.refuses(TypeError, rf"^{op.name}: .*str", normal(3), "abc")
    op.refuses(TypeError, rf"^{op.name}: .*NoneType", normal(3), None)
for exponent in (0, 1, 2, 3, -1, 0.5, 2.0, -1.5):
    pow.sample(positive(3, 5), exponent)
for exponent in (0, 1, 2, 3):
    pow.sample(apart(5, 7), exponent)
for a, b in BROADCAST:
    where.sample(chosen(*a), normal(*b), normal(*np.broadcast_shapes(a, b)))
where.sample(chosen(3, 1), normal(4), normal(2, 1, 1))
where.sample(chosen(3, 5), normal(3, 5), 0.0)
where.sample(chosen(3, 5), -1, normal(5))
where.refuses(TypeError, "^where: condition must be bool, got int64", np.arange(3), normal(3), normal(3))
where.refuses(ValueError, r"^where: .*\[2\].*\[3\]", chosen(2), normal(3), normal(3))
