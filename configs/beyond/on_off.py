"""CNMF+1x1, 165,394 parameters, with the pixels, normalised, as ON and OFF channels.

Everything else, and the training, as in configs/fast/cnmf_1x1.py. --config.model.layer=conv trains its CNN twin.
Test accuracy on the JPEG copy of CIFAR-10 (seed 0): 71.7 % in 13 minutes on one core of a CPU.
Command: python main.py --config=configs/beyond/on_off.py --workdir=runs/beyond-on_off
"""

from configs.base import variant
from configs.fast.recipe import RECIPE

# So many that there are at most 170,000 parameters.
get_config = variant(RECIPE, {"model.preprocessing": "on_off", "model.features": (32, 64, 92)})
