"""Walls around a process, from the inside: what a program that nobody has read can do, and what it cannot.

This file is what runs in the new process before anything of a stranger's: it imports nothing but Python's own modules,
and then LIBRARIES. See `kit.handin.sandbox` for what it is told, and by whom.
"""

import ctypes
import hmac
import importlib
import json
import os
import runpy
import signal
import socket
import struct
import sys
import tempfile

DISK = 500  # megabytes that may be written, a fifth of it to one file
THREADS = 1  # that computes: several programs are tried side by side
ATTEMPTS = 3  # the descriptor of the pipe for what a program tries, in a forked process
# Imported before the program: no file of its folder can stand in for one of them, and what they do is no attempt.
# (torch._dynamo is what PyTorch's optimizers import when the first is made.)
LIBRARIES = ["numpy", "torch", "matplotlib.pyplot", "skimage.metrics", "skimage.data", "pytest", "tqdm", "easydict",
             "filelock", "safetensors.torch", "torch._dynamo"]
PLACES = "KIT_PLACES_OF_LIBRARIES"  # in the environment: the folders that packages are found in, one after the other


def main():
    """Run one program, as the arguments say; or, as `serve DESCRIPTOR`, in a fork for each that is asked for there."""
    arguments, places = sys.argv[1:], places_of_libraries()
    sys.path[:] = [path for path in sys.path if path not in places] + places
    for name in LIBRARIES:
        importlib.import_module(name)
    if arguments[0] == "serve":
        arguments = fork_for_each(socket.socket(fileno=int(arguments[1])))
    if arguments:
        run(*arguments)


def places_of_libraries():
    return [path for path in os.environ.get(PLACES, "").split(os.pathsep) if path]


def fork_for_each(asked):
    """Fork a process for each request; gives its arguments there, and None here when nobody can ask any more.

    Importing the libraries takes longer than most programs that are tried: here it is done once. Each request comes
    with the descriptors of the new process's input, its output, and where its attempts are written; the answer is its
    number, with a descriptor that ends with it. Another request asks for the status of one that has ended.
    """
    while message := socket.recv_fds(asked, 2**17, 3):
        text, given, _, _ = message
        if not text:
            return None
        request = json.loads(text)
        if "ended" in request:
            _, status = os.waitpid(request["ended"], 0)
            asked.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        child = os.fork()
        if not child:
            asked.detach()
            os.setsid()
            source, output, attempts = given
            for target, descriptor in enumerate((source, output, output, attempts)):
                os.dup2(descriptor, target)
            os.closerange(ATTEMPTS + 1, 2**16)  # first of all that by which the next is asked for
            os.chdir(request["folder"])
            os.environ.clear()
            os.environ.update(request["environment"])
            tempfile.tempdir = None  # (whoever has asked for it outside)
            return request["arguments"]
        ends = os.pidfd_open(child)
        socket.send_fds(asked, [str(child).encode()], [ends])
        for descriptor in (*given, ends):
            os.close(descriptor)


def run(folder, seconds, megabytes, walls, attempts, readable, program, *arguments):
    """Be the program, within the walls."""
    word = sys.stdin.read()
    if walls == "walled":
        limit(int(seconds), int(megabytes))
        wall_in(folder, [path for path in readable.split(os.pathsep) if path])
    sys.path.insert(0, folder)
    sys.argv = [program, *arguments]
    if int(attempts) >= 0:
        watch_attempts(folder, int(attempts))
    runpy.run_path(program, {"sign": lambda text: signature(text, word)}, run_name="__main__")


def signature(text, word):
    """What `sign` gives for a text in the process that has this word."""
    return hmac.new(word.encode(), text.encode(), "sha256").hexdigest()


def limit(seconds, megabytes):
    """The limits of this process that the system has by itself."""
    import resource

    c_library().prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: end with the parent
    for kind, value in [(resource.RLIMIT_CPU, seconds * (THREADS + 1)), (resource.RLIMIT_DATA, megabytes * 2**20),
                        (resource.RLIMIT_FSIZE, DISK // 5 * 2**20), (resource.RLIMIT_NOFILE, 256),
                        (resource.RLIMIT_CORE, 0)]:
        resource.setrlimit(kind, (value, value))


def wall_in(folder, readable=()):
    """From here on this process cannot leave `folder`, start a process or open a connection; nor can what it runs."""
    libc = c_library()
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        raise OSError("no_new_privs is refused")
    # Without the capabilities of root, if it is root: nothing of its own, nothing to inherit (capset(2)).
    if libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)):
        raise OSError(ctypes.get_errno(), "capabilities cannot be dropped")
    _restrict_files(libc, folder, readable)
    _restrict_calls(libc)


