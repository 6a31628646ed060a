"""The smallest budget of an experiment that trains: a few of the digits that come along, once."""

DIGITS = {"dataset": "mnist5k", "train_images": 64, "validation_images": 16, "test_images": 20, "epochs": 1}
