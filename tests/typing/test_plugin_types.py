"""The messages of mypy for plugin authors.

Correct code passes, and the usual mistakes are errors before any code runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

BEGINNING = """
from pydantic import BaseModel
from core import BaseIntegration, Context, Listing, Manifest, RateLimited
from core import Task, TaskOutput, TaskResult, task

class Config(BaseModel):
    folder: str = "/"

class Cursor(BaseModel):
    at: int

class Shop(BaseIntegration[Config]):
    manifest = Manifest("shop", "Shop")

    @task
    def page(self, ctx: Context, number: int) -> TaskResult:
        return TaskResult()

    @task(cost={"quota": 1})
    def item(self, ctx: Context, id: str, level: int = 0) -> TaskResult:
        return TaskResult()

def check(self: Shop, ctx: Context) -> object:
"""

MISTAKES = {
    "a task that does not exist": (
        "return self.pages.task(number=1)",
        '"Shop" has no attribute "pages"',
    ),
    "a payload of the wrong type": (
        'return self.page.task(number="1")',
        'Argument "number" to "task" of "TaskMethod" has incompatible type "str"; expected "int"',
    ),
    "a positional payload of the wrong type": (
        "return self.item.task(1)",
        'has incompatible type "int"; expected "str"',
    ),
    "a payload that is not all": (
        "return self.page.task()",
        'Missing positional argument "number" in call to "task"',
    ),
    "a payload that is too much": (
        "return self.page.task(number=1, more=2)",
        'Unexpected keyword argument "more" for "task"',
    ),
    "a direct call of the wrong type": (
        'return self.page(ctx, "1")',
        'has incompatible type "str"; expected "int"',
    ),
    "a config field that does not exist": (
        "return self.config.path",
        '"Config" has no attribute "path"',
    ),
    "a state of another type": (
        'cursor = ctx.state("p", Cursor)\n    return cursor.at',
        'Item "None" of "Cursor | None" has no attribute "at"',
    ),
    "an output of the wrong type": (
        'return TaskResult(output=["a"])',
        'List item 0 has incompatible type "str"; expected "TaskOutput"',
    ),
    "tasks of the wrong type": (
        "return TaskResult(tasks=[self.page])",
        "List item 0 has incompatible type",
    ),
    "content of the wrong type": (
        'return TaskOutput("a", 5)',
        'has incompatible type "int"; expected "str | bytes | Blob | None"',
    ),
    "a code that does not exist": (
        'return TaskOutput("a", code=404)',
        'expected "Literal[200, 206, 410]"',
    ),
    "a wait of the wrong type": (
        'raise RateLimited(retry_after="soon")',
        'expected "float | None"',
    ),
}

WRONG_CLASSES = """
class Wrong(BaseIntegration[Config]):
    manifest = Manifest("wrong", "Wrong")

    @task
    def returns_a_list(self, ctx: Context) -> list[TaskOutput]:
        return []

    @task
    def has_no_context(self) -> TaskResult:
        return TaskResult()

    def start(self, ctx: Context) -> None:
        return None
"""
WRONG_CLASS_ERRORS = (
    'has incompatible type "Callable[[Wrong, Context], list[TaskOutput]]"',
    'has incompatible type "Callable[[Wrong], TaskResult]"',
    'Return type "None" of "start" incompatible with return type "TaskResult" in supertype',
)


def mypy(folder: Path, *files: Path) -> str:
    """Return the output of mypy --strict, run as by an author with a checkout beside ours."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--no-error-summary",
        f"--cache-dir={folder / 'cache'}",
    ]
    environment = {**os.environ, "MYPYPATH": str(HERE.parents[1]), "NO_COLOR": "1"}
    done = subprocess.run(
        [*command, *map(str, files)],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the output for all files together, since each start of mypy takes seconds."""
    folder = tmp_path_factory.mktemp("mypy")
    files = {
        f"mistake_{number}.py": f"{BEGINNING}    {code}\n"
        for number, (code, _) in enumerate(MISTAKES.values())
    }
    files |= {
        "wrong_classes.py": BEGINNING + "    return None\n" + WRONG_CLASSES,
        "good_plugin.py": (HERE / "good_plugin.py").read_text(),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    return mypy(folder, *(folder / name for name in files))


def about(said: str, file: str) -> list[str]:
    return [
        line
        for line in said.splitlines()
        if Path(line.split(":")[0]).name == file and ": error:" in line
    ]


def test_correct_plugin_code_passes_mypy(said: str) -> None:
    assert about(said, "good_plugin.py") == []
    assert "core/" not in said


@pytest.mark.parametrize(("number", "mistake"), list(enumerate(MISTAKES)), ids=list(MISTAKES))
def test_each_mistake_causes_exactly_one_error(said: str, number: int, mistake: str) -> None:
    errors = about(said, f"mistake_{number}.py")
    assert len(errors) == 1, errors
    assert MISTAKES[mistake][1] in errors[0]


@pytest.mark.parametrize("expected", WRONG_CLASS_ERRORS)
def test_a_task_of_the_wrong_shape_is_an_error(said: str, expected: str) -> None:
    assert any(expected in line for line in about(said, "wrong_classes.py")), about(
        said, "wrong_classes.py"
    )
