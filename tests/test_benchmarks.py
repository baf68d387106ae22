"""The benchmark runner: nothing is timed before it is right, repeats are interleaved, results survive a round trip."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import cases, runner, table
from benchmarks.case import OURS, AbsentError, Builder, Contender, Numbers, Workload, require
from benchmarks.timing import OtherWork, Spread, alternate, busy_seconds, interleave, ratios

CHECKOUT = Path(__file__).resolve().parents[1]
SETTING = runner.Setting(repeats=3, threads=1, date="2026-01-02", machine="a machine")
ANSWER = {"x": np.array([1.0, 2.0])}


class Toy:
    """A case whose contenders are given."""

    name, title, summary = "toy", "A toy", "Two numbers."
    shapes = ("small",)

    def __init__(
        self, reference: Callable[[], Numbers] = lambda: ANSWER, note: str = "", **contenders: Builder
    ) -> None:
        self.reference, self.note, self.contenders = reference, note, contenders

    def workload(self, shape: str, threads: int) -> Workload:
        return Workload(
            self.contenders, self.reference, 1e-3, {"peer": 2.0} if "peer" in self.contenders else {}, self.note
        )


def returning(*numbers: float, log: list[str] | None = None, name: str = "") -> Builder:
    def call() -> np.ndarray:
        if log is not None:
            log.append(name)
        return np.array(numbers)

    return lambda: Contender(call, lambda x: {"x": x}, "torch")


def raising(error: Exception) -> Builder:
    def build() -> Contender:
        raise error

    return build


def measure(case: Toy) -> dict[str, runner.Row]:
    return {row.contender: row for row in runner.run(case, "small", SETTING, lambda line: None)}


class FakeClock:
    """Time passes only in the calls."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, seconds: float, log: list[str], name: str) -> Callable[[], None]:
        def call() -> None:
            self.now += seconds
            log.append(name)

        return call


def test_right_contenders_are_timed() -> None:
    rows = measure(Toy(lnz=returning(1.0, 2.0), peer=returning(1.0, 2.0005)))
    assert [row.status for row in rows.values()] == ["ok", "ok"]
    assert rows["peer"].error == pytest.approx(0.0005 / 2)
    assert rows["lnz"].ratio == 1.0
    assert rows["lnz"].repeats == 3
    assert rows["lnz"].version == version("torch")
    assert 0 < rows["lnz"].min_ms <= rows["lnz"].median_ms <= rows["lnz"].max_ms


WRONG = [(1.0, 2.1), (1.0, float("nan")), (1.0, float("inf")), (1.0,), (1.0, 2.0, 3.0)]


@pytest.mark.parametrize("answer", WRONG, ids=str)
def test_wrong_numbers_of_ours_shut_the_gate(answer: tuple[float, ...]) -> None:
    calls: list[str] = []
    rows = measure(Toy(lnz=returning(*answer, log=calls, name="lnz"), peer=returning(1.0, 2.0, log=calls, name="peer")))
    assert runner.is_red(list(rows.values()))
    assert calls == ["lnz", "peer"]  # once each for the gate, and never for a time
    assert rows["lnz"].status == "wrong"
    assert all(row.median_ms is None and row.ratio is None for row in rows.values())


@pytest.mark.parametrize("answer", WRONG, ids=str)
def test_a_peer_with_wrong_numbers_is_reported_and_never_timed(answer: tuple[float, ...]) -> None:
    calls: list[str] = []
    rows = measure(
        Toy(lnz=returning(1.0, 2.0), peer=returning(*answer, log=calls, name="peer"), other=returning(1.0, 2.0))
    )
    assert not runner.is_red(list(rows.values()))
    assert calls == ["peer"]
    assert [row.status for row in rows.values()] == ["ok", "wrong", "ok"]
    assert rows["peer"].error > rows["peer"].tolerance
    assert rows["peer"].median_ms is None
    assert rows["peer"].ratio is None


def test_a_missing_number_is_wrong() -> None:
    assert runner.distance({"y": ANSWER["x"]}, ANSWER) == float("inf")


