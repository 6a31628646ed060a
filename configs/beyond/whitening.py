"""CNMF+1x1, 166,906 parameters, with ten whitened components of 3x3 patches, as ON and OFF channels.

Everything else, and the training, as in configs/fast/cnmf_1x1.py. --config.model.layer=conv trains its CNN twin.
Command: python main.py --config=configs/beyond/whitening.py --workdir=runs/beyond-whitening
"""

from ml_collections import ConfigDict

from configs.fast import recipe


def get_config() -> ConfigDict:
    """The recipe for short budgets, with another network."""
    config = recipe.get_config()
    config.model.preprocessing = "whitening"
    # So many that there are at most 170,000 parameters.
    config.model.features = (32, 64, 84)
    return config
