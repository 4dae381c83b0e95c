"""Learning rules, one file per rule: its State and one factory that returns a Learner."""
