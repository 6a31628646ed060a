"""Each gradient against the exact one of the loss, layer by layer, and accuracy after training.

Command: python main.py --config=configs/experiments/gradients.py --workdir=runs/gradients
On CIFAR-10, for twenty epochs: --config.dataset=cifar10 --config.train_images=0 --config.test_images=0
--config.validation_images=5000 --config.epochs=20
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Which gradients, on how many images, and the budget of the trainings of CNMF+1x1."""
    return ConfigDict(
        {
            "experiment": "gradients",
            "states": ("untrained", "trained"),  # of the network whose gradients are compared
            "iterations": (5, 10, 20, 50, 100),  # of each layer
            "implicit_steps": (1, 2, 4, 8),  # of conjugate gradients
            "phantom_steps": (2, 5),  # last iterations that the gradient goes through
            "shown": 20,  # iterations of the first table
            "batches": 3,  # of which the angles are measured
            "batch_size": 20,  # images of each of them
            "trained_iterations": 20,  # in the trainings
            "trainings": (
                "approximate", "scaled", "implicit 1", "implicit 2", "implicit 4", "implicit 8", "phantom 2",
                "phantom 5", "unrolled",
            ),
            "seed": 0,  # of the trainings and the batches
            "dataset": "mnist5k",  # as in configs/base.py
            "data_dir": "",  # folder of the TFDS sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
            "train_images": 1000,  # 0: all but those of validation
            "validation_images": 500,
            "test_images": 1000,  # 0: all
            "epochs": 6,
        }
    )  # fmt: skip
