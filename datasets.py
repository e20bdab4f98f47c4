"""From CSV lists to tensors: random training patches, and whole pictures for testing.

Training pictures are decoded once into a *pack*, a file of raw pixels beside the list that is
memory-mapped afterwards: every later epoch and run cuts its patches there without decoding anything.
"""

import csv
import io
import zlib
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from imresize import imresize
from packs import ends_of, make_pack, open_pack
from utils import read_picture, to_rgb

# One line of a list: files (lr is None where imresize is to make it), and the rectangle of the high
# resolution that is used, in pixels; its sides are multiples of the scale.
Row = namedtuple("Row", "hr lr width height left top")

# A whole pair: the picture's name, and uint8 pictures H×W×3 (or H×W when the file is grey).
Pair = namedtuple("Pair", "name lr hr")


# ----------------------------------------------------------------------------------------------- lists


def read_list(csv_file, scale=4):
    """The rows of a list that `create_data_lists.py` wrote.

    Raises FileNotFoundError when the list or a picture in it is missing, and ValueError naming the line
    and field for anything else that is wrong, such as a list made for another scale.
    """
    csv_file = Path(csv_file)
    if not csv_file.is_file():
        raise FileNotFoundError(f"{csv_file}: there is no such list; make it with create_data_lists.py")
    try:
        with open(csv_file, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            fields, lines = reader.fieldnames or [], list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{csv_file}: not a CSV file ({error})") from error
    missing = {"hr", "lr", "scale", "width", "height"} - set(fields)
    if missing:
        raise ValueError(f"{csv_file}: lacks the column {sorted(missing)[0]!r}; make it with create_data_lists.py")
    if not lines:
        raise ValueError(f"{csv_file}: lists no picture; make it again with create_data_lists.py")
    return [_read_row(csv_file, number, line, scale) for number, line in enumerate(lines, 2)]


def _read_row(csv_file, number, line, scale):
    where = f"{csv_file}, line {number}"
    try:
        made_for, width, height, left, top = (
            int(line.get(field, 0)) for field in ("scale", "width", "height", "left", "top"))
    except (TypeError, ValueError):
        raise ValueError(f"{where}: scale, width, height, left and top must be whole numbers") from None
    if made_for != scale:
        raise ValueError(f"{where}: the list was made for scale {made_for}, not {scale}; "
                         f"make one with create_data_lists.py --scale {scale}")
    if min(width, height) < scale or width % scale or height % scale:
        raise ValueError(f"{where}: {width}×{height} is not a size that scale {scale} divides")
    if min(left, top) < 0 or (left or top) and line["lr"]:
        raise ValueError(f"{where}: left and top must be 0 or more, and 0 where there is a low-resolution file")
    files = [csv_file.parent / line[field] if line[field] else None for field in ("hr", "lr")]
    if files[0] is None:
        raise ValueError(f"{where}: names no high-resolution picture (column 'hr')")
    for file in filter(None, files):
        if not file.is_file():
            raise FileNotFoundError(f"{where}: there is no file {file}; if the pictures were moved, "
                                    f"make the list again with create_data_lists.py")
    return Row(*files, width, height, left, top)


def read_pair(row, scale):
    """The low- and high-resolution pictures of a row; both grey or both RGB."""
    high = read_picture(row.hr)[row.top : row.top + row.height, row.left : row.left + row.width]
    low = read_picture(row.lr) if row.lr else imresize(high, 1 / scale)
    if high.shape[:2] != (row.height, row.width) or low.shape[:2] != (row.height // scale, row.width // scale):
        raise ValueError(f"{row.hr}: has another size than its list says; make the list again "
                         f"with create_data_lists.py")
    if low.ndim != high.ndim:
        low, high = to_rgb(low), to_rgb(high)
    return low, high


# --------------------------------------------------------------------------------------------- testing


class TestDataset(Dataset):
    """The whole pictures of a list, decoded one at a time when they are asked for.

    `dataset[i]` is a Pair (name, lr, hr) of uint8 pictures, H×W×3, or H×W where the files are grey: the
    published tables take grey values as the luma. The first `keep` of them stay in memory once they were asked for.
    Errors as for `read_list`, `utils.read_picture`.
    """

    __test__ = False  # its name makes pytest want to collect it

    def __init__(self, csv_file, scale=4, keep=0):
        self.rows, self.scale, self.keep, self._kept = read_list(csv_file, scale), scale, keep, {}

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        if index in self._kept:
            return self._kept[index]
        row = self.rows[index]
        pair = Pair(row.hr.stem, *read_pair(row, self.scale))
        if 0 <= index < self.keep:
            self._kept[index] = pair
        return pair


def named_pairs(csv_files, names, scale=4):
    """The pairs of these names from several lists, in the order of the names; the others are not decoded."""
    found = {row.hr.stem: row for csv_file in csv_files for row in read_list(csv_file, scale)}
    return [Pair(name, *read_pair(found[name], scale)) for name in names if name in found]


# -------------------------------------------------------------------------------------------- training


class TrainDataset(Dataset):
    """Random patches of the pictures of a list, 100 per picture and epoch as in the assignment.

    `dataset[n]` is a pair of uint8 tensors, 3×crop/scale×crop/scale and 3×crop×crop. An epoch has
    `len(dataset)` patches, and counting on, n = epoch · len(dataset) + k is patch k of a later epoch (see
    `batches`; a plain DataLoader stays in epoch 0). Each patch depends on (seed, n) alone, not on the
    batch, the worker or what was read before; this is what makes an interrupted training resume exactly.
    Patches are already in random order, picture after picture without repetition, so a batch holds
    patches of different pictures.

    Parameters
    ----------
    csv_file : path
        The list. The pack is made beside it at first use.
    scale, crop : int
        Scale, and side of the high-resolution patch; a multiple of the scale.
    patches_per_picture : int
        Patches per picture and epoch.
    flip, turn : bool
        Flip left-right, and turn by quarters, at random.
    colour_jitter : float
        Largest random change of saturation, brightness, contrast and hue of the high resolution, as shares
        of 1; the low resolution is then made from it by `imresize`. 0 changes nothing.
    jpeg_noise : float
        Share of the patches whose low resolution goes through JPEG, of a random quality from 50 to 94.
    seed : int
        Another seed gives other patches.

    Raises FileNotFoundError or ValueError for lists, pictures and settings that cannot be used.
    """

    def __init__(self, csv_file, scale=4, crop=96, patches_per_picture=100, flip=True, turn=True, colour_jitter=0.0,
                 jpeg_noise=0.0, seed=0, progress=True):
        if crop < scale or crop % scale:
            raise ValueError(f"crop must be a multiple of the scale ({scale}), not {crop!r}")
        if patches_per_picture < 1:
            raise ValueError(f"patches_per_picture must be at least 1, not {patches_per_picture!r}")
        self.rows = read_list(csv_file, scale)
        for row in self.rows:
            if min(row.width, row.height) < crop:
                raise ValueError(f"{row.hr}: is {row.width}×{row.height}, smaller than the crop of {crop}; leave it "
                                 f"out with create_data_lists.py --crop {crop}, or choose a smaller crop")
        self.scale, self.crop, self.patches_per_picture, self.seed = scale, crop, patches_per_picture, seed
        self.flip, self.turn, self.colour_jitter, self.jpeg_noise = flip, turn, colour_jitter, jpeg_noise
        self.pack = make_pack(csv_file, self.rows, scale, partial(read_pair, scale=scale), progress)
        self._epoch = self._drawn = self._placed_epoch = self._pictures = self._on_device = None
        self._ends = ends_of(self.rows, scale)
        self._unchecked = set(range(len(self.rows)))  # pairs whose pixels this process has not compared with their CRC

    def __len__(self):
        return len(self.rows) * self.patches_per_picture

    @property
    def bytes(self):
        """Size of the pack."""
        return int(self._ends[-1])

    @property
    def digest(self):
        """A text that stands for all pixels of the training pictures, wherever they are stored."""
        return f"{len(self.rows)} pictures, {zlib.crc32(repr(self.pack.crcs).encode()):08x}"

    @property
    def is_on_device(self):
        return self._on_device is not None

    def __getitem__(self, n):
        """Patch number n, or for a sequence of numbers all of them at once, as N×3×H×W, which is much quicker.

        On the device that holds the pack after `keep_on`, else on the CPU.
        """
        if np.ndim(n) == 0:
            low, high = self[[n]]
            return low[0], high[0]
        plan, chances = self._patches(n)
        low, high = self._cut(plan) if self._on_device is None else self._gather(n)
        if self.colour_jitter:
            high = _jittered(high, (2 * chances[:, :4] - 1) * self.colour_jitter)
            low = imresize(high, 1 / self.scale)
        chosen = np.flatnonzero(chances[:, 4] < self.jpeg_noise)
        if len(chosen):
            low[chosen] = _through_jpeg(low[chosen].cpu(), 50 + (45 * chances[chosen, 5]).astype(int)).to(low.device)
        return low, high

    def _cut(self, plan):
        """The patches of a plan from the memory-mapped pack."""
        if self._pictures is None:
            self._pictures = open_pack(self.pack.file, self.rows, self.scale)
        if self.pack.file.stat().st_size < self.bytes:  # reading beyond its end would end the program
            raise ValueError(f"{self.pack.file}: was cut off while it was read; delete it, and it will be made again")
        size, crop = self.crop // self.scale, self.crop
        low = np.empty((len(plan), 3, size, size), np.uint8)
        high = np.empty((len(plan), 3, crop, crop), np.uint8)
        for i, (picture, top, left, flip, turns) in enumerate(plan.tolist()):
            if picture in self._unchecked:
                self._check(picture)
            small, large = self._pictures[picture]
            low[i] = _augmented(small[top : top + size, left : left + size], flip, turns)
            top, left = top * self.scale, left * self.scale
            high[i] = _augmented(large[top : top + crop, left : left + crop], flip, turns)
        return torch.from_numpy(low), torch.from_numpy(high)

    def _check(self, picture):
        """Compare the pixels of a pair with their CRC, at its first use in a process."""
        small, large = self._pictures[picture]
        if zlib.crc32(large, zlib.crc32(small)) != self.pack.crcs[picture]:
            raise ValueError(f"{self.pack.file}: is damaged (its pixels of {self.rows[picture].hr.name} have changed); "
                             f"delete it, and it will be made again")
        self._unchecked.discard(picture)

    def keep_on(self, device):
        """Copy the whole pack to a device; from then on batches are cut there, the same as on the CPU."""
        self._pictures = self._pictures or open_pack(self.pack.file, self.rows, self.scale)
        for picture in sorted(self._unchecked):
            self._check(picture)
        pixels = torch.from_file(str(self.pack.file), size=self.bytes, dtype=torch.uint8).to(device)
        widths = np.array([row.width for row in self.rows])
        high_starts = self._ends - np.array([3 * row.width * row.height for row in self.rows])
        low_starts = np.concatenate([[0], self._ends[:-1]])
        # First byte and width of every picture, and for each flip and turn where a patch's pixels come from.
        self._on_device = pixels, {
            1: (low_starts, widths // self.scale, _origins(self.crop // self.scale, device)),
            self.scale: (high_starts, widths, _origins(self.crop, device))}

    def _gather(self, indices):
        """The patches of these numbers from the pack on the device."""
        pixels, tables = self._on_device
        places = torch.cat([self._places(epoch)[:, _as_slice(k)] for epoch, k, _ in self._by_epoch(indices)], dim=1)
        way, channel = places[0], torch.arange(3, device=pixels.device)[:, None, None]
        patches = []
        for (_, _, origins), (corner, width) in zip(tables.values(), places[1:].view(2, 2, -1, 1, 1)):
            y, x = origins[way].unbind(1)  # N×size×size each
            patches.append(pixels[(corner + 3 * (y * width + x))[:, None] + channel])
        return tuple(patches)

    def _places(self, epoch):
        """Where the patches of an epoch are in the pack, on the device: rows way, then corner and width of each size.

        All at once, because every way to the device costs a wait.
        """
        if epoch != self._placed_epoch:
            pixels, tables = self._on_device
            picture, top, left, flip, turns = self._drawn_for(epoch)[0].T
            rows = [4 * flip + turns]
            for factor, (starts, widths, _) in tables.items():
                width = widths[picture]
                rows += [starts[picture] + 3 * factor * (top * width + left), width]
            self._placed_epoch, self._placed = epoch, torch.from_numpy(np.stack(rows)).to(pixels.device)
        return self._placed

    def _patches(self, indices):
        """What was drawn for patches: N×5 whole numbers (picture, top and left in low resolution, flip, quarter
        turns), and N×6 numbers in [0, 1) for colours and JPEG."""
        plan, chances = np.empty((len(indices), 5), np.int64), np.empty((len(indices), 6))
        for epoch, k, chosen in self._by_epoch(indices):
            for values, drawn in zip((plan, chances), self._drawn_for(epoch)):
                values[chosen] = drawn[k]
        return plan, chances

    def _by_epoch(self, indices):
        """(epoch, places in it, which of the numbers): one, or two where a batch ends in the next epoch."""
        epochs, k = np.divmod(np.asarray(indices, np.int64), len(self))
        return [(epoch, k[epochs == epoch], epochs == epoch) for epoch in np.unique(epochs)]

    def _drawn_for(self, epoch):
        if epoch != self._epoch:
            self._epoch, self._drawn = epoch, self._draw(epoch)
        return self._drawn

    def _draw(self, epoch):
        random = np.random.default_rng([self.seed, epoch])
        count = len(self.rows)
        pictures = np.concatenate([random.permutation(count) for _ in range(self.patches_per_picture)])
        sizes = np.array([(row.height, row.width) for row in self.rows])[pictures]
        corners = random.integers((sizes - self.crop) // self.scale + 1)
        flips = random.integers(2, size=len(pictures)) * self.flip
        turns = random.integers(4, size=len(pictures)) * self.turn
        return np.column_stack([pictures, corners, flips, turns]), random.random((len(pictures), 6))

    def __getstate__(self):  # sent to worker processes: they map the pack themselves
        return {**self.__dict__, "_pictures": None, "_drawn": None, "_epoch": None}


def training_patches(cfg, progress=True):
    """The training patches of these settings, a TrainDataset."""
    return TrainDataset(cfg.train_list, cfg.scale, cfg.crop, cfg.patches_per_picture, cfg.flip, cfg.turn,
                        cfg.colour_jitter, cfg.jpeg_noise, cfg.seed, progress)


def _augmented(patch, flip, turns):
    """A patch H×W×C, flipped left-right, then turned by quarters against the clock, as C×H×W."""
    if flip:
        patch = patch[:, ::-1]
    return (np.rot90(patch, turns) if turns else patch).transpose(2, 0, 1)


def _origins(size, device):
    """8×2×size×size: row and column from which each pixel comes, for 4 · flip + turns."""
    place = np.moveaxis(np.indices((size, size)), 0, 2)
    ways = [_augmented(place, flip, turns) for flip in (0, 1) for turns in range(4)]
    return torch.from_numpy(np.stack(ways)).to(device)


def _as_slice(k):
    """Whole numbers in even steps as a slice, which a GPU need not wait for; others as they are."""
    steps = np.unique(np.diff(k))
    if len(steps) > 1 or len(steps) and steps[0] < 1:
        return torch.from_numpy(k)
    return slice(int(k[0]), int(k[-1]) + 1, int(steps[0]) if len(steps) else 1)


def _jittered(batch, changes):
    """uint8 patches N×3×H×W with their colours changed a little.

    `changes` is N×4, shares from -1 to 1: saturation, brightness, contrast, and hue (of the circle). The whole batch
    at once, what torchvision's `adjust_…` do to one picture with one factor.
    """
    saturation, brightness, contrast, hue = torch.from_numpy(changes).float().to(batch.device).T[..., None, None, None]
    batch = batch / 255
    batch = _grey(batch).lerp(batch, 1 + saturation).clamp_(0, 1)
    batch = (batch + brightness).clamp_(0, 1)
    batch = _grey(batch).mean(dim=(1, 2, 3), keepdim=True).lerp(batch, 1 + contrast).clamp_(0, 1)
    # Hue in sixths of the circle, then back with the same lightness and chroma.
    high, low = batch.amax(1, keepdim=True), batch.amin(1, keepdim=True)
    chroma, (red, green, blue) = high - low, batch.split(1, dim=1)
    sixths = torch.where(red == high, green - blue, torch.where(green == high, blue - red, red - green))
    sixths = sixths / chroma.clamp(min=1e-6) + torch.where(red == high, 0, torch.where(green == high, 2, 4)) + 6 * hue
    k = (torch.arange(5, 0, -2, device=batch.device).view(3, 1, 1) + sixths) % 6
    batch = high - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)
    return (255 * batch).round_().to(torch.uint8)


def _grey(batch):
    return batch[:, :1] * 0.2989 + batch[:, 1:2] * 0.587 + batch[:, 2:] * 0.114


def _through_jpeg(patches, qualities):
    """uint8 patches N×3×H×W on the CPU after JPEG compression."""
    packed = []
    for patch, quality in zip(patches, qualities.tolist()):
        file = io.BytesIO()
        Image.fromarray(patch.permute(1, 2, 0).contiguous().numpy()).save(file, "JPEG", quality=quality)
        packed.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))
    return torch.stack(packed)


def batches(dataset, batch_size, first=0, count=None, workers=0, part=0, parts=1, pinned=False):
    """`count` batches of a TrainDataset from batch number `first` on, counted through all epochs.

    Without `count`: as many as fit into an epoch. Of each batch only part number `part` of `parts` is
    taken, which several processes share without overlap. A DataLoader of (low, high) uint8 tensors, in pinned
    memory where that speeds their way to a GPU up.
    Raises ValueError when an epoch has no whole batch, or a batch cannot be shared evenly.
    """
    if batch_size % parts:
        raise ValueError(f"batch_size {batch_size} cannot be shared by {parts} processes; choose a multiple")
    if len(dataset) < batch_size:
        raise ValueError(f"batch_size {batch_size} is larger than an epoch of {len(dataset)} patches; choose a "
                         f"smaller one, or more patches_per_picture")
    count = len(dataset) // batch_size if count is None else count
    chunks = [range(i * batch_size + part, (i + 1) * batch_size, parts) for i in range(first, first + count)]
    on_device = dataset.is_on_device
    return DataLoader(dataset, sampler=chunks, batch_size=None, num_workers=0 if on_device else workers,
                      pin_memory=pinned and not on_device)
