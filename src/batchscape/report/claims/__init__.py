"""The statements of the original study, each tested on this one: what is claimed (`statements`), what each seed says
(`effects`), and what follows from it (`verdict`)."""
