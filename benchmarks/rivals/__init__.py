"""The same work done by other tools, as people who know them would write it.

Each is a script that reads one JSON object (:class:`benchmarks.throughput.Work`) from its
standard input, writes ``<out>/<file name>/<size>.<extension>`` and prints ``{"seconds": ...}``:
from its first look at the files, everything imported, to the last file written.
"""
