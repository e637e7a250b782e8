"""Whom to trust, by the labels of the draws alone.

The student that the mixture hears is trained anew where `teachers.also` differs.

With `--teacher` from outside, a copy of this file may choose among them as well: add
"teachers.heard": CategoricalDistribution(("all", "[own]", "[speech-embedding]")).
"""

from optuna.distributions import CategoricalDistribution

space = {
    "teachers.also": CategoricalDistribution(
        (
            "[statistics,cepstra,cepstra:centred,cepstra:moments,periodicity]",
            "[statistics,cepstra,cepstra:centred]",
            "[cepstra,periodicity]",
            "[statistics]",
        )
    ),
    "teachers.judging": CategoricalDistribution(("[envelope]", "[]")),
    "teachers.neighbours": CategoricalDistribution((0, 5, 10, 20)),
    "teachers.weighting": CategoricalDistribution(("auto", "equal")),
}
arm = "mixture"
objectives = {"cross_validated": "maximize"}
