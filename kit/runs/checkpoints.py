"""Checkpoints: saved whole or not at all, and loaded without running code from them."""

import json
import zipfile
import zlib
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save as safetensors_bytes

from kit.files import write_whole

SAFETENSORS = ".safetensors"


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
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint; train first, or correct the name")
    try:
        content = _load_safetensors(path) if path.suffix == SAFETENSORS else _load_zip(path)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "weights_only" in str(error) or "Unsupported" in str(error):
            raise ValueError(f"{path}: refused, because it holds more than tensors and plain values; loading "
                             f"it could run code. Use a checkpoint that this kit saved") from error
        raise ValueError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(content, dict) or "generator" not in content or "generator_settings" not in content:
        raise ValueError(f"{path}: not a checkpoint of this kit (no generator in it)")
    _check_weights(path, content["generator"])
    return content


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


def _load_zip(path):
    """What torch.save wrote, its bytes compared with the CRCs that a zip file has."""
    if not zipfile.is_zipfile(path):
        raise ValueError("it is cut off, or not a file that torch.save wrote")
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("it is compressed, which torch.save never does")
        if damaged := archive.testzip():
            raise ValueError(f"its part {damaged} is damaged")
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_weights(path, weights):
    """Raise ValueError for anything but a state dict of finite numbers."""
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"{path}: not a checkpoint of this kit (its generator has no weights)")
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"{path}: not a checkpoint of this kit (its weight {name!r} is no tensor with a name)")
        if value.is_complex() or value.layout != torch.strided or value.is_quantized:
            raise ValueError(f"{path}: its weight {name} is of the kind {value.dtype}, {value.layout}, not of plain "
                             f"numbers")
        if value.is_floating_point() and value.isnan().any():  # (a mask may have infinities)
            raise ValueError(f"{path}: its weight {name} has values that are no numbers")


def _load_safetensors(path):
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}
        notes = {name: json.loads(text) for name, text in (file.metadata() or {}).items() if name != "format"}
    if notes.pop("crc", None) not in (None, _crc(weights)):
        raise ValueError("its weights are damaged")
    weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    return {"generator": weights, **notes}


def _crc(weights):
    """The CRC-32 of tensors with their names."""
    crc = 0
    for name in sorted(weights):
        crc = zlib.crc32(weights[name].contiguous().flatten().view(torch.uint8).numpy(), zlib.crc32(name.encode(), crc))
    return crc
