"""CNMF+1x1 on 5,000 real MNIST digits (3,500 / 500 / 1,000), minutes on a laptop.

Command: python main.py --config=configs/quickstart.py --workdir=runs/quickstart
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration, on digits, with a short one-cycle schedule."""
    config = base.get_config()
    config.dataset = "mnist5k"
    config.num_validation = 500
    config.num_epochs = 10
    config.augmentation.crop = 24
    config.augmentation.flip = False
    config.augmentation.brightness = 0.0
    config.augmentation.contrast = 0.0
    config.augmentation.saturation = 0.0
    config.augmentation.hue = 0.0
    config.optimizer.learning_rate.nmf = 0.02
    config.optimizer.learning_rate.mixing = 0.004
    config.optimizer.learning_rate.batch_norm = 0.004
    config.optimizer.eps = 1e-10
    config.optimizer.schedule = "one_cycle"
    return config
