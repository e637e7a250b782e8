"""What processes of Ray keep for the others of a run: the jobs of its workers, and their events.

The rule of this room: it imports next to nothing, for each of them is a process of Ray, which would
take half a second of a core more if it knew of stores and settings.
"""

from __future__ import annotations

from unfused.actors.mailbox import TAKING, Mailbox, Mark
from unfused.actors.queue import JobQueue

__all__ = ["TAKING", "JobQueue", "Mailbox", "Mark"]
