"""CNMF+1x1, 169,182 parameters, with pooling by NMF.

Everything else, and the training, as in configs/fast/cnmf_1x1.py. --config.model.layer=conv trains its CNN twin.
Command: python main.py --config=configs/beyond/nmf_pooling.py --workdir=runs/beyond-nmf_pooling
"""

from ml_collections import ConfigDict

from configs.fast import recipe


def get_config() -> ConfigDict:
    """The recipe for short budgets, with another network."""
    config = recipe.get_config()
    config.model.pooling = "nmf"
    # So many that there are at most 170,000 parameters.
    config.model.features = (32, 64, 80)
    return config
