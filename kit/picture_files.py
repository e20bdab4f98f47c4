"""Picture files as Pillow opens them: which formats, how large, how many bits; colours as sRGB; transparency."""

import io
import math
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from kit.language import tr

# What is opened, by its content and whatever the file is called. Pillow knows more, but starts programs for some.
Image.init()  # with formats named, Pillow looks only among those that it knows already
FORMATS = [name for name in ("PNG", "JPEG", "MPO", "BMP", "TIFF", "WEBP", "PPM", "GIF", "AVIF") if name in Image.OPEN]
SUFFIXES = {ending for ending, name in Image.registered_extensions().items() if name in FORMATS}
# What Pillow opens by a plug-in or in its newer versions only, and what telephones make.
UNREADABLE = {".heic": "an HEIC photograph", ".heif": "an HEIF photograph"} | (
    {} if "AVIF" in FORMATS else {".avif": "an AVIF picture"})

ON_ITS_SIDE = range(5, 9)  # the orientations of EXIF in which width and height change places

INTEROPERABILITY = 0xA005  # EXIF's directory whose first entry is R03 for Adobe RGB (DCF 2.0)
# Adobe RGB (1998) Color Image Encoding, section 4.3.5.3: from linear colours to XYZ with a white of D65.
ADOBE_RGB_TO_XYZ = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529],
                             [0.02703, 0.07069, 0.99134]], np.float32)

# Pillow refuses twice as many pixels. Its own limit is a defence of servers, and half of what a photograph of a
# telephone has when it is enlarged.
Image.MAX_IMAGE_PIXELS = 2**29
# So with texts and profiles that are packed in a PNG, of which it takes 1 MB.
PngImagePlugin.MAX_TEXT_CHUNK = 2**25

# TIFF's tags, and how EXIF's orientations are undone.
NEW_SUBFILE_TYPE, BITS, PHOTOMETRIC, ORIENTATION, PLANES, SUB_IFDS = 254, 258, 262, 274, 284, 330
TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_90}


def open_picture(path, stored=False):
    """A picture file as Pillow's image, loaded and turned as its EXIF says. Errors as for `utils.read_picture`.

    Pillow reads the upper 8 of 16 bits of an RGB picture, which makes a quarter of the values one too low. TIFF files
    are rounded as they should be, of others it is said, unless the values are wanted as they are `stored`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    if kind := UNREADABLE.get(path.suffix.lower()):
        raise ValueError(f"{path}: {kind}, which is not read here; save it as PNG or JPEG")
    if not path.stat().st_size:
        raise ValueError(f"{path}: not a readable picture (it is empty)")
    try:
        # (By its name Pillow maps uncompressed files into memory, and those that are turned wrongly.)
        with open(path, "rb") as file, Image.open(file, formats=FORMATS) as image:
            _refuse_previews(image)
            # The second picture of a telephone's MPO is the same again, for another screen.
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            raw = " ".join(str(tile[3]) for tile in image.tile)  # how the pixels are stored
            planes, grey = _has_planes_of_16_bits(image), _odd_grey(image)
            sixteen = image.mode in ("RGB", "RGBA") and ";16" in raw
            if frames == 1:
                image.load()
                if planes or sixteen and not stored:
                    _round_to_8_bits(image, path, planes)
                text = texts_of(image)  # which a copy has not
                if image.format == "PNG" and isinstance(image.info.get("transparency"), int):
                    # The grey value that is transparent, as it is stored, where Pillow compares it with 8 bits.
                    image.info["transparency"] *= {"L;2": 85, "L;4": 17}.get(raw, 1)
                if orientation_of(image) in ON_ITS_SIDE and "dpi" in image.info:
                    image.info["dpi"] = image.info["dpi"][::-1]
                adobe_rgb = _is_adobe_rgb(image)
                image = _turned(image)
                image.info["adobe_rgb"] = adobe_rgb
                # (where XMP says how to turn it, that is taken out of the copy's)
                image.info["text"] = {key: image.info.get(key, value) for key, value in text.items()}
                if grey:
                    image = _as_plain_grey(image, *grey)
                if raw.startswith("LA;16"):  # grey, which Pillow reads as RGBA
                    image = image.convert("LA")
    except Exception as error:  # Pillow raises a dozen different ones for damaged files
        told = re.sub(r"<_io\.\S+ name=(.*)>", r"\1", str(error))  # (Pillow names what it reads from)
        raise ValueError(f"{path}: not a readable picture ({told})") from error
    if frames > 1:
        raise ValueError(f"{path}: has {frames} frames; save the one you mean as PNG")
    return image


def orientation_of(image):
    """How an image of Pillow's is to be turned, by EXIF's numbers 1 to 8 (wherever it says so)."""
    with suppress(Exception):  # Pillow raises whatever its code stumbles over in odd EXIF
        return image.getexif().get(0x0112, 1)
    return 1


def _turned(image):
    """An image as its EXIF says that it is to be seen."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # it writes EXIF anew, which it cannot with all that it can read
        return image.transpose(TURNS[orientation_of(image)]) if orientation_of(image) in TURNS else image.copy()


