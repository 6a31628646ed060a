"""Clusterings of digits, and of the .npz files named in `files`, by Dn2MFGL and what it is compared with.

Command: python main.py --config=configs/clustering/dn2mfgl.py --workdir=runs/clustering
Faces: --config.files=faces/jaffe.npz,faces/orl.npz, each with x (n_samples, n_features) and y (n_samples,).
Needs the extra `sklearn`. Writes results.json, table.md and two pictures a set.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The comparison's settings."""
    return ConfigDict(
        {
            "experiment": "clustering",
            "digits": True,  # whether the digits that ship with scikit-learn are among the sets
            "num_samples": 0,  # of every set, the first ones; 0: all
            "files": "",  # paths of .npz files, separated by commas
            "methods": "k-means,NMF,graph NMF,deep NMF,released,released 100 0 0,Dn2MFGL",  # separated by commas
            "hidden": 150,  # components of the first layer; at most 4/5 of the features
            "num_seeds": 3,  # factorizations of every method
            "num_kmeans": 10,  # k-means runs of one start each on the codes of every factorization
            "seed": 0,  # of the first factorization
            "n_neighbors": 5,  # of the graph
            "max_iter": 0,  # sweeps of the factorizations at most; 0: the estimators' own limits
        }
    )
