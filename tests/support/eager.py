"""The command line, in a process that keeps its priority whatever it works on.

One that works on a run gives way to all others (`nice` 10): beside two busy programs it takes a
minute for the second that its start needs. Its politeness is the business of tests of its own.
"""

from __future__ import annotations

import os
import sys

from mqinfer.cli import main

if __name__ == "__main__":
    os.setpriority = lambda *_: None
    sys.exit(main())
