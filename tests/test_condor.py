"""HTCondor without a pool: descriptions against golden files, logs of real jobs, what holds mean.

Golden files are written anew with: python tests/test_condor.py
"""

from __future__ import annotations

import dataclasses
import io
import time
import warnings
from pathlib import Path, PurePosixPath

import pytest
from conftest import QUICK

from flowbdt.cli.watch_jobs import Screen, job_table
from flowbdt.config import ModelConfig
from flowbdt.errors import ConfigError, JobWarning, RunError
from flowbdt.generation.sample_jobs import SampleJobs
from flowbdt.training.executors import EXECUTORS
from flowbdt.training.executors.batch_system import outcome
from flowbdt.training.executors.htcondor import HTCondor, event_log
from flowbdt.training.executors.htcondor.submissions import Pool, Submissions, advice
from flowbdt.training.executors.htcondor.submit_files import (
    arguments,
    environment,
    file_list,
    numbered,
    plain,
    single,
    string,
)
from flowbdt.training.executors.job_follower import COMPARE_S, IDLE_S, Follower, warn_of_holds
from flowbdt.training.executors.submission_records import Place
from flowbdt.training.numbered_jobs import STEPS, Needs
from flowbdt.training.plan import Inputs, make_plan
from flowbdt.training.run_directory import RunDirectory

ASSETS = Path(__file__).parent / "assets" / "condor"
INPUTS = ["tasks/$(name).json", "table", "transform.json", "preconditioner.npz"]


def described(settings, place, numbers=(0, 7, 12), *, as_dag=False):
    executor = HTCondor(python="/opt/my env/bin/python", **settings)
    batches = [numbers[:2], numbers[2:]] if numbers else []
    stages = [numbered(STEPS, INPUTS, Needs(279, 100), batches, executor, place)]
    if as_dag:
        stages.append(local(single("collect", ["collect", "."], executor, place)))
        parts = SampleJobs("new")
        stages.append(numbered(parts, ["steps"], Needs(500, 50), [(0,), (1,)], executor, place))
        stages.append(local(single("merge", ["merge", ".", "new"], executor, place)))
    stages = stages if numbers else stages[1:]
    texts = Submissions(RunDirectory("/nowhere")).written(stages, executor, place, as_dag)
    return "".join(f"---- {name}\n{text}" for name, text in sorted(texts.items()))


def local(stage):
    """A stage whose interpreter does not depend on where the tests run."""
    import sys

    text = stage.description.replace(sys.executable, "/opt/bin/python")
    return dataclasses.replace(stage, description=text)


PLAIN = Place(PurePosixPath("/data/run"), "condor/0001", "abc")
ODD = Place(PurePosixPath('/data/it\'s a "run" for $5'), "condor/0002", 'a"b')


def golden():
    """All golden files: name -> text."""
    lines = {"accounting_group": "higgs", "+JobFlavour": '"longlunch"'}
    pack = ASSETS / "environment.tar.gz"
    packed = {"pack": str(pack), "transfer": True, "max_materialize": 2}
    texts = {
        "shared": described({}, PLAIN),
        "odd_names": described({"transfer": True, "submit": lines, "env": {"A": "it's 5 $"}}, ODD),
        "packed": described(packed, PLAIN).replace(str(ASSETS), "/assets"),
        "dag": described({"request_memory": 900, "max_retries": 0}, PLAIN, as_dag=True),
        "dag_without_steps": described({}, PLAIN, numbers=(), as_dag=True),
    }
    return {f"{name}.txt": text for name, text in texts.items()}


@pytest.mark.parametrize("name", sorted(golden()))
def test_descriptions_are_the_golden_files(name):
    assert golden()[name] == (ASSETS / name).read_text()


def test_jobs_get_what_decides_the_last_bits_of_sums(tmp_path, jets, monkeypatch):
    """Where OpenBLAS was told to use other machine code, trees on a node came out otherwise."""
    run = RunDirectory(tmp_path / "run")
    config = ModelConfig(n_steps=2, booster=QUICK, preset="fast", preconditioner="none")
    make_plan(Inputs(jets, config, 1), run)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    text = HTCondor(env={"MKL_CBWR": "own"}).stage(Submissions(run), [0], STEPS, PLAIN).description
    assert "OPENBLAS_CORETYPE=Haswell" in text
    assert "MKL_CBWR=own" in text
    monkeypatch.delenv("OPENBLAS_CORETYPE")
    assert "CORETYPE" not in HTCondor().stage(Submissions(run), [0], STEPS, PLAIN).description


