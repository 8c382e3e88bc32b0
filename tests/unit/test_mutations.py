"""The table of mutations matches the code.

Without this test, only the long session of mutations would notice that it does not.
"""

from __future__ import annotations

import pytest
from mutations import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_matches_the_code_and_its_tests_exist(mutation: Mutation) -> None:
    for file, there, wanted in mutation.changes:
        text = (ROOT / file).read_text("utf-8")
        assert there in text
        assert there != wanted
        if file.endswith(".py"):  # a module that cannot be imported would fail any test
            compile(text.replace(there, wanted, 1), file, "exec")
    for test in mutation.tests:
        path, _, function = test.partition("::")
        assert (ROOT / path).exists()
        assert not function or f"def {function}(" in (ROOT / path).read_text("utf-8")
