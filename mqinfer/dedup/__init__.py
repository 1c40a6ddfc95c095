"""Near-duplicates: which pictures are copies of an earlier one, decided alike however they arrive.

`duplicates` has what an app declares; `standing` has the rule, and `parts` how candidates are met.
"""
