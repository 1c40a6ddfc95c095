"""Tables: rows into ClickHouse: a schema from the row type, exact columns, one row an identity.

Bad rows are found and refused with a reason; all others are stored, through any outage.
"""
