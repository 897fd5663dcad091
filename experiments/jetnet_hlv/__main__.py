"""How close do boosted trees come to twelve observables of top jets, and what decides it?

    python -m experiments.jetnet_hlv [--smoke] [--data FOLDER] [--seeds 3] [-o FOLDER]

Presets, solvers, the recipe of arXiv 2404.18219 and a small neural flow, judged alike, beside
published numbers. FOLDER of ``--data`` has ``jetnet/t_hlv12.h5`` and ``jetnet/r04/t_hlv12.h5``;
without it the bundled jets serve. Every run is kept in ``runs.json`` of the output folder, and one
that is there already is not repeated; ``tables.md`` and the figures are made anew each time.
"""

from __future__ import annotations

from experiments import common
from experiments.jetnet_hlv import figures, summary
from experiments.jetnet_hlv.study import Study


def main() -> None:
    """Run, print the tables, draw."""
    parser = common.parser((__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument("--models", help="some of them, separated by semicolons; then no solvers")
    options = parser.parse_args()
    study = Study(options)
    scores = summary.summaries(study.work())
    text = summary.page(scores)
    print(text)
    if options.output is not None:
        (options.output / "tables.md").write_text(text)
        figures.draw(scores, study.tables, options.output)
    common.finish(scores, options.output, "jetnet_hlv")


if __name__ == "__main__":
    main()
