"""Pictures, value ranges, PSNR and SSIM, enlarging."""

import math
import sys

import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms
from torch import nn
from warm import python

import create_data_lists
import models
import utils
from helpers import PICTURE, display_p3, png_by_hand, png_of_16_bits, refused
from kit import evaluation
from kit.picture_files import pixels_of


def saved(image, tmp_path, name="a.png", **options):
    image.save(tmp_path / name, **options)
    return utils.read_picture(tmp_path / name)


def test_every_usual_kind_of_picture_is_read(tmp_path, photograph):
    rgb, grey = Image.fromarray(photograph), Image.fromarray(photograph[..., 0])
    assert np.array_equal(saved(rgb, tmp_path), photograph)
    assert np.array_equal(saved(grey, tmp_path), photograph[..., 0])
    palette = rgb.quantize(64)
    assert np.array_equal(saved(palette, tmp_path), np.array(palette.convert("RGB")))
    opaque = rgb.copy()
    opaque.putalpha(255)
    assert np.array_equal(saved(opaque, tmp_path), photograph)
    assert saved(rgb.convert("CMYK"), tmp_path, "a.tif").shape == photograph.shape
    deep = Image.fromarray(photograph[..., 0].astype(np.uint16) * 257)
    assert np.array_equal(saved(deep, tmp_path), photograph[..., 0])
    bits = Image.fromarray(photograph[..., 0] > 99)
    assert np.array_equal(saved(bits, tmp_path), (photograph[..., 0] > 99) * np.uint8(255))


def test_exif_rotation_is_applied(tmp_path, photograph):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to show
    assert np.array_equal(saved(Image.fromarray(photograph), tmp_path, exif=exif), np.rot90(photograph, -1))


def test_a_picture_survives_saving(tmp_path, photograph):
    utils.save_picture(tmp_path / "new" / "a.png", photograph)
    assert np.array_equal(utils.read_picture(tmp_path / "new" / "a.png"), photograph)


def test_value_ranges_are_inverse_to_each_other():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(utils.to_uint8(utils.to_signed(values)), values)
    assert utils.to_signed(values)[[0, 255]].tolist() == [-1, 1] and utils.to_unit(values)[[0, 255]].tolist() == [0, 1]
    assert utils.to_uint8(torch.tensor([-9.0, 9.0])).tolist() == [0, 255]


@pytest.mark.parametrize("name, folder, wanted", [
    ("Set5", "Set5", (28.4177, 0.8101)), ("Set14", "Set14", (25.9933, 0.7023)), ("B100", "BSD100", (25.9565, 0.6672))])
def test_bicubic_equals_the_published_row_to_every_digit(benchmarks, tmp_path, name, folder, wanted):
    report, = create_data_lists.create_data_lists(None, {name: benchmarks / folder}, tmp_path, progress=False)
    scores = evaluation.score_sets({"bicubic": utils.bicubic}, [report.csv_file], progress=False)
    assert tuple(round(mean, 4) for mean in evaluation.mean_scores(scores)[:2]) == wanted


def test_psnr_worked_by_hand():
    grey = np.full((20, 20), 100, np.uint8)
    other = grey.copy()
    other[4:16, 4:16] += 5
    other[0] = 255  # border: does not count
    assert utils.psnr(other, grey) == pytest.approx(20 * math.log10(255 / 5))
    assert utils.psnr(grey, grey) == math.inf
    white, black = np.full((20, 20, 3), 255, np.uint8), np.zeros((20, 20, 3), np.uint8)
    assert utils.psnr(white, black) == pytest.approx(20 * math.log10(255 / 219))  # luma 235 and 16


def test_ssim_worked_by_hand(photograph):
    assert utils.ssim(photograph, photograph) == pytest.approx(1)
    a, b = np.full((30, 30), 100, np.uint8), np.full((30, 30), 120, np.uint8)
    assert utils.ssim(a, b) == pytest.approx((2 * 100 * 120 + 2.55**2) / (100**2 + 120**2 + 2.55**2))
    # a picture and its own transpose, computed plainly from the article's equation 13
    x, y = (utils.luma(p)[4:-4, 4:-4] for p in (photograph[:40, :40], photograph[:40, :40].transpose(1, 0, 2)))
    g = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(g, g) / g.sum() ** 2
    values = []
    for top in range(x.shape[0] - 10):
        for left in range(x.shape[1] - 10):
            p, q = (image[top : top + 11, left : left + 11] for image in (x, y))
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * p * p).sum() - mp * mp, (window * q * q).sum() - mq * mq
            c = (window * p * q).sum() - mp * mq
            values.append((2 * mp * mq + 2.55**2) * (2 * c + 7.65**2)
                          / ((mp * mp + mq * mq + 2.55**2) * (vp + vq + 7.65**2)))
    other = np.ascontiguousarray(photograph[:40, :40].transpose(1, 0, 2))
    assert utils.ssim(photograph[:40, :40], other) == pytest.approx(np.mean(values), abs=1e-6)


