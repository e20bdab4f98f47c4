"""What the code of a hand-in is tried with: the tests of its networks, and a training of a few updates.

Runs inside `sandbox.run`, in a folder with a whole kit, with the file of those tests as its argument, and writes what
came of it to trial.json there, signed.
"""

import importlib
import json
import math
import os
import sys
import time
import traceback
from functools import partial

import _pytest
import pluggy
import pytest


def main(sign):
    results = {}
    for name, part in [("modules", try_modules), ("networks", partial(try_networks, sys.argv[1])),
                       ("training", try_training)]:
        began = time.monotonic()
        try:
            results[name] = part()
        except BaseException as error:  # a sys.exit in somebody's code, too
            results[name] = {"error": sentence(error)}
        results[name]["seconds"] = time.monotonic() - began
        leave(results, "trial.json", sign)
        if "error" in results[name] and name == "modules":
            break


def leave(results, name, sign):
    """Write results to a file, signed, for `sandbox.read_left`; whole or not at all."""
    text = json.dumps(results)
    with open(f"{name}.part", "w", encoding="utf-8", newline="\n") as file:
        file.write(f"{text}\n{sign(text)}")
    os.replace(f"{name}.part", name)


def try_modules():
    import torch

    from kit.handin.findings import NOT_HERE

    def refuse(url, *rest, **options):
        raise ConnectionError(f"{NOT_HERE} ({str(url).rpartition('/')[2]})")

    torch.hub.download_url_to_file = refuse  # what the kit's VGG asks for is no attempt to get out
    for name in ("models", "solver"):
        importlib.import_module(name)
    return {}


class Reports:
    """What pytest says of each test of a file, and which it marks as the paper's."""

    def __init__(self, tests):
        self.rows, self.tests = [], os.path.realpath(tests)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = (yield).get_result()
        if report.when == "call" or report.outcome != "passed":
            why = "" if call.excinfo is None else sentence(call.excinfo.value)
            outcome = report.outcome
            if outcome == "skipped" and not self._skips_itself(call.excinfo.value):
                outcome = "failed"
            self.rows.append({"test": item.name, "paper": item.get_closest_marker("paper") is not None,
                              "outcome": outcome, "why": why})

    def _skips_itself(self, error):
        """A test may, and the code that is tested may not."""
        pytests = tuple(os.path.dirname(os.path.realpath(part.__file__)) for part in (_pytest, pluggy))
        places = [os.path.realpath(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
        places = [place for place in places if not place.startswith(pytests)]
        return not places or places[-1] == self.tests


def try_networks(tests):
    reports = Reports(tests)
    pytest.main(["-q", "-o", "addopts=", f"--rootdir={os.path.dirname(tests)}", "--assert=plain",
                 "-p", "no:cacheprovider", "--noconftest", tests], plugins=[reports])
    return {"tests": reports.rows} if reports.rows else {"error": "the tests could not be run"}


def try_training():
    """A few updates of all phases, with the settings of the run that was handed in, on details of a photograph."""
    import solver
    from kit.runs import Run
    from kit.training.trainer import Trainer

    make_lists("trial", "train", "valid")
    # Of weights of any size nothing needs to be written.
    Run.save_state = Run.keep_generator = Run.keep_state = lambda *arguments, **options: None
    small = dict(name="trial", runs="trial/runs", train_list="trial/train.csv", valid_list="trial/valid.csv",
                 valid_pictures=1, batch_size=2, patches_per_picture=2, updates_per_epoch=2, device="cpu",
                 warmup_epochs=1, adversarial_epochs=1, start_from=None, fork_of=None, sample_pictures=1)
    with open("trial_settings.json", encoding="utf-8") as file:
        given = json.load(file)
    network = dict(channels=8, blocks=2, discriminator_channels=4, discriminator_dense=8, crop=32, content_loss="mse")
    cfg = solver.settings("demo", **{**network, **given, **small})
    trainer = solver.Trainer(cfg, progress=False)
    history = trainer.train()
    values = [value for row in history for value in row.values() if isinstance(value, float)]
    if not history or not all(map(math.isfinite, values)):
        raise ValueError("a loss or score is not a finite number")
    own = getattr(type(trainer), "train", None) is not Trainer.train
    return {"phases": list(dict.fromkeys(row["phase"] for row in history)), "own": own}


def make_lists(folder, train, valid):
    """Write lists of these names, of details of a photograph, to a folder."""
    import numpy as np
    import skimage

    import create_data_lists
    import utils

    photograph = skimage.data.chelsea()
    for i in range(4):
        detail = np.ascontiguousarray(photograph[50 * i : 50 * i + 128, 100 * i : 100 * i + 128])
        utils.save_picture(f"details/{train}/{i}.png", detail)
    utils.save_picture(f"details/{valid}/eye.png", np.ascontiguousarray(photograph[90:138, 150:214]))
    create_data_lists.create_data_lists(None, {name: f"details/{name}" for name in (train, valid)}, folder,
                                        progress=False)


def _frames(error):
    """Where an error arose, but for what libraries did then."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]


def sentence(error):
    """An error in one line, with the place in the code where it, or what it was made of, arose."""
    origin = error
    while origin.__cause__:
        origin = origin.__cause__
    frames = _frames(origin)
    place = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300] if text else ''}{place}"


if __name__ == "__main__":
    main(sign)  # noqa: F821 (the sandbox gives it)
    sys.stdout.flush()
    os._exit(0)  # whatever threads were left behind
