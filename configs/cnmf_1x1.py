"""CNMF+1x1, 167,886 parameters, by the paper's recipe on CIFAR-10 (paper, figure 5: 83.7 %).

Command: python main.py --config=configs/cnmf_1x1.py --workdir=runs/cnmf_1x1
"""

from configs.base import get_config

__all__ = ["get_config"]
