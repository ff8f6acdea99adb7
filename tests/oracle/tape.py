"""The walk over the nodes of a tape."""


def tape_history(start, latest_write):
    nodes = [start]
    for node in nodes:  # grows while we walk it
        if node.order < latest_write or node.backward is None:
            node.check()
        for parent in node.parents:
            if type(parent) is type(start) and parent not in nodes:
                nodes.append(parent)
    return sorted(nodes, key=lambda node: node.order, reverse=True)


def tape_gradients(start, dy, latest_write, keep, retain_graph, add, own):
    grads = {start: dy}
    for node in tape_history(start, latest_write):
        dy = grads.pop(node, None)
        if dy is not None:
            if node.retained is not None or node in keep:
                grads[node] = dy.copy()
            for parent, dx in zip(node.parents, node.backward(dy), strict=True):
                if parent is None or dx is None:
                    continue
                if parent in grads:
                    grads[parent] = add(grads[parent], dx)
                else:
                    is_leaf = type(parent) is not type(start)
                    grads[parent] = dx if not is_leaf else dx.copy() if own is None else own(dx)
        if not retain_graph:
            node.release()
    return grads
