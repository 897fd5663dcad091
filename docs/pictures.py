"""Draw the pictures of pages that have no study of their own, from the public parts of flowBDT.

    python docs/pictures.py [NAME ...]

writes ``docs/NAME.png`` or ``.svg`` for the page ``docs/NAME.md``, with fixed seeds; only the
trials of ``tuning`` depend on the machine, as they are compared by their time, too. What a picture
shows of measured figures is read from the table of its page, so the two cannot differ.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
import textwrap
import zipfile
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from flowbdt import EventTable, FlowBDT, RunConfig, TimeGrid, integrate, read_table
from flowbdt.evaluation.metrics import METRICS
from flowbdt.evaluation.report import style
from flowbdt.evaluation.report.figures import column_page
from flowbdt.flow.closed_form import PRECONDITIONERS
from flowbdt.flow.couplings import COUPLINGS
from flowbdt.flow.fields import ClosedFormField
from flowbdt.flow.paths import PATHS
from flowbdt.flow.schedules import SCHEDULES
from flowbdt.flow.solvers import SOLVERS
from flowbdt.physics import bundled
from flowbdt.tables.formats import FORMATS
from flowbdt.tables.transforms import TRANSFORMS
from flowbdt.training.executors import EXECUTORS

DOCS = Path(__file__).resolve().parent
COLORS = [style.TRAINING, *style.SAMPLES]


def panels(count: int, width: float = 6.2, height: float = 3.6) -> tuple[Any, Any]:
    """Return a figure and its axes, beside each other; ``width`` of each is in inches."""
    figure = style.new_figure(width * count, height, "constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def beside(tables: list[tuple[str, EventTable, EventTable]]) -> tuple[Any, Any]:
    """Return a figure with a column of other real and generated events in each panel."""
    figure, pairs = style.ratio_panels(len(tables), style.Cells(height=2.8, top=0.45))
    for i, (pair, (name, real, made)) in enumerate(zip(pairs, tables, strict=True)):
        column_page((name,), real, {"generated": made}, None, axes=pair)
        if i:
            pair[0].get_legend().remove()
            for axes in pair:
                axes.set_ylabel("")
    return figure, pairs


def rows_of(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table of a page whose first line holds ``heading``."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (table,) = re.findall(rf"^\|.*{heading}.*\n\|.*\n((?:\|.*\n)+)", text, re.M)
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]


def jets(part: str, rows: int, *names: str) -> EventTable:
    """Return columns of the first bundled jets."""
    return bundled().load(part).take(slice(0, rows)).select(list(names))


def concepts() -> Any:
    """Draw points on their way from noise to a ring, by a fitted model."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(-np.pi, np.pi, 4000), rng.normal(2.0, 0.12, 4000)
    ring = {"x": radius * np.cos(angle), "y": radius * np.sin(angle)}
    ways = dict.fromkeys(ring, "standard")
    model = FlowBDT(preset="fast", solver="midpoint", n_steps=12, transforms=ways, random_state=1)
    flow = model.fit(ring).flow()
    steps, noise, solver = flow.grid.boundaries, rng.normal(size=(1200, 2)), flow.sampler.solver
    points = [noise, *(integrate(solver, flow.field, noise, steps[:k]).x for k in range(2, 14))]
    figure, axes = panels(4, 2.5, 2.8)
    for place, k in zip(axes, (0, 6, 9, 12), strict=True):
        way = np.stack(points[: k + 1])[:, :25]
        place.scatter(*points[k].T, s=2, color=style.GENERATED, alpha=0.5, lw=0)
        place.plot(way[..., 0], way[..., 1], color=style.TRAINING, lw=0.8)
        place.set(title=f"t = {steps[k]:.2g}", xlabel="x / width of x", xlim=(-3, 3), ylim=(-3, 3))
    axes[0].set_ylabel("y / width of y")
    return figure


def conditions() -> Any:
    """Draw jets generated at three momenta beside real ones near these."""
    table, held = jets("train", 10_000, "mass", "tau21", "pt"), bundled().load("test")
    model = FlowBDT(preset="fast", random_state=1)
    model.fit(table.select(["mass", "tau21"]), cond=table.select(["pt"]).x)
    tables, momenta = [], (750.0, 875.0, 1000.0)
    for pt in momenta:
        near = held.take(abs(held.column("pt") - pt) < 15.0)
        made = model.sample(5000, cond=np.array([[pt]]), random_state=2)
        tables.append(("mass", near, made))
    figure, pairs = beside(tables)
    for (upper, _), pt in zip(pairs, momenta, strict=True):
        title = rf"$p_{{\mathrm{{T}}}}$ = {pt:.0f} GeV"
        upper.set(title=title, yscale="linear", ylim=(0, 26), xlim=(40, 260))
    return figure


