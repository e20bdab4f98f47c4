"""The notebooks, executed for real as `make run` does, with the demo's training cut short."""

import json
import re
import subprocess
import sys

import nbformat
import pytest
from PIL import Image
from warm import python

from helpers import ROOT, copy_kit, make_quarter_lists, shorten_the_sheet, shrink_the_reference, substitute

NOTEBOOKS = ["train.ipynb", "test.ipynb", "super_resolution.ipynb"]
SHORT = "patches_per_picture=5, channels=8, blocks=1, warmup_epochs=2, adversarial_epochs=1"


def prepare(folder, photograph):
    """Copy the kit into a folder; all pictures and networks that the notebooks meet there are small ones, for speed."""
    copy_kit(folder)
    make_quarter_lists(folder)
    for name, usual, small in [
            ("super_resolution", r'Path(skimage.__file__).parent / \"data\" / \"chelsea.png\"', r'Path(\"small.png\")'),
            ("train", "adversarial_epochs=1, updates_per_epoch=200", "adversarial_epochs=1, updates_per_epoch=4"),
            ("train", r"_l1\", updates_per_epoch=200", r"_l1\", updates_per_epoch=4"),
            ("train", "start_from=first)", "start_from=first, updates=1, epochs=1)")]:
        substitute(folder / f"{name}.ipynb", usual, small)
    shorten_the_sheet(folder)
    shrink_the_reference(folder)
    Image.fromarray(photograph[:60, :80]).save(folder / "small.png")


def execute(folder, *notebooks):
    return subprocess.run([sys.executable, "-m", "kit.tools.run_notebooks", *notebooks], cwd=folder,
                          capture_output=True, text=True)


