"""Seeded attacks on every file that omiad reads; `python -m fuzz` runs them."""
