"""Benchmarks of Tidemill as its users meet it: the release binary, behind Flight SQL. See ../README.md."""
