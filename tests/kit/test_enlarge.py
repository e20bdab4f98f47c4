"""`python -m kit enlarge`, on pictures of all kinds that people have."""

import errno
import os
import re
import struct
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

import kit.__main__
import utils
from helpers import display_p3, png_of_16_bits, save_generator
from imresize import imresize
from kit import enlarge
from kit.files import full_disk_told, locked
from kit.photographs import read_photograph, without_holes

PLAIN = ["photo.jpg", "turned.jpg", "p3.png", "text.png", "deep.png", "grey.png", "scan.tif", "web.webp",
         "sub/more.png"]
WITH_HOLES = ["holes.png", "grey_holes.png", "palette.gif"]
LEFT_OUT = {"film.gif": "frames", "broken.jpg": "not a readable picture", "empty.png": "it is empty",
            "gone.png": "there is no such file", "phone.heic": "an HEIC photograph"}


@pytest.fixture
def folder(tmp_path, photograph):
    """A folder with all kinds of pictures, and what is none."""
    place = tmp_path / "mine"
    (place / "sub").mkdir(parents=True)
    part = np.ascontiguousarray(photograph[80:104, 120:152])
    image, grey = Image.fromarray(part), Image.fromarray(part[..., 0])
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a maker"  # turned by a quarter
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "an eye")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 16, 24))
    image.save(place / "photo.jpg", quality=95)
    image.save(place / "turned.jpg", quality=95, exif=exif)
    image.save(place / "p3.png", icc_profile=display_p3())
    image.save(place / "text.png", pnginfo=text)
    Image.fromarray(part[..., 0].astype(np.uint16) * 257).save(place / "deep.png")
    grey.save(place / "grey.png")
    image.save(place / "scan.tif")
    image.save(place / "web.webp", lossless=True)
    image.save(place / "sub" / "more.png")
    Image.merge("RGBA", (*image.split(), alpha)).save(place / "holes.png")
    Image.merge("LA", (grey, alpha)).save(place / "grey_holes.png")
    image.quantize(15).save(place / "palette.gif", transparency=0)
    image.save(place / "film.gif", save_all=True, append_images=[Image.new("RGB", image.size)])
    (place / "broken.jpg").write_bytes((place / "photo.jpg").read_bytes()[:200])
    (place / "notes.txt").write_text("no picture", encoding="utf-8")
    (place / "empty.png").touch()
    (place / "gone.png").symlink_to(place / "nowhere.png")
    (place / "phone.heic").write_bytes(b"....ftypheic")
    (place / ".hidden.png").write_bytes((place / "text.png").read_bytes())
    return place


@pytest.fixture
def weights(tmp_path, generator):
    save_generator(tmp_path / "mine.pt", generator, channels=8, blocks=2)
    return tmp_path / "mine.pt"


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        enlarge.main(list(map(str, arguments)))
    return end.value.code


def results_in(folder):
    """The names of the results in a folder, without the journal and its lock."""
    return sorted(path.name for path in folder.iterdir() if path.name not in (".enlarged.jsonl", ".enlarged.lock"))