def _is_adobe_rgb(image):
    with suppress(Exception):
        return image.getexif().get_ifd(INTEROPERABILITY).get(1) == "R03"
    return False


def _refuse_previews(image):
    """Raise ValueError for the small preview in a raw photograph, which Pillow takes for the picture."""
    if image.format == "TIFF" and image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & 1 and SUB_IFDS in image.tag_v2:
        raise ValueError("a raw photograph, of which only a small preview can be read here; save it as PNG or JPEG")


def _has_planes_of_16_bits(image):
    """Whether a TIFF has red, green and blue one after the other, of 16 bits and not packed: Pillow reads them as 8."""
    return (image.format == "TIFF" and image.mode in ("RGB", "RGBA") and image.tag_v2.get(PLANES) == 2
            and 16 in image.tag_v2.get(BITS, ()) and image.tile[0][0] == "raw")


def _odd_grey(image):
    """(bits, whether 0 is white) of a grey TIFF whose values Pillow leaves as they are stored; None for others."""
    if image.format != "TIFF" or not image.mode.startswith("I;16"):
        return None
    bits, inverted = image.tag_v2.get(BITS, (16,))[0], image.tag_v2.get(PHOTOMETRIC) == 0
    return (bits, inverted) if bits != 16 or inverted else None


def _as_plain_grey(image, bits, inverted):
    """The same picture with values from black, 0, to white, 65535."""
    values = np.round(np.asarray(image) * (65535 / (2**bits - 1))).astype(np.uint16)
    plain = Image.fromarray(65535 - values if inverted else values)
    plain.info = image.info
    return plain


def texts_of(image):
    """The texts of a PNG as Pillow has opened it, {} for others; none stays where Pillow takes it for something."""
    texts = dict(getattr(image, "text", {}))
    for key in texts.keys() & {"transparency", "icc_profile", "dpi", "xmp", "gamma", "exif"}:
        value = image.info.get(key)
        # (of a plain text called exif Pillow makes bytes)
        if isinstance(value, str) or key == "exif" and value and not value.startswith(b"Exif\0\0"):
            del image.info[key]
    return texts


def _round_to_8_bits(image, path, planes):
    """Give an RGB picture of 16 bits its rounded values, where a library of the environment reads them.

    Raises ValueError where that does not read colours in `planes`.
    """
    values = None
    if image.format == "TIFF":
        from tifffile import TiffFile  # (scikit-image brings it along)

        # Of its one page, and not of the other files and series that it may speak of.
        with suppress(Exception), TiffFile(path) as file:  # (it has no decoder for some compressions)
            page = file.pages[0]
            read = page.asarray()
            if read.ndim == 3 and page.planarconfig == 2:
                read = np.moveaxis(read, 0, -1)
            tag = page.tags.get(ORIENTATION)
            if tag and tag.value in TURNS:  # as Pillow has done
                read = np.dstack([Image.fromarray(np.ascontiguousarray(read[..., i])).transpose(TURNS[tag.value])
                                  for i in range(read.shape[2])])
            values = read if read.shape == np.shape(image) else None
    if planes:
        if values is None:
            raise ValueError("its colours of 16 bits lie one after the other, and cannot be read here; save it as PNG")
        image.paste(Image.fromarray(np.round(values / 257).astype(np.uint8)))
    elif values is None or not np.array_equal(values >> 8, np.asarray(image)):  # (or turned already, as EXIF says)
        print(tr("{path}: of its 16 bits per colour the upper 8 are read", path=path))
    else:
        image.paste(Image.fromarray(np.round(values / 257).astype(np.uint8)))


