"""CNN+1x1, 168,088 parameters, by the paper's recipe on CIFAR-10 (paper, figure 5: 82.8 %).

Command: python main.py --config=configs/cnn_1x1.py --workdir=runs/cnn_1x1
"""

from configs.base import variant

get_config = variant({"model.layer": "conv", "model.mixing": True})
