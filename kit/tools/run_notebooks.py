"""Execute the notebooks in order, without a screen, showing their progress: what `make run` does.

The executed copies go to a folder of their own; the notebooks themselves stay as they are unless
`--inplace` is given (for committing them with fresh outputs).
"""

import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from kit.console import Parser
from kit.files import write_whole
from kit.language import tr

NOTEBOOKS = ["train.ipynb", "test.ipynb", "super_resolution.ipynb"]
TABLE = Path("results", "table.txt")  # written by test.ipynb


class TalkingClient(NotebookClient):
    """Executes a notebook and repeats on the terminal what its cells print."""

    def output(self, outs, msg, display_id, cell_index):
        if msg["msg_type"] == "stream":
            print(msg["content"]["text"], end="", flush=True)
        return super().output(outs, msg, display_id, cell_index)


def execute(path, target, failed):
    """Execute one notebook and write it, with its outputs, to `target`.

    Raises RuntimeError with the cell's own error when a cell fails, and KeyboardInterrupt when stopped; then the
    notebook is written to `failed`, as far as it came, and `target` stays as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    client = TalkingClient(notebook, timeout=None, kernel_name="python3", coalesce_streams=True,
                           extra_arguments=["--log-level=40"],  # without the kernel's advice on start-up
                           resources={"metadata": {"path": str(path.parent)}})
    try:
        client.execute(stderr=subprocess.DEVNULL)  # the kernel's own log: what cells say comes another way
    except CellExecutionError as error:
        target = failed
        if error.ename in ("KeyboardInterrupt", "Stopped"):  # as older kernels show a stop
            raise KeyboardInterrupt from None
        raise RuntimeError(f"{path}: a cell failed\n{error}") from None
    except BaseException as error:
        target = failed
        # (Stopped, nbclient ends the kernel itself, and raises one thing or another then.)
        if not isinstance(error, Exception) or hasattr(client, "_async_cleanup_kernel_future"):
            raise KeyboardInterrupt from None
        raise RuntimeError(f"{path}: the kernel that ran it could not go on ({type(error).__name__}: {error}); if it "
                           f"died, memory ran out perhaps: end other programs, or give it more") from error
    finally:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # times of day, different in every run
        with write_whole(target) as temporary:
            nbformat.write(notebook, temporary)


def main(arguments=None):
    parser = Parser(description="Execute notebooks and keep the executed copies.")
    parser.add_argument("notebooks", nargs="*", default=NOTEBOOKS, help="default: %(default)s")
    parser.add_argument("--out", default="results/notebooks", help="folder for the copies (default: %(default)s)")
    parser.add_argument("--inplace", action="store_true", help="write the outputs into the notebooks themselves")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C
    begin, done = time.monotonic(), []
    for name in options.notebooks:
        path, started = Path(name), time.monotonic()
        if not path.is_file():
            sys.exit(f"run_notebooks: error: there is no notebook {path}")
        done.append(path if options.inplace else Path(options.out, path.name))
        print(f"\n── {path} " + "─" * 60, flush=True)
        try:
            execute(path, done[-1], Path(options.out, path.name))
        except RuntimeError as error:
            up_to_there = tr("The notebook up to there: {path}", path=Path(options.out, path.name))
            sys.exit(f"\nrun_notebooks: error: {error}\n{up_to_there}")
        except KeyboardInterrupt:
            sys.exit("\n" + tr("stopped; what was trained is kept in runs/, and running again goes on from there"))
        print(f"\n── {path}, {time.monotonic() - started:.0f} s", flush=True)
    print("\n" + tr("All {count} notebooks ran without an error in {seconds:.0f} s.", count=len(done),
                    seconds=time.monotonic() - begin) + "\n")
    if TABLE.is_file():
        print(TABLE.read_text(encoding="utf-8"))
    print(f"{tr('executed notebooks')}   " + "  ".join(map(str, done)))
    print(f"{tr('checkpoints')}          runs/*/checkpoints/")
    print(f"{tr('pictures')}             results/pictures/")


if __name__ == "__main__":
    main()