@pytest.fixture(scope="module")
def executed(tmp_path_factory, photograph):
    """A folder in which the three notebooks were run, and what the runner printed."""
    folder = tmp_path_factory.mktemp("course")
    prepare(folder, photograph)
    with open(folder / "kit" / "settings" / "recipes.py", "a", encoding="utf-8") as file:
        file.write(f"\n\nRECIPES['demo'].update({SHORT})\n")
    done = execute(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder, done.stdout


@pytest.mark.xdist_group("executed")
def test_they_run_without_errors_and_end_with_the_table(executed):
    folder, printed = executed
    assert "All 3 notebooks ran without an error" in printed
    table, places = printed.split("All 3 notebooks")[1], printed.splitlines()[-3:]
    assert "demo_test" in table
    for method in ["bicubic", "warmup", "warmup+", "adversarial", "reference SRResNet", "reference SRResNet+",
                   "reference SRGAN"]:
        assert method in table
    assert [line.split()[0] for line in places] == ["executed", "checkpoints", "pictures"]
    assert "warmup 2/2: content" in printed  # progress all the way
    assert printed.count("run 'demo', the one chosen in train.ipynb") == 2  # in the other two


@pytest.mark.xdist_group("executed")
def test_they_leave_what_the_text_promises(executed):
    folder, _ = executed
    for name in NOTEBOOKS:
        notebook = nbformat.read(folder / "results" / "notebooks" / name, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(cell.execution_count for cell in code)
        assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert len(list((folder / "results" / "pictures" / "demo_test").glob("*.png"))) == 8 * 4
    assert (folder / "results" / "pictures" / "reference.png").is_file()
    assert len((folder / "results" / "scores.csv").read_text(encoding="utf-8").splitlines()) == 1 + 8 * 4
    assert (folder / "runs" / "demo_basic" / "checkpoints" / "adversarial.pt").is_file()


ALL_CELLS = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code" and not shell.run_cell("".join(cell["source"])).success:
        sys.exit("".join(cell["source"]))
"""


def test_the_reference_can_be_looked_at_before_anything_was_trained(tmp_path, photograph):
    prepare(tmp_path, photograph)
    done = python("-c", ALL_CELLS, "super_resolution.ipynb", cwd=tmp_path, MPLBACKEND="agg")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "there is no run in runs yet: train first" in done.stdout
    assert len(list((tmp_path / "results" / "pictures" / "demo_test").glob("*reference*.png"))) == 2 * 4


def test_a_failing_cell_is_reported(tmp_path):
    copy_kit(tmp_path)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("raise ValueError('what is wrong')")])
    nbformat.write(notebook, tmp_path / "bad.ipynb")
    done = execute(tmp_path, "bad.ipynb")
    assert done.returncode == 1 and "what is wrong" in done.stderr
    assert (tmp_path / "results" / "notebooks" / "bad.ipynb").is_file()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_they_are_committed_with_the_outputs_of_a_run(name):
    path = ROOT / name
    assert path.stat().st_size < 3_000_000
    code = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]


def test_who_executes_them_from_elsewhere_may_name_the_run():
    """Papermill puts its values behind the cell tagged `parameters`: there they are in time."""
    for name in NOTEBOOKS[1:]:
        code = [cell for cell in nbformat.read(ROOT / name, as_version=4).cells if cell.cell_type == "code"]
        tagged = [i for i, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])]
        using = [i for i, cell in enumerate(code) if re.search(r"\b(RUN|RUNS|LISTS)\b(?! *=)", cell.source)]
        assert len(tagged) == 1 and "RUN = None" in code[tagged[0]].source and tagged[0] < min(using)


def test_a_notebook_in_another_folder_says_so(tmp_path):
    for name in NOTEBOOKS:
        first = next(cell.source for cell in nbformat.read(ROOT / name, as_version=4).cells if cell.cell_type == "code")
        done = python("-c", first, cwd=tmp_path)
        assert done.stderr.splitlines()[-1].startswith("AssertionError: start this notebook in its own folder")


# ------------------------------------------------------------------------------ what the text invites to

# Changes of the settings cell that the texts suggest, small: recipe and changes. (celeba has no warm-up.)
INVITATIONS = {
    "celeba": ("celeba", {}), "paddle": ("paddle", {}), "paperspace": ("paperspace", {}),
    "no_gan": ("demo", {"adversarial_epochs": 0}),
    "any_order": ("demo", {"sample_every": 2, "ema_decay": 0.99}),
}
PROGRAM = """
import json, sys
import create_data_lists, solver
from IPython.core.interactiveshell import InteractiveShell
from kit import notebook

notebook._as_jpeg = lambda figure, quality: b""  # drawing is half of the time, and no cell fails by it
shell, small, usual = InteractiveShell.instance(), json.loads(sys.argv[1]), solver.settings
for name, (recipe, changes) in json.loads(sys.argv[2]).items():
    def settings(wanted, recipe=recipe, changes=changes, run=name, **given):  # what a student would write in the cell
        if given.get("name") == "demo":
            wanted, given = recipe, {**changes, "name": run}
        cfg = usual(wanted)
        changed = {key: min(value, cfg[key]) if key.endswith("epochs") else value for key, value in small.items()}
        return usual(wanted, **{**changed, "name": run, **given})
    solver.settings = settings
    shell.reset()
    cells = json.load(open("train.ipynb", encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    if name == "any_order":  # backwards first; what cannot work yet says so in one sentence of the kit
        for source in [*sources[:3], *sources[:2:-1]]:
            error = shell.run_cell(source, silent=False).error_in_exec
            if not isinstance(error, (type(None), ValueError, FileNotFoundError, NameError)):
                sys.exit(f"{name}: {source}")
    for source in sources:
        if source.startswith("lessons.") and "trainer" not in source and name != "any_order":
            continue  # hangs on no setting
        for _ in range(2 if name == "any_order" else 1):
            if not shell.run_cell(source, silent=False).success:
                sys.exit(f"{name}: {source}")
    print("INVITATION", name, "ran")
"""


def test_every_recipe_and_invitation_works_from_the_settings_cell(tmp_path, small_lists, photograph):
    prepare(tmp_path, photograph)
    small = dict(train_list=str(small_lists / "train.csv"), valid_list=str(small_lists / "valid.csv"), crop=32,
                 batch_size=2, patches_per_picture=1, updates_per_epoch=2, channels=4, blocks=1,
                 discriminator_channels=2, discriminator_dense=4, warmup_epochs=1, adversarial_epochs=1,
                 content_loss="mse", valid_pictures=1, device="cpu")
    done = python("-c", PROGRAM, json.dumps(small), json.dumps(INVITATIONS), cwd=tmp_path, MPLBACKEND="agg")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("INVITATION")] == list(INVITATIONS)
    assert "resumed, adversarial at 1 of 1 epochs" in done.stdout  # where every cell was run again
