"""One recipe for short budgets, the same for the four networks. docs/reports/recipe.md tells how it was found.

Against the paper's: sparser initial weights, a factor on the logits, 5 iterations, one-cycle rates, Adam's eps, batches
of 64, no colour jitter. Command: the four configs beside this file.
"""

from configs.base import NO_JITTER, variant

RECIPE = {
    **NO_JITTER,
    "num_epochs": 5,
    "batch_size": 64,
    "model.num_iters": 5,
    "model.init_exponent": 3.0,
    "model.logit_scale": 16.0,
    "augmentation.alternate": True,
    "optimizer.learning_rate.nmf": 0.04,
    "optimizer.learning_rate.mixing": 0.008,
    "optimizer.learning_rate.batch_norm": 0.008,
    "optimizer.eps": 1e-10,
    "optimizer.schedule": "one_cycle",
    "optimizer.one_cycle.warmup_share": 0.1,
}

get_config = variant(RECIPE)
