"""From folders of pictures to lists: what is paired, left out and named."""

import csv
import io
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from warm import python

import create_data_lists
import datasets
import solver
import utils
from helpers import ROOT, make_lists, refused
from imresize import imresize
from kit.training import command


def names(report):
    folder = report.csv_file.parent
    return [((folder / row["hr"]).name, row["lr"] and (folder / row["lr"]).name) for row in report.rows]


def picture(path, width, height, seed=0):
    noise = np.random.default_rng([seed, width, height]).integers(0, 256, (height, width, 3), np.uint8)
    utils.save_picture(path, noise)


def test_div2k(tmp_path):
    for i in (1, 2, 10):
        picture(tmp_path / "DIV2K_train_HR" / f"{i:04}.png", 100, 96, i)
        picture(tmp_path / "DIV2K_train_LR_bicubic" / "X4" / f"{i:04}x4.png", 25, 24, i)
    train, tests = create_data_lists.find_known_sets(tmp_path)
    report, = make_lists(train, tests, tmp_path / "lists")
    assert names(report) == [("0001.png", "0001x4.png"), ("0002.png", "0002x4.png"), ("0010.png", "0010x4.png")]
    assert report.rows[0]["width"] == 100 and report.csv_file == tmp_path / "lists" / "train.csv"


def test_edsr_benchmarks_whose_pictures_are_not_multiples_of_the_scale(tmp_path):
    picture(tmp_path / "benchmark/B100/HR/101085.png", 321, 481)
    picture(tmp_path / "benchmark/B100/LR_bicubic/X4/101085x4.png", 80, 120)
    picture(tmp_path / "benchmark/B100/LR_bicubic/X2/101085x2.png", 160, 240)
    _, tests = create_data_lists.find_known_sets(tmp_path)
    report, = make_lists(None, tests, tmp_path / "lists")
    assert report.name == "B100" and names(report) == [("101085.png", "101085x4.png")]
    pair = datasets.TestDataset(report.csv_file)[0]
    assert pair.name == "101085" and pair.hr.shape == (480, 320, 3) and pair.lr.shape == (120, 80, 3)
    report, = make_lists(None, tests, tmp_path / "two", scale=2)
    assert names(report) == [("101085.png", "101085x2.png")]


def test_the_folders_of_basicsr(tmp_path):
    for name in ("GTmod12", "LRbicx4"):
        picture(tmp_path / "Set5" / name / "baby.png", *((48, 36) if name == "GTmod12" else (12, 9)))
    (tmp_path / "Set5" / "original").mkdir()
    [report] = make_lists(tests=create_data_lists.find_known_sets(tmp_path)[1], out=tmp_path / "out")
    assert names(report) == [("baby.png", "baby.png")]


def test_one_folder_too_deep(tmp_path):
    """As those who unpack archives often have them, `DIV2K_train_HR/DIV2K_train_HR/0001.png`."""
    picture(tmp_path / "DIV2K_train_HR" / "DIV2K_train_HR" / "0001.png", 96, 96)
    picture(tmp_path / "DIV2K_train_LR_bicubic_X4" / "DIV2K_train_LR_bicubic" / "X4" / "0001x4.png", 24, 24)
    picture(tmp_path / "Set5" / "Set5" / "HR" / "baby.png", 24, 24)
    picture(tmp_path / "Set5" / "Set5" / "LR_bicubic" / "X4" / "babyx4.png", 6, 6)
    (tmp_path / "Set5" / ".DS_Store").write_bytes(b"what macOS leaves everywhere")
    train, test = make_lists(*create_data_lists.find_known_sets(tmp_path), out=tmp_path / "out")
    assert names(train) == [("0001.png", "0001x4.png")] and names(test) == [("baby.png", "babyx4.png")]


def test_a_folder_of_folders_names_them(tmp_path):
    for name in ("old", "new"):
        picture(tmp_path / "mine" / name / "a.png", 96, 96)
    (tmp_path / "empty").mkdir()
    refused(lambda: make_lists(tmp_path / "mine", out=tmp_path / "out"), tmp_path,
            "mine: holds no pictures, but the folders new, old; name the one that is meant")
    refused(lambda: make_lists(tmp_path / "empty", out=tmp_path / "out"), tmp_path, "empty: holds no pictures")


def test_every_format_that_is_read_is_listed_and_what_is_not_is_named(photograph, tmp_path):
    Image.fromarray(photograph[:96, :96]).save(tmp_path / "a.jfif", "JPEG")
    (tmp_path / "b.HEIC").write_bytes(b"....ftypheic")
    [report] = make_lists(tmp_path, out=tmp_path / "out")
    assert names(report) == [("a.jfif", None)]
    assert report.left_out == [("b.HEIC", "is in the format HEIC, which is not read here; save it as PNG or JPEG")]


