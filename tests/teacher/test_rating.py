"""The rating page, and mean opinion scores from it."""

import base64
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import create_data_lists
import utils
from datasets import TestDataset
from helpers import CHROMIUM
from teacher import __main__ as teacher
from teacher import rating, scores


@pytest.fixture(scope="module")
def class_of_four(tmp_path_factory, photograph):
    """A list of two pictures, and four hand-ins of them: good, blurred, noisy, and one that lacks a picture."""
    folder, random = tmp_path_factory.mktemp("class"), np.random.default_rng(0)
    for name, left in (("cat", 0), ("eye", 160)):
        original = np.ascontiguousarray(photograph[40:168, left : left + 160])
        utils.save_picture(folder / "originals" / f"{name}.png", original)
        made = {"ann-lee": original // 2 * 2, "bob-lee": utils.bicubic(utils.imresize(original, 1 / 4)),
                "cem-lee": np.clip(original + random.normal(0, 20, original.shape), 0, 255).astype(np.uint8)}
        for student, picture in made.items():
            utils.save_picture(folder / "handins" / student / "results" / f"{name}.png", picture)
    utils.save_picture(folder / "handins" / "dee-lee" / "eye.png", original)
    report, = create_data_lists.create_data_lists(None, {"two": folder / "originals"}, folder, progress=False)
    return folder, {path.name: path for path in sorted((folder / "handins").iterdir())}, report.csv_file


def contents(page):
    text = page.read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("const CONTENT = "))
    return text, json.loads(line.removeprefix("const CONTENT = ").removesuffix(";"))


def test_a_page_says_nothing_about_whose_picture_is_whose(class_of_four, tmp_path):
    folder, handins, csv_file = class_of_four
    page, key_file, missing = rating.make_page(handins, csv_file, tmp_path / "page.html")
    assert missing == [("dee-lee", "cat")]
    text, content = contents(page)
    assert not any(name in text for name in (*handins, "cat.png", "eye.png", str(folder), "http:", "https:"))
    key = json.loads(key_file.read_text(encoding="utf-8"))
    assert key["page"] == content["page"]
    for scene, count in zip(content["scenes"], (3 + 2, 4 + 2)):
        assert len(scene["versions"]) == count and {v["raters"] for v in scene["versions"]} == {None}
        assert len({len(v["data"]) for v in scene["versions"]}) == 1  # not even by its size
        names = {key["versions"][v["id"]]["version"] for v in scene["versions"]}
        assert names >= {"ann-lee", rating.ORIGINAL, rating.NEAREST}
        assert "anchor" not in scene["versions"][0]
    for version in content["scenes"][0]["versions"]:
        (tmp_path / "x.png").write_bytes(base64.b64decode(version["data"].partition(",")[2]))
        whose = key["versions"][version["id"]]["version"]
        if whose in handins:
            wanted = utils.read_picture(handins[whose] / "results" / "cat.png")
            assert np.array_equal(utils.read_picture(tmp_path / "x.png"), wanted)
    orders = {tuple(key["versions"][v["id"]]["version"] for v in contents(rating.make_page(
        handins, csv_file, tmp_path / f"again{i}.html")[0])[1]["scenes"][1]["versions"] if v["id"] in key["versions"])
        for i in range(2)}
    assert orders == {()}  # other tokens each time


def test_a_large_class_shares_the_work(class_of_four, tmp_path):
    _, handins, csv_file = class_of_four
    page, key_file, _ = rating.make_page(handins, csv_file, tmp_path / "page.html", raters=6, times=3)
    _, content = contents(page)
    work = np.zeros(7, int)
    for scene in content["scenes"]:
        for version in scene["versions"]:
            if version["raters"] is not None:
                assert len(set(version["raters"])) == 3
                work[version["raters"]] += 1
    assert work.sum() == 7 * 3 and work[1:].max() - work[1:].min() <= 1
    before = key_file.read_bytes()
    with pytest.raises(FileExistsError, match="page.html.key.json is there already, and without it nothing is worth"):
        rating.make_page(handins, csv_file, tmp_path / "page.html")
    assert key_file.read_bytes() == before
    with pytest.raises(ValueError, match="at most as many times as there are raters"):
        rating.make_page(handins, csv_file, tmp_path / "other.html", raters=2, times=3)


def test_bad_hand_ins_are_named_and_do_not_keep_the_others_out(class_of_four, tmp_path, capsys):
    _, handins, csv_file = class_of_four
    utils.save_picture(tmp_path / "eve" / "cat.png", np.zeros((10, 10, 3), np.uint8))
    (tmp_path / "eve" / "eye.png").mkdir()
    both = {"eve": tmp_path / "eve", "ann-lee": handins["ann-lee"]}
    _, _, missing = rating.make_page(both, csv_file, tmp_path / "page.html")
    assert missing == [("eve", "cat"), ("eve", "eye")]
    assert "cat.png: is 10×10, and the original 160×128" in capsys.readouterr().out
    (tmp_path / "page.html").unlink()


