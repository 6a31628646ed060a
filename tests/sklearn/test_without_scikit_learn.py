"""What works without scikit-learn, and what the rest says."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from deepnmf_jax import Dn2MFGL, decomposition

ROOT = Path(__file__).parents[2]
X = np.random.default_rng(0).random((20, 6))


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python finds no scikit-learn, as if it were not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "deepnmf_jax.sklearn", raising=False)


@pytest.mark.usefixtures("without")
def test_the_import_says_what_to_install() -> None:
    with pytest.raises(ImportError, match=r"needs scikit-learn 1.6 or newer .*: pip install 'scikit-learn>=1.6'$") as e:
        import deepnmf_jax.sklearn  # noqa: F401
    assert "\n" not in str(e.value) and e.value.__suppress_context__


@pytest.mark.usefixtures("without")
@pytest.mark.filterwarnings("ignore::deepnmf_jax.decomposition.ConvergenceWarning")
def test_codes_need_no_scikit_learn() -> None:
    model = Dn2MFGL((2,), alpha=1.0, max_iter=10).fit(X)
    assert model.transform(X).shape == model.embedding_.shape == (20, 2)
    assert not hasattr(model, "labels_")


@pytest.mark.usefixtures("without")
def test_clusters_say_so_before_the_fit() -> None:
    model = Dn2MFGL((2,), n_clusters=2, alpha=1.0, max_iter=10)
    with pytest.raises(ImportError, match="n_clusters = 2 .* needs scikit-learn.*: pip install scikit-learn$"):
        model.fit(X)
    with pytest.raises(decomposition.NotFittedError):
        model.transform(X)


def test_no_hint_names_a_package_that_no_index_has() -> None:
    """The package is installed from a clone alone: pip cannot find it, or its extras, by their name."""
    wrong = re.compile(r"""pip install[^`\n]*?[\s'"]deepnmf_jax(\[\w+\])?(?![/\w.])""")
    assert wrong.search("pip install 'deepnmf_jax[sklearn]'") and not wrong.search("pip install ./deepnmf_jax")
    sources = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deepnmf_jax/**/*.py"), ROOT / "main.py"]
    assert [str(path) for path in sources if wrong.search(path.read_text())] == []
