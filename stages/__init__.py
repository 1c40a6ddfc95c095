"""The stages of the examples, one short file a domain."""
