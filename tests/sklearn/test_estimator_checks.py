"""scikit-learn's estimator checks in JAX's default precision: those fail that docs/migrating.md lists, no others."""

from collections.abc import Iterator

import jax
import pytest

from tests.sklearn.documented import failures

sklearn = pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import estimator_checks_generator  # noqa: E402

from deepnmf_jax.sklearn import NMF, Dn2MFGL, MiniBatchNMF  # noqa: E402

MODELS = {
    "squared error": NMF(2, max_iter=30),
    "Kullback-Leibler": NMF(2, solver="mu", beta_loss="kullback-leibler", max_iter=30),
    "mini-batches": MiniBatchNMF(2, max_iter=20, fresh_restarts=True),
    "Dn2MFGL": Dn2MFGL((2,), n_clusters=2, n_neighbors=2, max_iter=5),
}


def name_of(check: object) -> str:
    return getattr(getattr(check, "func", check), "__name__", "")


def checks() -> Iterator[object]:
    for name, model in MODELS.items():
        expected = failures("Its estimator checks") if name == "Dn2MFGL" else {}
        # A check that is listed and passes is an error too (xfail_strict).
        for case in estimator_checks_generator(model, legacy=True, expected_failed_checks=expected, mark="xfail"):
            estimator, check, *marks = (*case.values, *case.marks) if hasattr(case, "marks") else case
            yield pytest.param(estimator, check, marks=marks, id=f"{name}-{name_of(check)}")


@pytest.fixture
def jax_as_it_comes() -> Iterator[None]:
    """Without 64 bits, which the other tests switch on."""
    before = jax.config.values["jax_enable_x64"]
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.slow
@pytest.mark.usefixtures("jax_as_it_comes")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_estimator_checks(estimator: object, check: object) -> None:
    check(estimator)  # type: ignore[operator]


def test_the_page_names_checks_that_there_are() -> None:
    names = {name_of(check) for _, check in estimator_checks_generator(MODELS["Dn2MFGL"], legacy=True, mark=None)}
    assert failures("Its estimator checks").keys() <= names
