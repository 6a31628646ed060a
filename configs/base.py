"""Every setting with its unit: the paper's recipe for CNMF+1x1 on CIFAR-10 (paper, section 2).

Command: python main.py --config=configs/base.py --workdir=runs/base. The other files name what they change.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

BASE: dict[str, Any] = {
    # cifar10, cifar100, fashion_mnist, mnist (TFDS), mnist5k (built in), or the path of an .npz file
    # with x_train, y_train, x_test, y_test, of a .pack file (make pack), or of a folder of pictures,
    # one subfolder a class.
    "dataset": "cifar10",
    "data_dir": "",  # folder of the TFDS sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets
    "num_validation": 5000,  # training images held out, stratified; they choose, the test set only reports
    "split_seed": 0,  # of the held-out images, the same for all seeds
    "seed": 0,  # of initial weights, order of the data and augmentation
    "num_seeds": 1,  # seeds seed, seed + 1, ... trained at once, as one program
    "num_epochs": 500,  # passes through the training images, at most
    "batch_size": 50,  # images
    "eval_batch_size": 500,  # images
    "log_every_steps": 20,  # steps between two updates of the progress bar
    "save_every_steps": 0,  # steps between checkpoints within an epoch; 0: none within an epoch
    "save_every_epochs": 1,  # epochs between checkpoints at the end of one; the last epoch is always saved
    "steps_per_call": 1,  # steps in one compiled program; more than an epoch has: a whole epoch. Signals,
    # progress and saving wait for its end (docs/gpu.md)
    "matmul_precision": "float32",  # of float32 products where the device would round: "float32", or "tensorfloat32"
    "model": {
        "layer": "nmf",  # "nmf" or "conv"
        "mixing": True,  # a 1x1 convolution after each layer
        "features": (32, 64, 96),  # of all blocks but the last, which has one unit a class
        "kernels": (5, 5, 0, 1),  # sides, one a block; 0: the whole map
        "padding": "VALID",  # of the kernels, "VALID" or "SAME"
        "width": 1.0,  # factor on the features
        "groups": (1,),  # one number for all blocks that it divides, or one a block
        "mixing_groups": (1,),  # of the 1x1 convolutions, by the same rule
        "pooling": "average",  # "average", "max", "nmf", "conv", "none"; of all blocks but the last two, which
        # have none. One a block: "average,none,none,none"
        "preprocessing": "none",  # of the images: "none", "on_off", "whitening"
        "whitening": (3, 1, 10),  # side of the patches, pixels between two of them, components kept
        "rectification": "relu",  # what later blocks start with: "relu", or "on_off" (both signs apart)
        "residual": False,  # whether blocks add their input, weighted positively, where shapes allow
        "batch_statistics": "running",  # "running", or "batch": of the test batch, as in the authors' code
        "batch_norm_momentum": 0.9,  # share of the old running statistics kept at each step
        "use_bias": True,  # of convolutions in place of NMF
        "num_iters": 20,  # iterations of the inference
        "epsilon": 1.0,  # step size of the inference, in (0, 1], in the paper's convention
        "gradient": "approximate",  # "approximate", "scaled", "unrolled", "implicit"
        "cg_steps": 4,  # of the implicit gradient
        "acceleration": "none",  # "none", "adaptive", "multistep"
        "exponent": 8.0,  # plain steps in one of "multistep", the largest exponent of "adaptive"; at least 1
        "tolerance": 0.0,  # nats; above 0: an input rests once its certificate is that small
        "products": "full",  # of the inference: "full" (float32), "tf32" or "bfloat16"
        "implementation": "xla",  # of the inference: "xla", or "pallas", a kernel for one CUDA GPU
        "num_spikes": 0,  # spikes of each input of each NMF layer in place of iterations; 0: iterations
        "spike_epsilon": 1.0,  # step of the first spike, above 0
        "spike_decay": 0.5,  # spike t has the step spike_epsilon t^-spike_decay, at least 0
        "input_spikes": 0,  # spikes that each image is replaced by; 0: the image itself
        "block_settings": (),  # which of num_iters ... implementation differ in which block, one dict a block:
        # ({"num_iters": 40}, {}, {}, {})
        "logit_scale": 1.0,  # factor on the outputs of the last block, above 0
        "init_exponent": 1.0,  # raw weights of NMF start at U(0, 1) to this power, above 0
        "local_learning": "none",  # "none", "kl", "mse"
    },
    "augmentation": {
        "crop": 28,  # pixels, side of a random window (centred in evaluation); 0: whole images
        "pad": 0,  # pixels of mirrored border that the random window may reach into; needs a crop
        "flip": True,  # left to right, half of the images
        "alternate": False,  # mirror each image in every second epoch, in place of a draw
        "brightness": 0.5,  # factor drawn from 1 +- this
        "contrast": 0.1,  # factor drawn from 1 +- this
        "saturation": 0.1,  # factor drawn from 1 +- this
        "hue": 0.15,  # turns of the colour circle, drawn from +- this
        "cutout": 0,  # pixels, side of a square at a random place set to the mean colour; 0: none
        "per": "image",  # one draw an "image", or a "batch" as in the authors' code
    },
    "loss": {
        "mse_weight": 0.5,  # of the squared error beside the cross entropy, 0 or more. Losses that are printed,
        # recorded and watched by the plateau rule have the paper's 0.5 whatever stands here, to compare runs by
    },
    "optimizer": {  # Adam
        "learning_rate": {"nmf": 0.001, "mixing": 0.001, "batch_norm": 0.001},  # of each parameter group
        "b1": 0.9,  # share of the old mean of the gradients, in [0, 1)
        "b2": 0.999,  # share of the old mean of their squares, in [0, 1)
        "eps": 1e-8,  # the first layer's gradients are of its order
        "schedule": "plateau",  # "constant", "plateau", "one_cycle"
        "plateau": {
            "loss": "validation",  # which loss must fall: "validation" or "train"
            "factor": 0.1,  # on all rates, in (0, 1)
            "patience": 10,  # epochs without improvement that are tolerated, 0 or more
            "threshold": 1e-4,  # relative fall that counts as improvement, in (0, 1)
            "smallest_rate": 1e-9,  # above 0; training ends when the largest rate gets here
        },
        "one_cycle": {
            "warmup_share": 0.3,  # of the steps, in which the rates rise, in (0, 1)
            "start_divisor": 25.0,  # above 0: peak rate over first rate
            "end_divisor": 1e4,  # above 0: first rate over last rate
        },
    },
}

# For other recipes: the colours as they are.
NO_JITTER = {f"augmentation.{name}": 0.0 for name in ("brightness", "contrast", "saturation", "hue")}


def get_config() -> ConfigDict:
    """The base configuration."""
    return ConfigDict(BASE)


def variant(*changes: Mapping[str, Any]) -> Callable[[], ConfigDict]:
    """A `get_config` with other values by name, such as {"model.width": 2.0}; of two for one name the later holds."""

    def changed() -> ConfigDict:
        config = get_config()
        for part in changes:
            for name, value in part.items():
                *parents, setting = name.split(".")
                place = functools.reduce(getattr, parents, config)
                getattr(place, setting)  # an AttributeError if there is none of that name
                setattr(place, setting, value)
        return config

    return changed
