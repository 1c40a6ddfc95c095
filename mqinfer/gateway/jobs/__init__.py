"""Jobs by HTTP: submitted, looked at, followed, read and ended; all of it stands on `mqinfer.jobs`.

Workers read the rows and do the work, so that a gateway that dies meanwhile is missed by nobody.
"""
