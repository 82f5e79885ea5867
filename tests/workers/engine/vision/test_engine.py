"""What the engine does with rows: gathers ahead, keeps the model busy, survives full memory, forgets on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.domain.addresses import Reach, policy_of
from pipeline.domain.models import EngineKind, ModelSpec
from pipeline.ports.engine import EngineRequest
from tests.workers.engine.driving import answers, drained
from tests.workers.engine.vision.conftest import Load
from tests.workers.engine.vision.pictures import classify, data_uri, embed, inline, part, picture, stored
from tests.workers.engine.vision.webserver import WebServer, answer, running
from workers.engine.registry import load_engine
from workers.engine.vision.engine import VisionEngine
from workers.engine.vision.forward import Seen
from workers.engine.vision.gathering import Pixels
from workers.engine.vision.sources import ImageAccess

FolderOf = Callable[[str], Path]
LOOPBACK = ImageAccess(policy=policy_of(Reach.LISTED, ["127.0.0.1"]))


@pytest.fixture
def server() -> Iterator[WebServer]:
    with running() as server:
        yield server


@pytest.fixture
def engine(folder_of: FolderOf, load_vision: Load) -> Iterator[VisionEngine]:
    engine = load_vision(folder_of("vit_classifier"), access=LOOPBACK, batch_images=4)
    yield engine
    engine.close()


def shown(engine: VisionEngine, request: EngineRequest) -> Any:  # noqa: ANN401 -- a body
    return answers(engine, [request])[request.key].body


def test_an_image_is_the_same_by_url_and_by_content(engine: VisionEngine, server: WebServer) -> None:
    content = stored(picture(1), "JPEG")
    server.answers["/a.jpg"] = [answer(content, "200 OK", "Content-Type: text/html")]

    results = answers(engine, [classify(0, part(server.url("/a.jpg"))), classify(1, part(data_uri(content)))])

    assert results[0].body["data"] == results[1].body["data"]


def test_a_slow_server_holds_up_its_own_row_and_no_other(engine: VisionEngine, server: WebServer) -> None:
    def slow(_request: bytes) -> Iterator[bytes]:
        server.go_on.wait()
        yield answer(stored(picture(1)))

    server.answers["/slow"] = [slow]
    engine.add([classify(0, part(server.url("/slow"))), *(classify(1 + i, inline(i)) for i in range(9))])

    finished: set[int] = set()
    while len(finished) < 9:
        finished |= {result.key for result in engine.step()}
    assert finished == set(range(1, 10))
    assert (engine.in_flight(), list(engine.step())) == (1, [])

    server.go_on.set()
    assert drained(engine)[0].status_code == 200


def test_one_bad_image_ends_its_row_and_no_other(engine: VisionEngine, server: WebServer) -> None:
    server.answers["/page"] = [answer(b"<html>")]
    bad = [inline(0), part(server.url("/page")), inline(1)]

    results = answers(engine, [classify(0, bad), classify(1, inline(0)), classify(2, part(server.url("/none")))])

    error = results[0].body["error"]
    assert (error["code"], error["param"]) == ("invalid_image_format", "body.input[1].image_url.url")
    assert results[1].status_code == 200
    assert results[2].body["error"]["code"] == "image_file_not_found"
    assert results[0].input_tokens == 0


def test_an_answer_does_not_depend_on_what_it_ran_beside(engine: VisionEngine) -> None:
    alone = [shown(engine, classify(seed, inline(seed)))["data"][0]["probs"] for seed in range(5)]

    together = shown(engine, classify(0, [inline(seed) for seed in range(5)]))["data"]

    assert np.allclose([each["probs"] for each in together], alone, atol=1e-5)


def test_images_of_several_sizes_go_in_batches_of_one_size(folder_of: FolderOf, load_vision: Load) -> None:
    engine = load_vision(folder_of("vit"), batch_images=8)
    ran: list[tuple[int, ...]] = []
    engine._gatherer._prepare = lambda image: np.zeros((3, 32, 32 if image.width > 40 else 16), np.float32)

    class Flexible:
        def run(self, pixels: Pixels) -> Seen:
            ran.append(pixels.shape)
            return Seen(np.ones((len(pixels), 64), np.float32), 1)

        def close(self) -> None:
            pass

    engine._forward = Flexible()  # type: ignore[assignment] # as much of one as is used
    results = answers(engine, [embed(0, [inline(seed) for seed in range(10)])])

    assert results[0].status_code == 200
    assert sum(shape[0] for shape in ran) == 10
    assert {shape[1:] for shape in ran} == {(3, 32, 32), (3, 32, 16)}
    engine.close()


def test_no_more_is_gathered_ahead_than_memory_is_meant_for_it(folder_of: FolderOf, load_vision: Load) -> None:
    engine = load_vision(folder_of("vit"), batch_images=2)

    engine.add([embed(0, [inline(seed) for seed in range(40)])])

    assert len(engine._gathering) + sum(map(len, engine._ready.values())) == 6
    assert len(answers(engine, [])[0].body["data"]) == 40
    engine.close()


def test_room_shrinks_with_what_requests_weigh(engine: VisionEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    url = part(data_uri(stored(picture(0))))
    weight = len(url["image_url"]["url"])
    monkeypatch.setattr("workers.engine.vision.engine._HELD_BYTES_MAX", 10 * weight)
    assert engine.room() == 0  # nothing is known of the rows to come: each may be as long as a line

    monkeypatch.setattr("workers.engine.vision.engine.LINE_BYTES_MAX", 2 * weight)
    assert engine.room() == 5
    engine.add([classify(key, url) for key in range(3)])
    assert engine.room() == 7

    engine.abort(range(3))
    assert (engine.room(), engine.in_flight()) == (5, 0)


def test_rows_waiting_are_bounded(folder_of: FolderOf, load_vision: Load) -> None:
    engine = load_vision(folder_of("vit"), rows_waiting_max=3)
    assert engine.room() == 3

    engine.add([embed(key, inline(key)) for key in range(3)])

    assert engine.room() == 0
    assert set(drained(engine)) == {0, 1, 2}
    assert engine.room() == 3
    engine.close()


def test_aborted_rows_do_not_come_back(engine: VisionEngine, server: WebServer) -> None:
    def never(_request: bytes) -> Iterator[bytes]:
        server.go_on.wait()
        yield b""

    server.answers["/never"] = [never]
    engine.add([classify(0, [inline(0), part(server.url("/never"))]), classify(1, inline(1)), classify(2, "text")])

    engine.abort([0, 2, 99])

    assert set(drained(engine)) == {1}


def test_closing_forgets_rows_and_leaves_servers(engine: VisionEngine, server: WebServer) -> None:
    asked = threading.Event()

    def never(_request: bytes) -> Iterator[bytes]:
        asked.set()
        server.go_on.wait()
        yield b""

    server.answers["/never"] = [never]
    engine.add([classify(key, part(server.url("/never"))) for key in range(40)])
    assert asked.wait(30)

    engine.close()

    assert engine.in_flight() == 0


def test_meters_count_batches_images_and_positions(engine: VisionEngine) -> None:
    answers(engine, [classify(0, [inline(seed) for seed in range(6)])])

    meters = engine.meters()

    assert (meters.slot_steps_busy, meters.tokens_prefilled, meters.tokens_padding) == (6, 6 * 17, 0)
    assert meters.slot_steps == 4 * meters.engine_steps


class Tight:
    """A forward pass that runs out of memory above some number of images."""

    def __init__(self, images_max: int) -> None:
        self.images_max = images_max
        self.tried: list[int] = []
        self.freed = 0

    def run(self, pixels: Pixels) -> Seen:
        self.tried.append(len(pixels))
        if len(pixels) > self.images_max:
            raise MemoryError
        return Seen(np.arange(3 * len(pixels), dtype=np.float32).reshape(-1, 3), 5)

    def free(self) -> None:
        self.freed += 1

    def close(self) -> None:
        pass


def test_when_memory_runs_out_fewer_images_run_together(folder_of: FolderOf, load_vision: Load) -> None:
    engine = load_vision(folder_of("vit_classifier"), batch_images=8)
    tight = engine._forward = Tight(3)  # type: ignore[assignment] # as much of one as is used

    results = answers(engine, [classify(key, [inline(key)] * 4) for key in range(6)])

    assert {result.status_code for result in results.values()} == {200}
    assert {result.input_tokens for result in results.values()} == {20}
    assert tight.freed == sum(count > 3 for count in tight.tried) > 0
    assert max(tight.tried[-3:]) <= 3
    engine.close()


def test_an_image_that_does_not_fit_alone_ends_its_row(folder_of: FolderOf, load_vision: Load) -> None:
    engine = load_vision(folder_of("vit_classifier"), batch_images=2)
    engine._forward = Tight(0)  # type: ignore[assignment] # as much of one as is used

    results = answers(engine, [classify(0, inline(0)), classify(1, [inline(1), inline(2)])])

    assert [results[key].body["error"]["code"] for key in (0, 1)] == ["out_of_memory"] * 2
    engine.close()


def test_another_failure_of_the_model_is_raised(engine: VisionEngine) -> None:
    class Broken(Tight):
        def run(self, pixels: Pixels) -> Seen:
            raise RuntimeError(f"{len(pixels)} images")

    engine._forward = Broken(0)  # type: ignore[assignment] # as much of one as is used

    with pytest.raises(RuntimeError, match="1 images"):
        answers(engine, [classify(0, inline(0))])


def test_a_defect_in_preparing_ends_its_row_alone(engine: VisionEngine) -> None:
    prepare = engine._gatherer._prepare

    def picky(image: Any) -> Pixels:  # noqa: ANN401 -- a picture
        if image.size == picture(0).size:
            raise KeyError
        return prepare(image)

    engine._gatherer._prepare = picky

    results = answers(engine, [classify(0, inline(0)), classify(1, inline(1))])

    assert results[0].body["error"]["code"] == "engine_error"
    assert results[1].status_code == 200


def test_batches_compute_side_by_side_and_give_what_they_give_alone(folder_of: FolderOf, tmp_path: Path) -> None:
    spec = ModelSpec(
        name="tiny", source=str(folder_of("vit_classifier")), engine=EngineKind.VISION, options={"batch_images": 1}
    )
    engine = load_engine(spec, cache_dir=tmp_path, device="cpu", threads=2)
    alone = [answers(engine, [classify(seed, inline(seed))])[seed].body["data"] for seed in range(4)]

    together = answers(engine, [classify(key, inline(key % 4)) for key in range(40)])

    for key, result in together.items():
        assert np.allclose(result.body["data"][0]["probs"], alone[key % 4][0]["probs"], atol=1e-5)
        assert result.input_tokens == 17
    engine.close()
