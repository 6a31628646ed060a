"""CNMF+1x1, 160,078 parameters, with both signs of each block's input side by side, in place of the positive part.

Everything else, and the training, as in configs/fast/cnmf_1x1.py. --config.model.layer=conv trains its CNN twin.
Test accuracy on the JPEG copy of CIFAR-10 (seed 0): 74.9 % in 20 minutes on one core of a CPU.
Command: python main.py --config=configs/beyond/split.py --workdir=runs/beyond-split
"""

from configs.base import variant
from configs.fast.recipe import RECIPE

# So many that there are at most 170,000 parameters.
get_config = variant(RECIPE, {"model.rectification": "on_off", "model.features": (32, 48, 48)})
