"""Pictures, value ranges, PSNR and SSIM, enlarging; and the vocabulary of the kit.

The words of the kit, in every module and notebook:

* a *picture* is a NumPy array of uint8, H×W×3 (RGB) or H×W (grey), or the file that it is stored in;
* a *batch* is a tensor N×3×H×W as networks see it: `lr` (low resolution) in [0, 1], `hr` (high resolution) and `sr`,
  what a generator makes of lr, in [-1, 1] (section 3.2 of the SRGAN paper), or uint8 before conversion;
* a *pair* is the low- and the high-resolution picture of one motif (`lr`, `hr`); a *patch* is a piece of one;
* an *image* is any array or tensor with pixels, which is what `imresize` takes;
* an *update* is one step of an optimizer, an *epoch* so many updates between two validations, a *phase* so many
  epochs with the same losses, a *run* all its phases and the folder where they are kept.
"""

import math
from numbers import Integral
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from imresize import imresize
from kit.compute.device import free_memory, freed_memory_kept, has_bf16, is_out_of_memory
from kit.compute.inference import QuickCopy, receptive_field, spans
from kit.compute.threads import quickest_now, threads
from kit.console import progress_bar
from kit.files import result_names, write_whole
from kit.language import tr
from kit.picture_files import as_srgb, open_picture, pixels, split_alpha

# ------------------------------------------------------------------------------------------- pictures


def read_picture(path, stored=False):
    """Read a picture file as uint8: H×W×3 RGB, or H×W when the file is grey.

    EXIF rotation is applied, colours are converted to sRGB where the file's profile says that they are others, palettes
    are resolved, CMYK is converted, 16 bits are scaled to 8 (see `kit.picture_files.open_picture`), an alpha channel is
    dropped when nothing is transparent (a grey picture stays grey). With `stored` the values stay as they are stored,
    whatever the profile: so pictures of training and tests are read, as MATLAB's imread and all of the literature read
    them.

    Raises FileNotFoundError, or ValueError naming the file and what is wrong with it: not a picture,
    damaged, animated, partly transparent, or in a mode with no plain meaning in 8 bits.
    """
    path = Path(path).expanduser()
    image, alpha = split_alpha(open_picture(path, stored))
    if alpha is not None:
        raise ValueError(f"{path}: is partly transparent; flatten it onto a background first")
    return pixels(image if stored else as_srgb(image, path), path)


def save_picture(path, picture):
    """Save a uint8 picture as PNG, whole or not at all, making its folder if need be."""
    check_picture(picture, "save_picture")
    with write_whole(Path(path).expanduser()) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", compress_level=4)  # hardly larger, and much quicker


