"""What a person should look at before using a branch: rules as data, pure judgements, one bounded reader of objects.

Nothing here runs, checks out or writes anything, and every text that it returns is hostile.
"""
