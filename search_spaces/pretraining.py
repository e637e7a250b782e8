"""How the teacher is made."""

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

space = {
    "pretrain.objective": CategoricalDistribution(
        ("features", "nt_xent", "barlow_twins", "decar_v2")
    ),
    "pretrain.epochs": CategoricalDistribution(("auto", 2, 8, 16)),
    "pretrain.batch_size": CategoricalDistribution((32, 64, 128)),
    "pretrain.learning_rate": FloatDistribution(1e-4, 5e-3, log=True),
    "pretrain.temperature": FloatDistribution(0.05, 1.0, log=True),
    "pretrain.redundancy_weight": FloatDistribution(1e-3, 5e-2, log=True),
    "pretrain.num_prototypes": IntDistribution(16, 1024, log=True),
}
conditions = {
    "pretrain.temperature": {"pretrain.objective": ("nt_xent", "decar_v2")},
    "pretrain.redundancy_weight": {"pretrain.objective": "barlow_twins"},
    "pretrain.num_prototypes": {"pretrain.objective": "decar_v2"},
}
objectives = {"valid_accuracy": "maximize"}
