"""The page of the paper's claims: a row for each, verdicts that follow from the records, a section for each row."""

import json
import re

import numpy as np
import pytest

from deepnmf_jax.experiments import accuracy_figure, claims
from deepnmf_jax.experiments.tables import ROOT

PAGE = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")


def rows(table):
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def test_the_page_has_a_row_for_each_claim_and_a_section_for_each_row():
    shown = re.search(r"<!-- claims -->\n(.*?)\n<!-- end -->", PAGE, re.DOTALL)[1]
    assert shown == claims.claims_table()
    assert len(shown.splitlines()) == 2 + len(claims.CLAIMS)
    headings = set(re.findall(r"^## (.*)$", PAGE, re.MULTILINE))
    assert {claim.section for claim in claims.CLAIMS} <= headings
    for claim in claims.CLAIMS:
        assert claim.find()[1] in claims.VERDICTS
    # Figures, sections and appendices of the paper that claim something.
    named = " ".join(claim.claim for claim in claims.CLAIMS)
    for place in ("figure 2", "figure 5", "figure 6", "section 4.2", "appendix A", "introduction", "discussion"):
        assert place in named


@pytest.mark.parametrize(
    ("best_first", "verdict"),
    [
        (([80, 81], [78, 79], [76, 77], [74, 75]), claims.HOLDS),
        (([80, 81], [80, 79], [76, 77], [74, 75]), claims.IN_PART),
        (([74, 75], [76, 77], [78, 79], [80, 81]), claims.NOT),
    ],
)
def test_an_order_holds_where_no_seeds_overlap(monkeypatch, best_first, verdict):
    found = dict(zip(claims.ORDER, map(np.array, best_first), strict=True))
    monkeypatch.setattr(claims, "accuracies", lambda name: found[name.removesuffix("-x")])
    assert claims._order("x")[1] == verdict


def test_the_cost_is_judged_by_its_record(monkeypatch):
    cells = {
        f"memory/{name}/20": {"kept": kept}
        for name, kept in (("CNN", 100), ("CNMF, one step", 110), ("CNMF, autodiff", 2200))
    }
    cells["time/20"] = {
        name: {"backward": [seconds, seconds, seconds + extra, 99], "forward": [seconds] * 4}
        for name, seconds, extra in (("CNN", 1, 0), ("CNMF, one step", 2, 1), ("CNMF, autodiff", 14, 1))
    }
    record = {"config": {"shown": 20, "iterations": [20], "seeds": []}, "cells": cells}
    monkeypatch.setattr(claims, "stored", lambda name: record if name == "cost" else None)
    assert claims._memory() == ("1.10 times the CNN's", claims.HOLDS)
    assert claims._less_memory() == ("20 times less than autodiff", claims.HOLDS)
    assert claims._faster() == ("7 times by the least of the turns, 5 by medians", claims.IN_PART)
    cells["memory/CNMF, one step/20"]["kept"] = 120
    assert claims._memory()[1] == claims.NOT
    record["cells"] = {}
    assert {claims._memory(), claims._less_memory(), claims._faster()} == {("", claims.NOT_RUN)}
    assert claims._experiment("variants") == ("", claims.NOT_RUN)


def test_the_committed_accuracies_are_those_of_the_runs():
    record = accuracy_figure.committed("cifar10", 20)
    assert record["config"]["seeds"] == [0, 1, 2] and len(record["cells"]) == 12
    path = ROOT / "docs" / "results" / "accuracy" / "cnn-twenty-seed1" / "results.json"
    assert record["cells"]["cnn/1"]["test_accuracy"] == json.loads(path.read_text())["test_accuracy"]
    assert rows(accuracy_figure.committed_table())[0][0] == "CNMF+1x1"
    assert "| CNN | 108,650 |" in accuracy_figure.committed_table("fashion_mnist", 5)
    del record["cells"]["cnn/0"], record["cells"]["cnn/1"], record["cells"]["cnn/2"]
    assert "| CNN |  | not run | 0 |" in accuracy_figure.accuracy_figure_table(record)
    accuracy_figure.draw_accuracy(record)
