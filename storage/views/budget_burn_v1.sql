-- Budgets are held against what is charged.
CREATE VIEW cost.budget_burn AS
SELECT CAST(batches.created_at AT TIME ZONE 'UTC' AS date) AS day,
       CAST('batch' AS text) AS scope,
       batches.id AS scope_id,
       batches.tenant_id,
       batches.project_id,
       batches.state,
       batches.created_at AS period_start,
       batches.deadline_at AS period_stop,
       coalesce(sums.currency, 'USD') AS currency,
       CAST(batches.budget_micros * 0.000001 AS numeric(20, 6)) AS budget,
       CAST(coalesce(sums.charged_micros, 0) * 0.000001 AS numeric(20, 6)) AS charged,
       CAST((batches.budget_micros - coalesce(sums.charged_micros, 0)) * 0.000001 AS numeric(20, 6)) AS remaining,
       CAST(round(CAST(coalesce(sums.charged_micros, 0) AS numeric) / batches.budget_micros, 6) AS numeric(20, 6)) AS share_used
  FROM nightrate.batches
  LEFT JOIN (SELECT batch_id, min(currency) AS currency, CAST(sum(charged_micros) AS bigint) AS charged_micros
               FROM nightrate.cost_day_sums WHERE batch_id IS NOT NULL GROUP BY batch_id) AS sums ON sums.batch_id = batches.id
 WHERE batches.budget_micros IS NOT NULL;

COMMENT ON VIEW cost.budget_burn IS 'How much of their budgets is used: of batches that have one.';
COMMENT ON COLUMN cost.budget_burn.day IS 'The day on which the batch was submitted, UTC.';
COMMENT ON COLUMN cost.budget_burn.scope IS 'What the budget is of: batch.';
COMMENT ON COLUMN cost.budget_burn.scope_id IS 'Which one.';
COMMENT ON COLUMN cost.budget_burn.tenant_id IS 'Who pays; NULL: overhead, which nobody does.';
COMMENT ON COLUMN cost.budget_burn.project_id IS 'The project of the tenant; NULL: overhead.';
COMMENT ON COLUMN cost.budget_burn.state IS 'Where the batch stands.';
COMMENT ON COLUMN cost.budget_burn.period_start IS 'From when it holds.';
COMMENT ON COLUMN cost.budget_burn.period_stop IS 'Until when it is meant to last: the deadline.';
COMMENT ON COLUMN cost.budget_burn.currency IS 'ISO 4217.';
COMMENT ON COLUMN cost.budget_burn.budget IS 'What may be charged at most, in units of `currency`.';
COMMENT ON COLUMN cost.budget_burn.charged IS 'What the tenant pays, in units of `currency`; 0 where no tenant does.';
COMMENT ON COLUMN cost.budget_burn.remaining IS 'budget less charged, in units of `currency`.';
COMMENT ON COLUMN cost.budget_burn.share_used IS 'charged of budget; over 1: more than it allowed.';