# Landlock (Documentation/userspace-api/landlock.rst of the kernel): numbers of its calls, and bits of what they govern.
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1, 2, 4, 8, 1 << 14
NO_DEVICES = 0b1111 << 9 | 1 << 6  # sockets, pipes, devices and symbolic links cannot be made anywhere
READABLE = ["/usr", "/lib", "/lib64", "/opt", "/etc/ld.so.cache", "/etc/fonts", "/etc/localtime", "/etc/mime.types",
            "/proc", "/sys/devices/system", "/sys/fs/cgroup", "/dev/urandom", "/dev/zero"]


def _restrict_files(libc, folder, readable):
    version = libc.syscall(LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    handled = (1 << (15 if version < 5 else 16)) - 1  # all that this version knows
    attributes = struct.pack("Q", handled)
    rules = libc.syscall(LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "Landlock is refused")
    reading = EXECUTE | READ_FILE | READ_DIR
    places = [(path, reading) for path in {*READABLE, *readable, sys.prefix, sys.base_prefix, *places_of_libraries(),
                                        os.path.realpath(__file__)}]
    places += [(folder, handled & ~EXECUTE & ~NO_DEVICES), ("/dev/null", READ_FILE | WRITE_FILE | TRUNCATE)]
    for path, rights in places:
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


# The kernel's calls that are allowed, by their numbers on x86-64: what computing, threads and files need. All others
# are refused; those in ABSENT as if the kernel were too old for them, so that the C library takes the older way.
ALLOWED = dict(
    read=0, write=1, open=2, close=3, stat=4, fstat=5, lstat=6, poll=7, lseek=8, mprotect=10, munmap=11, brk=12,
    rt_sigaction=13, rt_sigprocmask=14, rt_sigreturn=15, pread64=17, pwrite64=18, readv=19, writev=20, access=21,
    pipe=22, select=23, sched_yield=24, mremap=25, msync=26, mincore=27, madvise=28, dup=32, dup2=33, nanosleep=35,
    getpid=39, sendfile=40, exit=60, uname=63, flock=73, fsync=74, fdatasync=75, ftruncate=77, getcwd=79, chdir=80,
    fchdir=81,
    rename=82, mkdir=83, rmdir=84, unlink=87, readlink=89, umask=95, gettimeofday=96, getrlimit=97, getrusage=98,
    sysinfo=99, times=100, getuid=102, getgid=104, geteuid=107, getegid=108, getppid=110, getpgrp=111, getgroups=115,
    getresuid=118, getresgid=120, rt_sigpending=127, rt_sigtimedwait=128, rt_sigsuspend=130, sigaltstack=131,
    statfs=137, fstatfs=138, sched_getparam=143, sched_getscheduler=145, sched_get_priority_max=146,
    sched_get_priority_min=147, arch_prctl=158, gettid=186, time=201, futex=202, sched_getaffinity=204,
    epoll_create=213,
    getdents64=217, set_tid_address=218, restart_syscall=219, fadvise64=221, clock_gettime=228, clock_getres=229,
    clock_nanosleep=230, exit_group=231, epoll_wait=232, epoll_ctl=233, get_mempolicy=239, openat=257, mkdirat=258,
    newfstatat=262, unlinkat=263, renameat=264, readlinkat=267, faccessat=269, pselect6=270, ppoll=271,
    set_robust_list=273, get_robust_list=274, epoll_pwait=281, eventfd=284, eventfd2=290, epoll_create1=291, dup3=292,
    pipe2=293, preadv=295, pwritev=296, getcpu=309, renameat2=316, getrandom=318, membarrier=324, copy_file_range=326,
    preadv2=327, pwritev2=328, statx=332, rseq=334)
ABSENT = dict(clone3=435, close_range=436, openat2=437, faccessat2=439, epoll_pwait2=441, futex_waitv=449,
              futex_wake=454, futex_wait=455)
# Allowed for one argument only: (call, which argument, its values). "own" is the number of this process.
ONLY_FOR = [("kill", 62, 0, ["own"]), ("tgkill", 234, 0, ["own"]), ("prlimit64", 302, 0, [0, "own"]),
            ("prctl", 157, 0, [15, 16, 23, 0x53564D41]),  # names of threads and of memory, asking for a capability
            ("ioctl", 16, 1, [0x5401, 0x5413, 0x541B, 0x5450, 0x5451]),  # about terminals, and close on exec
            ("fcntl", 72, 1, [0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030])]  # flags, copies and locks, no signals
CLONE, THREAD, SAME_FILES, MMAP, SHARED_ANONYMOUS, GROWS_DOWN = 56, 0x00010000, 0x400, 9, 0x21, 0x100


def _restrict_calls(libc):
    """Install a seccomp filter, a program of the classic BPF that the kernel asks about each system call."""
    number, architecture, arguments = 0, 4, 16  # where the kernel's struct seccomp_data has them (little-endian)
    load, mask, equal, at_least, has_bit, give = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
    allow, refuse, absent, kill = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38, 0x80000000  # EPERM, ENOSYS
    lines = [(load, 0, 0, architecture), (equal, 1, 0, 0xC000003E), (give, 0, 0, kill), (load, 0, 0, number),
             (at_least, 0, 1, 0x40000000), (give, 0, 0, refuse)]  # the same calls once more, for x32
    for call in ALLOWED.values():
        lines += [(equal, 0, 1, call), (give, 0, 0, allow)]
    for call in ABSENT.values():
        lines += [(equal, 0, 1, call), (give, 0, 0, absent)]
    lines += [(equal, 0, 5, CLONE), (load, 0, 0, arguments), (has_bit, 0, 1, THREAD), (has_bit, 1, 0, SAME_FILES),
              (give, 0, 0, refuse), (give, 0, 0, allow)]  # (open files of its own would not be counted)
    lines += [(equal, 0, 6, MMAP), (load, 0, 0, arguments + 8 * 3), (has_bit, 2, 0, GROWS_DOWN),
              (mask, 0, 0, SHARED_ANONYMOUS), (equal, 0, 1, SHARED_ANONYMOUS), (give, 0, 0, refuse),
              (give, 0, 0, allow)]  # else it escapes the limit of memory
    for _, call, argument, values in ONLY_FOR:
        inner = [(load, 0, 0, arguments + 8 * argument)]
        for value in values:
            inner += [(equal, 0, 1, os.getpid() if value == "own" else value), (give, 0, 0, allow)]
        inner.append((give, 0, 0, refuse))
        lines += [(equal, 0, len(inner), call), *inner]
    lines.append((give, 0, 0, refuse))
    program = b"".join(struct.pack("HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(buffer)))
    if libc.prctl(22, 2, header, 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "seccomp is refused")


def c_library():
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


# What a program that trains networks has no reason to do; Python itself tells when it is tried.
NEVER = ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname",
         "urllib.Request", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty",
         "os.kill", "os.killpg", "ftplib.connect", "smtplib.connect", "http.client.connect")
OUTSIDE = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.link",
           "os.symlink", "shutil.rmtree", "shutil.move", "shutil.chown")


def watch_attempts(folder, log):
    """Write down what is tried that would reach outside `folder`: a hint for the reader, for it fails in any case."""
    inside, left = os.path.realpath(folder) + os.sep, 20_000  # bytes, less than a pipe holds

    def note(event, arguments):
        nonlocal left
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            suspicious = writes and _leads_out(path)
        else:
            suspicious = (event in NEVER and not _is_harmless(event, arguments)
                          or event in OUTSIDE and any(map(_leads_out, arguments[:2])))
        if suspicious and left > 0:
            line = f"{event} {' '.join(map(str, arguments[:2]))}"[:200].replace("\n", " ").encode() + b"\n"
            left -= os.write(log, line)

    def _is_harmless(event, arguments):
        """As urllib3 asks for IPv6 when it is imported, and `platform` for the processor."""
        return (event == "socket.bind" and arguments[1][:2] == ("::1", 0)
                or event == "subprocess.Popen" and arguments[0] == "uname")

    def _leads_out(path):
        if not isinstance(path, (str, bytes, os.PathLike)) or not path:
            return False
        path = os.path.realpath(os.fsdecode(path))
        return not (path + os.sep).startswith(inside) and not path.startswith("/dev/")

    sys.addaudithook(note)


if __name__ == "__main__":
    main()
