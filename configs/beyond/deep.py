"""CNMF+1x1, 166,698 parameters, with four blocks of 3x3 kernels, two of them with residual paths, scaled gradients.

Whitened 4x4 patches, stride 2, 24 components. Everything else, and the training, as in configs/fast/cnmf_1x1.py.
--config.model.layer=conv trains its CNN twin.
Test accuracy on the JPEG copy of CIFAR-10 (seed 0): 78.0 %.
Command: python main.py --config=configs/beyond/deep.py --workdir=runs/beyond-deep
"""

from ml_collections import ConfigDict

from configs.fast import recipe


def get_config() -> ConfigDict:
    """The recipe for short budgets, with another network."""
    config = recipe.get_config()
    config.model.preprocessing = "whitening"
    config.model.whitening = (4, 2, 24)
    config.model.features = (40, 40, 64, 64, 92)
    config.model.kernels = (3, 3, 3, 3, 0, 1)
    config.model.padding = "SAME"
    config.model.pooling = "none,average,none,average,none,none"
    config.model.residual = True
    config.model.gradient = "scaled"
    return config
