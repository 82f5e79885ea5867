-- Time without a market is in neither share.
CREATE VIEW cost.spot AS
SELECT sums.day,
       sums.pool,
       sums.provider,
       sums.instance_type,
       sums.region,
       sums.currency,
       CAST(coalesce(sum(sums.worker_us) FILTER (WHERE sums.market = 'spot'), 0) * 0.000001 AS numeric(20, 6)) AS spot_seconds,
       CAST(coalesce(sum(sums.worker_us) FILTER (WHERE sums.market = 'on_demand'), 0) * 0.000001 AS numeric(20, 6)) AS on_demand_seconds,
       CAST(round(coalesce(sum(sums.worker_us) FILTER (WHERE sums.market = 'spot'), 0) / nullif(sum(sums.worker_us), 0), 6) AS numeric(20, 6)) AS spot_share,
       CAST(coalesce(sum(sums.effective_micros) FILTER (WHERE sums.market = 'spot'), 0) * 0.000001 AS numeric(20, 6)) AS spot_cost,
       CAST(sum(sums.effective_micros) * 0.000001 AS numeric(20, 6)) AS effective_cost,
       CAST(sum(sums.on_demand_micros) * 0.000001 AS numeric(20, 6)) AS on_demand_cost,
       CAST((sum(sums.on_demand_micros) - sum(sums.effective_micros)) * 0.000001 AS numeric(20, 6)) AS saving,
       CAST(round((sum(sums.on_demand_micros) - sum(sums.effective_micros)) / nullif(sum(sums.on_demand_micros), 0), 6) AS numeric(20, 6)) AS saving_share
  FROM nightrate.cost_day_sums AS sums
 WHERE sums.category = 'compute' AND sums.market IS NOT NULL
 GROUP BY 1, 2, 3, 4, 5, 6;

COMMENT ON VIEW cost.spot IS 'How much of the workers'' time was spot, and what it saved, by day, pool and kind of machine.';
COMMENT ON COLUMN cost.spot.day IS 'The day of use, UTC.';
COMMENT ON COLUMN cost.spot.pool IS 'The pool of workers, or the supplier.';
COMMENT ON COLUMN cost.spot.provider IS 'Whose machine it was; NULL: not known.';
COMMENT ON COLUMN cost.spot.instance_type IS 'The provider''s name for the kind of machine; NULL: not known.';
COMMENT ON COLUMN cost.spot.region IS 'Where; NULL: not known.';
COMMENT ON COLUMN cost.spot.currency IS 'ISO 4217.';
COMMENT ON COLUMN cost.spot.spot_seconds IS 'Seconds of spot workers.';
COMMENT ON COLUMN cost.spot.on_demand_seconds IS 'Seconds of workers at on-demand prices.';
COMMENT ON COLUMN cost.spot.spot_share IS 'spot_seconds of all, from 0 to 1; NULL without time.';
COMMENT ON COLUMN cost.spot.spot_cost IS 'effective_cost of spot workers, in units of `currency`.';
COMMENT ON COLUMN cost.spot.effective_cost IS 'With commitments spread over what they cover: what it really cost, in units of `currency`.';
COMMENT ON COLUMN cost.spot.on_demand_cost IS 'What the same would have cost on demand, at list price, in units of `currency`.';
COMMENT ON COLUMN cost.spot.saving IS 'on_demand_cost less effective_cost, in units of `currency`.';
COMMENT ON COLUMN cost.spot.saving_share IS 'saving of on_demand_cost, at most 1; NULL where that is 0.';
