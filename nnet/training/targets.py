"""Targets and scores: which shapes of y go with what the last layer takes."""

import numpy as np

ADVICE = ": put a Flatten and a Linear layer before it"


def target_shapes(loss, scores_shape, signals):
    """The shapes that one target may have, the one that `build` chooses first.

    That of the scores, of labels without the axis of classes. Signals have no height; an axis of
    one value may be missing.

    Parameters
    ----------
    loss : LossMixin
    scores_shape : tuple
        Of one image.
    signals : bool
        See `Layer`.
    """
    shape = scores_shape[1:] if loss.is_classifier else scores_shape
    shapes = [shape]
    if signals and len(scores_shape) == 3 and scores_shape[1] == 1:
        shapes.insert(0, (*shape[:-2], shape[-1]))
    if not loss.is_classifier and scores_shape[:1] == (1,):
        shapes += [shape[1:] for shape in shapes]
        if scores_shape == (1,):
            shapes.reverse()
    return shapes


def check_targets(name, loss, scores_shape, signals, classes, target_shape, labels=None):
    """Refuse scores that the loss cannot compare with the targets there are, if there are some.

    Parameters
    ----------
    name : str
        What messages call the loss.
    loss, scores_shape, signals : as for `target_shapes`
    classes : None or array
    target_shape : None or tuple
        Of one target.
    labels : None or array (n_imgs, ...)
        Of this shape each, if they are there: errors say what makes other ones of them.

    Raises
    ------
    ValueError
    """
    if classes is None and target_shape is None:
        return
    if loss.is_classifier != (classes is not None):
        kind = "labels" if classes is not None else "values"
        raise ValueError(f"{name} does not fit y, expected a loss for {kind}, as in fit")
    shapes = target_shapes(loss, scores_shape, signals)
    if target_shape is None:
        target_shape = shapes[0]
    if target_shape in shapes and (classes is None or scores_shape[0] == len(classes)):
        return
    gets = f"{name} gets {scores_shape} values for each image"
    if classes is None:
        raise ValueError(f"{gets}, expected {target_shape or (1,)} for the targets of y")
    remedy = "" if labels is None else label_remedy(labels, shapes)
    if remedy or len(scores_shape) == 1 and target_shape:
        what = "pixel" if shapes[0] else "image"
        raise ValueError(
            f"{gets} and y has shape {batch_of(target_shape)}, expected one label per {what}: "
            f"{batch_of(shapes[0])}{remedy}"
        )
    expected = (len(classes), *target_shape)
    advice = ADVICE if len(scores_shape) > 1 and not target_shape else ""
    raise ValueError(f"{gets}, expected {expected} for the {len(classes)} classes of y{advice}")


def check_label_shape(name, labels, target_shape):
    """Refuse an array of labels that has another shape for each image, or none."""
    shape = labels.shape
    if shape and target_shape in (None, shape[1:]):
        return
    what = "" if target_shape else "one label per image: "
    expected, remedy = batch_of(target_shape or ()), label_remedy(labels, [target_shape or ()])
    raise ValueError(f"{name} has shape {shape}, expected {what}{expected}{remedy}")


def label_remedy(labels, shapes):
    """What makes labels of one of these shapes of others, as the end of an error.

    Those may have an axis more, of one label or of one number for each class.
    """
    if labels.ndim < 2 or labels.dtype.kind not in "biuf":
        return ""
    for axis, place in ((1, "[:, 0]"), (-1, "[..., 0]")):
        item_shape = list(labels.shape[1:])
        n_labels = item_shape.pop(min(axis, 0))
        if tuple(item_shape) not in shapes:
            continue
        if n_labels == 1:
            return f", as y{place}" if item_shape else ", as y.ravel()"
        if not np.isin(labels, (0, 1)).all():
            continue
        if (labels.sum(axis=axis) == 1).all():
            return f", as y.argmax(axis={axis}) of one-hot {'pixels' if item_shape else 'rows'}"
        if axis == 1:
            return "; for several labels at once, the last layer is BinaryCrossEntropy()"
    return ""


def batch_of(shape):
    """The shape of any number of images of one shape, as errors show it."""
    return f"({', '.join(map(str, ('n_imgs', *shape)))}{'' if shape else ','})"
