"""The sandbox holds."""

import os
import tempfile
import threading
import time
from pathlib import Path

import pytest
from warm import start

from helpers import walls
from kit.handin import sandbox, trial

# What a program may try, and what it gets for it; all in one process, so that whatever succeeds shows.
ATTEMPTS = [
    ("open('/etc/passwd')", "Permission denied"), ("open({outside!r}, 'w')", "Permission denied"),
    ("__import__('os').kill(__import__('os').getppid(), 9)", "not permitted"),
    ("open(f'/proc/{{__import__(\"os\").getppid()}}/environ').read()", "Permission denied"),
    ("__import__('socket').socket(1)", "not permitted"), ("__import__('os').memfd_create('x')", "not permitted"),
    ("__import__('os').chmod({outside!r}, 0o777)", "not permitted"),
    ("__import__('os').execv('/bin/true', ['true'])", "not permitted"),
    ("__import__('os').symlink('/etc', 'etc')", "not permitted"),
    ("__import__('os').mkfifo('trial.json')", "not permitted"),
    ("__import__('socket').socketpair()", "not permitted"),
    ("import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, __import__('os').getppid())", "not permitted"),
    ("__import__('os').setxattr({outside!r}, 'user.x', b'x')", "not permitted"),
    ("__import__('os').posix_fallocate(__import__('os').open('big', 66), 0, 10**9)", "not permitted"),
    ("__import__('mmap').mmap(-1, 2**20)", "not permitted"),
    ("__import__('mmap').mmap(-1, 2**20, flags=0x122)", "not permitted"),  # that grows, as a stack does
    ("import ctypes; 1 / (ctypes.CDLL(None).prctl(1, 0) + 1)", "ZeroDivisionError"),
    ("import ctypes; 1 / (ctypes.CDLL(None).syscall(463, -100, 0, 0, 0, 0, 0) + 1)", "ZeroDivisionError"),
]
TRY_ALL = """
for code in {attempts!r}:
    try:
        exec(code)
        print("done")
    except Exception as error:
        print(type(error).__name__, error)
"""


@walls
def test_the_sandbox_holds(tmp_path):
    (tmp_path / "work").mkdir()
    outside = tmp_path / "outside"
    outside.write_text("kept", encoding="utf-8")
    program = tmp_path / "work" / "program.py"
    attempts = [code.format(outside=str(outside)) for code, _ in ATTEMPTS]
    program.write_text(TRY_ALL.format(attempts=attempts), encoding="utf-8")
    outcome = sandbox.run(program, [], tmp_path / "work", 30)
    came_of = outcome.output.splitlines()
    assert len(came_of) == len(ATTEMPTS), outcome
    for (code, attempt), line in zip(ATTEMPTS, came_of, strict=True):
        assert attempt in line, (code, line)
    assert outside.read_text(encoding="utf-8") == "kept" and outside.stat().st_mode & 0o777 != 0o777


def outcome_of(code, folder, seconds=60, **options):
    """What comes of a program of this text in a folder."""
    program = Path(folder, "program.py")
    program.write_text(code, encoding="utf-8")
    return sandbox.run(program, [], folder, seconds, **options)


# A name that is no text hides nothing; nor does memory that is only read after it was written.
UNDER_ANOTHER_NAME = """
import ctypes, mmap, time
libc = ctypes.CDLL(None)
libc.prctl(15, b"\\xff\\xfe")
kept = []
for _ in range(40):
    kept.append(mmap.mmap(-1, 50 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    address = ctypes.addressof(ctypes.c_char.from_buffer(kept[-1]))
    ctypes.memset(address, 1, 50 * 2**20)
    libc.mprotect(ctypes.c_void_p(address), 50 * 2**20, 1)
time.sleep(99)
"""

# Files that are seen as memory count for it, and so they do when the first thread has ended and the second goes on.
FIRST_THREAD_ENDS = """
import ctypes, mmap, threading, time
def work():
    time.sleep(0.5)
    with open('x', 'wb+') as file:
        file.truncate(100 * 2**20)
        kept = [mmap.mmap(file.fileno(), 0) for _ in range(20)]
    for one in kept:
        one[::4096]
    time.sleep(99)
threading.Thread(target=work).start()
ctypes.CDLL(None).syscall(60, 0)
"""


