"""The documentation site: builds strictly, has no dead links, needs nothing from elsewhere."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from flowbdt.flow.closed_form import PRECONDITIONERS
from flowbdt.flow.couplings import COUPLINGS
from flowbdt.flow.paths import PATHS
from flowbdt.flow.schedules import SCHEDULES
from flowbdt.flow.solvers import SOLVERS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FORMULAS = (DOCS / "mathematics.md").read_text()
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}
"""What a browser fetches to show a page, besides the links of `STYLE`."""
STYLE = {"stylesheet", "preload", "modulepreload", "preconnect", "dns-prefetch", "icon", "manifest"}


class Page(HTMLParser):
    """Links, anchors, what is loaded, and the text of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in LOADED and LOADED[tag] in found:
            self.loaded.append(found[LOADED[tag]])
        if tag == "link" and STYLE & set(found.get("rel", "").split()):
            self.loaded.append(found.get("href", ""))

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs", reason="pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    # the page for unknown addresses is made for the root of a server
    return {file: Page(file) for file in sorted(site.rglob("*.html")) if file.name != "404.html"}


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of the tables of a page, by the name in `code` that a row begins with."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        match = re.match(r"`(\w+)`", cells[0])
        if line.startswith("|") and match:
            found.setdefault(match[1], []).append(cells)
    return {name: cells for name, many in found.items() for cells in many[-1:]}


def section(title: str) -> str:
    (body,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", FORMULAS, flags=re.M | re.S)
    return body


@pytest.mark.slow
def test_no_link_of_the_site_is_dead(pages):
    dead = []
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link in ("", "#"):
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            known = pages[target].anchors if target in pages else None
            if not target.is_file() or (parts.fragment and known and parts.fragment not in known):
                dead.append(f"{file.name}: {link}")
    assert not dead
    assert sum(len(page.links) for page in pages.values()) > 1000


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site, pages):
    for file, page in pages.items():
        assert page.loaded, file
        for address in page.loaded:
            assert not urlsplit(address).netloc, f"{file.name} loads {address}"
            path = urlsplit(address).path
            assert (file.parent / unquote(path)).is_file(), f"{file.name} lacks {address}"
    for style in site.rglob("*.css"):
        assert not re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", style.read_text()), style


@pytest.mark.slow
def test_every_public_name_is_in_the_reference(pages):
    import flowbdt

    (reference,) = (page for file, page in pages.items() if file.name == "flowbdt.html")
    names = {anchor.rsplit(".", 1)[-1] for anchor in reference.anchors}
    assert set(flowbdt.__all__) - {"__version__"} <= names


def pages_of_results() -> dict[Path, str]:
    """Return README file -> name of its page, for benchmarks and all studies."""
    studies = (ROOT / "experiments").glob("*/README.md")
    found = {path: f"{path.parent.name}.html" for path in studies}
    return {**found, ROOT / "benchmarks" / "README.md": "benchmarks.html"}


@pytest.mark.slow
def test_benchmarks_and_studies_are_pages_under_headings_of_their_own(site):
    results = pages_of_results()
    assert len(results) >= 9
    home = (site / "index.html").read_text()
    for name in results.values():
        assert f'href="results/{name}"' in home
    assert home.index("Benchmarks") < home.index("results/benchmarks.html")
    assert "Studies" in home


@pytest.mark.slow
def test_pages_of_results_show_every_number_of_their_tables(site, pages):
    compared = 0
    for readme, name in pages_of_results().items():
        lines = [line for line in readme.read_text().splitlines() if line.startswith("|")]
        numbers = set(re.findall(r"\d[\d.,]*\d|\d", re.sub(r"\([^)]*\)", "", "\n".join(lines))))
        shown = pages[site / "results" / name].text
        assert not [number for number in numbers if number not in shown], name
        compared += len(numbers)
    assert compared > 1000


@pytest.mark.slow
def test_pages_of_results_show_the_pictures_of_the_studies(site, pages):
    compared = 0
    for readme, name in pages_of_results().items():
        shown = [site / "results" / a for a in pages[site / "results" / name].loaded]
        contents = [file.read_bytes() for file in shown if file.suffix == ".png"]
        wanted = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme.read_text())
        wanted_contents = [(readme.parent / path).read_bytes() for path in wanted]
        assert contents[len(contents) - len(wanted) :] == wanted_contents, name
        compared += len(wanted)
    assert compared >= 10


