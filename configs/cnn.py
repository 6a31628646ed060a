"""CNN, 153,258 parameters, by the paper's recipe on CIFAR-10 (paper, figure 5: 81.0 %).

Command: python main.py --config=configs/cnn.py --workdir=runs/cnn
"""

from configs.base import variant

get_config = variant({"model.layer": "conv", "model.mixing": False})
