"""What the README and the docs say is so: code runs, links and configs exist, numbers are those on record."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_python_examples_run_one_after_the_other():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 3
    facts = """
assert h.shape == (100, 32) and logits.shape == (5, 10) and bool(certificate(x, w, h).max() < 0.1)
assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(gradients))
"""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join([*blocks, facts])], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text) + re.findall(r'src="([^"]+)"', text)
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert not missing


def test_every_config_named_exists_and_every_config_is_named():
    folder = ROOT / "configs"
    configs = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.py")}
    table = re.search(r"\| config \| what it trains \|(.*?)\n\n", README, re.DOTALL)
    assert table and "`beyond/...`" in table[1]
    named = set(re.findall(r"`([\w/]+)`", table[1]))
    assert named == {c for c in configs if not c.startswith("beyond/")} - {"base", "fast/recipe"}
    for path in re.findall(r"configs/[\w/]+\.py", README):
        assert (ROOT / path).exists()


def test_results_are_those_on_record():
    rows = re.findall(r"\| .*?\(docs/results/(\w+)/results\.json\).*\|", README)
    assert rows
    for folder in rows:
        row = next(line for line in README.splitlines() if f"docs/results/{folder}/results.json" in line)
        results = json.loads((ROOT / "docs/results" / folder / "results.json").read_text())
        assert f"{100 * results['test_accuracy']:.2f} %" in row
        assert f"{results['parameters']:,}" in row
        assert f"seed {results['seed']}" in row
        assert results["date"][:10] in row
        assert f"{results['seconds'] / 60:.1f} min" in row
        assert not results["commit"].endswith("-dirty")


def test_speeds_are_those_on_record():
    ratios = json.loads((ROOT / "benchmarks/results/step.json").read_text())["ratios"]
    rows = {
        "20 plain iterations": "port / ours",
        "4 accelerated iterations": "port / ours, 4 power",
        "the same with bfloat16": "port / ours, 4 power, bfloat16",
    }
    for start, name in rows.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| {start}"))
        found = [cell.strip() for cell in row.split("|")[2:4]]
        assert found == [f"{ratios[f'batch {batch}: {name}']:.1f}" for batch in (50, 128)]
