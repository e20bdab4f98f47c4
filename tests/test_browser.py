"""The student's hour in JupyterLab, in a real browser: run all, stop, stop twice, reopen, change, fork, sweep, table.

Needs chromium and `pip install playwright`. Screenshots go to $SR_SHOTS where that is set.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest

from helpers import CHROMIUM, copy_kit

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="drives a browser: needs chromium")

CELLS = {
    "open": "import solver\nfrom kit import compare, notebook, plots\nfrom kit.compare.sweeps import sweep\n"
            "notebook.set_up()\ncfg = solver.settings('demo', name='one',"
            " train_list='lists/train.csv', valid_list='lists/valid.csv', crop=32, batch_size=4, channels=8, blocks=1,"
            " patches_per_picture=200, discriminator_channels=4, discriminator_dense=8, warmup_epochs=6,"
            " warmup_lr=2e-3, adversarial_epochs=2, device='cpu')\ncfg",
    "make": "trainer = solver.Trainer(cfg)\ntrainer.cost()",
    "warm up": "history = trainer.warm_up(on_epoch=plots.LiveCurve(cfg.name))",
    "last": "print('the last ' + 'cell')",
}
WIDTHS = 1440, 1024


@pytest.fixture
def lab(tmp_path, small_lists):
    """JupyterLab on a copy of the kit with a small notebook in it: (address, folder)."""
    copy_kit(tmp_path)
    shutil.copytree(small_lists, tmp_path / "lists")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS.values()]
    metadata = nbformat.read(tmp_path / "train.ipynb", as_version=4).metadata
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), tmp_path / "hour.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.token=",
         "--ServerApp.password="], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"})  # the browser needs the other cores
    try:
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert server.poll() is None
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", tmp_path
    finally:
        server.terminate()
        server.wait()


class Page:
    """A notebook in a tab of JupyterLab, as a student has it before them."""

    def __init__(self, browser, address, width):
        self.page = browser.new_page(viewport={"width": width, "height": 1000})
        self.page.goto(f"{address}/lab/tree/hour.ipynb?reset", wait_until="domcontentloaded")
        self.page.wait_for_selector(".jp-Notebook-cell", timeout=300_000)
        self.page.wait_for_selector("text=Python 3 (ipykernel) | Idle", timeout=300_000)
        self.page.keyboard.press("Control+b")

    def menu(self, *labels):
        for label in labels:
            self.page.click(f".lm-Menu-item >> text='{label}'" if label != labels[0] else
                            f".lm-MenuBar-item >> text='{label}'")

    def run_all(self):
        self.menu("Run", "Run All Cells")

    def stop(self):
        self.menu("Kernel", "Interrupt Kernel")

    def add(self, source):
        """Append a cell and run it."""
        self.page.click(".jp-Notebook-cell >> nth=-1", position={"x": 5, "y": 5})
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("b")
        self.page.keyboard.press("Enter")
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Shift+Enter")

    def text(self):
        return "\n".join(self.page.locator(".jp-OutputArea").all_inner_texts())

    def wait_for(self, words):
        end = time.monotonic() + 300
        while words not in self.text():
            assert time.monotonic() < end, f"{words!r} is not in:\n{self.text()[-3000:]}"
            time.sleep(0.2)

    def shoot(self, name):
        if os.environ.get("SR_SHOTS"):
            self.page.screenshot(path=Path(os.environ["SR_SHOTS"], f"{name}_{self.page.viewport_size['width']}.png"))

    def is_calm(self):
        """Whether no line of text and no table is wider than the notebook."""
        return self.page.evaluate("""() => [...document.querySelectorAll('.jp-OutputArea-output')].every(
            e => e.scrollWidth <= e.clientWidth + 2)""")


def test_the_students_hour(lab):
    playwright = pytest.importorskip("playwright.sync_api", reason="drives a browser: needs pip install playwright")
    address, folder = lab
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = Page(browser, address, WIDTHS[0])
        page.run_all()
        page.wait_for("warmup 2/6")
        page.shoot("running")
        page.stop()
        page.wait_for("stopping after this update")
        page.wait_for("stopped and saved: warmup at")
        assert "Traceback" not in page.text() and "the last cell" not in page.text()  # "Run all" ended
        page.shoot("stopped")

        page.run_all()  # goes on
        page.wait_for("resumed, warmup at")
        page.wait_for("warmup 4/6")
        page.page.close()  # the kernel trains on

        page = Page(browser, address, WIDTHS[1])
        page.add("compare.follow('one')")
        page.wait_for("run 'one': ")
        page.wait_for("warmup 6/6")
        page.shoot("followed")

        page.add("cfg.adversarial_epochs = 1\ntrainer.train_adversarially()")
        page.wait_for("adversarial_epochs was 2 when the trainer was made, and cfg says 1 now")
        page.add("cfg.warmup_lr = 1e-3\nsolver.Trainer(cfg)")
        page.wait_for('choose a new name: cfg.name = "one_2"')
        assert "Traceback" not in page.text()
        page.add("cfg.warmup_lr = 2e-3; cfg.name, cfg.fork_of = 'two', 'one'\nsolver.Trainer(cfg).train()[-1]['psnr']")
        page.wait_for("new, with warmup of 'one'")
        page.wait_for("adversarial 1/1: content")
        page.shoot("forked")

        page.add("cfg.name, cfg.fork_of, cfg.warmup_epochs, cfg.patches_per_picture = 's', None, 1, 100\n"
                 "grid = dict(warmup_lr=[1e-4, 1e-3, 1e-2], adversarial_weight=[1e-3, 1e-2])\nsweep(cfg, **grid)")
        while len(list(folder.glob("runs/s-*/checkpoints/warmup.pt"))) < 3:
            time.sleep(0.1)
        page.stop()
        page.wait_for("wait for the same call again")
        page.add("sweep(cfg, **grid)")
        page.wait_for("s-warmup_lr_0.01-adversarial_weight_0.01")
        page.add("compare.table()")
        page.wait_for("differs in")
        page.shoot("table")
        assert page.is_calm()
        page.add("plots.flip({'eye': trainer.pictures()})")
        page.page.wait_for_selector(".sr-flip.ready .stage")
        for part in (".stage", ".versions button >> nth=1", "input[type=range]"):
            page.page.locator(f".sr-flip {part}").click()
            for key in ["1", "2", "m", "d", "d", "b", "ArrowRight"]:  # which are commands in a notebook
                page.page.keyboard.press(key)
        kinds = "document.querySelectorAll('.jp-CodeCell').length + ' ' + document.querySelectorAll('.jp-Cell').length"
        assert len(set(page.page.evaluate(kinds).split())) == 1
        page.shoot("flipped")
        page.add("solver.settings('demo', warmup_Ir=1)")
        page.wait_for("there is no setting 'warmup_Ir' (did you mean 'warmup_lr'?)")

        page.add("cfg.name, cfg.warmup_epochs = 'long', 50\nhistory = solver.Trainer(cfg).warm_up()")
        page.wait_for("new, on cpu")
        while not (folder / "runs" / "long" / "checkpoints" / "last.pt").exists():
            time.sleep(0.1)
        page.stop()
        page.stop()
        page.wait_for("topped a")  # once or twice, as it came: saved or at once
        assert "Traceback" not in page.text()
        page.shoot("stopped_twice")
        browser.close()
