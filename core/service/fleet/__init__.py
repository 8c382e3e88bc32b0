"""The fleet: health, activity, the doctor, and draining workers."""
