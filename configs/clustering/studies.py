"""What the clusterings of Dn2MFGL depend on: the rule's numbers, every term, layers and weights, bad samples.

Command: python main.py --config=configs/clustering/studies.py --config.faces=FOLDER --workdir=runs/studies
FOLDER has jaffe.npz, orl.npz, umist.npz and yale.npz (x and y, as for configs/clustering/dn2mfgl.py); a study runs on
those of its sets that are there. Needs the extra `sklearn`. Writes rule.json, ablation.json and noise.json.
"""

from ml_collections import ConfigDict

from configs.clustering import dn2mfgl


def get_config() -> ConfigDict:
    """The settings of the comparison, and the studies."""
    config = dn2mfgl.get_config()
    config.experiment = "clustering_studies"
    config.studies = "rule,ablation,noise"  # separated by commas
    del config.methods
    return config
