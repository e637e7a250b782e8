"""Every setting: what there is, what it means, and the one door for a change.

    section     what a section is, and its identity
    choices     sections of which there are kinds: objectives, encoders, scorers
    sections    the settings that numbers depend on
    coherence   which of them exclude each other
    options     where and how a run happens
    environment variables that every command heeds
    changes     dotted names: listing, describing, `override`
    presets     named sets of changes
    reference   a setting explained: what it means, what it may be, its default

The rule of this room: what changes numbers is a typed field of one frozen section.
"""

from unfused.config import environment
from unfused.config.changes import (
    chosen_names,
    describe,
    difference,
    flatten,
    override,
    parse_overrides,
    repeated,
    shown,
)
from unfused.config.choices import (
    Choice,
    EncoderConfig,
    ObjectiveConfig,
    ProjectorConfig,
    ScorerConfig,
)
from unfused.config.options import (
    MAX_AT_ONCE,
    MAX_SEED,
    MAX_TRIALS,
    RunOptions,
    database_url,
    run_options,
)
from unfused.config.presets import DEMO, FAITHFUL, PRESETS, preset
from unfused.config.reference import Reference, reference
from unfused.config.section import (
    ConfigError,
    Count,
    Fraction,
    OffAt,
    Positive,
    Section,
    Temperature,
    Units,
    Weight,
    Width,
)
from unfused.config.sections import (
    NO_AUGMENT,
    AudioConfig,
    AugmentConfig,
    Channel,
    ClusterConfig,
    CombineConfig,
    Config,
    DataConfig,
    DistillConfig,
    DrawConfig,
    EmbedConfig,
    EvaluateConfig,
    FinetuneConfig,
    IngestConfig,
    NumCrops,
    Pooling,
    PretrainConfig,
    ScoringConfig,
    SelftrainConfig,
    TeachersConfig,
    Training,
    num_steps,
)

__all__ = [
    "DEMO",
    "FAITHFUL",
    "MAX_AT_ONCE",
    "MAX_SEED",
    "MAX_TRIALS",
    "NO_AUGMENT",
    "PRESETS",
    "AudioConfig",
    "AugmentConfig",
    "Channel",
    "Choice",
    "ClusterConfig",
    "CombineConfig",
    "Config",
    "ConfigError",
    "Count",
    "DataConfig",
    "DistillConfig",
    "DrawConfig",
    "EmbedConfig",
    "EncoderConfig",
    "EvaluateConfig",
    "FinetuneConfig",
    "Fraction",
    "IngestConfig",
    "NumCrops",
    "ObjectiveConfig",
    "OffAt",
    "Pooling",
    "Positive",
    "PretrainConfig",
    "ProjectorConfig",
    "Reference",
    "RunOptions",
    "ScorerConfig",
    "ScoringConfig",
    "Section",
    "SelftrainConfig",
    "TeachersConfig",
    "Temperature",
    "Training",
    "Units",
    "Weight",
    "Width",
    "chosen_names",
    "database_url",
    "describe",
    "difference",
    "environment",
    "flatten",
    "num_steps",
    "override",
    "parse_overrides",
    "preset",
    "reference",
    "repeated",
    "run_options",
    "shown",
]
