"""Tools that everything else shares: files and pictures, value ranges, PSNR and SSIM, enlarging, checkpoints, plots.

A *picture* is a NumPy array of uint8, H×W×3 (RGB) or H×W (grey). Networks see float tensors N×3×H×W:
low resolution in [0, 1], high resolution in [-1, 1] (section 3.2 of the SRGAN paper).
"""

import csv
import json
import math
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import save as safetensors_bytes
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from imresize import imresize
from models import Generator

# ---------------------------------------------------------------------------------------------- files


@contextmanager
def write_whole(path):
    """Write a file whole or not at all.

    Yields a temporary path beside `path` to write to; when the block succeeds it is renamed to
    `path`. Whatever happens, a reader finds the old file or the new one, never half of one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut can leave the new name on an empty file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path, rows, fields):
    """Write dictionaries as a CSV file with a header line; values missing in a row stay empty."""
    with write_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def progress_bar(iterable=None, description="", show=True, **options):
    """A tqdm bar on standard output, as text: it looks the same in a terminal, a live and a saved notebook."""
    return tqdm(iterable, description, file=sys.stdout, mininterval=0.5, disable=not show, **options)


def text_table(rows, header):
    """Rows of cells as aligned text; the first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                       for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


# ------------------------------------------------------------------------------------------- pictures


