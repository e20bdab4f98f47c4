"""From CSV lists to tensors: random training patches, and whole pictures for testing.

Training pictures are decoded once into an *image cache*, a file of raw pixels beside the list that is
memory-mapped afterwards: every later epoch and run cuts its patches there without decoding anything.
"""

import csv
import zlib
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from imresize import imresize
from kit.data.augment import compress_jpeg, flip_and_rotate, jitter_colours, send
from kit.data.image_cache import ends_of, make_image_cache, open_image_cache
from kit.data.ondevice import DeviceCache
from kit.data.pairing import read_list_file
from kit.language import tr
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
        fields, lines = read_list_file(csv_file)
    except csv.Error as error:
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
    hr = read_picture(row.hr, stored=True)[row.top : row.top + row.height, row.left : row.left + row.width]
    lr = read_picture(row.lr, stored=True) if row.lr else imresize(hr, 1 / scale)
    if hr.shape[:2] != (row.height, row.width) or lr.shape[:2] != (row.height // scale, row.width // scale):
        raise ValueError(f"{row.hr}: has another size than its list says; make the list again "
                         f"with create_data_lists.py")
    if lr.ndim != hr.ndim:
        lr, hr = to_rgb(lr), to_rgb(hr)
    return lr, hr


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

    def __repr__(self):
        return tr("{count} pictures", count=len(self))

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
        The list. The image cache is made beside it at first use.
    scale, crop : int
        Scale, and side of the high-resolution patch; a multiple of the scale.
    patches_per_picture : int
        Patches per picture and epoch.
    flip, rotate : bool
        Flip left-right, and rotate by quarter turns, at random.
    colour_jitter : float
        Largest random change of saturation, brightness, contrast and hue of the high resolution, as shares
        of 1; the low resolution is then made from it by `imresize`. 0 changes nothing.
    jpeg_noise : float
        Share of the patches whose low resolution goes through JPEG, of a random quality from 50 to 94.
    seed : int
        Another seed gives other patches.

    Raises FileNotFoundError or ValueError for lists, pictures and settings that cannot be used.
    """

    def __init__(self, csv_file, scale=4, crop=96, patches_per_picture=100, flip=True, rotate=True, colour_jitter=0.0,
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
        self.flip, self.rotate, self.colour_jitter, self.jpeg_noise = flip, rotate, colour_jitter, jpeg_noise
        self.cache = make_image_cache(csv_file, self.rows, scale, partial(read_pair, scale=scale), progress)
        self._epoch = self._drawn = self._pictures = self._on_device = None
        self._ends = ends_of(self.rows, scale)
        self._unchecked = set(range(len(self.rows)))  # pairs whose pixels this process has not compared with their CRC

    def __len__(self):
        return len(self.rows) * self.patches_per_picture

    def __repr__(self):
        return tr("{count} training pictures, {patches:,} patches per epoch", count=len(self.rows), patches=len(self))

    @property
    def bytes(self):
        """Size of the cache."""
        return int(self._ends[-1])

    @property
    def digest(self):
        """A text that stands for all pixels of the training pictures, wherever they are stored."""
        return f"{len(self.rows)} pictures, {zlib.crc32(repr(self.cache.crcs).encode()):08x}"

    @property
    def is_on_device(self):
        return self._on_device is not None

    def __getitem__(self, n):
        """Patch number n, or for a sequence of numbers all of them at once, as N×3×H×W, which is much quicker.

        On the device that holds the cache after `keep_on`, else on the CPU.
        """
        if np.ndim(n) == 0:
            lr, hr = self[[n]]
            return lr[0], hr[0]
        plan, chances = self._patches(n)
        lr, hr = self._cut(plan) if self._on_device is None else self._gather(n)
        if self.colour_jitter:
            hr = jitter_colours(hr, (2 * chances[:, :4] - 1) * self.colour_jitter)
            lr = imresize(hr, 1 / self.scale)
        chosen = np.flatnonzero(chances[:, 4] < self.jpeg_noise)
        if len(chosen):
            # Beside a GPU, if possible: fetching patches from it would make it wait.
            own = self.is_on_device and not self.colour_jitter
            small = self._cut(plan[chosen])[0] if own else lr[chosen].cpu()
            small = compress_jpeg(small, 50 + (45 * chances[chosen, 5]).astype(int))
            lr.index_copy_(0, send(torch.from_numpy(chosen), lr.device), send(small, lr.device))
        return lr, hr

    def _cut(self, plan):
        """The patches of a plan from the memory-mapped image cache."""
        if self._pictures is None:
            self._pictures = open_image_cache(self.cache.file, self.rows, self.scale)
        # Reading beyond its end would end the program. (When another program has made a newer one it has no name any
        # more, and is still there for those who have it open.)
        if self.cache.file.exists() and self.cache.file.stat().st_size < self.bytes:
            raise ValueError(f"{self.cache.file}: was cut off while it was read; end the programs that use it, delete "
                             f"it, and it will be made again")
        size, crop = self.crop // self.scale, self.crop
        lr = np.empty((len(plan), 3, size, size), np.uint8)
        hr = np.empty((len(plan), 3, crop, crop), np.uint8)
        for i, (picture, top, left, flip, turns) in enumerate(plan.tolist()):
            if picture in self._unchecked:
                self._check(picture)
            small, large = self._pictures[picture]
            lr[i] = flip_and_rotate(small[top : top + size, left : left + size], flip, turns)
            top, left = top * self.scale, left * self.scale
            hr[i] = flip_and_rotate(large[top : top + crop, left : left + crop], flip, turns)
        return torch.from_numpy(lr), torch.from_numpy(hr)

    def _check(self, picture):
        """Compare the pixels of a pair with their CRC, at its first use in a process."""
        small, large = self._pictures[picture]
        if zlib.crc32(large, zlib.crc32(small)) != self.cache.crcs[picture]:
            raise ValueError(f"{self.cache.file}: is damaged (its pixels of {self.rows[picture].hr.name} have "
                             f"changed); end the programs that use it, delete it, and it will be made again")
        self._unchecked.discard(picture)

    def keep_on(self, device):
        """Copy the whole image cache to a device; from then on batches are cut there, the same as on the CPU."""
        self._pictures = self._pictures or open_image_cache(self.cache.file, self.rows, self.scale)
        for picture in sorted(self._unchecked):
            self._check(picture)
        self._on_device = DeviceCache(self.cache.file, self.rows, self._ends, self.scale, self.crop, device)

    def _gather(self, indices):
        """The patches of these numbers from the cache on the device."""
        return self._on_device.gather([(epoch, self._drawn_for(epoch)[0], k)
                                       for epoch, k, _ in self._by_epoch(indices)])

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
        turns = random.integers(4, size=len(pictures)) * self.rotate
        return np.column_stack([pictures, corners, flips, turns]), random.random((len(pictures), 6))

    def __getstate__(self):  # sent to worker processes: they map the cache themselves
        return {**self.__dict__, "_pictures": None, "_drawn": None, "_epoch": None}


def training_patches(cfg, machine=None, progress=True):
    """The training patches of these settings, a TrainDataset; on the device of a `machine` that can keep them."""
    train_set = TrainDataset(cfg.train_list, cfg.scale, cfg.crop, cfg.patches_per_picture, cfg.flip, cfg.rotate,
                             cfg.colour_jitter, cfg.jpeg_noise, cfg.seed, progress)
    if machine and machine.can_keep(train_set.bytes, cfg.data_on_gpu):
        train_set.keep_on(machine.device)
    return train_set


def batches(dataset, batch_size, first=0, count=None, workers=0, part=0, parts=1, pinned=False):
    """`count` batches of a TrainDataset from batch number `first` on, counted through all epochs.

    Without `count`: as many as fit into an epoch. Of each batch only part number `part` of `parts` is
    taken, which several processes share without overlap. A DataLoader of (lr, hr) uint8 tensors, in pinned
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