def test_what_is_rated_is_what_is_checked(class_of_four, tmp_path):
    _, handins, csv_file = class_of_four
    picture, decoy = (utils.read_picture(handins[name] / "results" / "cat.png") for name in ("ann-lee", "bob-lee"))
    graded = Path(csv_file).stem
    utils.save_picture(tmp_path / "results" / "handin" / graded / "cat.png", picture)
    for place in (".", "results/handin", "report", f"results/handin/{graded}/more"):
        utils.save_picture(tmp_path / place / "cat.png", decoy)
    found = rating.find_pictures(tmp_path, list(TestDataset(csv_file, 4)), graded)
    assert np.array_equal(found["cat"], picture)


def test_without_any_picture_there_is_no_page(class_of_four, tmp_path):
    csv_file = class_of_four[2]
    (tmp_path / "fay").mkdir()
    with pytest.raises(ValueError, match="nothing to rate"):
        rating.make_page({"fay": tmp_path / "fay"}, csv_file, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.skipif(not CHROMIUM, reason="drives a browser: needs chromium")
def test_rating_by_keyboard_alone_survives_a_crash_and_is_read_back(class_of_four, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="drives a browser: needs pip install playwright")
    _, handins, csv_file = class_of_four
    page_file, key_file, _ = rating.make_page(handins, csv_file, tmp_path / "page.html")
    key = json.loads(key_file.read_text(encoding="utf-8"))

    def shoot(page, name):
        if os.environ.get("SR_SHOTS"):
            page.screenshot(path=Path(os.environ["SR_SHOTS"], f"{name}_{page.viewport_size['width']}.png"))

    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=CHROMIUM, locale="en-GB", args=["--no-sandbox"],
            viewport={"width": 1440, "height": 900})
        errors = []
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_file.as_uri())
        shoot(page, "rating_begin")
        page.click("#rater")
        page.keyboard.type("r1")
        page.keyboard.press("Enter")
        shoot(page, "rating_calibration")
        page.keyboard.press("Enter")
        for keys in ("Control+2", "Alt+3", "Meta+4"):  # of the browser or the system
            page.keyboard.press(keys)
        assert page.inner_text("#count") == "0 / 11"
        for _ in range(5):  # held down
            page.keyboard.down("3")
        page.keyboard.up("3")
        for number in (4, 2, 5):
            page.keyboard.press(str(number))
        assert page.inner_text("#count") == "4 / 11"
        assert page.evaluate("$('picture').width / $('picture').naturalWidth") == 4  # (900 - 360) / 128, whole
        page.mouse.move(700, 300)
        shoot(page, "rating_running")
        page.close()  # it crashes
        page = browser.new_page()
        page.set_viewport_size({"width": 420, "height": 900})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_file.as_uri())
        assert page.input_value("#rater") == "r1"
        page.select_option("#language", "zh")
        page.click("#start")
        assert page.inner_text("#count") == "4 / 11"
        shoot(page, "rating_zh")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press(" ")
        page.keyboard.press("z")
        page.keyboard.press("ArrowRight")
        for _ in range(7):
            page.keyboard.press("1")
        assert page.inner_text("#count") == "11 / 11" and page.is_visible("#end")
        with page.expect_download() as download:
            page.keyboard.press("s")
        assert page.inner_text("#saved") == "已全部保存"
        saved = tmp_path / "saved.json"
        download.value.save_as(saved)
        browser.close()
    assert errors == []
    good, wrong = scores.read_ratings([saved], key)
    assert not wrong and sorted(good[0].scores.values()) == [1] * 7 + [2, 3, 4, 5]
    assert good[0].times.keys() == good[0].scores.keys()
    assert "s at each" in scores.score(good, key)[1][0].doubt  # a program is quicker than anybody who looks


