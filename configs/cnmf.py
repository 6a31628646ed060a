"""CNMF, 153,056 parameters, by the paper's recipe on CIFAR-10 (paper, figure 5: 81.5 %).

Command: python main.py --config=configs/cnmf.py --workdir=runs/cnmf
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration, with other layers."""
    config = base.get_config()
    config.model.layer = "nmf"
    config.model.mixing = False
    return config
