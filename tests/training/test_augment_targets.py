"""Augmentation of targets that have pixels: they move with the images."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from trouble import bits, cnn, everything

import nnet
from nnet import (
    Activation,
    BinaryCrossEntropy,
    Brightness,
    Checkpoint,
    Compose,
    Conv,
    Crop,
    CutOut,
    Flatten,
    Flip,
    GlobalAveragePool,
    Huber,
    Linear,
    LogRegression,
    MeanSquaredError,
    NeuralNetwork,
    Pool,
    Rotate,
    Shift,
    Zoom,
)
from nnet.layers.streams import as_streams
from nnet.training.augmenting import Augmenter

WHOLE = [Shift(2), Shift((0, 3)), Crop(2), Flip(), Flip("both"), Compose([Flip(), Shift(1)])]
EACH = [*WHOLE, Rotate(20), Zoom(0.3), Compose([Shift(2), Rotate(10), Brightness(), Flip()])]
SIGNALS = [Shift(3), Crop(2), Flip(), Compose([Flip(), Brightness(), Shift(2)])]


def noise(n_imgs=30, side=8, dtype=np.float32):
    """Images, and which of their pixels are bright."""
    X = np.random.default_rng(4).random((n_imgs, 1, side, side + 1)).astype(dtype)
    return X, (X[:, 0] > 0.5).astype(int)


def smooth(n_imgs=30, side=24):
    y, x = np.mgrid[:side, :side] / side
    phases = np.random.default_rng(4).uniform(0, 6, (n_imgs, 1, 1))
    X = np.sin(5 * x + 4 * y + phases) + x * y
    return X[:, None], (X > 0.5).astype(int)


def segmenter(loss=None, n_outputs=2):
    return NeuralNetwork([Conv(n_outputs, 1), loss or LogRegression()], rng=0)


def trained_on(network, *data, **options):
    """The images and the targets of all steps, one after the other."""
    images, targets = [], []
    first, loss = network.layers[0], network.layers[-1]
    fprop, compare = first.fprop, loss.compare

    def watched_fprop(input, *args):
        if first.training:
            images.append(input.copy())
        return fprop(input, *args)

    def watched_compare(input, target):
        if loss.training:
            targets.append(target.copy())
        return compare(input, target)

    first.fprop, loss.compare = watched_fprop, watched_compare
    network.fit(*data, **options)
    return np.concatenate(images), np.concatenate(targets)


# --- what becomes of labels and values ------------------------------------------------------


@pytest.mark.parametrize("augmentation", WHOLE, ids=repr)
def test_labels_follow_their_pixels_exactly(augmentation, dtype):
    X, y = noise(dtype=dtype)
    images, labels = trained_on(segmenter(), X, y, max_iter=2, augment=augmentation)
    assert_array_equal(labels, images[:, 0] > 0.5)
    assert not np.array_equal(images[:30], images[30:])
    images, labels = augmentation(X, y, rng=0)
    assert_array_equal(images, augmentation(X, rng=0))
    assert_array_equal(labels, images[:, 0] > 0.5)
    assert not np.array_equal(labels, y)


@pytest.mark.parametrize("augmentation", EACH, ids=repr)
def test_labels_of_smooth_images_follow_nearly_exactly(augmentation):
    X, y = smooth()
    images, labels = trained_on(segmenter(), X, y, max_iter=2, augment=augmentation)
    assert np.mean(labels == (images[:, 0] > 0.5)) > 0.98
    assert np.mean(labels[:30] == y) < 0.95


def test_labels_turn_by_right_angles_exactly():
    X, y = noise()
    X, y = X[..., :8], y[..., :8]
    for turns in (1, 2, 3):
        _, labels = Rotate((90 * turns, 90 * turns))(X, y)
        assert_array_equal(labels, np.rot90(y, turns, (1, 2)))


@pytest.mark.parametrize("shape", [(11, 8), (9, 9), (16, 16)])
def test_it_is_scipys_nearest(shape, rng):
    ndimage = pytest.importorskip("scipy.ndimage")
    labels = rng.integers(0, 5, (4, *shape))
    X = np.zeros((4, 2, *shape))
    centre = (np.array(shape) - 1) / 2
    for value in (0.7, 1.4, 2.0):  # twice as large: halves, which both round up
        cos, sin = np.cos(value), np.sin(value)
        degrees = np.degrees(value)
        for augmentation, turn in [
            (Rotate((degrees, degrees)), np.array([[cos, sin], [-sin, cos]])),
            (Zoom((value, value)), np.eye(2) / value),
        ]:
            expected = [
                ndimage.affine_transform(
                    plane, turn, centre - turn @ centre, order=0, mode="nearest"
                )
                for plane in labels
            ]
            assert_array_equal(augmentation(X, labels)[1], expected)


@pytest.mark.parametrize("augmentation", SIGNALS, ids=repr)
def test_labels_of_signals_follow(augmentation, rng):
    S = rng.random((20, 2, 16)).astype(np.float32)
    y = (S[:, 0] > 0.5).astype(int)
    for labels in (y, y[:, None]):
        signals, moved = trained_on(segmenter(), S, labels, augment=augmentation, max_iter=1)
        assert_array_equal(moved, signals[:, 0] > 0.5)
        assert not np.array_equal(signals[:, :, 0], S)
    for network, values in ((segmenter(MeanSquaredError()), S), (segmenter(Huber(), 1), S[:, 0])):
        signals, moved = trained_on(network, S, values, augment=augmentation, max_iter=1)
        assert_array_equal(moved, signals[:, : moved.shape[1]])


@pytest.mark.parametrize("loss", [MeanSquaredError, Huber])
@pytest.mark.parametrize("augmentation", EACH, ids=repr)
def test_values_become_what_the_image_becomes(augmentation, loss, dtype, rng):
    X = rng.normal(size=(20, 2, 8, 9)).astype(dtype)
    images, values = trained_on(segmenter(loss()), X, X, max_iter=1, augment=augmentation)
    assert_array_equal(values, images)
    flat = trained_on(segmenter(loss(), 1), X, X[:, 0], max_iter=1, augment=augmentation)
    assert_array_equal(flat[1], flat[0][:, :1])
    assert_array_equal(*augmentation(X, X, rng=0))


@pytest.mark.parametrize("augmentation", [*WHOLE, Rotate(20), Zoom(0.3)], ids=repr)
def test_masks_stay_masks(augmentation):
    X, y = noise()
    masks = np.stack([y, 1 - y], 1)
    images, moved = trained_on(
        segmenter(BinaryCrossEntropy()), X, masks, max_iter=1, augment=augmentation
    )
    assert_array_equal(moved[:, 0], 1 - moved[:, 1])
    assert set(np.unique(moved)) == {0, 1}
    by_label = trained_on(segmenter(), X, y, max_iter=1, augment=augmentation)
    assert_array_equal(moved[:, 0], by_label[1])
    one = trained_on(segmenter(BinaryCrossEntropy(), 1), X, y, max_iter=1, augment=augmentation)
    assert_array_equal(one[1][:, 0], by_label[1])


def test_several_maps_move_in_turn(rng):
    """Also where something else is done between two of them, so that they are not one."""
    X = rng.random((30, 1, 8, 8))

    def seen(*between):
        network = segmenter(MeanSquaredError(), 1)
        augment = [Shift(2), between[0], Flip("both"), *between[1:], Rotate(25)]
        return trained_on(network, X, X, max_iter=1, augment=augment)

    images, values = seen(np.copy, np.copy)
    assert_array_equal(values, images)
    images, same = seen(CutOut(3, fill=5.0), lambda images: images + 1)
    assert_array_equal(same, values)
    shown = np.isclose(images, values + 1)
    assert 0.6 < shown.mean() < 0.95  # all but what CutOut hides
    once = Compose([Rotate((90, 90)), Rotate((-90, -90))])
    tall = np.arange(27).reshape(1, 9, 3)
    assert_array_equal(once(np.zeros((1, 1, 9, 3)), tall)[1], tall)


@pytest.mark.parametrize(
    "augment",
    [CutOut(3), Brightness(0.3), lambda images: images + 1, []],
    ids=["CutOut", "Brightness", "a function", "none"],
)
def test_what_moves_no_pixels_leaves_targets(augment):
    X, y = noise()
    _, seen = trained_on(segmenter(), X, y, max_iter=1, shuffle=False, augment=augment)
    assert_array_equal(seen, y)
    for labels in (y, y[:, ::2, ::3]):
        _, same = Compose([augment])(X, labels, rng=0)
        assert_array_equal(same, labels)
        assert not np.shares_memory(same, labels)


def test_other_targets_stay_as_they_are(rng):
    X = rng.normal(size=(30, 1, 8, 8)).astype(np.float32)
    S = rng.normal(size=(30, 2, 8)).astype(np.float32)
    augment = [Shift(2, fill=0.0), Flip(), Zoom(0.1, fill=1.0)]
    for data in (X, S):
        for loss, y in [
            (LogRegression(), np.arange(30) % 3),
            (MeanSquaredError(), rng.normal(size=(30, 3)).astype(np.float32)),
            (MeanSquaredError(), rng.normal(size=(30, 1)).astype(np.float32)),
            (BinaryCrossEntropy(), rng.integers(0, 2, (30, 3))),
        ]:
            layers = [Flatten(), Linear(y.shape[1] if y.ndim > 1 else 3), loss]
            _, seen = trained_on(
                NeuralNetwork(layers, 0), data, y, max_iter=1, shuffle=False, augment=augment
            )
            assert_array_equal(seen, y)
    single = rng.normal(size=(30, 4, 1, 1)).astype(np.float32)  # no pixels: a few numbers
    network = NeuralNetwork([Pool(8, 8), Conv(4, 1), MeanSquaredError()], rng=0)
    _, seen = trained_on(network, X, single, max_iter=1, shuffle=False, augment=augment)
    assert_array_equal(seen, single)


# --- in fit --------------------------------------------------------------------------------


def halves(n_imgs=120, side=8):
    """Images of noise whose pixels belong to the brighter half: a label needs its own place."""
    rng = np.random.default_rng(0)
    split = rng.integers(2, side - 1, n_imgs)
    y = (np.arange(side) < split[:, None])[:, None] & np.ones((side, 1), bool)
    X = y[:, None] + rng.normal(scale=0.15, size=(n_imgs, 1, side, side))
    return X.astype(np.float32), y


@pytest.mark.parametrize("loss", [LogRegression, BinaryCrossEntropy])
def test_a_fit_is_as_accurate_with_flips(loss):
    X, y = halves()
    for augment in (None, Flip(), [Flip("both"), Shift(1)]):
        network = segmenter(loss(), 2 if loss is LogRegression else 1)
        network.fit(X, y, 1.0, 20, 20, momentum=0.9, augment=augment, metrics=[agreement])
        assert network.score(X, y) > 0.99
        assert network.history_["accuracy"][-1] > 0.99
        assert network.history_["agreement"][-1] == pytest.approx(network.history_["accuracy"][-1])


def agreement(y, predictions):
    assert y.dtype == predictions.dtype or y.dtype.kind == "f"
    return np.mean(y == predictions)


def test_metrics_see_the_moved_labels():
    X, y = noise()
    kept = []

    def keep(y, predictions):
        kept.append(y)
        return 0.0

    network = segmenter()
    names = np.array(["dark", "bright"])
    images, _ = trained_on(
        network, X, names[y], None, 1, 7, augment=[Flip(), Shift(1)], metrics=keep
    )
    assert_array_equal(kept[0], names[(images[:, 0] > 0.5).astype(int)])


@pytest.mark.parametrize("kind", ["labels", "masks", "values"])
def test_targets_do_not_depend_on_batches_and_threads(kind, tmp_path):
    X, y = smooth(26)
    X = X.astype(np.float32)
    loss, n_outputs, y = {
        "labels": (LogRegression, 2, y),
        "masks": (BinaryCrossEntropy, 1, y[:, None]),
        "values": (MeanSquaredError, 1, X),
    }[kind]
    augment = [Shift(2), Rotate(10), Brightness(0.1), Zoom(0.1)]

    def seen(*data, **options):
        network = segmenter(loss(), n_outputs)
        return trained_on(network, *data, max_iter=2, augment=augment, **options)[1]

    whole = seen(X, y, shuffle=False)
    assert not np.array_equal(whole[:26], whole[26:])
    for batch_size, threads in ((1, 1), (7, 2), (26, 3)):
        with nnet.num_threads(threads):
            assert_array_equal(seen(X, y, batch_size=batch_size, shuffle=False), whole)
    assert_array_equal(seen([(X[:10], y[:10]), (X[10:], y[10:])]), whole)
    shuffled = seen(X, y, batch_size=7)
    assert {each.tobytes() for each in shuffled} == {each.tobytes() for each in whole}
    np.save(tmp_path / "y.npy", y)
    before = y.copy()
    mapped = np.load(tmp_path / "y.npy", mmap_mode="r")
    assert_array_equal(seen(X, mapped, batch_size=5, shuffle=False), whole)
    assert_array_equal(seen(X, np.asfortranarray(y), batch_size=5, shuffle=False), whole)
    assert_array_equal(y, before)


def test_weights_are_those_of_the_images():
    X, y = noise()
    weights = np.arange(30) % 3.0
    augment = [Flip(), Shift(2)]
    options = {"max_iter": 2, "shuffle": False, "batch_size": 30, "augment": augment}
    weighted = segmenter().fit(X, y, sample_weight=weights, **options)
    moved = segmenter().fit([(X, y, weights)], max_iter=2, augment=augment)
    assert bits(weighted) == bits(moved) != bits(segmenter().fit(X, y, **options))


def test_a_training_that_was_stopped_ends_with_the_same_bits(tmp_path):
    pytest.importorskip("safetensors")
    X, y = noise()
    options = {"batch_size": 8, "momentum": 0.9, "augment": [Flip(), Rotate(10)]}
    expected = bits(segmenter().fit(X, y, max_iter=4, **options))
    path = tmp_path / "checkpoint"
    segmenter().fit(X, y, max_iter=2, callbacks=[Checkpoint(path)], **options)
    assert bits(segmenter().fit(X, y, max_iter=4, resume=path, **options)) == expected


@pytest.mark.parametrize("loss", [LogRegression, MeanSquaredError])
def test_a_steady_step_makes_no_new_targets(loss):
    X = np.ones((64, 1, 32, 32), np.float32)
    y = np.zeros((64, 32, 32), np.intp if loss is LogRegression else np.float32)
    augmenter = Augmenter([Rotate(10), Flip()], X.shape[1:], y.shape[1:], loss())
    augmenter.restart(as_streams(0), 0, 64)
    kept = {}

    def array(name, shape, dtype):
        if name not in kept:
            kept[name] = np.empty(shape, dtype)
        return kept[name]

    rows = np.arange(64)
    first = augmenter(X, y, rows, array)
    tracemalloc.start()
    try:
        again = augmenter(X, y, rows, array)
        assert tracemalloc.get_traced_memory()[1] < y.nbytes / 4
    finally:
        tracemalloc.stop()
    assert all(a is b for a, b in zip(first, again))


# --- by hand, and what is refused -------------------------------------------------------------


def test_images_and_targets_to_look_at(rng):
    X, y = noise()
    names = np.array(["dark", "bright"])[y]
    images, moved = Flip(p=1)(X, names)
    assert_array_equal(moved, names[..., ::-1])
    assert moved.dtype == names.dtype
    for kind in (bool, np.uint8, "i4", list):
        given = y.tolist() if kind is list else y.astype(kind)
        found = Shift(2)(X, given, 3)[1]
        assert_array_equal(found, Shift(2)(X, y, rng=3)[1])
        assert found.dtype == np.asarray(given).dtype
    assert Flip()(X[:0], y[:0])[1].shape == (0, 8, 9)
    assert Flip()(X, np.arange(30))[1].tolist() == list(range(30))
    before = y.copy()
    Compose([Flip(), Rotate(5)])(X, y, rng=0)
    assert_array_equal(y, before)
    y = rng.random((30, 3, 8, 9))
    assert_allclose(Zoom((2, 2))(X, y)[1], Zoom((2, 2))(y))
    with pytest.raises(ValueError, match=r"images has 30 images and y has shape \(29, 3, 8, 9\)"):
        Flip()(X, y[1:])
    y[3] = np.nan
    with pytest.raises(ValueError, match=r"y\[3\] has NaN"):
        Flip()(X, y)


@pytest.mark.parametrize(
    "augment", [Shift(1, fill=0), Crop(1, fill=2.0), Rotate(5, fill=0.0), Zoom(0.1, fill=1)]
)
@pytest.mark.parametrize("loss", [LogRegression, BinaryCrossEntropy, MeanSquaredError])
def test_a_constant_fill_has_no_target(augment, loss):
    X, y = noise()
    network = segmenter(loss(), 2 if loss is LogRegression else 1).fit(X, y, max_iter=1)
    before = everything(network, X) if loss is not MeanSquaredError else bits(network)
    for warm_start in (False, True):
        with pytest.raises(ValueError, match=r"fill=.* y has nothing .* expected fill='nearest'"):
            network.fit(X, y, augment=[Flip(), augment], warm_start=warm_start)
    with pytest.raises(ValueError, match="expected fill='nearest'"):
        network.fit([(X, y)], augment=augment)
    after = everything(network, X) if loss is not MeanSquaredError else bits(network)
    assert after == before
    with pytest.raises(ValueError, match="expected fill='nearest'"):
        augment(X, y)


@pytest.mark.parametrize("augment", [Shift(1), Flip(), Rotate(5), Zoom(0.1, fill=1)])
@pytest.mark.parametrize(
    "loss, n_outputs", [(LogRegression, 2), (BinaryCrossEntropy, 1), (MeanSquaredError, 3)]
)
def test_targets_of_pixels_at_other_sides_are_refused(augment, loss, n_outputs):
    X = np.random.default_rng(0).normal(size=(30, 1, 8, 8)).astype(np.float32)
    y = (X[:, 0, ::2, ::2] > 0).astype(int)
    if n_outputs == 3:
        y = np.stack([y] * 3, 1)
    layers = [Conv(4, 3), Activation("relu"), Pool(2, 2), Conv(n_outputs, 1), loss()]
    network = NeuralNetwork(layers, rng=0)
    with pytest.raises(
        ValueError, match=r", 4, 4\) and .* moves pixels, expected .*\(n_imgs, \.\.\., 8, 8\)"
    ):
        network.fit(X, y, augment=[CutOut(2), augment])
    assert network.input_shape_ is None
    network.fit(X, y, augment=[CutOut(2)], max_iter=1)


@pytest.mark.parametrize("loss, n_outputs", [(LogRegression, 2), (MeanSquaredError, 3)])
def test_targets_of_signals_at_another_length_are_refused(loss, n_outputs, rng):
    S = rng.normal(size=(30, 2, 16)).astype(np.float32)
    y = (S[:, 0, ::2] > 0).astype(int)
    if n_outputs == 3:
        y = np.stack([y] * 3, 1)
    network = NeuralNetwork([Conv(n_outputs, 3, strides=(1, 2)), loss()], rng=0)
    network.fit(S, y, max_iter=1)
    with pytest.raises(ValueError, match=r", 8\) and Flip.* expected .*\(n_imgs, \.\.\., 16\)"):
        network.fit(S, y, augment=Flip())


def test_one_label_of_an_image_may_have_any_fill():
    X, _ = noise(side=8)
    y = np.arange(30) % 3
    cnn().fit(X[..., :8], y, max_iter=1, augment=Shift(1, fill=0.0))
    network = NeuralNetwork([Conv(3, 3), GlobalAveragePool(), LogRegression()], rng=0)
    network.fit(X, y, max_iter=1, augment=[Rotate(5, fill=0.0), Flip()])


@pytest.mark.parametrize("loss", [BinaryCrossEntropy, MeanSquaredError])
def test_as_many_labels_as_a_signal_is_long_are_no_pixels(loss, rng):
    S = rng.random((30, 1, 16)).astype(np.float32)
    y = (S[:, 0] > 0.5).astype(int)
    network = NeuralNetwork([Activation("relu"), Flatten(), Linear(16), loss()], rng=0)
    options = {"shuffle": False, "augment": Shift(3, fill=0.0), "max_iter": 2}
    for warm_start in (False, True):
        images, targets = trained_on(network, S, y, warm_start=warm_start, **options)
        assert_array_equal(targets, np.concatenate([y, y]))
        assert not np.array_equal(images[:30, :, 0], S)
