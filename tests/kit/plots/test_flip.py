"""Pictures that are flipped and slid: what is in the page, and that it answers to mouse, keys and touch."""

import base64
import io
import re

import pytest
from PIL import Image

import utils
from helpers import CHROMIUM
from imresize import imresize
from kit import plots


@pytest.fixture
def motifs(photograph):
    shown = {}
    for name, part in [("eye", photograph[60:188, 100:260]), ("<script>nose</script>", photograph[120:248, 140:268])]:
        lr = imresize(part, 0.25)
        shown[name] = {"low resolution": lr, "bicubic": utils.bicubic(lr), "mine & yours": utils.bicubic(lr) // 2,
                       "original": part}
    return shown


def test_all_pictures_are_in_it_with_their_scores(motifs):
    html = plots.flip(motifs)._repr_html_()
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", html)]
    assert [image.size for image in images] == [(40, 32), *[(160, 128)] * 3, (32, 32), *[(128, 128)] * 3]
    bicubic = motifs["eye"]["bicubic"], motifs["eye"]["original"]
    assert f"{utils.psnr(*bicubic):.2f} dB / {utils.ssim(*bicubic):.3f}" in html
    assert "<script>nose" not in html and "mine &amp; yours" in html
    assert "http" not in re.sub(r"base64,[^\"]+", "", html)  # nothing is fetched from anywhere


def test_large_pictures_are_made_smaller(photograph):
    large = utils.bicubic(photograph[:200, :300])
    html = plots.flip({"x": {"bicubic": large, "original": large}})._repr_html_()
    data = re.findall(r"base64,([^\"]+)", html)[0]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (640, 427)


class Page:
    def __init__(self, page, address, messages):
        self.page, self.messages = page, messages
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(address)
        page.wait_for_selector(".sr-flip.ready .stage")

    def shown(self):
        """The two that are under and over the line, where this is, and the motif."""
        return self.page.evaluate("""() => [...['under', 'over'].map(one => document.querySelector('img.' + one).alt),
            +document.querySelector('input[type=range]').value, document.querySelector('.motifs .here').textContent]""")


def test_it_answers_to_mouse_keys_and_touch(motifs, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="drives a browser: needs pip install playwright")
    if not CHROMIUM:
        pytest.skip("drives a browser: needs chromium")
    plots.flip(motifs).save(tmp_path / "flip.html")
    address, messages = (tmp_path / "flip.html").as_uri(), []
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (1440, 1024):
            page = Page(browser.new_page(viewport={"width": width, "height": 900}), address, messages)
            assert page.shown() == ["bicubic", "mine & yours", 50, "eye"]
            box = page.page.locator(".stage").bounding_box()
            page.page.mouse.click(box["x"] + 20, box["y"] + 20)
            assert page.shown()[:2] == ["mine & yours", "bicubic"]
            page.page.keyboard.press(" ")
            assert page.shown()[:2] == ["bicubic", "mine & yours"]
            page.page.keyboard.press("4")
            page.page.keyboard.press("ArrowLeft")
            assert page.shown() == ["mine & yours", "original", 48, "eye"]
            page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
            page.page.mouse.down()
            page.page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 40, steps=4)
            page.page.mouse.up()
            assert page.shown()[2] == 25
            lenses = page.page.evaluate("""() => [...document.querySelectorAll('.lenses canvas')].map(canvas =>
                [...canvas.getContext('2d').getImageData(64, 64, 1, 1).data].slice(0, 3))""")
            assert len(lenses) == 4 and lenses[1] != lenses[2]  # the second is twice as bright as the third
            page.page.keyboard.press("n")
            assert page.shown()[3] == "<script>nose</script>"
            assert page.page.evaluate("document.documentElement.scrollWidth") <= width
        touching = browser.new_context(has_touch=True, viewport={"width": 390, "height": 800})
        page = Page(touching.new_page(), address, messages)
        page.page.locator(".stage").tap(position={"x": 50, "y": 60})
        assert page.shown()[:2] == ["mine & yours", "bicubic"]
        page.page.locator(".versions button").nth(3).tap()
        assert page.shown()[:2] == ["mine & yours", "original"]
        plain = browser.new_context(java_script_enabled=False).new_page()  # as in a notebook that is not trusted
        plain.goto(address)
        assert plain.locator(".motif img:visible").count() == 8
    assert not messages


def test_scores_are_those_of_the_scale(motifs):
    eye = {"eye": motifs["eye"]}
    bicubic, original = eye["eye"]["bicubic"], eye["eye"]["original"]
    for scale in (2, 8):
        assert f"{utils.psnr(bicubic, original, scale):.2f} dB" in plots.flip(eye, scale=scale)._repr_html_()
