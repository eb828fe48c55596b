"""`nnet.explain` and `nnet explain`: what they ask the kernels, and how they tell it."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import nnet
from nnet import (
    Conv,
    ConvTranspose,
    Flatten,
    GlobalAveragePool,
    Linear,
    LogRegression,
    Pool,
    dispatch,
)

F4, F8 = np.dtype(np.float32), np.dtype(np.float64)


@pytest.fixture
def asked(monkeypatch):
    """Kernels whose implementations are 'slow', 'fast' and one that accepts nothing: the calls."""
    calls = []

    def explain(name, *args, **options):
        calls.append((name, args, options))
        return [("none", None, False), ("slow", 20_000.0, False), ("fast", 1234.5, True)]

    names = "conv", "filters_gradient", "pool"
    kernels = SimpleNamespace(**{f"explain_{name}": partial(explain, name) for name in names})
    monkeypatch.setattr(dispatch, "module", lambda name: kernels)
    return calls


def network():
    layers = [Conv(4, 3, strides=2), Pool(2, 2), ConvTranspose(3, 2, 2, padding_mode="valid")]
    return nnet.NeuralNetwork([*layers, GlobalAveragePool(), Linear(2), LogRegression()])


def test_a_convolution(asked):
    found = nnet.explain(nnet.conv_bc01, (1, 3, 8, 8), (3, 4, 3, 3), strides=2, dtype="float64")
    options = {"backward": False, "strides": 2}
    assert asked == [("conv", ((1, 3, 8, 8), (3, 4, 3, 3), F8), options)]
    assert found.rows == [
        ("", "forward", "fast", 1234.5, True),
        ("", "forward", "slow", 20_000.0, False),
        ("", "forward", "none", None, False),
    ]
    assert (
        repr(found).split()
        == "operation taken: cycles others forward fast 1,234 slow 20,000".split()
    )


def test_other_kernels(asked):
    shapes = (1, 3, 8, 8), (3, 4, 3, 3)
    rows = nnet.explain(nnet.bprop_conv_bc01, *shapes).rows
    assert [row.operation for row in rows if row.taken] == ["imgs_grad", "filters_grad"]
    rows = nnet.explain(nnet.pool_bc01, (1, 3, 8, 8), 2, 2, 2, 2, mode="avg").rows
    assert [row[2:] for row in rows] == [
        ("fast", 1234.5, True),
        ("slow", 20_000.0, False),
        ("none", None, False),
    ]
    nnet.explain(nnet.pool_bc01, (1, 3, 8, 8), 2, 2, 2, 2, need_switches=False)
    nnet.explain(nnet.bprop_pool_bc01, (1, 3, 8, 8), 2, 2, 2, 2, switches="offsets")
    sizes = (1, 3, 8, 8), (2, 2, 2, 2)
    pairs = {"direction": "forward", "switches": "pairs"}
    assert asked == [
        ("conv", (*shapes, F4), {"backward": True}),
        ("filters_gradient", (*shapes, F4), {}),
        ("pool", (*sizes, F4), {**pairs, "need_switches": True, "mode": "avg"}),
        ("pool", (*sizes, F4), {**pairs, "need_switches": False}),
        (
            "pool",
            (*sizes, F4),
            {"direction": "imgs_grad", "switches": "offsets", "need_switches": True},
        ),
    ]


@pytest.mark.parametrize("what", [None, "conv", nnet.show_config, [], np.ones(3)])
def test_what_else_is_refused(what):
    with pytest.raises(TypeError, match="expected a NeuralNetwork or one of conv_bc01, "):
        nnet.explain(what)


def test_a_network(asked):
    """All layers with kernels, with the shapes that they see."""
    built = network().build((1, 8, 8), 2, "float64")
    found = nnet.explain(built)
    assert len(asked) == 3 + 2 + 3 + 2
    assert [args[:2] for _, args, _ in asked[:3]] == [((1, 1, 8, 8), (1, 4, 3, 3))] * 3
    assert asked[0][1][2] == F8 and asked[0][2]["strides"] == (2, 2)
    assert [args[:2] for _, args, _ in asked[3:5]] == [((1, 4, 4, 4), (2, 2, 2, 2))] * 2
    assert [options["switches"] for *_, options in asked[3:5]] == ["offsets"] * 2
    assert [options["need_switches"] for *_, options in asked[3:5]] == [False, True]
    transposed = asked[5:8]
    assert {args[:2] for _, args, _ in transposed} == {((1, 3, 4, 4), (3, 4, 2, 2))}
    assert [(name, options.get("backward")) for name, _, options in transposed] == [
        ("conv", True),
        ("conv", False),
        ("filters_gradient", None),
    ]
    assert asked[8][1][:2] == ((1, 3, 4, 4), (4, 4, 4, 4))
    taken = [row for row in found.rows if row.taken]
    assert [row.operation for row in taken[5:8]] == ["forward", "imgs_grad", "filters_grad"]
    assert [row.layer.split("(")[0] for row in taken[:4]] == ["0 Conv"] * 3 + ["1 Pool"]
    lines = repr(found).splitlines()
    assert lines[0].split() == "layer operation taken: cycles others".split()
    assert len(lines) == 11 and lines[1].startswith("0 Conv(4, 3, strides=2)")
    assert lines[2].split() == "imgs_grad fast 1,234 slow 20,000".split()


def test_a_network_that_is_not_set_up(asked):
    """A copy is, for the shape that is given."""
    plain = network()
    expected = nnet.explain(network().build((3, 8, 8))).rows
    for images in ((3, 8, 8), [3, 8, 8], np.zeros((5, 3, 8, 8))):
        assert nnet.explain(plain, images).rows == expected
    assert plain.input_shape_ is None
    with pytest.raises(ValueError, match="not set up, expected the shape of an image as well"):
        nnet.explain(plain)
    built = network().build((3, 8, 8))
    asked.clear()
    nnet.explain(built, (3, 16, 16))
    assert asked[0][1][0] == (1, 3, 16, 16) and built.input_shape_ == (3, 8, 8)


def test_lines_are_as_wide_as_the_terminal(asked, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    layers = [Conv(4, 3, strides=2, padding_mode=((1, 2), (3, 4)), border_mode="reflect")]
    wide = nnet.NeuralNetwork([*layers, Flatten(), Linear(2), LogRegression()])
    lines = repr(nnet.explain(wide, (1, 30, 30))).splitlines()
    assert max(map(len, lines)) <= 60 and "..." in lines[1] and "fast 1,234" in lines[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_taken_is_the_cheapest(dtype):
    """Of the kernels themselves: names that `algorithm=` takes, with the results of a call."""
    shapes = (2, 16, 12, 12), (16, 32, 3, 3)
    rng = np.random.default_rng(0)
    imgs, filters = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    rows = nnet.explain(nnet.conv_bc01, *shapes, dtype=dtype).rows
    accepting = [row for row in rows if row.cycles is not None]
    assert rows[: len(accepting)] == accepting == sorted(accepting, key=lambda row: row.cycles)
    assert [row.taken for row in rows] == [True] + [False] * (len(rows) - 1)
    expected = nnet.conv_bc01(imgs, filters)
    found = {
        row.implementation: nnet.conv_bc01(imgs, filters, algorithm=row.implementation)
        for row in accepting
    }
    assert np.array_equal(found[rows[0].implementation], expected)
    assert all(np.allclose(each, expected, atol=1e-4) for each in found.values())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_layer_has_one_that_is_taken(dtype):
    """By the kernels themselves."""
    rows = nnet.explain(network().build((1, 28, 28), 2, dtype)).rows
    operations = {}
    for row in rows:
        operations.setdefault(row[:2], []).append(row)
    assert len(operations) == 3 + 2 + 3 + 2
    for (name, operation), found in operations.items():
        assert [row.taken for row in found] == [True] + [False] * (len(found) - 1), name
        assert found[0].cycles > 0, operation


def test_options_that_the_kernel_refuses():
    with pytest.raises(ValueError, match="padding_mode is 'most'"):
        nnet.explain(nnet.conv_bc01, (1, 3, 8, 8), (3, 4, 3, 3), padding_mode="most")
    with pytest.raises(ValueError, match="filters has shape"):
        nnet.explain(nnet.conv_bc01, (1, 3, 8, 8), (4, 4, 3, 3))


# --- the command ----------------------------------------------------------------


def test_the_command_explains_layers(asked, run_nnet):
    code, out, err = run_nnet(
        "explain", "--layers", "conv4-3x3,relu,pool2", "--input-shape", "1x8x8"
    )
    assert (code, err) == (0, "")
    built = nnet.NeuralNetwork(
        [
            Conv(4, 3),
            nnet.Activation("relu"),
            Pool(2, 2, padding_mode="valid"),
            Flatten(),
            Linear(10),
            LogRegression(),
        ]
    ).build((1, 8, 8), 10)
    assert [line.split()[-4:] for line in out.splitlines()[1:]] == [
        line.split()[-4:] for line in repr(nnet.explain(built)).splitlines()[1:]
    ]


def test_the_command_explains_a_model(asked, run_nnet, tmp_path):
    pytest.importorskip("safetensors")
    built = network().build((1, 8, 8), 2)
    built.save(tmp_path / "model.safetensors")
    code, out, err = run_nnet("explain", tmp_path / "model.safetensors")
    assert (code, out, err) == (0, f"{nnet.explain(built)}\n", "")


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "expected a model, or --layers with --input-shape"),
        (["m", "--layers", "relu"], "expected a model, or --layers with --input-shape"),
        (["--layers", "conv4-3x3"], "--layers needs --input-shape, such as 1x28x28"),
        (["--layers", "conv4", "--input-shape", "1x8x8"], "--layers: "),
        (["--layers", "relu", "--input-shape", "8x8"], "expected CHANNELSxHEIGHTxWIDTH"),
        (["--layers", "relu", "--input-shape", "0x8x8"], "--layers: "),
        (["m", "--input-shape", "1x8x8"], "a model knows the shape of its images"),
        (["no_such_model"], "no_such_model"),
    ],
)
def test_what_the_command_refuses(run_nnet, args, message):
    code, out, err = run_nnet("explain", *args)
    assert (code, out) == (2, "") and err.startswith("nnet: error: ") and message in err
    assert err.count("\n") == 1
