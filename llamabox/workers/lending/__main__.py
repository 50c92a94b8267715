"""`python -m llamabox.workers.lending FD SETTINGS`: lends a device to the client that comes over the inherited socket.

With `describe` instead of a descriptor it writes to stdout what clients would be told of the device, as JSON. SETTINGS
are those of llamabox.lending.settings. Started by the RPC server.
"""

from __future__ import annotations

import os
import sys

from llamabox.lending.settings import LenderSettings
from llamabox.workers.lending.process import describe, serve

if __name__ == "__main__":
    settings = LenderSettings.of_text(sys.argv[2])
    code = describe(settings) if sys.argv[1] == "describe" else serve(int(sys.argv[1]), settings)
    # Not sys.exit: ggml's server may be at work for a client that is gone, and must not hold up the end.
    os._exit(code)