def test_what_macos_leaves_beside_lists_is_no_list(tmp_path):
    create_data_lists.create_demo_lists(tmp_path, progress=False)
    (tmp_path / "._demo_test.csv").write_bytes(b"\0\5\x16\7")
    assert [path.name for path in create_data_lists.test_lists(tmp_path)] == ["demo_test.csv"]


def test_high_and_low_resolution_in_one_folder(tmp_path):
    for i in (1, 2):
        picture(tmp_path / f"Set5/image_SRF_4/img_00{i}_SRF_4_HR.png", 40, 32, i)
        picture(tmp_path / f"Set5/image_SRF_4/img_00{i}_SRF_4_LR.png", 10, 8, i)
    report, = make_lists(None, {"Set5": tmp_path / "Set5"}, tmp_path / "lists")
    assert names(report) == [(f"img_00{i}_SRF_4_HR.png", f"img_00{i}_SRF_4_LR.png") for i in (1, 2)]


def test_high_resolution_only(tmp_path):
    picture(tmp_path / "img_align_celeba/000001.jpg", 178, 218)
    report, = make_lists(None, {"faces": tmp_path / "img_align_celeba"}, tmp_path / "lists")
    pair = datasets.TestDataset(report.csv_file)[0]
    assert pair.hr.shape == (216, 176, 3)
    assert np.array_equal(pair.lr, imresize(pair.hr, 1 / 4))


def test_two_folders_named_outright(tmp_path):
    picture(tmp_path / "sharp/a.png", 16, 16)
    picture(tmp_path / "small/a.png", 4, 4)
    report, = make_lists(None, {"mine": (tmp_path / "sharp", tmp_path / "small")}, tmp_path / "lists")
    assert names(report) == [("a.png", "a.png")]


def test_what_is_left_out_is_named_with_the_reason(tmp_path):
    hr, lr = tmp_path / "DIV2K_train_HR", tmp_path / "DIV2K_train_LR_bicubic" / "X4"
    for i in range(1, 8):
        picture(hr / f"{i:04}.png", 100, 96, i)
        picture(lr / f"{i:04}x4.png", 25, 24, i)
    (lr / "0002x4.png").unlink()
    picture(lr / "0003x4.png", 24, 24)
    (hr / "0004.png").write_bytes((hr / "0004.png").read_bytes()[:999])
    (hr / "0005.png").write_bytes((hr / "0001.png").read_bytes())
    picture(hr / "0006.png", 40, 40)
    picture(lr / "0006x4.png", 10, 10)
    (hr / "notes.txt").write_text("hello", encoding="utf-8")
    picture(lr / "0099x4.png", 25, 24)
    Image.open(hr / "0007.png").save(hr / "0007.bmp")
    report, = make_lists(hr, None, tmp_path / "lists")
    assert [hr for hr, _ in names(report)] == ["0001.png", "0007.bmp"]
    reasons = dict(report.left_out)
    for file, words in {"0002.png": "no low-resolution partner", "0003.png": "not 4 times its low resolution",
                        "0004.png": "not a readable picture", "0005.png": "same picture as 0001.png",
                        "0006.png": "too small", "notes.txt": "not a picture file", "0007.png": "same name as 0007.bmp",
                        "0099x4.png": "no high-resolution partner"}.items():
        assert words in reasons.pop(file)
    assert not reasons
    text = create_data_lists.summary([report])
    assert "0003.png is 100×96" in text and text.splitlines()[2].split()[:3] == ["train", "2", "8"]


def test_lists_and_pictures_can_be_moved_together(tmp_path):
    picture(tmp_path / "before/pictures/a.png", 16, 16)
    make_lists(None, {"a": tmp_path / "before/pictures"}, tmp_path / "before/lists")
    os.rename(tmp_path / "before", tmp_path / "after")
    assert len(datasets.TestDataset(tmp_path / "after/lists/a.csv")) == 1


def test_the_command(tmp_path):
    picture(tmp_path / "faces/1.png", 40, 40)
    command = ["create_data_lists.py", "--demo", "--test", f"faces={tmp_path / 'faces'}"]
    done = python(*command, "--out", tmp_path / "lists")
    assert done.returncode == 0, done.stderr
    assert "demo_train" in done.stdout and "faces" in done.stdout
    assert [p.name for p in create_data_lists.test_lists(tmp_path / "lists")] == ["demo_test.csv", "faces.csv"]
    done = python("create_data_lists.py", "--train", tmp_path / "no")
    assert done.returncode == 1 and "no: there is no such folder" in done.stderr and "Traceback" not in done.stderr


