"""Every environment by its name: tables, gymnax, and any of gymnasium's on the host."""

from dlfx.types import Environment, unknown

HOST = "gymnasium:"


def make(name: str) -> Environment:
    """The environment of a name.

    Args:
      name: of gymnax (`CartPole-v1`, `MinAtar/Breakout`), a table (`cliff`), or `gymnasium:ID` for one on the host.

    Raises:
      UserError: for an unknown name, with the closest ones, or for one that a learner of discrete actions cannot take.
    """
    from dlfx.envs.gymnasium_envs import gymnasium_environment
    from dlfx.envs.gymnax_envs import CONTINUOUS, GYMNAX, gymnax_environment
    from dlfx.envs.worlds import TABULAR

    if name.startswith(HOST):
        return gymnasium_environment(name.removeprefix(HOST))
    if name in TABULAR:
        return TABULAR[name]().environment
    if name not in (*GYMNAX, *CONTINUOUS):
        raise unknown("environment", name, [*GYMNAX, *TABULAR, f"{HOST}ID"])
    return gymnax_environment(name)
