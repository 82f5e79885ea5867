"""What goes when its time is over, and what is still to be seen of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text

from pipeline.app.sweeping import Sweeper
from pipeline.domain.errors import ObjectMissingError, StoreUnavailableError
from tests.pipeline.http.served import Served
from tests.services import eventually

LINE = (
    b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions",'
    b'"body":{"model":"echo","messages":[{"role":"user","content":"x"}]}}\n'
)


def run_out(api: Served, *file_ids: str) -> None:
    with api.stack.database.transaction() as connection:
        statement = text("UPDATE files SET expires_at = now() WHERE id = ANY(:ids)")
        connection.execute(statement, {"ids": list(file_ids)})


def sweep(api: Served) -> None:
    sweeper = Sweeper(api.stack, grace=timedelta(0))
    while sweeper.run_once():
        pass


def test_a_file_that_expired_is_gone_with_its_object(quiet: Served) -> None:
    file_ids = [quiet.upload(LINE).json["id"] for _ in range(3)]
    keys = [quiet.stack.files.get(file_id).object_key for file_id in file_ids]
    run_out(quiet, *file_ids[:2])

    assert [quiet.ask("GET", f"/v1/files/{file_id}/content").status for file_id in file_ids] == [404, 404, 200]
    sweep(quiet)

    for key in keys[:2]:
        with pytest.raises(ObjectMissingError):
            quiet.stack.objects.head(key)
    assert quiet.ask("GET", f"/v1/files/{file_ids[2]}/content").content == LINE
    listed = [file["id"] for file in quiet.ask("GET", "/v1/files").json["data"]]
    assert set(file_ids) & set(listed) == {file_ids[2]}


def test_a_sweep_that_was_killed_in_the_middle_goes_on(quiet: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    file_ids = [quiet.upload(LINE).json["id"] for _ in range(3)]
    keys = [quiet.stack.files.get(file_id).object_key for file_id in file_ids]
    run_out(quiet, *file_ids)

    class Killed(BaseException):
        pass

    with monkeypatch.context() as broken:
        # After the object, before the record of it.
        removed = quiet.stack.files.removed

        def die(*_: object) -> None:
            raise Killed

        broken.setattr(type(quiet.stack.files), "removed", die)
        with pytest.raises(Killed):
            sweep(quiet)
        broken.setattr(type(quiet.stack.files), "removed", lambda _, file_id: removed(file_id))
        broken.setattr(type(quiet.stack.objects), "delete", _refuse)
        with pytest.raises(StoreUnavailableError):
            sweep(quiet)
    sweep(quiet)

    for key in keys:
        with pytest.raises(ObjectMissingError):
            quiet.stack.objects.head(key)
    assert quiet.stack.files.removable(grace=timedelta(0), limit=10) == []


def _refuse(*_: object) -> None:
    raise StoreUnavailableError("away")


def test_nothing_is_removed_before_its_grace_is_over(quiet: Served) -> None:
    file_id = quiet.upload(LINE).json["id"]
    key = quiet.stack.files.get(file_id).object_key
    quiet.ask("DELETE", f"/v1/files/{file_id}")

    Sweeper(quiet.stack).run_once()

    assert quiet.stack.objects.read(key) == LINE


def test_a_sweeper_that_found_nothing_rests(quiet: Served) -> None:
    sweeper = Sweeper(quiet.stack, grace=timedelta(0), every_seconds=3600.0)
    assert not sweeper.run_once()
    file_id = quiet.upload(LINE).json["id"]
    run_out(quiet, file_id)

    # However often it is woken meanwhile.
    assert not sweeper.run_once()
    assert quiet.stack.files.expire() == 1
    sweep(quiet)


def test_a_batch_names_its_files_after_they_expired_and_their_content_is_not_there(whole: Served) -> None:
    asked = {
        "input_file_id": whole.upload(LINE).json["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    path = f"/v1/batches/{whole.ask('POST', '/v1/batches', asked).json['id']}"
    eventually(lambda: whole.ask("GET", path).json["status"] == "completed")
    output = whole.ask("GET", path).json["output_file_id"]
    assert whole.ask("GET", f"/v1/files/{output}/content").status == 200
    run_out(whole, output)
    sweep(whole)

    assert whole.ask("GET", path).json["output_file_id"] == output
    assert whole.ask("GET", f"/v1/files/{output}").status == 404
    assert whole.ask("GET", f"/v1/files/{output}/content").status == 404
    assert whole.ask("GET", f"{path}/results").status == 404
