"""People's photographs, read and written with what belongs to them."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

import utils
from helpers import adobe_rgb, display_p3, png_by_hand
from kit.photographs import read_photograph, save_photograph

TURNED = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" xmp:Rating="4"/></x:xmpmeta>'


def written(path, photograph, kind):
    save_photograph(path, photograph, kind)
    return Image.open(path)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_exif_is_true_of_the_new_file(tmp_path, photograph, kind):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x0100], exif[0x0101] = "a maker", 6, 32, 24
    details = exif.get_ifd(0x8769)
    details[0x9003], details[0xA001], details[0xA002], details[0xA003] = "2026:01:02 03:04:05", 65535, 32, 24
    exif.get_ifd(0x8825)[1] = "N"
    Image.fromarray(photograph[:24, :32]).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 300))
    with written(tmp_path / "b", read_photograph(tmp_path / "a.jpg"), kind) as image:
        kept, details = image.getexif(), image.getexif().get_ifd(0x8769)
        assert kept[0x010F] == "a maker" and details[0x9003] == "2026:01:02 03:04:05"
        assert kept.get_ifd(0x8825)[1] == "N"
        assert details[0xA001] == 1  # sRGB
        assert not {0x0100, 0x0101, 0x0112} & set(kept) and not {0xA002, 0xA003} & set(details)
        assert kind == "webp" or image.info["dpi"] == pytest.approx((300, 300), abs=0.1)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_exif_in_other_letters_than_ascii_is_kept(tmp_path, photograph, kind):
    exif = Image.Exif()
    exif[0x013B], exif[0x8298] = "埃菲尔铁塔".encode(), "© Jürgen Müller".encode()
    Image.fromarray(photograph[:24, :32]).save(tmp_path / "a.jpg", exif=exif)
    with written(tmp_path / "b", read_photograph(tmp_path / "a.jpg"), kind) as image:
        assert [image.getexif()[tag].encode("latin-1").decode() for tag in (0x013B, 0x8298)] == [
            "埃菲尔铁塔", "© Jürgen Müller"]


def test_how_a_tiff_stores_its_pixels_is_nothing_that_a_copy_keeps(tmp_path, photograph):
    tags = {270: "a scan", 34675: b"no profile"}
    Image.fromarray(photograph[:24, :32]).save(tmp_path / "a.tif", tiffinfo=tags, compression="tiff_lzw")
    with written(tmp_path / "b.png", read_photograph(tmp_path / "a.tif"), "png") as image:
        assert dict(image.getexif()) == {270: "a scan"}


def test_what_xmp_says_of_turning_is_not_said_of_the_turned_picture(tmp_path, photograph):
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", TURNED)
    text.add_text("Title", "an eye")
    Image.fromarray(photograph[:24, :32]).save(tmp_path / "a.png", pnginfo=text)
    first = read_photograph(tmp_path / "a.png")
    save_photograph(tmp_path / "b.png", first)
    again = read_photograph(tmp_path / "b.png")
    assert first.picture.shape == again.picture.shape == (32, 24, 3)
    assert np.array_equal(first.picture, again.picture)
    assert again.text["Title"] == "an eye" and 'Rating="4"' in again.text["XML:com.adobe.xmp"]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_grey_of_a_png_of_few_bits(tmp_path, bits):
    values = np.arange(8) % 2**bits
    row = np.packbits(np.unpackbits(values.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :].ravel()).tobytes()
    png_by_hand(tmp_path / "a.png", 8, 3, bits, zlib.compress(3 * (b"\0" + row)), colour=0, transparent=1)
    read = read_photograph(tmp_path / "a.png")
    assert np.array_equal(read.picture, [values * 255 // (2**bits - 1)] * 3)
    assert np.array_equal(read.alpha, [np.where(values == 1, 0, 255)] * 3)


def test_a_grey_png_of_16_bits_with_transparency_stays_grey(tmp_path):
    values = np.stack([np.arange(8) * 8192 + 77, np.full(8, 32896)], axis=1).astype(">u2")
    png_by_hand(tmp_path / "a.png", 8, 3, 16, zlib.compress(3 * (b"\0" + values.tobytes())), colour=4)
    read = read_photograph(tmp_path / "a.png")
    assert np.array_equal(read.picture, [np.arange(8) * 32] * 3) and (read.alpha == 128).all()


@pytest.mark.parametrize("kind", ["add_text", "add_itxt"])
def test_a_text_of_a_png_that_is_called_exif_is_a_text(tmp_path, photograph, kind):
    text = PngImagePlugin.PngInfo()
    getattr(text, kind)("exif", "no EXIF")
    Image.fromarray(photograph[:24, :32]).save(tmp_path / "a.png", pnginfo=text)
    read = read_photograph(tmp_path / "a.png")
    assert read.text == {"exif": "no EXIF"} and np.array_equal(read.picture, photograph[:24, :32])


def test_dots_per_inch_turn_with_the_picture(tmp_path, photograph):
    exif = Image.Exif()
    exif[0x0112], exif[282], exif[283] = 6, 300.0, 150.0
    Image.fromarray(photograph[:24, :32]).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 150))
    with written(tmp_path / "b.png", read_photograph(tmp_path / "a.jpg"), "png") as image:
        assert image.size == (24, 32) and image.info["dpi"] == pytest.approx((150, 300), abs=0.1)
        assert (image.getexif()[282], image.getexif()[283]) == (150, 300)


def test_a_tiff_is_read_alone_whatever_other_files_it_speaks_of(tmp_path, photograph):
    """OME's TIFF may name other files for its planes, which tifffile would read."""
    values = photograph[:8, :9].astype(np.uint16) * 256 + 200
    for name, stored in (("other.tif", values ^ 255), ("mine.tif", values)):
        tifffile.imwrite(tmp_path / name, stored, photometric="rgb", description='''<?xml version="1.0"?><OME
            xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0"
            DimensionOrder="XYCZT" Type="uint16" SizeX="9" SizeY="8" SizeC="3" SizeZ="1" SizeT="1">
            <Channel ID="Channel:0" SamplesPerPixel="3"/><TiffData IFD="0" FirstC="0">
            <UUID FileName="other.tif">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>''', metadata=None)
    assert np.array_equal(utils.read_picture(tmp_path / "mine.tif"), np.round(values / 257).astype(np.uint8))


