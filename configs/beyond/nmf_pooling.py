"""CNMF+1x1, 169,182 parameters, with pooling by NMF.

Everything else, and the training, as in configs/fast/cnmf_1x1.py. --config.model.layer=conv trains its CNN twin.
Test accuracy on the JPEG copy of CIFAR-10 (seed 0): 74.3 % in 17 minutes on one core of a CPU.
Command: python main.py --config=configs/beyond/nmf_pooling.py --workdir=runs/beyond-nmf_pooling
"""

from configs.base import variant
from configs.fast.recipe import RECIPE

# So many that there are at most 170,000 parameters.
get_config = variant(RECIPE, {"model.pooling": "nmf", "model.features": (32, 64, 80)})
