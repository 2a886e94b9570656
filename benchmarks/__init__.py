"""Benchmarks: the pipeline measured against its goals, and side by side with what it replaces.

``python -m benchmarks --help`` says how to run them. None of them asserts anything: a figure
depends on the machine, so it is printed beside its goal and left to the reader.
"""
