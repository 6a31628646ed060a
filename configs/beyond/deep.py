"""CNMF+1x1, 166,698 parameters, with four blocks of 3x3 kernels, two of them with residual paths, scaled gradients.

Whitened 4x4 patches, stride 2, 24 components. Everything else, and the training, as in configs/fast/cnmf_1x1.py.
--config.model.layer=conv trains its CNN twin.
Test accuracy on the JPEG copy of CIFAR-10 (seed 0): 78.0 % in 20 minutes on one core of a CPU.
Command: python main.py --config=configs/beyond/deep.py --workdir=runs/beyond-deep
"""

from configs.base import variant
from configs.fast.recipe import RECIPE

get_config = variant(
    RECIPE,
    {
        "model.preprocessing": "whitening",
        "model.whitening": (4, 2, 24),
        "model.features": (40, 40, 64, 64, 92),
        "model.kernels": (3, 3, 3, 3, 0, 1),
        "model.padding": "SAME",
        "model.pooling": "none,average,none,average,none,none",
        "model.residual": True,
        "model.gradient": "scaled",
    },
)
