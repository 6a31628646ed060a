"""The model cards say what the records of the networks say."""

import pytest

from deepnmf_jax import load_pretrained, pretrained_names
from deepnmf_jax.experiments.model_cards import card, cards


def test_every_network_has_a_card() -> None:
    assert [line.removeprefix("## ") for line in cards().splitlines() if line.startswith("## ")] == list(
        pretrained_names()
    )


@pytest.mark.parametrize("name", pretrained_names())
def test_a_card_has_the_numbers_of_the_record(name: str) -> None:
    text, trained = card(name), load_pretrained(name)
    results = trained.results
    for said in (
        f"{results['test_accuracy']:.2%} on 10,000 test images",
        f"{results['validation_accuracy']:.2%} on the 5,000 held out",
        f"`{results['config_file']}`, {results['epochs']} epochs",
        f"{results['parameters']:,} parameters",
        results["device"],
        results["date"][:10],
        ", ".join(trained.class_names),
    ):
        assert said in text
    assert ("NMF layers" in text) == (trained.model.layer == "nmf")
    assert ("1x1 convolution" in text) == trained.model.mixing