@pytest.mark.slow
def test_reference_names_parameters_of_a_docstring(site):
    pages = [site / "reference" / f"flowbdt{module}.html" for module in ("", ".config")]
    model, settings = (" ".join(page.read_text().split()) for page in pages)
    assert "early_stopping_rounds" in model
    assert "so that trees learn only what remains" in model
    assert "0 for none. Used where it is exact" in settings


@pytest.mark.parametrize(
    ("registry", "title"),
    [
        (PATHS, "Paths and targets"),
        (COUPLINGS, "Paths and targets"),
        (PRECONDITIONERS, "Paths and targets"),
        (SCHEDULES, "Schedules"),
        (SOLVERS, "Solvers"),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_every_registered_name_is_among_the_formulas(registry, title):
    assert not [name for name in registry.names() if f"`{name}`" not in section(title)]


def test_every_registered_weight_and_noise_level_is_among_the_formulas():
    pytest.importorskip("torch")
    from flowbdt.networks.loss_weights import WEIGHTS
    from flowbdt.networks.objective import LEVELS, OBJECTIVES

    names = [*WEIGHTS.names(), *LEVELS.names(), *OBJECTIVES]
    assert len(names) > 15
    assert not [name for name in names if f"`{name}`" not in section("Losses are one loss")]


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_schedules_are_written_with_their_parameters_and_defaults(name):
    head = rows(section("Schedules"))[name][0]
    default = {} if name == "sigmas" else vars(SCHEDULES.build(name))
    for parameter in SCHEDULES.parameters(name):
        value = default.get(parameter)
        shown = f"{parameter} = {value:g}" if isinstance(value, (int, float)) else parameter
        assert shown in head


@pytest.mark.parametrize("name", [name for name in SOLVERS.names() if name != "restart"])
def test_solvers_are_written_with_their_order_and_cost(name):
    _, order, cost, *_ = rows(section("Solvers"))[name]
    solver = SOLVERS.build(name)
    assert order.split()[0] == str(solver.order)
    assert ("lambda" in order) == (solver.clock == "log_snr")
    assert cost == str(len(solver.offsets))


def test_the_drawing_of_the_packages_is_up_to_date():
    draw = runpy.run_path(str(DOCS / "architecture.py"))["drawing"]
    assert (DOCS / "architecture.svg").read_text() == draw(), "run python docs/architecture.py"


def test_every_page_has_a_picture():
    pages = sorted(DOCS.glob("*.md"))
    shown = {page: re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text()) for page in pages}
    assert len(pages) > 20
    assert not [page.name for page, pictures in shown.items() if not pictures]
    assert all((DOCS / picture).is_file() for pictures in shown.values() for picture in pictures)


def test_the_script_of_pictures_draws_those_of_the_pages(tmp_path):
    pytest.importorskip("matplotlib")
    code = (
        "import pictures, pathlib, sys; folder = pathlib.Path(sys.argv[1])\n"
        "for name in ('extending', 'export'): pictures.write(name, folder)\n"
        "print(*pictures.PICTURES)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]  # apart: other tests register names
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(DOCS)])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    drawn = (tmp_path / "extending.svg").read_text()
    assert (DOCS / "extending.svg").read_text() == drawn, "run python docs/pictures.py extending"
    assert (tmp_path / "export.png").stat().st_size > 5000
    for name in done.stdout.split():
        (file,) = (path for kind in ("png", "svg") if (path := DOCS / f"{name}.{kind}").is_file())
        assert file.stat().st_size < 60_000
        assert f"({file.name})" in (DOCS / f"{name}.md").read_text()


def test_there_is_a_notebook_for_each_use_case():
    assert {path.stem for path in NOTEBOOKS} == {"z_to_ee", "response", "unfolding"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 3
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, tmp_path):
    pytest.importorskip("matplotlib")
    cells = json.loads(path.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    script = tmp_path / "notebook.py"
    script.write_text("import matplotlib\nmatplotlib.use('Agg')\n" + "\n".join(code))
    done = subprocess.run(
        [sys.executable, "-W", "error", script.name], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "±" in done.stdout or "+-" in done.stdout
