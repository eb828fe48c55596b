"""Every implementation of pooling against the specification, on every case that it accepts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from test_pool import CASES, KINDS, draw, expected, places_of

from nnet.dispatch import module
from nnet.geometry import pool_geometry

FORWARD = ("strips", "windows", "doubling")
BACKWARD = ("gather", "scatter", "whole", "doubling")
LARGE = {  # many blocks of rows, strips and tasks; more offsets than one conversion takes
    "3x3 stride 1": ((3, 2, 90, 130), (3, 3, 1, 1), "same"),
    "2x2 of many columns": ((2, 1, 30, 2200), (2, 2, 2, 2), "valid"),
    "15x9 stride 1": ((1, 2, 120, 200), (15, 9, 1, 1), "same"),
    "9x15 stride 2x3": ((2, 1, 61, 200), (9, 15, 2, 3), "full"),
    "64x3": ((1, 1, 200, 70), (64, 3, 1, 1), "centered"),
    "3x3 stride 2 of many planes": ((40, 9, 13, 15), (3, 3, 2, 2), 1),
}


def explain(kernels, shape, sizes, dtype, **options):
    return module("_pool", kernels.target).explain_pool(shape, sizes, dtype, **options)


def accepting(kernels, shape, sizes, dtype, form=None, backward=False, **options):
    """The names of the implementations that accept a pooling."""
    options["direction"] = "imgs_grad" if backward else "forward"
    found = explain(kernels, shape, sizes, dtype, need_switches=form is not None, **options)
    return [name for name, cycles, _ in found if cycles is not None]


def switches_of(kind, shape, sizes, options, found):
    """The specification's switches in one of their forms."""
    if kind is None:
        return None
    if kind == "pairs":
        return found
    return places_of(found, shape, sizes, options["padding_mode"]).astype(np.uint8)


def forms(sizes, mode):
    """How switches may be given."""
    if mode == "avg":
        return (None,)
    return ("pairs", "offsets") if sizes[0] * sizes[1] <= 256 else ("pairs",)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_forward(kernels, dtype, name, kind, n_threads):
    mode = "avg" if kind == "whole" else "max"
    imgs, grad, sizes, options, (poolout, switches, _) = expected(name, kind, mode, False, dtype)
    for form in (*forms(sizes, mode), None):
        for algorithm in accepting(kernels, imgs.shape, sizes, dtype, form=form, **options):
            given = np.full(grad.shape, 255, np.uint8) if form == "offsets" else None
            out, where = kernels.pool_bc01(
                imgs, None, given, *sizes, need_switches=form is not None, algorithm=algorithm,
                n_threads=n_threads, **options,
            )  # fmt: skip
            assert_array_equal(out, poolout, err_msg=algorithm)
            if form is not None:
                wanted = switches_of(form, imgs.shape, sizes, options, switches)
                assert_array_equal(where, wanted, err_msg=algorithm)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("mode, include_pad", [("max", False), ("avg", False), ("avg", True)])
@pytest.mark.parametrize("name", CASES)
def test_backward(kernels, dtype, name, mode, include_pad, n_threads):
    imgs, grad, sizes, options, found = expected(name, "real", mode, include_pad, dtype)
    tolerance = 0 if mode == "max" else 8 * np.finfo(dtype).eps
    for form in forms(sizes, mode):
        switches = switches_of(form, imgs.shape, sizes, options, found[1])
        names = accepting(kernels, imgs.shape, sizes, dtype, form=form, backward=True, **options)
        for algorithm in names:
            imgs_grad = np.full(imgs.shape, np.nan, dtype)
            kernels.bprop_pool_bc01(
                grad, switches, imgs_grad, *sizes, algorithm=algorithm, n_threads=n_threads,
                **options,
            )  # fmt: skip
            assert_allclose(
                imgs_grad, found[2], rtol=tolerance, atol=8 * tolerance, err_msg=algorithm
            )


@pytest.mark.parametrize("kind", ["ties", "nan"])
@pytest.mark.parametrize("name", LARGE)
def test_large_images_by_each_other(kernels, dtype, name, kind):
    """All implementations agree, forward and backward, with whatever 'windows' and 'scatter' do."""
    shape, sizes, padding_mode = LARGE[name]
    rng = np.random.default_rng(5)
    imgs = draw(shape, kind, rng).astype(dtype)
    sums = draw(shape, "whole", rng).astype(dtype)
    where = pool_geometry(*shape[2:], *sizes, padding_mode)
    grad = rng.integers(-3, 4, (*shape[:2], where.out_h, where.out_w)).astype(dtype)
    for mode, values in (("max", imgs), ("avg", sums)):
        options = {"mode": mode, "padding_mode": padding_mode}
        one = kernels.pool_bc01(values, None, None, *sizes, algorithm="windows", **options)
        back = kernels.bprop_pool_bc01(
            grad, one[1], np.empty_like(imgs), *sizes, algorithm="scatter", **options
        )
        for form in (*forms(sizes, mode), None):
            for algorithm in accepting(kernels, shape, sizes, dtype, form=form, **options):
                given = np.empty(grad.shape, np.uint8) if form == "offsets" else None
                out, switches = kernels.pool_bc01(
                    values, None, given, *sizes, need_switches=form is not None,
                    algorithm=algorithm, **options,
                )  # fmt: skip
                assert_array_equal(out, one[0], err_msg=algorithm)
                if mode == "max" and form is None:
                    continue
                if form == "pairs":
                    assert_array_equal(switches, one[1], err_msg=algorithm)
                for way in accepting(
                    kernels, shape, sizes, dtype, form=form, backward=True, **options
                ):
                    imgs_grad = kernels.bprop_pool_bc01(
                        grad, switches, np.empty_like(imgs), *sizes, algorithm=way, **options
                    )
                    assert_allclose(imgs_grad, back, rtol=1e-5, atol=1e-5, err_msg=way)


