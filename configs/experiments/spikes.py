"""Trained networks whose layers count spikes instead of iterating: accuracy, divergence, noise, operations.

Command: python main.py --config=configs/experiments/spikes.py --workdir=runs/spikes [--config.data_dir=...]
The networks are those of the package; a number that is known is not measured again. 110 minutes on two busy cores.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Which networks, images, numbers of spikes and steps."""
    return ConfigDict(
        {
            "experiment": "spikes",
            "data_dir": "",  # folder of the TFDS sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
            "dataset": "",  # as in configs/base.py; empty: what the networks were trained on
            "networks": ("cnmf_1x1", "cnmf"),  # of `deepnmf_jax.pretrained_names`, with NMF layers
            "images": 300,  # of the test set, the first ones
            "batch_size": 50,  # images
            "seed": 0,  # of the spikes and the noise
            "spikes": (1, 3, 10, 30, 100, 300, 1000, 3000, 4800),  # of each layer
            "steps": ((1.0, 0.5), (1.0, 0.75)),  # epsilon and decay
            "total": 5.0,  # constant steps of total / spikes too: together as far as so many iterations; 0: none
            "iterations": (1, 2, 3, 5, 10, 20, 40),  # of each layer, for comparison
            "rows": 200,  # inputs of each layer, for its divergence
            "noise": {  # levels of each kind of deepnmf_jax/experiments/noise.py; () for none
                "uniform": (0.2, 0.4, 0.6),
                "picture": (0.2, 0.4, 0.6),
                "holes": (0.2, 0.4, 0.6),
                "filled_holes": (0.2, 0.4, 0.6),
                "gaussian": (0.04, 0.08, 0.16),
                "fgsm": (0.0005, 0.001, 0.002, 0.004),  # one step against the iterating network
            },
            "noise_spikes": 1000,  # of each layer, in noise, with constant steps of total / spikes
            "input_spikes": (100, 300, 1000, 3000, 10000),  # the image replaced by so many; layers iterate
        }
    )
