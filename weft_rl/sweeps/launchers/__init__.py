"""Launchers of a sweep's runs: one module each, with a `connect` function."""
