"""Networks as tables: layer by layer, or part by part, in the notation of the paper's figure 4."""

from itertools import groupby

import torch
from torch import nn

from kit.console import Table
from kit.language import tr


def layer_table(network, *shape):
    """The layers of a network, one to a line, with their output shapes and parameters, as a table.

    `shape` is that of one input without the batch: `layer_table(Generator(), 3, 24, 24)`.
    The total in the last row also counts parameters that belong to no single layer.
    """
    rows = []

    def record(name):
        def hook(module, inputs, output):
            count = sum(p.numel() for p in module.parameters())
            rows.append((name, _describe(module), "×".join(map(str, output.shape[1:])), f"{count:,}"))
        return hook

    leaves = [(name, m) for name, m in network.named_modules() if not list(m.children())]
    hooks = [module.register_forward_hook(record(name)) for name, module in leaves]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *shape, device=next(network.parameters()).device))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    total = sum(p.numel() for p in network.parameters())
    return Table([*rows, (tr("total"), "", "", f"{total:,}")],
                 [tr("layer"), tr("what"), tr("output C×H×W"), tr("parameters")], left=3)


def _describe(module):
    """A layer in the notation of the paper's figure 4."""
    if isinstance(module, nn.Conv2d):
        return f"conv k{module.kernel_size[0]}n{module.out_channels}s{module.stride[0]}"
    if isinstance(module, nn.Linear):
        return f"dense {module.out_features}"
    return type(module).__name__


def network_table(networks):
    """The parts of networks, a line each, repetitions counted, with their parameters, as a table.

    `networks` is a dict of str → torch.nn.Module; a part is a module that a network holds itself.
    """
    rows = []
    for name, network in networks.items():
        for part, module in network.named_children():
            rows.append((name, part, _notation(module), _count(module)))
            name = ""
        rows.append(("", tr("total"), "", _count(network)))
    return Table(rows, [tr("network"), tr("part"), tr("layers"), tr("parameters")], left=3)


def _count(network):
    return f"{sum(p.numel() for p in network.parameters()):,}"


def _notation(module):
    """What a module consists of, in the notation of the paper's figure 4: "16 × (conv k3n64s1, …), conv k3n64s1"."""
    children = list(module.children())
    if not children:
        return _describe(module)
    parts = []
    for notation, equal in groupby(map(_notation, children)):
        count = len(list(equal))
        parts.append(notation if count == 1 else f"{count} × ({notation})")
    return ", ".join(parts)
