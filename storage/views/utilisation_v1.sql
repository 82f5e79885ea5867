-- Shares are of the pool's day, over all markets and kinds of machines.
CREATE VIEW cost.utilisation AS
SELECT sums.day,
       sums.pool,
       sums.market,
       sums.instance_type,
       sums.region,
       sums.kind,
       sums.currency,
       CAST(sum(sums.worker_us) * 0.000001 AS numeric(20, 6)) AS worker_seconds,
       CAST(sum(sums.effective_micros) * 0.000001 AS numeric(20, 6)) AS effective_cost,
       CAST(round(sum(sums.worker_us) / nullif(sum(sum(sums.worker_us)) OVER pool_day, 0), 6) AS numeric(20, 6)) AS share_of_time,
       CAST(round(sum(sums.effective_micros) / nullif(sum(sum(sums.effective_micros)) OVER pool_day, 0), 6) AS numeric(20, 6)) AS share_of_cost,
       sums.kind NOT IN ('work', 'shared') AS is_waste
  FROM nightrate.cost_day_sums AS sums
 WHERE sums.category = 'compute'
 GROUP BY 1, 2, 3, 4, 5, 6, 7
 WINDOW pool_day AS (PARTITION BY sums.day, sums.pool, sums.currency);

COMMENT ON VIEW cost.utilisation IS 'What the time of workers went to, by day, pool, kind of machine and kind of use: what was not work is waste, and this says which.';
COMMENT ON COLUMN cost.utilisation.day IS 'The day of use, UTC.';
COMMENT ON COLUMN cost.utilisation.pool IS 'The pool of workers, or the supplier.';
COMMENT ON COLUMN cost.utilisation.market IS 'spot or on_demand; NULL where no worker was used.';
COMMENT ON COLUMN cost.utilisation.instance_type IS 'The provider''s name for the kind of machine; NULL: not known.';
COMMENT ON COLUMN cost.utilisation.region IS 'Where; NULL: not known.';
COMMENT ON COLUMN cost.utilisation.kind IS 'work: a batch had the use of it; shared: overhead that a rule shared over batches; else the kind of overhead: boot, load, idle, drain, shadow, late, lost, preempted, retried, probe, minimum, rounding, unexplained, storage, network, external_api.';
COMMENT ON COLUMN cost.utilisation.currency IS 'ISO 4217.';
COMMENT ON COLUMN cost.utilisation.worker_seconds IS 'Seconds of workers (of one GPU each), to the microsecond.';
COMMENT ON COLUMN cost.utilisation.effective_cost IS 'With commitments spread over what they cover: what it really cost, in units of `currency`.';
COMMENT ON COLUMN cost.utilisation.share_of_time IS 'Of the pool''s worker_seconds that day, from 0 to 1.';
COMMENT ON COLUMN cost.utilisation.share_of_cost IS 'Of the pool''s effective_cost that day; what is shared over batches counts as theirs.';
COMMENT ON COLUMN cost.utilisation.is_waste IS 'No batch had the use of it, nor was it shared over any.';
