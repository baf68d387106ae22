"""Best labellings only: searches, cuts and programs that know no marginals."""
