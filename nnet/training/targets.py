"""Targets and scores: which shapes of y go with what the last layer takes."""

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


def check_targets(name, loss, scores_shape, signals, classes, target_shape):
    """Refuse scores that the loss cannot compare with the targets there are, if there are some.

    Parameters
    ----------
    name : str
        What messages call the loss.
    loss, scores_shape, signals : as for `target_shapes`
    classes : None or array
    target_shape : None or tuple
        Of one target.

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
    if len(scores_shape) == 1 and target_shape:
        raise ValueError(
            f"{gets} and y has shape {batch_of(target_shape)}, expected one label per image: "
            f"(n_imgs,){label_remedy(target_shape, classes.dtype)}"
        )
    expected = (len(classes), *target_shape)
    advice = ADVICE if len(scores_shape) > 1 and not target_shape else ""
    raise ValueError(f"{gets}, expected {expected} for the {len(classes)} classes of y{advice}")


def check_label_shape(name, labels, target_shape):
    """Refuse an array of labels that has another shape for each image, or none."""
    shape = labels.shape
    if shape and target_shape in (None, shape[1:]):
        return
    if target_shape:
        raise ValueError(f"{name} has shape {shape}, expected {batch_of(target_shape)}")
    raise ValueError(
        f"{name} has shape {shape}, expected one label per image: (n_imgs,)"
        + label_remedy(shape[1:], labels.dtype)
    )


def label_remedy(target_shape, dtype):
    """What makes one label of what stands for each image, as the end of an error."""
    if len(target_shape) != 1 or dtype.kind not in "biuf":
        return ""
    return ", as y.ravel()" if target_shape == (1,) else ", as y.argmax(axis=1) of one-hot rows"


def batch_of(shape):
    """The shape of any number of images of one shape, as errors show it."""
    return f"({', '.join(map(str, ('n_imgs', *shape)))}{'' if shape else ','})"