def test_the_demo_photographs_are_split(tmp_path):
    train, test = create_data_lists.create_demo_lists(tmp_path, progress=False)
    assert not train.left_out and not test.left_out
    assert not {row["hr"] for row in train.rows} & {row["hr"] for row in test.rows}


@pytest.mark.skipif(sys.getfilesystemencoding() != "utf-8", reason="files cannot have such names here")
def test_unusual_names_do_not_stop_a_list(tmp_path, photograph):
    for name in ("²1.png", "٣.png", "ok.png", os.fsdecode(b"caf\xe9.png")):
        part = np.ascontiguousarray(np.roll(photograph, len(name), axis=0)[:40, :40])
        (tmp_path / "p").mkdir(exist_ok=True)
        stream = io.BytesIO()
        Image.fromarray(part + np.uint8(len(os.fsencode(name)))).save(stream, "PNG")
        (tmp_path / "p" / name).write_bytes(stream.getvalue())
    report, = create_data_lists.create_data_lists(None, {"a": tmp_path / "p"}, tmp_path, progress=False)
    assert len(report.rows) == 3 and report.left_out == [("'caf\\udce9.png'", "has a name with unusual characters; "
                                                                                "rename it")]


def test_folders_of_which_no_list_can_be_made(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_text("no picture", encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.csv").write_text("an older list", encoding="utf-8")

    def make(*arguments, **options):
        return lambda: create_data_lists.create_data_lists(*arguments, out=tmp_path / "out", progress=False, **options)

    refused(make(tmp_path / "nowhere"), tmp_path, "nowhere: there is no such folder")
    refused(make(tmp_path / "pictures"), tmp_path, "train: none of its pictures can be used", "a.png", "not a readable")
    refused(make((tmp_path / "pictures", tmp_path / "low")), tmp_path, "low: there is no such folder")
    refused(make(None, {"../Set5": tmp_path / "pictures"}), tmp_path, "'../Set5' cannot name a list")
    refused(make(tmp_path / "pictures", scale=3), tmp_path, "scale must be 2, 4 or 8")
    refused(make(), tmp_path, "no set named")
    refused(lambda: create_data_lists.find_known_sets(tmp_path), tmp_path, "none of the known folders",
            "DIV2K_train_HR")
    assert (tmp_path / "out" / "train.csv").read_text(encoding="utf-8") == "an older list"


def test_face_lists_take_the_middle_and_keep_the_last_five(faces, tmp_path):
    train, test = create_data_lists.create_recipe_lists("celeba", faces, out=tmp_path)
    assert [len(train.rows), len(test.rows)] == [5, 5]
    assert test.rows[-1]["hr"].endswith("img_align_celeba/000010.jpg")
    assert {tuple(row[f] for f in ("width", "height", "left", "top")) for row in train.rows} == {(128, 128, 25, 45)}
    pair = datasets.TestDataset(tmp_path / "celeba_test.csv")[4]
    whole = utils.read_picture(faces / "img_align_celeba" / "000010.jpg")
    assert np.array_equal(pair.hr, whole[45:173, 25:153]) and np.array_equal(pair.lr, imresize(pair.hr, 1 / 4))
    few = create_data_lists.create_face_lists(faces / "img_align_celeba", tmp_path, count=7, progress=False)
    assert len(few[0].rows) == 2 and few[1].rows[-1]["hr"].endswith("000007.jpg")


def test_lists_of_bundled_pictures_survive_a_move(tmp_path):
    cfg = solver.settings("demo", train_list=str(tmp_path / "demo_train.csv"),
                          valid_list=str(tmp_path / "demo_test.csv"))
    create_data_lists.ensure_lists(cfg)
    for csv_file in (cfg.train_list, cfg.valid_list):
        text = Path(csv_file).read_text(encoding="utf-8")
        Path(csv_file).write_text(text.replace("skimage", "elsewhere"), encoding="utf-8")
    create_data_lists.ensure_lists(cfg)
    assert len(create_data_lists.test_lists(tmp_path)) == 1
    with open(cfg.valid_list, newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert utils.read_picture(Path(cfg.valid_list).parent / row["hr"]).ndim


def test_the_command_makes_the_lists_of_a_recipe(faces, vgg19_weights, tmp_path):
    small = "--channels=4 --blocks=1 --discriminator_channels=2 --batch_size=5 --adversarial_epochs=1".split()
    done = python(ROOT / "solver.py", "--recipe", "celeba", "--data", faces, *small, "--vgg_weights", vgg19_weights[0],
                  cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "celeba_train" in done.stdout and (tmp_path / "runs/celeba/checkpoints/adversarial_001.pt").exists()


def test_the_command_makes_the_lists_of_the_demo_where_they_are_named(tmp_path, monkeypatch):
    def make_trainer(cfg):
        raise ValueError("that is enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "shutdown", lambda status: None)
    command.main(make_trainer, "--recipe demo --train_list my/demo_train.csv --valid_list my/demo_test.csv".split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my"]
    assert sorted(path.name for path in Path("my").iterdir()) == ["demo_test.csv", "demo_train.csv"]


def test_the_bar_reaches_its_end(photograph, tmp_path, capsys):
    for i in range(3):
        utils.save_picture(tmp_path / "hr" / f"{i}.png", np.ascontiguousarray(photograph[i : i + 40, :60]))
    create_data_lists.create_data_lists(None, {"mine": tmp_path / "hr"}, tmp_path / "lists")
    assert re.split("[\r\n]", capsys.readouterr().out.strip())[-1].startswith("mine: 100%")


@pytest.mark.parametrize("saved", [lambda text: text.replace(",", ";").encode(), lambda text: text.encode("gbk"),
                                   lambda text: b"\xff\xff\xff"])
def test_lists_that_a_spreadsheet_has_saved_are_known(tmp_path, saved):
    folder = tmp_path / "数据"
    cfg = solver.settings("demo", train_list=str(folder / "demo_train.csv"), valid_list=str(folder / "demo_test.csv"))
    create_data_lists.ensure_lists(cfg)
    data = saved(Path(cfg.valid_list).read_text(encoding="utf-8"))
    Path(cfg.valid_list).write_bytes(data)
    create_data_lists.ensure_lists(cfg)
    assert create_data_lists.test_lists(folder) == [Path(cfg.valid_list)]
    assert Path(cfg.valid_list).read_bytes() == data  # it stays as it is, whoever reads it says what is wrong


def test_one_photograph_that_ends_in_LR_and_high_resolution_alone(tmp_path):
    for seed, name in enumerate(("holiday", "sunset_LR")):
        picture(tmp_path / "S" / "HR" / f"{name}.png", 40, 32, seed)
    report, = make_lists(None, {"S": tmp_path / "S"}, tmp_path / "lists")
    assert names(report) == [("holiday.png", None), ("sunset_LR.png", None)] and not report.left_out


@pytest.mark.parametrize("name", ["Screenshot at 3.04.05\u202fPM", "全角\u3000空格", "two \U0001f468\u200d\U0001f469"])
def test_names_that_can_be_written_can_be_listed(tmp_path, name):
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        pytest.skip("this system's file names cannot have such letters")
    picture(tmp_path / "S" / f"{name}.png", 40, 32)
    report, = make_lists(None, {"S": tmp_path / "S"}, tmp_path / "lists")
    assert datasets.TestDataset(report.csv_file)[0].name == name


@pytest.mark.parametrize("arguments, words", [
    (["--train", "A", "--test", "train=A"], "a test set cannot be called 'train'"),
    (["--test", "x=A", "--test", "x=B"], "'x' is the name of another list"),
    (["--test", "demo_train=A"], "'demo_train' is the name of another list, or of the demo's")])
def test_two_sets_of_one_name_are_refused(tmp_path, monkeypatch, arguments, words, capsys):
    for name in ("A", "B"):
        picture(tmp_path / name / "a.png", 96, 96)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=words):
        create_data_lists.main([*arguments, "--out", "lists"])
    assert not (tmp_path / "lists").exists()


def test_a_tilde_is_the_home_of_what_is_read_and_of_what_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    utils.save_picture("~/S/a.png", np.zeros((40, 32, 3), np.uint8))
    make_lists(None, {"S": "~/S"}, "~/lists")
    assert (tmp_path / "home" / "lists" / "S.csv").is_file() and not list((tmp_path / "here").iterdir())


def test_low_resolution_alone_is_not_taken_for_high(tmp_path):
    for seed in (0, 1):
        picture(tmp_path / "S" / f"img_00{seed}_SRF_4_LR.png", 10, 8, seed)
    with pytest.raises(ValueError, match="none of its pictures can be used"):
        make_lists(None, {"S": tmp_path / "S"}, tmp_path / "lists")
