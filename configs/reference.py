"""CNMF+1x1 by the recipe of the authors' released code, which differs from the paper's text.

One augmentation draw a batch, larger rate for NMF, plateau rule on the training loss of all 50,000 images,
statistics of the test batch in evaluation (so that the accuracy depends on which 50 images share a batch). Nothing
is held out: the result is that of the last epoch.

Command: python main.py --config=configs/reference.py --workdir=runs/reference
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The base configuration, as the released code has it."""
    config = base.get_config()
    config.num_validation = 0
    config.eval_batch_size = 50
    config.model.batch_statistics = "batch"
    config.augmentation.per = "batch"
    config.optimizer.learning_rate.nmf = 0.01
    config.optimizer.plateau.loss = "train"
    return config
