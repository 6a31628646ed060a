"""CNMF+1x1, 165,854 parameters, with four blocks of 3x3 kernels on whitened 3x3 patches at every pixel.

Everything else, and the training, as in configs/fast/cnmf_1x1.py. --config.model.layer=conv trains its CNN twin.
Test accuracy on the JPEG copy of CIFAR-10 (seed 0): 79.1 % in 88 minutes on one core of a CPU; after twenty epochs with
a mirrored border (pad 2), cutout 8 and batches of 128 with 1.5 times the rates, 82.6 %.
Command: python main.py --config=configs/beyond/fine.py --workdir=runs/beyond-fine
"""

from configs.base import variant
from configs.fast.recipe import RECIPE

get_config = variant(
    RECIPE,
    {
        "model.preprocessing": "whitening",
        "model.whitening": (3, 1, 16),
        "model.features": (32, 48, 64, 64, 96),
        "model.kernels": (3, 3, 3, 3, 0, 1),
        "model.padding": "SAME",
        "model.pooling": "average,none,average,average,none,none",
        "model.residual": True,
    },
)