@walls
@pytest.mark.parametrize("code, limit", [
    ("import os\nwhile True:\n    file = open('x', 'wb'); file.write(bytes(50 * 2**20)); os.unlink('x')", "disk"),
    ("import os, time\nfor i in range(10**6): os.mkdir(str(i)) or time.sleep(0.0005)", "disk"),
    ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=[99]).start()", "threads"),
    ("kept = [bytearray(2**26) for i in range(1000)]", None),  # a MemoryError of its own
    ("import time; time.sleep(99)", "time"),
    (FIRST_THREAD_ENDS, "memory"),
    (UNDER_ANOTHER_NAME, "memory"),
], ids=["one file", "many files", "threads", "data", "time", "memory of the other threads", "under another name"])
def test_what_a_program_takes_is_limited(code, limit, removed, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "MOST_FILES", 1000)  # soon made, and soon removed
    program = tmp_path / "work" / "program.py"
    program.parent.mkdir()
    program.write_text(code, encoding="utf-8")
    seconds = 1 if limit == "time" else 120  # enough on a machine however slow
    outcome = sandbox.run(program, [], program.parent, seconds, megabytes=4000 if limit == "threads" else 1500)
    assert outcome.reason == limit and (limit or "MemoryError" in outcome.output), outcome
    sandbox.remove(program.parent)
    assert not program.parent.exists()


@walls
@pytest.mark.parametrize("after", ["", "; os.unlink('x')"])
def test_files_on_a_disk_in_memory_count_too(monkeypatch, after):
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("there is no disk in memory here")
    monkeypatch.setattr(sandbox, "DISK", 20)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        code = f"import os, time\nfile = open('x', 'wb'){after}; file.write(bytes(30 * 2**20))\ntime.sleep(99)"
        assert outcome_of(code, folder).reason == "disk"


@walls
def test_a_program_that_spoils_the_file_of_its_output_ends_like_any_other(tmp_path):
    code = ("import fcntl, os\nprint('x', flush=True)\nfcntl.fcntl(1, fcntl.F_SETFL, os.O_DIRECT)\n"
            "fcntl.fcntl(3, fcntl.F_SETFL, os.O_DIRECT)")
    assert outcome_of(code, tmp_path).reason is None


@walls
def test_what_a_program_has_tried_cannot_be_taken_back(tmp_path):
    code = "import os\ntry: os.kill(1, 9)\nexcept OSError: pass\ntry: os.ftruncate(3, 0)\nexcept OSError: pass"
    assert outcome_of(code, tmp_path).attempts == ["os.kill 1 9"]


@walls
def test_a_server_that_dies_before_a_program_starts_is_started_again(tmp_path, monkeypatch):
    outcome_of("print('done')", tmp_path)
    server = sandbox._ForkServer.present
    usual = sandbox._ForkServer.running.__func__

    def running(cls):
        monkeypatch.setattr(sandbox._ForkServer, "running", classmethod(usual))
        server.process.kill()  # after it was looked at
        return server

    monkeypatch.setattr(sandbox._ForkServer, "running", classmethod(running))
    assert outcome_of("print('done')", tmp_path).output == "done\n"


@walls
def test_a_program_whose_server_is_killed_is_run_once_more(tmp_path):
    code = ("import os, time\nif not os.path.exists('x'):\n    open('x', 'w').close()\n    time.sleep(99)\n"
            "print('done')")

    def kill():
        while not (tmp_path / "x").exists():
            time.sleep(0.05)
        sandbox._ForkServer.present.process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    assert outcome_of(code, tmp_path, 90).output == "done\n"
    thread.join()


@walls
def test_what_a_program_leaves_is_not_followed(removed, tmp_path):
    program = tmp_path / "work" / "program.py"
    program.parent.mkdir()
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    program.write_text("import os, shutil\nfor name in os.listdir('.home'): shutil.rmtree('.home/' + name, True)\n"
                       "os.rename('.home', 'gone')\nfor i in range(1500): os.mkdir('a'); os.chdir('a')\nprint('done')",
                       encoding="utf-8")
    outcome = sandbox.run(program, [], program.parent, 30)
    assert outcome.output.strip() == "done", outcome

    def signed(text, word=outcome.word):
        return f"{text}\n{sandbox.signature(text, word)}"

    (tmp_path / "secret").write_text(signed("secret"), encoding="utf-8")
    os.symlink(tmp_path / "secret", program.parent / "link")
    os.mkfifo(program.parent / "pipe")
    files = {"large": signed("x" * 2**20), "unsigned": "x\n", "forged": signed("x", "guessed"), "fine": signed("x")}
    for name, text in files.items():
        (program.parent / name).write_text(text, encoding="utf-8")
    left = {name: sandbox.read_left(program.parent, name, outcome.word)
            for name in [*files, "link", "pipe", "a", "none"]}
    assert {name: text for name, text in left.items() if text is not None} == {"fine": "x"}
    sandbox.remove(program.parent)
    assert not program.parent.exists()


