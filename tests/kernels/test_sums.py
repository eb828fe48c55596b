"""Long sums: their error does not grow with their length.

Constants are the worst case: every addition of one rounds in the same direction.
"""

import numpy as np
import pytest

LIMITS = {"float32": 2e-6, "float64": 1e-12}  # of the sum of absolute values
FILLINGS = {
    "0.1": lambda rng, shape: np.full(shape, 0.1),
    "positive": lambda rng, shape: rng.random(shape),
}
ALGORITHMS = None, "planes", "pixels", "winograd"


@pytest.fixture(params=FILLINGS)
def fill(request, rng, dtype):
    """A function that fills an array of a shape."""
    return lambda *shape: FILLINGS[request.param](rng, shape).astype(dtype)


def assert_sums(sums, exact):
    """Sums of positive terms."""
    assert np.abs(sums / exact - 1).max() <= LIMITS[sums.dtype.name]


# --- averages -------------------------------------------------------------------


def window_sums(plane, pool_h, pool_w, stride_y, stride_x):
    """In float64, of sums of sums."""
    sums = np.zeros(np.add(plane.shape, 1), np.longdouble)
    sums[1:, 1:] = plane.astype(np.longdouble).cumsum(0).cumsum(1)
    sums = sums[pool_h:] - sums[:-pool_h]
    return (sums[:, pool_w:] - sums[:, :-pool_w])[::stride_y, ::stride_x].astype(np.float64)


