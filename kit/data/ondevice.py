"""The image cache in the memory of a GPU, where patches are gathered without a way from the CPU."""

import numpy as np
import torch

from kit.data.augment import flip_and_rotate


class DeviceCache:
    """All pictures of an image cache on a device.

    Parameters
    ----------
    file : path
        Of the image cache, `ends[-1]` bytes long; `ends` are its bytes after each pair of `rows`.
    rows : list of datasets.Row
    scale, crop : int
        Scale, and side of the high-resolution patches.
    device : torch.device
    """

    def __init__(self, file, rows, ends, scale, crop, device):
        self.pixels = torch.from_file(str(file), size=int(ends[-1]), dtype=torch.uint8).to(device)
        widths = np.array([row.width for row in rows])
        hr_starts = ends - np.array([3 * row.width * row.height for row in rows])
        lr_starts = np.concatenate([[0], ends[:-1]])
        # First byte and width of every picture, and for each flip and rotation where a patch's pixels come from.
        self._tables = {1: (lr_starts, widths // scale, _origins(crop // scale, device)),
                        scale: (hr_starts, widths, _origins(crop, device))}
        self._placed_epoch = self._placed = None

    def gather(self, parts):
        """Patches (lr, hr), N×3×size×size each, on the device.

        `parts` is a list of (epoch, plan, k): of the epoch with this plan, see `datasets.TrainDataset`, the patches k.
        """
        places = torch.cat([self._places(epoch, plan)[:, _as_slice(k)] for epoch, plan, k in parts], dim=1)
        way, channel = places[0], torch.arange(3, device=self.pixels.device)[:, None, None]
        patches = []
        for (_, _, origins), (corner, width) in zip(self._tables.values(), places[1:].view(2, 2, -1, 1, 1)):
            y, x = origins[way].unbind(1)  # N×size×size each
            patches.append(self.pixels[(corner + 3 * (y * width + x))[:, None] + channel])
        return tuple(patches)

    def _places(self, epoch, plan):
        """Where the patches of an epoch are, on the device: rows way, then corner and width of each size.

        All at once, because every way to the device costs a wait.
        """
        if epoch != self._placed_epoch:
            picture, top, left, flip, turns = plan.T
            rows = [4 * flip + turns]
            for factor, (starts, widths, _) in self._tables.items():
                width = widths[picture]
                rows += [starts[picture] + 3 * factor * (top * width + left), width]
            self._placed_epoch, self._placed = epoch, torch.from_numpy(np.stack(rows)).to(self.pixels.device)
        return self._placed


def _origins(size, device):
    """8×2×size×size: row and column from which each pixel comes, for 4 · flip + quarter turns."""
    place = np.moveaxis(np.indices((size, size)), 0, 2)
    ways = [flip_and_rotate(place, flip, turns) for flip in (0, 1) for turns in range(4)]
    return torch.from_numpy(np.stack(ways)).to(device)


def _as_slice(k):
    """Whole numbers in even steps as a slice, which a GPU need not wait for; others as they are."""
    steps = np.unique(np.diff(k))
    if len(steps) > 1 or len(steps) and steps[0] < 1:
        return torch.from_numpy(k)
    return slice(int(k[0]), int(k[-1]) + 1, int(steps[0]) if len(steps) else 1)