def test_a_folder_of_all_kinds(folder, weights, generator, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(folder, "--weights", weights, "--out", out) == 1  # some could not be
    printed = capsys.readouterr().out
    for name, why in LEFT_OUT.items():
        assert [line for line in printed.splitlines() if name in line and why in line], name
    assert f"{len(PLAIN + WITH_HOLES)} enlarged" in printed and "5 could not be, see above" in printed
    assert "notes.txt" not in printed  # which is no picture, and not called as if
    results = {path.relative_to(out).as_posix() for path in out.rglob("[!.]*") if path.is_file()}
    assert results == {name.rpartition(".")[0] + ".png" for name in PLAIN + WITH_HOLES}
    for name in PLAIN:
        picture = utils.read_picture(folder / name)
        wanted = utils.super_resolve(generator, picture)
        assert np.array_equal(utils.read_picture((out / name).with_suffix(".png")), wanted), name
    assert utils.read_picture(out / "turned.png").shape == (128, 96, 3)
    with Image.open(out / "turned.png") as image:
        assert image.getexif()[0x010F] == "a maker" and 0x0112 not in image.getexif()
    with Image.open(out / "text.png") as image:
        assert image.text["Title"] == "an eye"
    for name in WITH_HOLES:
        small, large = read_photograph(folder / name), read_photograph((out / name).with_suffix(".png"))
        assert np.array_equal(large.alpha, imresize(small.alpha, 4)) and large.picture.ndim == small.picture.ndim
    assert run(folder, "--weights", weights, "--out", out) == 1
    assert "12 are done already" in capsys.readouterr().out


def test_colours_that_are_not_seen_do_not_bleed_in(photograph):
    picture, alpha = photograph[:32, :40].copy(), np.full((32, 40), 255, np.uint8)
    alpha[:, :20] = 0
    one, other = picture.copy(), picture.copy()
    one[:, :20], other[:, :20] = 0, (255, 0, 255)
    assert np.array_equal(without_holes(one, alpha), without_holes(other, alpha))
    assert np.array_equal(without_holes(one, alpha)[:, 20:], picture[:, 20:])
    assert np.array_equal(without_holes(one, alpha)[:, 0], picture[:, 20])
    assert np.array_equal(without_holes(one, alpha * 0), one)  # nothing is seen: nothing to take


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_other_formats(folder, weights, tmp_path, kind):
    ending = {"jpeg": "jpg", "webp": "webp"}[kind]
    assert run(folder / "holes.png", folder / "text.png", "--weights", weights, "--out", tmp_path, "--format", kind,
               "--quality", 80) == 0
    with Image.open(tmp_path / f"holes.{ending}") as image:
        assert image.format == kind.upper() and image.size == (128, 96)
        assert image.mode == ("RGB" if kind == "jpeg" else "RGBA")
        assert kind == "webp" or min(image.getpixel((20, 40))) > 245  # on white


def test_nothing_is_overwritten_and_pictures_that_are_called_alike_are_told_apart(folder, weights, tmp_path, capsys):
    Image.open(folder / "photo.jpg").save(folder / "photo.png")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "would be overwritten" in run(folder / "photo.png", "--weights", weights, "--out", folder)
    assert run(folder / "photo.png", folder / "photo.jpg", "--weights", weights, "--out", tmp_path / "out") == 0
    assert results_in(tmp_path / "out") == ["photo.jpg.png", "photo.png.png"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_is_asked_wrongly_is_told_in_a_line(folder, weights, tmp_path):
    assert "there is no such file or folder" in run(tmp_path / "nowhere", "--weights", weights)
    assert "--quality must be from 1 to 100" in run(folder, "--weights", weights, "--quality", 0)
    assert "mine.gone: there are no such weights" in run(folder, "--weights", tmp_path / "mine.gone")
    assert "(did you mean 'srgan'?)" in run(folder, "--weights", "srgann")
    assert "device 'foo' cannot be used" in run(folder, "--weights", weights, "--device", "foo")
    (folder / "none").mkdir()
    assert "there is no picture in" in run(folder / "none", "--weights", weights, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_self_ensemble_is_the_mean_of_eight_flips_and_turns(generator, photograph):
    for picture in (np.ascontiguousarray(photograph[:20, :28]), np.ascontiguousarray(photograph[:20, :28, 0])):
        made = utils.super_resolve(generator, picture, self_ensemble=True, precision="fp32")
        seen = []
        for mirrored in (False, True):
            for turns in range(4):
                one = np.rot90(picture[:, ::-1] if mirrored else picture, turns)
                one = np.rot90(utils.super_resolve(generator, np.ascontiguousarray(one), precision="fp32"), -turns)
                seen.append((one[:, ::-1] if mirrored else one).astype(float))
        assert made.shape == seen[0].shape and made.dtype == np.uint8
        assert np.abs(made - np.mean(seen, axis=0)).max() <= 0.5
        mirrored = utils.super_resolve(generator, np.ascontiguousarray(picture[:, ::-1]), self_ensemble=True,
                                       precision="fp32")
        assert np.array_equal(mirrored[:, ::-1], made)  # whichever way it is held


def test_interrupted_it_goes_on_where_it_was(folder, weights, tmp_path, monkeypatch, capsys):
    usual, count = enlarge.save_photograph, []

    def interrupted(*arguments):
        if len(count) == 3:
            raise KeyboardInterrupt
        count.append(usual(*arguments))

    monkeypatch.setattr(enlarge, "save_photograph", interrupted)
    assert "the same command goes on from there" in run(folder, "--weights", weights, "--out", tmp_path / "out")
    monkeypatch.setattr(enlarge, "save_photograph", usual)
    assert run(folder, "--weights", weights, "--out", tmp_path / "out") == 1
    assert "3 are done already" in capsys.readouterr().out
    assert len(list((tmp_path / "out").rglob("*.png"))) == len(PLAIN + WITH_HOLES)
    assert torch.is_grad_enabled()


def test_where_nothing_can_be_written_it_says_so_at_once(folder, weights, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    told = run(folder, "--weights", weights, "--out", tmp_path / "file")
    assert f"{tmp_path / 'file'}: cannot be written to" in told and "choose another folder" in told
    assert "enlarging" not in capsys.readouterr().out


def test_a_full_disk_ends_it_and_a_name_too_long_leaves_one_picture_out(folder, weights, tmp_path, monkeypatch, capsys):
    usual, count = enlarge.save_photograph, []

    def failing(target, *arguments):
        count.append(target)
        if target.stem == "grey":
            raise OSError(errno.ENAMETOOLONG, "File name too long", str(target))
        if len(count) == 5:
            with full_disk_told(target):
                raise OSError(errno.ENOSPC, "No space left on device")
        usual(target, *arguments)

    monkeypatch.setattr(enlarge, "save_photograph", failing)
    assert "the disk is full" in run(folder, "--weights", weights, "--out", tmp_path / "out")
    count[:] = range(9)
    assert run(folder, "--weights", weights, "--out", tmp_path / "out") == 1
    printed = capsys.readouterr().out
    assert "grey.png" in printed and "File name too long" in printed and "are done already" in printed
    assert len(list((tmp_path / "out").rglob("*.png"))) == len(PLAIN + WITH_HOLES) - 1


def test_what_a_killed_program_left_is_removed(folder, weights, tmp_path):
    (tmp_path / "out").mkdir()
    left = tmp_path / "out" / ".0123456789abcdef.part"
    other = tmp_path / "out" / ".thesis.part"
    for file in (left, other):
        file.write_bytes(b"half a picture")
        os.utime(file, (0, 0))
    run(folder / "text.png", "--weights", weights, "--out", tmp_path / "out")
    assert not left.exists() and results_in(tmp_path / "out") == [".thesis.part", "text.png"]


def test_what_is_said_of_a_picture_stands_in_its_own_line(folder, weights, tmp_path, capsys):
    png_of_16_bits(folder / "sixteen.png", np.full((8, 9, 3), 513, np.uint16))
    run(folder / "sixteen.png", "--weights", weights, "--out", tmp_path / "out")
    lines = re.split(r"[\r\n]+", capsys.readouterr().out)
    assert f"{folder / 'sixteen.png'}: of its 16 bits per colour the upper 8 are read" in lines


def test_results_within_the_folder_are_not_enlarged_again_however_it_is_named(folder, weights, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    for what in (folder, folder.name):
        assert run(what, "--weights", weights, "--out", f"{folder.name}/out") == 1
    assert "0 enlarged" in capsys.readouterr().out
    assert len(list((folder / "out").rglob("*.png"))) == len(PLAIN + WITH_HOLES)


def test_pictures_of_one_name_from_several_folders_do_not_take_each_other_s_place(photograph, weights, tmp_path,
                                                                                   capsys):
    days = [tmp_path / "monday", tmp_path / "tuesday"]
    for number, day in enumerate(days):
        utils.save_picture(day / "IMG_1.png", photograph[:8, 10 * number : 10 * number + 9])
    assert run(*days, days[0], days[0] / "IMG_1.png", "--weights", weights, "--out", tmp_path / "out") == 0
    made = [utils.read_picture(tmp_path / "out" / day.name / "IMG_1.png") for day in days]
    assert not np.array_equal(*made) and len(list((tmp_path / "out").rglob("*.png"))) == 2
    files = [day / "IMG_1.png" for day in days]
    capsys.readouterr()
    assert run(*files, "--weights", weights, "--out", tmp_path / "other") == 1
    assert f"{files[1]}: would become" in (told := capsys.readouterr().out) and f"as {files[0]} does" in told
    assert len(results_in(tmp_path / "other")) == 1


def test_a_result_is_made_again_when_its_picture_or_what_is_asked_for_has_changed(folder, weights, generator, tmp_path,
                                                                                   photograph, capsys):
    out, picture = tmp_path / "out", folder / "photo.png"

    def made(*options):
        assert run(picture, "--weights", weights, "--out", out, "--format", "webp", *options) == 0
        return capsys.readouterr().out, (out / "photo.webp").read_bytes()

    utils.save_picture(picture, photograph[:16, :20])
    _, first = made()
    assert "1 are done already" in made()[0]
    os.utime(picture)  # touched alone
    assert "1 are done already" in made()[0]
    told, worse = made("--quality", 50)
    assert "1 enlarged" in told and len(worse) < len(first)
    told, mean = made("--self-ensemble")
    assert "1 enlarged" in told and mean != first
    told, _ = made("--self-ensemble", "--precision", "fp32")
    assert "1 enlarged" in told
    assert made()[1] == first
    utils.save_picture(picture, photograph[20:36, :20])
    os.utime(picture, (0, 0))  # an older one in its place
    told, other = made()
    assert "1 enlarged" in told and other != first
    with torch.no_grad():
        next(generator.parameters()).mul_(0.5)
    save_generator(weights, generator, channels=8, blocks=2)
    told, weaker = made()
    assert "1 enlarged" in told and weaker != other


def test_no_result_takes_the_place_of_another_picture_s_or_of_somebody_else_s(weights, tmp_path, photograph, capsys):
    out, days = tmp_path / "out", [tmp_path / "monday", tmp_path / "tuesday"]
    for number, day in enumerate(days):
        utils.save_picture(day / "IMG_1.png", photograph[:8, 10 * number : 10 * number + 9])
    assert run(days[0], "--weights", weights, "--out", out) == 0
    first = (out / "IMG_1.png").read_bytes()
    assert run(days[1], "--weights", weights, "--out", out) == 1
    assert f"IMG_1.png is there already, made of {days[0] / 'IMG_1.png'}" in capsys.readouterr().out
    days[0].rename(tmp_path / "first")
    assert run(tmp_path / "first", "--weights", weights, "--out", out) == 0
    assert "1 are done already" in capsys.readouterr().out
    (out / ".enlarged.jsonl").unlink()
    assert run(tmp_path / "first", "--weights", weights, "--out", out) == 1
    assert "not as this command has made it" in capsys.readouterr().out
    assert (out / "IMG_1.png").read_bytes() == first and results_in(out) == ["IMG_1.png"]


def test_killed_between_the_journal_and_a_result_it_goes_on(folder, weights, tmp_path, capsys, monkeypatch):
    out, journal = tmp_path / "out", tmp_path / "out" / ".enlarged.jsonl"
    usual = os.replace

    def killed(*names):
        raise KeyboardInterrupt

    for wish in ((), ("--self-ensemble",)):  # the first result, and one in the place of another
        monkeypatch.setattr(os, "replace", killed)
        assert "goes on from there" in run(folder / "text.png", "--weights", weights, "--out", out, *wish)
        monkeypatch.setattr(os, "replace", usual)
        assert run(folder / "text.png", "--weights", weights, "--out", out, *wish) == 0
        assert "1 enlarged" in capsys.readouterr().out
    with open(journal, "a", encoding="utf-8") as file:
        file.write("\nno JSON\n[]\n" + "[" * 100_000 + '\n{"result": []}\n{"result": "text.png", "ma')
    assert run(folder / "text.png", "--weights", weights, "--out", out, "--self-ensemble") == 0
    assert "1 are done already" in capsys.readouterr().out
    journal.unlink()
    journal.mkdir()
    assert "cannot be read and written" in run(folder / "text.png", "--weights", weights, "--out", out)


def test_a_result_that_was_changed_by_hand_or_is_damaged_is_told_and_kept(weights, tmp_path, photograph, capsys):
    picture, result = tmp_path / "a.png", tmp_path / "out" / "a.png"
    for changed in (photograph[:20, :20], b"damaged"):
        utils.save_picture(picture, photograph[:8, :9])
        assert run(picture, "--weights", weights, "--out", result.parent) == 0
        if isinstance(changed, bytes):
            result.write_bytes(changed)
        else:
            utils.save_picture(result, np.ascontiguousarray(changed))
        mine = result.read_bytes()
        for wish in ((), ("--self-ensemble",)):
            assert run(picture, "--weights", weights, "--out", result.parent, *wish) == 1
            assert "is there already, and not as this command has made it" in capsys.readouterr().out
        utils.save_picture(picture, photograph[8:16, :9])
        assert run(picture, "--weights", weights, "--out", result.parent) == 1 and result.read_bytes() == mine
        result.unlink()


def test_one_program_at_a_time_writes_into_a_folder(folder, weights, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out" / ".enlarged.lock", 1):
        thread = threading.Thread(target=run, args=(folder / "text.png", "--weights", weights, "--out",
                                                    tmp_path / "out"))
        thread.start()
        while "waiting for it" not in (told := capsys.readouterr().out):
            time.sleep(0.05)
        assert "another program is enlarging" in told and not results_in(tmp_path / "out")
    thread.join()
    assert results_in(tmp_path / "out") == ["text.png"]


def test_one_picture_s_trouble_is_not_the_others_(folder, weights, tmp_path, monkeypatch, capsys):
    (folder / "loop.png").symlink_to("loop.png")
    assert run(folder, "--weights", weights, "--out", tmp_path / "first") == 1
    assert "loop.png: there is no such file" in capsys.readouterr().out
    files = [folder / "odd.jpg", folder / "~odd.png", folder / "\x1b[2Jodd.png"]
    Image.open(folder / "photo.jpg").save(files[0], exif=ODD_EXIF)
    for file in files[1:]:
        Image.open(folder / "text.png").save(file)
    Image.new("L", (16400, 1)).save(folder / "long.png")
    out = tmp_path / "out"
    monkeypatch.chdir(folder)
    assert run(files[0], "~odd.png", files[2], "long.png", "--weights", weights, "--out", out, "--format", "jpeg") == 1
    printed = capsys.readouterr().out
    assert "odd.jpg: its EXIF cannot be taken over" in printed and "\x1b" not in printed
    assert "long.png: would become 65600×4, and a jpeg has at most 65500 pixels a side" in printed
    assert len(results_in(out)) == 3
    monkeypatch.setattr(enlarge.Machine, "memory", 5000)
    assert run(folder / "text.png", "--weights", weights, "--out", out) == 1
    assert "text.png: would become 128×96, for which" in capsys.readouterr().out


# A resolution that claims to be a byte, which Pillow reads and cannot write.
ODD_EXIF = b"Exif\0\0" + b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x011A, 1, 1, 0, 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1), (1, 1, 3)])
def test_pictures_of_one_pixel_a_side_by_the_self_ensemble(generator, shape):
    picture = np.full(shape, 77, np.uint8)
    assert utils.super_resolve(generator, picture, self_ensemble=True).shape[:2] == (4 * shape[0], 4 * shape[1])
    assert utils.super_resolve(generator, picture[::-1, ::-1]).shape[:2] == (4 * shape[0], 4 * shape[1])


def test_stopped_while_it_is_being_imported_it_ends_without_a_traceback(monkeypatch):
    def stopped(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("kit.__main__.import_module", stopped)
    with pytest.raises(SystemExit) as end:
        kit.__main__.main(["enlarge", "x"])
    assert end.value.code == 130
