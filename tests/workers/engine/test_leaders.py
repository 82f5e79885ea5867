from __future__ import annotations

from workers.engine.openvino_chat.leaders import PREFIX_TOKENS, Leaders

LONG = list(range(PREFIX_TOKENS + 5))
OTHER = list(range(100, 100 + PREFIX_TOKENS + 5))


def test_one_row_of_a_beginning_goes_first_and_the_others_once_it_is_computed() -> None:
    leaders = Leaders()

    assert leaders.may_enter(1, LONG)
    assert not leaders.may_enter(2, [*LONG, 7])
    assert leaders.may_enter(3, OTHER)
    assert leaders.keys() == {1, 3}

    leaders.computed([1])
    assert leaders.may_enter(2, [*LONG, 7])
    assert leaders.keys() == {3}


def test_short_rows_wait_for_nobody() -> None:
    leaders = Leaders()

    assert all(leaders.may_enter(key, LONG[:PREFIX_TOKENS]) for key in range(3))
    assert leaders.keys() == frozenset()


def test_when_a_leader_is_gone_the_next_one_leads() -> None:
    leaders = Leaders()
    leaders.may_enter(1, LONG)

    leaders.forget([1])

    assert leaders.may_enter(2, LONG)
    assert not leaders.may_enter(3, LONG)


def test_what_was_not_used_for_long_is_led_again() -> None:
    leaders = Leaders()
    for key in range(300):
        leaders.may_enter(key, [key, *LONG])
        leaders.computed([key])

    assert leaders.may_enter(1000, [299, *LONG])
    assert leaders.may_enter(1001, [0, *LONG])
    assert leaders.keys() == {1001}
