"""How the student learns from the pseudo-labels and from itself."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

space = {
    "distill.temperature": FloatDistribution(0.5, 6.0, log=True),
    "distill.kl_weight": FloatDistribution(1e-3, 1.0, log=True),
    "distill.cosine_weight": FloatDistribution(1e-5, 0.1, log=True),
    "distill.shallow_weight": FloatDistribution(0.01, 1.0, log=True),
    "distill.detach_teacher": CategoricalDistribution((True, False)),
    "distill.head_width": CategoricalDistribution((128, 256, 512)),
    "distill.learning_rate": FloatDistribution(1e-4, 3e-3, log=True),
    "distill.epochs": CategoricalDistribution(("auto", 4, 12, 16)),
    "distill.soft_temperature": CategoricalDistribution((0.0, 0.1, 0.3, 1.0)),
    "distill.feature_weight": FloatDistribution(0.0, 2.0),
}
objectives = {"valid_accuracy": "maximize"}
