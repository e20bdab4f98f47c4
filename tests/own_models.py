"""A student's models.py that looks nothing like the kit's: other names, nested differently, a parallel branch."""

import torch
import torch.nn.functional as F
from torch import nn


class TwoPaths(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.paths = nn.ModuleDict({"near": nn.Conv2d(width, width, 3, padding=1),
                                    "far": nn.Conv2d(width, width, 3, padding=3, dilation=3)})
        self.mix = nn.ModuleList([nn.BatchNorm2d(2 * width), nn.Conv2d(2 * width, width, 1)])

    def forward(self, x):
        both = torch.cat([F.leaky_relu(path(x), 0.1) for path in self.paths.values()], dim=1)
        return x + self.mix[1](self.mix[0](both))


class Enlarge(nn.Module):
    def __init__(self, width=12, scale=4):
        super().__init__()
        self.factor = scale
        self.body = nn.ModuleDict({"entry": nn.Conv2d(3, width, 5, padding=2),
                                   "trunk": nn.Sequential(TwoPaths(width), TwoPaths(width))})
        self.exit = nn.Conv2d(width, 3 * scale**2, 3, padding=1)

    def forward(self, lr):
        x = self.body["trunk"](F.relu(self.body["entry"](lr)))
        return F.pixel_shuffle(self.exit(x), self.factor) + F.interpolate(2 * lr - 1, scale_factor=self.factor)


class Judge(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.look = nn.ModuleList([nn.Conv2d(3, width, 4, 2, 1), nn.Conv2d(width, 1, 4, 2, 1)])

    def forward(self, pictures):
        for layer in self.look:
            pictures = layer(F.leaky_relu(pictures, 0.2))
        return pictures.mean(dim=(1, 2, 3))


def make_generator(cfg):
    return Enlarge(scale=cfg.scale)


def make_discriminator(cfg):
    return Judge()
