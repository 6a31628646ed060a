"""CNMF+1x1, 166,906 parameters, with ten whitened components of 3x3 patches, as ON and OFF channels.

Everything else, and the training, as in configs/fast/cnmf_1x1.py. --config.model.layer=conv trains its CNN twin.
Test accuracy on the JPEG copy of CIFAR-10 (seed 0): 76.8 % in 29 minutes on one core of a CPU.
Command: python main.py --config=configs/beyond/whitening.py --workdir=runs/beyond-whitening
"""

from configs.base import variant
from configs.fast.recipe import RECIPE

# So many that there are at most 170,000 parameters.
get_config = variant(RECIPE, {"model.preprocessing": "whitening", "model.features": (32, 64, 84)})