def pixels(image, path):
    """The pixels of Pillow's image, uint8 H×W×3 or H×W. Raises ValueError for modes that have no plain meaning."""
    if image.mode.startswith("I;16"):
        return np.round(np.asarray(image).astype(np.float64) / 257).astype(np.uint8)
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    if image.mode in ("RGB", "P", "CMYK", "YCbCr"):
        return np.array(image.convert("RGB"))
    raise ValueError(f"{path}: has Pillow's mode {image.mode}, which has no plain 8-bit meaning; "
                     f"save it as an 8-bit RGB or grey PNG")


def size_of(path):
    """The width and height that a picture file says that it has, without decoding it; (0, 0) for what is no picture."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.size
    except Exception:  # `read_picture` will say what is wrong
        return 0, 0


def pixels_of(path):
    """How many pixels a picture file says that it has, without decoding it; 0 for what is no picture."""
    return math.prod(size_of(path))


def as_srgb(image, path):
    """A picture of Pillow's in sRGB, where its ICC profile says otherwise; a grey one stays grey.

    Relative colorimetric, as browsers show it. One whose profile changes nothing by more than rounding stays as it is,
    bit for bit. A profile that cannot be used is named and ignored. Many cameras give their pictures in Adobe RGB no
    profile, but say so in EXIF.
    """
    profile = image.info.get("icc_profile")
    if not profile and image.info.get("adobe_rgb") and image.mode == "RGB":
        return Image.fromarray(_from_adobe_rgb(np.asarray(image)))
    if profile and image.mode.startswith("I;16"):
        image = Image.fromarray(pixels(image, path))
    elif profile and image.mode in ("P", "YCbCr"):
        image = image.convert("RGB")
    if not profile or image.mode not in ("L", "RGB", "CMYK"):
        return image
    try:
        transform = _transform(profile, image.mode)
        if image.mode != "CMYK" and _is_identity(transform, transform.input_mode):
            return image
        converted = ImageCms.applyTransform(image.convert(transform.input_mode), transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        print(tr("{path}: its colour profile cannot be used ({error}), and is ignored", path=path, error=error))
        return image
    return converted.getchannel(0) if image.mode == "L" else converted


def _from_adobe_rgb(picture):
    """A picture's colours (uint8 H×W×3) in sRGB, if they are in Adobe RGB: what sRGB does not have is clipped."""
    from skimage.color import xyz2rgb

    linear = ((np.arange(256) / 255) ** (563 / 256)).astype(np.float32)
    result = np.empty_like(picture)
    for top in range(0, len(picture), 256):  # for the sake of memory
        rows = slice(top, top + 256)
        result[rows] = np.round(255 * xyz2rgb(linear[picture[rows]] @ ADOBE_RGB_TO_XYZ.T))
    return result


@lru_cache(8)
def _transform(profile, mode):
    """From a profile to sRGB; of a grey picture, which may have a profile of colours, perhaps as RGB."""
    try:
        return ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
                                       mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    except ImageCms.PyCMSError:
        if mode != "L":
            raise
        return _transform(profile, "RGB")


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
    if image.mode.startswith("I;16"):  # which `convert` would clip
        alpha = np.where(np.asarray(image) == image.info.pop("transparency"), 0, 255).astype(np.uint8)
        return image, None if alpha.min() == 255 else alpha
    whole, profile = image.convert("RGBA"), image.info.get("icc_profile")
    alpha = np.array(whole.getchannel("A"))
    image = whole.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
    image.info["icc_profile"] = profile
    return image, None if alpha.min() == 255 else alpha
