"""What options are called elsewhere: understood where it is sure what is meant, else suggested."""

from nnet.layers.hints import near_word

OTHERS = {
    "--learning-rate": ("--lr", "-lr", "--learning-rate-init", "--lr-init"),
    "--epochs": ("-e", "--n-epochs", "--num-epochs", "--max-epochs", "--max-iter"),
    "--batch-size": ("-b", "-bs", "--batch", "--bs", "--batchsize"),
    "--weight-decay": ("--wd", "--l2", "--alpha"),
    "--optimizer": ("--optim", "--opt", "--optimiser", "--solver"),
    "--augment": ("--augmentation", "--augmentations"),
    "--early-stopping": ("--patience", "--early-stop"),
    "--test-fraction": ("--test-size", "--test-split"),
    "--validation-fraction": ("--validation-split", "--val-split", "--val-fraction"),
    "--seed": ("--random-state", "--random-seed"),
    "--output": ("--out", "--output-file"),
    "--threads": ("--n-threads", "--num-threads", "--n-jobs"),
    "--size": ("--image-size", "--img-size", "--imgsz", "--img", "--resize", "--input-size"),
    "--mode": ("--color-mode", "--colour-mode"),
    "--resume": ("--checkpoint",),
    "--y": ("--label", "--labels", "--target", "--targets"),
    "--format=csv": ("--csv",),
    "--format=json": ("--json",),
}
SPELLINGS = {other: option for option, others in OTHERS.items() for other in others}


def usual(argument):
    """An argument with the option's own name: --batch_size, -lr and --LR are understood."""
    name, equals, value = argument.partition("=")
    if not name.startswith("--"):
        return SPELLINGS.get(argument, argument)
    name = name.lower().replace("_", "-")
    return f"{SPELLINGS.get(name, name)}{equals}{value}"


def near(arguments, options):
    """Which of some options the first unknown one may mean, as the end of an error."""
    for argument in arguments:
        if argument.startswith("--"):
            names = [option[2:] for option in options if option.startswith("--")]
            meant = near_word(argument[2:].partition("=")[0], names)
            return f": did you mean --{meant}?" if meant else ""
    return ""
