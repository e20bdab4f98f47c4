"""Running a program that nobody has read, where it can do no harm: what the code of a hand-in is tried in.

On Linux (6.2 or newer, x86-64) the program can read Python, the system's libraries and one folder, and write in that
folder alone (Landlock); of the kernel's calls it has those that computing and files need, and no others, so that it can
start no process, open no connection, and neither signal nor look into another process (seccomp). Memory, time, threads
and what it writes are limited. Nothing needs to be installed and no rights are needed. Where the kernel cannot do this,
`run` refuses, unless the code is one's own.

This is the half outside: what starts the process (behind `kit.handin.walls`), watches it and reads what it has left.
"""

import ctypes
import hmac
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import namedtuple
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path

from kit.files import KIT
from kit.handin import walls
from kit.handin.walls import DISK, THREADS, signature

# What came of it: `reason` is None when the program ended by itself, else which limit it met ("server": none, but what
# it was forked from has died twice); `output` the end of what
# it printed; `attempts` what it tried that it may not; `word` that by which it signs, see `read_left`.
Outcome = namedtuple("Outcome", "status reason output attempts seconds word")

PYTHON = [sys.executable, "-I", "-B", str(Path(walls.__file__).resolve())]
HOME = ".home"  # in the program's folder: its temporary files, and what its libraries keep
MOST_FILES, MOST_THREADS = 20_000, 200


def run(program, arguments, folder, seconds=120, megabytes=4096, trusted=False, readable=()):
    """Run the Python program `program`, which lies in `folder`, in a process of its own with that folder as its own.

    Parameters
    ----------
    program : path
        Of a file in `folder`.
    arguments : list of str
    folder : path
        All that it can write to, and all that it can read beside Python and the libraries. What it leaves there is
        not to be trusted: see `read_left` and `remove`.
    seconds, megabytes : int
        Wall-clock time and memory, after which it is killed.
    trusted : bool
        The code is one's own: run it without walls where there can be none.
    readable : list of path
        Files and folders that it may read beside its own.

    The program finds a function `sign(text)` among its globals; what it signs was written by it, and not by what it has
    imported, as long as that neither looks for the secret word in the memory of the process nor changes the program's
    own functions there: both can be read in its code.

    Returns an `Outcome`. Raises OSError where this machine cannot keep the program in, and `trusted` is false.
    """
    for _ in range(2):  # once more where the process that all are forked from has died, for the memory of another
        outcome = _run(program, arguments, folder, seconds, megabytes, trusted, readable)
        if outcome.reason != "server":
            break
    return outcome


def _run(program, arguments, folder, seconds, megabytes, trusted, readable):
    folder = Path(folder).resolve()
    missing = lacking()
    if not trusted:
        require()
    home = folder / HOME
    home.mkdir(exist_ok=True)
    font_list = _font_list(home) if missing else str(home)  # (in a fork matplotlib has read it already)
    environment = {**_environment(font_list), "HOME": str(home), "TMPDIR": str(home), "TORCH_HOME": str(home)}
    word = secrets.token_hex(32)
    reading, writing = os.pipe()  # for attempts: what is in a pipe cannot be taken back
    with tempfile.TemporaryFile() as output, open(reading, "rb") as attempts, open(writing, "wb") as told_by:
        told = [str(folder), str(seconds), str(megabytes), "open" if missing else "walled"]
        rest = [os.pathsep.join(map(os.path.abspath, readable)), str(program), *arguments]
        if missing:
            descriptors = [told_by.fileno()] if os.name == "posix" else []
            process = subprocess.Popen([*PYTHON, *told, str(*descriptors or [-1]), *rest], cwd=folder, env=environment,
                                       stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
                                       start_new_session=True, pass_fds=descriptors)
        else:
            try:
                process = _Fork([*told, str(walls.ATTEMPTS), *rest], folder, environment, output, told_by)
            except _ServerDied:
                return Outcome(None, "server", "", [], 0, word)
        begun = time.monotonic()
        try:
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(word.encode())
            reason = _watch(process, folder, begun + seconds, megabytes)
        finally:
            if process.poll() is None:
                process.kill()  # it can have no children
            process.wait()
        if reason is None and getattr(process, "lost", False):
            reason = "server"
        told_by.close()
        if os.name == "posix":
            os.set_blocking(reading, False)
        tried = (attempts.read(2**16) or b"").decode(errors="replace").replace("\0", "")
        tried = sorted(set(tried.splitlines()))[:20]
        return Outcome(process.returncode, reason, _end_of(output, 4000), tried, time.monotonic() - begun, word)


