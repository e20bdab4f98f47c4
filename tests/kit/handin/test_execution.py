"""Notebooks of a hand-in, executed again."""

import nbformat

from helpers import ROOT, walls
from kit.handin.execution import check_execution

TRAINS = """import solver
cfg = solver.settings("paper", name="large", channels=4, blocks=1, discriminator_channels=2, discriminator_dense=8,
                      content_loss="mse")
cfg.warmup_epochs = 200
history = solver.Trainer(cfg, progress=False).train()
assert [row["phase"] for row in history] == ["warmup", "adversarial"]"""
NOTEBOOKS = {
    "train.ipynb": ["from google.colab import drive", "from kit import notebook\nnotebook.set_up()", TRAINS],
    "test.ipynb": ["from kit import notebook\nnotebook.set_up()", "invented = measured\nprint('31.23 / 0.9')", "1"],
    "super_resolution.ipynb": ["from kit import notebook\nnotebook.set_up()", "print('fine')"]}


def executed_again(tmp_path, notebooks, seconds):
    """What is found of a hand-in with these notebooks (name → sources of their cells), up to the first bracket."""
    root = tmp_path / "root"
    root.mkdir()
    for name in ("models.py", "solver.py"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    for name, sources in notebooks.items():
        cells = [nbformat.v4.new_code_cell(source, execution_count=i) for i, source in enumerate(sources, 1)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), root / name)
    found = check_execution(root, tmp_path / "again", seconds)
    return [f"{one.verdict} {one.what}: {one.text}".partition(" (")[0] for one in found]


@walls
def test_cells_are_executed_again_in_a_small_setting(tmp_path):
    assert executed_again(tmp_path, NOTEBOOKS, seconds=120) == [
        "ok train.ipynb: executed again in a small setting, all 2 cells",
        "note test.ipynb: it was executed again, and its cell [2] failed: NameError: name 'measured' is not defined",
        "ok super_resolution.ipynb: executed again in a small setting, all 2 cells"]


@walls
def test_cells_that_do_not_end_in_time_are_a_note(tmp_path):
    endless = dict.fromkeys(NOTEBOOKS, ["import time\nwhile True: time.sleep(1)"])
    assert executed_again(tmp_path, endless, seconds=1) == [
        f"note {name}: it was executed again, and did not come to its end within 1 seconds" for name in NOTEBOOKS]
