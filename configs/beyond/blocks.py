"""CNMF+1x1, 155,454 parameters, with three blocks of 3x3 kernels, one residual path, whitened 4x4 patches, stride 2.

Everything else, and the training, as in configs/fast/cnmf_1x1.py. --config.model.layer=conv trains its CNN twin.
Test accuracy on the JPEG copy of CIFAR-10 (seed 0): 78.3 % in 15 minutes on one core of a CPU; with twenty epochs
83.2 %; with forty, a mirrored border (pad 2) and cutout 8, 83.4 %.
Command: python main.py --config=configs/beyond/blocks.py --workdir=runs/beyond-blocks
"""

from configs.base import variant
from configs.fast.recipe import RECIPE

get_config = variant(
    RECIPE,
    {
        "model.preprocessing": "whitening",
        "model.whitening": (4, 2, 16),
        "model.features": (48, 64, 64, 96),
        "model.kernels": (3, 3, 3, 0, 1),
        "model.padding": "SAME",
        "model.pooling": "none,average,average,none,none",
        "model.residual": True,
    },
)
