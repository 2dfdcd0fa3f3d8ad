#!/usr/bin/env python3
"""Runs what the README shows: each ```sh block in a scratch tree, each ```c program, whose output must be the ```text
block that follows it.

usage: readme.py SOURCE BUILD

The scratch tree is links to SOURCE with `build` linked to a copy of BUILD's programs, so that commands find what
./examples/run would have built and nothing they write lands in the source. The two set-up commands themselves, which
would run this test again, are only checked to be there; .ci/run runs them. Commands that measure are run in their quick
form: what they print of speed here says nothing, and their peers need not be installed. So are programs that train for
a minute; tests of their own say what they learn."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

SELF = {"./examples/run", "./tests/run"}
QUICK = {"build/tests/bench/bench_attention": "--quick", "python3 tests/bench/peers.py": "--help",
         "python3 tests/bench/regression_peers.py": "--help",
         "build/bin/gradcheck --self-test": "--seeds 1",
         "build/bin/transformer --plot build/transformer": "--steps 40 --ask 20",
         "build/bin/squeeze_excitation --plot build/squeeze_excitation": "--epochs 2 --seeds 2",
         "build/bin/hard_attention --plot build/hard_attention": "--epochs 2 --seeds 1 --measure 2 --draws 2",
         "build/bin/search_engine --plot build/search --save build/search.safetensors": "--pairs 500 --epochs 1",
         "build/bin/search_engine --plot '' --bias": "--pairs 500 --epochs 1"}
FLAGS = os.environ.get("QKV_README_FLAGS", "")


def run(command, directory, **options):
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"README: {command} failed with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def make_tree(source, build, tree):
    for entry in source.iterdir():
        if not entry.name.startswith("build") and entry.name != ".git":
            (tree / entry.name).symlink_to(entry)
    (tree / "build").symlink_to(build)


def run_shell(block, tree):
    """Line by line. What is compiled takes the flags that the library was built with."""
    for line in block.strip().splitlines():
        line = re.sub(r"^cc ", f"cc {FLAGS} ", line)
        if line in QUICK:
            line += " " + QUICK[line]
        if line in SELF:
            if not os.access(tree / line, os.X_OK):
                sys.exit(f"README: {line} is not there or not executable")
        else:
            run(["sh", "-ec", line], tree)


def run_program(block, expected, libraries, source, build, tree):
    (tree / "program.c").write_text(block)
    flags = [f"-I{source}/include", f"-L{build}", "-lqkv", *libraries, f"-Wl,-rpath,{build}"]
    command = ["cc", "-std=c17", "-Wall", "-Wextra", "-Wconversion", "-Werror", "program.c", "-o", "program"]
    run(command + FLAGS.split() + flags, tree)
    printed = run(["./program"], tree)
    if printed != expected:
        sys.exit(f"README: a program printed\n{printed}and the README says\n{expected}")


def main():
    source, build = (pathlib.Path(path).resolve() for path in sys.argv[1:3])
    text = (source / "README.md").read_text()
    blocks = list(re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.S | re.M))
    tree = pathlib.Path(tempfile.mkdtemp(prefix="qkv-readme-"))
    try:
        make_tree(source, build, tree)
        counts = {"sh": 0, "c": 0}
        for i, (language, block) in enumerate(match.groups() for match in blocks):
            if language == "sh":
                run_shell(block, tree)
            elif language == "c":
                if i + 1 == len(blocks) or blocks[i + 1][1] != "text":
                    sys.exit("README: a program is not followed by its output")
                said = text[blocks[i - 1].end() if i else 0:blocks[i].start()]
                libraries = ["-lm"] if "`-lm`" in said else []  # not unless the reader is told
                run_program(block, blocks[i + 1][2], libraries, source, build, tree)
            if language in counts:
                counts[language] += 1
        if not counts["sh"] or not counts["c"]:
            sys.exit(f"README: found {counts}, expected commands and programs")
    finally:
        shutil.rmtree(tree)


main()
