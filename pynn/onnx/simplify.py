"""Rewriting of a graph that was read, before it becomes a module."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pynn.onnx.operators import OPERATORS, Array, Node

__all__ = ["fuse_gelu", "move_constants", "split_aliases"]


def move_constants(nodes: list[Node], outputs: set[str]) -> tuple[list[Node], dict[str, Array]]:
    """Return the nodes without those of the operator Constant, and the values of these."""
    found = {node.outputs[0]: node for node in nodes if node.op_type == "Constant" and node.outputs[0] not in outputs}
    values = {name: OPERATORS["Constant"].function(**node.attributes) for name, node in found.items()}
    return [node for node in nodes if not node.outputs or found.get(node.outputs[0]) is not node], values


def split_aliases(nodes: list[Node], arrays: dict[str, Array], outputs: set[str]) -> list[Node]:
    """Give each Identity of an array its own copy: exporters store equal arrays once, though they are trained apart."""
    rest = []
    for node in nodes:
        if node.op_type == "Identity" and node.inputs[0] in arrays and node.outputs[0] not in outputs:
            arrays[node.outputs[0]] = arrays[node.inputs[0]].copy()
        else:
            rest.append(node)
    return rest


def fuse_gelu(nodes: list[Node], numbers: dict[str, Array], ranks: Mapping[str, int], outputs: set[str]) -> list[Node]:
    """Replace x / 2 * (1 + erf(x / sqrt(2))), which is gelu before opset 20, by Gelu: one call of the core.

    `ranks` tells how many axes values have, as far as that is known: numbers stored with more would add some to x.
    """
    source = {name: node for node in nodes for name in node.outputs}
    users: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            users.setdefault(name, []).append(node)

    axes: list[int] = []  # of the numbers that were found

    def is_number(name: str, value: float) -> bool:
        array = numbers.get(name)
        if array is None or array.size != 1 or not math.isclose(float(array.reshape(-1)[0]), value, rel_tol=1e-6):
            return False
        axes.append(array.ndim)
        return True

    def scaled(name: str, factor: float) -> str | None:
        """Return the value of which `name` is a multiple."""
        node = source.get(name)
        if node is not None and node.op_type == "Div" and is_number(node.inputs[1], 1 / factor):
            return node.inputs[0]
        return other(node, factor, "Mul") if node is not None else None

    def other(node: Node, value: float, operator: str) -> str | None:
        """Return the operand beside a number."""
        if node.op_type == operator:
            for x, number in (node.inputs, node.inputs[::-1]):
                if is_number(number, value):
                    return x
        return None

    def only_user(name: str) -> Node | None:
        return users[name][0] if len(users.get(name, ())) == 1 and name not in outputs else None

    def end(erf: Node) -> tuple[str, Node] | None:
        """Return x and the node that computes its gelu."""
        x = scaled(erf.inputs[0], math.sqrt(0.5))
        add = only_user(erf.outputs[0])
        if x is None or add is None or other(add, 1, "Add") is None:
            return None
        product = only_user(add.outputs[0])
        if product is None or product.op_type != "Mul":
            return None
        factor = product.inputs[product.inputs[0] == add.outputs[0]]
        if scaled(factor, 0.5) == x:
            return x, product
        last = only_user(product.outputs[0])
        if last is None or last.op_type != "Mul":
            return None
        if (factor == x and other(last, 0.5, "Mul")) or (is_number(factor, 0.5) and x in last.inputs):
            return x, last
        return None

    replaced = {}
    for node in nodes:
        axes.clear()
        if node.op_type == "Erf" and (found := end(node)) and max(axes) <= ranks.get(found[0], 0):
            x, last = found
            replaced[last.outputs[0]] = Node("Gelu", node.name, (x,), last.outputs, {}, node.opset)
    if not replaced:
        return nodes
    return _without_unused([replaced.get(node.outputs[0], node) if node.outputs else node for node in nodes], outputs)


def _without_unused(nodes: list[Node], outputs: set[str]) -> list[Node]:
    """Drop the nodes whose results nobody reads."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            kept.append(node)
    return kept[::-1]