def _environment(font_list):
    """What the environment of any process here has; nothing of the user's own."""
    return {"PATH": os.defpath, "MPLBACKEND": "agg", "LANG": "C.UTF-8", "MPLCONFIGDIR": font_list,
            "OMP_NUM_THREADS": str(THREADS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            walls.PLACES: os.pathsep.join(_places_of_libraries()),
            **{name: os.environ[name] for name in ("SYSTEMROOT", "PATHEXT") if name in os.environ}}


def _places_of_libraries():
    """The folders that packages are installed in: isolated, Python leaves out the user's own and PYTHONPATH's.

    None in which there are other things of the user's: the folder in which this runs, and those around it.
    """
    here = {KIT.parent, *KIT.parent.parents, Path.cwd(), *Path.cwd().parents}
    places = [Path(path).resolve() for path in sys.path if path]
    return [str(place) for place in places if place not in here and any(place.glob("*.dist-info"))]


class CannotKeepIn(OSError):
    """This machine cannot keep the program of a stranger in."""


class _ServerDied(Exception):
    """The process that all others are forked from has ended."""


class _ForkServer:
    """The process from which those of the programs are forked, with the libraries imported. It ends with this one."""

    present, starting = None, threading.Lock()

    def __init__(self):
        import matplotlib

        self.asking = threading.Lock()
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [*PYTHON, "serve", str(theirs.fileno())], env=_environment(matplotlib.get_cachedir()),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                pass_fds=[theirs.fileno()])

    @classmethod
    def running(cls):
        with cls.starting:
            if not cls.present or cls.present.process.poll() is not None:
                cls.present = cls()
            return cls.present

    def ask(self, request, descriptors=()):
        """(answer, its descriptors); raises _ServerDied where it has, killed for the memory of others, say."""
        answer = b""
        with self.asking, suppress(ConnectionError):
            socket.send_fds(self.socket, [json.dumps(request).encode()], descriptors)
            answer, given, _, _ = socket.recv_fds(self.socket, 64, 1)
        if not answer:
            self.process.wait()
            raise _ServerDied
        return int(answer), given


class _Fork:
    """A process that the fork server has made: what `run` needs of a Popen."""

    def __init__(self, arguments, folder, environment, output, attempts):
        reading, writing = os.pipe()
        self.stdin, self.returncode, self.lost = open(writing, "wb"), None, False
        try:
            request = {"arguments": arguments, "folder": str(folder), "environment": environment}
            self.server = _ForkServer.running()
            self.pid, (self.ends,) = self.server.ask(request, [reading, output.fileno(), attempts.fileno()])
        finally:
            os.close(reading)

    def poll(self, seconds=0):
        if self.returncode is None and connection.wait([self.ends], seconds):
            os.close(self.ends)
            try:
                self.returncode, _ = self.server.ask({"ended": self.pid})
            except _ServerDied:
                self.returncode, self.lost = -signal.SIGKILL, True  # it has died with its server
        return self.returncode

    def wait(self):
        return self.poll(None)

    def kill(self):
        signal.pidfd_send_signal(self.ends, signal.SIGKILL)


def read_left(folder, name, word, most=2**20):
    """The text that a program has left in a file of its folder, with its signature as the last line.

    None for what is no plain file, a larger one, or signed by somebody else.
    """
    text, _, signed = (_bytes_left(folder, name, most) or b"").decode(errors="replace").rpartition("\n")
    return text if hmac.compare_digest(signed.encode(), signature(text, word).encode()) else None


def _bytes_left(folder, name, most):
    try:
        descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)
                             | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        about = os.fstat(descriptor)
        return os.read(descriptor, most) if stat.S_ISREG(about.st_mode) and about.st_size <= most else None
    finally:
        os.close(descriptor)


