"""Test accuracy of the paper's four networks (figure 5), with deviations and parameters.

Command: python main.py --config=configs/experiments/accuracy.py --workdir=runs/accuracy
Seconds, from the committed runs. Fashion-MNIST (appendix A): --config.dataset=fashion_mnist --config.epochs=5
CIFAR-100 is trained, twelve runs of half an hour to two hours on two cores: --config.dataset=cifar100
--config.data_dir=...
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Which networks, data set and budget."""
    return ConfigDict(
        {
            "experiment": "accuracy",
            "networks": ("cnmf_1x1", "cnn_1x1", "cnmf", "cnn"),
            "seeds": (0, 1, 2),
            "committed": True,  # whether runs in docs/results/accuracy are taken in place of training them anew
            "dataset": "cifar10",  # as in configs/base.py
            "data_dir": "",  # folder of the TFDS sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
            "train_images": 0,  # 0: all but those of validation
            "validation_images": 5000,
            "test_images": 0,  # 0: all
            "epochs": 20,
        }
    )
