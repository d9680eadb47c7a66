"""Recipes and defaults in YAML, and the loader that turns them into frozen dataclasses."""
