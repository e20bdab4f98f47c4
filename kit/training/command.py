"""The command that trains a run: `python solver.py`, which is also `python -m kit train`."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import create_data_lists
from kit.compute.device import shutdown
from kit.console import Parser
from kit.language import tr
from kit.settings.recipes import add_options, from_options

PARENT = "SR_PARENT"  # variable of the environment: the program, by its number, after whose end a run is to stop


def main(make_trainer, arguments=None, prog=None):
    """Read the command line, make the lists if need be, and train; `make_trainer(cfg)` is `solver.Trainer`."""
    parser = Parser(
        prog=prog, description="Train a run through its phases. A run of the same name is resumed.",
        epilog=f"Example: {prog or 'python solver.py'} --recipe paper --name mine --content_loss mse")
    parser.add_argument("--data", metavar="DIR", help="folder with the recipe's pictures as unpacked (DIV2K, "
                        "img_align_celeba, …), to make its lists from when they are not there yet")
    add_options(parser)
    options = parser.parse_args(arguments)
    status = 1
    _stop_with_parent()
    try:
        cfg = from_options(options)
        if not (Path(cfg.train_list).exists() and Path(cfg.valid_list).exists()) and (
                options.data or options.recipe == "demo"):
            if int(os.environ.get("WORLD_SIZE", 1)) > 1:
                raise ValueError("several processes cannot make the lists; make them first with create_data_lists.py")
            if options.data:
                print(create_data_lists.summary(
                    create_data_lists.create_recipe_lists(options.recipe, options.data, cfg.scale)))
            else:
                create_data_lists.ensure_lists(cfg)
        trainer = make_trainer(cfg)
        trainer.train()
        if trainer.machine.rank == 0:
            print(tr("checkpoints, samples, settings and history are in {folder}", folder=trainer.run.folder))
        status = 0
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
    except KeyboardInterrupt as stopped:
        print(stopped)
        status = 130
    shutdown(status)


def _stop_with_parent():
    """Let this program stop, as if interrupted, when the one that started it (see `PARENT`) is gone."""
    parent = int(os.environ.get(PARENT, 0))

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)  # saves what was trained

    if parent and os.name == "posix":
        threading.Thread(target=watch, daemon=True).start()
