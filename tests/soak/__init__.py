"""Kills, signals, full disks and long runs; `python -m soak` runs them."""
