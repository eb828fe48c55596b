"""Augmentation: what it does to images, and that it follows from seed, epoch and image alone."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from networks import seen_by
from numpy.testing import assert_allclose, assert_array_equal
from trouble import bits, cnn, images

import nnet
from nnet import (
    Activation,
    Brightness,
    Checkpoint,
    Compose,
    Conv,
    Crop,
    CutOut,
    Flatten,
    Flip,
    Linear,
    LogRegression,
    NeuralNetwork,
    Rotate,
    Shift,
    Zoom,
    reference,
)

X, Y = images()
FIT = {"max_iter": 2, "batch_size": 32}
EACH = [
    Shift(2),
    Shift((0, 3), fill=0),
    Crop(2, fill=-1.5),
    Flip(),
    Flip("both", p=0.3),
    Rotate(15),
    Rotate((10, 30), fill=2.0),
    Zoom(0.2),
    Zoom((0.5, 2.0), fill=0.0),
    CutOut(3),
    CutOut((2, 5), fill=1),
    Brightness(0.3),
    Brightness(delta=0.5),
    Compose([Shift(2), Rotate(10), CutOut(2), Flip(), Brightness(0.1)]),
    Compose([Shift(1, fill=1), Flip(), Zoom(0.1, fill=2), [Rotate(5, fill=2), np.tanh]]),
]


# --- what each does ----------------------------------------------------------------------


def padded_window(image, down, right, pads, **options):
    """The window of a padded image in which what it shows is further down and right."""
    height, width = image.shape[1:]
    wide = np.pad(image, ((0, 0), (pads, pads), (pads, pads)), **options)
    return wide[:, pads - down : pads - down + height, pads - right : pads - right + width]


@pytest.mark.parametrize("augmentation", [Shift(2), Crop(2)])
@pytest.mark.parametrize("fill", ["nearest", 7.0])
def test_shifts_are_by_whole_pixels_each_as_likely(augmentation, fill, dtype, rng):
    values = rng.normal(size=(1, 2, 6, 5)).astype(dtype)
    augmentation = type(augmentation)(2, fill=fill)
    options = {"mode": "edge"} if fill == "nearest" else {"constant_values": fill}
    counts = {
        padded_window(values[0], down, right, 2, **options).tobytes(): 0
        for down in range(-2, 3)
        for right in range(-2, 3)
    }
    for image in augmentation(np.repeat(values, 2500, 0), rng=0):
        counts[image.tobytes()] += 1
    assert len(counts) == 25
    assert min(counts.values()) > 60 and max(counts.values()) < 140


def test_shifts_of_two_axes(rng):
    values = rng.normal(size=(1, 1, 5, 5))
    found = Shift((0, 1), fill=0.0)(np.repeat(values, 50, 0), rng=0)
    assert len({image.tobytes() for image in found}) == 3
    assert {image[0, :, 0].tobytes() for image in found} == {
        np.zeros(5).tobytes(),
        values[0, 0, :, 0].tobytes(),
        values[0, 0, :, 1].tobytes(),
    }


@pytest.mark.parametrize(
    "direction, axes", [("horizontal", [[], [2]]), ("vertical", [[], [1]]), ("both", None)]
)
@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
def test_flips_are_exact_and_as_likely_as_said(direction, axes, p, dtype, rng):
    values = rng.normal(size=(1, 3, 4, 7)).astype(dtype)
    axes = axes or [[], [2], [1], [1, 2]]
    kinds = [np.flip(values[0], each).tobytes() for each in axes]
    found = [image.tobytes() for image in Flip(direction, p)(np.repeat(values, 2000, 0), rng=1)]
    assert set(found) <= set(kinds)
    mirrored = np.array([kinds.index(kind) for kind in found])
    assert abs(np.mean(mirrored % 2 == 1) - p) < 0.03
    if direction == "both":
        assert abs(np.mean(mirrored // 2 == 1) - p) < 0.03


@pytest.mark.parametrize("turns", [1, 2, -1])
def test_rotations_are_counter_clockwise(turns, dtype, rng):
    values = rng.normal(size=(3, 2, 7, 7)).astype(dtype)
    found = Rotate((90 * turns, 90 * turns))(values)
    assert_allclose(found, np.rot90(values, turns, (2, 3)), atol=1e-5)


def test_rotations_are_torchvisions_angles(rng):
    """By the formula of a rotation in a plane whose second axis points up."""
    values = rng.normal(size=(1, 1, 9, 9))
    found = Rotate((30, 30), fill=0.0)(values)
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    maps = [cos, sin, 4 - 4 * cos - 4 * sin, -sin, cos, 4 + 4 * sin - 4 * cos]
    assert_allclose(found, reference.warp(values, [maps], 0.0), atol=1e-12)


def test_angles_and_scales_reach_from_end_to_end():
    gradient = np.tile(np.arange(9.0) - 4, (2000, 1, 9, 1))  # tells how far the map goes
    turned = Rotate(20)(gradient, rng=0)[:, 0, 4, 5]
    angles = np.degrees(np.arccos(np.clip(turned, -1, 1)))
    assert angles.max() <= 20 and angles.max() > 19 and angles.min() < 1
    slopes = Zoom((0.5, 2.0))(gradient, rng=0)[:, 0, 4, 5]
    assert_allclose([slopes.min(), slopes.max()], [0.5, 2.0], rtol=0.01)
    slopes = Zoom(0.2)(gradient, rng=0)[:, 0, 4, 5]
    assert_allclose([1 / slopes.max(), 1 / slopes.min()], [0.8, 1.2], rtol=0.01)


def test_an_enlarged_image_shows_its_middle():
    image = np.zeros((1, 1, 8, 8))
    image[0, 0, 3:5, 3:5] = 1
    assert Zoom((2, 2))(image).sum() > 3 * image.sum()
    assert Zoom((0.5, 0.5))(image).sum() < image.sum()


def test_maps_are_composed_in_turn(rng):
    """A flip after a shift is a shift the other way after a flip; nothing is lost on the way."""
    values = rng.normal(size=(40, 1, 6, 6))
    found = Compose([Shift((0, 2), fill=0.0), Flip(p=1.0)])(values, rng=3)
    assert_array_equal(found, Shift((0, 2), fill=0.0)(values, rng=3)[..., ::-1])
    there_and_back = Compose([Rotate((90, 90), fill=0.0), Rotate((-90, -90), fill=0.0)])
    tall = rng.normal(size=(1, 1, 9, 3))
    assert_allclose(there_and_back(tall), tall, atol=1e-12)
    apart = Rotate((-90, -90), fill=0.0)(Rotate((90, 90), fill=0.0)(tall))
    assert np.abs(apart - tall).max() > 0.1
    differing = Compose([Rotate((90, 90), fill=0.0), Rotate((-90, -90), fill=1.0)])
    expected = Rotate((-90, -90), fill=1.0)(Rotate((90, 90), fill=0.0)(tall))
    assert_array_equal(differing(tall), expected)


def test_cutout_hides_a_rectangle(dtype):
    found = CutOut((3, 2), fill=-1)(np.ones((3000, 2, 5, 6), dtype), rng=0)
    assert_array_equal(found[:, 0], found[:, 1])
    hidden = found[:, 0] == -1
    corners = set()
    for plane in hidden:
        rows, columns = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
        assert plane.sum() == len(rows) * len(columns)
        assert len(rows) in (2, 3) and len(columns) in (1, 2)
        corners.add((rows[0], rows[-1], columns[0], columns[-1]))
    assert len(corners) == 5 * 6  # one for each centre


def test_brightness(dtype):
    image = np.linspace(-1, 1, 12, dtype=dtype).reshape(1, 3, 2, 2)
    found = Brightness(0.25, delta=0.5)(np.repeat(image, 1000, 0), rng=0)
    found = found.reshape(1000, 12)
    factors, deltas = (found[:, -1] - found[:, 0]) / 2, (found[:, -1] + found[:, 0]) / 2
    assert_allclose(found, factors[:, None] * image.reshape(1, 12) + deltas[:, None], atol=1e-6)
    assert_allclose([factors.min(), factors.max()], [0.75, 1.25], atol=0.01)
    assert_allclose([deltas.min(), deltas.max()], [-0.5, 0.5], atol=0.01)
    assert abs(np.corrcoef(factors, deltas)[0, 1]) < 0.1


@pytest.mark.parametrize("augmentation", EACH, ids=repr)
def test_images_to_look_at(augmentation, dtype, rng):
    values = rng.normal(size=(6, 2, 8, 9)).astype(dtype)
    before = values.copy()
    found = augmentation(values, rng=5)
    assert found.dtype == dtype and found.shape == values.shape
    assert_array_equal(values, before)
    assert not np.shares_memory(found, values)
    assert_array_equal(augmentation(values, rng=5), found)
    assert not np.array_equal(augmentation(values, rng=6), found)
    assert_array_equal(augmentation(values[:3], rng=5), found[:3])
    assert augmentation(np.zeros((2, 1, 8, 9), np.uint8)).dtype == np.float32
    assert augmentation(values[:0]).shape == (0, 2, 8, 9)
    for generator in (np.random.default_rng(1), np.random.RandomState(1)):
        assert augmentation(values, rng=generator).shape == values.shape
    assert repr(copy.deepcopy(augmentation)) == repr(augmentation)


def test_a_repr_makes_the_same():
    for augmentation in EACH[:-1]:
        again = eval(repr(augmentation), vars(nnet).copy() | vars(nnet._api))
        assert repr(again) == repr(augmentation)
        assert_array_equal(again(X, rng=0), augmentation(X, rng=0))
        assert_array_equal(pickle.loads(pickle.dumps(again))(X, rng=0), augmentation(X, rng=0))


def test_nothing_to_do_gives_a_copy():
    found = Compose([])(X)
    assert_array_equal(found, X)
    assert not np.shares_memory(found, X)


def noisy_copy(images, rng):
    return images + 0.1 * rng.standard_normal(images.shape)


# --- in fit --------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", EACH, ids=repr)
def test_an_image_is_changed_in_the_same_way_in_any_batch_and_order(augmentation):
    n = len(X)
    first, second = np.split(
        np.concatenate(seen_by(cnn(), X, Y, max_iter=2, shuffle=False, augment=augmentation)), [n]
    )
    assert not np.array_equal(first, second)
    for batch_size, threads in ((1, 1), (7, 2), (n, 3)):
        with nnet.num_threads(threads):
            seen = seen_by(
                cnn(), X, Y, batch_size=batch_size, max_iter=2, shuffle=False, augment=augmentation
            )
        assert_array_equal(np.concatenate(seen), np.concatenate([first, second]))
    shuffled = np.concatenate(seen_by(cnn(), X, Y, max_iter=1, augment=augmentation))
    assert {image.tobytes() for image in shuffled} == {image.tobytes() for image in first}
    assert not np.array_equal(shuffled, first)


def test_the_seed_decides():
    def train(rng, **options):
        return bits(cnn(rng=rng).fit(X, Y, **FIT, **options))

    augment = [Shift(1), Rotate(10)]
    assert train(0, augment=augment) == train(0, augment=Compose(augment)) != train(0)
    assert train(0, augment=augment) != train(0, augment=augment[::-1])
    for make in (np.random.default_rng, np.random.RandomState):
        assert train(make(3), augment=augment) == train(make(3), augment=tuple(augment))
    other = seen_by(cnn(rng=1), X, Y, augment=augment, shuffle=False, max_iter=1)
    assert not np.array_equal(seen_by(cnn(), X, Y, augment=augment, shuffle=False)[0], other[0])


def test_one_more_does_not_change_the_others():
    def seen(augment):
        return np.concatenate(seen_by(cnn(), X, Y, max_iter=1, shuffle=False, augment=augment))

    assert_array_equal(seen([Brightness(), Shift(2), Flip(p=0)]), seen(Shift(2)))
    assert_array_equal(seen([Shift(0), Shift((0, 0))]), X)


def test_no_augmentation_is_none():
    for nothing in (None, [], Compose([]), [[], Compose([])]):
        assert bits(cnn().fit(X, Y, **FIT, augment=nothing)) == bits(cnn().fit(X, Y, **FIT))


def test_a_training_that_goes_on_draws_anew():
    network = cnn()
    seen = seen_by(network, X, Y, max_iter=2, shuffle=False, augment=Shift(2))
    again = []
    network.layers[0].fprop = lambda input, *a: (
        again.append(input.copy()) or type(network.layers[0]).fprop(network.layers[0], input, *a)
    )
    network.fit(X, Y, max_iter=1, shuffle=False, augment=Shift(2), warm_start=True)
    third = np.concatenate(again)
    assert third.shape == X.shape
    whole = np.concatenate(seen_by(cnn(), X, Y, max_iter=3, shuffle=False, augment=Shift(2)))
    assert_array_equal(whole, np.concatenate([*seen, third]))


@pytest.mark.parametrize("augment", [[Shift(2), Rotate(10)], noisy_copy], ids=["own", "function"])
def test_a_training_that_was_stopped_ends_with_the_same_bits(augment, tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "checkpoint"
    options = {"batch_size": 32, "momentum": 0.9, "augment": augment}
    expected = bits(cnn().fit(X, Y, max_iter=4, **options))
    cnn().fit(X, Y, max_iter=2, callbacks=[Checkpoint(path)], **options)
    assert bits(cnn().fit(X, Y, max_iter=4, resume=path, **options)) == expected
    with pytest.raises(ValueError, match="augment"):
        cnn().fit(X, Y, max_iter=4, resume=path, **options | {"augment": Shift(1)})


def peak_of_fit(*data, augment):
    network = NeuralNetwork([Flatten(), Linear(2), LogRegression()], rng=0)
    tracemalloc.start()
    try:
        network.fit(*data, batch_size=256, max_iter=2, augment=augment)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "augment",
    [[Shift(1), Rotate(5)], [Flip(), Zoom(0.1), Rotate(5)], [Brightness(0.1)], [CutOut(2)]],
    ids=repr,
)
def test_the_draws_are_all_that_is_kept_of_an_epoch(augment):
    n_imgs = 20_000
    data = np.ones((n_imgs, 1, 4, 4), np.uint8), np.arange(n_imgs) % 2
    more = peak_of_fit(*data, augment=augment) - peak_of_fit(*data, augment=None)
    assert more < 30 * n_imgs * len(augment)


def test_batches_are_changed_by_their_place():
    whole = np.concatenate(seen_by(cnn(), X, Y, max_iter=2, shuffle=False, augment=EACH[-2]))
    batches = [(X[:10], Y[:10]), (X[10:], Y[10:])]
    before = [x.copy() for x, _ in batches]
    assert_array_equal(np.concatenate(seen_by(cnn(), batches, max_iter=2, augment=EACH[-2])), whole)
    assert all(map(np.array_equal, before, (x for x, _ in batches)))


def test_held_back_images_stay_as_they_are():
    """And those that are left are changed as they are without."""
    network = cnn()
    seen = seen_by(
        network, X, Y, max_iter=1, shuffle=False, augment=Shift(2), validation_fraction=0.25
    )
    whole = seen_by(cnn(), X, Y, max_iter=1, shuffle=False, augment=Shift(2))
    rows = {image.tobytes(): i for i, image in enumerate(np.concatenate(whole))}
    trained = [rows[image.tobytes()] for image in np.concatenate(seen)]
    assert len(trained) == 72 and trained == sorted(trained)
    held = np.setdiff1d(np.arange(len(X)), trained)
    assert network.val_error_history_[-1] == network.error(X[held], Y[held])
    network = cnn().fit(X, Y, max_iter=1, augment=Shift(2), validation_data=(X, Y))
    assert network.val_error_history_[-1] == network.error(X, Y)


# --- what is refused, and what else has images ------------------------------------------------


@pytest.mark.parametrize(
    "augment, error, message",
    [
        (3, TypeError, r"augment has 3, expected an augmentation such as Shift\(2\)"),
        ("shift", TypeError, "augment has 'shift'"),
        ([Shift(1), None], TypeError, "augment has None"),
        (Flip, TypeError, "augment has the class Flip"),
        ([[Rotate]], TypeError, "augment has the class Rotate"),
        (Shift(8), ValueError, r"Shift\(pixels=8.* moves all 8 pixels out, expected less than 8"),
        (Crop((9, 0)), ValueError, "moves all 8 pixels out"),
    ],
)
def test_fit_refuses(augment, error, message):
    network = cnn()
    with pytest.raises(error, match=message):
        network.fit(X, Y, augment=augment)
    assert network.input_shape_ is None


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Shift(-1), ValueError, "pixels is -1, expected at least 0"),
        (lambda: Shift(1.5), TypeError, "pixels is 1.5, expected an integer"),
        (lambda: Shift((1, 2, 3)), ValueError, "pixels"),
        (lambda: Shift(1, fill="zeros"), TypeError, "fill is 'zeros', .*number or 'nearest'"),
        (lambda: Shift(1, fill=np.nan), ValueError, "fill is nan, expected a finite number"),
        (lambda: Crop(-1), ValueError, "padding is -1"),
        (lambda: Flip("up"), ValueError, "direction is 'up', expected one of"),
        (lambda: Flip(p=1.5), ValueError, "p is 1.5, expected at most 1"),
        (lambda: Rotate(-5), ValueError, "degrees is -5, expected a finite number of at least 0"),
        (lambda: Rotate((5, -5)), ValueError, r"degrees is \(5, -5\), expected .* \(low, high\)"),
        (lambda: Rotate("x"), TypeError, "degrees is 'x'"),
        (lambda: Zoom(1.0), ValueError, "scale is 1.0, expected scales greater than 0"),
        (lambda: Zoom((1, np.inf)), ValueError, "scale is inf, expected a finite number"),
        (lambda: CutOut(0), ValueError, "size is 0, expected at least 1"),
        (lambda: CutOut(2, fill=None), TypeError, "fill is None"),
        (lambda: Brightness(2), ValueError, "factor is 2, expected at most 1"),
        (lambda: Brightness(delta=-1), ValueError, "delta is -1"),
        (lambda: Compose(Shift(1)), TypeError, "expected a list"),
        (lambda: Compose([3]), TypeError, "augment has 3"),
    ],
)
def test_options_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def signals():
    S = np.random.default_rng(2).normal(size=(60, 2, 16)).astype(np.float32)
    layers = [Conv(3, 3), Activation("relu"), Flatten(), Linear(3), LogRegression()]
    return S, np.arange(60) % 3, NeuralNetwork(layers, rng=0)


def test_signals_move_along_their_length():
    S, y, network = signals()
    found = Shift(3, fill=0.0)(S, rng=0)
    assert found.shape == S.shape
    for signal, moved in zip(S, found):
        wide = np.pad(signal, ((0, 0), (3, 3)))
        assert any(np.array_equal(moved, wide[:, i : i + 16]) for i in range(7))
    assert_array_equal(Flip(p=1)(S), S[..., ::-1])
    assert (CutOut(4, fill=9)(S, rng=0) == 9).any(1).sum() > 2 * 60
    assert_allclose(Zoom((2, 2))(S)[:, :, 7:9].mean(2), S[:, :, 7:9].mean(2), atol=1e-6)
    given = seen_by(network, S, y, max_iter=1, augment=[Shift(3), Zoom(0.1), Brightness(0.1)])
    assert given[0].shape == (60, 2, 1, 16)


@pytest.mark.parametrize("augmentation", [Rotate(5), Flip("vertical"), Flip("both"), Shift((1, 0))])
def test_signals_have_no_height(augmentation):
    S, y, network = signals()
    with pytest.raises(ValueError, match=r"X has shape \(n_imgs, 2, 16\), expected images with a"):
        network.fit(S, y, augment=augmentation)


@pytest.mark.parametrize("augmentation", [Shift(1), Flip(), Rotate(1), Zoom(0.1), CutOut(2)])
def test_rows_are_no_images(augmentation):
    rows = X.reshape(len(X), -1)
    network = NeuralNetwork([Linear(3), LogRegression()], rng=0)
    with pytest.raises(ValueError, match=r"X has shape \(n_imgs, 64\), expected images for"):
        network.fit(rows, Y, augment=[noisy_copy, augmentation])
    network.fit(rows, Y, augment=[noisy_copy, Brightness(0.1)], max_iter=1)


def test_images_held_back_are_not_changed_and_the_others_keep_their_numbers():
    X, y = np.arange(40, dtype=np.float32).reshape(40, 1, 1, 1) + np.zeros((1, 1, 8, 8)), None
    y = np.arange(40) % 2
    seen = []

    def watch(images):
        seen.append(images[:, 0, 0, 0].astype(int).tolist())
        return images

    network = NeuralNetwork([Flatten(), Linear(2), LogRegression()], rng=0)
    network.fit(X, y, 0.0, 1, 7, augment=[Shift(1), watch], validation_fraction=0.25)
    assert len(sum(seen, [])) == 30
