"""One file a kind of teacher; see `unfused.teachers`."""