def check_picture(picture, who):
    """Raise TypeError or ValueError unless `picture` is a uint8 array H×W×3 or H×W."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        kind = picture.dtype if hasattr(picture, "dtype") else type(picture).__name__
        raise TypeError(f"{who} takes a NumPy array of uint8, not {kind}")
    if not (picture.ndim == 2 or picture.ndim == 3 and picture.shape[2] == 3) or 0 in picture.shape:
        raise ValueError(f"{who} takes a picture H×W×3 or H×W, not shape {picture.shape}")


def to_rgb(picture):
    """An H×W×3 picture as it is, a grey H×W one with its values in all three channels."""
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


# --------------------------------------------------------------------------------------- value ranges


def to_batch(picture):
    """uint8 picture H×W×3 → uint8 tensor 1×3×H×W (no copy of one that lies in memory row by row)."""
    if min(picture.strides) < 0:  # which NumPy calls contiguous where a side has one pixel, and PyTorch does not take
        picture = picture.copy()
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]


def to_unit(batch):
    """uint8 tensor → float32 in [0, 1]: the range of low-resolution input."""
    return batch.to(torch.float32, copy=True).mul_(1 / 255)


def to_signed(batch):
    """uint8 tensor → float32 in [-1, 1]: the range of high-resolution targets."""
    return batch.to(torch.float32, copy=True).mul_(1 / 127.5).sub_(1)


def to_uint8(batch):
    """Float tensor in [-1, 1] → uint8 tensor, rounded and clipped: the inverse of `to_signed`."""
    return ((batch.float() + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


# -------------------------------------------------------------------------------------------- metrics


def luma(picture):
    """Y of MATLAB's `rgb2ycbcr` (ITU-R BT.601, 16…235), rounded to whole numbers, float64 H×W.

    The values of a grey picture are its luma already.
    """
    if picture.ndim == 2:
        return picture.astype(np.float64)
    return np.floor(16 + picture @ np.array([65.481, 128.553, 24.966]) / 255 + 0.5)


def psnr(sr, hr, border=4):
    """Peak signal-to-noise ratio of two pictures in dB, by the protocol of the published tables.

    On the rounded luma, peak 255, `border` pixels cut from every side (the scale, by convention).

    Parameters
    ----------
    sr, hr : numpy.ndarray
        uint8 pictures of one shape, H×W×3 or H×W.
    border : int
        Pixels to leave out at every side.

    Returns
    -------
    float
        dB; infinite for equal pictures.

    Raises TypeError or ValueError for anything but two uint8 pictures of one shape, large enough.
    """
    sr, hr = _comparable(sr, hr, border, 1, "psnr")
    mse = np.mean((sr - hr) ** 2)
    return float(10 * np.log10(255**2 / mse)) if mse else math.inf


def ssim(sr, hr, border=4):
    """Structural similarity of two pictures (Wang et al., IEEE TIP 13(4), 2004), at most 1.

    On the same luma and area as `psnr`, with the 11×11 Gaussian window (σ = 1.5), K₁ = 0.01 and
    K₂ = 0.03 of the article, averaged where the window fits. Parameters and errors as for `psnr`.
    """
    return float(_ssim(sr, hr, border)[0])


def ssim_map(sr, hr, border=0):
    """The values that `ssim` is the mean of, one for each pixel within the border, as a float array."""
    return _ssim(sr, hr, border)[1]


def _ssim(sr, hr, border):
    from skimage.metrics import structural_similarity  # here: it costs a second of every start

    sr, hr = _comparable(sr, hr, border, 11, "ssim")
    return structural_similarity(sr, hr, data_range=255, gaussian_weights=True, sigma=1.5,
                                 use_sample_covariance=False, full=True)


def _comparable(sr, hr, border, smallest, who):
    """The lumas of two pictures without their borders, checked."""
    check_picture(sr, who)
    check_picture(hr, who)
    if sr.shape != hr.shape:
        raise ValueError(f"{who} compares pictures of one shape, not {sr.shape} with {hr.shape}")
    if not isinstance(border, Integral) or border < 0:
        raise ValueError(f"border must be a whole number of pixels, not {border!r}")
    if min(sr.shape[:2]) < 2 * border + smallest:
        raise ValueError(f"{who}: a {sr.shape[1]}×{sr.shape[0]} picture is too small for a border of {border}")
    inside = np.s_[border : sr.shape[0] - border, border : sr.shape[1] - border]
    return luma(sr)[inside], luma(hr)[inside]


# ------------------------------------------------------------------------------------------ enlarging


def bicubic(picture, scale=4):
    """A picture enlarged with MATLAB's bicubic interpolation: the baseline of every table.

    `padding="replicate"`, as in the MATLAB behind the published row.
    """
    return imresize(picture, scale, padding="replicate")


def super_resolve(generator, picture, *, tile=None, precision="auto", progress=False, self_ensemble=False):
    """Enlarge one picture of any size with a generator.

    The picture is cut into tiles that overlap by the radius of the generator's receptive field, so the result is that
    of the uncut picture: there can be no seam. Memory is bounded by the tile, not by the picture.

    Parameters
    ----------
    generator : torch.nn.Module
        Any network N×3×H×W in [0, 1] → N×3×scale·H×scale·W in [-1, 1]. Where its weights are (CPU or GPU),
        the work is done. It is used in evaluation mode, whatever mode it is in, and not changed. For one that
        only takes multiples of a size, found by trying, pictures are padded.
    picture : numpy.ndarray
        uint8 H×W×3. A grey H×W picture goes through the network as RGB and comes back grey.
    tile : int, optional
        Largest side of what the network sees at once, in low-resolution pixels, overlap included. Without
        it, what fits into some 1.5 GB on a CPU, and into half of the free memory on a GPU. When memory runs
        out all the same, smaller tiles are tried.
    precision : {"auto", "fp32", "bf16"}
        Number format of the network; "auto" is bf16 where the hardware has it. A network that cannot compute in
        bf16 does so in fp32.
    progress : bool
        Show a progress bar over the tiles.
    self_ensemble : bool
        Enlarge the picture's eight flips and quarter turns and take the mean of what comes out, in eight times the
        time ("+" in the tables since EDSR, arXiv 1707.02921, sec. 3.4).

    Returns
    -------
    numpy.ndarray
        uint8, scale·H × scale·W (× 3).

    Raises TypeError or ValueError for anything but a uint8 picture, a tile below the overlap, a network that does
    not enlarge, and where tiles are needed for one whose receptive field cannot be known (see
    `kit.compute.inference.receptive_field`).
    """
    check_picture(picture, "super_resolve")
    return Enlarger(generator, tile=tile, precision=precision, progress=progress, self_ensemble=self_ensemble)(picture)


class Enlarger:
    """A function that enlarges one picture as `super_resolve` does; the generator is prepared once for all.

    Parameters and errors as for `super_resolve`. It keeps the weights that the generator has now; `scale` is
    how many times it enlarges, `note` what is not as was asked for (None, or a sentence about the number format).
    """

    def __init__(self, generator, *, tile=None, precision="auto", progress=False, self_ensemble=False):
        self.self_ensemble = self_ensemble
        self.device = next(generator.parameters(), torch.empty(0)).device
        if precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be 'auto', 'fp32' or 'bf16', not {precision!r}")
        bf16 = precision == "bf16" or precision == "auto" and has_bf16(self.device)
        with self._threads():
            self.network = QuickCopy(generator, self.device, bf16)
        self.scale, self.note = self.network.scale, self.network.note
        self.tile, self.progress, self._receptive_field = tile, progress, None
        if tile is not None and tile <= 2 * self.receptive_field:
            raise ValueError(f"tile must be larger than {2 * self.receptive_field}, twice the radius of this "
                             f"generator's receptive field, not {tile}")

    @property
    def receptive_field(self):
        """How far tiles must overlap. Raises ValueError as `kit.compute.inference.receptive_field` does."""
        if self._receptive_field is None:
            with self._threads():
                self._receptive_field = receptive_field(self.network.network)
        return self._receptive_field

    def __call__(self, picture):
        check_picture(picture, "an enlarger")
        if not self.self_ensemble:
            return self._whole(picture)
        total = 0
        for turns in range(8):  # and from the fourth on mirrored, too
            seen = np.rot90(picture if turns < 4 else picture[:, ::-1], turns % 4)
            made = np.rot90(self._whole(np.ascontiguousarray(seen)), -(turns % 4))
            total = total + (made if turns < 4 else made[:, ::-1]).astype(np.uint16)
        return ((total + 4) // 8).astype(np.uint8)

    @torch.inference_mode()
    def _whole(self, picture):
        side = self._side(*picture.shape[:2])
        while True:
            try:
                with self._threads(), freed_memory_kept():
                    return self._enlarge(picture, side)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or side <= self._smallest():
                    raise
                side = max(side // 2, self._smallest())
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _threads(self):
        """The context of all computing on a CPU: as many threads as are quickest beside what else runs there now."""
        return threads(quickest_now() if self.device.type == "cpu" else None)

    def check_size(self, height, width):
        """Raise ValueError for low-resolution pictures of a size that cannot be enlarged, found without doing it.

        Some networks can only be asked by doing it: for them nothing is raised.
        """
        if self._side(height, width) >= max(height, width):
            self.network.check_size(height, width)

    def _side(self, height, width):
        """How large the pieces are that a picture is cut into; as large as the picture if it needs not to be."""
        if self.tile is not None:
            return self.tile
        pixels = self._affordable_pixels()
        return max(height, width) if height * width <= pixels else max(int(math.sqrt(pixels)), self._smallest())

    def _smallest(self):
        return 2 * self.receptive_field + 8

    def _affordable_pixels(self):
        """How many low-resolution pixels the network can enlarge at once with a share of the memory."""
        budget = free_memory(self.device) / 2 if self.device.type == "cuda" else 1.5e9
        # At its widest, a network holds four times its largest layer: before and after a pixel shuffle, an
        # activation, and what the last convolution works with.
        widest, size = self.network.widest, self.network.bits // 8
        return min(budget / (4 * widest * size), (2**31 - 1) / widest)  # not all of PyTorch's kernels count further

    def _enlarge(self, picture, tile):
        scale, (height, width) = self.scale, picture.shape[:2]
        overlap = 0 if tile >= max(height, width) else self.receptive_field
        output = np.empty((height * scale, width * scale) + picture.shape[2:], np.uint8)
        tiles = [(y, x) for y in spans(height, tile, overlap) for x in spans(width, tile, overlap)]
        for (top, bottom), (left, right) in progress_bar(tiles, tr("enlarging"), self.progress):
            above, before = max(top - overlap, 0), max(left - overlap, 0)
            lr = to_batch(to_rgb(picture[above : bottom + overlap, before : right + overlap])).to(self.device)
            sr = to_uint8(self.network(to_unit(lr)))[0].permute(1, 2, 0)
            sr = sr[(top - above) * scale : (bottom - above) * scale,
                    (left - before) * scale : (right - before) * scale].cpu().numpy()
            if picture.ndim == 2:
                sr = np.round(sr.mean(axis=2))
            output[top * scale : bottom * scale, left * scale : right * scale] = sr
        return output


def super_resolve_folder(generator, folder, out, *, progress=True, **options):
    """Enlarge every picture of a folder, writing PNGs of the same names to the folder `out`.

    Where several files differ in their endings alone, these stay in the names: `IMG_1.jpg.png`. `options` go to
    `super_resolve`. Returns (written, left_out): the list of files written, and one of (file name, reason) for files
    that are not pictures, and pictures whose result would have the name of another's. Raises FileNotFoundError for a
    missing folder, and ValueError where `out` is the same, for originals would be overwritten.
    """
    folder, out = Path(folder).expanduser(), Path(out).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    if out.resolve() == folder.resolve():
        raise ValueError(f"{out}: the pictures themselves would be overwritten; choose another folder for the results")
    written, left_out, enlarge = [], [], Enlarger(generator, **options)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    taken = {}
    bar = progress_bar(files, tr("enlarging"), progress, unit=f" {tr('pictures')}")
    for path, name in zip(bar, result_names(files)):
        try:
            picture = read_picture(path)
        except ValueError as error:
            left_out.append((path.name, str(error)))
            continue
        other = taken.setdefault(name.name.lower(), path)  # (there are systems that know one case only)
        if other != path:
            left_out.append((path.name, tr("would become {target}, as {other} does; enlarge it with another --out",
                                           target=name.name, other=other.name)))
            continue
        written.append(out / name.name)
        save_picture(written[-1], enlarge(picture))
    return written, left_out
