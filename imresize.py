"""MATLAB's `imresize` (bicubic, antialiased) for NumPy images and torch tensors, exact to the last bit.

The whole of super-resolution research makes its low-resolution images with this one function, and
other bicubic resizers (Pillow, OpenCV, `torch.nn.functional.interpolate`) give other pixels. Four
details decide whether an integer image comes out identical to MATLAB's:

* the kernel is Keys' cubic with a = -0.5 (IEEE Trans. ASSP 29(6), 1981, eq. 15), stretched by
  1 / scale when an image is made smaller, its weights normalised for every output sample;
* one dimension is resized at a time, the one with the smaller scale first;
* integer images are rounded and clipped after *each* dimension, halves away from zero;
* outside the image MATLAB mirrors today (`padding="symmetric"`); the older MATLAB that made the
  public benchmark files (Set5, Set14, BSD100, Urban100) repeated the edge (`padding="replicate"`).
"""

import math
import warnings
from functools import lru_cache
from numbers import Real

import numpy as np
import torch

_NUMPY_TYPES = ("uint8", "uint16", "float16", "float32", "float64")
_CHUNK = 1 << 18  # samples
_TORCH_TYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def imresize(image, scale=None, output_shape=None, *, padding="symmetric"):
    """Resize an image as MATLAB's `imresize(image, scale)` or `imresize(image, [rows cols])` does.

    Parameters
    ----------
    image : numpy.ndarray or torch.Tensor
        NumPy: H×W or H×W×C; uint8, uint16, float16, float32 or float64.
        Torch: …×H×W on any device; uint8, float16, bfloat16, float32 or float64.
        Integer images are computed in float64 and rounded; float images may have any value range
        (bicubic overshoots near edges, and nothing is clipped) and gradients flow through them.
    scale : float, optional
        Factor for both sides; the output has ceil(scale × size) rows and columns.
    output_shape : (int, int), optional
        Rows and columns of the output. Give either this or `scale`.
    padding : {"symmetric", "replicate"}
        What lies outside the image: its mirror image (MATLAB today) or its edge (the MATLAB behind
        the public benchmark files).

    Returns
    -------
    numpy.ndarray or torch.Tensor
        The resized image: same kind, dtype and device as `image`.

    Raises
    ------
    TypeError, ValueError
        For an unsupported dtype or shape, or a scale, shape or padding that makes no sense.

    Examples
    --------
    >>> lr = imresize(np.zeros((480, 320, 3), np.uint8), 1 / 4)
    >>> lr.shape, lr.dtype.name
    ((120, 80, 3), 'uint8')
    """
    _check_image(image)
    is_numpy = isinstance(image, np.ndarray)
    rows, columns = image.shape[:2] if is_numpy else image.shape[-2:]
    (scale_y, new_rows), (scale_x, new_columns) = _plan(rows, columns, scale, output_shape)
    if padding not in ("symmetric", "replicate"):
        raise ValueError(f'padding must be "symmetric" or "replicate", not {padding!r}')

    axis_y, axis_x = (0, 1) if is_numpy else (image.ndim - 2, image.ndim - 1)
    steps = [(scale_y, axis_y, new_rows), (scale_x, axis_x, new_columns)]
    steps.sort(key=lambda step: step[0])  # stable: the first dimension goes first when scales are equal

    x, dtype, limit = _to_tensor(image)
    if x.device.type == "mps" and dtype == torch.float64:  # which MPS has not
        return imresize(image.cpu(), scale, output_shape, padding=padding).to(image.device)
    if limit is None and x.device.type != "meta" and (x.device.type != "cpu" or x.requires_grad):
        return _resize_at_once(x.to(dtype), steps, padding).to(image.dtype).contiguous()
    for factor, axis, length in steps:
        x = _resize_axis(x, axis, factor, length, padding, dtype, limit)
    if is_numpy:
        return np.ascontiguousarray(x.numpy(), image.dtype)
    return x.to(image.dtype).contiguous()


def _check_image(image):
    if isinstance(image, np.ndarray):
        fits, kind, types = image.ndim in (2, 3), image.dtype.name, _NUMPY_TYPES
        wanted = "H×W or H×W×C"
    elif isinstance(image, torch.Tensor):
        fits, kind, types = image.ndim >= 2, image.dtype, _TORCH_TYPES
        wanted = "…×H×W"
    else:
        raise TypeError(f"imresize takes a numpy.ndarray or a torch.Tensor, not {type(image).__name__}")
    if kind not in types:
        raise TypeError(f"imresize cannot resize {kind}; convert to one of {', '.join(map(str, types))}")
    if not fits or 0 in image.shape:
        raise ValueError(f"imresize needs a non-empty {wanted} image, not shape {tuple(image.shape)}")