@pytest.mark.skipif(not CHROMIUM, reason="drives a browser: needs chromium")
def test_two_tabs_of_one_rater_keep_each_others_scores(class_of_four, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="drives a browser: needs pip install playwright")
    _, handins, csv_file = class_of_four
    page_file, key_file, _ = rating.make_page(handins, csv_file, tmp_path / "page.html")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=CHROMIUM, locale="en-GB", args=["--no-sandbox"])
        tabs = [browser.new_page() for _ in range(2)]
        for page in tabs:
            page.goto(page_file.as_uri())
            page.fill("#rater", "r1")
            page.press("#rater", "Enter")
            page.keyboard.press("Enter")
        tabs[0].keyboard.press("3")
        tabs[1].keyboard.press("ArrowRight")
        tabs[1].keyboard.press("ArrowRight")
        tabs[1].keyboard.press("5")
        with tabs[0].expect_download() as download:
            tabs[0].keyboard.press("s")
        assert tabs[0].inner_text("#saved") == "saved: 2 of 11, 9 are still to be rated"
        download.value.save_as(tmp_path / "saved.json")
        browser.close()
    good, _ = scores.read_ratings([tmp_path / "saved.json"], json.loads(key_file.read_text(encoding="utf-8")))
    assert sorted(good[0].scores.values()) == [3, 5]


def simulate(random, raters=15, versions=30):
    quality, bias = random.uniform(1.8, 4.2, versions), random.normal(0, 0.4, raters)
    inconsistency = random.uniform(0.3, 1.0, raters)
    given = quality + bias[:, None] + random.normal(0, 1, (raters, versions)) * inconsistency[:, None]
    return quality, bias - bias.mean(), inconsistency, given, bias.mean()


@pytest.mark.parametrize("raters, versions", [(15, 30), (5, 20)])
def test_simulated_raters_are_seen_through(raters, versions):
    random, covered, width, better, likeness = np.random.default_rng(1), [], [], [], []
    for _ in range(1000 if raters > 5 else 200):
        quality, bias, inconsistency, given, common = simulate(random, raters, versions)
        given[random.random(given.shape) < 0.3 * (raters > 5)] = np.nan  # not everybody has seen everything
        found, interval, found_bias, found_inconsistency = scores.recover(given)
        covered.append(np.abs(found - common - quality) <= interval)
        width.append(interval.mean())
        plain = np.nanmean(given, axis=0)
        better.append(np.abs(found - common - quality).mean() < np.abs(plain - common - quality).mean())
        likeness.append([np.corrcoef(found_bias, bias)[0, 1], np.corrcoef(found_inconsistency, inconsistency)[0, 1]])
    assert 0.93 < np.mean(covered) < 0.97, np.mean(covered)
    assert np.mean(better) > 0.7  # nearer to the truth than the plain mean
    assert (np.mean(likeness, axis=0) > (0.9, 0.6)).all()


def ratings_of(folder, key, rater, give):
    given = {token: int(np.clip(round(give(version)), 1, 5)) for token, version in key["versions"].items()}
    content = {"page": key["page"], "rater": rater, "scores": given, "check": scores.checksum(rater, given)}
    path = Path(folder, f"ratings {rater}.json")
    path.write_text(json.dumps(content), encoding="utf-8-sig")  # as some editors save it
    return path


@pytest.fixture
def sitting(tmp_path):
    """A key of six hand-ins with five pictures, and files of eight raters, one of whom clicks at random."""
    random, truth = np.random.default_rng(3), {f"s{i}": 1.7 + 0.4 * i for i in range(6)}
    truth |= {rating.ORIGINAL: 5.0, rating.NEAREST: 1.0}
    key = {"page": "p", "times": None, "versions": {f"t{i}{j}": {"picture": f"p{j}", "version": name}
                                                    for i, name in enumerate(truth) for j in range(5)}}
    files = [ratings_of(tmp_path, key, f"r{n}", lambda version, n=n: truth[version["version"]] + 0.1 * (n - 3)
                        + random.normal(0, 0.5)) for n in range(7)]
    files.append(ratings_of(tmp_path, key, "clicker", lambda version: random.integers(1, 6)))
    (tmp_path / "key.json").write_text(json.dumps(key), encoding="utf-8")
    return key, files, tmp_path


def test_the_order_is_found_and_the_one_who_clicks_at_random_is_named(sitting, capsys):
    key, files, folder = sitting
    good, wrong = scores.read_ratings(files, key)
    assert len(good) == 8 and not wrong
    results, raters = scores.score(good, key)
    assert [one.version for one in scores.totals(results)] == [
        rating.ORIGINAL, "s5", "s4", "s3", "s2", "s1", "s0", rating.NEAREST]
    assert {one.rater: one.doubt != "" for one in raters} == {**{f"r{n}": False for n in range(7)}, "clicker": True}
    teacher.main(["scores", str(folder / "key.json"), str(folder / "ratings r*.json"), "--out", str(folder / "out"),
                  "--without", "r0", "--without", "r1"])
    assert "clicker" not in capsys.readouterr().out  # (a pattern in quotes, as shells of Windows leave it)
    with pytest.raises(SystemExit, match="there is no rater 'cliker' .did you mean 'clicker'"):
        teacher.main(["scores", str(folder / "key.json"), *map(str, files), "--without", "cliker"])
    teacher.main(["scores", str(folder / "key.json"), *map(str, files), "--out", str(folder / "out")])
    printed = capsys.readouterr().out
    assert "clicker" in printed and "scores as if at random" in printed
    assert (folder / "out" / "mos.png").is_file()
    assert (folder / "out" / "mos.csv").read_text(encoding="utf-8").splitlines()[1].startswith("(original),all,")
    assert len((folder / "out" / "mos_pictures.csv").read_text(encoding="utf-8").splitlines()) == 1 + 8 * 5


