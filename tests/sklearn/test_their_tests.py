"""scikit-learn's own tests of NMF, with NMF imported from here: those fail that docs/migrating.md lists, no others."""

import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.compilation import environment_to_compile_as
from tests.sklearn.documented import failures

sklearn = pytest.importorskip("sklearn")

THEIR_IMPORT = "from sklearn.decomposition import NMF, MiniBatchNMF, non_negative_factorization\n"
OURS = "from deepnmf_jax.sklearn import NMF, MiniBatchNMF, non_negative_factorization\n"
# Decided by the last digits, and a quarter of the time.
UNDECIDED = "test_nmf_float32_float64_consistency[*]"


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("sklearn.decomposition.tests"), reason="scikit-learn came without its tests")
def test_their_tests(tmp_path: Path) -> None:
    theirs = Path(sklearn.__file__).parent / "decomposition" / "tests" / "test_nmf.py"
    text = theirs.read_text(encoding="utf-8")
    assert THEIR_IMPORT in text, "scikit-learn imports it in other words now: adapt THEIR_IMPORT"
    (tmp_path / "test_nmf.py").write_text(text.replace(THEIR_IMPORT, OURS), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = thread_unsafe: of scikit-learn\n")
    # JAX's default precision, whatever this process has.
    environment = {name: value for name, value in os.environ.items() if name != "JAX_ENABLE_X64"}
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "-W", "ignore"]
    ran = subprocess.run(
        [*command, "-k", f"not {UNDECIDED.partition('[')[0]}", "test_nmf.py"],
        cwd=tmp_path,
        env=environment | environment_to_compile_as("quick") | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    outcome = {name: kind for kind, name in re.findall(r"^(PASSED|FAILED|ERROR) test_nmf.py::(\S+)", ran.stdout, re.M)}
    assert len(outcome) > 100, ran.stdout[-2000:] + ran.stderr[-2000:]
    listed = {pattern.replace("[", "[[]") for pattern in failures("Its tests")}
    expected = {name for name in outcome if any(fnmatch(name, pattern) for pattern in listed)}
    assert {name for name, kind in outcome.items() if kind != "PASSED"} == expected, ran.stdout[-4000:]
    assert UNDECIDED in failures("Its tests")
    unused = {pattern for pattern in listed if not any(fnmatch(name, pattern) for name in outcome)}
    assert unused <= {UNDECIDED.replace("[", "[[]"), *newer(text, listed)}


def newer(text: str, listed: set[str]) -> set[str]:
    """Those of the listed tests that this version of scikit-learn does not have yet."""
    return {pattern for pattern in listed if f"def {pattern.partition('[')[0]}(" not in text}
