"""The executor ``htcondor``."""

from __future__ import annotations

from collections.abc import Sequence

from ...numbered_jobs import Batch, JobKind
from ..base import EXECUTORS
from ..batch_system import BatchExecutor
from ..submission_records import Place
from .submissions import Submissions
from .submit_files import JobSettings, PoolStage, numbered, single


@EXECUTORS.register("htcondor")
class HTCondor(JobSettings, BatchExecutor):
    """Jobs of an HTCondor pool; `JobSettings` has the settings, a held job gives a JobWarning."""

    submissions = Submissions

    def described(
        self, submissions: Submissions, batches: Sequence[Batch], kind: JobKind, place: Place
    ) -> PoolStage:
        run = submissions.run
        inputs, needs = kind.inputs(run, "$(name)"), kind.needs(run)
        return numbered(kind, inputs, needs, batches, self.complete(), place)

    def single(self, name: str, words: Sequence[str], place: Place) -> PoolStage:
        return single(name, words, self.complete(), place)
