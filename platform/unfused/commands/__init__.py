"""What the commands do once their requests are understood.

    run        `unfused run`
    search     `unfused search`
    settings   `unfused config`
    places     stores and files that a person names
    trials     the trackers of a search's trials
    ending     how a command's listeners learn how it ended

The rule of this room: it joins the rooms below and decides nothing else.
"""
