"""Signals become requests that the training loop reads."""

import signal
import threading

import pytest

from deepnmf_jax.training.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_is_a_request_and_the_second_does_what_it_did(number: signal.Signals) -> None:
    seen: list[int] = []
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(number, lambda n, frame: seen.append(n))
    mine = signal.getsignal(number)
    try:
        with Interruption() as interruption:
            answers = [interruption.requested]
            signal.raise_signal(number)
            answers += [interruption.requested, interruption.requested_anywhere()]
            assert answers == [None, number.name, number.name]
            assert seen == []
            signal.raise_signal(number)
            assert seen == [number]
        assert signal.getsignal(number) is mine
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)


def test_handlers_are_put_back_on_leaving() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(KeyError), Interruption():
        assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] != before
        raise KeyError
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before


def test_outside_the_main_thread_nothing_is_installed(caplog: pytest.LogCaptureFixture) -> None:
    before = signal.getsignal(signal.SIGTERM)
    during = []

    def work() -> None:
        with Interruption() as interruption:
            during.append((signal.getsignal(signal.SIGTERM), interruption.requested))

    with caplog.at_level("INFO"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert during == [(before, None)]
    assert "not in the main thread" in caplog.text
