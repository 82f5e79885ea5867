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
 WHERE batches.budget_micros IS NOT NULL
UNION ALL
-- Of tenants and projects: each month that has charges, and this one; as it is set today.
SELECT months.month,
       CASE WHEN budgets.project_id IS NULL THEN 'tenant' ELSE 'project' END,
       coalesce(budgets.project_id, budgets.tenant_id),
       budgets.tenant_id,
       budgets.project_id,
       CAST(NULL AS varchar),
       CAST(months.month AS timestamp) AT TIME ZONE 'UTC',
       CASE WHEN budgets.period = 'month' THEN CAST(months.month + interval '1 month' AS timestamp) AT TIME ZONE 'UTC' END,
       coalesce((SELECT transactions.currency FROM nightrate.transactions ORDER BY transactions.id DESC LIMIT 1), 'USD'),
       CAST(allowed.micros * 0.000001 AS numeric(20, 6)),
       CAST(spent.micros * 0.000001 AS numeric(20, 6)),
       CAST((allowed.micros - spent.micros) * 0.000001 AS numeric(20, 6)),
       CAST(CASE WHEN allowed.micros > 0 THEN round(CAST(spent.micros AS numeric) / allowed.micros, 6) END AS numeric(20, 6))
  FROM nightrate.budgets
 CROSS JOIN LATERAL (
    SELECT charges.month FROM nightrate.charges_by_month AS charges
     WHERE budgets.period = 'month' AND charges.tenant_id = budgets.tenant_id
       AND (budgets.project_id IS NULL OR charges.project_id = budgets.project_id)
    UNION SELECT CASE WHEN budgets.period = 'month' THEN CAST(date_trunc('month', now() AT TIME ZONE 'UTC') AS date)
                      ELSE DATE '1970-01-01' END) AS months
 CROSS JOIN LATERAL (
    SELECT budgets.amount_micros + coalesce(sum(top_ups.amount_micros), 0) AS micros FROM nightrate.budget_top_ups AS top_ups
     WHERE top_ups.budget_id = budgets.id AND top_ups.period_start = months.month) AS allowed
 CROSS JOIN LATERAL (
    SELECT coalesce(sum(charges.charged_micros), 0) AS micros FROM nightrate.charges_by_month AS charges
     WHERE charges.tenant_id = budgets.tenant_id
       AND (budgets.project_id IS NULL OR charges.project_id = budgets.project_id)
       AND (budgets.period = 'total' OR charges.month = months.month)) AS spent;

COMMENT ON VIEW cost.budget_burn IS 'How much of budgets is used: of batches that have one, and of tenants and projects by month or in all.';
COMMENT ON COLUMN cost.budget_burn.day IS 'The day on which the batch was submitted, UTC; of a month its first; of a budget in all 1970-01-01.';
COMMENT ON COLUMN cost.budget_burn.scope IS 'What the budget is of: batch, project, tenant.';
COMMENT ON COLUMN cost.budget_burn.scope_id IS 'Which one.';
COMMENT ON COLUMN cost.budget_burn.tenant_id IS 'Who pays.';
COMMENT ON COLUMN cost.budget_burn.project_id IS 'The project of the tenant; NULL: of all its projects.';
COMMENT ON COLUMN cost.budget_burn.state IS 'Where the batch stands; NULL: not of a batch.';
COMMENT ON COLUMN cost.budget_burn.period_start IS 'From when it holds.';
COMMENT ON COLUMN cost.budget_burn.period_stop IS 'Until when it is meant to last: the deadline, the end of the month; NULL: no end.';
COMMENT ON COLUMN cost.budget_burn.currency IS 'ISO 4217.';
COMMENT ON COLUMN cost.budget_burn.budget IS 'What may be charged at most, top-ups included, in units of `currency`.';
COMMENT ON COLUMN cost.budget_burn.charged IS 'What is charged, in units of `currency`; of a month, for packs that were begun in it.';
COMMENT ON COLUMN cost.budget_burn.remaining IS 'budget less charged, in units of `currency`.';
COMMENT ON COLUMN cost.budget_burn.share_used IS 'charged of budget; over 1: more than it allowed; NULL: it allows nothing.';
