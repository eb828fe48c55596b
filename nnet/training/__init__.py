"""Training: networks, a call of fit, and what it is made of.

network.py     NeuralNetwork: fit, predict, state_dict, save
run.py         TrainingRun: one call of fit
setup.py       how layers are set up, and put back where that fails
model.py       Model: layers that are set up, and what they compute
layouts.py     which axes of X are what
data.py        the checks of X and y
optimizers.py  SGD, Adam, AdamW, RMSprop
schedules.py   learning rates that change
clipping.py    gradients that are too large
progress.py    what callbacks are told
gradients.py   gradients by central differences
"""