def distillation() -> Any:
    """Draw the scores of the page's table against their times."""
    figure, (axes,) = panels(1)
    for i, row in enumerate(rows_of("distillation.md", "us/event")):
        value, error = map(float, row[2].split(" ± "))
        if not row[4]:
            axes.axhspan(value - error, value + error, color=style.BAND, label="floor")
            continue
        look = {"color": COLORS[i], "marker": "osD^v<>"[i], "capsize": 2, "ls": ""}
        name = row[0].replace("`", "").split(":")[0]
        axes.errorbar(float(row[4]), value, error, label=name, **look)
    axes.set(xscale="log", xlabel=r"CPU time per event [$\mu$s]", ylabel="AUC, real or generated")
    style.plain_ticks(axes.xaxis)
    axes.legend()
    return figure


def export() -> Any:
    """Draw the times of the page's table."""
    figure, (axes,) = panels(1, height=3.0)
    for i, row in enumerate(rows_of("export.md", "us per event")):
        places, heights = np.arange(6) + 0.4 * i - 0.2, [float(cell) for cell in row[1:]]
        bars = axes.bar(places, heights, 0.38, color=style.SAMPLES[i], label=row[0].strip("`"))
        axes.bar_label(bars, row[1:], fontsize=8)
    ways = ("single", "double", "header alone")
    axes.set_xticks(range(6), [f"{name}\n{way}" for name in ("fast", "balanced") for way in ways])
    axes.set_ylabel(r"CPU time per event [$\mu$s]")
    axes.margins(y=0.1)
    axes.legend()
    return figure


def how_sure() -> Any:
    """Draw the band of an ensemble of four replicas around its sample."""
    names = ("mass", "pt")
    model = FlowBDT(preset="fast", n_steps=4, n_replicas=4, random_state=1)
    made = {"generated": model.fit(jets("train", 2000, *names)).sample(50_000, random_state=2)}
    replicas = {"generated": model.replicas_of(50_000, random_state=2)}
    return column_page(names, jets("test", 15_000, *names), made, None, replicas=replicas)


