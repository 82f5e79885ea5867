"""The one pass over the input file: every line checked, and what later steps need of it spooled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from typing import Any, BinaryIO, Final

import orjson

from pipeline.domain.endpoints import Endpoint
from pipeline.domain.errors import RequestRefusedError
from pipeline.domain.ids import BatchId
from pipeline.domain.limits import FILE_BYTES_MAX, FILE_LINES_MAX, LINE_BYTES_MAX, LINE_ERRORS_MAX
from pipeline.domain.objects.shard import encode_row
from pipeline.domain.parameters import check_body
from pipeline.ports.batches import LineError
from pipeline.submit.again import RowsAgain
from pipeline.submit.envelope import BadLineError, EnvelopeChecker, is_blank, too_long, truncated
from pipeline.submit.estimate import image_bytes_of, output_tokens, output_tokens_assumed
from pipeline.submit.fingerprint import digests
from pipeline.submit.lines import LineBlock, read_lines
from pipeline.submit.prefixes import Levels, levels_of
from pipeline.submit.refusals import Refusals
from pipeline.submit.spool import Column, DigestColumn, Payloads, RaggedColumn, Spool

#: Rows between two reports of progress.
PROGRESS_ROWS: Final = 50_000
#: Line number, custom id, body and its JSON.
_Request = tuple[int, str, dict[str, Any], bytes]


class Requests:
    """The requests of one file, in input order, as columns on disk."""

    def __init__(self, spool: Spool, batch_id: BatchId) -> None:
        """Keep the requests of `batch_id` in `spool`."""
        # One entry for each request.
        self.custom_ids = Payloads(spool, "custom-ids")
        self.custom_id_digests = DigestColumn(spool, "custom-id-digests")
        self.line_nos = Column(spool, "line-nos", "I")
        self.is_refused = Column(spool, "is-refused", "B")
        self.refusals = Refusals(spool, batch_id)
        # One entry for each request that was not refused.
        self.fingerprints = DigestColumn(spool, "fingerprints")
        self.first_levels = Column(spool, "first-levels", "I")
        self.further_levels = RaggedColumn(spool, "further-levels")
        self.row_bytes = Column(spool, "row-bytes", "I")
        self.image_bytes = Column(spool, "image-bytes", "i")
        self.output_tokens = Column(spool, "output-tokens", "I")
        self.rows = Payloads(spool, "rows")


class RequestReader:
    """Reads one file: fills `requests`, and `errors` with the first that make the batch fail."""

    def __init__(
        self,
        requests: Requests,
        endpoint: Endpoint,
        models: Mapping[str, frozenset[Endpoint]],
        again: RowsAgain | None = None,
    ) -> None:
        """Read a batch that calls `endpoint`, against the known `models`; given `again`, only its requests are taken."""
        self.requests = requests
        self.checker = EnvelopeChecker(endpoint, models)
        #: The first bad lines, at most `LINE_ERRORS_MAX`, and how many there are.
        self.errors: list[LineError] = []
        self.errors_total = 0
        #: Lines that are not blank; of a retry those that are taken.
        self.rows_total = 0
        self._endpoint = endpoint
        self._again = again
        self._levels = levels_of(endpoint)
        self._image_bytes = image_bytes_of(endpoint)
        self._output_tokens_assumed = output_tokens_assumed(endpoint)

    def read(self, source: BinaryIO, on_progress: Callable[[int], None] | None) -> None:
        """Read `source` to its end, or to where it is too long."""
        reported = 0
        for block in read_lines(source, line_bytes_max=LINE_BYTES_MAX):
            self._take(block)
            if block.first_line_no + len(block.lines) - 1 > FILE_LINES_MAX:
                return self.refuse_file("too_many_tasks", f"The input file has more than {FILE_LINES_MAX:,} lines.")
            if block.bytes_read > FILE_BYTES_MAX:
                return self.refuse_file("file_too_large", f"The input file is larger than {FILE_BYTES_MAX:,} bytes.")
            if on_progress is not None and self.rows_total - reported >= PROGRESS_ROWS:
                reported = self.rows_total
                on_progress(reported)
        if not self.rows_total:
            self.refuse_file("empty_file", "The input file has no requests.")
        return None

    def refuse_file(self, code: str, message: str) -> None:
        """Put an error of the whole file before those of its lines."""
        self.errors.insert(0, LineError(code=code, message=message, param=None, line=None))
        del self.errors[LINE_ERRORS_MAX:]
        self.errors_total += 1

    def _take(self, block: LineBlock) -> None:
        """Check the lines of `block` and spool the requests among them."""
        endpoint = self._endpoint
        levels, image_bytes, assumed = self._levels, self._image_bytes, self._output_tokens_assumed
        line_nos: list[int] = []
        custom_ids: list[str] = []
        refused: list[tuple[int, RequestRefusedError]] = []
        bodies: list[tuple[int, bytes, Levels, int, int]] = []
        for line_no, custom_id, body, body_json in self._checked(block):
            line_nos.append(line_no)
            custom_ids.append(custom_id)
            try:
                check_body(endpoint, body)
            except RequestRefusedError as refusal:
                refused.append((line_no, refusal))
                continue
            bodies.append((line_no, body_json, levels(body), image_bytes(body), output_tokens(body, assumed)))
        self.rows_total += len(line_nos)
        self._spool(line_nos, custom_ids, refused, bodies)

    def _checked(self, block: LineBlock) -> Sequence[_Request]:
        """Return the requests of `block` that are to be taken, and list what is wrong with other lines."""
        check = self.checker.check
        found: list[_Request] = []
        for line_no, line in enumerate(block.lines, block.first_line_no):
            try:
                if line is None:
                    raise too_long()
                found.append((line_no, *check(line)))
            except BadLineError as error:
                if line is None or not is_blank(line):
                    # A block that ends without a newline is that one line.
                    self._refuse_line(line_no, truncated(error) if block.is_cut else error)
        if self._again is None:
            return found
        return list(compress(found, self._again.has([custom_id for _, custom_id, _, _ in found])))

    def _refuse_line(self, line_no: int, error: BadLineError) -> None:
        self.rows_total += 1
        self.errors_total += 1
        if len(self.errors) < LINE_ERRORS_MAX:
            self.errors.append(LineError(code=error.code, message=error.message, param=error.param, line=line_no))

    def _spool(
        self,
        line_nos: list[int],
        custom_ids: list[str],
        refused: list[tuple[int, RequestRefusedError]],
        bodies: list[tuple[int, bytes, Levels, int, int]],
    ) -> None:
        if not custom_ids:
            return
        requests = self.requests
        # One call writes all ids. Inside a string a quote has a backslash before it, so `","` only separates.
        id_jsons = orjson.dumps(custom_ids)[2:-2].split(b'","')
        requests.custom_ids.extend([b'"', b'"\n"'.join(id_jsons), b'"\n'])
        requests.custom_id_digests.extend(digests(id_jsons))
        requests.line_nos.extend(line_nos)
        refused_nos = {line_no for line_no, _ in refused}
        requests.is_refused.extend(
            [line_no in refused_nos for line_no in line_nos] if refused_nos else bytes(len(line_nos))
        )
        requests.refusals.extend(refused)
        if not bodies:
            return
        run_line_nos, body_jsons, levels, image_bytes, tokens = zip(*bodies, strict=True)
        rows = list(map(encode_row, run_line_nos, body_jsons))
        requests.fingerprints.extend(digests(body_jsons))
        first_levels, further_levels = zip(*levels, strict=True)
        requests.first_levels.extend(first_levels)
        requests.further_levels.extend(further_levels)
        requests.image_bytes.extend(image_bytes)
        requests.output_tokens.extend(tokens)
        requests.row_bytes.extend(list(map(len, rows)))
        requests.rows.extend(rows)
