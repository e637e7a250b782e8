"""What processes of Ray keep for the others of a run: the jobs of its workers, and their events.

The rule of this room: it imports next to nothing, and looks into nothing that passes. A process of
Ray that knew of stores and settings would take half a second of a core and sixty megabytes more.
"""

from __future__ import annotations

from unfused.actors.mailbox import TAKING, Mailbox, Mark
from unfused.actors.queue import JobQueue

__all__ = ["TAKING", "JobQueue", "Mailbox", "Mark"]
