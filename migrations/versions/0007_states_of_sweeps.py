"""States of sweeps

Revision: 0007, after 0006

Gives held deletions the states "deleting" and "dropped". Until now, a row with the state "counting"
was being deleted if it had a time of decision, and was dropped if its run was the zero UUID.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"

NO_RUN = "00000000-0000-0000-0000-000000000000"


def upgrade() -> None:
    op.drop_constraint("state", "held_deletion", type_="check")
    op.create_check_constraint(
        "state",
        "held_deletion",
        "state IN ('counting', 'deleting', 'dropped', 'held', 'accepted', 'refused')",
    )
    op.execute(
        "UPDATE held_deletion SET state = 'deleting', decided_at = NULL"
        " WHERE state = 'counting' AND decided_at IS NOT NULL"
    )
    op.execute(
        f"UPDATE held_deletion SET state = 'dropped' WHERE state = 'counting' AND run_id = '{NO_RUN}'"
    )


def downgrade() -> None:
    op.execute(
        "UPDATE held_deletion SET state = 'counting', decided_at = now() WHERE state = 'deleting'"
    )
    op.execute(
        f"UPDATE held_deletion SET state = 'counting', run_id = '{NO_RUN}', decided_at = NULL"
        " WHERE state = 'dropped'"
    )
    op.drop_constraint("state", "held_deletion", type_="check")
    op.create_check_constraint(
        "state", "held_deletion", "state IN ('counting', 'held', 'accepted', 'refused')"
    )