def test_empty_lists_leave_no_empty_lines_or_stray_words():
    text = described({}, PLAIN)
    assert all(line.strip() for line in text.splitlines())
    assert "transfer_input_files" not in text
    assert "max_materialize" not in text


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        ([], '""'),
        ([""], "\"''\""),
        (["a b", "c"], "\"'a b' c\""),
        (["it's"], "\"'it''s'\""),
        (['say "hi"'], '"\'say ""hi""\'"'),
        (["$HOME", "$(number)", "$(other)"], '"$(DOLLAR)HOME $(number) $(DOLLAR)(other)"'),
    ],
)
def test_arguments_are_quoted_as_the_manual_says(words, quoted):
    assert arguments(words) == quoted


def test_environment_and_strings_are_quoted():
    assert environment({}) == '""'
    assert environment({"A": "1", "B": "x y"}) == "\"A=1 B='x y'\""
    assert string('a "b" \\') == '"a \\"b\\" \\\\"'
    for bad in ({"A B": "1"}, {"1A": "1"}):
        with pytest.raises(ConfigError, match="environment variable"):
            environment(bad)
    for text in ("a\nb", " a"):
        with pytest.raises(ConfigError, match="line breaks"):
            plain(text)
    with pytest.raises(ConfigError, match="comma"):
        file_list(["a,b"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"request_memory": 0}, "request_memory"),
        ({"max_retries": -1}, "max_retries"),
        ({"submit": {"request_memory": "2 GB"}}, "executor.request_memory=2000"),
        ({"submit": {"a b": 1}}, "a b"),
        ({"submit": "group=x"}, "mapping"),
        ({"pack": "nowhere.tar.gz"}, "no file nowhere"),
        ({"pack": "environment.zip"}, ".whl"),
        ({"requestmemory": 5}, "Did you mean 'request_memory'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        EXECUTORS.build({"name": "htcondor", **settings})


# ---- logs


def copied(tmp_path, log, jobs, dag=False):
    """A run with one submission whose log is ``log``."""
    folder = tmp_path / "condor" / "0001"
    folder.mkdir(parents=True)
    (folder / "events.log").write_bytes(log)
    run = RunDirectory(tmp_path)
    record = {"format": 1, "mark": "abc", "dag": dag, "jobs": jobs, "cluster": 1}
    run.write_json("condor/0001/submission.json", record)
    return run


REAL = (ASSETS / "events.log").read_bytes()
"""Of a real pool: step 0 done; 1 failed once, then done; 2 killed, then done; 3 held for memory,
then done; 4 failed for good; 5 removed by hand; 6 running."""

JOBS = [f"step-{n}" for n in range(8)]


def states(run):
    submissions = Submissions(run)
    submissions.update()
    return {name: job.state for name, job in submissions.jobs().items()}


def test_a_real_log_gives_every_jobs_state(tmp_path):
    submissions = Submissions(copied(tmp_path, REAL, JOBS))
    changed = {job.name for job in submissions.update()}
    jobs = submissions.jobs()
    assert changed == set(JOBS) - {"step-7"}
    assert [jobs[name].state for name in JOBS] == [
        "done", "done", "done", "done", "failed", "failed", "running", "waiting",
    ]  # fmt: skip
    assert [jobs[name].attempts for name in JOBS[:4]] == [1, 2, 2, 2]
    assert jobs["step-4"].reason == "exit status 1"
    assert "condor_rm" in jobs["step-5"].reason
    assert jobs["step-3"].n_holds == 1
    assert jobs["step-3"].memory_mib > 300
    assert "slot1" in jobs["step-6"].machine


def test_steps_of_one_job_share_its_state_and_those_of_a_failed_one_get_jobs_of_their_own(tmp_path):
    run = copied(tmp_path, REAL, ["step-0", "step-4", "step-7"])
    record = run.read_json("condor/0001/submission.json")
    members = {"step-0": ["step-0", "step-1"], "step-4": ["step-4", "step-5", "step-6"]}
    run.write_json("condor/0001/submission.json", {**record, "members": members})
    assert states(run) == dict.fromkeys(("step-0", "step-1"), "done") | {
        **dict.fromkeys(("step-4", "step-5", "step-6"), "failed"),
        "step-7": "waiting",
    }
    text = job_table(_read(run).jobs().values())
    assert text.startswith("waiting 1   done 2   failed 3")
    assert text.count("step 4 and 2 more") == 1
    kind = Steps()
    stage = HTCondor(steps_per_job=2).stage(Submissions(run), range(8), kind, PLAIN)
    assert stage.batches == ((4,), (5,), (6,), (0, 1), (2, 3, 7)) or stage.batches == (
        *((4,), (5,), (6,)),
        *((0,), (1, 2), (3, 7)),
    )


class Steps(type(STEPS)):
    """Steps of a run that is not there."""

    def seconds(self, run):
        return 4.0

    def needs(self, run):
        return Needs(1, 1)


@pytest.mark.parametrize(
    ("n", "per_job", "n_threads", "n_workers", "sizes"),
    [
        (10, None, 1, 1, [5, 5]),  # of 4 s: 4 last 15 s
        (10, None, 1, 4, [2, 3, 2, 3]),  # or each of four workers has some
        (3, None, 1, 8, [1, 1, 1]),
        (9, None, 2, 1, [9]),  # of 2 s: 8
        (7, 3, 1, 4, [2, 2, 3]),
        (2, 9, 1, 1, [2]),
        (0, None, 1, 2, []),
    ],
)
def test_jobs_of_several_steps_last_fifteen_seconds(n, per_job, n_threads, n_workers, sizes):
    batches = Steps().batches(None, range(n), per_job, n_threads, n_workers)
    assert [len(batch) for batch in batches] == sizes
    assert [number for batch in batches for number in batch] == list(range(n))
    assert SampleJobs("new").batches(None, [1, 2], per_job) == [(1,), (2,)]


def test_following_can_stop_and_start_anywhere(tmp_path):
    """At every byte: the log is cut there, read, and then read on."""
    run = copied(tmp_path, REAL, JOBS)
    expected = states(run)
    log = run.file("condor/0001/events.log")
    for cut in range(0, len(REAL), 97):
        log.write_bytes(REAL[:cut])
        submissions = Submissions(run)
        submissions.update()
        log.write_bytes(REAL)
        submissions.update()
        assert {n: job.state for n, job in submissions.jobs().items()} == expected


def test_text_that_is_no_event_is_passed_over(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"what is this\n...\n" + REAL)
    found, offset = event_log.read_log(log)
    assert len(found) == len(event_log.read_log(ASSETS / "events.log")[0])
    assert offset == log.stat().st_size
    assert event_log.read_log(tmp_path / "nowhere") == ([], 0)


class Queue(Pool):
    """A queue that holds what the test says."""

    def __init__(self, jobs):
        self.jobs = jobs

    def submit(self, folder, description):
        raise RunError("the schedd is full")

    submit_dag = submit

    def queued(self, mark):
        assert mark == "abc"
        return self.jobs


def test_live_jobs_that_are_in_no_queue_are_lost(tmp_path):
    run = copied(tmp_path, REAL, JOBS)
    (job,) = {j.job for j in _read(run).jobs().values() if j.name == "step-6"}
    here = Submissions(run)
    assert {j.name for j in here.compare(Queue({job})) if j.state == "lost"} == set()
    assert here.jobs()["step-7"].live  # waits in the description
    gone = _read(run)
    assert {j.name for j in gone.compare(Queue(set())) if j.state == "lost"} == {"step-6", "step-7"}


def _read(run):
    submissions = Submissions(run)
    submissions.update()
    return submissions


def test_a_refused_submission_leaves_no_record(tmp_path):
    run = RunDirectory(tmp_path).create()
    submissions = Submissions(run)
    executor = HTCondor()
    place = submissions.place()
    stage = numbered(STEPS, INPUTS, Needs(1, 1), [(0,)], executor, place)
    with pytest.raises(RunError, match=r"the schedd is full\. Nothing was submitted"):
        submissions.submit(place, [stage], executor, Queue(set()), as_dag=False)
    assert Submissions(run).all == []
    assert submissions.place().folder == "condor/0002"


def test_a_job_that_ended_well_without_whole_files_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("flowbdt.training.executors.batch_system.FILES_S", 0.0)
    run = copied(tmp_path, REAL, JOBS)
    jobs = _read(run).jobs()
    assert "not here or not whole" in outcome(run, STEPS, 0, jobs)["error"]
    assert outcome(run, STEPS, 4, jobs)["error"] == "exit status 1"
    run.file("logs").mkdir()
    run.file("logs/0004.err").write_text("Traceback\nflowbdt: error: step 4 failed: no luck\n")
    assert outcome(run, STEPS, 4, jobs)["error"] == "exit status 1: step 4 failed: no luck"


# ---- what people read


def test_holds_are_explained_and_a_warning_says_so(tmp_path):
    assert "twice as much" in advice(34, 0, "5.0")
    assert "twice as much" in advice(21, 102, "5.0")
    assert "request_disk" in advice(21, 104, "5.0")
    assert "executor.transfer=true" in advice(14, 2, "5.0")
    assert advice(1, 0, "5.0") == (
        "somebody held it: condor_release 5.0 lets it go on, condor_rm 5.0 gives it up"
    )
    assert "condor_q -hold 5.0" in advice(99, 0, "5.0")
    held = REAL[: REAL.index(b"013 (")]
    jobs = _read(copied(tmp_path, held, JOBS)).jobs()
    with pytest.warns(JobWarning, match=r"step 3 is held: .*memory usage.*twice as much"):
        warn_of_holds(list(jobs.values()))
    with warnings.catch_warnings():
        warn_of_holds([jobs["step-0"]])


def test_jobs_that_no_machine_takes_are_told_of_once_in_a_while(tmp_path, monkeypatch):
    """A description that fits no machine of the pool waits for ever, and nobody knows why."""
    queued = REAL[: REAL.index(b"001 (")]
    submissions = Submissions(copied(tmp_path, queued, JOBS[:1]))
    follower = Follower(submissions, None)
    now = time.monotonic()
    assert len(follower.news()) == 1
    with warnings.catch_warnings():
        assert follower.news() == []
    monkeypatch.setattr(time, "monotonic", lambda: now + IDLE_S + 60)
    with pytest.warns(JobWarning, match=r"1 job in the queue and none runs.*better-analyze 16\.0"):
        follower.news()
    with warnings.catch_warnings():
        follower.news()


def test_silent_logs_make_the_queue_be_asked(tmp_path, monkeypatch):
    follower = Follower(_read(copied(tmp_path, REAL, JOBS)), Queue(set()))
    assert follower.news() == []
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + COMPARE_S + 1)
    assert {job.name for job in follower.news() if job.state == "lost"} == {"step-6", "step-7"}


