"""`mqinfer status`."""
def status() -> None:
    """Later; not written yet."""
