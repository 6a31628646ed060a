"""CNMF+1x1, 160,078 parameters, with both signs of each block's input side by side, in place of the positive part.

Everything else, and the training, as in configs/fast/cnmf_1x1.py. --config.model.layer=conv trains its CNN twin.
Command: python main.py --config=configs/beyond/split.py --workdir=runs/beyond-split
"""

from ml_collections import ConfigDict

from configs.fast import recipe


def get_config() -> ConfigDict:
    """The recipe for short budgets, with another network."""
    config = recipe.get_config()
    config.model.rectification = "on_off"
    # So many that there are at most 170,000 parameters.
    config.model.features = (32, 48, 48)
    return config
