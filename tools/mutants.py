#!/usr/bin/env python3
"""Change the package's source in one place at a time and see whether a test notices.

    make mutants                                                 # all modules below: hours on two cores
    make mutants MUTANTS="darknet_compat/boxes.py"               # one module
    make mutants MUTANTS="--every 10"                            # a sample of one in ten
    make mutants MUTANTS="--again --seconds 200"                 # those that survived, with the long tests too

The changes are cosmic-ray's, the ones of them that rarely say the same in other words, and two of ours: a call, a
deletion or an assignment to an attribute taken out, and min for max (any for all). They reach defaults, constants
and decorated functions too. A mutant lives in a copy of the checkout under build/mutants, so that programs which tests
start see it. It is killed where a test fails or hangs. Of the tests that reach the line, by a run under coverage, those
of the module's own test file come first, and the quick ones and the ones that killed others before the rest, until
``--seconds`` of tests have run. Each mutant has a process of its own, forked from one that has torch imported and
nothing of ours, so nothing is left from the mutant before.

Results stand in build/mutants/results.json; the last lines are a table per module. It needs the extra ``mutation``.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import fcntl
import gc
import hashlib
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import parso
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider
from parso.tree import NodeOrLeaf

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "mutants"
COPY = BUILD / "checkout"
MODULES = ["layers", "boxes.py", "weights.py", "cfg", "tree.py", "detect", "evaluate", "train"]
# What draws and what prints.
LEFT_OUT = ["detect/draw.py", "evaluate/plots.py", "train/chart.py", "train/log.py"]
CORE = [
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer", "NumberReplacer"),
    *("RemoveDecorator", "ZeroIterationForLoop"),
    *(f"ReplaceUnaryOperator_Delete_{name}" for name in ("USub", "Invert", "Not")),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul")),
    *(f"ReplaceBinaryOperator_{pair}" for pair in ("Mod_FloorDiv", "Pow_Mul", "BitAnd_BitOr", "BitOr_BitAnd")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is", "Lt_LtE")),
    *(f"ReplaceComparisonOperator_{pair}" for pair in ("LtE_Lt", "Gt_GtE", "GtE_Gt")),
]
PARTNERS = [("min", "max"), ("minimum", "maximum"), ("amin", "amax"), ("any", "all"), ("floor", "ceil")]
HEAVY = ["torch", "torch.utils.data", "numpy", "cv2", "lark", "hypothesis", "unittest.mock"]
# Without what only people read, and what looks for leaks: that walks over all of torch's objects after each run.
PYTEST = ["-q", "-s", "--tb=line", "--assert=plain", *("-p", "no:cacheprovider"), *("-p", "no:unraisableexception")]
# A mutant hangs that takes so many seconds of the processor and twice what its tests take, or a minute and thirty times
# as long as these.
MORE_SECONDS, LEAST_SECONDS = 3, 60


class RemoveStatement(Operator):
    """``pass`` for a call, a deletion, or an assignment to an attribute or an element."""

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[tuple]:
        if node.parent is None or node.parent.type != "simple_stmt":
            return
        target = node.children[0] if node.type == "expr_stmt" else node
        if node.type == "del_stmt" or target.type == "atom_expr":
            yield node.start_pos, node.end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        return parso.python.tree.Name("pass", node.start_pos, prefix=node.get_first_leaf().prefix)

    @classmethod
    def examples(cls) -> tuple:
        return ()


class SwapPartner(Operator):
    """``min`` for ``max`` and the like."""

    names = dict([*PARTNERS, *(pair[::-1] for pair in PARTNERS)])

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[tuple]:
        if node.type == "name" and node.value in self.names:
            yield node.start_pos, node.end_pos

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        return parso.python.tree.Name(self.names[node.value], node.start_pos, prefix=node.prefix)

    @classmethod
    def examples(cls) -> tuple:
        return ()


def operators() -> dict[str, Operator]:
    provider = OperatorProvider()
    return {
        **{name: provider[name]() for name in CORE},
        "RemoveStatement": RemoveStatement(),
        "SwapPartner": SwapPartner(),
    }


def mutants(source: str, settled: dict[str, str]) -> Iterator[dict]:
    """The mutants of a module whose names are not ``settled``, which takes up those that repeat another as "same".

    Of each: name, code, line of the change, lines of its statement (None where it stands in no function).
    """
    tree, seen = get_ast(source), {source}
    for name, operator in operators().items():
        places = (
            (node, index) for node in ast_nodes(tree) for index, _ in enumerate(operator.mutation_positions(node))
        )
        for occurrence, (node, index) in enumerate(list(places)):
            key = f"{name} {occurrence}"
            if key in settled or _without_effect(node):
                continue
            code = _mutated(tree, node, operator, index)
            assert tree.get_code() == source, f"{key} was not undone"
            if code in seen:
                settled[key] = "same"
                continue
            seen.add(code)
            inside = node.search_ancestor("funcdef", "lambdef") and not node.search_ancestor("param", "decorator")
            lines = _lines(node) if inside else None
            yield {"name": key, "code": code, "line": node.start_pos[0], "lines": lines}


def _mutated(tree: NodeOrLeaf, node: NodeOrLeaf, operator: Operator, index: int) -> str:
    """The module's code with the change, which is undone in the tree."""
    parent, children = node.parent, list(getattr(node, "children", []))
    siblings = list(parent.children)
    # Of all leaves below: the names in ``except (A, B)`` are no children of the clause itself.
    values = [(leaf, leaf.value) for leaf in ast_nodes(node) if hasattr(leaf, "value")]
    changed = operator.mutate(node, index)
    parent.children = [changed if sibling is node else sibling for sibling in siblings]
    if changed is None:
        parent.children.remove(None)
    code = tree.get_code()
    parent.children = siblings
    if children:
        node.children = children
    for leaf, value in values:
        leaf.value = value
    return code


