"""The sandbox holds."""

import os

import pytest

from helpers import walls
from kit.handin import sandbox

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


@walls
@pytest.mark.parametrize("code, limit", [
    ("import os\nwhile True:\n    file = open('x', 'wb'); file.write(bytes(50 * 2**20)); os.unlink('x')", "disk"),
    ("import os, time\nfor i in range(10**6): os.mkdir(str(i)) or time.sleep(0.0005)", "disk"),
    ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=[99]).start()", "threads"),
    ("kept = [bytearray(2**26) for i in range(1000)]", None),  # a MemoryError of its own
    ("import time; time.sleep(99)", "time"),
])
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


def test_without_walls_only_ones_own_code_is_run(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "lacking", lambda: "this kernel has no Landlock")
    program = tmp_path / "program.py"
    program.write_text("print('ran')", encoding="utf-8")
    with pytest.raises(OSError, match="only where it can do no harm, and this kernel has no Landlock"):
        sandbox.run(program, [], tmp_path)
    assert "ran" in sandbox.run(program, [], tmp_path, trusted=True).output
