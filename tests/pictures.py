"""Image files for tests, made on the spot."""

import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 30, 200), "green": (20, 190, 30), "red": (210, 20, 30)}


def colour_folder(folder, n=8, size=(12, 12), kind="png"):
    """One folder for each of COLOURS, with noisy images of that colour."""
    rng = np.random.default_rng(3)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            noise = rng.integers(-20, 21, (*size, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.{kind}")
    return folder
