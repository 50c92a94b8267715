"""Options of the RPC server."""

from __future__ import annotations

from functools import partial

from llamabox.lending.allow import networks
from llamabox.options import defaults
from llamabox.options.option import valued
from llamabox.options.values import common as v
from llamabox.options.values import devices

RPC_SERVER = "rpc-server"

lend = partial(valued, RPC_SERVER)

RPC_SERVER_OPTIONS = (
    lend(
        "--rpc-server-host", "rpc.host", devices.address, metavar="IP", env="LLAMA_ARG_RPC_SERVER_HOST",
        help="address to lend this machine's device on; :: is every address, IPv4's too",
    ),
    lend(
        "--rpc-server-port", "rpc.port", v.integer(0, 65535), metavar="PORT", env="LLAMA_ARG_RPC_SERVER_PORT",
        help="above 0: run nothing but an RPC server here, without HTTP and model",
    ),
    lend(
        "--rpc-server-main-gpu", "rpc.main_gpu", v.integer(-1, 1024),
        help="the GPU to lend, -1 for the CPU; with libraries for the CPU alone 0 is the CPU, too",
    ),
    lend(
        "--rpc-server-reserve-memory", "rpc.reserve", devices.any_mebibytes, metavar="MIB",
        help="memory of the device that clients are not told of, MiB",
    ),
    lend(
        "--rpc-server-threads", "rpc.n_threads", v.integer(-v.INT_MAX), default="as many as physical cores",
        help="threads that compute for each client on a CPU; below 1: the default",
    ),
    lend(
        "--rpc-server-cache", "rpc.cache", v.word, metavar="DIR", default="",
        help="keep clients' large tensors there, which they then need not send again",
    ),
    lend(
        "--rpc-server-cache-size", "rpc.cache_size", devices.any_mebibytes, metavar="MIB",
        default=defaults.mebibytes, help="size of that folder, MiB: what was not used for longest goes",
    ),
    lend(
        "--rpc-server-allow", "rpc.allow", networks, metavar="CIDR,…", default="loopback and private addresses",
        protects=True,
        help="addresses that may connect, as 192.168.1.0/24; anybody else's connection is closed unread",
    ),
)  # fmt: skip
