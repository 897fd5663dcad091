"""Pages of the documentation site that are made from other files of this project.

README files, notebooks, listings and the reference are read where they are, so nothing is written
twice. Links in them, relative to their own folder, are turned into links between pages.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import textwrap
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

METHOD = (
    "flow/paths.py",
    "training/noisy_pairs.py",
    "flow/step_inputs.py",
    "flow/closed_form/mixture_on_path.py",
    "training/train_step.py",
    "flow/solvers/runge_kutta.py",
    "generation/generate_rows.py",
)
"""The files that make the method, in the order in which to read them."""

MODULES = (
    "",
    "physics",
    "physics.jets",
    "physics.calorimeter.model",
    "tables.transforms",
    "flow.paths",
    "flow.curved_paths",
    "flow.couplings",
    "flow.schedules",
    "flow.solvers",
    "flow.closed_form",
    "evaluation.metrics",
    "networks",
    "networks.backbones",
    "networks.loss_weights",
    "networks.objective",
    "networks.hybrid",
    "tuning",
    "training.executors",
    "config",
    "errors",
)
"""Modules in the reference; "" is flowbdt itself."""

CODE = re.compile(r"<!-- code: (\S+) (\S+) -->")
LINK = re.compile(r"(!?\[[^\]]*\])\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


BENCHMARKS = {"benchmarks/README.md": "results/benchmarks.md"}
"""Repository path -> page. The README is the only place that holds the numbers."""


def study_pages() -> dict[str, str]:
    """Return repository path -> page of what the studies found: README files and their tables."""
    pages = {}
    for file in sorted((ROOT / "experiments").glob("*/*.md")):
        name = file.parent.name if file.stem == "README" else f"{file.parent.name}_{file.stem}"
        pages[file.relative_to(ROOT).as_posix()] = f"results/{name}.md"
    return pages


def taken_over() -> dict[str, str]:
    """Return repository path -> page of all texts that are taken over as they are."""
    return {"README.md": "index.md", **BENCHMARKS, **study_pages(), "CHANGELOG.md": "changes.md"}


def pictures() -> dict[str, str]:
    """Return repository path -> address of the pictures of studies that are not in docs/."""
    found = {}
    for readme in (*BENCHMARKS, *study_pages()):
        for text, target, _ in LINK.findall(read(readme)):
            path = os.path.normpath(os.path.join(os.path.dirname(readme), target))
            if text.startswith("!") and not path.startswith("docs/") and (ROOT / path).exists():
                found[path] = f"results/{path.split('/', 1)[1]}"
    return found


def listed() -> dict[str, str]:
    """Return repository path -> page of the files that are shown as listings."""
    paths = [*(f"flowbdt/{name}" for name in METHOD), "CITATION.cff", "LICENSE"]
    return {path: f"source/{path.replace('/', '_')}.md" for path in paths}


def notebooks() -> dict[str, str]:
    """Return repository path -> page of the notebooks."""
    found = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
    return {f"docs/notebooks/{path.name}": f"notebooks/{path.stem}.md" for path in found}


def read(path: str) -> str:
    """Return the text of a file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def listing(path: str) -> str:
    """Return a page that shows a file."""
    language = {".py": "python", ".cff": "yaml"}.get(Path(path).suffix, "text")
    return f'# {path}\n\n````{language} linenums="1"\n{read(path)}````\n'


def notebook_page(path: str) -> str:
    """Return a notebook as a page: texts as they are, code as blocks, no outputs."""
    parts = []
    for cell in json.loads(read(path))["cells"]:
        text = "".join(cell["source"])
        parts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    name = Path(path).name
    parts.insert(1, f"Download: [{name}]({name}). It takes seconds; the tests run it as it stands.")
    return "\n\n".join(parts) + "\n"


