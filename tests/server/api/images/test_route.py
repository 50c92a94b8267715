"""POST /v1/images/generations and /edits over a fake worker: fields, limits, shapes, streams, queue, who leaves."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from llamabox.engine.request import GenerationParams, SamplingParams
from llamabox.errors import QueueFull, Unavailable
from llamabox.imaging.events import Drawn, JobProgress, JobStarted, Queued
from llamabox.server.api.images.writer import TOGETHER, PictureShape
from tests.server.fake_images import IMAGES, INFO, FakeImageClient, drawing, png
from tests.server.harness import by_field, events, image_app, running_images

GENERATE, EDIT = "/v1/images/generations", "/v1/images/edits"
BODY = {"prompt": "a red circle"}


def served(client: FakeImageClient | None = None, **config: Any) -> tuple[TestClient, FakeImageClient]:
    client = client or FakeImageClient()
    return TestClient(image_app(client, *by_field(config))), client


def job_of(body: dict[str, Any], **config: Any) -> Any:
    http, client = served(**config)
    with http:
        reply = http.post(GENERATE, json={**BODY, **body})
        assert reply.status_code == 200, reply.text
    return client.jobs[-1]


def refused(body: dict[str, Any], client: FakeImageClient | None = None) -> str:
    http, client = served(client)
    with http:
        reply = http.post(GENERATE, json={**BODY, **body})
        assert reply.status_code == 400, reply.text
        assert reply.json()["error"]["type"] == "invalid_request_error"
        assert client.jobs == []
        return str(reply.json()["detail"])


def opened(entry: dict[str, Any]) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(entry["b64_json"])))


def test_a_plain_reply() -> None:
    http, _ = served(alias="painter")
    with http:
        reply = http.post(GENERATE, json={**BODY, "n": 2, "seed": 7, "size": "256x320"}).json()
    assert list(reply) == ["created", "model", "object", "data", "usage"]
    assert (reply["model"], reply["object"]) == ("painter", "list")
    for index, entry in enumerate(reply["data"]):
        picture = opened(entry)
        assert picture.size == (256, 320)
        assert picture.getpixel((0, 0)) == (0, 0, 7 + index)
        del entry["b64_json"]
        assert entry == {"index": index, "object": "image", "progress": 100, "finish_reason": "stop"}
    usage = {"time_to_process_ms": 10.0, "time_per_generation_ms": 400.0, "generation_per_second": 10.0}
    assert reply["usage"] == pytest.approx(usage)


def test_a_stream_tells_each_step_and_the_usage_once() -> None:
    http, _ = served()
    with http:
        reply = http.post(GENERATE, json={**BODY, "n": 2, "stream": True, "stream_options": {}})
    assert reply.headers["content-type"] == "text/event-stream"
    *chunks, done = events(reply.text)
    assert done == "[DONE]"
    for index in (0, 1):
        mine = [chunk for chunk in chunks if chunk["data"][0]["index"] == index]
        *steps, last = [chunk["data"][0] for chunk in mine]
        assert [(one["progressed_steps"], one["progress_steps"]) for one in steps] == [(i, 4) for i in range(1, 5)]
        assert [one["progress"] for one in steps] == [20, 40, 60, 80]
        assert all(one["finish_reason"] is None and "b64_json" not in one for one in steps)
        assert (last["progress"], last["finish_reason"]) == (100, "stop")
        assert opened(last).size == (512, 512)
    assert [chunk["usage"] is not None for chunk in chunks] == [False] * 9 + [True]
    assert all(list(chunk) == ["created", "model", "object", "data", "usage"] for chunk in chunks)
    assert {len(chunk["data"]) for chunk in chunks} == {1}


def test_without_include_usage_a_stream_has_none() -> None:
    http, _ = served()
    with http:
        body = {**BODY, "stream": True, "stream_options": {"include_usage": False}}
        *chunks, _ = events(http.post(GENERATE, json=body).text)
    assert [chunk["usage"] for chunk in chunks] == [None] * 5


def test_a_result_in_pieces() -> None:
    http, _ = served()
    with http:
        whole = http.post(GENERATE, json={**BODY, "seed": 3}).json()["data"][0]["b64_json"]
        body = {**BODY, "seed": 3, "stream": True, "stream_options": {"chunk_result": True, "chunk_size": 1024}}
        *chunks, _ = events(http.post(GENERATE, json=body).text)
    pieces = [chunk["data"][0] for chunk in chunks if "b64_json" in chunk["data"][0]]
    assert len(pieces) == -(-len(whole) // 1024) > 1
    assert "".join(piece["b64_json"] for piece in pieces) == whole
    assert [piece["finish_reason"] for piece in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    assert {piece["progress"] for piece in pieces} == {100}
    assert [chunk["usage"] is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_thousands_of_pieces_are_made_some_at_a_time() -> None:
    drawn = Drawn("r", 0, bytes(1 << 20), 1, 1.0, 1.0, 4)
    shape = PictureShape(created=1, model="m", size="512x512", n=1, include_usage=True, chunk_size=1024, openai=None)
    parts = list(shape.picture(drawn, [drawn]))
    assert max(map(len, parts)) < 2 * TOGETHER * 1024
    assert sum(part.count(b"data: ") for part in parts) == -(-len(base64.b64encode(drawn.png)) // 1024)


@pytest.mark.parametrize(("asked", "how"), [(True, "full"), ("faster", "fast"), (False, "none")])
def test_previews(asked: object, how: str) -> None:
    http, client = served()
    with http:
        body = {**BODY, "n": 2, "stream": True, "stream_options": {"preview": asked}}
        *chunks, _ = events(http.post(GENERATE, json=body).text)
    assert client.jobs[0].preview == how
    previews = [chunk["data"][0] for chunk in chunks if chunk["data"][0]["progress"] < 100 and "b64_json" in str(chunk)]
    assert len(previews) == (0 if how == "none" else 8)
    assert all(opened(one).size == (8, 8) for one in previews)
    assert job_of({"stream_options": {"preview": asked}}).preview == "none", "a plain reply shows none"


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_partial_images_are_spread_over_the_steps(n: int) -> None:
    http, _ = served()
    with http:
        body = {**BODY, "n": 2, "sample_steps": 12, "stream": True, "partial_images": n}
        *chunks, _ = events(http.post(GENERATE, json=body).text)
    for index in (0, 1):
        partial = [chunk for chunk in chunks if chunk["type"].endswith("partial_image")]
        mine = [chunk for chunk in partial if chunk["data"][0]["index"] == index]
        assert [chunk["partial_image_index"] for chunk in mine] == list(range(n))
        wanted = [round(12 * (i + 1) / (n + 1)) for i in range(n)]
        assert [chunk["data"][0]["progressed_steps"] for chunk in mine] == wanted


def test_fields_reach_the_job() -> None:
    everything = {
        "n": 2, "size": "768x256", "seed": 5, "sampler": "LCM", "schedule": "karras", "sample_steps": 9,
        "cfg_scale": 2.5, "guidance": 4, "strength": 0.5, "eta": 0.1, "clip_skip": 2, "slg_scale": 1.5,
        "slg_start": 0.1, "slg_end": 0.9, "slg_skip_layers": [7, 8], "control_strength": 0.3, "control_canny": True,
        "negative_prompt": "ugly",
    }  # fmt: skip
    job = job_of(everything)
    assert (job.prompt, job.negative_prompt, job.n, job.width, job.height) == ("a red circle", "ugly", 2, 768, 256)
    assert (job.seed, job.sampler, job.schedule, job.steps, job.cfg_scale) == (5, "lcm", "karras", 9, 2.5)
    assert (job.guidance, job.strength, job.eta, job.clip_skip) == (4, 0.5, 0.1, 2)
    assert (job.slg_scale, job.slg_start, job.slg_end, job.slg_layers) == (1.5, 0.1, 0.9, (7, 8))
    assert (job.control_strength, job.control_canny) == (0.3, True)


def test_what_is_not_said_is_left_to_the_model() -> None:
    job = job_of({"user": "me", "unheard_of": 1, "n": None})
    assert (job.n, job.width, job.height, job.extra_steps, job.negative_prompt) == (1, 512, 512, 0, "")
    for name in ("sampler", "schedule", "steps", "cfg_scale", "guidance", "strength", "eta", "init", "mask", "control"):
        assert getattr(job, name) is None, name


@pytest.mark.parametrize("names", [("sampler", "sample_method"), ("schedule", "schedule_method", "scheduler")])
def test_names_of_one_thing(names: tuple[str, ...]) -> None:
    value = {"sampler": "euler", "schedule": "karras"}[names[0]]
    assert [getattr(job_of({name: value}), names[0]) for name in names] == [value] * len(names)


def test_the_models_own_schedule_can_be_asked_for() -> None:
    assert job_of({"schedule": "default"}).schedule == "default"


def test_quality_and_style_unless_there_is_a_sampler() -> None:
    job = job_of({"quality": "hd", "style": "vivid"})
    assert (job.extra_steps, job.negative_prompt) == (10, "low quality and not vivid")
    assert [job_of({"quality": quality}).extra_steps for quality in ("auto", "low", "medium", "high", "max")] == [
        0,
        0,
        0,
        10,
        10,
    ]
    job = job_of({"quality": "standard", "style": "natural", "negative_prompt": "ugly"})
    assert (job.extra_steps, job.negative_prompt) == (0, "ugly and unnatural")
    job = job_of({"quality": "hd", "style": "vivid", "sampler": "euler", "negative_prompt": "ugly"})
    assert (job.extra_steps, job.negative_prompt) == (0, "ugly")


def test_seeds() -> None:
    assert job_of({"seed": 0}).seed == 0
    assert job_of({"seed": 2**53 - 1}).seed == (2**53 - 1) % (2**32 - 1)
    assert job_of({"seed": -2}).seed == 2**32 - 3
    assert job_of({}, defaults=GenerationParams(sampling=SamplingParams(seed=11))).seed == 11
    assert len({job_of({"seed": -1}).seed for _ in range(8)}) == 8
    assert len({job_of({}).seed for _ in range(8)}) == 8


def test_sizes() -> None:
    assert [
        (job.width, job.height) for job in map(job_of, [{"size": "1024x256"}, {"size": "513X520"}, {"size": "auto"}])
    ] == [
        (1024, 256),
        (513, 520),
        (512, 512),
    ]
    wide = FakeImageClient(info=replace(INFO, width=1024, height=1024))
    http = TestClient(image_app(wide, images=replace(IMAGES, max_width=700, max_height=900)))
    with http:
        assert http.post(GENERATE, json=BODY).status_code == 200
    assert (wide.jobs[0].width, wide.jobs[0].height) == (700, 900), "the model's own size, as far as it is allowed"


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"prompt": None}, "must be provided"),
        ({"prompt": 7}, "'prompt'"),
        ({"prompt": ["a"]}, "'prompt'"),
        ({"prompt": "x" * 32_001}, "32000 characters"),
        ({"prompt": "a\0b"}, "U+0000"),
        ({"negative_prompt": 1}, "'negative_prompt'"),
        ({"n": 0}, "between 1 and 4"),
        ({"n": 5}, "between 1 and 4"),
        ({"n": 1.5}, "'n': must be an integer"),
        ({"n": True}, "'n': must be an integer"),
        ({"n": "2"}, "'n': must be an integer"),
        ({"size": "255x256"}, "width must be between 256 and 1024, not 255"),
        ({"size": "512x1088"}, "height must be between 256 and 1024"),
        ({"size": "100000x1"}, "between 256 and 1024"),
        ({"size": "512"}, "as 512x512"),
        ({"size": "-512x512"}, "as 512x512"),
        ({"size": "512x512x3"}, "as 512x512"),
        ({"size": "９12x512"}, "as 512x512"),
        ({"size": 512}, "'size'"),
        ({"sample_steps": 0}, "'sample_steps': must be between 1 and 500"),
        ({"sampling_steps": 501}, "'sampling_steps'"),
        ({"cfg_scale": 0.5}, "'cfg_scale'"),
        ({"cfg_scale": 1e30}, "'cfg_scale'"),
        ({"guidance": -1}, "'guidance'"),
        ({"strength": 1.01}, "'strength'"),
        ({"eta": "0"}, "'eta'"),
        ({"clip_skip": 0}, "'clip_skip'"),
        ({"slg_skip_layers": "7"}, "'slg_skip_layers'"),
        ({"slg_skip_layers": [1, -1]}, "'slg_skip_layers[1]'"),
        ({"slg_skip_layers": [1] * 65}, "'slg_skip_layers'"),
        ({"control_strength": 2}, "'control_strength'"),
        ({"control_canny": 1}, "'control_canny'"),
        ({"seed": 1.5}, "'seed'"),
        ({"seed": 2**64}, "'seed'"),
        ({"seed": 1e300}, "'seed'"),
        ({"sampler": "dpm9"}, "one of euler, euler_a, lcm, not 'dpm9'"),
        ({"sampler": 3}, "'sampler'"),
        ({"scheduler": "gits"}, "one of default, discrete, karras"),
        ({"response_format": "url"}, "'response_format'"),
        ({"output_format": "webp"}, "'output_format'"),
        ({"background": "transparent"}, "'background'"),
        ({"quality": "best"}, "max or hd"),
        ({"style": "grim"}, "vivid or natural"),
        ({"stream": "yes"}, "'stream'"),
        ({"stream_options": 5}, "'stream_options'"),
        ({"stream_options": {"preview": "slower"}}, "'stream_options.preview'"),
        ({"stream_options": {"chunk_size": 1023}}, "'stream_options.chunk_size'"),
        ({"stream_options": {"chunk_result": 1}}, "'stream_options.chunk_result'"),
        ({"stream_options": {"include_usage": "no"}}, "'stream_options.include_usage'"),
        ({"partial_images": 4}, "'partial_images'"),
        ({"model": 7}, "'model'"),
        ({"lora": [{"id": 0, "scale": 1}]}, "--lora"),
        ({"image": "aaaa"}, "/v1/images/edits"),
        ({"control": "aaaa"}, "--image-control-net-model"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_drawn(body: dict[str, Any], part: str) -> None:
    assert part in refused(body)


def test_previews_that_cannot_be_made() -> None:
    client = FakeImageClient(info=replace(INFO, can_preview=False))
    assert "preview" in refused({"stream": True, "stream_options": {"preview": True}}, client)
    assert "partial_images" in refused({"stream": True, "partial_images": 1}, client)


@pytest.mark.parametrize("stream", [False, True])
def test_errors_before_the_first_event_are_statuses(stream: bool) -> None:
    for script, status, after in (
        (lambda job: Unavailable("the worker ended"), 503, "1"),
        (None, 503, "17"),
    ):
        client = FakeImageClient(script)
        if script is None:
            client.refusal = QueueFull("2 jobs wait already", retry_after=17)
        http, _ = served(client)
        with http:
            reply = http.post(GENERATE, json={**BODY, "stream": stream})
            assert (reply.status_code, reply.headers["retry-after"]) == (status, after)
            assert reply.json()["error"]["type"] == "unavailable_error"


def test_an_error_amid_a_stream_comes_in_both_spellings() -> None:
    async def scene() -> None:
        async with running_images(FakeImageClient(None)) as served, asyncio.TaskGroup() as group:
            asking = group.create_task(served.http.post(GENERATE, json={**BODY, "stream": True}))
            job = await served.client.asked()
            job.push(JobStarted("1"), JobProgress("1", 0, 1, 4))
            job.fail(Unavailable("the worker ended"))
            reply = await asking
            assert reply.status_code == 200
            error = '{"code":503,"message":"the worker ended","type":"unavailable_error"}'
            assert reply.text.endswith(f'error: {error}\ndata: {{"error":{error}}}\n\n')

    asyncio.run(scene())


def test_who_waits_is_told_the_place_and_a_silent_step_is_bridged() -> None:
    async def told() -> None:
        body = {**BODY, "stream": True, "sse_ping_interval": 1}
        async with running_images(FakeImageClient(None)) as served, asyncio.TaskGroup() as group:
            arrived = group.create_task(served.client.asked())
            async with asyncio.timeout(8):
                lines: asyncio.Queue[str] = asyncio.Queue()

                async def read() -> None:
                    async with served.http.stream("POST", GENERATE, json=body) as reply:
                        async for line in reply.aiter_lines():
                            if line:
                                lines.put_nowait(line)

                reading = group.create_task(read())
                job = await arrived
                job.push(Queued(job.job.request_id, 2))
                assert await lines.get() == ": queued, place 2"
                assert await lines.get() == ": queued, place 2", "again, after a second of silence"
                job.push(Queued(job.job.request_id, 1), JobStarted(job.job.request_id))
                while (line := await lines.get()) == ": queued, place 2":
                    pass
                assert line == ": queued, place 1"
                while (line := await lines.get()) == ": queued, place 1":
                    pass
                assert line == ": drawing"
                job.push(JobProgress(job.job.request_id, 0, 1, 4))
                while not (line := await lines.get()).startswith("data: "):
                    pass
                assert await lines.get() == ": drawing image 1 of 1, step 1 of 4"
                reading.cancel()
                await job.aborted.wait()

    asyncio.run(told())


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_ends_the_job(stream: bool) -> None:
    async def scene() -> None:
        async with running_images(FakeImageClient(None)) as served:
            for pushed in ([], [Queued("1", 1)], [JobStarted("1"), JobProgress("1", 0, 1, 4)]):
                _, writer = await served.post_raw(GENERATE, {**BODY, "stream": stream})
                job = await served.client.asked()
                if pushed:
                    job.push(*pushed)
                writer.close()
                await job.aborted.wait()

    asyncio.run(scene())


FORM = "multipart/form-data"


def form(**fields: Any) -> dict[str, Any]:
    return {"files": {"image": ("a.png", png("red"), "image/png"), "prompt": (None, "a cat"), **fields}}


def edited(client: FakeImageClient | None = None, **fields: Any) -> Any:
    http, client = served(client)
    with http:
        reply = http.post(EDIT, **form(**fields))
        assert reply.status_code == 200, reply.text
    return client.jobs[-1]


def test_an_edit_from_a_form() -> None:
    job = edited(
        n=(None, "2"), size=(None, "256x256"), seed=(None, "7"), sampler=(None, "euler"), cfg_scale=(None, "1.5"),
        sample_steps=(None, "3"), negative_sampler=(None, "ugly"), strength=(None, "0.4"), quality=(None, "hd"),
        response_format=(None, "b64_json"), mask=("m.png", png("white"), "image/png"), slg_layers=(None, "[3]"),
    )  # fmt: skip
    assert (job.n, job.width, job.height, job.seed, job.sampler) == (2, 256, 256, 7, "euler")
    assert (job.cfg_scale, job.steps, job.negative_prompt, job.strength) == (1.5, 3, "ugly", 0.4)
    assert (job.init.width, job.init.height, job.init.channels) == (256, 256, 3)
    assert job.init.data == bytes((255, 0, 0)) * 256 * 256
    assert (job.mask.width, job.mask.height, job.mask.channels) == (256, 256, 1)
    assert job.mask.data == b"\xff" * 256 * 256
    assert job.slg_layers == (3,)


def test_null_and_nothing_in_a_form_are_absent_but_a_prompt_may_be_the_word() -> None:
    job = edited(seed=(None, "null"), sampler=(None, "null"), n=(None, ""), prompt=(None, "null"), mask=(None, ""))
    assert (job.sampler, job.n, job.prompt, job.mask) == (None, 1, "null", None)


@pytest.mark.parametrize(
    "options",
    [
        {"stream_options": (None, '{"preview": "faster"}')},
        {"stream_options[preview]": (None, "faster")},
        {"stream_options_preview": (None, "faster")},
    ],
)
def test_a_forms_stream_options(options: dict[str, Any]) -> None:
    assert edited(stream=(None, "true"), **options).preview == "fast"


@pytest.mark.parametrize("field", ["n", "cfg_scale", "sample_steps", "seed", "stream", "stream_options", "lora"])
def test_a_forms_field_that_is_no_such_thing_is_named(field: str) -> None:
    http, client = served()
    with http:
        reply = http.post(EDIT, **form(**{field: (None, "many")}))
        assert reply.status_code == 400
        assert f"'{field}" in reply.json()["detail"]
        assert client.jobs == []


def test_an_edit_from_json() -> None:
    http, client = served()
    data = base64.b64encode(png("lime")).decode()
    with http:
        for image in (data, f"data:image/png;base64,{data}", [data], data[:10] + "\n" + data[10:]):
            reply = http.post(EDIT, json={**BODY, "image": image, "mask": data, "size": "256x256"})
            assert reply.status_code == 200, reply.text
            assert client.jobs[-1].init.data[:3] == bytes((0, 255, 0))
            assert client.jobs[-1].mask is not None


def test_edits_without_what_they_need() -> None:
    http, _ = served()
    with http:
        for reply, part in (
            (http.post(EDIT, json=BODY), '"image" must be provided'),
            (http.post(EDIT, files={"prompt": (None, "x")}), '"image" must be provided'),
            (http.post(EDIT, files={"image": ("a.png", png("red"))}), '"prompt" must be provided'),
            (http.post(EDIT, data={"prompt": "x"}), "multipart/form-data"),
            (http.post(EDIT, content=b"x", headers={"content-type": "text/plain"}), "multipart/form-data"),
            (http.post(EDIT, content=b"x", headers={"content-type": FORM}), "boundary"),
            (http.post(EDIT, content=b"x", headers={"content-type": f"{FORM}; boundary=b; charset=punycode"}), "UTF-8"),
            (
                http.post(EDIT, content=b"--b\r\n\0\r\n--b--", headers={"content-type": f"{FORM}; boundary=b"}),
                "Invalid multipart",
            ),
            (http.post(EDIT, content=b"--b\r\n\r\n", headers={"content-type": f"{FORM}; boundary=b"}), "cut off"),
            (http.post(EDIT, **form(prompt=("p.txt", b"x"))), "'prompt'"),
            (http.post(EDIT, files=[("x", (None, "1"))] * 200), "Too many"),
        ):
            assert reply.status_code == 400, reply.text
            assert part in reply.json()["detail"]


def test_a_control_picture_needs_control_net_and_a_mask_can_be_one() -> None:
    with_net = FakeImageClient(info=replace(INFO, has_control_net=True))
    picture = ("c.png", png("blue"), "image/png")
    job = edited(with_net, control=picture, mask=picture)
    assert job.control is not None
    assert job.mask is not None
    job = edited(with_net, mask=picture)
    assert (job.control.channels, job.mask) == (3, None)
    http, _ = served()
    with http:
        assert "ControlNet" in http.post(EDIT, **form(control=picture)).json()["detail"]


def test_what_the_log_says(caplog: pytest.LogCaptureFixture) -> None:
    http, _ = served()
    with http, caplog.at_level("INFO"):
        http.post(GENERATE, json={**BODY, "n": 2})
    line = next(record.message for record in caplog.records if record.name == "llamabox.server.http.middleware.chain")
    assert "images=2 steps=8" in line
    assert "red circle" not in caplog.text


def test_one_after_the_other_is_as_together() -> None:
    http, _ = served()
    with http:
        three = http.post(GENERATE, json={**BODY, "n": 3, "seed": 40}).json()["data"]
        single = [http.post(GENERATE, json={**BODY, "seed": 40 + i}).json()["data"][0] for i in range(3)]
    assert [one["b64_json"] for one in three] == [one["b64_json"] for one in single]


def test_many_at_once_get_their_own() -> None:
    async def scene() -> None:
        async with running_images(FakeImageClient(drawing)) as served:
            replies = await asyncio.gather(*(served.http.post(GENERATE, json={**BODY, "seed": i}) for i in range(8)))
            for i, reply in enumerate(replies):
                assert opened(reply.json()["data"][0]).getpixel((0, 0)) == (0, 0, i)

    asyncio.run(scene())
