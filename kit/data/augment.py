"""What is done to training patches at random: flips, rotations, changes of colour, JPEG."""

import io

import numpy as np
import torch
from PIL import Image


def send(tensor, device):
    """A tensor of the CPU on a device, for which a GPU does not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def flip_and_rotate(patch, flip, turns):
    """A patch H×W×C, flipped left-right, then rotated by quarter turns against the clock, as C×H×W."""
    if flip:
        patch = patch[:, ::-1]
    return (np.rot90(patch, turns) if turns else patch).transpose(2, 0, 1)


def jitter_colours(batch, changes):
    """uint8 patches N×3×H×W with their colours changed a little.

    `changes` is N×4, shares from -1 to 1: saturation, brightness, contrast, and hue (of the circle). The whole batch
    at once, what torchvision's `adjust_…` do to one picture with one factor.
    """
    changes = send(torch.from_numpy(changes).float(), batch.device)
    saturation, brightness, contrast, hue = changes.T[..., None, None, None]
    batch = batch / 255
    batch = _grey(batch).lerp(batch, 1 + saturation).clamp_(0, 1)
    batch = (batch + brightness).clamp_(0, 1)
    batch = _grey(batch).mean(dim=(1, 2, 3), keepdim=True).lerp(batch, 1 + contrast).clamp_(0, 1)
    # Hue in sixths of the circle, then back with the same lightness and chroma.
    most, least = batch.amax(1, keepdim=True), batch.amin(1, keepdim=True)
    chroma, (red, green, blue) = most - least, batch.split(1, dim=1)
    sixths = torch.where(red == most, green - blue, torch.where(green == most, blue - red, red - green))
    sixths = sixths / chroma.clamp(min=1e-6) + torch.where(red == most, 0, torch.where(green == most, 2, 4)) + 6 * hue
    k = (torch.arange(5, 0, -2, device=batch.device).view(3, 1, 1) + sixths) % 6
    batch = most - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)
    return (255 * batch).round_().to(torch.uint8)


def _grey(batch):
    return batch[:, :1] * 0.2989 + batch[:, 1:2] * 0.587 + batch[:, 2:] * 0.114


def compress_jpeg(patches, qualities):
    """uint8 patches N×3×H×W on the CPU after JPEG compression."""
    packed = []
    for patch, quality in zip(patches, qualities.tolist()):
        file = io.BytesIO()
        Image.fromarray(patch.permute(1, 2, 0).contiguous().numpy()).save(file, "JPEG", quality=quality)
        packed.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))
    return torch.stack(packed)
