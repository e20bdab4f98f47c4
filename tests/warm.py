"""Python programs in processes of their own, forked from one that has imported the libraries (where the system can).

Importing PyTorch takes most of the time of a short program, and the tests start dozens of them.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def start(function, *arguments):
    """Start a function in a process of its own, to be killed; where the system can, with the kit imported."""
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(["solver", "torch._dynamo", "IPython", "pytest"])  # (dynamo is the optimizers')
    process = context.Process(target=function, args=arguments)
    process.start()
    return process


def python(*arguments, cwd=ROOT, **environment):
    """What `python ARGUMENTS` prints and how it ends, in a folder and with more in its environment; a CompletedProcess.

    The environment must be the program's own matter: what the interpreter reads when it starts comes too late.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr")]
        process = start(_program, list(map(str, arguments)), str(cwd), environment, files)
        process.join()
        printed = [file.read_text(encoding="utf-8") if file.is_file() else "" for file in files]
    return subprocess.CompletedProcess(arguments, process.exitcode, *printed)


def _program(arguments, cwd, environment, files):
    os.chdir(cwd)
    os.environ.update(environment)
    for descriptor, file in enumerate(files, start=1):
        opened = os.open(file, os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout, sys.stderr = (open(descriptor, "w", encoding="utf-8", buffering=1, closefd=False)
                              for descriptor in (1, 2))
    for name, module in list(sys.modules.items()):  # the program has a kit of its own, maybe
        place = Path(getattr(module, "__file__", None) or "/")
        if ROOT in place.parents and "site-packages" not in place.parts and name not in ("__main__", "__mp_main__"):
            del sys.modules[name]
    sys.path = [place for place in sys.path if Path(place) != ROOT and ROOT / "tests" not in (
        Path(place), *Path(place).parents)]
    first, *rest = arguments
    if first in ("-c", "-m"):
        sys.path.insert(0, cwd)
        sys.argv = [first, *rest[1:]]
        if first == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        path = Path(cwd, first)
        sys.path.insert(0, str(path.parent))
        sys.argv = arguments
        runpy.run_path(str(path), run_name="__main__")
