"""Colours as sRGB: what a picture's own profile says is heeded, as every iPhone's photographs need it (Display P3)."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from kit.language import tr


def as_srgb(image, path):
    """A picture of Pillow's in sRGB, where its ICC profile says otherwise; a grey one stays grey.

    Relative colorimetric, as browsers show it. One whose profile changes nothing by more than rounding stays as it is,
    bit for bit. A profile that cannot be used is named and ignored.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("L", "RGB", "CMYK"):
        return image
    from PIL import ImageCms

    try:
        transform = _transform(profile, image.mode)
        if image.mode != "CMYK" and _is_identity(transform, image.mode):
            return image
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        print(tr("{path}: its colour profile cannot be used ({error}), and is ignored", path=path, error=error))
        return image
    return converted.getchannel(0) if image.mode == "L" else converted


@lru_cache(8)
def _transform(profile, mode):
    from PIL import ImageCms

    return ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), mode,
                                   "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)


def _is_identity(transform, mode):
    """Whether a transform leaves colours as they are, but for rounding: that of sRGB itself, under whatever name."""
    from PIL import ImageCms

    levels = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "L":
        return int(np.abs(np.asarray(ImageCms.applyTransform(Image.fromarray(levels[None]), transform)).astype(int)
                          - levels[None, :, None]).max()) <= 1
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    seen = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform)).astype(int)
    return int(np.abs(seen - grid).max()) <= 1
