import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import ModelUnavailableError
from pipeline.ports.engine import EngineRequest
from tests.workers.engine.driving import answers, completion, drained, prompts, references, text

Load = Callable[..., Any]


@pytest.mark.parametrize("model", ["llama_folder", "gpt2_folder"])
def test_batched_answers_equal_one_by_one_ones(model: str, load: Load, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    texts = prompts(14)

    results = answers(load(folder, slots=5), [completion(i, t, max_tokens=4 + i) for i, t in enumerate(texts)])

    assert [text(results[i]) for i in range(14)] == references(folder, {t: 4 + i for i, t in enumerate(texts)})


def test_rows_that_enter_midway_change_no_answer(load: Load, llama_folder: Path) -> None:
    texts = prompts(9)
    together = answers(load(llama_folder), [completion(i, t) for i, t in enumerate(texts)])
    engine = load(llama_folder, slots=4)

    results = []
    for i, t in enumerate(texts):
        engine.add([completion(i, t)])
        results += engine.step()
    late = {result.key: result for result in results} | drained(engine)

    assert {key: text(result) for key, result in late.items()} == {key: text(r) for key, r in together.items()}


def test_seeded_and_unseeded_sampling_repeat_in_any_batch(load: Load, llama_folder: Path) -> None:
    rows = [completion(i, t, temperature=1.2, top_p=0.9) for i, t in enumerate(prompts(6))]
    rows += [completion(6 + i, "same", temperature=1.0, seed=i) for i in range(6)]

    wide = answers(load(llama_folder), rows)
    narrow = answers(load(llama_folder, slots=2), list(reversed(rows)))

    assert {k: text(r) for k, r in wide.items()} == {k: text(r) for k, r in narrow.items()}
    assert len({text(wide[6 + i]) for i in range(6)}) > 3


def test_penalties_change_the_answer_of_their_own_row_only(load: Load, llama_folder: Path) -> None:
    texts = prompts(6)
    plain = answers(load(llama_folder), [completion(i, t, max_tokens=24, temperature=0) for i, t in enumerate(texts)])
    rows = [
        completion(i, t, max_tokens=24, temperature=0, **({"frequency_penalty": 2.0} if i % 2 else {}))
        for i, t in enumerate(texts)
    ]

    results = answers(load(llama_folder), rows)

    assert all(text(results[i]) == text(plain[i]) for i in (0, 2, 4))
    assert any(text(results[i]) != text(plain[i]) for i in (1, 3, 5))


def test_an_answer_is_cut_before_its_stop_string(load: Load, llama_folder: Path) -> None:
    engine = load(llama_folder)
    whole = text(answers(engine, [completion(0, "abc", max_tokens=40)])[0])
    stop = next(whole[i : i + 2] for i in range(4, len(whole)) if whole[i : i + 2].isprintable())

    result = answers(engine, [completion(0, "abc", max_tokens=40, stop=["never there", stop])])[0]

    assert text(result) == whole[: whole.index(stop)]
    assert result.body["choices"][0]["finish_reason"] == "stop"
    assert result.output_tokens < 40


def test_an_answer_ends_at_its_bound_and_is_counted(load: Load, llama_folder: Path) -> None:
    result = answers(load(llama_folder, ignore_end=True), [completion(5, "abcd", max_tokens=9)])[5]

    assert (result.input_tokens, result.output_tokens) == (4, 9)
    assert result.body["choices"][0]["finish_reason"] == "length"
    assert result.body["usage"]["total_tokens"] == 13
    assert result.body["object"] == "text_completion"


def test_text_never_ends_in_part_of_a_character(load: Load, llama_folder: Path) -> None:
    rows = [completion(i, t, temperature=2.0, max_tokens=7) for i, t in enumerate(prompts(20))]

    results = answers(load(llama_folder), rows)

    assert not any(text(result).endswith("\N{REPLACEMENT CHARACTER}") for result in results.values())


def test_a_prompt_beyond_the_context_is_that_rows_error(load: Load, llama_folder: Path) -> None:
    results = answers(load(llama_folder), [completion(0, "x" * 300), completion(1, "fine")])

    assert results[0].status_code == 400
    assert results[0].body["error"]["code"] == "context_length_exceeded"
    assert results[1].status_code == 200


def test_half_a_surrogate_pair_fails_its_own_row_only(load: Load, llama_folder: Path) -> None:
    results = answers(load(llama_folder), [completion(0, "a"), completion(1, "\ud800"), completion(2, "b")])

    assert [results[i].status_code for i in range(3)] == [200, 500, 200]


def test_the_answer_stops_where_the_context_ends(load: Load, llama_folder: Path) -> None:
    result = answers(load(llama_folder, ignore_end=True), [completion(0, "x" * 250, max_tokens=100)])[0]

    assert result.output_tokens == 6


def test_aborted_rows_do_not_come_back_and_leave_the_rest_alone(load: Load, llama_folder: Path) -> None:
    texts = prompts(8)
    alone = answers(load(llama_folder), [completion(i, t) for i, t in enumerate(texts)])
    engine = load(llama_folder, slots=4, ignore_end=False)
    engine.add([completion(i, t) for i, t in enumerate(texts)])
    first = {result.key: result for result in engine.step()}
    gone = [key for key in range(0, 8, 2) if key not in first]

    engine.abort(gone)
    rest = first | drained(engine)

    assert set(rest) == set(range(8)) - set(gone)
    assert all(text(result) == text(alone[key]) for key, result in rest.items())


def test_a_small_memory_budget_admits_fewer_rows_and_answers_all(load: Load, llama_folder: Path) -> None:
    texts = prompts(6)
    one_bucket = 128 * 2 * 3 * 2 * 8 * 4  # tokens x keys and values x layers x key heads x head dimension x bytes

    engine = load(llama_folder, cache_bytes_max=2 * one_bucket)
    results = answers(engine, [completion(i, t) for i, t in enumerate(texts)])

    cache = engine._decoder.cache
    assert cache.slots * cache.tokens * cache.shape.bytes_per_token <= 2 * one_bucket
    assert {k: text(r) for k, r in results.items()} == {
        k: text(r) for k, r in answers(load(llama_folder), [completion(i, t) for i, t in enumerate(texts)]).items()
    }


def test_room_is_slots_and_look_ahead_less_what_is_in_flight(load: Load, llama_folder: Path) -> None:
    engine = load(llama_folder, slots=4, lookahead=3)
    assert engine.room() == 7

    engine.add([completion(i, "a") for i in range(9)])

    assert (engine.room(), engine.in_flight()) == (0, 9)


def test_chat_answers_have_openais_shape_and_a_stable_id(load: Load, llama_folder: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {"model": "tiny", "messages": [{"role": "developer", "content": parts}], "max_tokens": 3}
    row = EngineRequest(1, Endpoint.CHAT_COMPLETIONS, body)

    first, second = (answers(load(llama_folder), [row])[1].body for _ in range(2))

    assert first["object"] == "chat.completion"
    assert first["choices"][0]["message"]["role"] == "assistant"
    assert first["id"].startswith("chatcmpl-")
    assert first["usage"]["prompt_tokens"] == len("system:ab\n")
    assert (first["id"], first["choices"]) == (second["id"], second["choices"])


def test_an_unknown_option_is_named(load: Load, llama_folder: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="slotz"):
        load(llama_folder, slotz=3)


def test_its_counters_tell_steps_occupancy_and_tokens(load: Load, llama_folder: Path) -> None:
    engine = load(llama_folder, slots=4, ignore_end=True)
    head = "a beginning that is longer than sixteen tokens: "

    results = answers(engine, [completion(i, head + "x" * i, max_tokens=6) for i in range(8)])

    meters = engine.meters()
    assert meters.tokens_generated == meters.slot_steps_busy == sum(r.output_tokens for r in results.values()) == 48
    assert meters.slot_steps == meters.engine_steps * 4 == 48
    assert meters.tokens_prefilled + meters.tokens_cached == sum(r.input_tokens for r in results.values())
    assert meters.tokens_cached >= len(head) * 6
    assert meters.tokens_padding == 0
    assert engine.meters() == meters


def test_prompts_computed_at_one_length_count_their_padding(load: Load, gpt2_folder: Path) -> None:
    engine = load(gpt2_folder, slots=4, ignore_end=True)

    answers(engine, [completion(0, "abc", max_tokens=2), completion(1, "abcdefgh", max_tokens=2)])

    assert (engine.meters().tokens_prefilled, engine.meters().tokens_padding) == (11, 5)
    assert engine.meters().tokens_cached == 0


def test_an_answer_names_engine_version_precision_and_weights(
    load: Load, llama_folder: Path, gpt2_folder: Path
) -> None:
    llama, gpt2 = load(llama_folder), load(gpt2_folder)

    result = answers(llama, [completion(0, "abc")])[0]

    assert result.body["system_fingerprint"] == llama.identity.fingerprint
    assert re.fullmatch(r"torch-2\.\d+\.\d+-float32-[0-9a-f]{12}", llama.identity.fingerprint)
    assert llama.identity.fingerprint != gpt2.identity.fingerprint
    assert llama.identity.device == "cpu"


def test_a_short_row_is_not_overtaken_for_ever(load: Load, llama_folder: Path) -> None:
    engine = load(llama_folder, slots=2, lookahead=2, ignore_end=True)
    engine.add([completion(0, "short", max_tokens=1)])
    fed = 1
    done: list[int] = []

    while 0 not in done and fed < 100:
        room = engine.room()
        engine.add([completion(fed + i, "long", max_tokens=6) for i in range(room)])
        fed += room
        done += [result.key for result in engine.step()]

    assert 0 in done
    assert fed <= 4 * 3
