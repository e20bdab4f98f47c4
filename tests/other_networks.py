"""Networks of the builds that are met in public code, made small: what each does that the kit's own do not."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class MeanShift(nn.Conv2d):
    """Subtracts or adds a mean colour, as EDSR does: weights put in by `.data`, never trained."""

    def __init__(self, sign):
        super().__init__(3, 3, 1)
        self.weight.data = torch.Tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1]]).view(3, 3, 1, 1)
        self.bias.data = sign * torch.Tensor([0.45, 0.44, 0.40])
        for weight in self.parameters():
            weight.requires_grad = False


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.body, self.after = MeanShift(-1), nn.Conv2d(3, 48, 3, padding=1), MeanShift(1)

    def forward(self, lr):
        return self.after(F.pixel_shuffle(self.body(self.before(lr)), 4))


class KeptMean(nn.Module):
    """The mean as a plain tensor, which no `.to` moves, brought along in `forward` (as in BasicSR); an idle layer."""

    def __init__(self):
        super().__init__()
        self.mean = torch.Tensor([0.45, 0.44, 0.40]).view(1, 3, 1, 1)
        self.body, self.idle = nn.Conv2d(3, 48, 3, padding=1), nn.Conv2d(3, 3, 1)

    def forward(self, lr):
        self.mean = self.mean.to(lr.device)
        return F.pixel_shuffle(self.body(lr - self.mean), 4)


class WeightNorm(nn.Module):
    """Weight norm in its older form, as WDSR has it."""

    def __init__(self):
        super().__init__()
        self.body = nn.utils.weight_norm(nn.Conv2d(3, 16, 3, padding=1))
        self.tail = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(16, 48, 3, padding=1)), nn.BatchNorm2d(48))

    def forward(self, lr):
        return F.pixel_shuffle(self.tail(F.relu(self.body(lr))), 4)


class Windows(nn.Module):
    """Attention within windows of 4×4, shifted by two, as SwinIR has it; its mask is made in `forward`, in fp32."""

    def __init__(self, pads, width=8, side=4):
        super().__init__()
        self.pads, self.side = pads, side
        self.first, self.last = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 48, 3, padding=1)
        self.norm, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2))
        place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        apart = place[:, :, None] - place[:, None] + side - 1
        self.register_buffer("position_index", apart[0] * (2 * side - 1) + apart[1])

    def windows(self, x):  # N×H×W×C → windows × 16 × C
        n, h, w, c = x.shape
        return x.view(n, h // self.side, self.side, w // self.side, self.side, c).permute(
            0, 1, 3, 2, 4, 5).reshape(-1, self.side ** 2, c)

    def mask(self, h, w, device):
        regions = torch.zeros(1, h, w, 1, device=device)
        for i, rows in enumerate([slice(0, -4), slice(-4, -2), slice(-2, None)]):
            for j, columns in enumerate([slice(0, -4), slice(-4, -2), slice(-2, None)]):
                regions[:, rows, columns] = 3 * i + j
        regions = self.windows(regions)[..., 0]
        apart = regions[:, None] - regions[:, :, None]
        return apart.masked_fill(apart != 0, -100.0)

    def forward(self, lr):
        height, width = lr.shape[2:]
        if self.pads:
            lr = F.pad(lr, (0, -width % self.side, 0, -height % self.side), mode="replicate")
        x = self.first(lr)
        n, c, h, w = x.shape
        rows = self.norm(torch.roll(x.permute(0, 2, 3, 1), (-2, -2), (1, 2)))
        q, k, v = self.qkv(self.windows(rows)).chunk(3, -1)
        attention = q @ k.transpose(1, 2) / math.sqrt(c) + self.bias_table[self.position_index]
        attention = attention + self.mask(h, w, x.device).repeat(n, 1, 1)
        out = self.proj(attention.softmax(-1) @ v).view(n, h // self.side, w // self.side, self.side, self.side, c)
        out = torch.roll(out.permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c), (2, 2), (1, 2)).permute(0, 3, 1, 2)
        return F.pixel_shuffle(self.last(x + out), 4)[..., : 4 * height, : 4 * width]


class UNet(nn.Module):
    """Halves twice and joins what it had before: sides must be multiples of 4."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.back, self.last = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(16, 192, 3, padding=1)

    def forward(self, lr):
        one = F.relu(self.one(lr))
        two = self.back(F.relu(self.two(one)))
        return F.pixel_shuffle(self.last(torch.cat([one, two], 1)), 8)


class Flattens(nn.Module):
    """A discriminator that flattens by `view`, as the original of the assignment does."""

    def __init__(self, side):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 8, 3, 2, 1))
        self.last = nn.Linear(8 * (side // 4) ** 2, 1)

    def forward(self, pictures):
        maps = self.body(pictures)
        return self.last(maps.view(maps.size(0), -1))


GENERATORS = {
    "mean shift": Shifted, "kept mean": KeptMean, "weight norm": WeightNorm, "u-net": UNet,
    "windows": lambda: Windows(pads=False), "padded windows": lambda: Windows(pads=True),
}
