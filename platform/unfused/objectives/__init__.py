"""Pre-training objectives: one file each, one protocol.

The rule of this room: a file here, apart from `protocol`, is an objective: its settings (`Config`,
above the first `import torch`), its module, and `build(config, setting)`. A new objective is one
new file and no more.
"""

from __future__ import annotations

from unfused.config import ObjectiveConfig
from unfused.config.choices import plugin
from unfused.objectives.protocol import Objective, Setting


def build(config: ObjectiveConfig, setting: Setting) -> Objective:
    """The objective that `config` describes, for one worker."""
    return plugin(config.room, config.kind).build(config, setting)


__all__ = ["Objective", "Setting", "build"]