def test_files_that_cannot_be_trusted_are_named_and_not_averaged_away(sitting):
    key, files, folder = sitting
    content = json.loads(files[0].read_text(encoding="utf-8-sig"))
    edited = {**content, "scores": {**content["scores"], "t00": 5 if content["scores"]["t00"] != 5 else 1}}
    (folder / "edited.json").write_text(json.dumps(edited), encoding="utf-8")
    (folder / "cut.json").write_text(files[1].read_text(encoding="utf-8")[:200], encoding="utf-8")
    (folder / "other.json").write_text(json.dumps({**content, "page": "q"}), encoding="utf-8")
    shutil.copy(files[2], folder / "twice.json")
    contrary = ratings_of(folder / ".", key, "r3", lambda version: 3).rename(folder / "contrary.json")
    files[3].write_text(json.dumps({**content, "rater": "r3", "check": scores.checksum("r3", content["scores"])}),
                        encoding="utf-8")
    few = dict(list(json.loads(files[4].read_text(encoding="utf-8-sig"))["scores"].items())[:10])
    (folder / "early.json").write_text(json.dumps(
        {"page": "p", "rater": "r4", "scores": few, "check": scores.checksum("r4", few)}), encoding="utf-8")
    given = [*files, *(folder / f"{name}.json" for name in ("edited", "cut", "other", "twice", "early")), contrary]
    good, wrong = scores.read_ratings(given, key)
    assert {file.name: why.split(",")[0] for file, why in wrong} == {
        "edited.json": "was changed by hand", "cut.json": "is cut off", "other.json": "is of another page",
        "twice.json": "is an earlier state of ratings r2.json",
        "early.json": "is an earlier state of ratings r4.json",
        "contrary.json": "contradicts ratings r3.json"}
    assert "r3" not in [one.rater for one in good] and len(good) == 7
    files[4].unlink()
    ratings_of(folder, key, "r3", lambda version: 2)  # a third file does not heal a contradiction
    halves = [folder / "half1.json", folder / "half2.json"]
    whole = {token: 3 for token in key["versions"]}
    for half, part in zip(halves, (0, 1)):
        some = dict(list(whole.items())[part::2])
        half.write_text(json.dumps({"page": "p", "rater": "h", "scores": some, "check": scores.checksum("h", some)}),
                        encoding="utf-8")
    odd = folder / "odd.json"
    odd.write_text('{"page": "p", "rater": 5, "scores": {"t00": Infinity}, "check": "0"}', encoding="utf-8")
    good, wrong = scores.read_ratings([contrary, *files[3:4], *halves, odd], key)
    assert [(one.rater, len(one.scores)) for one in good] == [("h", len(whole))]
    assert [file.name for file, _ in wrong] == ["ratings r3.json", "odd.json"]
    with pytest.raises(ValueError, match="no file of ratings that can be used"):
        scores.score([], key)


def test_what_lies_beside_the_folder_of_a_hand_in_is_not_rated(class_of_four, tmp_path):
    _, handins, csv_file = class_of_four
    picture, decoy = (utils.read_picture(handins[name] / "results" / "cat.png") for name in ("ann-lee", "bob-lee"))
    graded = Path(csv_file).stem
    (tmp_path / "hw").mkdir()
    (tmp_path / "hw" / "models.py").write_text("", encoding="utf-8")
    utils.save_picture(tmp_path / "hw" / "results" / "handin" / graded / "cat.png", picture)
    utils.save_picture(tmp_path / "results" / "handin" / graded / "cat.png", decoy)
    found = rating.find_pictures(tmp_path, list(TestDataset(csv_file, 4)), graded)
    assert np.array_equal(found["cat"], picture)


def test_a_page_is_calibrated_with_a_picture_that_nobody_handed_in(class_of_four, tmp_path):
    _, handins, csv_file = class_of_four
    page, *_ = rating.make_page({"dee-lee": handins["dee-lee"]}, csv_file, tmp_path / "page.html")  # it has no cat
    content = contents(page)[1]
    assert len(content["scenes"]) == 1 and len(content["calibration"]) == 2
