"""How many clusters, of what: everything between the teacher and the pseudo-labels."""

from optuna.distributions import CategoricalDistribution, IntDistribution

space = {
    "cluster.num_clusters": IntDistribution(8, 256, log=True),
    "cluster.num_components": CategoricalDistribution((0, 16, 32, 64, 128)),
    "cluster.whiten": CategoricalDistribution((True, False)),
    "embed.layer": CategoricalDistribution(("block1", "block2", "block3", "last")),
    "clusterings": IntDistribution(1, 3),
}
conditions = {"cluster.whiten": {"cluster.num_components": (16, 32, 64, 128)}}
objectives = {"valid_accuracy": "maximize"}
