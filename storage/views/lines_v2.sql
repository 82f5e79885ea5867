-- Every line of the journal that says what was had for a cost: a batch's, or an overhead's; not those that say whom it
-- is owed to. It names only what never changes; what may (a batch's labels, its tier) is joined by the views that tell it.
CREATE OR REPLACE VIEW nightrate.cost_lines AS
SELECT transactions.id AS transaction_id, entries.line,
       date_trunc('hour', transactions.period_start, 'UTC') AS hour,
       CAST(transactions.period_start AT TIME ZONE 'UTC' AS date) AS day,
       transactions.period_start, transactions.period_stop, transactions.created_at AS posted_at,
       entries.batch_id,
       CASE WHEN entries.batch_id IS NULL THEN substr(entries.account, 10)
            WHEN transactions.method = 'cache_credit_v1' THEN
                 -- Lines come in pairs: see pipeline.domain.costs.reusing.
                 CASE entries.line % 2 WHEN 0 THEN 'reused' ELSE 'cache_credit' END
            WHEN coalesce(undone.kind, transactions.kind) = 'allocation' THEN 'shared' ELSE 'work' END AS kind,
       coalesce(workers.pool, packs.pool, (
           SELECT substr(min(owed.account), 10) FROM nightrate.entries AS owed
            WHERE owed.transaction_id = transactions.id AND owed.account LIKE 'supplier:%'),
           transactions.detail ->> 'pool') AS pool,
       workers.market, workers.provider, workers.instance_type, workers.region, workers.zone,
       transactions.worker_id, transactions.pack_id,
       coalesce(spans.model, packs.model, (
           SELECT shards.model FROM nightrate.shards WHERE shards.batch_id = entries.batch_id
            ORDER BY shard_no LIMIT 1)) AS model,
       coalesce(spans.variant, packs.variant) AS variant,
       packs.tier,
       transactions.category, transactions.kind AS transaction_kind, transactions.method, transactions.source,
       transactions.currency,
       entries.list_micros, entries.contracted_micros, entries.effective_micros, entries.billed_micros,
       entries.on_demand_micros, entries.charged_micros,
       entries.row_count, entries.input_tokens, entries.output_tokens,
       -- A span of a worker is split as its price is, by a difference of two floors: the parts sum to the span.
       CAST(CASE WHEN transactions.start_us IS NULL THEN 0
                 WHEN whole.micros > 0
                 THEN div((spans.stop_us - spans.start_us) * (whole.before_micros + entries.effective_micros), whole.micros)
                      - div((spans.stop_us - spans.start_us) * whole.before_micros, whole.micros)
                 WHEN entries.line = whole.first_line THEN spans.stop_us - spans.start_us
                 ELSE 0 END AS bigint) AS worker_us
  FROM nightrate.entries
  JOIN nightrate.transactions ON transactions.id = entries.transaction_id
  LEFT JOIN nightrate.transactions AS undone ON undone.id = transactions.reverses_id
  LEFT JOIN nightrate.workers ON workers.id = transactions.worker_id
  LEFT JOIN nightrate.packs ON packs.id = transactions.pack_id
  LEFT JOIN nightrate.worker_intervals AS spans
         ON spans.worker_id = transactions.worker_id AND spans.start_us = transactions.start_us
  LEFT JOIN LATERAL (
      SELECT sum(had.effective_micros) AS micros, min(had.line) AS first_line,
             coalesce(sum(had.effective_micros) FILTER (WHERE had.line < entries.line), 0) AS before_micros
        FROM nightrate.entries AS had
       WHERE had.transaction_id = transactions.id AND (had.batch_id IS NOT NULL OR had.account LIKE 'overhead:%')) AS whole
         ON transactions.start_us IS NOT NULL
 WHERE entries.batch_id IS NOT NULL OR entries.account LIKE 'overhead:%';