def test_distance_is_relative_above_one_and_absolute_below() -> None:
    assert runner.distance({"x": np.array([100.0, 1.0])}, {"x": np.array([101.0, 1.0])}) == pytest.approx(1 / 101)
    assert runner.distance({"x": np.array([0.1])}, {"x": np.array([0.2])}) == pytest.approx(0.1)
    assert runner.distance({"x": np.zeros(0)}, {"x": np.zeros(0)}) == 0.0


def test_an_absent_or_failing_peer_is_reported_and_the_rest_is_timed() -> None:
    rows = measure(
        Toy(
            lnz=returning(1.0, 2.0),
            peer=raising(AbsentError("peer is not installed (pip install peer)")),
            other=raising(MemoryError("no room\nat all")),
        )
    )
    assert (rows["peer"].status, rows["peer"].note) == ("absent", "peer is not installed (pip install peer)")
    assert (rows["other"].status, rows["other"].note) == ("failed", "MemoryError: no room")
    assert rows["lnz"].status == "ok"
    assert not runner.is_red(list(rows.values()))


@pytest.mark.parametrize("error", [AbsentError("gone"), RuntimeError("broken")], ids=lambda e: type(e).__name__)
def test_our_own_absence_or_failure_shuts_the_gate(error: Exception) -> None:
    rows = measure(Toy(lnz=raising(error), peer=returning(1.0, 2.0)))
    assert runner.is_red(list(rows.values()))
    assert rows["peer"].median_ms is None


def test_without_a_reference_nothing_is_timed() -> None:
    def reference() -> Numbers:
        raise OSError("cannot read it")

    rows = measure(Toy(reference, lnz=returning(1.0, 2.0)))
    assert runner.is_red(list(rows.values()))
    assert "cannot read it" in rows["lnz"].note


def test_a_note_on_the_shape_is_kept_with_our_row() -> None:
    assert measure(Toy(note="not the real data", lnz=returning(1.0, 2.0)))["lnz"].note == "not the real data"


def test_require_names_the_command() -> None:
    with pytest.raises(AbsentError, match=r"no_such_peer is not installed \(pip install no-such-peer==1\)"):
        require("no_such_peer", "no-such-peer==1")
    assert require("math", "never") is sys.modules["math"]


def test_repeats_are_interleaved() -> None:
    clock, log = FakeClock(), []
    calls = {"a": clock.taking(1.0, log, "a"), "b": clock.taking(2.0, log, "b")}
    samples = interleave(calls, 3, clock=clock)
    assert log == ["a", "b"] * 4  # a round of warm-up, three that are timed
    assert samples == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_short_calls_are_repeated_within_a_sample_after_one_untimed() -> None:
    clock, log = FakeClock(), []
    samples = interleave({"a": clock.taking(0.004, log, "a")}, 2, sample_seconds=0.02, clock=clock)
    assert samples["a"] == pytest.approx([0.004] * 2)
    assert len(log) == 1 + 5 + (1 + 5)


def test_a_slow_contender_leaves_after_two_samples_and_the_others_go_on() -> None:
    clock, log = FakeClock(), []
    calls = {"fast": clock.taking(1.0, log, "fast"), "slow": clock.taking(50.0, log, "slow")}
    samples = interleave(calls, 5, max_seconds=30.0, clock=clock)
    assert {name: len(taken) for name, taken in samples.items()} == {"fast": 5, "slow": 2}
    assert ratios(samples["slow"], samples["fast"]) == [50.0, 50.0]


def test_cold_calls_are_single_and_each_follows_the_other_work() -> None:
    clock, log = FakeClock(), []
    calls = {"a": clock.taking(0.004, log, "a"), "slow": clock.taking(50.0, log, "slow")}
    samples = alternate(calls, 3, clock.taking(7.0, log, "other"), max_seconds=30.0, clock=clock)
    assert log == ["other", "a", "other", "slow", "other", "slow", "other", "a", "other", "a"]  # the order turns
    assert samples["a"] == pytest.approx([0.004] * 3)
    assert samples["slow"] == pytest.approx([50.0] * 2)


