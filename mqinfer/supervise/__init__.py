"""Supervision: what keeps a process running, and ends it with whoever started it.

The rules are the same for a worker's processes (`cli/processes.py`) and for the embedded servers
(`stack/supervisor.py`): `lives` says when one that ended is started again, `guard` what the kernel
does when the supervisor itself is killed.
"""
