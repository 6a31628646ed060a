"""CNMF, 153,056 parameters, by the recipe for short budgets on CIFAR-10.

Test accuracy on the JPEG copy of CIFAR-10: 72.0 % (seed 0) in 15 minutes on two cores of a CPU;
with twenty epochs 76.0 ± 0.1 %, three seeds in 2.2 minutes on an H200.
Command: python main.py --config=configs/fast/cnmf.py --workdir=runs/fast-cnmf
"""

from configs.base import variant
from configs.fast.recipe import RECIPE

get_config = variant(RECIPE, {"model.layer": "nmf", "model.mixing": False})
