"""Draw the pictures of the page from results, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OURS, PEER = "#1f77b4", "#b0b0b0"
SIZE = (7.0, 3.2)

mpl.rcParams["svg.hashsalt"] = "polling"  # the same results give the same file

Results = Mapping[str, Mapping[str, Any]]


def draw(results: Results, folder: Path) -> None:
    """Write `NAME.svg` for each picture whose results exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (needed, picture) in PICTURES.items():
        if all(one in results for one in needed):
            figure = Figure(figsize=SIZE, layout="constrained")
            picture(figure, results)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def _throughput(figure: Figure, results: Results) -> None:
    names = ("chain", "procrastinate", "celery")
    axes = figure.subplots()
    _pairs(axes, ["bare Dramatiq", "Procrastinate", "Celery"], [results[name] for name in names])
    axes.set_ylabel("tasks/s")


def _pairs(axes: Axes, labels: list[str], results: list[Mapping[str, Any]]) -> None:
    places = range(len(labels))
    axes.bar(
        [place - 0.2 for place in places],
        [one["ours"] for one in results],
        0.38,
        color=OURS,
        label="ours",
    )
    axes.bar(
        [place + 0.2 for place in places],
        [one["peer"] for one in results],
        0.38,
        color=PEER,
        label="peer",
    )
    axes.set_xticks(list(places), labels)
    axes.legend(frameon=False)


def _dlt(figure: Figure, results: Results) -> None:
    rows = results["dlt"]["details"]["connections"]
    axes = figure.subplots()
    _pairs(
        axes,
        [row[""].replace(": ", ":\n") for row in rows],
        [{"ours": row["ours, s"], "peer": row["dlt, s"]} for row in rows],
    )
    axes.set_ylabel("seconds (lower is better)")


def _upsert(figure: Figure, results: Results) -> None:
    rows = results["upsert"]["details"]["growth"]
    axes = figure.subplots(
        1, len({row["rows a transaction"] for row in rows}), sharey=True, squeeze=False
    )[0]
    for place, batch in zip(axes, sorted({row["rows a transaction"] for row in rows}), strict=True):
        mine = [row for row in rows if row["rows a transaction"] == batch]
        sizes = [row["rows in the table"] for row in mine]
        for name, style in (("ours", OURS), ("COPY", PEER), ("JSON", "#d0a060")):
            place.plot(
                sizes, [row[f"{name}, rows/s"] for row in mine], "o-", color=style, label=name
            )
        place.set(xscale="log", xlabel="rows in the table")
        place.set_title(f"{batch:,} rows a transaction", fontsize="medium")
    axes[0].set_ylim(0, None)
    axes[0].set_ylabel("rows/s")
    axes[0].legend(frameon=False)


def _claim(figure: Figure, results: Results) -> None:
    rows = results["claim"]["details"]["growth"]
    axes = figure.subplots()
    axes.plot(
        [row["accounts"] for row in rows], [row["median, ms"] for row in rows], "o-", color=OURS
    )
    axes.set(xscale="log", ylim=(0, None), xlabel="accounts", ylabel="ms to claim 100 due accounts")


def _latency(figure: Figure, results: Results) -> None:
    axes = figure.subplots()
    for name, color in (("ours", OURS), ("peer", PEER)):
        times = sorted(results["latency"]["rounds"][name])
        axes.step(
            times,
            [(place + 1) / len(times) for place in range(len(times))],
            color=color,
            label=name,
        )
    axes.axvline(60, color="#d62728", linewidth=0.8, linestyle=":", label="budget of the median")
    axes.set(xscale="log", xlabel="ms to the first row", ylabel="share of triggers")
    axes.legend(frameon=False)


def _size(figure: Figure, results: Results) -> None:
    samples = results["size"]["details"]["memory"]
    for place, column, name in zip(
        figure.subplots(1, 2), (1, 2), ("Valkey", "all workers"), strict=True
    ):
        place.plot(
            [sample[0] for sample in samples], [sample[column] for sample in samples], color=OURS
        )
        place.set(
            ylim=(0, None),
            xlabel="seconds since the start",
            ylabel="MiB",
            title=name,
        )


PICTURES: Mapping[str, tuple[tuple[str, ...], Callable[[Figure, Results], None]]] = {
    "throughput": (("chain", "procrastinate", "celery"), _throughput),
    "dlt": (("dlt",), _dlt),
    "upsert": (("upsert",), _upsert),
    "claim": (("claim",), _claim),
    "latency": (("latency",), _latency),
    "size": (("size",), _size),
}
"""For each file name: the benchmarks that the picture shows, and the function that draws it."""