def _without_effect(node: NodeOrLeaf) -> bool:
    """Is it in an annotation, the star before parameters by name, or the ``strict`` of a zip?"""
    if node.parent.type in ("parameters", "param") and node.type == "operator":
        return True
    while node.parent is not None:
        parent, before = node.parent, node.get_previous_sibling()
        sign = before.get_code().strip() if before is not None else ""
        if (parent.type, sign) in (("annassign", ":"), ("tfpdef", ":"), ("funcdef", "->")):
            return True
        if parent.type == "argument" and parent.children[0].get_code().strip() == "strict":
            return True
        node = parent
    return False


def _lines(node: NodeOrLeaf) -> list[int]:
    """The lines on which coverage may have seen the node run: its statement's, or its own and its block's first."""
    statement = node.search_ancestor("simple_stmt")
    if statement is not None:
        return list(range(statement.start_pos[0], statement.end_pos[0] + 1))
    return list(range(node.parent.start_pos[0], node.end_pos[0] + 1))


def copy_checkout() -> None:
    """A copy of what git knows, with old dates, so that a mutated file is always newer than the byte code."""
    shutil.rmtree(COPY, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, COPY / name)
            os.utime(COPY / name, (1e9, 1e9))
    shared = ROOT.parent / "shared"
    if shared.is_dir() and not (BUILD / "shared").exists():
        (BUILD / "shared").symlink_to(shared)


def warm_up() -> None:
    """Load what every child needs and no mutant changes."""
    for name in HEAVY:
        __import__(name)
    sys.path[0] = str(COPY)
    from tests.oracle import OracleMissing, load_oracle

    with contextlib.suppress(OracleMissing):
        load_oracle()
    pytest.main(["--version"])
    gc.collect()
    gc.freeze()