def test_a_queue_that_does_not_answer_is_asked_again(tmp_path, monkeypatch):
    class Broken(Queue):
        def queued(self, mark):
            raise RunError("the schedd does not answer")

    follower = Follower(_read(copied(tmp_path, REAL, JOBS)), Broken(set()))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + COMPARE_S + 1)
    with pytest.warns(JobWarning, match="does not answer; asking again later"):
        assert follower.news() == []


def test_the_table_counts_states_and_shows_what_needs_a_look(tmp_path):
    text = job_table(_read(copied(tmp_path, REAL, JOBS)).jobs().values())
    first, *rest = text.splitlines()
    assert first == "waiting 1   running 1   done 4   failed 2"
    assert any("step 4" in line and "exit status 1" in line for line in rest)
    assert not any("step 0" in line for line in rest)
    running = _read(copied(tmp_path / "b", REAL, JOBS)).jobs()["step-6"]
    many = job_table([dataclasses.replace(running) for _ in range(40)])
    assert many.splitlines()[-1].strip() == "... and 25 more"


def test_a_terminal_sees_one_table_and_a_file_only_new_lines():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, file = Screen(Terminal()), Screen(io.StringIO())
    for screen in (terminal, file):
        for text in ("a\nb", "a\nb", "a\nc"):
            screen.show(text)
    assert terminal._out.getvalue() == "a\nb\n\x1b[2F\x1b[Ja\nc\n"
    assert file._out.getvalue() == "a\nb\nc\n"
    Screen(None).show("nothing")


def test_without_htcondor_the_message_says_where_to_submit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RunError, match=r"condor_submit is not in PATH.*submits to your pool"):
        Pool.connect()


def test_a_command_that_fails_is_quoted(tmp_path, monkeypatch):
    program = tmp_path / "condor_submit"
    program.write_text("#!/bin/sh\necho no such user >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(RunError, match="condor_submit failed with exit status 3: no such user"):
        Pool().submit(tmp_path, "x.sub")
    with pytest.raises(RunError, match="condor_q did not answer"):
        Pool().queued("abc")


if __name__ == "__main__":
    for name, text in golden().items():
        (ASSETS / name).write_text(text)