def module_file(module: str) -> str:
    """Return the repository path of a module; "" is flowbdt itself."""
    path = Path("flowbdt", *module.split(".")) if module else Path("flowbdt")
    return str(path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py"))


def constants(module: str) -> dict[str, Any]:
    """Return the plain constants of a module, such as ``__all__``, without importing it."""
    found = {}
    for node in ast.parse(read(module_file(module))).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with contextlib.suppress(ValueError):
                found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def public_names(module: str) -> list[str]:
    """Return the dotted names that a module offers; the module itself if it does not say."""
    known, prefix = constants(module), f"flowbdt.{module}".rstrip(".")
    if "_HOME" in known:
        return [f"{prefix}.{home}.{name}" for name, home in known["_HOME"].items()]
    return [f"{prefix}.{name}" for name in known.get("__all__", [])] or [prefix]


def reference_pages() -> dict[str, str]:
    """Return page -> text of the reference: one for flowbdt, one for each of `MODULES`."""
    pages, first = {}, public_names("")
    for module in MODULES:
        name = f"flowbdt.{module}".rstrip(".")
        summary = ast.get_docstring(ast.parse(read(module_file(module)))) or ""
        entries = [entry for entry in public_names(module) if not module or entry not in first]
        parts = [f"::: {entry}" for entry in entries]
        if parts == [f"::: {name}"]:
            parts.append(_without(module))
        else:
            parts.insert(0, summary)
        body = "\n\n".join(parts).replace("\n\n    options", "\n    options")
        pages[f"reference/{name}.md"] = f"# {name}\n\n{body}\n"
    return pages


def _without(module: str) -> str:
    """Return the option that leaves out names which the page of flowbdt has already."""
    there = [name for name, home in constants("")["_HOME"].items() if home == module]
    return "    options:\n      filters: " + json.dumps(["!^_", *(f"!^{name}$" for name in there)])


def size_table() -> str:
    """Return a table of the files of the method: lines, lines of code, what they import."""
    rows = ["| file | lines | of code | imports from flowbdt |", "|---|---|---|---|"]
    total = [0, 0]
    for name in METHOD:
        lines, code = count(read(f"flowbdt/{name}"))
        total = [total[0] + lines, total[1] + code]
        used = ", ".join(f"`{other}`" for other in imports(name))
        page = listed()[f"flowbdt/{name}"]
        rows.append(f"| [`{name}`]({page}) | {lines} | {code} | {used} |")
    return "\n".join([*rows, f"| together | {total[0]} | {total[1]} | |"])


def count(text: str) -> tuple[int, int]:
    """Return lines, and lines that are neither blank nor comment nor docstring."""
    lines = text.splitlines()
    quoted: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            quoted |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    code = [
        line
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.strip().startswith("#") and number not in quoted
    ]
    return len(lines), len(code)


def imports(name: str) -> list[str]:
    """Return the modules of flowbdt that a file imports when it is loaded."""
    depth, found = len(Path(name).parts), set()
    for node in ast.parse(read(f"flowbdt/{name}")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            inside = node.level == depth
            base = [] if inside else list(Path(name).parent.parts)
            base += node.module.split(".") if node.module else []
            names = [".".join(base)] if base else [alias.name for alias in node.names]
            found |= set(names)
    return sorted(found)


def excerpt(path: str, name: str) -> str:
    """Return the source of a function or method such as ``Path.target``, with where it is from."""
    text = read(f"flowbdt/{path}")
    node: Any = ast.parse(text)
    for part in name.split("."):
        found = [child for child in node.body if getattr(child, "name", "") == part]
        if not found:
            raise PluginError(f"there is no {name} in flowbdt/{path} to show; name another excerpt")
        node = found[0]
    lines: list[str] = text.splitlines()[node.lineno - 1 : node.end_lineno]
    return f'```python title="{path}"\n{textwrap.dedent(chr(10).join(lines))}\n```'


def filled_in(markdown: str) -> str:
    """Put excerpts and tables in the place of the comments that ask for them."""
    markdown = markdown.replace("<!-- sizes -->", size_table())
    return CODE.sub(lambda match: excerpt(match[1], match[2]), markdown)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add all pages that are made here."""
    made = {page: read(path) for path, page in taken_over().items()}
    made |= {page: listing(path) for path, page in listed().items()}
    made |= {page: notebook_page(path) for path, page in notebooks().items()}
    made |= reference_pages()
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for path, address in pictures().items():
        files.append(File.generated(config, address, abs_src_path=str(ROOT / path)))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add to the navigation what mkdocs.yml does not name: pages of docs/, and those made here."""
    nav = list(config.nav or [])
    named = set(re.findall(r"[\w/]+\.md", json.dumps(nav)))
    (method,) = (entry["Method"] for entry in nav if "Method" in entry)
    method += sorted({path.name for path in (ROOT / "docs").glob("*.md")} - named)
    config.nav = [
        *nav,
        {"Notebooks": list(notebooks().values())},
        {"Benchmarks": list(BENCHMARKS.values())},
        {"Studies": [{_spoken(page): page} for page in study_pages().values()]},
        {"Reference": list(reference_pages())},
        {"Source": list(listed().values())},
        {"Changes": "changes.md"},
    ]
    return config


def _spoken(page: str) -> str:
    return PurePosixPath(page).stem.replace("_", " ").capitalize()


def pages_by_path(files: Files) -> dict[str, str]:
    """Return repository path -> address, for links: what is made here, and what is in docs/."""
    known = {**taken_over(), **listed(), **pictures()}
    for file in files:
        if file.generated_by is None:
            known[f"docs/{file.src_uri}"] = file.src_uri
    return known


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    origin = {made: path for path, made in {**taken_over(), **notebooks()}.items()}
    path = origin.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    markdown = filled_in(markdown)
    if path.startswith("docs/") and page.file.src_uri not in origin:
        return _linked(markdown, "docs", page.file.src_uri, files)
    return _linked(markdown, str(PurePosixPath(path).parent), page.file.src_uri, files)


def _linked(markdown: str, folder: str, page: str, files: Files) -> str:
    known, here = pages_by_path(files), str(PurePosixPath(page).parent)

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        path = os.path.normpath(os.path.join(folder, target))
        if path in known:
            return f"{text}({os.path.relpath(known[path], here)}{anchor or ''})"
        if (ROOT / path).exists():
            return text[1:-1]  # a file or folder that is no page: its name without a link
        return match[0]  # a page that is made here, or a dead link that the build reports

    return LINK.sub(link, markdown)