class InOrder:
    """A pytest plugin: the tests one after the other as listed, whatever their files."""

    def __init__(self, tests: list[str]) -> None:
        self.place = {test: index for index, test in enumerate(tests)}
        self.failed: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.place), key=lambda i: self.place[i.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def result(self) -> list[str]:
        return self.failed


class Reached:
    """A pytest plugin: for each test its seconds and, under coverage, the package's lines that it reached."""

    def __init__(self) -> None:
        from coverage import Coverage

        self.coverage = Coverage(data_file=None, source=[str(COPY / "darknet_compat")])
        self.seconds: dict[str, float] = {}
        self.coverage.start()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.coverage.switch_context(item.nodeid)
        # Of the processor, its own and its children's: what else runs on the machine does not count.
        start = sum(os.times()[:4])
        yield
        self.seconds[item.nodeid] = sum(os.times()[:4]) - start
        self.coverage.switch_context("collection")

    def result(self) -> dict:
        self.coverage.stop()
        data = self.coverage.get_data()
        tests = {test: {"seconds": seconds, "lines": {}} for test, seconds in self.seconds.items()}
        for file in data.measured_files():
            for line, contexts in data.contexts_by_lineno(file).items():
                for test in set(contexts) & set(tests):
                    tests[test]["lines"].setdefault(os.path.relpath(file, COPY), []).append(line)
        return tests


def in_child(arguments: list[str], plugin: type, given: list, normal: float = 0) -> tuple[int | None, list | dict]:
    """pytest in a forked process, in the copy -> its exit code and what the plugin found.

    The exit code is None where it takes much longer than ``normal`` seconds; 0 stands for no limit.
    """
    answer = BUILD / "answer.json"
    answer.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = 3
        try:
            os.setsid()
            if normal:
                resource.setrlimit(resource.RLIMIT_CPU, (MORE_SECONDS + math.ceil(2 * normal), resource.RLIM_INFINITY))
            os.chdir(COPY)
            os.environ["PYTHONPATH"] = str(COPY)
            null = os.open(os.devnull, os.O_RDWR)
            log = os.open(BUILD / "last.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for here, there in ((null, 0), (log, 1), (log, 2)):
                os.dup2(here, there)
            plugin = plugin(*given)
            code = int(pytest.main([*PYTEST, *arguments], plugins=[plugin]))
            answer.write_text(json.dumps(plugin.result()))
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + (max(LEAST_SECONDS, 30 * normal) if normal else math.inf)
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                found = json.loads(answer.read_text()) if answer.exists() else []
                return None if code == -signal.SIGXCPU else code, found
            time.sleep(0.02)
        return None, []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def reach(test_files: list[str]) -> dict:
    """Per test its seconds and lines, from build/mutants/reach.json where neither package nor test file changed."""
    package = hashlib.sha256()
    for file in sorted((COPY / "darknet_compat").rglob("*.py")):
        package.update(file.read_bytes())
    store = BUILD / "reach.json"
    known = json.loads(store.read_text()) if store.exists() else {}
    keys = {name: hashlib.sha256(package.digest() + (COPY / name).read_bytes()).hexdigest() for name in test_files}
    stale = [name for name, key in keys.items() if known.get(name, {}).get("key") != key]
    if stale:
        print(f"{len(stale)} test files under coverage", flush=True)
        code, tests = in_child(stale, Reached, [])
        if code != 0:
            sys.exit(f"the tests do not pass without a mutant (exit code {code}): see {BUILD / 'last.log'}")
        for name in stale:
            mine = {test: record for test, record in tests.items() if test.split("::")[0] == name}
            known[name] = {"key": keys[name], "tests": mine}
        store.write_text(json.dumps(known))
    return {test: record for name in test_files for test, record in known[name]["tests"].items()}


def tests_for(module: str, mutant: dict, tests: dict, seconds: float, kills: Counter) -> tuple[list[str], float]:
    """The tests to run, in order, and the seconds that they take; ``kills`` is how often a test killed a mutant."""
    reach = {test: set(record["lines"][module]) for test, record in tests.items() if module in record["lines"]}
    inner = Path(module).relative_to("darknet_compat")
    own = f"{Path('tests', inner).with_name(f'test_{inner.name}')}::"
    # What runs on import, in a function or not, is reached by every test of the module, and looked at by those of its
    # own file that reach nothing in it, as where a table or the defaults of a dataclass are compared.
    reached = [test for test, lines in reach.items() if lines & set(mutant["lines"] or ())]
    reached = reached or list({**reach, **{test: None for test in tests if test.startswith(own)}})
    chosen, total = [], 0.0

    def order(test: str) -> tuple:
        return not test.startswith(own), tests[test]["seconds"] / (1 + kills[test])

    for test in sorted(reached, key=order):
        if not chosen or total + tests[test]["seconds"] <= seconds:
            chosen.append(test)
            total += tests[test]["seconds"]
    return chosen, total


def judge(module: str, mutant: dict, tests: dict, seconds: float, kills: Counter) -> str:
    """ "killed", "hangs", "survived" or "no test"."""
    chosen, total = tests_for(module, mutant, tests, seconds, kills)
    if not chosen:
        return "no test"
    file = COPY / module
    original = file.read_bytes()
    try:
        file.write_text(mutant["code"])
        files = sorted({test.split("::")[0] for test in chosen})
        code, failed = in_child(["-x", *files], InOrder, [chosen], max(total, 0.1))
    finally:
        file.write_bytes(original)
        os.utime(file, (1e9, 1e9))
    kills.update(failed)
    return "hangs" if code is None else "survived" if code == 0 else "killed"


def change(source: str, code: str) -> str:
    """The changed lines, without their indentation."""
    lines = difflib.unified_diff(source.splitlines(), code.splitlines(), lineterm="", n=0)
    return "\n".join(f"    {line[0]} {line[1:].strip()}" for line in list(lines)[2:] if not line.startswith("@@"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", type=Path, help="files or folders; without: those the module lists")
    parser.add_argument("--tests", nargs="*", default=["tests"], help="test files or folders that may kill a mutant")
    parser.add_argument("--seconds", type=float, default=20, help="of the processor, for one mutant's tests (20)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="a sample of one mutant in N")
    parser.add_argument("--again", action="store_true", help="only the mutants that survived the last time")
    arguments = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", PYTHONHASHSEED="0", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    named = arguments.modules or [Path("darknet_compat", name) for name in MODULES]
    files = [file for path in named for file in ([ROOT / path] if path.suffix else sorted((ROOT / path).rglob("*.py")))]
    modules = [str(file.relative_to(ROOT)) for file in files]
    modules = [module for module in modules if module.removeprefix("darknet_compat/") not in LEFT_OUT]

    BUILD.mkdir(parents=True, exist_ok=True)
    lock = open(BUILD / "lock", "w")  # noqa: SIM115 (held to the end)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another run works in {BUILD}; wait for it, or end it")
    copy_checkout()
    warm_up()
    listed = [
        path
        for name in arguments.tests
        for path in ([COPY / name] if name.endswith(".py") else (COPY / name).rglob("test_*.py"))
    ]
    tests = reach(sorted(str(path.relative_to(COPY)) for path in listed))
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

    store = BUILD / "results.json"
    results = json.loads(store.read_text()) if store.exists() else {}
    for module in modules:
        source = (COPY / module).read_text()
        key, start = hashlib.sha256(source.encode()).hexdigest(), time.monotonic()
        before = results.get(module, {})
        fates = before.get("fates", {}) if before.get("key") == key else {}
        print(f"\n{module}", flush=True)
        open_fates = ("survived", "no test") if arguments.again else tuple(set(fates.values()))
        settled = {name: fate for name, fate in fates.items() if fate not in open_fates}
        kills: Counter[str] = Counter()
        results[module] = {"key": key, "fates": settled, "seconds": 0}
        for mutant in mutants(source, settled):
            if zlib.crc32(mutant["name"].encode()) % arguments.every:
                continue
            fate = settled[mutant["name"]] = judge(module, mutant, tests, arguments.seconds, kills)
            results[module] = {"key": key, "fates": settled, "seconds": time.monotonic() - start}
            store.write_text(json.dumps(results))
            if fate in ("survived", "no test"):
                print(
                    f"  {module}:{mutant['line']}: {fate}: {mutant['name']}\n{change(source, mutant['code'])}",
                    flush=True,
                )

    print(f"\n{'module':40s}{'mutants':>9s}{'killed':>8s}{'hang':>6s}{'survived':>10s}{'no test':>9s}{'seconds':>9s}")
    for module in modules:
        count = Counter(fate for fate in results[module]["fates"].values() if fate != "same")
        row = f"{count.total():9d}{count['killed']:8d}{count['hangs']:6d}{count['survived']:10d}{count['no test']:9d}"
        print(f"{module:40s}{row}{results[module]['seconds']:9.0f}")


if __name__ == "__main__":
    main()