def read_picture(path):
    """Read a picture file as uint8: H×W×3 RGB, or H×W when the file is grey.

    EXIF rotation is applied, palettes are resolved, CMYK is converted, 16-bit grey is scaled to 8 bits,
    an alpha channel is dropped when nothing is transparent.

    Raises FileNotFoundError, or ValueError naming the file and what is wrong with it: not a picture,
    damaged, animated, partly transparent, or in a mode with no plain meaning in 8 bits.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            image = ImageOps.exif_transpose(image)
            image.load()
    except Exception as error:  # Pillow raises a dozen different ones for damaged files
        raise ValueError(f"{path}: not a readable picture ({error})") from error
    if frames > 1:
        raise ValueError(f"{path}: has {frames} frames; save the one you mean as PNG")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            raise ValueError(f"{path}: is partly transparent; flatten it onto a background first")
        image = image.convert("RGB")
    if image.mode.startswith("I;16"):
        return np.round(np.asarray(image).astype(np.float64) / 257).astype(np.uint8)
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    if image.mode in ("RGB", "P", "CMYK", "YCbCr"):
        return np.array(image.convert("RGB"))
    raise ValueError(f"{path}: has Pillow's mode {image.mode}, which has no plain 8-bit meaning; "
                     f"save it as an 8-bit RGB or grey PNG")


def save_picture(path, picture):
    """Save a uint8 picture as PNG, whole or not at all, making its folder if need be."""
    check_picture(picture, "save_picture")
    with write_whole(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")


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
    """uint8 picture H×W×3 → uint8 tensor 1×3×H×W (no copy)."""
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

# PSNR (dB) and SSIM at ×4 as published: table 2 of arXiv 1609.04802v5, and the READMEs of two implementations on
# GitHub, sgrvinod/a-PyTorch-Tutorial-to-Super-Resolution and Lornatang/SRGAN-PyTorch. The paper's SSIM comes
# from another tool (daala) and lies above this protocol's; its PSNR is comparable.
PUBLISHED_RESULTS = {
    "paper: bicubic": {"Set5": "28.43 / 0.8211", "Set14": "25.99 / 0.7486", "B100": "25.94 / 0.6935"},
    "paper: SRResNet": {"Set5": "32.05 / 0.9019", "Set14": "28.49 / 0.8184", "B100": "27.58 / 0.7620"},
    "paper: SRGAN": {"Set5": "29.40 / 0.8472", "Set14": "26.02 / 0.7397", "B100": "25.16 / 0.6688"},
    "sgrvinod: SRResNet": {"Set5": "31.927 / 0.902", "Set14": "28.588 / 0.799", "B100": "27.587 / 0.756"},
    "sgrvinod: SRGAN": {"Set5": "29.719 / 0.859", "Set14": "26.509 / 0.729", "B100": "25.531 / 0.678"},
    "Lornatang: SRResNet": {"Set5": "32.16 / 0.8938", "Set14": "28.57 / 0.7815", "B100": "27.56 / 0.7367"},
    "Lornatang: SRGAN": {"Set5": "30.67 / 0.8627", "Set14": "27.12 / 0.7321", "B100": "26.22 / 0.6867"},
}


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
    from skimage.metrics import structural_similarity  # here: it costs a second of every start

    sr, hr = _comparable(sr, hr, border, 11, "ssim")
    return float(structural_similarity(sr, hr, data_range=255, gaussian_weights=True, sigma=1.5,
                                       use_sample_covariance=False))


def _comparable(sr, hr, border, smallest, who):
    """The lumas of two pictures without their borders, checked."""
    check_picture(sr, who)
    check_picture(hr, who)
    if sr.shape != hr.shape:
        raise ValueError(f"{who} compares pictures of one shape, not {sr.shape} with {hr.shape}")
    if not isinstance(border, int) or border < 0:
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


def super_resolve(generator, image, *, tile=None, precision="auto", progress=False):
    """Enlarge one picture of any size with a generator.

    The picture is cut into tiles that overlap by the generator's whole reach, so the result is that of
    the uncut picture: there can be no seam. Memory is bounded by the tile, not by the picture.

    Parameters
    ----------
    generator : models.Generator
        Where its weights are (CPU or GPU), the work is done. Batch norm is used in evaluation mode,
        whatever mode the generator is in.
    image : numpy.ndarray
        uint8 H×W×3. A grey H×W picture goes through the network as RGB and comes back grey.
    tile : int, optional
        Largest side of what the network sees at once, in low-resolution pixels, overlap included. Without
        it, what fits into 1.5 GB on a CPU, and into half of the free memory on a GPU. When memory runs
        out all the same, smaller tiles are tried.
    precision : {"auto", "fp32", "bf16"}
        Number format of the network; "auto" is bf16 where the hardware has it. On Set5 it changes the
        mean PSNR of the demo's generator by 0.002 dB.
    progress : bool
        Show a progress bar over the tiles.

    Returns
    -------
    numpy.ndarray
        uint8, scale·H × scale·W (× 3).

    Raises TypeError or ValueError for anything but a uint8 picture, or a tile below the overlap.
    """
    check_picture(image, "super_resolve")
    return enlarger(generator, tile=tile, precision=precision, progress=progress)(image)


@torch.inference_mode()
def enlarger(generator, *, tile=None, precision="auto", progress=False):
    """A function that enlarges one picture as `super_resolve` does; the generator is prepared once for all.

    Parameters and errors as for `super_resolve`. It keeps the weights that the generator has now.
    """
    overlap, device = generator.reach, next(generator.parameters()).device
    if tile is not None and tile <= 2 * overlap:
        raise ValueError(f"tile must be larger than {2 * overlap}, twice the reach of this generator, not {tile}")
    if precision == "auto":
        precision = "bf16" if has_bf16(device) else "fp32"
    network = _for_inference(generator, {"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
    smallest = 2 * overlap + 8

    @torch.inference_mode()
    def enlarge(image):
        check_picture(image, "enlarger")
        side = tile
        if side is None:
            pixels = _affordable_pixels(network, device)
            fits = image.shape[0] * image.shape[1] <= pixels
            side = max(image.shape) if fits else max(int(math.sqrt(pixels)), smallest)
        while True:
            try:
                return _enlarge_in_tiles(network, image, side, progress)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if "memory" not in str(error).lower() or side <= smallest:
                    raise
                side = max(side // 2, smallest)
                if device.type == "cuda":
                    torch.cuda.empty_cache()

    return enlarge


def _enlarge_in_tiles(network, image, tile, progress):
    scale, overlap, weight = network.scale, network.reach, next(network.parameters())
    height, width = image.shape[:2]
    output = np.empty((height * scale, width * scale) + image.shape[2:], np.uint8)
    tiles = [(y, x) for y in _spans(height, tile, overlap) for x in _spans(width, tile, overlap)]
    for (top, bottom), (left, right) in progress_bar(tiles, "enlarging", progress):
        above, before = max(top - overlap, 0), max(left - overlap, 0)
        low = to_batch(to_rgb(image[above : bottom + overlap, before : right + overlap])).to(weight.device)
        low = to_unit(low).to(weight.dtype, memory_format=torch.channels_last)
        high = to_uint8(network(low))[0].permute(1, 2, 0)
        high = high[(top - above) * scale : (bottom - above) * scale,
                    (left - before) * scale : (right - before) * scale].cpu().numpy()
        if image.ndim == 2:
            high = np.round(high.mean(axis=2))
        output[top * scale : bottom * scale, left * scale : right * scale] = high
    return output


def _for_inference(generator, dtype):
    """A copy of a generator in evaluation mode, batch norm folded into the convolutions before it."""
    with torch.device("meta"):  # without drawing random weights first
        network = type(generator)(**generator.settings)
    weights = {name: value.clone() for name, value in generator.state_dict().items()}  # training may go on
    network.load_state_dict(weights, assign=True)
    network.eval()
    for sequence in [module for module in network.modules() if isinstance(module, torch.nn.Sequential)]:
        for i in range(len(sequence) - 1):
            if isinstance(sequence[i], torch.nn.Conv2d) and isinstance(sequence[i + 1], torch.nn.BatchNorm2d):
                sequence[i] = fuse_conv_bn_eval(sequence[i], sequence[i + 1])
                sequence[i + 1] = torch.nn.Identity()
    return network.to(next(generator.parameters()).device, dtype, memory_format=torch.channels_last)


def _affordable_pixels(network, device):
    """How many low-resolution pixels the network can enlarge at once with a share of the memory."""
    budget = torch.cuda.mem_get_info(device)[0] / 2 if device.type == "cuda" else 1.5e9
    weight = next(network.parameters())
    # At its widest, the network holds four times its feature maps at the full size: before and after a
    # pixel shuffle, an activation, and what the last convolution works with.
    return budget / (4 * network.settings["channels"] * network.scale**2 * weight.element_size())


def super_resolve_folder(generator, folder, out, *, progress=True, **options):
    """Enlarge every picture of a folder, writing PNGs of the same names to the folder `out`.

    `options` go to `super_resolve`. Returns (written, left_out): the list of files written, and one of
    (file name, reason) for files that are not pictures. Raises FileNotFoundError for a missing folder.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    written, left_out, enlarge = [], [], enlarger(generator, **options)
    files = sorted(path for path in Path(folder).iterdir() if path.is_file() and not path.name.startswith("."))
    for path in progress_bar(files, "enlarging", progress, unit=" pictures"):
        try:
            picture = read_picture(path)
        except ValueError as error:
            left_out.append((path.name, str(error)))
            continue
        written.append(Path(out, f"{path.stem}.png"))
        save_picture(written[-1], enlarge(picture))
    return written, left_out


