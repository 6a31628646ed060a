"""CNN, 153,258 parameters, by the paper's recipe on CIFAR-10 (paper, figure 5: 81.0 %).

Command: python main.py --config=configs/cnn.py --workdir=runs/cnn
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration, with other layers."""
    config = base.get_config()
    config.model.layer = "conv"
    config.model.mixing = False
    return config
