"""The requests half of `make faults`: clients that ask gateways, and jobs, under seeded faults.

`make test` runs the short version (`test_asking.py`), `make faults-requests` the long one
(`python -m tests.faults.asking --help`).
"""
