"""CNMF+1x1 by the recipe of the authors' released code, which differs from the paper's text.

One augmentation draw a batch, larger rate for NMF, plateau rule on the training loss of all 50,000 images,
statistics of the test batch in evaluation (so that the accuracy depends on which 50 images share a batch). Nothing
is held out: the result is that of the last epoch.

Command: python main.py --config=configs/reference.py --workdir=runs/reference
"""

from configs.base import variant

get_config = variant(
    {
        "num_validation": 0,
        "eval_batch_size": 50,
        "model.batch_statistics": "batch",
        "augmentation.per": "batch",
        "optimizer.learning_rate.nmf": 0.01,
        "optimizer.plateau.loss": "train",
    },
)
