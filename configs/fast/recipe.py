"""One recipe for short budgets, the same for the four networks. docs/recipe.md tells how it was found.

Against the paper's: sparser initial weights, a factor on the logits, 5 iterations, one-cycle rates, Adam's eps, batches
of 64, no colour jitter. Command: the four configs beside this file.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration (CNMF+1x1 on CIFAR-10), trained fast."""
    config = base.get_config()
    config.num_epochs = 5
    config.batch_size = 64
    config.model.num_iters = 5
    config.model.init_exponent = 3.0
    config.model.logit_scale = 16.0
    config.augmentation.alternate = True
    config.augmentation.brightness = 0.0
    config.augmentation.contrast = 0.0
    config.augmentation.saturation = 0.0
    config.augmentation.hue = 0.0
    config.optimizer.learning_rate.nmf = 0.04
    config.optimizer.learning_rate.mixing = 0.008
    config.optimizer.learning_rate.batch_norm = 0.008
    config.optimizer.eps = 1e-10
    config.optimizer.schedule = "one_cycle"
    config.optimizer.one_cycle.warmup_share = 0.1
    return config