def mathematics() -> Any:
    """Draw the error of solvers on a field that is known exactly."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(3000, 2)) * 0.3 + rng.choice([-1.2, 1.2], (3000, 2))
    mixture = PRECONDITIONERS.build({"name": "mixture", "n_components": 4}).fit(data, seed=1)
    field, noise = ClosedFormField(mixture, PATHS.build("linear")), rng.normal(size=(500, 2))
    exact = integrate(SOLVERS.build("rk4"), field, noise, np.linspace(0, 1, 257)).x
    figure, (axes,) = panels(1)
    names = ("euler", "heun", "midpoint", "adams_bashforth_2", "dpm_solver_pp_2m", "rk4")
    for name, (color, dashes) in zip(names, style.lines(), strict=False):
        solver = SOLVERS.build(name)
        grids = [TimeGrid.build(solver, n).boundaries for n in (2, 4, 8, 16, 32, 64)]
        runs = [integrate(solver, field, noise, grid) for grid in grids]
        errors = [np.sqrt(np.mean((run.x - exact) ** 2)) for run in runs]
        cost = [run.n_evaluations for run in runs]
        axes.plot(cost, errors, color=color, ls=dashes, marker=".", label=name)
    axes.set(xscale="log", yscale="log", xlabel="evaluations of the velocity per event")
    axes.set_ylabel("rms distance to the end point\nof 256 steps of rk4")
    style.plain_ticks(axes.xaxis)
    axes.legend()
    return figure


def missing_values() -> Any:
    """Draw what is filled in where a known value was hidden, beside that value."""
    table = jets("train", 3000, "mass", "d12", "tau21").to_frame()
    gaps = np.random.default_rng(0).random(len(table)) < 0.2
    hidden = table.assign(mass=table["mass"].where(~gaps))
    model = FlowBDT(preset="fast", n_steps=2, random_state=1).fit(hidden)
    draws = model.impute(hidden, 20, random_state=2)
    filled = np.stack([draw["mass"].to_numpy()[gaps] for draw in draws])
    truth, (low, high) = table["mass"].to_numpy()[gaps], (filled.min(0), filled.max(0))
    middle, inside = np.median(filled, axis=0), np.mean((truth >= low) & (truth <= high))
    figure, (axes,) = panels(1, 4.6, 4.0)
    reach = np.stack([middle - low, high - middle])[:, :150]
    look = {"color": style.GENERATED, "ecolor": "#eebb99", "ms": 3, "lw": 1, "fmt": "o"}
    axes.errorbar(truth[:150], middle[:150], reach, **look)
    axes.axline((150, 150), slope=1, color=style.REAL, lw=1)
    axes.set_xlabel("hidden jet mass [GeV]")
    axes.set_ylabel("filled in: median, least, largest of 20 [GeV]")
    axes.set_title(f"{inside:.0%} of {gaps.sum()} hidden values inside, 90% should")
    return figure


def own_data() -> Any:
    """Draw a column with a spike, a count, and one with a hard limit."""
    rng = np.random.default_rng(0)

    def table(n: int) -> EventTable:
        energy = np.where(rng.random(n) < 0.1, 0.0, rng.exponential(20.0, n))
        mass = np.maximum(rng.normal(90.0, 3.0, n), 88.0)
        columns = {"energy": energy, "hits": rng.poisson(4, n), "mass": mass}
        return EventTable.of(columns, units={"energy": "GeV", "mass": "GeV"})

    made = FlowBDT(preset="fast", random_state=1).fit(table(4000)).sample(20_000, random_state=2)
    figure = column_page(("energy", "hits", "mass"), table(20_000), {"generated": made}, None)
    figure.axes[3].locator_params(axis="x", integer=True)
    figure.axes[5].set_xlabel("mass [GeV]")  # not of a jet
    return figure


def root() -> Any:
    """Draw events of some jets each, read from a ROOT file and learned with their gaps."""
    import awkward as ak

    from flowbdt.tables.event_collections import write_collections

    rng = np.random.default_rng(1)

    def table(n: int, path: Path) -> EventTable:
        count = rng.poisson(2.0, n)
        pt = ak.sort(ak.unflatten(20 + rng.exponential(30.0, count.sum()), count), ascending=False)
        write_collections(path, ak.zip({"Jet_pt": pt}, depth_limit=1))
        return read_table(path, ["nJet", "Jet_pt_[01]"], missing=True)

    with tempfile.TemporaryDirectory() as folder:
        real, train = (table(n, Path(folder) / "events.root") for n in (20_000, 5000))
    made = FlowBDT(preset="fast", random_state=1).fit(train).sample(20_000, random_state=2)

    def known(one: EventTable, name: str) -> EventTable:
        return one.take(~np.isnan(one.column(name))).select([name])

    figure, pairs = beside([(name, known(real, name), known(made, name)) for name in real.names])
    for (_, lower), name in zip(pairs[1:], real.names[1:], strict=True):
        lower.set_xlabel(f"{name} [GeV]")
    return figure


def sharing() -> Any:
    """Draw the sizes of the parts of a model file."""
    holds = {
        "packed.bin": "packed.bin: all of it for the C++ core",
        "steps": "steps/: trees of the steps",
        "preconditioner.npz": "preconditioner.npz: mixture of Gaussians",
        "transform.json": "transform.json: columns and their transforms",
        "plan.json": "plan.json: settings and card",
        "manifest.json": "manifest.json: steps and digests",
    }
    names, sizes = ("mass", "pt", "tau1", "tau2"), dict.fromkeys(holds, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jets.flowbdt"
        FlowBDT(preset="fast", random_state=1).fit(jets("train", 8000, *names)).save(path)
        for member in zipfile.ZipFile(path).infolist():
            sizes[member.filename.split("/")[0]] += member.compress_size / 1000
    figure, (axes,) = panels(1, height=2.8)
    order = sorted(sizes, key=lambda key: sizes[key])
    bars = axes.barh([holds[k] for k in order], [sizes[k] for k in order], color=style.TRAINING)
    axes.bar_label(bars, [f"{sizes[k]:.3g}" for k in order], padding=2, fontsize=8)
    axes.set(xlabel="compressed size [kB]", title=f"{sum(sizes.values()):.0f} kB in all")
    axes.margins(x=0.12)
    return figure


def tuning() -> Any:
    """Draw the trials of a small study: their scores against the time of their training."""
    from flowbdt.tuning import tune

    with tempfile.TemporaryDirectory() as folder:
        table = jets("train", 1500, "mass", "pt", "tau21", "d12")
        base = RunConfig(random_state=1)
        tuned = tune(table, Path(folder) / "study", base=base, n_trials=14)
    figure, (axes,) = panels(1)
    marked = {0: ("start", style.TRAINING), tuned.winner: ("winner", style.GENERATED)}
    for trial in (trial for trial in tuned.trials if trial["state"] == "complete"):
        label, color = marked.get(trial["number"], (None, "#9e9e9e"))
        score, look = trial["scores"]["auc_gb"], {"marker": "o", "capsize": 2, "zorder": 2}
        place = (trial["costs"]["train_s"], score["value"], score["error"])
        axes.errorbar(*place, color=color, label=label, **look)
    axes.set(xscale="log", xlabel="training [CPU s]", ylabel="AUC, real or generated")
    style.plain_ticks(axes.xaxis)
    axes.legend()
    return figure


def tutorial() -> Any:
    """Draw three columns of the tutorial's sample, with the floor."""
    names = ("mass", "pt", "tau1", "tau2", "tau21")
    train, test = (jets(part, 8000, *names) for part in ("train", "test"))
    model = FlowBDT(preset="fast", relations=["tau21 = tau2 / tau1"], random_state=1).fit(train)
    made = {"generated": model.sample(8000, random_state=2)}
    return column_page(("mass", "pt", "tau21"), test, made, train)