def has_bf16(device):
    """Whether a device computes with bf16 in hardware; without, it would be slower than fp32."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # PyTorch has no public question for this on CPUs yet; where this one should go away, "no" is safe.
    return device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def _spans(length, tile, overlap):
    """[start, stop) pieces of a side, of nearly equal length, each at most `tile` with its overlaps."""
    count = 1 if length <= tile else math.ceil(length / (tile - 2 * overlap))
    edges = [length * i // count for i in range(count + 1)]
    return list(zip(edges[:-1], edges[1:]))


# ---------------------------------------------------------------------------------------- checkpoints

SAFETENSORS = ".safetensors"


def save_checkpoint(path, content):
    """Save a dictionary of tensors, numbers, strings, lists and dictionaries, whole or not at all."""
    with write_whole(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path):
    """Load what `save_checkpoint` or `save_generator` wrote, onto the CPU, without running any code from the file.

    Raises FileNotFoundError, or ValueError for a damaged file, one that is no checkpoint of this kit,
    or one that holds pickled objects, which could run anything on being loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint; train first, or correct the name")
    try:
        content = _load_safetensors(path) if path.suffix == SAFETENSORS else torch.load(
            path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise ValueError(f"{path}: refused, because it holds more than tensors and plain values; loading "
                             f"it could run code. Use a checkpoint that this kit saved") from error
        raise ValueError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(content, dict) or "generator" not in content or "generator_settings" not in content:
        raise ValueError(f"{path}: not a checkpoint of this kit (no generator in it)")
    return content


def save_generator(path, generator, **notes):
    """Save a generator with what is needed to build it again; `notes` (plain values) go along.

    A path that ends in `.safetensors` gets a file of that format with the weights rounded to fp16: half
    the size, for handing on.
    """
    if Path(path).suffix != SAFETENSORS:
        save_checkpoint(path, {"generator": generator.state_dict(), "generator_settings": generator.settings, **notes})
        return
    weights = {name: (value.half() if value.is_floating_point() else value).contiguous()
               for name, value in generator.state_dict().items()}
    notes = {name: json.dumps(value) for name, value in {"generator_settings": generator.settings, **notes}.items()}
    with write_whole(path) as temporary:
        temporary.write_bytes(safetensors_bytes(weights, notes))


def _load_safetensors(path):
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}
        notes = {name: json.loads(text) for name, text in (file.metadata() or {}).items() if name != "format"}
    weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    return {"generator": weights, **notes}