@walls
def test_it_reads_what_it_is_given_and_signs_what_it_writes(tmp_path):
    (tmp_path / "work").mkdir()
    given, other = tmp_path / "weights.pth", tmp_path / "other"
    for file in (given, other):
        file.write_text("weights", encoding="utf-8")
    program = tmp_path / "work" / "program.py"
    program.write_text(f"print(open({str(given)!r}).read(), sign('x'))\n"
                       + "\n".join(f"try: open({str(file)!r}, {mode!r})\nexcept OSError: print('refused')"
                                   for file, mode in [(other, "r"), (given, "a")]), encoding="utf-8")
    outcome = sandbox.run(program, [], tmp_path / "work", 30, readable=[given])
    assert outcome.output.split() == ["weights", sandbox.signature("x", outcome.word), "refused", "refused"]


@walls
def test_programs_know_nothing_of_each_other_though_they_come_from_one_process(tmp_path):
    """Each is forked from a process that has imported the libraries, and gets nothing else of it."""
    seen = []
    for name in ("a", "b"):
        program = tmp_path / name / "program.py"
        program.parent.mkdir()
        program.write_text("import os, sys, torch\ntorch.seen = getattr(torch, 'seen', 0) + 1\n"
                           "print(os.getppid(), os.getcwd(), os.environ['HOME'], sys.argv[1:], torch.seen, "
                           "len(sys.path), sorted(map(int, os.listdir('/proc/self/fd')))[:-1], "
                           "torch.get_num_threads(), sep='|')\n"
                           "sys.exit(3)", encoding="utf-8")
        outcome = sandbox.run(program, [name], program.parent, 30)
        assert outcome.status == 3, outcome
        seen.append(outcome.output.strip().split("|"))
    first, second = seen
    for own, name in zip(seen, ("a", "b"), strict=True):
        place = str(tmp_path.resolve() / name)
        assert own[1:] == [place, f"{place}/{sandbox.HOME}", f"['{name}']", "1", first[5], "[0, 1, 2, 3]", "1"]
    assert first[0] == second[0]
    os.kill(int(second[0]), 9)  # (out of memory, say)
    sandbox._ForkServer.present.process.wait()
    program.write_text("print('ran')", encoding="utf-8")
    assert sandbox.run(program, [], program.parent, 30).output == "ran\n"


@walls
def test_programs_end_with_the_one_that_has_started_them(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(99)", encoding="utf-8")
    process = start(sandbox.run, program, [], tmp_path)
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text(encoding="utf-8"):
        assert process.is_alive()
        time.sleep(0.05)
    process.kill()
    process.join()
    end = time.monotonic() + 300
    while Path("/proc", (tmp_path / "pid").read_text(encoding="utf-8")).exists():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("walled", [pytest.param(True, marks=walls), False])
def test_packages_of_the_users_own_are_found_and_nothing_else_of_theirs(walled, tmp_path, monkeypatch):
    """As `pip install --user` and PYTHONPATH have them, which an isolated Python does not look at."""
    for folder in ("work", "packages/own-1.0.dist-info", "private"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "packages" / "own.py").write_text("number = 5", encoding="utf-8")
    (tmp_path / "private" / "other.py").write_text("number = 6", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.syspath_prepend(tmp_path / "private")
    monkeypatch.setattr(sandbox._ForkServer, "present", None)
    if not walled:
        monkeypatch.setattr(sandbox, "lacking", lambda: "Windows cannot wall a process in")
    outcome = outcome_of("import own; print(own.number); import other", tmp_path / "work", trusted=not walled)
    assert outcome.output.startswith("5") and "No module named 'other'" in outcome.output, outcome


def test_without_walls_only_ones_own_code_is_run(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "lacking", lambda: "this kernel has no Landlock")
    program = tmp_path / "program.py"
    program.write_text("print('ran')", encoding="utf-8")
    with pytest.raises(OSError, match="only where it can do no harm, and this kernel has no Landlock"):
        sandbox.run(program, [], tmp_path)
    assert "ran" in sandbox.run(program, [], tmp_path, trusted=True).output


def test_that_a_library_asks_for_ipv6_is_no_attempt(monkeypatch, tmp_path):
    """As urllib3 does when it is imported."""
    monkeypatch.setattr(sandbox, "lacking", lambda: "Windows cannot wall a process in")
    code = ("import socket\ntry: socket.socket(socket.AF_INET6).bind(('::1', 0))\nexcept OSError: pass\n"
            "try: socket.socket(socket.AF_INET).bind(('0.0.0.0', 0))\nexcept OSError: pass")
    (attempt,) = outcome_of(code, tmp_path, trusted=True).attempts
    assert "'0.0.0.0'" in attempt


def test_names_of_folders_import_nothing_here(tmp_path, monkeypatch):
    """A folder called `package.module.x` had its package imported, to see whether that is installed."""
    (tmp_path / "handed_in").mkdir()
    (tmp_path / "handed_in" / "__init__.py").write_text("raise SystemExit('ran outside the walls')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert not trial._is_installed("handed_in.models.x")
    assert not trial._is_installed("unittest.__main__.x")
    assert trial._is_installed("torch") and not trial._is_installed("kit")
