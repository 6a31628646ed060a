"""Clusterings of digits, and of the face files named by `faces`, by Dn2MFGL and by what it is compared with.

Command: python main.py --config=configs/clustering/dn2mfgl.py --workdir=runs/clustering
Faces: --config.faces=faces/jaffe.npz,faces/orl.npz or a folder; each .npz has x (n_samples, n_features or images) and
y (n_samples,). Needs the extra `sklearn`. Writes results.json and table.md and, of two-layer Dn2MFGL on each set, its
codes and dictionaries (.npz) with their pictures. docs/reports/clustering.md has the scores.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The comparison's settings."""
    return ConfigDict(
        {
            "experiment": "clustering",  # which module of deepnmf_jax/experiments runs
            "digits": True,  # whether the digits that ship with scikit-learn are among the sets
            "faces": "",  # .npz files, or folders of them, separated by commas
            "num_samples": 0,  # of every set, the first ones; 0: all
            "methods": "",  # names from deepnmf_jax/experiments/clustering.py, separated by commas; empty: all
            "hidden": 150,  # components of the first layer, at most 4/5 of the features
            "num_seeds": 5,  # factorizations of every method
            "num_kmeans": 10,  # k-means runs of one start each on the codes of every factorization
            "seed": 0,  # of the first factorization
            "n_neighbors": 5,  # of the graph
            "max_iter": 0,  # sweeps of the factorizations at most; 0: the estimators' own limits
        }
    )
