"""Checks of the hostile plugin's tasks and of their neighbours."""

from __future__ import annotations

from support.deployment import Deployment

NEIGHBOURS = """
SELECT count(*) FILTER (WHERE state = 'done'), count(*) FROM sync_task WHERE type = 'neighbour'
"""
PARKED = """
SELECT coalesce(payload->>'deed', type), reason FROM sync_task WHERE state = 'parked' ORDER BY id
"""
KEPT = "SELECT external_id FROM user_integration_content WHERE kind = 'neighbour'"
BLAMED = "SELECT max(attempts), max(crashes) FROM sync_task WHERE type = 'neighbour'"


def parked(deployment: Deployment) -> dict[str, str]:
    """Return the reasons of the parked tasks, by deed."""
    return {deed: reason or "" for deed, reason in deployment.rows(PARKED)}


def assert_neighbours_done(deployment: Deployment, crashes: int = 0) -> None:
    """Assert that all neighbours are done, with their content, and without failed attempts.

    Args:
      deployment: The deployment.
      crashes: The number of crashes that may be counted against a neighbour. Default: 0.
    """
    [(done, known)] = deployment.rows(NEIGHBOURS)
    kept = {name for (name,) in deployment.rows(KEPT)}
    assert done == known == len(kept), (
        f"{done} of {known} neighbours are done, and kept {len(kept)} items"
    )
    [(attempts, died)] = deployment.rows(BLAMED)
    assert not attempts, f"a neighbour was tried {attempts} times"
    assert (died or 0) <= crashes, f"{died} crashes were counted against a neighbour"