def load_generator(path, device="cpu"):
    """Build the generator of a checkpoint, in evaluation mode. Errors as for `load_checkpoint`."""
    content = load_checkpoint(path)
    try:
        generator = Generator(**content["generator_settings"])
        generator.load_state_dict(content["generator"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: its weights do not fit its settings ({error})") from error
    return generator.to(device, memory_format=torch.channels_last).eval()


def load_generators(checkpoints):
    """The generators of several checkpoints, as far as there are such files.

    Takes and gives dictionaries, name → path and name → Generator. What is left out is printed: a file that
    is not there (yet), and a generator of another scale than the first. Raises ValueError when nothing
    remains, and what `load_generator` raises for a file that is there.
    """
    generators = {}
    for name, path in checkpoints.items():
        if not Path(path).is_file():
            print(f"{name} is left out: there is no file {path} (yet)")
            continue
        generator = load_generator(path)
        scale = next(iter(generators.values()), generator).scale
        if generator.scale != scale:
            print(f"{name} is left out: {path} enlarges ×{generator.scale}, and the first ×{scale}")
        else:
            generators[name] = generator
    if not generators:
        raise ValueError(f"there is none of the checkpoints {', '.join(map(str, checkpoints.values()))}; train first, "
                         f"or correct the names")
    return generators


# ---------------------------------------------------------------------------------------------- plots


def read_history(run, folder="runs"):
    """The epochs of a run as a list of dictionaries with numbers, from `runs/<run>/history.csv`."""
    path = Path(folder, run, "history.csv")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such history; is {run!r} the name of a run?")
    with open(path, newline="", encoding="utf-8") as file:
        return [{key: value if key == "phase" else float(value or "nan") for key, value in row.items()}
                for row in csv.DictReader(file)]


def plot_history(histories):
    """Curves of one or more runs over the number of updates, laid over each other.

    Parameters
    ----------
    histories : dict of str → list of dict
        Name of the run → its epochs, as `read_history` gives them.

    Returns
    -------
    matplotlib.figure.Figure
        Content loss, the two adversarial losses and validation PSNR side by side.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 3.8), layout="constrained")
    for name, phase, rows, line in _curves(histories):
        x = [row["updates"] for row in rows]
        axes[0].semilogy(x, [row["content_loss"] for row in rows], **line)
        axes[2].plot(x, [row["psnr"] for row in rows], **line)
        if phase == "adversarial":
            for loss, style, label in [("discriminator_loss", "-", "discriminator"),
                                       ("adversarial_loss", ":", "generator (−log D)")]:
                axes[1].plot(x, [row[loss] for row in rows],
                             **{**line, "linestyle": style, "label": f"{name}, {label}"})
    titles = ["Content loss", "Adversarial losses", "Validation PSNR (dB)"]
    for axis, title in zip(axes, titles):
        axis.set(title=title, xlabel="updates of the generator")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
        else:
            axis.text(0.5, 0.5, "no adversarial epoch yet", ha="center", va="center",
                      transform=axis.transAxes, color="grey")
    plt.close(figure)  # a notebook shows what a cell returns; without this it would show it twice
    return figure


def plot_minutes(histories):
    """Validation PSNR over the minutes of training, on a logarithmic scale; histories as for `plot_history`.

    The time includes the validation after each epoch. Returns a matplotlib.figure.Figure.
    """
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
    timed = {}
    for name, history in histories.items():
        minutes = np.cumsum([row["seconds"] for row in history]) / 60
        timed[name] = [{**row, "minutes": m} for row, m in zip(history, minutes)]
    for _, _, rows, line in _curves(timed):
        axis.semilogx([row["minutes"] for row in rows], [row["psnr"] for row in rows], **line)
    axis.set(xlabel="minutes of training", ylabel="Validation PSNR (dB)")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8)
    plt.close(figure)
    return figure


def _curves(histories):
    """(run, phase, its epochs, look of its line) of every run and phase: a colour for a run, a style for a phase."""
    import matplotlib.pyplot as plt

    for (name, history), colour in zip(histories.items(), plt.cm.tab10.colors * 10):
        for phase, style in [("warmup", "-"), ("adversarial", "--")]:
            rows = [row for row in history if row["phase"] == phase]
            if rows:
                yield name, phase, rows, dict(linestyle=style, color=colour, marker="o", markersize=3,
                                              label=f"{name}, {phase}")


class LiveCurve:
    """Curves in a notebook that grow with every epoch: pass one as `on_epoch` to the trainer.

    `also` names further runs whose curves are laid under the growing one.
    """

    def __init__(self, name, also=()):
        self.name, self.others, self.handle = name, {run: read_history(run) for run in also}, None

    def __call__(self, history):
        from IPython.display import display

        figure = plot_history({**self.others, self.name: history})
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)


def plot_scores(scores):
    """PSNR of every picture by every method, one panel per test set, pictures ordered by the first method.

    `scores` are rows of `solver.score_sets`. Returns a matplotlib.figure.Figure.
    """
    import matplotlib.pyplot as plt

    sets = list(dict.fromkeys(row["set"] for row in scores))
    columns = min(len(sets), 3)
    figure, axes = plt.subplots(math.ceil(len(sets) / columns), columns, layout="constrained", squeeze=False,
                                figsize=(4.6 * columns, 3.6 * math.ceil(len(sets) / columns)))
    for axis in axes.flat[len(sets) :]:
        axis.set_axis_off()
    for axis, name in zip(axes.flat, sets):
        methods = {}
        for row in scores:
            if row["set"] == name:
                methods.setdefault(row["method"], {})[row["picture"]] = row["psnr"]
        first = next(iter(methods.values()))
        order = sorted(first, key=first.get)
        for method, values in methods.items():
            mean = np.mean(list(values.values()))
            axis.plot([values[picture] for picture in order], marker="o", markersize=3, linewidth=1,
                      label=f"{method}, mean {mean:.2f}")
        few = len(order) <= 14
        axis.set_xticks(range(len(order)) if few else [], order if few else [], rotation=60, ha="right", fontsize=8)
        axis.set(title=name, ylabel="PSNR (dB)", xlabel="" if few else f"{len(order)} pictures")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    plt.close(figure)
    return figure


def enlarge_all(pair, generators):
    """A pair enlarged in every way that is compared: title → picture, the original last.

    `pair` is a datasets.Pair (name, lr, hr), `generators` a dict of str → Generator. The first picture
    is the low resolution itself, small as it is.
    """
    scale = pair.hr.shape[0] // pair.lr.shape[0]
    pictures = {"low resolution": pair.lr, "bicubic": bicubic(pair.lr, scale)}
    pictures |= {name: super_resolve(generator, pair.lr) for name, generator in generators.items()}
    return pictures | {"original": pair.hr}


def score_captions(pictures, border=4):
    """PSNR and SSIM against the last picture for all others of its size, as captions for `plot_comparison`."""
    *_, original = pictures.values()
    same = {title: p for title, p in pictures.items() if p.shape == original.shape and p is not original}
    return {title: f"{psnr(p, original, border):.2f} dB / {ssim(p, original, border):.3f}" for title, p in same.items()}


def plot_comparison(pictures, detail=96, captions=None):
    """Pictures of one size side by side, at most five abreast: whole above, a magnified detail below.

    The detail is the square of `detail` pixels where the last picture (the original) has most that
    bicubic interpolation loses, so that it shows where the methods differ.

    Parameters
    ----------
    pictures : dict of str → numpy.ndarray
        Title → uint8 picture; all of one size, the original last. A smaller first picture (the low
        resolution) is drawn with its pixels enlarged.
    captions : dict of str → str, optional
        A second line under a title.

    Returns a matplotlib.figure.Figure.
    """
    import matplotlib.pyplot as plt

    *_, original = pictures.values()
    top, left, side = detail_window(original, detail)
    ratio = original.shape[0] / original.shape[1]
    bands = math.ceil(len(pictures) / 5)  # more than five abreast would be too small to judge
    columns = math.ceil(len(pictures) / bands)
    figure, axes = plt.subplots(2 * bands, columns, layout="constrained", squeeze=False,
                                height_ratios=[ratio, 1] * bands,
                                figsize=(3.2 * columns, (3.2 * (ratio + 1) + 0.5) * bands))
    places = axes.reshape(bands, 2, columns).transpose(0, 2, 1).reshape(-1, 2)  # (whole, detail), side by side
    for unused in places[len(pictures) :].flat:
        unused.set_axis_off()
    for column, (title, picture) in zip(places, pictures.items()):
        picture = _magnified(picture, original)
        column[0].imshow(picture)
        column[0].set_title(f"{title}\n{(captions or {}).get(title, '')}", fontsize=10)
        column[0].add_patch(plt.Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor="red"))
        column[1].imshow(picture[top : top + side, left : left + side], interpolation="nearest")
        for axis in column:
            axis.set_axis_off()
    plt.close(figure)
    return figure


def plot_rows(rows, detail=128):
    """A row of pictures for each of several runs or photographs: the magnified detail of `plot_comparison`.

    `rows` is a dict of str → dict of str → picture, each as for `plot_comparison`.
    Returns a matplotlib.figure.Figure.
    """
    import matplotlib.pyplot as plt

    titles = list(next(iter(rows.values())))
    figure, axes = plt.subplots(len(rows), len(titles), layout="constrained", squeeze=False,
                                figsize=(3 * len(titles), 3 * len(rows)))
    for line, (name, pictures) in zip(axes, rows.items()):
        *_, original = pictures.values()
        top, left, side = detail_window(original, detail)
        for axis, picture in zip(line, pictures.values()):
            picture = _magnified(picture, original)[top : top + side, left : left + side]
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, fontsize=12)
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=11)
    plt.close(figure)
    return figure


def _magnified(picture, original):
    """A picture as RGB, its pixels repeated until it is as large as the original."""
    factor = original.shape[0] // picture.shape[0]
    return to_rgb(picture).repeat(factor, axis=0).repeat(factor, axis=1)


def plot_samples(folder, epochs):
    """The pictures that a run keeps in `samples/`: input, some epochs, original; one row per picture.

    `folder` is the run's `samples` folder, `epochs` names folders in it such as "adversarial_060".
    Returns a matplotlib.figure.Figure. Raises FileNotFoundError for an epoch that has no pictures.
    """
    import matplotlib.pyplot as plt

    columns = ["input", *epochs, "original"]
    names = sorted(path.name for path in Path(folder, "original").glob("*.png"))
    figure, axes = plt.subplots(len(names), len(columns), layout="constrained", squeeze=False,
                                figsize=(2.4 * len(columns), 2.4 * len(names)))
    for row, name in zip(axes, names):
        for axis, column in zip(row, columns):
            axis.imshow(to_rgb(read_picture(Path(folder, column, name))))
            axis.set_axis_off()
    for axis, column in zip(axes[0], columns):
        axis.set_title(column, fontsize=10)
    plt.close(figure)
    return figure


def detail_window(picture, side):
    """(top, left, side) of the square with most of what a reduction to a quarter loses."""
    side = min(side, *picture.shape[:2])
    grey = picture.mean(axis=2) if picture.ndim == 3 else picture.astype(np.float64)
    lost = np.abs(grey - imresize(imresize(grey, 0.25), output_shape=grey.shape))
    total = np.pad(lost, ((1, 0), (1, 0))).cumsum(0).cumsum(1)  # an integral image
    boxes = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    top, left = np.unravel_index(boxes.argmax(), boxes.shape)
    return int(top), int(left), side
