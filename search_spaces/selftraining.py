"""How a student learns the labels that the trusted teachers give all clips."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

space = {
    "selftrain.start": CategoricalDistribution(("student", "fresh")),
    "selftrain.epochs": CategoricalDistribution(("auto", 6, 12)),
    "selftrain.learning_rate": FloatDistribution(1e-4, 3e-3, log=True),
    "selftrain.temperature": FloatDistribution(0.2, 1.0),
    "selftrain.balance": FloatDistribution(0.0, 1.0),
    "selftrain.mix": FloatDistribution(0.0, 0.5),
    "selftrain.feature_weight": FloatDistribution(0.0, 1.0),
    "selftrain.consistency_weight": FloatDistribution(0.0, 1.0),
    "selftrain.consistency_threshold": FloatDistribution(0.7, 0.98),
    "selftrain.augment.filter_db": FloatDistribution(0.0, 6.0),
    "selftrain.supervised_fraction": FloatDistribution(0.0, 0.5),
}
arm = "selftrain"
objectives = {"valid_accuracy": "maximize"}
