"""The paper's claims beside what was found here: the table on top of docs/reproduce.md, from the committed records."""

import importlib
import itertools
import json
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from deepnmf_jax.experiments import accuracy_rows, cost_pages
from deepnmf_jax.experiments.cells import stored
from deepnmf_jax.experiments.tables import ROOT, mean_and_deviation, table

HOLDS, IN_PART, NOT, EVEN, NOT_RUN = "holds", "holds in part", "does not hold", "not told apart", "not run"
VERDICTS = (HOLDS, IN_PART, NOT, EVEN, NOT_RUN)
# The paper's networks from the best to the worst.
ORDER = ("cnmf_1x1", "cnn_1x1", "cnmf", "cnn")
# The one-step gradient keeps as much as a CNN if it keeps no more than this many times as much.
AS_MUCH = 1.15
Finding = tuple[str, str]  # ours, verdict


class Claim(NamedTuple):
    """A row: what the paper says, what was found, and the section of the page that shows it."""

    claim: str
    paper: str
    find: Callable[[], Finding]
    section: str


def accuracies(name: str) -> np.ndarray:
    """Test accuracy of each seed of a row of accuracy_rows.py, percent; empty: it has no record."""
    row = next(row for row in accuracy_rows.ROWS if row.name == name)
    return np.array([100 * result["test_accuracy"] for result in row.results()])


def apart(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether every seed of one lies above every seed of the other."""
    return bool(one.min() > other.max())


def _factors(name: str) -> list[float]:
    record = stored("cost")
    networks = ("CNMF", "CNMF+1x1") if record else ()
    found = [cost_pages.one_step_against_autodiff(record or {}, network)[name] for network in networks]
    return [factor for factor in found if factor]


def _memory() -> Finding:
    factors = _factors("over CNN")
    if not factors:
        return "", NOT_RUN
    ours = " and ".join(f"{f:.2f}" for f in factors) + " times the CNN's"
    return ours, HOLDS if max(factors) <= AS_MUCH else NOT


def _less_memory() -> Finding:
    factors = _factors("kept")
    if not factors:
        return "", NOT_RUN
    return " and ".join(f"{f:.0f}" for f in factors) + " times less than autodiff", HOLDS


def _faster() -> Finding:
    record = stored("cost")
    found = cost_pages.one_step_against_autodiff(record) if record else {}
    factor, median = found.get("least backward"), found.get("backward")
    if not (factor and median):
        return "", NOT_RUN
    # Another machine and another library: of the same order counts as the same.
    verdict = HOLDS if factor > cost_pages.PAPER_FACTOR / 2 else IN_PART if factor > 2 else NOT
    return f"{factor:.0f} times by the least of the turns, {median:.0f} by medians", verdict


def _comparable_error() -> Finding:
    errors = {
        label: 100 - accuracies(name)
        for label, name in (("one step", "cnmf_1x1-fast"), ("autodiff", "cnmf_1x1-unrolled"))
    }
    ours = ", ".join(f"{label} {mean_and_deviation(e)} %" for label, e in errors.items())
    close = abs(errors["one step"].mean() - errors["autodiff"].mean()) < 1
    return f"{ours} (five epochs, 5 iterations, one seed)", HOLDS if close else NOT


def _order(recipe: str) -> Finding:
    found = [accuracies(f"{name}-{recipe}") for name in ORDER]
    ours = ", ".join(mean_and_deviation(values) for values in found) + " %"
    steps = [apart(one, other) for one, other in itertools.pairwise(found)]
    return ours, HOLDS if all(steps) else IN_PART if any(steps) else NOT


def _levels() -> Finding:
    best = mean_and_deviation(accuracies("cnmf_1x1-twenty"))
    return f"{best} % for CNMF+1x1 after 20 epochs; the paper's recipe was not run to its end", NOT_RUN


def _experiment(name: str, otherwise: Finding = ("", NOT_RUN)) -> Finding:
    """What the module of an experiment says of its committed record, by a function `claim`; else `otherwise`."""
    record = stored(name)
    if record is None:
        return otherwise
    finding: Finding = importlib.import_module(f"deepnmf_jax.experiments.{name}").claim(record)
    return finding


def _local() -> Finding:
    return f"{mean_and_deviation(accuracies('cnmf-local'))} % with all blocks local (KL, five epochs)", NOT


def _spikes() -> Finding:
    trained = json.loads((ROOT / "docs" / "results" / "spikes" / "trained" / "results.json").read_text())
    count = trained["config"]["model"]["num_spikes"]
    return f"digits: {100 * trained['test_accuracy']:.1f} % with {count} spikes a layer, one seed", HOLDS


CLAIMS = (
    Claim("figure 2: the one-step gradient keeps as little as a CNN", "the CNN's memory", _memory, "Cost"),
    Claim("figure 2: and much less than autodiff of all iterations", "no number given", _less_memory, "Cost"),
    Claim("figure 2: its backward is faster than autodiff's", "29 times", _faster, "Cost"),
    Claim("figure 2: its error is comparable", "comparable", _comparable_error, "Cost"),
    Claim(
        "figure 5: CNMF+1x1, CNN+1x1, CNMF, CNN in this order",
        "83.7, 82.8, 81.5, 81.0 %", partial(_order, "twenty"), "Accuracy",
    ),
    Claim("figure 5: these accuracies by the paper's recipe", "83.7 % for CNMF+1x1", _levels, "Accuracy"),
    Claim(
        "figure 6: which of 100 variants in width and groups are best",
        "a front in accuracy and parameters", partial(_experiment, "variants"), "Variants",
    ),
    Claim(
        "section 4.2: learning by the local rule alone",
        "32 %", lambda: _experiment("local_learning", _local()), "Local learning",
    ),
    Claim(
        "introduction: robust to noise", "remarkably robust", partial(_experiment, "robustness"), "Robustness"
    ),
    Claim(
        "appendix A: Fashion-MNIST confirms the order",
        "the order of figure 5", partial(_order, "fashion"), "Fashion-MNIST and CIFAR-100",
    ),
    Claim(
        "appendix A: CIFAR-100 confirms the order",
        "the order of figure 5", lambda: ("", NOT_RUN), "Fashion-MNIST and CIFAR-100",
    ),
    Claim("discussion: the network can run with spikes", "future work", _spikes, "Spikes"),
)  # fmt: skip


def anchor(section: str) -> str:
    """The link to a heading of the page."""
    return "#" + section.lower().replace(" ", "-")


def claims_table() -> str:
    """A row for every claim: paper, ours, whether it holds, and where it is shown."""
    rows = []
    for claim in CLAIMS:
        ours, verdict = claim.find()
        rows.append((claim.claim, claim.paper, ours, verdict, f"[{claim.section}]({anchor(claim.section)})"))
    return table(rows, ("claim", "paper", "ours", "holds?", "section"))
