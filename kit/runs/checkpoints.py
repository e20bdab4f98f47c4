"""Checkpoints: saved whole or not at all, and loaded without running code from them."""

import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save as safetensors_bytes

from kit.console import printable
from kit.files import write_whole
from kit.runs.pickles import check_pickle

SAFETENSORS = ".safetensors"
LONGEST = 300  # letters of a weight's name
STORED = {torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool}
TIGHTEST = 100  # how many times smaller than weights their file may be: far more than any compression makes of them
BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how files of PyTorch before 1.6 begin


def save_checkpoint(path, content):
    """Save a dictionary of tensors, numbers, strings, lists and dictionaries, whole or not at all."""
    with write_whole(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # what its writer of zip files makes of a full disk
            raise OSError(f"{path}: could not be written; is the disk full? ({str(error).splitlines()[0]})") from error


def load_checkpoint(path):
    """Load what `save_checkpoint` or `save_generator` wrote, onto the CPU, without running any code from the file.

    Raises FileNotFoundError, or ValueError for a damaged file, one that is no checkpoint of this kit,
    or one that holds pickled objects, which could run anything on being loaded.
    """
    content = read_checkpoint(path)
    if not is_of_this_kit(content):
        raise ValueError(f"{path}: not a checkpoint of this kit (no generator with its settings in it)")
    check_weights(path, content["generator"])
    return content


def is_of_this_kit(content):
    """Whether what `read_checkpoint` gave is a checkpoint of this kit."""
    return isinstance(content, dict) and "generator" in content and "generator_settings" in content


def read_checkpoint(path):
    """What a file of weights holds, whichever program wrote it, onto the CPU, without running any code from the file.

    Of this kit, safetensors, PyTorch (its older format, too), or NumPy's .npz. Raises what `load_checkpoint` raises.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint; train first, or correct the name")
    try:
        return _plain({SAFETENSORS: _load_safetensors, ".npz": _load_npz}.get(path.suffix.lower(), _load_torch)(path))
    except Exception as error:
        reason = printable((str(error).splitlines() or [type(error).__name__])[0][:300])
        if any(word in str(error) for word in ("weights_only", "Unsupported", "allow_pickle")):
            raise ValueError(f"{path}: refused, because it holds more than tensors and plain values; loading "
                             f"it could run code. Use a checkpoint that this kit saved, or have the program that wrote "
                             f"this one save its network's state_dict() alone") from error
        raise ValueError(f"{path}: not a readable checkpoint ({reason})") from error


def save_generator(path, weights, settings, **notes):
    """Save the weights of a generator (its state dict) with the settings to build it again, and plain values as notes.

    A path that ends in `.safetensors` gets a file of that format with the weights rounded to fp16: half
    the size, for handing on.
    """
    if Path(path).suffix != SAFETENSORS:
        save_checkpoint(path, {"generator": weights, "generator_settings": settings, **notes})
        return
    weights = {name: (value.half() if value.is_floating_point() else value).contiguous()
               for name, value in weights.items()}
    notes = {"generator_settings": settings, "crc": _crc(weights), **notes}
    with write_whole(path) as temporary:
        temporary.write_bytes(safetensors_bytes(weights, {name: json.dumps(value) for name, value in notes.items()}))


def _load_torch(path):
    """What torch.save wrote, looked through before."""
    with open(path, "rb") as file:
        begin = file.read(len(BEFORE_ZIP))
        if begin.startswith(b"PK\3\4"):  # (by which PyTorch tells, too)
            _check_archive(file)
        elif begin == BEFORE_ZIP:
            for _ in range(4):  # the version, the system, the content, and where its storages are
                check_pickle(file)
        else:
            raise ValueError("it is cut off, or not a file that torch.save wrote")
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_archive(file):
    """Raise ValueError for a zip file that torch.save cannot have written, or whose bytes are not those of its CRCs."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries) > file.seek(0, os.SEEK_END):
            raise ValueError("its parts lie on each other, as torch.save never puts them")
        pickles = [entry for entry in entries if entry.filename.lower().endswith("data.pkl")]
        if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl"):
            raise ValueError("it has not one data.pkl, as what torch.save wrote")
        with archive.open(pickles[0]) as content:
            check_pickle(content)
        if damaged := archive.testzip():
            raise ValueError(f"its part {damaged} is damaged")


def _plain(content, known=None):
    """Nested dictionaries as plain ones: a pickled OrderedDict may bring its own "items" or "get".

    One that stands in several places is one afterwards, too (`known`, by its identity).
    """
    known = {} if known is None else known
    if not isinstance(content, dict):
        return content
    if id(content) not in known:
        known[id(content)] = copy = {}
        copy.update((key, _plain(value, known)) for key, value in dict.items(content))
    return known[id(content)]


def _load_npz(path):
    """The arrays of a file of NumPy's, as tensors."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > TIGHTEST * path.stat().st_size:
            raise ValueError("it is packed far tighter than weights can be")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def check_weights(path, weights):
    """Raise ValueError for anything but a state dict of finite numbers."""
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"{path}: not a checkpoint of this kit (its generator has no weights)")
    scanned, most = 0, TIGHTEST * Path(path).stat().st_size
    for name, value in weights.items():
        if not isinstance(name, str) or len(name) > LONGEST or not isinstance(value, torch.Tensor):
            raise ValueError(f"{path}: not a checkpoint of this kit (its weight {str(name)[:LONGEST]!r} is no tensor "
                             f"with a name)")
        if (value.is_complex() or value.layout != torch.strided or value.is_quantized or value.is_meta
                or value.is_nested):
            raise ValueError(f"{path}: its weight {printable(name)} is of the kind {value.dtype}, {value.layout}, not "
                             f"of plain numbers")
        size, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
        scanned += size
        if size > stored or max(scanned, stored) > most:
            raise ValueError(f"{path}: its weight {printable(name)} claims to have {value.numel()} values, of which "
                             f"the file does not hold all")
        if value.is_floating_point() and value.isnan().any():  # (a mask may have infinities)
            raise ValueError(f"{path}: its weight {printable(name)} has values that are no numbers")


def can_be_loaded(name, value):
    """Whether a weight or buffer of this name, once saved, is not refused here."""
    return (value.dtype in STORED and len(name) <= LONGEST
            and not (value.is_floating_point() and value.isnan().any()))


def _load_safetensors(path):
    with safe_open(path, "pt") as file:
        weights, notes = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    ours = "generator_settings" in notes
    notes = {name: json.loads(text) for name, text in notes.items() if name != "format"} if ours else {}
    if notes.pop("crc", None) not in (None, _crc(weights)):
        raise ValueError("its weights are damaged")
    weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    return {"generator": weights, **notes} if ours else weights


def _crc(weights):
    """The CRC-32 of tensors with their names."""
    crc = 0
    for name in sorted(weights):
        crc = zlib.crc32(weights[name].contiguous().flatten().view(torch.uint8).numpy(), zlib.crc32(name.encode(), crc))
    return crc