@pytest.mark.parametrize("window", [
    (1024, 1024, 1, 1), (1020, 1021, 1, 1), (1020, 1000, 2, 2), (900, 700, 3, 3),
    (1000, 3, 9, 2), (3, 1000, 9, 1), (3, 1000, 9, 9), (500, 500, 510, 510),
])  # fmt: skip
def test_averages(kernels, fill, window):
    imgs = fill(1, 1, 1024, 1024)
    out, _ = kernels.pool_bc01(imgs, None, None, *window, mode="avg", padding_mode="valid")
    size = window[0] * window[1]
    assert_sums(out[0, 0], window_sums(imgs[0, 0], *window) / size)


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_averages_with_padding(kernels, fill, stride, count_include_pad):
    imgs, pool, pad = fill(2, 1, 300, 307), 251, 100
    window = pool, pool, stride, stride
    out, _ = kernels.pool_bc01(imgs, None, None, *window, mode="avg", padding_mode=pad,
                               count_include_pad=count_include_pad)  # fmt: skip
    padded = np.pad(imgs, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    real = window_sums(np.pad(np.ones(imgs.shape[2:]), pad), *window)
    sizes = np.full(real.shape, pool**2) if count_include_pad else real
    for plane, average in zip(padded[:, 0], out[:, 0]):
        assert_sums(average, window_sums(plane, *window) / sizes)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_averages_backward(kernels, fill, dtype, stride):
    """Each pixel sums up what thousands of windows send it."""
    size, pool = 150 * stride, 100 * stride
    shape, window = (1, 1, size, size), (pool, pool, stride, stride)
    n_out = (size - pool) // stride + 1
    grad, out = fill(1, 1, n_out, n_out), np.empty(shape, dtype)
    kernels.bprop_pool_bc01(grad, None, out, *window, mode="avg", padding_mode="valid")
    exact = np.zeros((size, size))
    for y, x in np.ndindex(n_out, n_out):
        pixels = slice(y * stride, y * stride + pool), slice(x * stride, x * stride + pool)
        exact[pixels] += grad[0, 0, y, x]
    assert_sums(out[0, 0], exact / pool**2)


@pytest.mark.parametrize("window, n_out", [((64, 64), 64), ((12, 12), 12), ((16, 200), 16)])
def test_maximum_of_many_windows(kernels, fill, dtype, window, n_out):
    """A single pixel gets the gradients of all windows."""
    imgs = np.zeros((1, 2, n_out + window[0] - 1, n_out + window[1] - 1), dtype)
    imgs[:, :, n_out - 1, n_out - 1] = 1
    exact_as_places = window[0] * window[1] <= 256
    for places in (False, True)[: 1 + exact_as_places]:
        switches = np.empty((1, 2, n_out, n_out), np.uint8) if places else None
        _, switches = kernels.pool_bc01(imgs, None, switches, *window, 1, 1, padding_mode="valid")
        grad, whole = fill(1, 2, n_out, n_out), np.ones((1, 2, n_out, n_out), dtype)
        known = {"pool_h": window[0], "pool_w": window[1], "stride_y": 1, "stride_x": 1}
        for sizes in (known,) if places else (known, {}):
            out = np.empty_like(imgs)
            for g in (grad, whole):
                kernels.bprop_pool_bc01(
                    g, switches, out, **sizes, **({"padding_mode": "valid"} if sizes else {})
                )
                sums = g.sum((2, 3), dtype=np.float64)
                assert_sums(out[:, :, n_out - 1, n_out - 1], sums)
                np.testing.assert_array_equal(out == 0, imgs == 0)
            assert (out[imgs == 1] == n_out**2).all()


@pytest.mark.parametrize("shape", [(1, 1, 1500, 1500), (1, 1, 1, 1025)])
def test_infinity_and_nan_stay(kernels, dtype, shape):
    for value in (np.inf, -np.inf, np.nan):
        imgs = np.ones(shape, dtype)
        imgs[0, 0, -1, 700] = value
        for window in (shape[2:] * 2, (shape[2], 1000, 1, 1), (shape[2], 1000, 1, 7)):
            out, _ = kernels.pool_bc01(imgs, None, None, *window, mode="avg", padding_mode="valid")
            np.testing.assert_array_equal(out, np.full_like(out, value))


def test_integers_stay_exact(kernels, dtype, rng):
    plane = rng.integers(-8, 9, (1, 1, 1024, 1024)).astype(dtype)
    out, _ = kernels.pool_bc01(plane, None, None, *(1024, 1024) * 2, mode="avg",
                               padding_mode="valid")  # fmt: skip
    assert out[0, 0, 0, 0] * 2**20 == plane.sum(dtype=np.float64)
    bias, filters = np.empty(1, dtype), np.ones((1, 1, 1, 1), dtype)
    _, grad = kernels.bprop_conv_bc01(plane, plane, filters, need_imgs_grad=False, bias_grad=bias)
    assert bias[0] == plane.sum(dtype=np.float64)
    small = np.sign(plane)
    _, grad = kernels.bprop_conv_bc01(small, small, filters, need_imgs_grad=False)
    assert grad[0, 0, 0, 0] == (small != 0).sum()


# --- gradients of biases and filters ----------------------------------------------


@pytest.mark.parametrize("shape", [(1, 2, 1024, 1024), (20_000, 2, 3, 3), (70, 1, 100, 100)])
def test_bias_gradient(kernels, fill, shape):
    grad, bias = fill(*shape), fill(shape[1])
    filters = np.ones((1, shape[1], 1, 1), grad.dtype)
    kernels.bprop_conv_bc01(grad[:, :1], grad, filters, need_imgs_grad=False, bias_grad=bias)
    exact = grad.swapaxes(0, 1).reshape(shape[1], -1).sum(1, dtype=np.float64)
    assert_sums(bias, exact / shape[0])


def filters_gradient(imgs, grad, fil, groups):
    """By einsum on padded images, in float64, divided by no number."""
    imgs, grad = imgs.astype(np.float64), grad.astype(np.float64)
    pad, c, k = fil // 2, imgs.shape[1], grad.shape[1]
    imgs = np.pad(imgs, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    out = np.empty((c // groups, k, fil, fil))
    h, w = grad.shape[2:]
    for g in range(groups):
        rows, cols = (
            slice(g * c // groups, (g + 1) * c // groups),
            slice(g * k // groups, (g + 1) * k // groups),
        )
        for i in range(fil):
            for j in range(fil):
                out[:, cols, i, j] = np.tensordot(
                    imgs[:, rows, i : i + h, j : j + w], grad[:, cols], ((0, 2, 3), (0, 2, 3))
                )
    return out


# (n_imgs, side, channels, features, groups): planes in one piece, many small images, and
# both for one and two channels that each have features of their own
GRADIENTS = [
    (1, 400, 1, 1, 1), (1, 400, 1, 6, 1), (1, 150, 8, 8, 1), (1, 400, 2, 2, 2),
    (2000, 6, 8, 8, 1), (500, 16, 2, 2, 2), (30, 64, 1, 3, 1),
]  # fmt: skip


@pytest.mark.parametrize("n, side, channels, features, groups", GRADIENTS)
def test_filter_gradient(kernels, fill, n, side, channels, features, groups):
    imgs, grad = fill(n, channels, side, side), fill(n, features, side, side)
    filters = np.ones((channels // groups, features, 3, 3), imgs.dtype)
    exact = filters_gradient(imgs, grad, 3, groups) / n
    for algorithm in ALGORITHMS:
        _, out = kernels.bprop_conv_bc01(
            imgs, grad, filters, groups=groups, algorithm=algorithm, need_imgs_grad=False
        )
        assert_sums(out, exact)


@pytest.mark.parametrize("n, side, channels, features", [
    (1, 400, 1, 6), (1, 200, 8, 8), (2000, 6, 8, 8)])  # fmt: skip
def test_no_worse_than_pytorch(kernels, rng, n, side, channels, features):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    imgs, grad = (rng.random((n, c, side, side), np.float32) for c in (channels, features))
    filters = np.ones((channels, features, 3, 3), np.float32)
    theirs = torch.nn.grad.conv2d_weight(
        torch.from_numpy(imgs), (features, channels, 3, 3), torch.from_numpy(grad), padding=1
    )
    exact = filters_gradient(imgs, grad, 3, 1)
    their_error = np.abs(theirs.numpy().transpose(1, 0, 2, 3) / exact - 1).max()
    for algorithm in ALGORITHMS:
        _, out = kernels.bprop_conv_bc01(
            imgs, grad, filters, algorithm=algorithm, need_imgs_grad=False
        )
        assert np.abs(out / (exact / n) - 1).max() <= max(1.1 * their_error, 3e-7)


@pytest.mark.parametrize("groups", [1, 2])
def test_threads_change_no_bit(kernels, rng, dtype, groups):
    for n, side in ((1, 600), (4000, 8)):
        imgs, grad = (rng.random((n, 2, side, side)).astype(dtype) for _ in range(2))
        filters, bias = np.ones((2 // groups, 2, 3, 3), dtype), np.empty((2, 2), dtype)
        results = [
            kernels.bprop_conv_bc01(imgs, grad, filters, groups=groups, need_imgs_grad=False,
                                    bias_grad=bias[i], n_threads=1 + 2 * i)[1].tobytes()
            for i in range(2)
        ]  # fmt: skip
        assert results[0] == results[1] and bias[0].tobytes() == bias[1].tobytes()


# --- products and probabilities -----------------------------------------------------


@pytest.mark.parametrize("n_rows, n_inner, n_cols", [
    (1, 100_000, 40), (5, 50_001, 20), (7, 3000, 33), (1, 5000, 3), (2, 100_000, 3),
    (5, 512, 10), (1, 500, 1), (13, 2000, 17)])  # fmt: skip
def test_matmul(kernels, fill, n_rows, n_inner, n_cols):
    a, b, bias = fill(n_rows, n_inner), fill(n_inner, n_cols), fill(n_cols)
    exact = a.astype(np.float64) @ b.astype(np.float64) / 3 + bias
    for b_ in (b, np.asfortranarray(b)):
        results = [kernels.matmul(a, b_, bias=bias, divisor=3, n_threads=i) for i in (1, 3)]
        assert results[0].tobytes() == results[1].tobytes()
        assert_sums(results[0], exact)


@pytest.mark.parametrize("n_cols", [1, 10])
def test_weight_gradient(kernels, fill, dtype, n_cols):
    """Of many rows, which lie side by side."""
    n = 300_000
    rows, grad = np.ones((n, 3), dtype), fill(n, n_cols)
    rows[:, 1] = 0.5
    out = kernels.matmul(rows.T, grad, divisor=n)
    assert_sums(out, rows[0][:, None] * grad.mean(0, dtype=np.longdouble))


@pytest.mark.parametrize("n_inner", [1025, 4500])
def test_matmul_of_integers(kernels, dtype, rng, n_inner):
    """Also where blocks of every kind of tile add up."""
    for n_rows in (1, 4, 6, 7):
        for n_cols in (1, 3, 4, 8, 10, 17, 33):
            a = rng.integers(-8, 9, (n_rows, n_inner)).astype(dtype)
            b = rng.integers(-8, 9, (n_inner, n_cols)).astype(dtype)
            bias = rng.integers(-8, 9, n_cols).astype(dtype)
            exact = a.astype(np.float64) @ b + bias
            for b_ in (b, np.asfortranarray(b)):
                np.testing.assert_array_equal(kernels.matmul(a, b_, bias=bias), exact)


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_a_row_alone_has_the_bits_of_many(kernels, fill, layout):
    for n_inner, n_cols in ((1500, 10), (700, 3), (9000, 17)):
        a, b = fill(7, n_inner), layout(fill(n_inner, n_cols))
        many = kernels.matmul(a, b)
        for i in range(7):
            assert kernels.matmul(a[i : i + 1], b).tobytes() == many[i : i + 1].tobytes()


@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_matmul_keeps_infinity(kernels, dtype, layout):
    a, b = np.ones((2, 20_000), dtype), np.ones((20_000, 3), dtype)
    a[0, 5], a[1, 15_000] = np.inf, -np.inf
    out = kernels.matmul(a, layout(b))
    np.testing.assert_array_equal(out, [[np.inf] * 3, [-np.inf] * 3])


def test_softmax(kernels, dtype):
    for scores in (np.zeros(300_000), np.linspace(0, 1, 300_000)):
        exact = np.exp(scores.astype(dtype).astype(np.float64) - scores.max())
        exact /= exact.sum()
        scores, grad = scores.astype(dtype)[None], np.empty((1, len(scores)), dtype)
        assert_sums(kernels.softmax(scores)[0], exact)
        outputs = np.empty_like(scores), np.empty(1), grad
        loss, _ = kernels.cross_entropy(scores, np.zeros(1, np.intp), *outputs)
        assert abs(loss + np.log(exact[0])) <= LIMITS[dtype.name] * abs(loss)