def test_the_map_of_ssim_has_the_values_that_ssim_is_the_mean_of(photograph):
    blurred = utils.bicubic(utils.imresize(photograph[:96, :96], 1 / 4))
    shown = utils.ssim_map(blurred, photograph[:96, :96], border=4)
    assert shown.shape == (88, 88)
    assert shown[5:-5, 5:-5].mean() == pytest.approx(utils.ssim(blurred, photograph[:96, :96], 4), abs=1e-12)


@pytest.mark.parametrize("tile", [30, 40, 64, 200])
def test_tiles_leave_no_seam(generator, photograph, tile):
    image = photograph[:70, :93]
    whole = utils.super_resolve(generator, image, tile=1000)
    tiled = utils.super_resolve(generator, image, tile=tile)
    assert whole.shape == (280, 372, 3)
    assert np.abs(whole.astype(int) - tiled).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (64, 64)])
def test_any_size_is_enlarged(generator, size):
    assert utils.super_resolve(generator, np.zeros((*size, 3), np.uint8)).shape == (size[0] * 4, size[1] * 4, 3)


def test_grey_stays_grey_and_the_generator_stays_in_its_mode(generator, photograph):
    generator.train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    assert utils.super_resolve(generator, photograph[:20, :30, 0].copy()).shape == (80, 120)
    assert generator.training
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_memory_is_bounded_by_the_tile():
    """With 64 channels, uncut, the activations of the last layers would take 4 GB here in bf16, 8 in fp32."""
    program = ("import re, numpy as np, models, utils\n"
               "def peak(): return int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
               "generator = models.Generator(blocks=1, first_kernel=3, last_kernel=1, channels=64)\n"
               "enlarge, picture = utils.Enlarger(generator), np.zeros((678, 1020, 3), np.uint8)\n"
               "enlarge(picture[:32, :32])\n"
               "before = peak()  # what PyTorch itself takes\n"
               "assert enlarge(picture).shape == (2712, 4080, 3)\n"
               "print(peak() - before)")
    peaks = []
    while len(peaks) < 3 and (not peaks or peaks[-1] >= 2_800_000):  # what lies between tensors, chance decides
        done = python("-c", program)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert min(peaks) < 2_800_000, peaks  # kB; 1.5 GB and what lies between tensors, in most places


def test_when_memory_runs_out_smaller_tiles_are_tried(generator, photograph, monkeypatch):
    image, seen = photograph[:70, :93], []
    wanted = utils.super_resolve(generator, image)

    def forward(self, lr, forward=models.Generator.forward):
        seen.append(lr.shape[-1])
        if lr.shape[-1] > 60 and lr.shape[-2] > 16:  # (a strip of 16 is how the receptive field is found)
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, lr)

    monkeypatch.setattr(models.Generator, "forward", forward)
    assert np.abs(utils.super_resolve(generator, image, tile=200).astype(int) - wanted).max() <= 1
    assert max(seen) > 60 and seen[-1] <= 60


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_enlarger_keeps_the_weights_it_was_made_with(photograph, precision):
    network = models.Generator(4, channels=4, blocks=1, batch_norm=False)
    enlarge = utils.Enlarger(network, precision=precision)
    before = enlarge(photograph[:20, :20])
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1)
    assert np.array_equal(enlarge(photograph[:20, :20]), before)


def test_a_folder_is_enlarged_in_one_call(generator, photograph, tmp_path):
    for name in ("a.png", "b.png"):
        utils.save_picture(tmp_path / "in" / name, photograph[:20, :30])
    (tmp_path / "in" / "notes.txt").write_text("hello", encoding="utf-8")
    written, left_out = utils.super_resolve_folder(generator, tmp_path / "in", tmp_path / "out", progress=False)
    assert [path.name for path in written] == ["a.png", "b.png"] and [name for name, _ in left_out] == ["notes.txt"]
    assert np.array_equal(utils.read_picture(written[1]), utils.super_resolve(generator, photograph[:20, :30]))


def test_pictures_called_alike_are_told_apart_and_originals_are_not_overwritten(generator, photograph, tmp_path):
    pictures = {"IMG_1.jpg": photograph[:16, :20], "img_1.png": photograph[20:36, :20],
                "other.png": photograph[:16, :16]}
    for name, picture in pictures.items():
        Image.fromarray(picture).save(tmp_path / name)
    before = {name: (tmp_path / name).read_bytes() for name in pictures}
    with pytest.raises(ValueError, match="the pictures themselves would be overwritten"):
        utils.super_resolve_folder(generator, tmp_path, tmp_path / ".", progress=False)
    assert {name: (tmp_path / name).read_bytes() for name in pictures} == before
    written, _ = utils.super_resolve_folder(generator, tmp_path, tmp_path / "out", progress=False)
    assert [path.name for path in written] == ["IMG_1.jpg.png", "img_1.png.png", "other.png"]
    assert utils.read_picture(written[2]).shape == (64, 64, 3)


