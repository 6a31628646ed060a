"""Is a network with NMF layers more robust to noise than one with convolutions?

Command: python main.py --config=configs/experiments/robustness.py --workdir=runs/robustness [--config.data_dir=...]
Accuracy against the level of six kinds of noise, of networks of the package and of networks trained for this, with and
without noise. A curve that is known is not measured again. About an hour on two idle cores; `residual` and its twin,
--config.networks="('residual','residual_cnn')", take another four hours of a core. With all images and twenty epochs,
as the networks of the package, about two days.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Which networks, the budget of their training, and which noise."""
    return ConfigDict(
        {
            "experiment": "robustness",
            "dataset": "cifar10",  # as in configs/base.py
            "data_dir": "",  # folder of the TFDS sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
            "train_images": 10000,  # 0: all
            "validation_images": 1000,  # choose the epoch; noisy where the training is
            "test_images": 1000,  # 0: all
            "epochs": 3,
            "pretrained": ("cnn", "cnmf", "cnn_1x1", "cnmf_1x1", "residual"),  # of `pretrained_names`; () for none
            "networks": ("cnn", "cnmf", "cnn_1x1", "cnmf_1x1"),  # trained; () for none; "residual", "residual_cnn"
            "num_seeds": 3,  # of each trained network, 0, 1, ..., as one program
            "train_noise": ("none", "uniform"),  # trained without, and with levels drawn evenly up to train_level
            "train_level": 0.5,
            "statistics": ("running",),  # of batch norm in testing; "batch": those of the test batch, as the authors'
            "batch_size": 250,  # images of a test batch
            "seed": 0,  # of the noise in testing and in training images; all networks see the same
            "levels": {  # beside level 0, increasing
                "uniform": (0.15, 0.3, 0.5, 0.75),
                "picture": (0.1, 0.2, 0.3, 0.5),
                "holes": (0.1, 0.25, 0.5, 0.75),
                "filled_holes": (0.1, 0.25, 0.5, 0.75),
                "gaussian": (0.04, 0.1, 0.2, 0.4),
                "fgsm": (0.0005, 0.001, 0.002, 0.004),
            },
        }
    )
