"""Row packs: rows that nothing but their table's sink reads travel many in one message.

`which` says which types those are, and the subjects and consumers of packs; `layout` what a pack's
bytes mean; `gather` puts together what ends in one turn of the event loop; `unpack` makes rows of a
pack again, each with the identity and lineage that it would have as a message of its own.
"""