@pytest.mark.parametrize("mode", ["P", "YCbCr", "I;16"])
def test_colours_of_a_profile_whatever_the_mode(tmp_path, photograph, mode):
    """As the same picture in RGB or 8 bits."""
    path = tmp_path / "a.tif"
    if mode == "I;16":
        profile = linear_grey()
        image, plain = Image.fromarray(photograph[:24, :32, 0].astype(np.uint16) * 257), photograph[:24, :32, 0]
    else:
        profile = display_p3()
        image = Image.fromarray(photograph[:24, :32]).convert(mode)
        plain = np.asarray(image.convert("RGB"))
    image.save(path, icc_profile=profile)
    Image.fromarray(plain).save(tmp_path / "b.png", icc_profile=profile)
    read, wanted = utils.read_picture(path), utils.read_picture(tmp_path / "b.png")
    assert np.abs(read.astype(int) - wanted).max() <= 1 and np.abs(wanted.astype(int) - plain).max() > 3


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
def test_adobe_rgb_that_only_exif_tells_of(tmp_path, photograph, ending):
    """As cameras write it: its colours are those of the same pixels with a profile, and the copy says sRGB."""
    exif = Image.Exif()
    exif[0x0112] = 6
    details = exif.get_ifd(0x8769)
    details[0xA001], details[0xA005] = 65535, {1: "R03"}
    path = tmp_path / f"a{ending}"
    Image.fromarray(photograph[:24, :32]).save(path, exif=exif)
    plain = utils.read_picture(path, stored=True)
    Image.fromarray(plain).save(tmp_path / "b.png", icc_profile=adobe_rgb())
    read, wanted = utils.read_picture(path), utils.read_picture(tmp_path / "b.png")
    assert np.abs(read.astype(int) - wanted).max() <= 1 and np.abs(read.astype(int) - plain).max() > 3
    with written(tmp_path / "c.png", read_photograph(path), "png") as image:
        details = image.getexif().get_ifd(0x8769)
        assert details[0xA001] == 1 and 0xA005 not in details
    with Image.open(path) as image:  # transparent: its colours are read just so
        image.putalpha(200)
        image.save(tmp_path / "d.png", exif=image.getexif())
    assert np.array_equal(read_photograph(tmp_path / "d.png").picture, read)


def linear_grey():
    """An ICC profile of grey with gamma 1, as ICC.1:2004 lays it out."""
    tags = {b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D), b"kTRC": b"curv" + bytes(8)}
    table, data, place = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">2I", place + len(data), len(content))
        data += content
    head = struct.pack(">I4sI4s4s4s", place + len(data), bytes(4), 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return head + bytes(128 - len(head)) + table + data


def test_grey_of_16_bits_with_a_colour_that_is_transparent(tmp_path):
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=int(values[3, 4]))
    made = read_photograph(tmp_path / "a.png")
    assert np.array_equal(made.picture, np.round(values / 257))
    assert np.array_equal(made.alpha == 0, values == values[3, 4])


@pytest.mark.parametrize("key", ["transparency", "dpi", "icc_profile", "xmp"])
def test_texts_of_a_png_are_texts_whatever_they_are_called(tmp_path, photograph, key, capsys):
    text = PngImagePlugin.PngInfo()
    text.add_text(key, "72")
    Image.fromarray(photograph[:8, :9]).save(tmp_path / "a.png", pnginfo=text)
    made = read_photograph(tmp_path / "a.png")
    assert np.array_equal(made.picture, photograph[:8, :9]) and made.alpha is None and made.dpi is None
    save_photograph(tmp_path / "b.png", made)
    assert read_photograph(tmp_path / "b.png").text == {key: "72"} and not capsys.readouterr().out


def test_exif_that_a_jpeg_has_no_room_for_is_told(tmp_path, photograph, capsys):
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000
    Image.fromarray(photograph[:8, :9]).save(tmp_path / "a.png", exif=exif)
    save_photograph(tmp_path / "b.jpg", read_photograph(tmp_path / "a.png"), "jpeg")
    assert "b.jpg: its EXIF cannot be taken over" in capsys.readouterr().out
    assert read_photograph(tmp_path / "b.jpg").picture.shape == (8, 9, 3)


def test_a_tiff_without_a_resolution_gets_none(tmp_path, photograph):
    Image.fromarray(photograph[:8, :9]).save(tmp_path / "a.tif")
    assert read_photograph(tmp_path / "a.tif").dpi is None
