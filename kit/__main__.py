"""What a student can do in a terminal: `python -m kit` lists the commands, each of which has `--help`."""

import sys
from importlib import import_module

from kit.console import did_you_mean
from kit.language import N_, tr

# Each command: what it does, and the function that does it, which is imported when it is asked for.
COMMANDS = {
    "lists": (N_("check folders of pictures, and write the lists that training and testing read"),
              "create_data_lists", "main"),
    "train": (N_("train a run without a notebook, or go on with it"), "solver", "main"),
    "runs": (N_("the table of all runs, the best first; --follow shows how one goes on"),
             "kit.compare.tables", "main"),
    "enlarge": (N_("enlarge pictures of your own"), "kit.enlarge", "main"),
    "export": (N_("write a generator for other programs, as ONNX or for PyTorch"), "kit.export", "main"),
    "report": (N_("draft the report from what the runs' folders say, or renew the draft"),
               "kit.handin.report", "main"),
    "check": (N_("say what is missing before you hand in"), "kit.handin.command", "check_command"),
    "zip": (N_("make the zip to hand in, if nothing is missing"), "kit.handin.command", "zip_command"),
}


def main(arguments=None):
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in COMMANDS:
        _, module, function = COMMANDS[name]
        try:
            getattr(import_module(module), function)(rest, prog=f"python -m kit {name}")
        except KeyboardInterrupt:  # (while it is being imported, too)
            sys.exit(130)
    elif name in ("-h", "--help"):
        lines = [f"  {name:8} {tr(what)}" for name, (what, *_) in COMMANDS.items()]
        print("\n".join([tr("usage: python -m kit COMMAND …"), "", *lines, "", tr(
            "python -m kit COMMAND --help says more of each. Example: python -m kit runs --sort minutes")]))
    else:
        sys.exit(f"python -m kit: error: there is no command {name!r}{did_you_mean(name, COMMANDS)}; there are "
                 f"{', '.join(COMMANDS)}")


if __name__ == "__main__":
    main()
