"""Folders of images, one for each class, as batches to train on that need not fit in memory."""

import os

import numpy as np

from nnet.files.image_files import (
    OTHER_ARGUMENTS,
    files_in,
    list_images,
    prepare_for,
    visible,
)
from nnet.layers.arguments import as_count, as_int, as_path
from nnet.layers.hints import with_hints

ONCE = "once"


class ImageFolder:
    """Labelled image files: an iterable of batches (X, y) for `fit`, read anew in each epoch.

    Made by `nnet.image_folder`. Iterating gives float32 arrays X (n_imgs, n_channels, img_h,
    img_w) from 0 to 1, and arrays y of the names of classes.

    Attributes
    ----------
    paths : list of str
    labels : array (n_imgs,) of str
    classes : list of str
        The names of the folders, sorted as Python sorts strings: '10' comes before '2'.
    preparation : Preparation
        How each file becomes an array. A network that `fit` trains on the folder keeps it, as
        its attribute `preparation`, and `save` saves it.
    """

    def __init__(self, paths, labels, preparation, batch_size=32, shuffle=True, seed=0):
        self.paths, self.labels = list(paths), np.asarray(labels)
        self.classes = np.unique(self.labels).tolist()
        self.preparation = preparation
        self.batch_size = as_count(batch_size, "batch_size")
        if shuffle not in (True, False, ONCE):
            raise ValueError(f"shuffle is {shuffle!r}, expected True, False or {ONCE!r}")
        self.shuffle, self.seed = shuffle, as_int(seed, "seed", 0)
        self._n_epochs = 0

    def __repr__(self):
        return (
            f"ImageFolder of {len(self.paths)} images of {len(self.classes)} classes, "
            f"{self.preparation}"
        )

    def __len__(self):
        """How many batches it gives."""
        return -(-len(self.paths) // self.batch_size)

    def __iter__(self):
        order = np.arange(len(self.paths))
        if self.shuffle is not False:
            epoch = 0 if self.shuffle == ONCE else self._n_epochs
            np.random.default_rng([self.seed, epoch]).shuffle(order)
        self._n_epochs += 1
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield self.preparation.read([self.paths[row] for row in rows]), self.labels[rows]

    def load(self):
        """All images and labels at once, (X, y), sorted by class and name."""
        return self.preparation.read(self.paths), self.labels.copy()

    def part(self, rows):
        """An ImageFolder of some of the images, in that order: by places in `paths`, or a mask."""
        rows = np.arange(len(self.paths))[rows]
        paths = [self.paths[row] for row in rows]
        return ImageFolder(
            paths, self.labels[rows], self.preparation, self.batch_size, self.shuffle, self.seed
        )


@with_hints(**OTHER_ARGUMENTS)
def image_folder(path, size=None, mode=None, *, crop=False, batch_size=32, shuffle=True, seed=0):
    """The images of a folder that has one folder for each class.

    Parameters
    ----------
    path : str or path
        The names of its folders are the classes, all that is in them are images. Hidden files and
        folders are left out, and so are files beside the folders of classes.
    size, mode, crop : as for `load_images`
    batch_size : int
    shuffle : bool or 'once'
        Whether each epoch has an order of its own. 'once': one mixed order for all, as a
        `Checkpoint` needs it.
    seed : int
        Of the order.

    Returns
    -------
    ImageFolder
        For `network.fit(folder)`: no more than a batch of it is in memory. `folder.load()` reads
        all of it, for images that fit there: that is faster.

    Raises
    ------
    ImportError
        Without Pillow, where size or mode are None; iterating needs it anyhow.
    OSError, ValueError
        For a folder without folders, a class without images, and files that are no images, as
        far as they are looked at: all of each is read when `fit` begins, before it trains.
    """
    path = as_path(path, "path")
    names = [name for name in visible(path) if os.path.isdir(os.path.join(path, name))]
    if not names:
        raise ValueError(f"{path} has no folders in it, expected one for each class of images")
    paths: list[str] = []
    labels: list[str] = []
    for name in names:
        files = files_in(os.path.join(path, name))
        if not files:
            folder = os.path.join(path, name)
            raise ValueError(f"{folder} has no images, expected some for each class")
        paths += files
        labels += [name] * len(files)
    list_images(paths)
    preparation = prepare_for(paths, size, mode, crop)
    return ImageFolder(paths, labels, preparation, batch_size, shuffle, seed)
