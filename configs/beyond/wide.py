"""CNMF+1x1, 124,366 parameters, with more features, blocks 2 and 3 in four groups of channels.

Everything else, and the training, as in configs/fast/cnmf_1x1.py. --config.model.layer=conv trains its CNN twin.
Command: python main.py --config=configs/beyond/wide.py --workdir=runs/beyond-wide
"""

from ml_collections import ConfigDict

from configs.fast import recipe


def get_config() -> ConfigDict:
    """The recipe for short budgets, with another network."""
    config = recipe.get_config()
    config.model.features = (64, 96, 128)
    config.model.groups = (1, 4, 4, 1)
    return config
