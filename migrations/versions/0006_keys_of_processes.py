"""Keys of processes

Revision: 0006, after 0005

Adds the fingerprints of the secret keys of each process: of the first one, and of all.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("process", sa.Column("encrypts_with", sa.Text()))
    op.add_column("process", sa.Column("decrypts_with", sa.ARRAY(sa.Text())))


def downgrade() -> None:
    op.drop_column("process", "decrypts_with")
    op.drop_column("process", "encrypts_with")
