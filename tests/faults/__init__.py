"""Promises 1 to 5 under faults: a pipeline, real servers, real worker processes, an exact account.

`make test` runs the short version (`test_faults.py` and the focused tests beside it), `make faults`
the long one (`python -m tests.faults --help`).
"""
