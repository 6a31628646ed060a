"""CNMF+1x1, 124,366 parameters, with more features, blocks 2 and 3 in four groups of channels.

Everything else, and the training, as in configs/fast/cnmf_1x1.py. --config.model.layer=conv trains its CNN twin.
Test accuracy on the JPEG copy of CIFAR-10 (seed 0): 75.8 % in 18 minutes on one core of a CPU.
Command: python main.py --config=configs/beyond/wide.py --workdir=runs/beyond-wide
"""

from configs.base import variant
from configs.fast.recipe import RECIPE

get_config = variant(RECIPE, {"model.features": (64, 96, 128), "model.groups": (1, 4, 4, 1)})