@pytest.mark.parametrize("size", [(7, 7), (13, 22)])
def test_an_image_has_its_bits_alone_and_in_any_batch(kernels, dtype, rng, size):
    """Wherever it lies in memory."""
    imgs = rng.standard_normal((19, 3, *size)).astype(dtype)
    for sizes in ((2, 2, 2, 2), (3, 3, 1, 1), (3, 3, 2, 2), (5, 4, 2, 3), size * 2):
        where = pool_geometry(*size, *sizes)
        grad = rng.standard_normal((19, 3, where.out_h, where.out_w)).astype(dtype)
        options = {"mode": "avg"}
        for algorithm in accepting(kernels, imgs.shape, sizes, dtype, **options):
            out, _ = kernels.pool_bc01(imgs, None, None, *sizes, algorithm=algorithm, **options)
            for i in (0, 7, 18):
                alone = imgs[i : i + 1].copy()
                one, _ = kernels.pool_bc01(
                    alone, None, None, *sizes, algorithm=algorithm, **options
                )
                assert one.tobytes() == out[i].tobytes(), algorithm
        for algorithm in accepting(kernels, imgs.shape, sizes, dtype, backward=True, **options):
            options["algorithm"] = algorithm
            back = kernels.bprop_pool_bc01(grad, None, np.empty_like(imgs), *sizes, **options)
            for i in (0, 7, 18):
                one = kernels.bprop_pool_bc01(
                    grad[i : i + 1].copy(), None, np.empty_like(imgs[:1]), *sizes, **options
                )
                assert one.tobytes() == back[i].tobytes(), algorithm
            del options["algorithm"]


# --- the choice --------------------------------------------------------------------


def test_every_implementation_is_explained_and_taken_somewhere(kernels, dtype):
    taken = set()
    poolings = [*CASES.values(), ((1, 1, 512, 512), (31, 31, 1, 1), "same")]
    for shape, sizes, padding_mode in poolings:
        for mode, need in (("max", True), ("max", False), ("avg", True)):
            for direction, names in (("forward", FORWARD), ("imgs_grad", BACKWARD)):
                found = explain(
                    kernels, shape, sizes, dtype, direction=direction, mode=mode,
                    padding_mode=padding_mode, need_switches=need,
                )  # fmt: skip
                assert sorted(name for name, _, _ in found) == sorted(names)
                ((name, cycles),) = [each[:2] for each in found if each[2]]
                assert cycles == min(each[1] for each in found if each[1] is not None) > 0
                taken.add((direction, name))
    assert taken == {("forward", name) for name in FORWARD} | {
        ("imgs_grad", name) for name in BACKWARD
    }


def test_cycles_are_of_an_image(kernels, dtype):
    one, four = (
        explain(kernels, (n, 3 * n, 16, 16), (3, 3, 1, 1), dtype, mode="avg") for n in (1, 4)
    )
    assert [(name, 4 * (cycles or 0)) for name, cycles, _ in one] == [
        (name, cycles or 0) for name, cycles, _ in four
    ]


def test_algorithms_that_do_not_accept_a_pooling(kernels, dtype):
    imgs = np.ones((1, 1, 20, 20), dtype)
    with pytest.raises(ValueError, match=r"algorithm is 'doubling', expected one of \(None, .*\)"):
        kernels.pool_bc01(imgs, None, None, 2, 2, 2, 2, algorithm="doubling")
    with pytest.raises(ValueError, match=r"algorithm is 'strips', expected one of .*'windows'\)"):
        kernels.pool_bc01(imgs, None, None, 17, 17, 1, 1, algorithm="strips")
    _, switches = kernels.pool_bc01(imgs, None, None, 4, 4, 4, 4)
    grad = np.ones((1, 1, 5, 5), dtype)
    for sizes in ((4, 4, 4, 4), (None,) * 4):
        for algorithm in ("gather", "whole", "doubling", "strips"):
            with pytest.raises(ValueError, match=rf"algorithm is '{algorithm}', expected one of"):
                kernels.bprop_pool_bc01(grad, switches, imgs, *sizes, algorithm=algorithm)
    for wrong in (1, b"strips", True):
        with pytest.raises(TypeError, match="algorithm is .*, expected None or a str"):
            kernels.pool_bc01(imgs, None, None, 2, 2, 2, 2, algorithm=wrong)
