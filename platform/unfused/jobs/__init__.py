"""What stages have Ray Train's workers do: one job a file, all of them with torch.

The rule of this room: a job is plain data that travels to every worker and runs there
(`training.Job`); what it returns, its stage makes facts of.
"""
