"""The notebook of the paper's claims runs, and what it shows follows from what it measured."""

import json
import sys
from pathlib import Path

import nbformat
import pytest

from tests.colabs.test_notebooks import PAPER, outputs_of, pictures_of, run_shortened, text_of

# What the notebook found, taken from its variables after its last cell.
FACTS = """
import json

print(json.dumps({
    "python": sys.prefix,
    "factors": factors,
    "accuracy": accuracy,
    "levels": levels,
    "shares": {f"{kind}, {name}": values for (kind, name), values in shares.items()},
    "epochs": [run_of.config.num_epochs for run_of, _ in trained.values()],
    "local": [run_of.model.local_learning for run_of, _ in trained.values()],
}))
"""
SMALL = {
    "num_images": 128,
    "num_test_images": 50,
    "sizes": {"side": 10, "batch_size": 2, "rounds": 1},
    "levels": (0.0, 0.5),
}


@pytest.mark.slow
def test_it_runs_and_shows_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = nbformat.read(PAPER, as_version=4)
    executed = run_shortened(PAPER, FACTS, tmp_path, monkeypatch, **SMALL)
    facts = json.loads(text_of(executed, "facts"))
    assert Path(facts["python"]).samefile(sys.prefix)
    assert [output.text for output in outputs_of(executed) if output.get("name") == "stderr"] == []
    assert len(pictures_of(executed)) == len(pictures_of(stored))
    assert facts["factors"]["kept"] > 5
    assert facts["epochs"] == [1, 1, 1] and facts["local"] == ["none", "none", "kl"]
    for name, accuracy in facts["accuracy"].items():
        assert f"{name}: {100 * accuracy:.1f} %" in text_of(executed, "train")
        # Without noise the network answers as its training said.
        assert facts["shares"][f"uniform, {name}"][0] == pytest.approx(accuracy, abs=0.021)
