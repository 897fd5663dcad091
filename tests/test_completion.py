"""Shells complete commands, options and choices by the scripts that the program prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

LINES = {
    "flowbdt ge": {"generate"},
    "flowbdt calo ": {"evaluate"},
    "flowbdt fit --dr": {"--dry-run"},
    "flowbdt fit --executor jo": {"joblib"},
    "flowbdt export --format ": {"cpp", "onnx"},
}

BASH = """
source completion
COMP_LINE="$1" COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
case "$1" in *" ") COMP_WORDS+=(""); COMP_CWORD=$((COMP_CWORD + 1));; esac
_flowbdt_completion flowbdt
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
autoload -Uz compinit && compinit -u -D
_describe() { local found=(${(P)3}); print -rl -- ${found%%:*}; }
compadd() { print -rl -- ${(P)@[-1]}; }
words=("${(@s: :)1}") CURRENT=${#words}
source ./completion
_flowbdt_completion
"""
FISH = "source completion; complete -C $argv[1]"


def completed(shell, script, line, folder):
    """Return the first words that a shell offers."""
    (folder / "script").write_text(script)
    bin = folder / "bin"
    environ = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"}
    options = {"fish": ["--no-config"], "zsh": ["-f"], "bash": ["--norc"]}[shell]
    command = [shell, *options, "script", line]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return {one.split("\t")[0].strip() for one in done.stdout.splitlines() if one.strip()}


@pytest.mark.parametrize(("shell", "script"), [("bash", BASH), ("zsh", ZSH), ("fish", FISH)])
def test_a_shell_completes_commands_options_and_choices(shell, script, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    program = tmp_path / "bin" / "flowbdt"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nfrom flowbdt.cli.main import main\nraise SystemExit(main())\n"
    )
    program.chmod(0o755)
    ask = {**os.environ, "_FLOWBDT_COMPLETE": f"{shell}_source"}
    source = subprocess.run([program], env=ask, capture_output=True, text=True, check=True)
    (tmp_path / "completion").write_text(source.stdout)
    for line, expected in [*LINES.items()][0 if shell == "bash" else -2 :]:
        assert completed(shell, script, line, tmp_path) == expected, line
