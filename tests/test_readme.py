"""What README and the docs say is so: lengths, links and anchors, configs named, numbers those on record."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
LONGEST_README, LONGEST_LINE = 120, {"README.md": 400}
# A reader was not there when somebody wished for a number.
PRIVATE = ("hoped", "was asked", "asked for", "limit set", "set ourselves", "not reached in the time")


def prose(text: str) -> list[str]:
    """The lines outside code, tables and generated parts."""
    text = re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", "", text, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [line for line in text.splitlines() if not line.startswith("|")]


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_is_a_page() -> None:
    assert README.count("\n") <= LONGEST_README


@pytest.mark.parametrize("name", NAMES)
def test_lines_are_short_and_speak_to_a_stranger(name: str) -> None:
    lines = prose((ROOT / name).read_text(encoding="utf-8"))
    assert [line[:60] for line in lines if len(line) > LONGEST_LINE.get(name, 600)] == []
    assert [line for line in lines if any(word in line for word in PRIVATE)] == []


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    missing = []
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", text):
        target = (ROOT / name).parent / link if link else ROOT / name
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            missing.append(f"{link}#{anchor}")
    assert missing == []


@pytest.mark.parametrize("name", NAMES)
def test_pictures_say_what_they_show(name: str) -> None:
    alts = re.findall(r"!\[([^\]]*)\]", (ROOT / name).read_text(encoding="utf-8"))
    assert [alt for alt in alts if len(alt) < 15] == []


def test_every_part_has_one_page() -> None:
    parts = [part for path in PAGES for part in re.findall(r"<!-- (\w+) -->\n", path.read_text(encoding="utf-8"))]
    parts = [part for part in parts if part != "end"]
    assert len(parts) > 20 and sorted(set(parts)) == sorted(parts)


def test_every_config_named_exists_and_every_config_is_named() -> None:
    folder = ROOT / "configs"
    configs = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.py")}
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    table = re.search(r"\| config \| what it trains \|(.*?)\n\n", page, re.DOTALL)
    assert table and "`beyond/...`" in table[1]
    named = {name for name in re.findall(r"`([\w/]+)`", table[1]) if not name.startswith("beyond/")}
    assert named == {c for c in configs if not c.startswith("beyond/")} - {"base", "fast/recipe"}
    for path in PAGES:
        for config in re.findall(r"configs/[\w/]+\.py", path.read_text(encoding="utf-8")):
            assert (ROOT / config).exists(), (path.name, config)


def test_the_quick_start_is_that_on_record() -> None:
    results = json.loads((ROOT / "docs/results/quickstart/results.json").read_text())
    accuracy, minutes = f"{100 * results['test_accuracy']:.1f} %", f"{results['seconds'] / 60:.1f} minutes"
    said = f"takes {minutes} on {['no', 'one', 'two'][results['cpu_count']]} cores and reaches {accuracy} on "
    assert f"{said}{results['dataset']['test_images']:,} test digits (seed {results['seed']})" in README


def test_speeds_are_those_on_record() -> None:
    authors, gpu, nmf = (
        json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
        for name in ("step-authors", "gpu", "factorization")
    )
    for start, program in {"20 plain iterations": "ours", "5 plain iterations": "ours, 5 iterations"}.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| {start}"))
        names = [f"batch {batch}: {peer} / {program}" for peer in ("authors", "port") for batch in (50, 128)]
        ratios = [authors["ratios"][name] for name in names]
        assert [cell.strip() for cell in row.split("|")[2:6]] == [f"{ratio:.1f}" for ratio in ratios]
    ratio = 1 / gpu["ratios"]["step, batch 50: XLA / PyTorch, eager"]
    assert f"| {ratio:.1f} |  |" in next(line for line in README.splitlines() if "H200" in line)
    digits = nmf["problems"]["digits, nndsvda"]
    assert f"{digits['shape'][0]:,} digits, {digits['k']} concepts, to a relative error of 0.261" in README
    levels, seconds = digits["levels"]["error"], digits["levels"]["seconds"]
    there = [i for i, error in enumerate(levels) if f"{error:.3f}" == "0.261" and seconds["ours: NMF.fit"][i]]
    theirs = [times for name, times in seconds.items() if name.startswith("scikit-learn")]
    others = [min(times[i] for times in theirs if times[i] is not None) for i in there]
    fits = [seconds["ours: NMF.fit"][i] for i in there]
    pairs = [f"{a:.3f} s, scikit-learn's fastest solver in {b:.3f} s" for a, b in zip(fits, others, strict=True)]
    assert any(f"in {pair}" in README for pair in pairs), pairs
