"""Picture files of all kinds, as they are read: beside what each must give, known from how it was made."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

import utils
from helpers import adobe_rgb


@pytest.fixture
def detail(photograph):
    return np.ascontiguousarray(photograph[:24, :32])


@pytest.mark.parametrize("orientation, turns", [(6, -1), (8, 1), (3, 2)])
@pytest.mark.parametrize("kind", ["grey", "grey16", "rgba", "rgb"])
def test_uncompressed_tiffs_are_turned_as_others_are(tmp_path, detail, kind, orientation, turns):
    grey = detail[..., 0].copy()
    stored, options, wanted = {
        "grey": (grey, {"photometric": "minisblack"}, grey),
        "grey16": (grey.astype(np.uint16) * 257, {"photometric": "minisblack"}, grey),
        "rgba": (np.dstack([detail, np.full_like(grey, 255)]), {"photometric": "rgb", "extrasamples": ["unassalpha"]},
                 detail),
        "rgb": (detail, {"photometric": "rgb"}, detail)}[kind]
    tifffile.imwrite(tmp_path / "a.tif", stored, extratags=[(274, "H", 1, orientation, True)], **options)
    for as_stored in (False, True):
        assert np.array_equal(utils.read_picture(tmp_path / "a.tif", stored=as_stored), np.rot90(wanted, turns))


def test_grey_of_12_bits_and_grey_whose_0_is_white(tmp_path, detail):
    grey = detail[..., 0].copy()
    rows = b"".join(int("".join(f"{value * 4095 // 255:012b}" for value in row), 2).to_bytes(48, "big")
                    for row in grey.tolist())
    tags = {256: 32, 257: 24, 258: 12, 259: 1, 262: 1, 273: 122, 277: 1, 278: 24, 279: len(rows)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<IH", 8, 9) + entries + bytes(4) + rows)
    assert np.abs(utils.read_picture(tmp_path / "a.tif").astype(int) - grey).max() <= 1
    tifffile.imwrite(tmp_path / "a.tif", 65535 - grey.astype(np.uint16) * 257, photometric="miniswhite")
    assert np.array_equal(utils.read_picture(tmp_path / "a.tif"), grey)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("packed", [None, "zlib"])
@pytest.mark.parametrize("stored", [False, True])
def test_colours_of_16_bits_in_planes(tmp_path, detail, stored, packed, orientation, capsys):
    tifffile.imwrite(tmp_path / "a.tif", (detail.astype(np.uint16) * 257).transpose(2, 0, 1), photometric="rgb",
                     compression=packed, extratags=[(274, "H", 1, orientation, True)])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(detail).save(tmp_path / "a.png", exif=exif)
    wanted = utils.read_picture(tmp_path / "a.png")
    assert np.array_equal(utils.read_picture(tmp_path / "a.tif", stored=stored), wanted)
    assert not capsys.readouterr().out


def test_the_preview_in_a_raw_photograph_is_not_taken_for_it(tmp_path, detail):
    with tifffile.TiffWriter(tmp_path / "DSC_0001.NEF") as file:
        file.write(detail, photometric="rgb", subfiletype=1, subifds=1, metadata=None)
        file.write(np.zeros((300, 400), np.uint16), photometric="cfa", subfiletype=0, metadata=None,
                   extratags=[(33421, "H", 2, (2, 2), True), (33422, "B", 4, (0, 1, 1, 2), True)])
    with pytest.raises(ValueError, match="DSC_0001.NEF: .*a raw photograph, of which only a small preview"):
        utils.read_picture(tmp_path / "DSC_0001.NEF")


def test_a_small_version_that_is_a_file_of_its_own_is_a_picture(tmp_path, detail):
    tifffile.imwrite(tmp_path / "a.tif", detail, photometric="rgb", subfiletype=1)
    assert np.array_equal(utils.read_picture(tmp_path / "a.tif"), detail)


def exif_of(*entries):
    """EXIF of a turned picture with these entries of few bytes: (tag, type, count, value)."""
    entries = [(0x0112, 3, 1, struct.pack("<H", 6)), *entries]
    body = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_a_sound_picture_with_odd_exif_is_read_and_turned(tmp_path, detail, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(detail).save(path, exif=exif_of((282, 2, 3, b"72\0")), lossless=True)
    assert utils.read_picture(path).shape == (32, 24, 3)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("kind, body", [
    (b"eXIf", b"hello world"), (b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(b"x" * 1_100_000)),
    (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"x" * 1_100_000))])
def test_what_stands_beside_the_pixels_of_a_png_keeps_nobody_from_reading_them(tmp_path, detail, kind, body):
    file = io.BytesIO()
    Image.fromarray(detail).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue()[:33] + chunk(kind, body) + file.getvalue()[33:])
    assert np.array_equal(utils.read_picture(tmp_path / "a.png"), detail)


def test_a_grey_picture_with_a_profile_of_colours(tmp_path, detail, capsys):
    grey = detail[..., 0].copy()
    Image.fromarray(grey).save(tmp_path / "grey.png", icc_profile=adobe_rgb())
    Image.fromarray(utils.to_rgb(grey)).save(tmp_path / "rgb.png", icc_profile=adobe_rgb())
    assert np.array_equal(utils.read_picture(tmp_path / "grey.png"), utils.read_picture(tmp_path / "rgb.png")[..., 0])
    assert "cannot be used" not in capsys.readouterr().out
