"""Running a program that nobody has read, where it can do no harm: what the code of a hand-in is tried in.

On Linux (5.13 or newer; x86-64 or ARM) the program can read Python, the system's libraries and one folder, and write in
that folder alone (Landlock); it can start no process, open no connection, and neither signal nor look into another
process (seccomp); memory, time and disk are limited. Nothing needs to be installed and no rights are needed. Where the
kernel cannot do this, `run` refuses, unless the code is one's own.

This file imports nothing but Python's own modules: it is also what runs in the new process, before anything else.
"""

import ctypes
import importlib
import os
import platform
import runpy
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

# What came of it: `reason` is None when the program ended by itself, else which limit it met; `output` the end of what
# it printed; `attempts` what it tried that it may not.
Outcome = namedtuple("Outcome", "status reason output attempts seconds")

DISK = 500  # megabytes that may be written
THREADS = 2
# Imported before the program: no file of its folder can stand in for one of them, and what they do is no attempt.
LIBRARIES = ["numpy", "torch", "matplotlib.pyplot", "skimage.metrics", "skimage.data", "pytest", "tqdm", "easydict",
             "filelock", "safetensors.torch"]


def run(program, arguments, folder, seconds=120, megabytes=4096, trusted=False):
    """Run the Python program `program`, which lies in `folder`, in a process of its own with that folder as its own.

    Parameters
    ----------
    program : path
        Of a file in `folder`.
    arguments : list of str
    folder : path
        All that it can write to, and all that it can read beside Python and the libraries.
    seconds, megabytes : int
        Wall-clock time and memory, after which it is killed.
    trusted : bool
        The code is one's own: run it without walls where there can be none.

    Returns an `Outcome`. Raises OSError where this machine cannot keep the program in, and `trusted` is false.
    """
    folder = Path(folder).resolve()
    missing = lacking()
    if missing and not trusted:
        raise OSError(f"code of others is run only where it can do no harm, and {missing}; use Linux 5.13 or newer "
                      f"(in a virtual machine, say)")
    home = folder / ".home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(exist_ok=True)
    environment = {"PATH": os.defpath, "HOME": str(home), "TMPDIR": str(home), "MPLBACKEND": "agg", "LANG": "C.UTF-8",
                   "MPLCONFIGDIR": _font_list(home), "TORCH_HOME": str(home), "OMP_NUM_THREADS": str(THREADS),
                   "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                   **{name: os.environ[name] for name in ("SYSTEMROOT", "PATHEXT") if name in os.environ}}
    command = [sys.executable, "-I", str(Path(__file__).resolve()), str(folder), str(seconds), str(megabytes),
               "open" if missing else "walled", str(program), *arguments]
    begun, printed = time.monotonic(), home / "output"
    with open(printed, "wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=subprocess.STDOUT, start_new_session=True)
        try:
            reason = _watch(process, folder, begun + seconds, megabytes)
        finally:
            _kill(process)
    return Outcome(process.returncode, reason, _end_of(printed, 4000), _lines(home / "attempts"),
                   time.monotonic() - begun)


def lacking():
    """What this machine lacks to keep a program in, as part of a sentence; None if nothing."""
    if not sys.platform.startswith("linux"):
        return f"{platform.system()} cannot wall a process in"
    if platform.machine() not in SYSTEM_CALLS or sys.maxsize < 2**32:
        return f"it is not known how to on a {platform.machine()}"
    if _libc().syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1) < 1:
        return "this kernel has no Landlock"
    return None


def _watch(process, folder, end, megabytes):
    """Wait for the end of a process; the limit that it met, or None."""
    looked = 0
    while process.poll() is None:
        if time.monotonic() > end:
            return "time"
        if _memory(process.pid) > megabytes * 2**20:
            return "memory"
        if time.monotonic() > looked + 1:
            looked = time.monotonic()
            if _size(folder) > DISK * 2**20:
                return "disk"
        time.sleep(0.05)
    return None


def _kill(process):
    if process.poll() is None:
        process.kill()  # it can have no children
    process.wait()


def _memory(pid):
    """Bytes of memory that a process has, shared ones included; 0 where this cannot be asked."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def _size(folder):
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except OSError:
                pass
    return total


def _font_list(home):
    """Where matplotlib finds the list of fonts that it has made here before: making it takes seconds."""
    import matplotlib

    target = home / "matplotlib"
    target.mkdir(exist_ok=True)
    for file in Path(matplotlib.get_cachedir()).glob("fontlist-*.json"):
        shutil.copy(file, target)
    return str(target)


def _end_of(path, count):
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - count))
        return file.read().decode(errors="replace").replace("\0", "")


def _lines(path):
    return sorted(set(_end_of(path, 20_000).splitlines()))[:20] if path.is_file() else []


# --------------------------------------------------------------------------------------- in the new process


def main():
    folder, seconds, megabytes, walls, program, *arguments = sys.argv[1:]
    if walls == "walled":
        limit(int(seconds), int(megabytes))
        wall_in(folder)
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.path.insert(0, folder)
    sys.argv = [program, *arguments]
    watch_attempts(folder)
    runpy.run_path(program, run_name="__main__")


def limit(seconds, megabytes):
    """The limits of this process that the system has by itself."""
    import resource

    _libc().prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: end with the parent
    for kind, value in [(resource.RLIMIT_CPU, seconds * (THREADS + 1)), (resource.RLIMIT_DATA, megabytes * 2**20),
                        (resource.RLIMIT_FSIZE, DISK * 2**20), (resource.RLIMIT_NOFILE, 256),
                        (resource.RLIMIT_CORE, 0)]:
        resource.setrlimit(kind, (value, value))


def wall_in(folder):
    """From here on this process cannot leave `folder`, start a process or open a connection; nor can what it runs."""
    libc = _libc()
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        raise OSError("no_new_privs is refused")
    # Without the capabilities of root, if it is root: nothing of its own, nothing to inherit (capset(2)).
    if libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)):
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")
    _restrict_files(libc, folder)
    _restrict_calls(libc)


# Landlock (Documentation/userspace-api/landlock.rst of the kernel): numbers of its calls, and bits of what they govern.
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1, 2, 4, 8, 1 << 14
KNOWN_BITS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many bits a version knows; from 5 on 16
READABLE = ["/usr", "/lib", "/lib64", "/opt", "/etc/ld.so.cache", "/etc/fonts", "/etc/localtime", "/etc/mime.types",
            "/proc", "/sys/devices/system", "/sys/fs/cgroup", "/dev/urandom", "/dev/zero"]


def _restrict_files(libc, folder):
    version = libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    handled = (1 << KNOWN_BITS.get(version, 16)) - 1
    attributes = struct.pack("Q", handled)
    rules = libc.syscall(LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "Landlock is refused")
    reading = EXECUTE | READ_FILE | READ_DIR
    places = [(path, reading) for path in {*READABLE, sys.prefix, sys.base_prefix, str(Path(__file__).resolve())}]
    for path, rights in [*places, (folder, handled & ~EXECUTE), ("/dev/null", READ_FILE | WRITE_FILE | TRUNCATE)]:
        if not os.path.exists(path):
            continue
        if not os.path.isdir(path):
            rights &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights & handled, descriptor)
        if libc.syscall(LANDLOCK_ADD, rules, 1, rule, 0):
            raise OSError(ctypes.get_errno(), f"Landlock refuses {path}")
        os.close(descriptor)
    if libc.syscall(LANDLOCK_RESTRICT, rules, 0):
        raise OSError(ctypes.get_errno(), "Landlock is refused")
    os.close(rules)


# Numbers of system calls (the kernel's tables for x86-64 and for all newer architectures, of which ARM is one), and
# what their audit calls the architecture. `only own` may be called on one's own process.
SYSTEM_CALLS = {
    "x86_64": (0xC000003E, dict(
        clone=56, clone3=435, only_own=dict(kill=62, tgkill=234, prlimit64=302),
        refused=dict(
            fork=57, vfork=58, execve=59, execveat=322, tkill=200, rt_sigqueueinfo=129, rt_tgsigqueueinfo=297,
            pidfd_open=434, pidfd_send_signal=424, pidfd_getfd=438, ptrace=101, process_vm_readv=310,
            process_vm_writev=311, kcmp=312, socket=41, connect=42, accept=43, accept4=288, bind=49, listen=50,
            io_uring_setup=425, io_uring_enter=426, io_uring_register=427, memfd_create=319, memfd_secret=447,
            shmget=29, shmat=30, semget=64, msgget=68, mq_open=240, chmod=90, fchmod=91, fchmodat=268, fchmodat2=452,
            chown=92, fchown=93, lchown=94, fchownat=260, setxattr=188, lsetxattr=189, fsetxattr=190, removexattr=197,
            lremovexattr=198, fremovexattr=199, utime=132, utimes=235, futimesat=261, utimensat=280, unshare=272,
            setns=308, mount=165, umount2=166, pivot_root=155, chroot=161, open_tree=428, move_mount=429, fsopen=430,
            mount_setattr=442, bpf=321, perf_event_open=298, userfaultfd=323, keyctl=250, add_key=248, request_key=249,
            kexec_load=246, kexec_file_load=320, init_module=175, finit_module=313, delete_module=176, swapon=167,
            swapoff=168, reboot=169, sethostname=170, setdomainname=171, settimeofday=164, clock_settime=227,
            clock_adjtime=305, adjtimex=159, acct=163, syslog=103, quotactl=179, iopl=172, ioperm=173,
            name_to_handle_at=303, open_by_handle_at=304, setpriority=141, sched_setscheduler=144, sched_setattr=314,
            sched_setparam=142, ioprio_set=251, migrate_pages=256, move_pages=279, personality=135, setuid=105,
            setgid=106, setgroups=116, setsid=112, setpgid=109, inotify_init=253, inotify_init1=294,
            fanotify_init=300))),
    "aarch64": (0xC00000B7, dict(
        clone=220, clone3=435, only_own=dict(kill=129, tgkill=131, prlimit64=261),
        refused=dict(
            execve=221, execveat=281, tkill=130, rt_sigqueueinfo=138, rt_tgsigqueueinfo=240, pidfd_open=434,
            pidfd_send_signal=424, pidfd_getfd=438, ptrace=117, process_vm_readv=270, process_vm_writev=271, kcmp=272,
            socket=198, connect=203, accept=202, accept4=242, bind=200, listen=201, io_uring_setup=425,
            io_uring_enter=426, io_uring_register=427, memfd_create=279, memfd_secret=447, shmget=194, shmat=196,
            semget=190, msgget=186, mq_open=180, fchmod=52, fchmodat=53, fchmodat2=452, fchown=55, fchownat=54,
            setxattr=5, lsetxattr=6, fsetxattr=7, removexattr=14, lremovexattr=15, fremovexattr=16, utimensat=88,
            unshare=97, setns=268, mount=40, umount2=39, pivot_root=41, chroot=51, open_tree=428, move_mount=429,
            fsopen=430, mount_setattr=442, bpf=280, perf_event_open=241, userfaultfd=282, keyctl=219, add_key=217,
            request_key=218, kexec_load=104, kexec_file_load=294, init_module=105, finit_module=273, delete_module=106,
            swapon=224, swapoff=225, reboot=142, sethostname=161, setdomainname=162, settimeofday=170,
            clock_settime=112, clock_adjtime=266, adjtimex=171, acct=89, syslog=116, quotactl=60,
            name_to_handle_at=264, open_by_handle_at=265, setpriority=140, sched_setscheduler=119, sched_setattr=274,
            sched_setparam=118, ioprio_set=30, migrate_pages=238, move_pages=239, personality=92, setuid=146,
            setgid=144, setgroups=159, setsid=157, setpgid=154, inotify_init1=26, fanotify_init=262))),
}


def _restrict_calls(libc):
    """Install a seccomp filter, a program of the classic BPF that the kernel asks about each system call."""
    architecture, calls = SYSTEM_CALLS[platform.machine()]
    number, arch, first = 0, 4, 16  # where the kernel's struct seccomp_data has them (little-endian)
    load, equal, at_least, has_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, unknown, kill = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38, 0x80000000  # EPERM, ENOSYS
    lines = [(load, 0, 0, arch), (equal, 1, 0, architecture), (give, 0, 0, kill), (load, 0, 0, number)]
    if platform.machine() == "x86_64":  # the same calls once more, for x32
        lines += [(at_least, 0, 1, 0x40000000), (give, 0, 0, refuse)]
    for call in calls["refused"].values():
        lines += [(equal, 0, 1, call), (give, 0, 0, refuse)]
    lines += [(equal, 0, 1, calls["clone3"]), (give, 0, 0, unknown)]  # its flags cannot be seen; clone's can
    lines += [(equal, 0, 4, calls["clone"]), (load, 0, 0, first), (has_bit, 1, 0, 0x00010000),  # CLONE_THREAD
              (give, 0, 0, refuse), (give, 0, 0, allow)]
    for call in calls["only_own"].values():
        lines += [(equal, 0, 5, call), (load, 0, 0, first), (equal, 2, 0, os.getpid()), (equal, 1, 0, 0),
                  (give, 0, 0, refuse), (give, 0, 0, allow)]
    lines += [(give, 0, 0, allow)]
    program = b"".join(struct.pack("HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(buffer)))
    if libc.prctl(22, 2, header, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "seccomp is refused")


def _libc():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


# What a program that trains networks has no reason to do; Python itself tells when it is tried.
NEVER = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname",
         "urllib.Request", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty",
         "os.kill", "os.killpg", "ftplib.connect", "smtplib.connect", "http.client.connect")
OUTSIDE = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.link",
           "os.symlink", "shutil.rmtree", "shutil.move", "shutil.chown")


def watch_attempts(folder):
    """Write down what is tried that would reach outside `folder`: a hint for the reader, for it fails in any case."""
    log = os.open(os.path.join(folder, ".home", "attempts"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    inside = os.path.realpath(folder) + os.sep

    def note(event, arguments):
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            suspicious = writes and _leads_out(path) and "__pycache__" not in str(path)
        else:
            suspicious = event in NEVER or event in OUTSIDE and any(map(_leads_out, arguments[:2]))
        if suspicious and os.fstat(log).st_size < 20_000:
            os.write(log, f"{event} {' '.join(map(str, arguments[:2]))}"[:200].replace("\n", " ").encode() + b"\n")

    def _leads_out(path):
        if not isinstance(path, (str, bytes, os.PathLike)) or not path:
            return False
        path = os.path.realpath(os.fsdecode(path))
        return not (path + os.sep).startswith(inside) and not path.startswith("/dev/")

    sys.addaudithook(note)


if __name__ == "__main__":
    main()
