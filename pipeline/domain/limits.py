"""Every bound in one place: what is refused, and how far a loop may go.

Relations between bounds are asserted at import.
"""

from __future__ import annotations

from typing import Final

# --- input files -------------------------------------------------------------------------------
LINE_BYTES_MAX: Final = 4 * 1024 * 1024
FILE_BYTES_MAX: Final = 20 * 1024**3
FILE_LINES_MAX: Final = 10_000_000
NESTING_MAX: Final = 64
CUSTOM_ID_CHARS_MAX: Final = 64
METADATA_PAIRS_MAX: Final = 16
METADATA_KEY_CHARS_MAX: Final = 64
METADATA_VALUE_CHARS_MAX: Final = 512
#: Bad lines listed on a failed batch; the rest are counted.
LINE_ERRORS_MAX: Final = 100
#: Strings or token arrays in one embeddings request.
EMBEDDING_INPUTS_MAX: Final = 2048
#: Texts of one score, rerank or classify request, or of either side of its pairs.
PAIR_TEXTS_MAX: Final = 2048
STOP_STRINGS_MAX: Final = 4
STOP_TOKENS_MAX: Final = 128
LOGIT_BIASES_MAX: Final = 1024
CONSTRAINT_CHOICES_MAX: Final = 1024

# --- uploads in parts --------------------------------------------------------------------------
UPLOAD_PART_BYTES_MAX: Final = 64 * 1024 * 1024
UPLOAD_PARTS_MAX: Final = 10_000
#: From an upload's creation to its completion: 20 GB in it are 240 kB/s.
UPLOAD_SECONDS: Final = 86_400
#: What all parts of an upload may have at most, by its announced size: parts may be sent again.
UPLOAD_SURPLUS_FACTOR: Final = 2

# --- images ------------------------------------------------------------------------------------
IMAGE_URL_CHARS_MAX: Final = 8192
#: Of one image as it is stored; inside a request the line bounds it first.
IMAGE_BYTES_MAX: Final = 20 * 1024 * 1024
#: Width times height, known before a pixel is decoded: 150 MB in memory.
IMAGE_PIXELS_MAX: Final = 50_000_000
#: The longer side in shorter ones: models resize by the shorter side, and a thread of pixels would become a sheet.
IMAGE_ASPECT_MAX: Final = 100
IMAGE_REDIRECTS_MAX: Final = 3

# --- windows -----------------------------------------------------------------------------------
WINDOW_SECONDS_MIN: Final = 60
WINDOW_SECONDS_MAX: Final = 30 * 86_400

# --- shards and parts --------------------------------------------------------------------------
SHARD_ROWS_MAX: Final = 4096
SHARD_BYTES_MAX: Final = 8 * 1024 * 1024
ROSTER_ROWS_MAX: Final = 100_000
PART_ROWS_MAX: Final = 8192
PART_BYTES_MAX: Final = 32 * 1024 * 1024

# --- packs -------------------------------------------------------------------------------------
PACK_ROWS_MAX: Final = 65_536
PACK_SLICES_MAX: Final = 256
#: Failed attempts of one pack before it is bisected; a single-row pack is convicted at this count.
PACK_FAILURES_BEFORE_BISECT: Final = 2
#: Attempts that found a shard missing or damaged before its rows are given up, minutes apart in all:
#: a disk that is not mounted looks the same for a while.
PACK_UNREAD_BEFORE_CONVICTED: Final = 8

# --- intake and finalizing ---------------------------------------------------------------------
#: Tries that met a missing or damaged object before the batch ends without it.
CLAIM_FAILURES_MAX: Final = 8

# --- recurring batches -------------------------------------------------------------------------
RECURRING_NAME_CHARS_MAX: Final = 63
CRON_CHARS_MAX: Final = 256
#: From one firing to the next: 29 February comes after eight years at most.
CRON_DAYS_AHEAD_MAX: Final = 3660
PATH_CHARS_MAX: Final = 4096
#: Missed firings that a recurring batch may ask to have made up for, and firings that may wait for one another.
CATCH_UP_MAX: Final = 100
FIRINGS_WAITING_MAX: Final = 100
#: Missed firings that the history names; earlier ones are counted.
FIRINGS_SKIPPED_LISTED_MAX: Final = 20
#: A firing no later than this is on time, whatever the policy of catching up.
FIRING_LATE_SECONDS_MAX: Final = 300
#: How far back missed firings are counted.
FIRING_DAYS_BACK_MAX: Final = 31
#: Tries at reading a firing's input, and at writing its output, five hours in all.
FIRING_TRIES_MAX: Final = 12
DELIVERY_TRIES_MAX: Final = 12

# --- webhooks ----------------------------------------------------------------------------------
WEBHOOKS_PER_TENANT_MAX: Final = 100
WEBHOOK_URL_CHARS_MAX: Final = 2048
WEBHOOK_DESCRIPTION_CHARS_MAX: Final = 500
#: How long two secrets may sign side by side.
WEBHOOK_OVERLAP_SECONDS_MAX: Final = 7 * 86_400
#: Of an answer, which is thrown away.
WEBHOOK_ANSWER_BYTES_MAX: Final = 64 * 1024
#: Of one try, from the name to the end of the answer.
WEBHOOK_SECONDS_MAX: Final = 15.0
#: Under way at once, to all webhooks and to one.
WEBHOOK_SENDERS: Final = 16
WEBHOOK_SENDERS_PER_WEBHOOK: Final = 4
#: A try whose sender is not heard of is made again after this.
WEBHOOK_CLAIM_SECONDS: Final = 60.0

# --- money -------------------------------------------------------------------------------------
#: 10,000 currency units an hour: past it a rate is a typing error.
RATE_MICROS_PER_HOUR_MAX: Final = 10_000_000_000
#: 1,000,000 currency units per million tokens, all multipliers counted.
TOKEN_PRICE_PICOS_MAX: Final = 10**12
#: Of a row, prompt and answer: far past any model's context.
_ROW_TOKENS_MOST: Final = 900_000

assert UPLOAD_PART_BYTES_MAX * UPLOAD_PARTS_MAX >= FILE_BYTES_MAX
# The dearest batch that there may be is charged what the ledger's 64 bits hold.
assert FILE_LINES_MAX * _ROW_TOKENS_MOST * TOKEN_PRICE_PICOS_MAX // 10**6 < 2**63
assert CATCH_UP_MAX <= FIRINGS_WAITING_MAX
assert LINE_BYTES_MAX <= SHARD_BYTES_MAX <= PART_BYTES_MAX
assert SHARD_ROWS_MAX <= PACK_ROWS_MAX
assert SHARD_ROWS_MAX <= ROSTER_ROWS_MAX
assert WEBHOOK_SENDERS_PER_WEBHOOK < WEBHOOK_SENDERS
assert WEBHOOK_SECONDS_MAX * 2 < WEBHOOK_CLAIM_SECONDS