WAY = (
    ("File to table", "tables/formats", FORMATS),
    ("Columns to smooth ones, and back", "tables/transforms", TRANSFORMS),
    ("Which noise goes with which event", "flow/couplings.py", COUPLINGS),
    ("Points between, and velocities", "flow/paths.py", PATHS),
    ("The part of the velocity in closed form", "flow/closed_form", PRECONDITIONERS),
    ("Where steps are trained", "training/executors", EXECUTORS),
    ("Times of the steps", "flow/schedules.py", SCHEDULES),
    ("From noise to events", "flow/solvers", SOLVERS),
    ("Scores", "evaluation/metrics", METRICS),
)
"""The registries in the order in which an event meets them."""


def extending() -> str:
    """Return the way of an event through the registries, with the names of each, as SVG."""
    parts, top = [], 4
    for number, (does, home, registry) in enumerate(WAY):
        lines = textwrap.wrap(", ".join(registry.names()), 66)
        height = max(44, 14 * len(lines) + 14)
        parts.append(
            f'<rect x="2" y="{top}" width="756" height="{height}" rx="6" fill="#eceff1"'
            f' stroke="#546e7a"/><text x="12" y="{top + 18}" font-weight="bold">{escape(does)}'
            f'</text><text x="12" y="{top + 34}" fill="#546e7a">{home}</text>'
        )
        for i, line in enumerate(lines):
            parts.append(f'<text x="300" y="{top + 18 + 14 * i}">{escape(line)}</text>')
        top += height + 18
        if number + 1 < len(WAY):
            parts.append(
                f'<path d="M150 {top - 18} v14 l-4 -6 m4 6 l4 -6" fill="none" stroke="#546e7a"/>'
            )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {top - 14}"'
        ' font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, *parts, "</svg>", ""])


DRAWN = (
    *(concepts, conditions, distillation, export, extending, how_sure, mathematics),
    *(missing_values, own_data, root, sharing, tuning, tutorial),
)
PICTURES = {draw.__name__: draw for draw in DRAWN}


def write(name: str, folder: Path = DOCS) -> Path:
    """Write a picture and return its path; a PNG with few colours, which makes it small."""
    from PIL import Image

    with style.drawing():
        made = PICTURES[name]()
        if isinstance(made, str):
            (path := folder / f"{name}.svg").write_text(made, encoding="utf-8")
            return path
        made.savefig(content := io.BytesIO(), format="png", dpi=110)
    path = folder / f"{name}.png"
    Image.open(content).convert("RGB").quantize(96).save(path, optimize=True)
    return path


if __name__ == "__main__":
    for name in sys.argv[1:] or PICTURES:
        print(write(name))