def _plan(rows, columns, scale, output_shape):
    """The (scale, length) of both dimensions, as MATLAB derives them."""
    if (scale is None) == (output_shape is None):
        raise ValueError("give either scale or output_shape, one of the two")
    if scale is not None:
        if not isinstance(scale, Real) or not 0 < scale < math.inf:
            raise ValueError(f"scale must be a positive number, not {scale!r}")
        scale = float(scale)
        return (scale, math.ceil(scale * rows)), (scale, math.ceil(scale * columns))
    try:
        new_rows, new_columns = (int(n) for n in output_shape)
        if (new_rows, new_columns) != tuple(output_shape) or min(new_rows, new_columns) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"output_shape must be two positive whole numbers (rows, columns), "
                         f"not {output_shape!r}") from None
    return (new_rows / rows, new_rows), (new_columns / columns, new_columns)


def _to_tensor(image):
    """The image as a tensor, the type to compute in, and the largest value of an integer type (else None)."""
    if isinstance(image, np.ndarray):
        limit = np.iinfo(image.dtype).max if image.dtype.kind == "u" else None
        image = image.astype(np.int32) if image.dtype == np.uint16 else np.ascontiguousarray(image)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a read-only array could be written to: it is not
            return torch.from_numpy(image), torch.float64, limit
    if image.dtype == torch.uint8:
        return image, torch.float64, 255
    return image, torch.promote_types(image.dtype, torch.float32), None  # half types in float32


def _cubic(x):
    """Keys' cubic convolution kernel, a = -0.5."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return near * (x <= 1) + far * ((1 < x) & (x <= 2))


@lru_cache(maxsize=64)
def _taps(length, new_length, scale, padding):
    """For every output sample, which input samples it reads and with which weights.

    Returns two taps × new_length arrays. Positions count sample centres from 0, so output sample i
    lies at (i + ½) / scale - ½ of the input.
    """
    stretch = min(scale, 1.0)  # < 1: antialiasing
    width = 4 / stretch
    centre = (np.arange(1, new_length + 1) / scale + 0.5 * (1 - 1 / scale)) - 1
    first = np.floor(centre - width / 2)
    index = first + np.arange(math.ceil(width) + 2)[:, None]
    weight = stretch * _cubic(stretch * (centre - index))
    weight /= weight.sum(axis=0)
    used = weight.any(axis=1)
    index, weight = index[used].astype(np.int64), weight[used]
    if padding == "replicate":
        index = index.clip(0, length - 1)
    else:
        index %= 2 * length
        index = np.minimum(index, 2 * length - 1 - index)
    return torch.from_numpy(index), torch.from_numpy(weight)


def _resize_at_once(x, steps, padding):
    """A floating-point image …×H×W as two matrix products: every single tap would be an operation.

    On a GPU that is slow, and on the way back of a gradient.
    """
    with torch.autocast(x.device.type, enabled=False):  # which would round to half precision
        for factor, axis, new_length in steps:
            matrix = _matrix(x.shape[axis], new_length, factor, padding, x.device, x.dtype)
            x = matrix @ x if axis == x.ndim - 2 else x @ matrix.T
    return x


@lru_cache(maxsize=16)
def _matrix(length, new_length, scale, padding, device, dtype):
    """The resize of an axis as a matrix, kept on its device: to bring it there makes a GPU wait."""
    index, weight = _taps(length, new_length, scale, padding)
    with torch.inference_mode(False):  # one that was made for inference could not be used in training
        matrix = torch.zeros(new_length, length, dtype=weight.dtype, device=weight.device)
        return matrix.scatter_add_(1, index.T, weight.T).to(device, dtype)


@lru_cache(maxsize=16)
def _taps_on(length, new_length, scale, padding, device, dtype):
    """The taps on a device, kept there."""
    index, weight = _taps(length, new_length, scale, padding)
    with torch.inference_mode(False):
        return index.to(device), weight.to(device, dtype)


def _resize_axis(x, axis, scale, new_length, padding, dtype, limit):
    index, weight = _taps_on(x.shape[axis], new_length, scale, padding, x.device, dtype)
    x = x.movedim(axis, 0)
    rest = x.shape[1:]
    x = x.reshape(len(x), -1)
    parts = []
    for part in x.split(_CHUNK // len(x) + 1, dim=1):  # so much as stays in a CPU's cache
        total = 0
        # One tap after the other, in order: the sum is then the same on every device and in every layout.
        for tap_index, tap_weight in zip(index, weight):
            total = total + part[tap_index].to(dtype) * tap_weight[:, None]
        if limit is not None:
            # Not round(): it takes halves to even, MATLAB takes them away from zero. Below zero both
            # are clipped to zero, so floor(x + ½) is all that is needed.
            total = total.add_(0.5).floor_().clamp_(0, limit).to(x.dtype)
        parts.append(total)
    return torch.cat(parts, dim=1).reshape(new_length, *rest).movedim(0, axis)
