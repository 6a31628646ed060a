"""Experiments on whole data sets: one file each, with `run(config, workdir)`."""
