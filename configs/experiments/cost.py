"""What back-propagation costs (paper, figure 2): memory, time and error of CNN and CNMF, gradient by gradient.

Command: python main.py --config=configs/experiments/cost.py --workdir=runs/cost
Memory and time need no data. The trainings take digits; on CIFAR-10, for twenty epochs: --config.dataset=cifar10
--config.train_images=0 --config.test_images=0 --config.validation_images=5000 --config.epochs=20
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """What is compared, and the budget of the trainings."""
    return ConfigDict(
        {
            "experiment": "cost",
            "parts": ("training", "memory", "time"),
            "networks": ("CNN", "CNN+1x1", "CNMF", "CNMF+1x1"),
            "gradients": ("unrolled", "approximate", "implicit"),  # of the CNMFs: autodiff, one step, implicit
            "shown": 20,  # iterations of the first panel and of the trainings; the paper's
            "iterations": (5, 10, 20, 40, 80),  # of the second panel
            "side": 28,  # pixels of the images that are timed
            "batch_size": 50,  # images that are timed
            "rounds": 15,  # turns
            "seeds": (0,),  # of the trainings
            "dataset": "mnist5k",  # as in configs/base.py
            "data_dir": "",  # folder of the TFDS sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
            "train_images": 1000,  # 0: all but those of validation
            "validation_images": 500,
            "test_images": 1000,  # 0: all
            "epochs": 6,
        }
    )
