"""BasicSR's MSRResNet, for weights that were trained with it.

No SRResNet of the paper's: it has no batch norm, but leaky ReLU, and adds what it computes to a bilinear enlargement.
The facts are from basicsr/archs/srresnet_arch.py; names of layers are as in its files.
"""

import torch.nn.functional as F
from torch import nn


class MSRResNet(nn.Module):
    """Forward: N×3×H×W in [0, 1] → N×3×(scale·H)×(scale·W), for colours in [-1, 1]."""

    def __init__(self, scale, channels, blocks):
        super().__init__()
        self.scale = scale
        factors = [2, 2] if scale == 4 else [scale]
        self.conv_first = _conv(3, channels)
        self.body = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.upconv1 = _conv(channels, channels * factors[0] ** 2)
        if len(factors) == 2:
            self.upconv2 = _conv(channels, channels * factors[1] ** 2)
        self.conv_hr = _conv(channels, channels)
        self.conv_last = _conv(channels, 3)
        self.shuffle, self.activation = nn.PixelShuffle(factors[0]), nn.LeakyReLU(0.1)

    @classmethod
    def like(cls, weights):
        """The network, its weights still at random, that a state dict of BasicSR's was made with."""
        try:
            channels = weights["conv_first.weight"].shape[0]
            scale = 4 if "upconv2.weight" in weights else round((weights["upconv1.weight"].shape[0] / channels) ** 0.5)
            blocks = len({name.split(".")[1] for name in weights if name.startswith("body.")})
        except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
            raise ValueError(f"it looks like BasicSR's MSRResNet, but lacks {error}") from error
        if scale not in (2, 3, 4):
            raise ValueError(f"it looks like BasicSR's MSRResNet, but enlarges ×{scale}, not ×2, ×3 or ×4")
        return cls(scale, channels, blocks)

    def forward(self, lr):
        x = self.body(self.activation(self.conv_first(lr)))
        for number in ("upconv1", "upconv2"):
            if hasattr(self, number):
                x = self.activation(self.shuffle(getattr(self, number)(x)))
        detail = self.conv_last(self.activation(self.conv_hr(x)))
        base = F.interpolate(lr, scale_factor=self.scale, mode="bilinear")
        return 2 * (base + detail) - 1


class Block(nn.Module):
    """A residual block without batch norm."""

    def __init__(self, channels):
        super().__init__()
        self.conv1, self.conv2 = _conv(channels, channels), _conv(channels, channels)

    def forward(self, x):
        return x + self.conv2(F.relu(self.conv1(x)))


def _conv(before, after):
    return nn.Conv2d(before, after, 3, padding=1)
