-- What was reused took no time, and cancels with its credit. Shares are of the pool's day, over all markets and kinds of machines.
CREATE OR REPLACE VIEW cost.utilisation AS
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
 WHERE sums.category = 'compute' AND sums.kind NOT IN ('reused', 'cache_credit')
 GROUP BY 1, 2, 3, 4, 5, 6, 7
 WINDOW pool_day AS (PARTITION BY sums.day, sums.pool, sums.currency);

