"""Environments to act in: pure functions of a key, a state and an action."""
