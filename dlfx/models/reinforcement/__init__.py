"""Networks of agents: values of actions, policies."""