def test_a_tilde_is_the_home_folder(generator, photograph, tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    utils.save_picture(tmp_path / "in" / "a.png", photograph[:16, :20])
    assert np.array_equal(utils.read_picture("~/in/a.png"), photograph[:16, :20])
    utils.super_resolve_folder(generator, "~/in", "~/out", progress=False)
    assert (tmp_path / "out" / "a.png").is_file()


def animated(path):
    frames = [Image.fromarray(PICTURE), Image.fromarray(255 - PICTURE)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


def corrupt(path):
    utils.save_picture(path, PICTURE)
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(data)


def decompression_bomb(path):
    png_by_hand(path, 60000, 60000, 8)


def truncated(path):
    utils.save_picture(path, PICTURE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


PICTURES = {
    "missing": (lambda path: None, "there is no such file"),
    "a folder": (lambda path: path.mkdir(), "there is no such file"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable picture"),
    "a text": (lambda path: path.write_text("not a picture", encoding="utf-8"), "not a readable picture"),
    "truncated": (truncated, "not a readable picture"),
    "corrupt": (corrupt, "not a readable picture"),
    "a decompression bomb": (decompression_bomb, "not a readable picture"),
    "animated": (animated, "has 2 frames"),
    "transparent": (lambda path: Image.fromarray(np.dstack([PICTURE, PICTURE[..., 0]])).save(path),
                    "partly transparent"),
    "floating point": (lambda path: Image.fromarray(PICTURE[..., 0].astype(np.float32)).save(path, "TIFF"), "mode F"),
    "32-bit": (lambda path: Image.fromarray(PICTURE[..., 0].astype(np.int32)).save(path, "TIFF"), "mode I"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_bad_pictures(tmp_path, kind):
    make, words = PICTURES[kind]
    make(tmp_path / "bad.png")
    refused(lambda: utils.read_picture(tmp_path / "bad.png"), tmp_path, "bad.png", words)


@pytest.mark.parametrize("picture", [PICTURE.astype(float), PICTURE[..., :2], PICTURE[:0], "a.png",
                                     torch.zeros(3, 4, 4)])
@pytest.mark.parametrize("use", [
    lambda p, out: utils.save_picture(out / "out.png", p),
    lambda p, out: utils.psnr(p, PICTURE),
    lambda p, out: utils.super_resolve(models.Generator(channels=2, blocks=1), p),
])
def test_what_is_no_picture(tmp_path, picture, use):
    refused(lambda: use(picture, tmp_path), tmp_path, "takes a")


@pytest.mark.parametrize("act, words", [
    (lambda: utils.psnr(PICTURE, PICTURE[:-1]), "one shape"),
    (lambda: utils.psnr(PICTURE, PICTURE, 32), "too small for a border of 32"),
    (lambda: utils.psnr(PICTURE, PICTURE, -1), "border"),
    (lambda: utils.ssim(PICTURE[:18], PICTURE[:18]), "too small"),
    (lambda: utils.super_resolve(models.Generator(), PICTURE, tile=80), "tile must be larger than 80"),
])
def test_bad_measurements(tmp_path, act, words):
    refused(act, tmp_path, words)


def test_only_the_formats_of_the_kit_are_opened(tmp_path, photograph):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    with pytest.raises(ValueError, match="x.png: not a readable picture .cannot identify"):
        utils.read_picture(tmp_path / "x.png")
    frames = [Image.fromarray(photograph), Image.fromarray(255 - photograph)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.raises(ValueError, match="moving.webp: has 2 frames"):
        utils.read_picture(tmp_path / "moving.webp")
    frames[0].save(tmp_path / "telephone.jpg", "MPO", save_all=True, append_images=frames[1:])
    difference = utils.read_picture(tmp_path / "telephone.jpg").astype(int) - photograph
    assert np.abs(difference).mean() < 5  # the first of its two


class Strided(nn.Module):
    """Goes down to half the size and back, so that odd and even places are treated differently."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 3, 3, 2, 1), nn.ConvTranspose2d(3, 3, 4, 2, 1)

    def forward(self, lr):
        lr = F.pad(lr, (0, lr.shape[3] % 2, 0, lr.shape[2] % 2), mode="replicate")
        return F.interpolate(self.up(self.down(lr)), scale_factor=2)[..., : 2 * lr.shape[2], : 2 * lr.shape[3]]


class Whole(nn.Module):
    """Every pixel of the result depends on all of the picture."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, lr):
        return F.interpolate(lr * lr.mean(dim=(2, 3), keepdim=True) * self.weight, scale_factor=2)


def test_where_it_cannot_be_known_tiles_are_refused_and_small_pictures_still_enlarged(photograph):
    with pytest.raises(ValueError, match="cannot enlarge in tiles: a pixel acts further than"):
        utils.super_resolve(Whole(), photograph[:40, :40], tile=30)
    with pytest.raises(ValueError, match="cannot enlarge in tiles: it does not treat all places"):
        utils.super_resolve(Strided(), photograph[:40, :40], tile=30)
    assert utils.super_resolve(Whole(), photograph[:40, :40]).shape == (80, 80, 3)


def test_a_network_that_does_not_enlarge_is_named(small_settings):
    with pytest.raises(ValueError, match=r"this Conv2d makes \(1, 5, 16, 16\) of \(1, 3, 16, 16\)"):
        utils.super_resolve(nn.Conv2d(3, 5, 1), np.zeros((8, 8, 3), np.uint8))


def test_colours_are_read_as_their_profile_says(tmp_path, capsys):
    """A Display P3 photograph, as every iPhone makes them, beside what its colours are in sRGB."""
    Image.new("RGB", (8, 8), (200, 60, 40)).save(tmp_path / "p3.png", icc_profile=display_p3())
    assert np.abs(utils.read_picture(tmp_path / "p3.png").astype(int) - (217, 42, 23)).max() <= 1
    assert (utils.read_picture(tmp_path / "p3.png", stored=True) == (200, 60, 40)).all()
    colours = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile in [("plain", None), ("srgb", srgb), ("damaged", b"no profile"), ("cut", display_p3()[:200])]:
        Image.fromarray(colours).save(tmp_path / f"{name}.png", icc_profile=profile)
        assert np.array_equal(utils.read_picture(tmp_path / f"{name}.png"), colours), name
    told = capsys.readouterr().out
    assert told.count("its colour profile cannot be used") == 2 and "damaged.png" in told and "cut.png" in told


@pytest.mark.parametrize("alpha", [Image.new("L", (6, 4), 255), None])
def test_grey_stays_grey_with_an_opaque_alpha_too(tmp_path, alpha):
    grey = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    (Image.merge("LA", (grey, alpha)) if alpha else grey).save(tmp_path / "grey.png")
    assert np.array_equal(utils.read_picture(tmp_path / "grey.png"), np.asarray(grey))


def test_16_bits_are_rounded_or_it_is_said_that_they_are_not(tmp_path, capsys):
    values = np.random.default_rng(0).integers(0, 2**16, (9, 7, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", values, photometric="rgb")
    assert np.array_equal(utils.read_picture(tmp_path / "deep.tif"), np.round(values / 257))
    assert not capsys.readouterr().out
    tifffile.imwrite(tmp_path / "turned.tif", values, photometric="rgb", extratags=[(274, "H", 1, 3, False)])
    assert np.array_equal(utils.read_picture(tmp_path / "turned.tif"), np.round(values / 257)[::-1, ::-1])
    assert not capsys.readouterr().out
    png_of_16_bits(tmp_path / "deep.png", values)
    assert np.array_equal(utils.read_picture(tmp_path / "deep.png"), values >> 8)
    assert capsys.readouterr().out == f"{tmp_path / 'deep.png'}: of its 16 bits per colour the upper 8 are read\n"
    for name in ("deep.tif", "deep.png"):  # as they are stored, for lists
        assert np.array_equal(utils.read_picture(tmp_path / name, stored=True), values >> 8)
    assert not capsys.readouterr().out


def test_the_result_of_a_photograph_of_12_megapixels_can_be_read(tmp_path):
    Image.new("1", (16000, 12000)).save(tmp_path / "large.png")
    assert pixels_of(tmp_path / "large.png") == 192_000_000
    assert utils.read_picture(tmp_path / "large.png").shape == (12000, 16000)


def test_two_results_of_one_name_do_not_overwrite_each_other(tmp_path, generator, photograph):
    detail = np.ascontiguousarray(photograph[:24, :32])
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "a.png", "a.jpg.png"):
        Image.fromarray(detail).save(tmp_path / "in" / name)
    (tmp_path / "in" / "a.png.xmp").write_text("<x/>", encoding="utf-8")  # what a program notes beside a picture
    written, left_out = utils.super_resolve_folder(generator, tmp_path / "in", tmp_path / "out", progress=False)
    assert sorted(path.name for path in written) == ["a.jpg.png", "a.png.png"]
    assert {name for name, _ in left_out} == {"a.jpg.png", "a.png.xmp"}
    assert "would become a.jpg.png, as a.jpg does" in dict(left_out)["a.jpg.png"]
