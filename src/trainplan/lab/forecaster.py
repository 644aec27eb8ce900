"""Watch a comparison, and predict its later arms as soon as the first ones are done."""

from __future__ import annotations

from trainplan.lab import forecast
from trainplan.lab.experiment import Experiment
from trainplan.lab.forecast import ArmForecast, Forecast
from trainplan.lab.results import read_runs
from trainplan.lab.runner import Watcher
from trainplan.lab.segments import Graph
from trainplan.lab.store import RunDirectory


class Forecaster:
    """A watcher that passes everything on, and predicts when the fitted arms are done.

    Args:
        directory: Of the comparison.
        experiment: With peaks as they are trained.
        asked: What is asked for, or was predicted before an interruption.
        watcher: Is told everything as well.

    Attributes:
        forecast: What was predicted.
    """

    def __init__(
        self, directory: RunDirectory, experiment: Experiment, asked: Forecast, watcher: Watcher
    ) -> None:
        self.forecast = asked
        self._directory = directory
        self._experiment = experiment
        self._watcher = watcher
        self._graph: Graph | None = None
        self._missing: set[str] = set()

    @classmethod
    def of(
        cls, directory: RunDirectory, experiment: Experiment, watcher: Watcher
    ) -> Forecaster | None:
        """One for a directory that asks for a prediction; ``None`` for another."""
        asked = forecast.load(directory)
        return cls(directory, experiment, asked, watcher) if asked else None

    def first(self, graph: Graph) -> frozenset[str]:
        """The segments of the fitted arms, which are trained before the others."""
        chains = graph.chains.items()
        return frozenset(
            key for (arm, _), chain in chains if arm in self.forecast.fitted for key in chain
        )

    def stage(self, title: str) -> None:
        """Pass it on."""
        self._watcher.stage(title)

    def warn(self, message: str) -> None:
        """Pass it on."""
        self._watcher.warn(message)

    def begin(self, graph: Graph) -> None:
        """Take note of what has to be done before anything can be predicted."""
        self._graph = graph
        self._missing = set(self.first(graph))
        self._watcher.begin(graph)

    def progress(self, key: str, step: int, loss: float | None) -> None:
        """Pass it on."""
        self._watcher.progress(key, step, loss)

    def done(self, key: str) -> None:
        """Predict, if this was the last segment that was missing."""
        self._watcher.done(key)
        if key not in self._missing:
            return
        self._missing.discard(key)
        if not self._missing and not self.forecast.made and self._graph is not None:
            self.forecast = self._predict(self._graph)
            self._directory.write_json(forecast.FILE, self.forecast.to_dict())
            for entry in self.forecast.arms:
                self._watcher.warn(_said(entry))

    def _predict(self, graph: Graph) -> Forecast:
        fitted = self.forecast.fitted
        keys = self.first(graph)
        part = Graph(
            {key: segment for key, segment in graph.segments.items() if key in keys},
            {run: chain for run, chain in graph.chains.items() if run[0] in fitted},
        )
        found = {key: self._directory.segment(key).outcome() for key in keys}
        outcomes = {key: outcome for key, outcome in found.items() if outcome is not None}
        runs = read_runs(self._experiment, part, outcomes, self._directory)
        return forecast.predict_arms(self._experiment, fitted, runs, self._progress(graph, keys))

    def _progress(self, graph: Graph, fitted: frozenset[str]) -> dict[str, tuple[int, int]]:
        """Updates of each other arm that no fitted arm shares: those on disk, and all."""
        counts: dict[str, tuple[int, int]] = {}
        trained = {key: self._trained(key) for key in graph.segments if key not in fitted}
        for (arm, _), chain in graph.chains.items():
            if arm in self.forecast.fitted:
                continue
            own = [key for key in chain if key not in fitted]
            done, planned = counts.get(arm, (0, 0))
            done += sum(trained[key] for key in own)
            counts[arm] = done, planned + sum(graph.segments[key].steps for key in own)
        return counts

    def _trained(self, key: str) -> int:
        return sum("eval" not in row for row in self._directory.segment(key).rows())


def _said(entry: ArmForecast) -> str:
    when = f"after {entry.trained} of its own {entry.planned} steps"
    if entry.cannot_tell:
        return f"{entry.arm} cannot be predicted: {'; '.join(entry.cannot_tell)}"
    return (
        f"predicted final loss of {entry.arm}: {entry.loss[-1]:.4f} "
        f"({entry.low[-1]:.4f} to {entry.high[-1]:.4f}), {when}"
    )
