"""What the teacher and the student hear instead of the clips: mixing, random resize crops and
random filters."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

SCALES = ("[1.0,1.0]", "[0.8,1.2]", "[0.6,1.5]")

space = {
    "pretrain.augment.mixup_ratio": FloatDistribution(0.0, 0.6),
    "pretrain.augment.frequency_scale": CategoricalDistribution(SCALES),
    "pretrain.augment.time_scale": CategoricalDistribution(SCALES),
    "pretrain.augment.filter_db": FloatDistribution(0.0, 6.0),
    "distill.augment.mixup_ratio": FloatDistribution(0.0, 0.6),
    "distill.augment.frequency_scale": CategoricalDistribution(SCALES),
    "distill.augment.time_scale": CategoricalDistribution(SCALES),
    "distill.augment.filter_db": FloatDistribution(0.0, 6.0),
}
objectives = {"valid_accuracy": "maximize"}
