"""The command `python -m kit export`: a generator as a file for other programs, ONNX or PyTorch's own format."""

import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kit.compute.inference import reason_of
from kit.console import Parser
from kit.enlarge import add_weights, weights_file
from kit.evaluation.generators import load_generator
from kit.files import write_whole
from kit.language import tr
from utils import super_resolve, to_batch, to_unit

ENDINGS = {"onnx": ".onnx", "pt2": ".pt2"}
NEEDED = {"onnx": ["onnx", "onnxscript"], "pt2": []}  # packages, beside PyTorch


class AsPictures(nn.Module):
    """A generator with pictures in [0, 1] on both sides: N×3×H×W → N×3×(scale·H)×(scale·W), clipped."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, lr):
        return ((self.generator(lr) + 1) / 2).clamp(0, 1)


def main(arguments=None, prog="python -m kit export"):
    """The command `python -m kit export`."""
    parser = Parser(
        prog=prog, description="Write a generator for other programs: RGB from 0 to 1 in float32, N×3×H×W of any size, "
        "goes in (ONNX's input lr) and comes out (sr). onnx is for ONNX Runtime and what builds on it (needs the "
        "packages onnx and onnxscript), pt2 is what torch.export.load reads. The file is compared with the generator "
        "on a photograph before it is kept, ONNX where onnxruntime is installed, both in fp32: what enlarge makes in "
        "bf16 is a few of 255 grey values from it.", epilog=f"Example: {prog} srgan --out srgan.onnx")
    add_weights(parser, "weights", nargs="?")
    parser.add_argument("--format", choices=ENDINGS, help="default: what --out ends in, or else onnx")
    parser.add_argument("--out", metavar="FILE", help="default: called after the weights, in this folder")
    options = parser.parse_args(arguments)
    try:
        source = weights_file(options.weights)
        ending = Path(options.out or "").suffix
        kind = options.format or next((kind for kind in ENDINGS if ENDINGS[kind] == ending), "onnx")
        out = Path(options.out or Path(source.name.removesuffix(".tar")).stem + ENDINGS[kind]).expanduser()
        if out.suffix != ENDINGS[kind]:
            raise ValueError(f"--out {out} does not end in {ENDINGS[kind]}")
        print(export(load_generator(source), out, kind))
    except (ValueError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")


def export(generator, out, kind="onnx"):
    """Write a generator to a file, "onnx" or "pt2", whole or not at all; gives a sentence of what was compared.

    Raises ValueError where a package is missing, the network cannot be exported, or the file's pictures differ from the
    generator's by more than one grey value.
    """
    if missing := [name for name in NEEDED[kind] if find_spec(name) is None]:
        raise ValueError(f"{kind} needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    network = AsPictures(generator).eval()
    with write_whole(out) as temporary:
        try:
            with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                warnings.simplefilter("ignore")  # (PyTorch's, about itself)
                _write(network, temporary, kind)
        except Exception as error:  # PyTorch raises a dozen of its own
            raise ValueError(f"this network cannot be written as {kind} ({reason_of(error)})") from error
        run = _reader(temporary, kind)
        if run is None:
            return tr("{file} is written; it was not compared, for onnxruntime is not installed", file=out)
        picture = _photograph()
        made = np.round(255 * run(to_unit(to_batch(picture)))[0].transpose(1, 2, 0))
        apart = int(np.abs(made - super_resolve(generator, picture, precision="fp32").astype(int)).max())
        if apart > 1:
            raise ValueError(f"what {kind} makes of a photograph is up to {apart} grey values from the generator's; it "
                             f"was not kept")
    return tr("{file} is written; what it makes of a photograph differs from what the generator makes by {count} of "
              "255 grey values at most", file=out, count=apart)


def _write(network, path, kind):
    example = torch.rand(2, 3, 20, 24)
    free = getattr(torch.export.Dim, "AUTO", None)  # (of PyTorch 2.6; a name does not go with bicubic interpolation)
    shapes = ({i: free or torch.export.Dim(name) for i, name in [(0, "batch"), (2, "height"), (3, "width")]},)
    program = torch.export.export(network, (example,), dynamic_shapes=shapes)
    if kind == "pt2":
        with open(path, "wb") as file:  # (by a name it wants its ending)
            torch.export.save(program, file)
    else:
        torch.onnx.export(program, input_names=["lr"], output_names=["sr"], dynamic_shapes=shapes, dynamo=True,
                          verbose=False).save(str(path), external_data=False)


def _reader(path, kind):
    """A function of a batch that does what the file says; None without a program that reads it."""
    if kind == "pt2":
        with open(path, "rb") as file:
            network = torch.export.load(file).module()
        return lambda lr: network(lr).detach().numpy()
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda lr: session.run(None, {"lr": lr.numpy()})[0]


def _photograph():
    """A detail of a photograph, of sides that nobody rounded."""
    import skimage.data

    return np.ascontiguousarray(skimage.data.astronaut()[10:107, 170:243])
