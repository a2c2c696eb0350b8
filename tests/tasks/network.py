"""A stand-in for a network, for tests of what is around one."""


class Network:
    """`says(x_t, logsnr_t, **told)` is its answer; `init` makes {"params": ...} from a key."""

    sharding = ()

    def __init__(self, says, init=None):
        self.apply = lambda variables, x_t, logsnr_t, **told: says(x_t, logsnr_t, **told)
        self.init = init
