"""Fetching archives: continued, checked, safely unpacked."""

import hashlib
import io
import os
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

import create_data_lists
from kit.data import download


def files(folder):
    return sorted(os.path.relpath(os.path.join(d, f), folder) for d, _, names in os.walk(folder) for f in names
                  if f != ".lock")


class Server:
    """Serves files; `cut` ends a reply after so many bytes, `ranges` says whether it can continue."""

    def __init__(self, files):
        self.files, self.requests, self.cut, self.ranges = files, [], None, True
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name, start = self.path[1:], 0
                server.requests.append((name, self.headers["Range"]))
                if name not in server.files:
                    return self.send_error(404)
                content = server.files[name]
                if self.headers["Range"] and server.ranges:
                    start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                    if start >= len(content):
                        return self.send_error(416)
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                end = len(content) if server.cut is None else start + server.cut
                self.wfile.write(content[start:end])

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def adopt(monkeypatch, server):
    monkeypatch.setattr(download, "ARCHIVES", {
        name: [a._replace(md5=hashlib.md5(server.files[a.url.rpartition("/")[2]]).hexdigest()) for a in archives]
        for name, archives in download.ARCHIVES.items()})


def png(width, height, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def tarred(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info is not content:
                info.size = len(content)
            archive.addfile(info, None if info is content else io.BytesIO(content))
    return buffer.getvalue()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def real_layouts():
    """The five archives, small, with the real names of folders and files."""
    def sets(split, first):
        high = {f"DIV2K_{split}_HR/{i:04}.png": png(100, 96, i) for i in range(first, first + 3)}
        low = {f"DIV2K_{split}_LR_bicubic/X4/{i:04}x4.png": png(25, 24, i) for i in range(first, first + 3)}
        return {f"DIV2K_{split}_HR.zip": zipped(high), f"DIV2K_{split}_LR_bicubic_X4.zip": zipped(low)}

    benchmark = {}
    for number, (name, picture) in enumerate({"Set5": "baby", "Set14": "zebra", "B100": "101085",
                                              "Urban100": "img001"}.items()):
        benchmark[f"benchmark/{name}/HR/{picture}.png"] = png(42, 41, number)
        benchmark[f"benchmark/{name}/LR_bicubic/X4/{picture}x4.png"] = png(10, 10, number)
    return {**sets("train", 1), **sets("valid", 801), "benchmark.tar": tarred(benchmark)}


@pytest.fixture
def server(monkeypatch):
    """A server of the five archives, whose checksums the kit takes for the real ones."""
    server = Server(real_layouts())
    adopt(monkeypatch, server)
    monkeypatch.setattr(download, "PAUSE", 0)
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_from_archives_to_lists_with_one_command(server, tmp_path, capsys):
    arguments = ["--download", "div2k", "benchmarks", "--source", server.address, "--data", str(tmp_path / "data"),
                 "--out", str(tmp_path / "lists")]
    create_data_lists.main(arguments)
    lists = {p.stem: p.read_text(encoding="utf-8") for p in (tmp_path / "lists").glob("*.csv")}
    assert set(lists) == {"train", *create_data_lists.TEST_SETS}
    assert lists["train"].splitlines()[1] == ("../data/DIV2K_train_HR/0001.png,"
                                              "../data/DIV2K_train_LR_bicubic/X4/0001x4.png,4,100,96,0,0")
    assert "benchmark/B100/HR/101085.png" in lists["B100"] and ",4,40,40" in lists["B100"]
    left = {name.split("/")[0] for name in files(tmp_path / "data")}
    assert left == {"DIV2K_train_HR", "DIV2K_train_LR_bicubic", "DIV2K_valid_HR", "DIV2K_valid_LR_bicubic", "benchmark"}
    assert len(server.requests) == 5

    create_data_lists.main(arguments)  # nothing is fetched again
    assert len(server.requests) == 5 and "is there already" in capsys.readouterr().out


def test_a_connection_that_breaks_is_continued(server, tmp_path, capsys):
    server.cut = 40_000
    download.download(["div2k"], tmp_path, server.address)
    assert len(files(tmp_path)) == 12
    train = [range_ for name, range_ in server.requests if name == "DIV2K_train_HR.zip"]
    assert train[:3] == [None, "bytes=40000-", "bytes=80000-"]
    assert "broke off at 0.0 MB" in capsys.readouterr().out


def test_a_server_that_cannot_continue_sends_it_all_again(server, tmp_path):
    whole = server.files["benchmark.tar"]
    (tmp_path / "benchmark.tar.part").write_bytes(whole[:999])
    server.ranges = False
    download.download(["benchmarks"], tmp_path, server.address, progress=False)
    assert len(files(tmp_path)) == 8


def test_when_it_cannot_go_on_what_is_there_is_kept_for_the_next_time(server, tmp_path):
    server.cut = 0
    (tmp_path / "benchmark.tar.part").write_bytes(server.files["benchmark.tar"][:999])
    with pytest.raises(OSError, match="closed early.*0.0 MB are kept in .*run the command again to continue"):
        download.download(["benchmarks"], tmp_path, server.address, progress=False)
    assert len(server.requests) == download.ATTEMPTS
    assert files(tmp_path) == ["benchmark.tar.part"]
    server.cut = None
    download.download(["benchmarks"], tmp_path, server.address, progress=False)
    assert server.requests[-1] == ("benchmark.tar", "bytes=999-") and len(files(tmp_path)) == 8


def test_a_download_that_was_complete_is_only_unpacked(server, tmp_path):
    (tmp_path / "benchmark.tar.part").write_bytes(server.files["benchmark.tar"])
    download.download(["benchmarks"], tmp_path, server.address, progress=False)
    assert len(files(tmp_path)) == 8


def test_a_wrong_checksum_is_refused_and_removed(server, tmp_path):
    server.files["benchmark.tar"] = server.files["benchmark.tar"][:-1] + b"x"
    with pytest.raises(ValueError, match="benchmark.tar.part: has the MD5 .* damaged or another file. It was removed"):
        download.download(["benchmarks"], tmp_path, server.address, progress=False)
    assert files(tmp_path) == []


GOOD = {"benchmark/Set5/HR/baby.png": b"good"}


def device(name):
    info = tarfile.TarInfo(name)
    info.type = tarfile.CHRTYPE
    return info


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def zip_with_link():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("benchmark/link")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc")
    return buffer.getvalue()


@pytest.mark.parametrize("content, words", [
    (tarred({**GOOD, "../evil": b"x"}), "'../evil', which leads out of the folder"),
    (tarred({**GOOD, "/tmp/evil-by-absolute-path": b"x"}), "which leads out of the folder"),
    (tarred({**GOOD, "benchmark/../../evil": b"x"}), "which leads out of the folder"),
    (tarred({**GOOD, "benchmark\\..\\..\\evil": b"x"}), "which leads out of the folder"),
    (tarred({**GOOD, "link": link("benchmark/out", "/")}), "a link or a device"),
    (tarred({**GOOD, "null": device("benchmark/null")}), "a link or a device"),
    (zipped({**GOOD, "../evil": b"x"}), "which leads out of the folder"),
    (zipped({**GOOD, "C:/evil": b"x"}), "which leads out of the folder"),
    (zip_with_link(), "a link"),
    (tarred({"other/Set5/HR/baby.png": b"x"}), "does not contain the folder benchmark"),
    (tarred(GOOD)[:700], "damaged archive"),
    (zipped({"benchmark/a": b"x" * 999}).replace(b"xxx", b"xxy", 1), "damaged archive"),
    (b"no archive at all", "damaged archive"),
], ids=["tar up", "tar absolute", "tar up within", "tar backslashes", "tar link", "tar device", "zip up", "zip drive",
        "zip link", "other folder", "cut off", "damaged", "no archive"])  # (a zip's bytes have the time in them)
def test_hostile_and_damaged_archives_write_nothing(server, tmp_path, monkeypatch, content, words):
    server.files["benchmark.tar"] = content
    adopt(monkeypatch, server)
    with pytest.raises(ValueError, match="benchmark.tar.part") as caught:
        download.download(["benchmarks"], tmp_path / "data", server.address, progress=False)
    assert words in str(caught.value)
    assert files(tmp_path) == [] and not os.path.exists("/tmp/evil-by-absolute-path")
    assert [path.name for path in (tmp_path / "data").iterdir()] == [".lock"]


def test_a_missing_file_and_a_missing_server(server, tmp_path):
    del server.files["benchmark.tar"]
    with pytest.raises(OSError, match="benchmark.tar: the server answers 404 .*--source"):
        download.download(["benchmarks"], tmp_path, server.address, progress=False)
    assert len(server.requests) == 1  # trying again would not help
    with pytest.raises(OSError, match="http://127.0.0.1:9/benchmark.tar: .*--source"):
        download.download(["benchmarks"], tmp_path, "http://127.0.0.1:9", progress=False)
    assert files(tmp_path) == []


def test_local_archives_are_used_and_left_alone(server, tmp_path):
    for name, content in server.files.items():
        (tmp_path / name).write_bytes(content)
    download.download(["div2k", "benchmarks"], tmp_path / "data", str(tmp_path), progress=False)
    assert len(files(tmp_path / "data")) == 12 + 8 and (tmp_path / "benchmark.tar").exists()
    assert server.requests == []
    with pytest.raises(OSError, match="nowhere/benchmark.tar: there is no such archive"):
        download.download(["benchmarks"], tmp_path / "other", "nowhere", progress=False)
    (tmp_path / "benchmark.tar").write_bytes(b"other")
    with pytest.raises(ValueError, match="has the MD5"):
        download.download(["benchmarks"], tmp_path / "other", str(tmp_path), progress=False)
    assert (tmp_path / "benchmark.tar").read_bytes() == b"other"  # the user's own file


def test_a_full_disk_is_named_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="benchmark.tar.part takes .* GB are free; make room, or choose another disk"):
        download.download(["benchmarks"], tmp_path, server.address, progress=False)
    assert len(server.requests) == 1 and files(tmp_path) == []


def test_names_are_checked(tmp_path):
    with pytest.raises(ValueError, match="nothing to download called 'celeba'"):
        download.download(["celeba"], tmp_path)
