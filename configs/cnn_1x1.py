"""CNN+1x1, 168,088 parameters, by the paper's recipe on CIFAR-10 (paper, figure 5: 82.8 %).

Command: python main.py --config=configs/cnn_1x1.py --workdir=runs/cnn_1x1
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration, with other layers."""
    config = base.get_config()
    config.model.layer = "conv"
    config.model.mixing = True
    return config