def remove(folder):
    """Remove a folder whatever is in it: Python's own way fails on very deep ones."""
    if os.name == "posix":
        if subprocess.run(["rm", "-rf", "--", str(folder)], stderr=subprocess.DEVNULL).returncode:
            # with folders in it that even their owner may not look into
            subprocess.run(["chmod", "-R", "u+rwx", "--", str(folder)], stderr=subprocess.DEVNULL)
            subprocess.run(["rm", "-rf", "--", str(folder)], stderr=subprocess.DEVNULL)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def require():
    """Raise OSError where this machine cannot keep a program in."""
    missing = lacking()
    if missing:
        raise CannotKeepIn(f"code of others is run only where it can do no harm, and {missing}; use Linux 6.2 or newer "
                           f"(in a virtual machine, say)")


def lacking():
    """What this machine lacks to keep a program in, as part of a sentence; None if nothing."""
    if not sys.platform.startswith("linux"):
        return f"{platform.system()} cannot wall a process in"
    if platform.machine() != "x86_64" or sys.maxsize < 2**32:
        return f"it is not known how to on a {platform.machine()}"
    if walls.c_library().syscall(walls.LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1) < 3:
        return "this kernel has no Landlock, or one too old"
    return None


def _watch(process, folder, end, megabytes):
    """Wait for the end of a process; the limit that it met, or None."""
    looked = time.monotonic()
    while process.poll() is None:
        if time.monotonic() > end:
            return "time"
        used = _figures(process.pid, "status")
        if "VmRSS" not in used:  # its first thread has ended, and the others have the memory
            used = max((_figures(process.pid, f"task/{number}/status") for number in _threads_of(process.pid)),
                       key=lambda figures: figures.get("VmRSS", 0), default=used)
        if used.get("VmRSS", 0) + used.get("VmPTE", 0) > megabytes * 1024:
            return "memory"
        if used.get("Threads", 0) > MOST_THREADS:
            return "threads"
        if _figures(process.pid, "io").get("write_bytes", 0) > DISK * 2**20:
            return "disk"
        if time.monotonic() > looked + 1:
            looked = time.monotonic()
            if _crowded(folder, _deleted_blocks(process.pid)):
                return "disk"
        time.sleep(0.05)
    return None


def _threads_of(pid):
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:  # it has ended
        return []


def _deleted_blocks(pid):
    """The blocks of files that a process has deleted and keeps open."""
    blocks = 0
    with suppress(OSError):  # it has ended
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                about = os.stat(f"/proc/{pid}/fd/{number}")
                blocks += about.st_blocks if stat.S_ISREG(about.st_mode) and not about.st_nlink else 0
    return blocks


def _crowded(folder, blocks=0):
    """Whether a folder has more in it than MOST_FILES, than DISK with other `blocks`, or what cannot be looked into."""
    count, places = 0, [folder]
    while places:
        try:
            with os.scandir(places.pop()) as entries:
                for entry in entries:
                    count += 1
                    with suppress(FileNotFoundError):  # (on a disk in memory no figure of the process has its blocks)
                        blocks += getattr(entry.stat(follow_symlinks=False), "st_blocks", 0)
                    if count > MOST_FILES or blocks * 512 > DISK * 2**20:
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        places.append(entry.path)
        except FileNotFoundError:
            continue  # gone meanwhile
        except OSError:  # locked, or deeper than a path can be
            return True
    return False


def _figures(pid, name):
    """The numbers in a file that the kernel keeps about a process; none where this cannot be asked."""
    try:
        # (Its name is the program's own, in whatever encoding.)
        lines = Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8", errors="replace").splitlines()
        return {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines)
                if rest.split() and rest.split()[0].isdigit()}
    except (OSError, ValueError):
        return {}


def _end_of(file, count):
    """The end of what a program has written; nothing where it has made its file unreadable (by O_DIRECT, say)."""
    try:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - count))
        return file.read(count).decode(errors="replace").replace("\0", "")
    except OSError:
        return ""


def _font_list(home):
    """Where matplotlib finds the list of fonts that it has made here before: making it takes seconds."""
    import matplotlib

    target = home / "matplotlib"
    target.mkdir(exist_ok=True)
    for file in Path(matplotlib.get_cachedir()).glob("fontlist-*.json"):
        shutil.copy(file, target)
    return str(target)
