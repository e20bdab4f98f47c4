"""Colours of a picture file as sRGB, whatever its profile says, as every iPhone's need it; and its transparency."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

from kit.language import tr


def as_srgb(image, path):
    """A picture of Pillow's in sRGB, where its ICC profile says otherwise; a grey one stays grey.

    Relative colorimetric, as browsers show it. One whose profile changes nothing by more than rounding stays as it is,
    bit for bit. A profile that cannot be used is named and ignored.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("L", "RGB", "CMYK"):
        return image
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
    return ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), mode,
                                   "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)


def _is_identity(transform, mode):
    """Whether a transform leaves colours as they are, but for rounding: that of sRGB itself, under whatever name."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colours = levels[None] if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    seen = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform)).astype(int)
    return int(np.abs(seen - colours.reshape(1, seen.shape[1], -1)).max()) <= 1


def split_alpha(image):
    """Pillow's image without alpha, grey if it is grey; and its alpha, uint8 H×W, or None where all is opaque."""
    if not image.has_transparency_data:
        return image, None
    whole, profile = image.convert("RGBA"), image.info.get("icc_profile")
    alpha = np.array(whole.getchannel("A"))
    image = whole.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
    image.info["icc_profile"] = profile
    return image, None if alpha.min() == 255 else alpha
