"""The process boundary, known to both ends. Values alone.

    server → worker          Shutdown
    worker → server          Loading · LoadFailed · StopAsked · Beat              common

    server → text worker     Configure · Submit · SubmitAll · Embed · Abort · Call (questions)
    text worker → server     Ready · Step · Vectors · Reply                       text

    server → image worker    ConfigureImages · Draw · Cancel
    image worker → server    ImagesReady · Told                                   image

One Step carries all events of all requests of one engine step. `frames` puts messages on a socket, whose ends are
`server_end` and `worker_end`; `signs` tells a worker that works from one that hangs.
"""
