"""Samples of the leaders' monotonic clocks."""

from __future__ import annotations

YOUNG = "INSERT INTO monotonic_sample (watched, at) VALUES (0, now()), (600, now())"
"""A leader has led for ten minutes."""

OLD = """
INSERT INTO monotonic_sample (watched, at)
SELECT 86400.0 * day, now() - (40 - day) * interval '1 day' FROM generate_series(0, 40) AS day
UNION ALL
SELECT 86400.0 * 40 - 60.0 * minute, now() - minute * interval '1 minute'
FROM generate_series(1, 180) AS minute
"""
"""Leaders have led for 40 days, while no clock stepped."""
