"""Training: losses, the step, the loop, checkpoints."""

from jflow.train.checkpoint import Checkpoints, checkpoints
from jflow.train.errors import NonFiniteError
from jflow.train.files import load, save
from jflow.train.labels import label_params, prepare_optimizer
from jflow.train.loop import fit
from jflow.train.losses import negative_log_likelihood
from jflow.train.recipes import adam, adamax
from jflow.train.step import TrainState, init_state, make_train_step

# What DESIGN.md calls it; the step itself is what this returns.
train_step = make_train_step

__all__ = [
    "Checkpoints",
    "NonFiniteError",
    "TrainState",
    "adam",
    "adamax",
    "checkpoints",
    "fit",
    "init_state",
    "label_params",
    "load",
    "make_train_step",
    "negative_log_likelihood",
    "prepare_optimizer",
    "save",
    "train_step",
]