def test_other_work_writes_its_memory_and_multiplies() -> None:
    work = OtherWork(size=8, megabytes=1)
    work()
    work()
    assert work.memory.nbytes == 2**20
    assert (work.memory == 2).all()
    torch.testing.assert_close(work.out, work.left @ work.right)


def test_spread() -> None:
    assert Spread.of([4.0, 1.0, 2.0, 3.0, 5.0]) == Spread(3.0, 2.0, 4.0, 1.0, 5.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0, 7.0, 7.0)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells")
def test_busy_seconds_include_our_own() -> None:
    before = busy_seconds()
    total = 0
    while (after := busy_seconds())[1] - before[1] < 0.05:
        total += sum(range(10_000))
    assert after[0] - before[0] >= 0.0
    assert after[1] > before[1]


def test_results_survive_the_file_and_are_replaced_by_shape(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "results.csv"
    old = [runner.Row("toy", "small", OURS, note="old"), runner.Row("toy", "large", OURS, note="kept", error=0.25)]
    table.update(path, old)
    assert table.read(path) == old
    new = list(measure(Toy(lnz=returning(1.0, 2.0), peer=raising(AbsentError('not, "installed"\n')))).values())
    table.update(path, new)
    kept, ours, peer = table.read(path)
    assert (kept.shape, kept.error) == ("large", 0.25)
    assert ours.median_ms == pytest.approx(new[0].median_ms, rel=1e-5)
    assert (peer.note, peer.median_ms, peer.repeats) == ('not, "installed"\n', None, 0)
    assert [file.name for file in path.parent.iterdir()] == ["results.csv"]


def test_the_page_shows_times_ratios_and_what_is_missing() -> None:
    case = Toy(lnz=returning(1.0, 2.0))
    rows = [
        runner.Row("toy", "small", OURS, "0.1", "ok", median_ms=2.0, q1_ms=1.9, q3_ms=2.1, min_ms=1.8, ratio=1.0,
                   cold_ms=4.0, cold_q1_ms=3.9, cold_q3_ms=4.1, cold_ratio=1.0,
                   error=0.0, repeats=9, date="2026-01-02", machine="a machine", threads=2, others=0.5),
        runner.Row("toy", "small", "peer", "3", "ok", median_ms=123.4, q1_ms=120.0, q3_ms=125.0, min_ms=119.0,
                   ratio=61.7, ratio_q1=60.0, ratio_q3=62.0, target=70.0, cold_ms=80.0, cold_q1_ms=79.0,
                   cold_q3_ms=81.0, cold_ratio=20.0,
                   cold_ratio_q1=19.0, cold_ratio_q3=21.0, cold_target=15.0, error=1.5e-6, repeats=2, date="2026-01-02",
                   machine="a machine", threads=2),
        runner.Row("toy", "small", "other", status="absent", note="other is not installed (pip install other)",
                   date="2026-01-02", machine="a machine", threads=2),
    ]  # fmt: skip
    page = table.render(rows, [case], "results.csv", "page.md")
    assert "## A toy" in page
    assert "| small | lnz 0.1 | 2 (1.9–2.1) | 1 | 4 (3.9–4.1) | 1 | 0e+00 |  |" in page
    assert "|  | peer 3 | 123 (120–125) | 61.7 (60–62) | 80 (79–81) | 20 (19–21) | 2e-06 |" in page
    assert "| hot target 70: missed; cold target 15; 2 repeats |" in page
    assert "|  | other | absent |  |  |  |  | other is not installed (pip install other) |" in page
    assert "2 threads" in page
    assert "Other processes kept up to 0.5 processors busy" in page


def test_select_takes_cases_shapes_and_wildcards() -> None:
    assert [shape for _, shape in cases.select(["chain-nll"])] == list(cases.ChainNLL().shapes)
    assert [shape for _, shape in cases.select(["chain-nll/32x*"])] == ["32x128x16", "32x512x64"]
    assert cases.select([]) == [(case, shape) for case in cases.ALL for shape in case.shapes]
    with pytest.raises(ValueError, match="nonsense: no such case or shape; there are grid-bp"):
        cases.select(["chain-nll", "nonsense"])


def test_case_names_serve_the_command_line() -> None:
    names = [f"{case.name}/{shape}" for case in cases.ALL for shape in case.shapes]
    assert len(set(names)) == len(names)
    assert all(name.isascii() and not set(name) & set(" ,*?[") for name in names)


def test_grid_references_agree_with_the_plain_log_domain() -> None:
    from benchmarks.cases import grid_belief_propagation as grid

    generator = torch.Generator().manual_seed(1)
    nodes = torch.randn(2, 3, 4, 3, generator=generator, dtype=torch.float64)
    table_ = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    for iterations in (1, 2, 3):  # before it has converged, so that a shifted count of iterations would show
        one, other = grid._reference(nodes, table_, iterations), grid._plain(nodes, table_, iterations)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_chain_reference_is_the_loss_and_its_gradient() -> None:
    from benchmarks.cases import chain_nll

    generator = torch.Generator().manual_seed(1)
    nodes = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    edges = torch.randn(3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    gold = torch.randint(3, (2, 4), generator=generator)
    every = torch.cartesian_prod(*[torch.arange(3)] * 4)

    def score(y: torch.Tensor) -> torch.Tensor:
        pairs = edges[y[..., :-1], y[..., 1:]].sum(-1)
        return torch.stack([nodes[b][torch.arange(4), y].sum(-1) + pairs for b in range(2)])

    loss = score(every).logsumexp(-1).sum() - sum(score(gold[b])[b] for b in range(2))
    loss.backward()
    expected = chain_nll._reference(nodes.detach(), edges.detach(), gold)
    answers = {"loss": loss.detach().numpy(), "nodes": nodes.grad.numpy(), "table": edges.grad.numpy()}
    assert runner.distance(answers, expected) < 1e-12


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, check=False, cwd=CHECKOUT, capture_output=True, text=True, timeout=300)


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line within this process, whose threads it must leave alone."""
    monkeypatch.setattr(command, "_limit_threads", lambda threads: None)
    return lambda *arguments: command.main(list(arguments))


def test_command_line_lists_and_refuses(main: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    listed = run("--list", "chain-nll")
    assert listed.returncode == 0
    assert listed.stdout.split() == [f"chain-nll/{shape}" for shape in cases.ChainNLL().shapes]
    assert main("nonsense") == 2
    assert "nonsense: no such case or shape" in capsys.readouterr().err


def test_command_line_renders_a_page(
    main: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results, page = tmp_path / "results.csv", tmp_path / "page.md"
    table.update(results, [runner.Row("chain-nll", "32x128x16", OURS, status="ok", median_ms=1.0, threads=2)])
    assert main("--render", str(results), "--out", str(page)) == 0
    assert "| 32x128x16 | lnz | 1 " in page.read_text()
    assert main("--render", str(tmp_path / "none.csv")) == 1
    assert "no results" in capsys.readouterr().err


def test_a_red_gate_is_an_exit_status(
    main: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = tmp_path / "results.csv"
    toy = Toy(lnz=returning(9.0, 9.0), peer=returning(1.0, 2.0))
    monkeypatch.setattr(cases, "ALL", (toy,))
    monkeypatch.setattr(cases, "select", lambda patterns: [(toy, "small")])
    assert main("--repeats", "2", "--threads", "1", "--out", str(results)) == 1
    assert "RED, no speed is reported for: toy/small" in capsys.readouterr().err
    assert [row.status for row in table.read(results)] == ["wrong", "untimed"]


@pytest.mark.slow
def test_a_real_case_from_the_command_line(tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    done = run("chain-nll/32x128x16", "--repeats", "2", "--threads", "1", "--out", str(results))
    assert done.returncode == 0, done.stdout + done.stderr
    ours = next(row for row in table.read(results) if row.contender == OURS)
    assert ours.status == "ok"
    assert ours.error <= ours.tolerance
    assert ours.threads == 1
