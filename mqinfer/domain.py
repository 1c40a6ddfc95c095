"""Domains: how the JetStream behind a leaf node is spoken to. Pure.

A leaf node has a JetStream of its own, or none. That of another server answers under its domain's
name: `$JS.<domain>.API.` stands for `$JS.API.`, and before what is written to a key-value bucket
(ADR-8). Messages, and what is published for no stream, keep their subjects.
"""

from __future__ import annotations

_API, _KEYS = "$JS.API.", "$KV."


def in_domain(subject: str, domain: str | None) -> str:
    """Where `subject` is published to reach the JetStream of a domain; None is the nearest."""
    if domain is None:
        return subject
    if subject.startswith(_API):
        return f"$JS.{domain}.API.{subject[len(_API) :]}"
    return f"$JS.{domain}.API.{subject}" if subject.startswith(_KEYS) else subject
