"""Section 4.2: which reading of "trained only based on the local rule" gives the paper's 32 %?

Command: python main.py --config=configs/experiments/local_learning.py --workdir=runs/local_learning
CNMF with local rules in all blocks, or all but the last, with and without labels in batch norm; and what a linear
read-out makes of the features that were learned. About 15 minutes on two cores. All 45,000 images for twenty epochs:
--config.train_images=0 --config.validation_images=5000 --config.epochs=20, six hours.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Which readings, and the budget of each training."""
    return ConfigDict(
        {
            "experiment": "local_learning",
            "dataset": "cifar10",  # as in configs/base.py
            "data_dir": "",  # folder of the TFDS sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
            "train_images": 10000,  # 0: all
            "validation_images": 1000,  # choose the epoch and the best readings
            "test_images": 2000,  # 0: all
            "epochs": 3,
            "network": "fast/cnmf",  # of configs/
            "rules": ("kl", "mse"),  # the local rules
            "best": 2,  # readings that are trained with further seeds
            "best_seeds": (1, 2),  # which; () for none
            "readout_steps": 300,  # of accelerated gradient descent on all training images, for the linear read-out
        }
    )
