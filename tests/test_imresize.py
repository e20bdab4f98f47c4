"""imresize: MATLAB's pixels, both array kinds, every dtype."""

import numpy as np
import pytest
import torch
from PIL import Image

from imresize import _resize_at_once, imresize


def test_equals_matlab_on_every_sample_of_the_public_benchmarks(benchmarks):
    samples = different = 0
    for name in ("Set5", "Set14", "BSD100"):
        for file in sorted((benchmarks / name / "image_SRF_4").glob("*_HR.png")):
            hr = np.array(Image.open(file))
            lr = np.array(Image.open(str(file).replace("_HR", "_LR")))
            made = imresize(hr, 0.25, padding="replicate")
            assert made.shape == lr.shape
            samples += lr.size
            different += int((made != lr).sum())
    assert (samples, different) == (3_556_945, 0)


def test_a_worked_example():
    # One row 0 … 7 halved: output 0 lies at input 0.5, and its eight taps are Keys' cubic, stretched twice.
    def keys(x):
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    mirrored = [3, 2, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7]  # positions -4 … 7
    weights = [keys((position - 0.5) / 2) / 2 for position in range(-4, 8)]
    wanted = sum(w * v for w, v in zip(weights, mirrored)) / sum(weights)
    row = np.arange(8, dtype=np.float64)[None]
    assert imresize(row, output_shape=(1, 4))[0, 0] == pytest.approx(wanted, abs=1e-12)


def test_integers_are_rounded_half_up_and_clipped_after_each_dimension():
    checkers = np.kron(np.indices((6, 6)).sum(0) % 2, np.ones((3, 3))).astype(np.uint8) * 255
    rows_first = imresize(imresize(checkers, output_shape=(9, 18)), output_shape=(9, 14))
    # rows have the smaller scale (0.5 < 0.78), so they go first
    assert np.array_equal(imresize(checkers, output_shape=(9, 14)), rows_first)
    one_half = np.array([[0, 1, 0, 1]], np.uint8).repeat(4, axis=0)
    assert (imresize(one_half, 0.25) == 1).all()  # the mean 0.5 becomes 1, not 0 (half to even)


def test_shapes_follow_matlab():
    image = np.zeros((301, 451, 3), np.uint8)
    assert imresize(image, 0.25).shape == (76, 113, 3)  # ceil
    assert imresize(image[..., 0], 4.0).shape == (1204, 1804)
    assert imresize(image, output_shape=(10, 20)).shape == (10, 20, 3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_numpy_keeps_the_dtype_and_a_constant_stays_constant(dtype):
    image = np.full((20, 24, 3), 7, dtype)
    for scale in (0.25, 1 / 3, 0.7, 1, 2.5, 4):
        made = imresize(image, scale)
        assert made.dtype == dtype and made.flags.c_contiguous
        np.testing.assert_allclose(made.astype(float), 7, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.25, 1 / 3, 0.6, 2, 3, 4])
@pytest.mark.parametrize("padding", ["symmetric", "replicate"])
def test_torch_gives_the_same_pixels_as_numpy(photograph, scale, padding):
    image = photograph[:61, :50]
    made = imresize(torch.from_numpy(image).permute(2, 0, 1)[None], scale, padding=padding)
    assert np.array_equal(made[0].permute(1, 2, 0), imresize(image, scale, padding=padding))
    one = imresize(torch.from_numpy(image[..., 0].copy()).double(), scale, padding=padding)
    np.testing.assert_allclose(one, imresize(image[..., 0].astype(np.float64), scale, padding=padding), atol=1e-9)


def test_padding_changes_the_border_only(photograph):
    mirrored, repeated = (imresize(photograph, 0.25, padding=p) for p in ("symmetric", "replicate"))
    assert (mirrored != repeated).any()
    assert np.array_equal(mirrored[2:-2, 2:-2], repeated[2:-2, 2:-2])


def test_gradients_flow_and_are_right():
    image = torch.rand(1, 2, 7, 9, dtype=torch.float64, requires_grad=True)
    for scale in (0.4, 2):
        assert torch.autograd.gradcheck(lambda x, s=scale: imresize(x, s), image)


def test_what_a_gradient_is_wanted_of_gets_the_same_pixels_also_in_training_and_without_a_device():
    image = torch.rand(2, 3, 40, 24)
    for scale in (0.25, 2):
        wanted = imresize(image, scale)
        with torch.autocast("cpu", torch.bfloat16), torch.device("meta"):  # where new tensors would be
            found = imresize(image.clone().requires_grad_(), scale)
        torch.testing.assert_close(found.detach(), wanted)
        assert imresize(image.to("meta").requires_grad_(), scale).shape == wanted.shape


@pytest.mark.parametrize("scale, shape, padding", [(0.25, None, "symmetric"), (4, None, "replicate"),
                                                   (None, (24, 50), "symmetric")])
def test_as_two_products_it_is_the_same(scale, shape, padding):
    batch = torch.rand(2, 3, 41, 32, dtype=torch.float64)
    wanted = imresize(batch, scale, shape, padding=padding)
    steps = [(wanted.shape[axis] / batch.shape[axis] if shape else scale, axis, wanted.shape[axis]) for axis in (2, 3)]
    assert torch.allclose(_resize_at_once(batch, steps, padding), wanted, atol=1e-12)


def test_float_images_are_not_clipped():
    step = np.zeros((4, 40))
    step[:, 20:] = 1
    made = imresize(step, 4)
    assert made.min() < 0 and made.max() > 1


@pytest.mark.parametrize("call, message", [
    (lambda: imresize(np.zeros((4, 4), np.int32), 2), "int32"),
    (lambda: imresize(np.zeros((4, 4), bool), 2), "bool"),
    (lambda: imresize(torch.zeros(4, 4, dtype=torch.int64), 2), "int64"),
    (lambda: imresize([[1, 2]], 2), "list"),
    (lambda: imresize(np.zeros(4, np.uint8), 2), "H×W"),
    (lambda: imresize(np.zeros((0, 4), np.uint8), 2), "non-empty"),
    (lambda: imresize(np.zeros((4, 4), np.uint8)), "either scale or output_shape"),
    (lambda: imresize(np.zeros((4, 4), np.uint8), 2, (8, 8)), "either scale or output_shape"),
    (lambda: imresize(np.zeros((4, 4), np.uint8), -1), "scale must be a positive number"),
    (lambda: imresize(np.zeros((4, 4), np.uint8), float("nan")), "scale must be a positive number"),
    (lambda: imresize(np.zeros((4, 4), np.uint8), "2"), "scale must be a positive number"),
    (lambda: imresize(np.zeros((4, 4), np.uint8), output_shape=(0, 3)), "two positive whole numbers"),
    (lambda: imresize(np.zeros((4, 4), np.uint8), output_shape=(2.5, 3)), "two positive whole numbers"),
    (lambda: imresize(np.zeros((4, 4), np.uint8), 2, padding="reflect"), "symmetric"),
])
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
