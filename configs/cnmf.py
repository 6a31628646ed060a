"""CNMF, 153,056 parameters, by the paper's recipe on CIFAR-10 (paper, figure 5: 81.5 %).

Command: python main.py --config=configs/cnmf.py --workdir=runs/cnmf
"""

from configs.base import variant

get_config = variant({"model.layer": "nmf", "model.mixing": False})
