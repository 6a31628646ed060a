"""Figure 6: which share of a network's parameters should be in its 1x1 convolutions?

Command: python main.py --config=configs/experiments/variants.py --workdir=runs/variants [--config.data_dir=...]
CNMF+1x1 in several widths and groups, all by the recipe of configs/fast/. A network that is known is not trained again.
About an hour on two idle cores; with --config.widths="(1.0,2.0)" two or three more. The paper's grid of 100:
--config.widths="(1.0,2.0,4.0,8.0)", a day.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Which networks, and the budget of each training."""
    return ConfigDict(
        {
            "experiment": "variants",
            "dataset": "cifar10",  # as in configs/base.py
            "data_dir": "",  # folder of the TFDS sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
            "train_images": 10000,  # 0: all
            "validation_images": 5000,  # choose the epoch, and which variants are on the front
            "test_images": 0,  # 0: all
            "epochs": 3,
            "widths": (1.0,),  # factors on the units, each with all groups
            "groups": (1, 2, 4, 8, 16),  # of the NMF layers
            "mixing_groups": (1, 2, 4, 8, 16),  # of the 1x1 convolutions
            "front_seeds": (1, 2),  # trained beside seed 0 where a variant is on the front; () for none
        }
    )
